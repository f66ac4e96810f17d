"""What a database error means for a client: the database is away, its disk is full, or a lock is held."""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from django.db import OperationalError, connection

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

# Appendix A of PostgreSQL's manual: disk_full; lock_not_available, deadlock_detected, serialization_failure.
_OF_POSTGRESQL = {"53100": FULL, "55P03": BUSY, "40P01": BUSY, "40001": BUSY}
_OF_SQLITE = {sqlite3.SQLITE_FULL: FULL, sqlite3.SQLITE_BUSY: BUSY, sqlite3.SQLITE_LOCKED: BUSY}
_MAYBE_FULL = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


class DiskFull(OperationalError):
    """The room that is left is reserved for calls that make room."""


def fault_of(error: BaseException) -> Fault:
    """Classify an OperationalError or InterfaceError by the driver's error, which is its cause."""
    cause = error.__cause__ or error
    if isinstance(error, DiskFull):
        return FULL
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the primary one of an extended code
        return FULL if code in _MAYBE_FULL and _is_disk_full() else _OF_SQLITE.get(code, AWAY)
    known = _OF_POSTGRESQL.get(str(getattr(cause, "sqlstate", "")), AWAY)
    return FULL if known is AWAY and NO_SPACE in str(cause) else known


def sentence(error: BaseException) -> str:
    """For a command, whose user may also have forgotten to migrate."""
    fault = fault_of(error)
    return f"The database is away or not migrated: {str(error).strip()}" if fault is AWAY else fault.words


def _is_disk_full() -> bool:
    try:
        found = os.statvfs(Path(str(connection.settings_dict["NAME"])).parent)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < FULL_BYTES
