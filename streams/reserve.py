"""Room on the disk of the SQLite file, kept for what frees room or ends captures.

On a full disk every write fails, also the delete or the prune that would make room. So some MB are kept in a file
beside the database. The first stop, delete or prune that hits the full disk gives them up, and works. Until they are
whole again nothing else may use what was given up: no capture is started, and pictures stay in memory. The file is
made again before the next start, checkpoint or prune that finds enough room for it and as much beside it.

With PostgreSQL there is none: its server has to be given room.
"""

import errno
import fcntl
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from django.core.files.storage import FileSystemStorage, Storage, default_storage
from django.db import OperationalError, connection, transaction

from .database_faults import FULL, FULL_BYTES, DiskFull, fault_of

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# The log of SQLite grows to 4 MiB before it is reused. A batch of a prune, 100 captures of 100 frames, writes 3 MiB.
RESERVE_BYTES = 8 * 1024 * 1024
SPARE_BYTES = 8 * 1024 * 1024  # that has to be free beside it: it would be given up again at once
_FULL = (errno.ENOSPC, errno.EDQUOT)


def path() -> Path | None:
    """Beside the SQLite file; None where the database is no file."""
    name = str(connection.settings_dict["NAME"])
    return None if connection.vendor != "sqlite" or ":memory:" in name else Path(f"{name}-reserve")


def is_given_up() -> bool:
    """True if the reserve is given up and cannot be made again now. False if none was made yet."""
    file = path()
    return file is not None and _size(file) not in (None, RESERVE_BYTES) and not _has_room(file)


def restore() -> bool:
    """Make it if there is room; whether it is whole, or is not needed."""
    file = path()
    if file is None or _is_whole(file):
        return True
    try:
        with open(file, "ab", opener=_private) as reserve:
            # Only one of several processes makes it; the others look again the next time.
            fcntl.flock(reserve, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _shrink_log()
            if not _has_room(file):
                return False
            try:
                os.posix_fallocate(reserve.fileno(), 0, RESERVE_BYTES)
            except OSError:
                os.ftruncate(reserve.fileno(), 0)
                raise
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _FULL:
            return False
        log.warning("file=%s cannot be kept as a reserve error=%s", file, error.strerror)
        return True
    log.info("reserve made bytes=%s", RESERVE_BYTES)
    return True


def require() -> None:
    """Raises DiskFull where what is left is kept for what makes room, or nothing is left beside it."""
    file = path()
    if not restore() or (file is not None and _free_bytes(file) < FULL_BYTES):
        raise DiskFull(FULL.words)


def leaves_room_for_files(storage: Storage) -> bool:
    """Whether pictures may be written: on the database's own disk only beside a whole reserve."""
    file = path()
    return file is None or _is_whole(file) or not _is_same_disk(file, storage) or restore()


def may_use(work: Callable[P, R]) -> Callable[P, R]:
    """Do the work again on the reserve's room if the disk is full. It must be whole or not at all by itself."""

    @wraps(work)
    def done(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(*args, **kwargs)
        except (OperationalError, OSError) as error:
            # Within a transaction it is the outermost one that has to be done again.
            if not _is_full(error) or transaction.get_connection().in_atomic_block or not _give_up():
                raise
        return work(*args, **kwargs)

    return done


def _is_full(error: OperationalError | OSError) -> bool:
    """Whether the database's own disk is; pictures may lie on another one."""
    if isinstance(error, OperationalError):
        return fault_of(error) is FULL
    file = path()
    return error.errno in _FULL and file is not None and _is_same_disk(file, default_storage)


def _give_up() -> bool:
    """Whether there was one."""
    file = path()
    if file is None or not _is_whole(file):
        return False
    try:
        os.truncate(file, 0)
    except OSError as error:
        log.error("reserve cannot be given up error=%s", error.strerror)
        return False
    log.error("storage full: the reserve is given up, nothing is started until there is room bytes=%s", RESERVE_BYTES)
    return True


def _is_whole(file: Path) -> bool:
    return _size(file) == RESERVE_BYTES


def _size(file: Path) -> int | None:
    """In bytes; None if it is not there, or in a folder that this user may not look into."""
    try:
        return file.stat().st_size
    except OSError:
        return None


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _has_room(file: Path) -> bool:
    return _free_bytes(file) >= RESERVE_BYTES + SPARE_BYTES


def _free_bytes(file: Path) -> int:
    found = os.statvfs(file.parent)
    return found.f_bavail * found.f_frsize


def _is_same_disk(file: Path, storage: Storage) -> bool:
    """A folder that is still to be made is on the disk of the one that it will be made in."""
    if not isinstance(storage, FileSystemStorage):
        return False
    folder = next((it for it in (Path(storage.location), *Path(storage.location).parents) if it.is_dir()), None)
    return folder is not None and folder.stat().st_dev == file.parent.stat().st_dev


def _shrink_log() -> None:
    """What SQLite's log has grown to is room as well. It stays as it is while somebody reads or writes."""
    if transaction.get_connection().in_atomic_block:
        return
    with suppress(OperationalError), connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        timeout_ms = int(cursor.fetchone()[0])
        cursor.execute("PRAGMA busy_timeout = 100")
        try:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {timeout_ms}")
