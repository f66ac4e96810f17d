"""A backup in one file: a manifest, keys if wanted, rows, and each capture's pictures followed by its rows.

    manifest.json                       format, version, what made it
    keys/secret_key, keys/credentials_keys      only with keys
    rows/groups.jsonl ... rows/admin_log.jsonl  one row a line
    pictures/frames/12/3-0a1b2c3d.jpg ...
    captures/12.json                    its row, frames and timeline, size and SHA-256 of each picture
    totals.json                         how many of each, and the SHA-256 of all bytes before it

Rows are read in one snapshot, into a temporary file; no transaction is open while pictures are copied. Pictures come
after it, captures in progress first. Where one is gone by then, the capture's rows are read once more, so that a
leaderboard that moved on is kept as it is at that moment.
"""

import errno
import hashlib
import json
import logging
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

from django.conf import settings
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from . import backup_rows, database, tape
from .backup_rows import Row
from .models import Capture

log = logging.getLogger(__name__)

FORMAT, VERSION = "rtspsite-backup", 1
MANIFEST, TOTALS, SECRET_KEY, CREDENTIALS_KEYS = (
    "manifest.json",
    "totals.json",
    "keys/secret_key",
    "keys/credentials_keys",
)
TABLES = ("groups", "users", "streams", "schedules", "admin_log")
MAX_PICTURE_BYTES = 128 << 20  # a frame of 36 megapixels takes 50 MB at most
TAKES = 5  # a leaderboard that moves on faster than its pictures are copied
IN_MEMORY_BYTES = 16 << 20  # of one capture's pictures; what is more waits in a temporary file
AT_ONCE = 8  # requests to a store, which takes 10 to 50 ms for each
# A store that restarts is waited for; a disk that cannot read a picture now cannot in a second.
PATIENCE_S = (0.5, 1.0, 2.0, 4.0, 8.0)
_BEGIN, _END = b"\xff\xd8", b"\xff\xd9"
_HOPELESS = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


class CannotBackUp(Exception):
    """The backup cannot be made; the text is one sentence with the reason."""


class Progress(Protocol):
    def begin(self, what: str, total: int) -> None: ...

    def advance(self, count: int = 1) -> None: ...


@dataclass(slots=True)
class Made:
    """`evicted` and `deleted` went during the copy. `lost`: pictures that rows name and nobody can read."""

    totals: dict[str, int] = field(default_factory=dict)
    size_bytes: int = 0
    evicted: int = 0
    deleted: int = 0
    lost: list[str] = field(default_factory=list)
    has_keys: bool = False


def make(sink: tape.Sink, spool_folder: Path, progress: Progress, *, has_keys: bool = False) -> Made:
    """Write everything that the service keeps. Raises CannotBackUp, DatabaseError, and what the sink raises."""
    made = Made(has_keys=has_keys)
    with _spool(spool_folder) as rows, _spool(spool_folder) as captures:
        manifest, sizes = _read_rows(rows, captures, progress, made)
        writer = tape.Writer(sink, int(datetime.fromisoformat(manifest["made_at"]).timestamp()))
        writer.add(MANIFEST, encode_manifest(manifest))
        if has_keys:
            writer.add(SECRET_KEY, settings.SECRET_KEY.encode())
            writer.add(CREDENTIALS_KEYS, ",".join(settings.CREDENTIALS_KEYS).encode())
        rows.seek(0)
        for name, size_bytes in sizes.items():
            writer.add_file(f"rows/{name}.jsonl", rows, size_bytes)
        _write_captures(writer, captures, spool_folder, manifest["captures"], progress, made)
        writer.add(TOTALS, encode_totals(made.totals, writer.sha256))
        writer.end()
    made.size_bytes = writer.size_bytes
    return made


def encode_manifest(manifest: Row) -> bytes:
    return json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n"


def encode_totals(totals: dict[str, int], sha256: str) -> bytes:
    """The same numbers always give the same bytes: a reader counts for itself and compares."""
    return json.dumps({**totals, "sha256": sha256}, indent=1, sort_keys=True).encode() + b"\n"


