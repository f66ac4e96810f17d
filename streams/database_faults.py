"""What a database error means for a client: the database is away, damaged or locked, or its disk is full."""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from django.db import DatabaseError, InterfaceError, OperationalError, connection

NO_SPACE = "No space left on device"  # strerror(ENOSPC), as PostgreSQL repeats it where it has no code for it
# Below this SQLite's "disk I/O error" and "unable to open database file" are told as a full disk.
FULL_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Fault:
    """`event` is what the log says."""

    code: str
    words: str
    event: str


AWAY = Fault(
    "database_away",
    "The database is away: try again in a moment. What is being captured goes on meanwhile.",
    "database away",
)
FULL = Fault(
    "storage_full",
    "The disk of the database is full. Delete streams, run manage.py prune, or make room on the disk. What is being "
    "captured goes on in memory.",
    "storage full",
)
BUSY = Fault(
    "database_busy",
    "Another session holds a lock in the database: try again in a moment. Nothing was changed.",
    "database busy",
)
DAMAGED = Fault(
    "database_damaged",
    "The database is damaged: restore a backup into a new one. What is being captured goes on in memory.",
    "database damaged",
)

# Appendix A of PostgreSQL's manual. Nowhere else in the service is one of these codes, or one of SQLite's.
_DISK_FULL, _LOCK_NOT_AVAILABLE, _DEADLOCK_DETECTED, _SERIALIZATION_FAILURE = "53100", "55P03", "40P01", "40001"
_OVER_WITH_THE_TRANSACTION = (_DEADLOCK_DETECTED, _SERIALIZATION_FAILURE)
_DATA_CORRUPTED, _INDEX_CORRUPTED = "XX001", "XX002"
_OF_POSTGRESQL = {
    _DISK_FULL: FULL,
    _LOCK_NOT_AVAILABLE: BUSY,
    **dict.fromkeys(_OVER_WITH_THE_TRANSACTION, BUSY),
    _DATA_CORRUPTED: DAMAGED,
    _INDEX_CORRUPTED: DAMAGED,
}
_OF_SQLITE = {
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_BUSY: BUSY,
    sqlite3.SQLITE_LOCKED: BUSY,
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
}
_MAYBE_FULL = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


class DiskFull(OperationalError):
    """The room that is left is reserved for calls that make room."""


def fault_of(error: BaseException) -> Fault:
    """Classify an error of Django's by the driver's error, which is its cause."""
    cause = error.__cause__ or error
    if isinstance(error, DiskFull):
        return FULL
    if isinstance(cause, sqlite3.Error):
        code = _sqlite_code(cause)
        return FULL if code in _MAYBE_FULL and _is_disk_full() else _OF_SQLITE.get(code, AWAY)
    known = _OF_POSTGRESQL.get(_sqlstate(cause), AWAY)
    return FULL if known is AWAY and NO_SPACE in str(cause) else known


def is_of_database(error: BaseException) -> bool:
    """Whether it is no fault of the statement, so that the next one may as well fail."""
    if isinstance(error, OperationalError | InterfaceError):
        return True
    return isinstance(error, DatabaseError) and fault_of(error) is DAMAGED


def is_lock(error: BaseException) -> bool:
    """Whether a lock was not given in time."""
    cause = error.__cause__ or error
    return _OF_SQLITE.get(_sqlite_code(cause)) is BUSY or _sqlstate(cause) == _LOCK_NOT_AVAILABLE


def is_deadlock(error: BaseException) -> bool:
    """Whether the transaction lost to another one, and is worth to be done again at once."""
    return _sqlstate(error.__cause__ or error) in _OVER_WITH_THE_TRANSACTION


def sentence(error: BaseException) -> str:
    """For a command, whose user may also have forgotten to migrate."""
    fault = fault_of(error)
    return f"The database is away or not migrated: {str(error).strip()}" if fault is AWAY else fault.words


def _sqlstate(cause: BaseException) -> str:
    return str(getattr(cause, "sqlstate", ""))


def _sqlite_code(cause: BaseException) -> int:
    """The primary one of an extended code."""
    return int(getattr(cause, "sqlite_errorcode", 0)) & 0xFF


def _is_disk_full() -> bool:
    try:
        found = os.statvfs(Path(str(connection.settings_dict["NAME"])).parent)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < FULL_BYTES
