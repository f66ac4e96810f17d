"""Whether the website can serve: each check, what it says when it fails, that it never hangs and tells no secret."""

import json
import logging
import os
import socket
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import TimeoutError
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from streams import health
from streams.health import MIN_FREE_BYTES, MIN_FREE_FILES, Asker, Check, Readiness, Room
from tests.streams.builders import SECRET, make_host
from tests.streams.processes import python

MIB = 1024 * 1024
# Asks each path and prints status and body. Nothing that it waits for is there to answer.
PROBE = """
import django, json
django.setup()
from django.test import Client
client = Client(headers={{"host": "localhost"}})
answers = {{path: client.get(path) for path in {paths}}}
print(json.dumps({{path: [answer.status_code, answer.content.decode()] for path, answer in answers.items()}}))
"""


def probe(folder: Path, *paths: str, **variables: str) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    """Status and body of each path, asked in a process of its own, and all that it said."""
    code = PROBE.format(paths=list(paths))
    done = python(code, folder, DJANGO_SETTINGS_MODULE="rtspsite.settings", **variables)
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers, done


@contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def readiness(client: Client) -> tuple[int, dict[str, bool]]:
    response = client.get("/readyz")
    return response.status_code, {name: check["ok"] for name, check in response.json().items()}


def message(client: Client, name: str) -> str:
    return str(client.get("/readyz").json()[name]["message"])


# --- alive ----------------------------------------------------------------------------------------


def test_alive_is_whoever_answers_and_nothing_is_asked_for_it(
    client: Client, db: None, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0):
        response = client.get("/livez")
    assert (response.status_code, response.content) == (200, b"ok\n")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
class TestEachAnswer:
    def test_it_is_of_now(self, client: Client, path: str) -> None:
        assert client.get(path)["Cache-Control"] == "no-store"

    def test_it_needs_no_session(self, client: Client, path: str) -> None:
        assert "Set-Cookie" not in client.get(path).headers

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
    def test_it_is_only_read(self, client: Client, path: str, method: str) -> None:
        assert client.generic(method, path).status_code == 405

    def test_it_is_not_sent_to_the_proxy_in_front(self, client: Client, settings: Settings, path: str) -> None:
        settings.SECURE_SSL_REDIRECT = True
        assert client.get(path).status_code in (200, 503)
        assert client.get("/").status_code == 301


# --- ready ----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("silent_s", "status"), [(None, 503), (60.0, 503), (0.0, 200)], ids=["none", "silent", "living"]
)
def test_ready_is_with_a_living_supervisor(client: Client, silent_s: float | None, status: int) -> None:
    if silent_s is not None:
        make_host(silent_s=silent_s)
    expected = {"database": True, "supervisor": status == 200, "storage": True}
    assert readiness(client) == (status, expected)


