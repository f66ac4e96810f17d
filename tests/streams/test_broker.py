"""The Redis broker: what is queued arrives, and a server that is away costs a line and no wait."""

import math
import signal
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from django.db import transaction
from django_q.brokers import get_broker
from django_q.conf import Conf
from django_q.signing import SignedPackage
from django_q.tasks import async_task

from streams import broker
from streams.models import Capture
from tests.servers import Redis
from tests.streams.builders import make_capture


@pytest.fixture
def server(own_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    """The broker of this process, for the test."""
    monkeypatch.setattr(Conf, "BROKER_CLASS", "streams.broker.Redis")
    monkeypatch.setattr(Conf, "REDIS", own_redis.url)
    monkeypatch.setattr(broker, "_outage", broker._Outage())
    broker._pool.cache_clear()
    yield own_redis
    broker._pool.cache_clear()


def take() -> list[str]:
    """The names of the jobs that are queued."""
    names = []
    while tasks := get_broker().dequeue():
        names += [SignedPackage.loads(task)["name"] for _, task in tasks]
    return names


def test_what_is_queued_arrives_in_order(server: Redis) -> None:
    for name in ("first", "second"):
        async_task("streams.jobs.place", 1, task_name=name)
    assert get_broker().queue_size() == 2
    assert take() == ["first", "second"]
    assert get_broker().queue_size() == 0


def test_a_process_asks_on_few_connections(server: Redis) -> None:
    """Each job makes a broker of its own, but not a connection."""
    for _ in range(20):
        async_task("streams.jobs.place", 1)
    with server.client() as client:
        assert len(client.client_list()) == 2  # this client's own is one


@pytest.mark.parametrize("end", ["stop", "kill", "pause"])
def test_a_server_that_is_away_costs_one_line(server: Redis, caplog: pytest.LogCaptureFixture, end: str) -> None:
    async_task("streams.jobs.place", 1)
    if end == "pause":
        psutil.Process(server.pid).send_signal(signal.SIGSTOP)
    else:
        getattr(server, end)()
    caplog.clear()
    for _ in range(50):
        assert async_task("streams.jobs.place", 1)
    (line,) = caplog.records
    assert line.getMessage() in {"job broker away error=ConnectionError", "job broker away error=TimeoutError"}
    assert line.exc_info is None
    assert server.password not in caplog.text


def test_a_server_that_is_back_is_used(
    server: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "REST_S", 0.0)
    async_task("streams.jobs.place", 1)
    server.kill()
    async_task("streams.jobs.place", 1, task_name="lost")
    assert get_broker().dequeue() is None
    assert get_broker().queue_size() == 0
    assert not get_broker().ping()
    server.start()
    caplog.clear()
    async_task("streams.jobs.place", 1, task_name="after")
    assert take() == ["after"]
    assert caplog.messages == ["job broker back"]


def test_a_server_that_is_back_is_asked_again_after_a_rest(server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "REST_S", 3600.0)
    server.kill()
    async_task("streams.jobs.place", 1, task_name="lost")
    server.start()
    async_task("streams.jobs.place", 1, task_name="rested")
    monkeypatch.setattr(broker, "REST_S", 0.0)
    async_task("streams.jobs.place", 1, task_name="after")
    assert take() == ["after"]


def test_one_thread_at_a_time_waits_for_a_server_that_hangs(server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 threads that each wait are a website that hangs."""
    monkeypatch.setattr(broker, "REST_S", 3600.0)
    asked: list[int] = []
    patiently = broker.Redis._patiently

    def note(self: broker.Redis, command: Any) -> Any:
        asked.append(threading.get_ident())
        return patiently(self, command)

    monkeypatch.setattr(broker.Redis, "_patiently", note)
    server.kill()
    async_task("streams.jobs.place", 1)
    asked.clear()
    monkeypatch.setattr(broker._outage, "_last_s", -math.inf)  # it has rested
    barrier = threading.Barrier(16)

    def ask() -> None:
        barrier.wait(30)
        async_task("streams.jobs.place", 1)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(asked) == 1


@pytest.mark.parametrize("wrong", ["password", "no password"])
def test_a_server_that_wants_another_password_costs_one_line(
    server: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    word = ":s3cr3t-w0rd@" if wrong == "password" else ""
    monkeypatch.setattr(Conf, "REDIS", f"redis://{word}127.0.0.1:{server.port}/0")
    async_task("streams.jobs.place", 1)
    assert caplog.messages == ["job broker away error=AuthenticationError"]


@pytest.mark.django_db(transaction=True)
def test_a_start_is_kept_whether_its_job_is_queued_or_not(server: Redis, caplog: pytest.LogCaptureFixture) -> None:
    server.kill()
    capture = make_capture()
    assert Capture.objects.get() == capture
    assert "Traceback" not in caplog.text
    assert not transaction.get_connection().in_atomic_block
