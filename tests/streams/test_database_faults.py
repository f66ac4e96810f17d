"""What is said of an error of the database: its disk is full, another session holds a lock, or it is away."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
from django.db import OperationalError, connection
from django.test import Client
from psycopg import errors

from streams import database_faults
from streams.database_faults import AWAY, BUSY, FULL, Fault, fault_of, sentence
from tests.servers import Database
from tests.streams.builders import API, BROWSER, start


def raised(work: Callable[[], object]) -> Exception:
    """As Django raises it, with the driver's own error behind it."""
    try:
        work()
    except (sqlite3.Error, psycopg.Error) as cause:
        error = OperationalError(str(cause))
        error.__cause__ = cause
        return error
    raise AssertionError("no error")


def test_sqlite_without_room() -> None:
    with closing(sqlite3.connect(":memory:")) as small:
        small.execute("PRAGMA max_page_count = 1")
        assert fault_of(raised(lambda: small.execute("CREATE TABLE a (b)"))) is FULL


def test_sqlite_that_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as one,
        closing(sqlite3.connect(path, timeout=0)) as two,
    ):
        one.execute("BEGIN EXCLUSIVE")
        assert fault_of(raised(lambda: two.execute("BEGIN IMMEDIATE"))) is BUSY


@pytest.mark.parametrize(("is_full", "fault"), [(True, FULL), (False, AWAY)])
def test_sqlite_that_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_full: bool, fault: Fault
) -> None:
    """On a full disk its companions cannot be made, which SQLite tells as no more than that."""
    monkeypatch.setattr(database_faults, "_is_disk_full", lambda: is_full)
    assert fault_of(raised(lambda: sqlite3.connect(tmp_path / "no folder" / "db"))) is fault


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (errors.DiskFull("could not extend file"), FULL),
        (errors.LockNotAvailable("canceling statement due to lock timeout"), BUSY),
        (errors.DeadlockDetected("deadlock detected"), BUSY),
        (errors.SerializationFailure("could not serialize access"), BUSY),
        (errors.AdminShutdown("terminating connection"), AWAY),
        (errors.OutOfMemory("out of memory"), AWAY),
        (psycopg.OperationalError('could not write init file: "No space left on device"'), FULL),
        (psycopg.OperationalError("connection refused"), AWAY),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_of_postgresql(error: psycopg.Error, fault: Fault) -> None:
    def work() -> None:
        raise error

    assert fault_of(raised(work)) is fault


def test_a_lock_of_postgresql(database: Database) -> None:
    with psycopg.connect(database.url) as one, psycopg.connect(database.url) as two:
        one.execute("CREATE TABLE a (b int)")
        one.commit()
        one.execute("LOCK TABLE a")
        two.execute("SET lock_timeout = '1ms'")
        assert fault_of(raised(lambda: two.execute("SELECT * FROM a"))) is BUSY


def test_a_command_says_the_same_and_that_migrations_may_be_missing() -> None:
    assert sentence(OperationalError("no such table: a")) == (
        "The database is away or not migrated: no such table: a"
    )
    with closing(sqlite3.connect(":memory:")) as small:
        small.execute("PRAGMA max_page_count = 1")
        assert sentence(raised(lambda: small.execute("CREATE TABLE a (b)"))) == FULL.words


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "sqlite", reason="a lock of SQLite's")
def test_a_lock_is_told_as_one(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as other:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 10")
        other.execute("BEGIN IMMEDIATE")
        try:
            for accept in (API, BROWSER):
                answer = start(client, accept=accept)
                assert (answer.status_code, answer["Retry-After"]) == (503, "5")
                assert "database_busy" in answer.content.decode()
                assert "Another session holds a lock" in answer.content.decode()
        finally:
            other.execute("ROLLBACK")
            with suppress(OperationalError):
                connection.close()
    (said,) = [record.getMessage() for record in caplog.records if record.name == "streams.middleware"]
    assert said == "POST /start failed: database busy error=OperationalError"
    assert start(client).status_code == 201


def test_one_module_knows_the_codes_of_the_databases() -> None:
    codes = re.compile(r"sqlite_errorcode|\bSQLITE_[A-Z]+\b|sqlstate|['\"](40P01|40001|55P03|53100)['\"]")
    root = Path(database_faults.__file__).parent
    owners = {path.name for path in root.rglob("*.py") if codes.search(path.read_text())}
    assert owners == {"database_faults.py"}