@contextmanager
def snapshot() -> Iterator[None]:
    """All reads inside see the same snapshot, and no writer waits for them."""
    connection.ensure_connection()
    was = getattr(connection, "transaction_mode", None)
    if connection.vendor == "sqlite":  # BEGIN IMMEDIATE, as settings.py has it, would keep all writers out
        connection.transaction_mode = "DEFERRED"  # type: ignore[attr-defined]
    try:
        with transaction.atomic():
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            database.may_be_idle()
            yield
    finally:
        if connection.vendor == "sqlite":
            connection.transaction_mode = was  # type: ignore[attr-defined]


# --- rows -----------------------------------------------------------------------------------------


def _read_rows(rows: IO[bytes], captures: IO[bytes], progress: Progress, made: Made) -> tuple[Row, dict[str, int]]:
    """The manifest, and the size of each table's part in `rows`."""
    sizes = {}
    with snapshot():
        in_progress = list(Capture.objects.filter(finished_at=None).order_by("id").values_list("id", flat=True))
        finished = Capture.objects.filter(finished_at__isnull=False).order_by("id").values_list("id", flat=True)
        ids = in_progress + list(finished)
        manifest = _manifest(len(ids), made.has_keys)
        for name, table in backup_rows.tables():
            begin = rows.tell()
            made.totals[name] = sum(_put(rows, row) for row in table)
            sizes[name] = rows.tell() - begin
        progress.begin("rows of captures", len(ids))
        for at in range(0, len(ids), backup_rows.BATCH):
            for row in backup_rows.captures(ids[at : at + backup_rows.BATCH]):
                _put(captures, row)
                progress.advance()
    return manifest, sizes


def _manifest(captures: int, has_keys: bool) -> Row:
    """The manifest names only migrations that this version knows: it writes no columns that another one added."""
    applied: dict[str, list[str]] = {app: [] for app in backup_rows.APPS}
    known = MigrationLoader(None, ignore_no_migrations=True).disk_migrations
    for app, name in sorted(MigrationRecorder(connection).applied_migrations()):
        if app in applied and (app, name) in known:
            applied[app].append(name)
    return {
        "format": FORMAT,
        "version": VERSION,
        "id": secrets.token_hex(16),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "database": connection.vendor,
        "migrations": applied,
        "has_keys": has_keys,
        "captures": captures,
        "last_ids": backup_rows.last_ids(),
    }


def _put(spool: IO[bytes], row: Row) -> int:
    try:
        spool.write(backup_rows.encode(row) + b"\n")
    except OSError as error:
        raise _no_room(error) from None
    return 1


@contextmanager
def _spool(folder: Path) -> Iterator[IO[bytes]]:
    """A temporary file without a name, for its owner alone."""
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 closed below
    except OSError as error:
        raise _no_room(error) from None
    with file:
        yield file


def _no_room(error: OSError) -> CannotBackUp:
    return CannotBackUp(f"The rows cannot be written into a temporary file: {error.strerror}.")


# --- captures and their pictures --------------------------------------------------------------------


def _write_captures(
    writer: tape.Writer, captures: IO[bytes], spool_folder: Path, count: int, progress: Progress, made: Made
) -> None:
    made.totals |= {"captures": 0, "frames": 0, "pictures": 0}
    progress.begin("captures with pictures", count)
    captures.seek(0)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for line in captures:
            taken = _Taken(pool, made, spool_folder)
            try:
                if taken.take(json.loads(line)):
                    taken.write(writer)
            finally:
                taken.pictures.close()
            progress.advance()