@pytest.mark.django_db(transaction=True)
class TestWherePicturesGo:
    @pytest.fixture(autouse=True)
    def host(self) -> None:
        make_host()

    def test_it_is_to_be_a_folder(self, client: Client, settings: Settings, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        settings.MEDIA_ROOT = tmp_path / "file"
        assert readiness(client) == (503, {"database": True, "supervisor": True, "storage": False})
        assert message(client, "storage") == "The media folder cannot be read: Not a directory."

    def test_it_may_still_have_to_be_made(self, client: Client, settings: Settings, tmp_path: Path) -> None:
        settings.MEDIA_ROOT = tmp_path / "a" / "b"
        assert readiness(client)[0] == 200
        assert not (tmp_path / "a").exists()

    def test_another_storage_is_not_asked(self, client: Client, settings: Settings) -> None:
        memory = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
        settings.STORAGES = {**settings.STORAGES, "default": memory}
        assert readiness(client)[0] == 200
        assert message(client, "storage").startswith("Not asked")


def test_the_room_is_that_of_the_media_folder(media: Path) -> None:
    found, disk = health.room(), os.statvfs(media)
    assert found is not None
    assert found.is_writable
    # Others write to this disk meanwhile.
    assert found.free_bytes == pytest.approx(disk.f_bavail * disk.f_frsize, abs=2048 * MIB)


@pytest.mark.parametrize("locked", ["", "frames", "grids"])
def test_a_folder_that_takes_no_file_is_not_writable(settings: Settings, locked: str) -> None:
    with unprivileged(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings.MEDIA_ROOT = folder / "media"
        (folder / "media" / locked).mkdir(parents=True)
        (folder / "media" / locked).chmod(0o555)
        found = health.room()
        (folder / "media" / locked).chmod(0o755)
    assert found is not None
    assert not found.is_writable


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user for whom permissions count."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("room", "is_ok", "words"),
    [
        (Room(MIN_FREE_BYTES, MIN_FREE_FILES, True), True, "There is room for pictures: 64 MiB."),
        (Room(MIN_FREE_BYTES, None, True), True, "There is room for pictures: 64 MiB."),
        (Room(MIN_FREE_BYTES - 1, None, True), False, "The disk is full: 63 MiB free, 64 MiB needed."),
        (Room(0, None, True), False, "The disk is full: 0 MiB free, 64 MiB needed."),
        (Room(MIN_FREE_BYTES, 999, True), False, "The disk has room for 999 more files, 1000 are needed."),
        (Room(MIN_FREE_BYTES, None, False), False, "The media folder is not writable."),
    ],
)
def test_room_for_pictures_is_bytes_and_files_on_a_folder_that_takes_them(
    room: Room, is_ok: bool, words: str
) -> None:
    assert health.judge(room) == Check(is_ok, words)


# --- what hangs, and what is secret -----------------------------------------------------------------


def test_a_database_that_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    """The URL asks for ten minutes: it is not the driver that gives up here."""
    with silent_server() as port:
        url = f"postgres://keeper:{SECRET}@127.0.0.1:{port}/name?connect_timeout=600"
        answers, done = probe(tmp_path, "/livez", "/readyz", "/metrics", DATABASE_URL=url)
    assert answers["/livez"] == [200, "ok\n"]
    status, body = answers["/readyz"]
    checks = json.loads(body)
    assert status == 503
    assert checks["database"] == {"ok": False, "message": "The database does not answer within 2 s."}
    assert checks["supervisor"]["ok"] is False
    assert checks["storage"]["ok"] is True
    assert answers["/metrics"][0] == 200
    assert "rtspsite_database_up 0.0" in answers["/metrics"][1]
    assert SECRET not in done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert "not ready: The database does not answer" in done.stderr


def test_a_database_that_is_locked_is_not_waited_for(tmp_path: Path) -> None:
    """SQLite would wait for 20 s, and then say that it is locked."""
    (tmp_path / "data").mkdir()
    with closing(sqlite3.connect(tmp_path / "data" / "db.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        answers, _ = probe(tmp_path, "/readyz")
    status, body = answers["/readyz"]
    assert (status, json.loads(body)["database"]["message"]) == (503, "The database does not answer within 2 s.")


def test_a_database_that_refuses_is_told_without_its_address(tmp_path: Path) -> None:
    url = f"postgres://keeper:{SECRET}@127.0.0.1:{unused_port()}/name"
    answers, done = probe(tmp_path, "/readyz", "/readyz", "/metrics", DATABASE_URL=url)
    status, body = answers["/readyz"]
    assert status == 503
    assert json.loads(body)["database"]["message"] == "The database does not answer: OperationalError."
    assert "rtspsite_database_up 0.0" in answers["/metrics"][1]
    said = done.stdout + done.stderr
    assert [word for word in (SECRET, "keeper", "127.0.0.1", "Traceback") if word in said] == []


def test_the_log_says_when_it_changes_and_not_at_each_probe(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streams")
    well = {"database": Check(True, "There."), "storage": Check(True, "Room.")}
    full = {**well, "storage": Check(False, "Full.")}
    away = {**well, "database": Check(False, "Away.")}
    service = Readiness()
    assert [service.note(found) for found in (well, full, full, away, away, well, well)] == [
        True, False, False, False, False, True, True,
    ]  # fmt: skip
    assert [record.getMessage() for record in caplog.records] == [
        "not ready: Full.",
        "not ready: Away.",
        "ready again",
    ]


@pytest.mark.django_db(transaction=True)
def test_django_does_not_log_each_probe_either(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        assert client.get("/readyz").status_code == 503
    assert [record for record in caplog.records if record.name == "django.request"] == []


# --- asking what may hang -------------------------------------------------------------------------


class Slow:
    """A question that is answered when the test says so."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = threading.Event()

    def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        assert self.may_answer.wait(60)
        return number


def test_no_more_than_one_thread_hangs() -> None:
    question = Slow()
    asker = Asker(question)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            asker.begin().result(0.01)
    pending = asker.begin()
    assert question.asked == 1
    question.may_answer.set()
    assert pending.result(60) == 1


def test_what_has_been_answered_is_asked_anew() -> None:
    question = Slow()
    question.may_answer.set()
    asker = Asker(question)
    assert [asker.begin().result(60) for _ in range(3)] == [1, 2, 3]


def test_an_error_is_the_answer_of_who_asked() -> None:
    asker = Asker(lambda: 1 // 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            asker.begin().result(60)


@pytest.mark.django_db(transaction=True)
def test_no_connection_to_the_database_is_left_open() -> None:
    def question() -> BaseDatabaseWrapper:
        connections["default"].ensure_connection()
        return connections["default"]

    assert Asker(question).begin().result(60).connection is None
