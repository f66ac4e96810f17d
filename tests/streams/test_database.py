"""Deadlocks that are run again, events that wait for the commit, and the database's clock."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from django.db import DatabaseError, OperationalError, connection, transaction

from streams import claims, database, services
from streams.models import Capture, Stream
from streams.services import Change
from tests.streams.builders import files, make_capture, make_finished, make_wish, record

pytestmark = pytest.mark.django_db(transaction=True)


# --- deadlocks ------------------------------------------------------------------------------------


def deadlock() -> OperationalError:
    """As Django raises it."""
    error = OperationalError("deadlock detected")
    error.__cause__ = psycopg.errors.DeadlockDetected()
    return error


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PAUSES_S", (0.0, 0.0))


def test_what_ends_in_a_deadlock_is_run_again_and_not_for_ever() -> None:
    faults = [deadlock(), deadlock()]
    runs: list[int] = []

    @database.retried
    def work() -> str:
        runs.append(1)
        if faults:
            raise faults.pop()
        return "done"

    assert (work(), len(runs)) == ("done", 3)
    faults += [deadlock() for _ in range(3)]
    with pytest.raises(OperationalError):
        work()


@pytest.mark.parametrize("is_nested", [False, True])
def test_another_fault_and_what_is_part_of_a_transaction_is_not_run_again(is_nested: bool) -> None:
    runs: list[int] = []

    @database.retried
    def work() -> None:
        runs.append(1)
        raise deadlock() if is_nested else OperationalError("away")

    def nested() -> None:
        with transaction.atomic():
            work()

    with pytest.raises(OperationalError):
        (nested if is_nested else work)()
    assert len(runs) == 1


# --- events ---------------------------------------------------------------------------------------


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "streams.services"]


def start() -> object:
    return make_capture()


def start_again() -> object:
    return services.start_again(Stream.objects.get())


def stop() -> object:
    return services.stop(Stream.objects.get())


def create() -> object:
    return services.create_stream(make_wish())


def change() -> object:
    return services.change_stream(Stream.objects.get(), Change(count=5))


def delete() -> object:
    return services.delete_stream(Stream.objects.get())


def finish() -> object:
    return services.finish(Capture.objects.get().pk)


def nothing() -> object:
    return None


def ended() -> object:
    make_capture()
    return stop()


CASES = {
    "start": (nothing, start, "queued interval_s=1"),
    "start again": (create, start_again, "queued interval_s=1"),
    "stop": (start, stop, "stop requested"),
    "create": (nothing, create, "created"),
    "change": (create, change, "changed"),
    "delete": (create, delete, "deleted captures=0 files=0"),
    "finish": (ended, finish, "finished ending=stopped"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_log_says_what_was_committed_and_nothing_that_was_rolled_back(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    prepare, work, event = CASES[case]
    prepare()
    caplog.set_level(logging.INFO, "streams")
    caplog.clear()
    with transaction.atomic():
        work()
        assert events(caplog) == []
        transaction.set_rollback(True)
    assert events(caplog) == []
    work()
    assert [event in said for said in events(caplog)] == [True]


def test_a_delete_that_is_rolled_back_keeps_its_files(media: Path) -> None:
    capture = make_finished(frames=2)
    before = files(media)
    with transaction.atomic():
        services.delete_stream(capture.stream)
        transaction.set_rollback(True)
    assert files(media) == before != []
    services.delete_stream(capture.stream)
    assert files(media) == []


# --- the clock ------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """What the database answers with, the next one last; empty: it is away."""
    answers: list[datetime] = []

    def ask() -> datetime:
        if not answers:
            raise DatabaseError
        return answers.pop()

    monkeypatch.setattr(database, "exact_now", ask)
    monkeypatch.setattr(connection, "vendor", "postgresql")
    return answers


def test_the_database_is_asked_once_in_ten_seconds(server: list[datetime], monkeypatch: pytest.MonkeyPatch) -> None:
    then = datetime(2020, 1, 1, tzinfo=UTC)
    server += [then + timedelta(hours=1), then]
    monotonic_s = [100.0]
    monkeypatch.setattr("streams.database.time.monotonic", lambda: monotonic_s[0])
    clock = database.Clock()
    assert clock.now() == then
    monotonic_s[0] += 9
    assert clock.now() == then + timedelta(seconds=9)
    monotonic_s[0] += 2
    assert clock.now() == then + timedelta(hours=1)
    monotonic_s[0] += 60  # away: the last answer holds
    assert clock.now() == then + timedelta(hours=1, seconds=60)


def test_a_host_knows_by_how_much_its_clock_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead_s = [0.5, 660.0, -660.0]
    monkeypatch.setattr(database, "now", lambda: datetime.now(UTC) - timedelta(seconds=ahead_s[0]))
    found = []
    while ahead_s:
        found.append(round(database.host_ahead_s()))
        ahead_s.pop(0)
    assert found == [0, 660, -660]


def test_a_wait_of_a_host_whose_clock_is_ahead_is_stored_and_read_in_the_database_s_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits for a minute; its clock is eleven minutes ahead. Its successor's is right."""
    capture = make_capture()
    record(capture, frames=1)
    real = database.exact_now()
    stream = Stream.objects.get()
    ahead: Callable[[], float] = lambda: 660.0  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(database, "host_ahead_s", ahead)
        stream.next_attempt_at = services._database_moment(real.timestamp() + 660 + 60)
    stream.attempt = 3
    waiting = services.saved_status(stream)
    assert waiting.next_attempt_at == pytest.approx(real.timestamp() + 60, abs=1)
    stream.next_attempt_at += timedelta(days=3650)
    waiting = services.saved_status(stream)
    assert waiting.next_attempt_at == pytest.approx(real.timestamp() + services._LONGEST_WAIT_S, abs=30)


def test_starts_are_dated_by_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    then = datetime(2020, 1, 1, tzinfo=UTC)
    monkeypatch.setattr(database, "exact_now", lambda: then)
    capture = make_capture()
    stream = Stream.objects.get()
    assert capture.started_at == stream.created_at == stream.status_at == then
    assert claims.register("north", 1).started_at.year > 2020
