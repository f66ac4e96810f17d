"""What is said of an error of the database: its disk is full, another session holds a lock, or it is away."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from django.db import DatabaseError, IntegrityError, OperationalError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.test import Client
from psycopg import errors

from streams import database_faults
from streams.database_faults import AWAY, BUSY, DAMAGED, FULL, Fault, fault_of, is_of_database, sentence
from tests.servers import Database
from tests.streams.builders import API, BROWSER, start


def raised(work: Callable[[], object], kind: type[Exception] = OperationalError) -> Exception:
    """As Django raises it, with the driver's own error behind it."""
    try:
        work()
    except (sqlite3.Error, psycopg.Error) as cause:
        error = kind(str(cause))
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
def test_a_lock_is_told_as_one(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    is_sqlite = connection.vendor == "sqlite"
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 10" if is_sqlite else "SET lock_timeout = '10ms'")
    other = connection.copy()
    try:
        with transaction_of(other) as cursor:  # SQLite's is IMMEDIATE: it is the one that writes
            if not is_sqlite:
                cursor.execute("LOCK TABLE streams_stream IN EXCLUSIVE MODE")
            for accept in (API, BROWSER):
                answer = start(client, accept=accept)
                assert (answer.status_code, answer["Retry-After"]) == (503, "5")
                assert "database_busy" in answer.content.decode()
                assert "Another session holds a lock" in answer.content.decode()
    finally:
        other.close()
        connection.close()
    (said,) = [record.getMessage() for record in caplog.records if record.name == "streams.middleware"]
    assert said == "POST /start failed: database busy error=OperationalError"
    assert start(client).status_code == 201


@contextmanager
def transaction_of(other: BaseDatabaseWrapper) -> Iterator[CursorWrapper]:
    other.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
    with other.cursor() as cursor:
        yield cursor
    other.rollback()


def test_one_module_knows_the_codes_of_the_databases() -> None:
    codes = re.compile(r"sqlite_errorcode|\bSQLITE_[A-Z]+\b|sqlstate|['\"](40P01|40001|55P03|53100)['\"]")
    root = Path(database_faults.__file__).parent
    owners = {path.name for path in root.rglob("*.py") if codes.search(path.read_text())}
    assert owners == {"database_faults.py"}


def damaged(folder: Path, begin: int) -> Exception:
    """What SQLite says of a file whose first page, or another one, was written over."""
    path = folder / "damaged"
    with closing(sqlite3.connect(path)) as whole:
        whole.execute("CREATE TABLE a (b)")
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(b"x" * 4096)
    with closing(sqlite3.connect(path)) as connected:
        return raised(lambda: connected.execute("SELECT * FROM a").fetchall(), DatabaseError)


@pytest.mark.parametrize("begin", [0, 4096])
def test_sqlite_that_is_damaged(tmp_path: Path, begin: int) -> None:
    error = damaged(tmp_path, begin)
    assert (fault_of(error), sentence(error)) == (DAMAGED, DAMAGED.words)
    assert is_of_database(error)


def test_a_statement_that_is_wrong_is_no_fault_of_the_database() -> None:
    with closing(sqlite3.connect(":memory:")) as good:
        good.execute("CREATE TABLE a (b UNIQUE)")
        good.execute("INSERT INTO a VALUES (1)")
        assert not is_of_database(raised(lambda: good.execute("INSERT INTO a VALUES (1)"), IntegrityError))


@pytest.mark.django_db
@pytest.mark.parametrize("place", ["streams.pages.queries.cards", "streams.access.refused"])
def test_a_damaged_database_is_told_as_one(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """In a view and before one."""
    error = damaged(tmp_path, 0)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(place, fail)
    for accept in (API, BROWSER):
        answer = client.get("/", headers={"accept": accept})
        assert (answer.status_code, "database_damaged" in answer.content.decode()) == (503, True)