class _Taken:
    """One capture, whose row and pictures belong together."""

    def __init__(self, pool: ThreadPoolExecutor, made: Made, spool_folder: Path) -> None:
        folder = str(spool_folder)
        self.pictures = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES, dir=folder)  # noqa: SIM115 closed by the caller
        self._pool = pool
        self._made = made
        self._row: Row = {}
        self._places: dict[str, tuple[int, int, str]] = {}
        """Where each picture begins in `pictures`, its size and its SHA-256."""

    def take(self, row: Row) -> bool:
        """False if the capture was deleted meanwhile."""
        missing: set[str] = set()
        for _ in range(TAKES):
            self._row = row
            lost = missing.intersection(_names(row))  # asked for, read again, and still not there
            missing = self._copy([name for name in _names(row) if name not in self._places])
            if missing <= lost:
                break
            again = _read_again(row["capture"]["id"])
            if again is None:
                self._made.deleted += 1
                return False
            row = again
        self._leave_out(missing, missing & lost)
        return True

    def write(self, writer: tape.Writer) -> None:
        names = _names(self._row)
        for name in names:
            begin, size_bytes, _ = self._places[name]
            self.pictures.seek(begin)
            writer.add_file(f"pictures/{name}", self.pictures, size_bytes)
        files = {name: self._places[name][1:] for name in names}
        writer.add(f"captures/{self._row['capture']['id']}.json", backup_rows.encode({**self._row, "files": files}))
        totals = self._made.totals
        totals["captures"] += 1
        totals["frames"] += len(self._row["frames"])
        totals["pictures"] += len(names)

    def _copy(self, names: Sequence[str]) -> set[str]:
        """Copy the pictures, and return the names of those that cannot be read."""
        missing = set()
        capture_id = self._row["capture"]["id"]
        for at in range(0, len(names), AT_ONCE):
            some = names[at : at + AT_ONCE]
            for name, jpeg in zip(some, _read_all(self._pool, capture_id, some), strict=True):
                if jpeg is None:
                    missing.add(name)
                    continue
                try:
                    begin = self.pictures.seek(0, 2)
                    self.pictures.write(jpeg)
                except OSError as error:
                    raise CannotBackUp(
                        f"Pictures cannot be copied into a temporary file: {error.strerror}."
                    ) from None
                self._places[name] = begin, len(jpeg), hashlib.sha256(jpeg).hexdigest()
        return missing

    def _leave_out(self, missing: set[str], lost: set[str]) -> None:
        row = self._row
        row["frames"] = [frame for frame in row["frames"] if frame["image"] not in missing]
        if row["capture"]["grid"] in missing:
            row["capture"]["grid"] = ""
        self._made.evicted += len(missing - lost)
        self._made.lost += sorted(lost)


def _names(row: Row) -> list[str]:
    """The names of all pictures, the grid first."""
    grid = row["capture"]["grid"]
    return [*([grid] if grid else []), *(frame["image"] for frame in row["frames"])]


def _read_again(capture_id: int) -> Row | None:
    with snapshot():
        found = list(backup_rows.captures([capture_id]))
    # Through JSON, as the first time: moments become text.
    again: Row | None = json.loads(backup_rows.encode(found[0])) if found else None
    return again


def _read_all(pool: ThreadPoolExecutor, capture_id: int, names: Sequence[str]) -> list[bytes | None]:
    def read(name: str) -> bytes | None:
        return _read(capture_id, name)

    is_local = isinstance(default_storage, FileSystemStorage)
    return list(map(read, names)) if is_local else list(pool.map(read, names))


def _read(capture_id: int, name: str) -> bytes | None:
    """The whole JPEG. None: it is not there, is damaged, or cannot be read although the storage answers."""
    if not backup_rows.is_picture_of(capture_id, name):
        return None
    try:
        jpeg = patiently(lambda: _bytes_of(name))
    except FileNotFoundError:
        return None
    except OSError as error:
        _check_storage(name, error)
        log.error("file=%s unreadable error=%s", name, error.strerror)
        return None
    is_whole = jpeg.startswith(_BEGIN) and jpeg.endswith(_END) and len(jpeg) <= MAX_PICTURE_BYTES
    return jpeg if is_whole else None


def _bytes_of(name: str) -> bytes:
    with storage_errors(), default_storage.open(name) as file:
        return bytes(file.read())


def patiently(work: Any) -> Any:
    """Call `work` again for as long as a store takes to restart, and return its result. Raises OSError."""
    for wait_s in PATIENCE_S if not isinstance(default_storage, FileSystemStorage) else ():
        try:
            return work()
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in _HOPELESS:
                raise
            time.sleep(wait_s)
    return work()


def _check_storage(name: str, error: OSError) -> None:
    """Raises CannotBackUp if the storage cannot be read at all: then the fault is not this picture."""
    try:
        with storage_errors():
            default_storage.listdir("frames")
    except OSError:
        raise CannotBackUp(f"The storage of the pictures is away: {name}: {error.strerror}.") from None


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn the errors of any storage into OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__} of the storage") from error
