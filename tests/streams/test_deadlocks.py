"""All that writes, at once: on PostgreSQL no transaction waits for one that waits for it."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from streams import claims, database_faults, retention, services
from streams.claims import ClaimLost
from streams.engine import composer
from streams.engine.report import State, Status
from streams.models import Capture, Frame, Host, Stream
from tests.streams.builders import (
    at_once,
    compose_here,
    make_capture,
    make_host,
    make_picture,
    make_report,
    make_wish,
)

pytestmark = pytest.mark.django_db(transaction=True)

IS_POSTGRESQL = connection.vendor == "postgresql"
ROUNDS = 6 if IS_POSTGRESQL else 1
CAPTURES, FRAMES = 300, 9
LIVES, TURNS = 4, 8 if IS_POSTGRESQL else 2


@pytest.fixture(autouse=True)
def deadlocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Those that were run again count as well."""
    found: list[str] = []
    is_deadlock = database_faults.is_deadlock

    def note(error: BaseException) -> bool:
        if is_deadlock(error):
            found.append(str(error))
            return True
        return False

    monkeypatch.setattr(database_faults, "is_deadlock", note)
    yield found
    assert found == []


def make_many(number: int) -> Stream:
    """A stream with captures that ended long ago."""
    stream = services.create_stream(make_wish(f"rtsp://camera-{number}.example/demo"))
    old = timezone.now() - timedelta(days=30)
    ended = {"started_at": old, "stop_requested_at": old, "finished_at": old, "ending": "stopped"}
    captures = Capture.objects.bulk_create([Capture(stream=stream, **ended) for _ in range(CAPTURES)])
    sized = {"score": 1.0, "captured_at": old, "width": 1, "height": 1}
    Frame.objects.bulk_create(
        [
            Frame(capture=one, number=n, image=f"frames/{one.pk}/{n}-00000000.jpg", **sized)
            for one in captures
            for n in range(1, FRAMES + 1)
        ],
        2000,
    )
    return stream


def test_a_delete_beside_a_prune_of_the_same_captures() -> None:
    for number in range(ROUNDS):
        stream = make_many(number)

        def delete(stream: Stream = stream) -> object:
            return services.delete_stream(stream)

        def prune() -> object:
            return retention.prune(keep_days=1, limit_s=5)

        works = iter([delete, prune][:: 1 if number % 2 else -1])
        at_once(2, lambda works=works: next(works)())  # type: ignore[misc]
        assert not Stream.objects.exists()
        assert not Capture.objects.exists()


def live(host: Host, number: int) -> None:
    """A stream from its start to its deletion. What another one takes from it is no fault."""
    capture = make_capture(f"rtsp://camera-{number}.example/demo", count=3)
    held = claims.claim(host, [claims.Candidate(capture.pk, capture.epoch)])
    claim = claims.Claim(capture.pk, host.pk, capture.epoch + 1)
    kept: list[tuple[int, float]] = []
    try:
        for n in range(1, 6 if held else 1):
            waits = Status(State.RECONNECTING, "timeout", "It is slow.", n, None)
            report = make_report(
                make_picture(n, score=100.0 + n), kept=tuple(kept[-2:]), status=waits if n % 2 else None
            )
            services.checkpoint(claim, services.Totals(), report)
            kept.append((n, 100.0 + n))
        services.note_death(claim)
        services.hand_over(claim)
    except ClaimLost:
        pass
    services.stop(capture.stream)
    claims.release_all(host)
    while not Capture.objects.get(pk=capture.pk).is_finished:
        services.finish(capture.pk)
    services.delete_stream(capture.stream)


def test_all_that_writes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composer, "compose", compose_here)
    hosts = [make_host(f"host-{n}", slots=50) for n in range(2)]
    for n in range(20):  # in progress all the time, given back and claimed
        make_capture(f"rtsp://bystander-{n}.example/{n}")
    Stream.objects.update(credentials="x")
    monkeypatch.setattr(services, "is_newest", lambda _: False)  # each is written with each round
    is_over = threading.Event()
    faults: list[BaseException] = []

    def always(work: Callable[[], object]) -> threading.Thread:
        def loop() -> None:
            try:
                while not is_over.is_set():
                    work()
            except BaseException as error:
                faults.append(error)
            finally:
                connection.close()

        return threading.Thread(target=loop)

    def shuffle(host: Host) -> None:
        found = Capture.objects.filter(finished_at=None, claimed_by=None, stop_requested_at=None)
        claims.claim(host, [claims.Candidate(*row) for row in found.order_by("-id").values_list("id", "epoch")])
        claims.heartbeat(host)
        claims.expire(list(Capture.objects.values_list("id", flat=True)))
        claims.release_all(host)

    threads = [
        always(lambda: retention.prune(keep_days=1e-9)),
        always(lambda: list(services.reencrypt(batch=50))),
        always(lambda: shuffle(hosts[0])),
        always(lambda: shuffle(hosts[1])),
    ]
    for thread in threads:
        thread.start()
    numbers = iter(range(LIVES))

    def lives() -> None:
        number = next(numbers)
        for turn in range(TURNS):
            live(hosts[number % 2], 100 * number + turn)

    try:
        at_once(LIVES, lives)
    finally:
        is_over.set()
        for thread in threads:
            thread.join(60)
    assert faults == []
    assert Stream.objects.count() == 20
