"""What `streams.backup` wrote, put into an empty service.

1. Read the manifest, look at the database and the storage: refuse early.
2. Read the whole file once and check all of it. Nothing was written until here.
3. Write the keys if the service has none in use, then the pictures. They count for nothing without rows.
4. Write all rows in one transaction.
5. Finish the captures that were in progress: their grids are made.

A restore that dies before the end of 4 has left nothing but keys and pictures. Another one of the same file takes
them for its own.
"""

import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, default_storage
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.models import Q

from rtspsite import keys

from . import backup, backup_rows, claims, database, queries, services, tape
from .backup import Progress
from .backup_rows import BadRow, Row
from .fields import Sealed
from .models import Capture, Ending, Frame, Host, Status, Stream, Timeline

log = logging.getLogger(__name__)

MAX_ROW_BYTES = 16 << 20  # a capture of a hundred frames has 100 kB, its timeline at most 40 kB of it
MAX_MANIFEST_BYTES = 1 << 20
MAX_KEYS_BYTES = 64 << 10
ERROR_CODE = "restored"
ERROR_TEXT = "The capture was in progress when the backup was made. The restore stopped it."
NAMED = 3
_LOCK = 0x726573746F7265  # any number that nothing else in the database locks
_FOLDERS = ("frames", "grids")


class Refused(Exception):
    """Nothing was restored; the text is one sentence with the reason."""


@dataclass(slots=True)
class Restored:
    totals: dict[str, int] = field(default_factory=dict)
    made_at: str = ""
    database: str = ""
    has_keys: bool = False
    in_progress: int = 0
    unfinished: int = 0
    """Captures whose grid was not made now: the supervisor makes it."""
    sealed: int = 0
    """Streams whose password no key of this service opens."""
    written_keys: list[str] = field(default_factory=list)
    other_keys: list[str] = field(default_factory=list)
    """Keys of the backup that differ from what this service has, and were not written."""


@dataclass(frozen=True, slots=True)
class _Keys:
    secret_key: str
    credentials_keys: tuple[str, ...]


@contextmanager
def opened(path: str, spool_folder: Path, stdin: IO[bytes]) -> Iterator[IO[bytes]]:
    """The file, or what comes by standard input in a temporary one: it is read more than once. Raises Refused."""
    if path != "-":
        try:
            file = open(path, "rb")  # noqa: SIM115 closed below
        except OSError as error:
            raise Refused(f"{path} cannot be read: {error.strerror}.") from None
        with file:
            if not file.seekable():
                raise Refused(f"{path} is no regular file: give it as -, by standard input.")
            yield file
        return
    try:
        copy = tempfile.TemporaryFile(dir=spool_folder)  # noqa: SIM115 closed below
        with copy:
            while data := stdin.read(tape.CHUNK_BYTES):
                copy.write(data)
            copy.seek(0)
            yield copy
    except OSError as error:
        raise Refused(f"Standard input cannot be copied into {spool_folder}: {error.strerror}.") from None


def restore(file: IO[bytes], progress: Progress, *, is_resuming: bool = False) -> Restored:
    """Raises Refused, and DatabaseError while the database is away."""
    with _alone():
        return _restore(file, progress, is_resuming)


def _restore(file: IO[bytes], progress: Progress, is_resuming: bool) -> Restored:
    try:
        manifest = _Archive(file).manifest
        _check_versions(manifest)
        _check_database()
        stored = _stored_names()
        totals, found_keys = _verify(file, set(stored), progress)
        found = Restored(totals, manifest["made_at"], manifest["database"], found_keys is not None)
        new_key = _write_keys(found_keys, found) if found_keys else None  # before the database is made
        call_command("prepare")
        _write_pictures(file, totals, stored, progress)
        ids = _write_rows(file, manifest, found_keys, new_key, found, progress, is_resuming)
    except (tape.NotATape, BadRow) as error:
        raise Refused(f"This file cannot be restored. {error}") from None
    except OSError as error:
        raise Refused(f"The backup or the storage of the pictures cannot be read: {error.strerror}.") from None
    found.in_progress = len(ids)
    found.sealed = _count_sealed(new_key)
    _finish(found, progress)
    return found


@contextmanager
def _alone() -> Iterator[None]:
    """Raises Refused beside another restore: each would leave pictures to the other that no row names."""
    refused = Refused("Another restore is running: wait for its end.")
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
            if not cursor.fetchone()[0]:
                raise refused
        try:
            yield
        finally:
            with suppress(DatabaseError), connection.cursor() as cursor:  # it is free when the session ends, too
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])
        return
    path = Path(f"{connection.settings_dict['NAME']}{keys.RESTORE_LOCK}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise Refused(f"Nothing can be written into {path.parent}: {error.strerror}.") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refused from None
        yield


# --- the file ---------------------------------------------------------------------------------------


class _Archive:
    """Reads the parts in their order. A part that is in the wrong place or duplicate is refused."""

    def __init__(self, file: IO[bytes], *, is_skipping: bool = False) -> None:
        file.seek(0)
        self.reader = tape.Reader(file, is_skipping=is_skipping)
        self._members = iter(self.reader)
        self._next = next(self._members, None)
        if self._next is None or self._next.name != backup.MANIFEST:
            raise tape.NotATape("It does not begin as a backup of this service.")
        self.manifest: Row = _manifest(self.reader.read(MAX_MANIFEST_BYTES))
        self._step()

    def keys(self) -> _Keys | None:
        if not self.manifest["has_keys"]:
            return None
        secret_key = self._part(backup.SECRET_KEY, MAX_KEYS_BYTES).decode("ascii", "replace")
        credentials_keys = self._part(backup.CREDENTIALS_KEYS, MAX_KEYS_BYTES).decode("ascii", "replace").split(",")
        try:
            MultiFernet([Fernet(key) for key in credentials_keys])
        except ValueError:
            raise tape.NotATape("Its keys are none.") from None
        return _Keys(secret_key, tuple(credentials_keys))

    def table(self, name: str) -> Iterator[Row]:
        self._expect(f"rows/{name}.jsonl")
        yield from map(backup_rows.decode, self.reader.lines(MAX_ROW_BYTES))
        self._step()

    def captures(self, *, is_reading: bool = True) -> Iterator[tuple[str, Any]]:
        """("picture", (name, bytes)) for each picture, then ("capture", row) with its rows."""
        seen: set[int] = set()
        pictures: dict[str, list[Any]] = {}
        while self._next is not None and self._next.name != backup.TOTALS:
            folder, _, name = self._next.name.partition("/")
            if folder == "pictures":
                if name in pictures:
                    raise tape.NotATape(f"It has {name} twice.")
                jpeg = self.reader.read(backup.MAX_PICTURE_BYTES) if is_reading else b""
                pictures[name] = [len(jpeg), hashlib.sha256(jpeg).hexdigest()]
                if len(pictures) > MAX_PICTURES:
                    raise tape.NotATape("A capture has more pictures than there can be.")
                yield "picture", (name, jpeg)
            elif folder == "captures":
                row = backup_rows.decode(self.reader.read(MAX_ROW_BYTES))
                pk = _capture_id(row, name)
                if pk in seen:
                    raise tape.NotATape(f"It has capture {pk} twice.")
                seen.add(pk)
                if is_reading:
                    _check_pictures(row, pk, pictures)
                pictures = {}
                yield "capture", row
            else:
                raise tape.NotATape("It has a part that no backup has.")
            self._step()
        if pictures:
            raise tape.NotATape("It has pictures of no capture.")

    def check_end(self, totals: dict[str, int]) -> None:
        sha256 = self.reader.sha256
        said = self._part(backup.TOTALS, MAX_MANIFEST_BYTES)
        if said != backup.encode_totals(totals, sha256) or self._next is not None:
            raise tape.NotATape("Its checksum or its counts are not those of what it holds: it is damaged.")

    def _part(self, name: str, limit_bytes: int) -> bytes:
        self._expect(name)
        data = self.reader.read(limit_bytes)
        self._step()
        return data

    def _expect(self, name: str) -> None:
        if self._next is None or self._next.name != name:
            raise tape.NotATape(f"It has no {name} where one has to be.")

    def _step(self) -> None:
        self._next = next(self._members, None)


MAX_PICTURES = 200  # a hundred frames and a grid, with room for later versions


def _manifest(data: bytes) -> Row:
    """Decode and check the manifest. Its format is the same in all versions."""
    manifest = backup_rows.decode(data)
    version = manifest.get("version")
    if manifest.get("format") != backup.FORMAT or not isinstance(version, int):
        raise tape.NotATape("It does not begin as a backup of this service.")
    if version > backup.VERSION:
        raise tape.NotATape("A newer version of the service made it: restore it with that one.")
    kinds = {"made_at": str, "database": str, "migrations": dict, "has_keys": bool, "captures": int, "last_ids": dict}
    is_whole = all(isinstance(manifest.get(name), kind) for name, kind in kinds.items())
    if not is_whole or backup.encode_manifest(manifest) != data:
        raise tape.NotATape("Its manifest is damaged.")
    try:
        is_aware = datetime.fromisoformat(manifest["made_at"]).tzinfo is not None
    except ValueError:
        is_aware = False
    if not is_aware or not all(isinstance(last, int) for last in manifest["last_ids"].values()):
        raise tape.NotATape("Its manifest is damaged.")
    return manifest


def _capture_id(row: Row, name: str) -> int:
    capture = row.get("capture")
    pk = capture.get("id") if isinstance(capture, dict) else None
    is_shaped = isinstance(row.get("frames"), list) and isinstance(row.get("files"), dict)
    if not isinstance(pk, int) or pk < 1 or name != f"{pk}.json" or not is_shaped:
        raise tape.NotATape("It has a capture that is none.")
    return pk


def _check_pictures(row: Row, pk: int, pictures: dict[str, list[Any]]) -> None:
    """Check that the pictures are exactly those that the capture's rows name, and complete."""
    grid = row["capture"].get("grid")
    names = [*([grid] if grid else []), *(isinstance(f, dict) and f.get("image") for f in row["frames"])]
    if not all(backup_rows.is_picture_of(pk, name) for name in names):
        raise tape.NotATape(f"Capture {pk} names a picture that is none of its own.")
    if row["files"] != pictures or sorted(names) != sorted(pictures):
        raise tape.NotATape(f"The pictures of capture {pk} are not those that it names.")


def _check_versions(manifest: Row) -> None:
    known = set(MigrationLoader(None, ignore_no_migrations=True).disk_migrations)
    unknown = [
        f"{app}.{name}"
        for app, names in manifest["migrations"].items()
        for name in (names if isinstance(names, list) else [])
        if app in backup_rows.APPS and (app, name) not in known
    ]
    if unknown:
        raise Refused(
            f"A newer version of the service made this backup: this one does not know the migration "
            f"{unknown[0][:80]}. Restore it with that version."
        )


def _verify(file: IO[bytes], strangers: set[str], progress: Progress) -> tuple[dict[str, int], _Keys | None]:
    """Read and check all of it. Takes from `strangers` what it holds, and refuses if some are left."""
    archive = _Archive(file)
    progress.begin("captures checked", archive.manifest["captures"])
    found = archive.keys()
    totals = dict.fromkeys((*backup.TABLES, "captures", "frames", "pictures"), 0)
    for name in backup.TABLES:
        for row in archive.table(name):
            _check_row(name, row)
            totals[name] += 1
    for kind, part in archive.captures():
        if kind == "picture":
            strangers.discard(part[0])
            totals["pictures"] += 1
            continue
        _objects(part)
        totals["captures"] += 1
        totals["frames"] += len(part["frames"])
        progress.advance()
    archive.check_end(totals)
    if strangers:
        names = ", ".join(sorted(strangers)[:NAMED]) + (" ..." if len(strangers) > NAMED else "")
        raise Refused(
            f"The storage has pictures that are not in this backup: {names}. Restore into an empty MEDIA_ROOT or "
            "S3_PREFIX."
        )
    return totals, found


def _check_row(table: str, row: Row) -> None:
    if table == "streams":
        backup_rows.made(Stream, row)
    else:
        backup_rows.check(table, row)


def _objects(row: Row) -> tuple[Capture, list[Frame], Timeline | None]:
    capture = backup_rows.made(Capture, {**row["capture"], "claimed_by_id": None})
    frames = [backup_rows.made(Frame, frame) for frame in row["frames"]]
    if any(frame.capture_id != capture.pk for frame in frames):
        raise BadRow("It has a frame of another capture.")
    data = row.get("timeline")
    return capture, frames, None if data is None else Timeline(capture_id=capture.pk, data=str(data))


# --- where it goes ----------------------------------------------------------------------------------


def _check_database() -> None:
    """Raises Refused if it has captures or streams, or a supervisor works on it. It need not be migrated."""
    if connection.vendor == "sqlite" and not Path(connection.settings_dict["NAME"]).exists():
        return  # looking into it would create it
    tables = set(connection.introspection.table_names())
    for model in (Stream, Capture):
        if model._meta.db_table in tables and model._default_manager.exists():
            raise Refused("The database has streams or captures: restore into an empty one.")
    if Host._meta.db_table in tables:
        alive = Host.objects.filter(claims.is_alive()).order_by("name").values_list("name", flat=True).first()
        if alive:
            raise Refused(f"A supervisor is running on the host {alive}: stop the service on all hosts first.")


def _stored_names() -> set[str]:
    """The names of all files in the folders of frames and grids."""
    found = set()
    with backup.storage_errors():
        for folder in _FOLDERS:
            for inner in ("", *_listed(folder)[0]):
                path = f"{folder}/{inner}".rstrip("/")
                found |= {f"{path}/{name}" for name in _listed(path)[1]}
    return found


def _listed(path: str) -> tuple[list[str], list[str]]:
    try:
        return default_storage.listdir(path)
    except FileNotFoundError:
        return [], []


def _write_pictures(file: IO[bytes], totals: dict[str, int], stored: set[str], progress: Progress) -> None:
    progress.begin("pictures", totals["pictures"])
    archive = _Archive(file)
    archive.keys()
    for name in backup.TABLES:
        for _ in archive.table(name):
            pass
    waiting: list[tuple[str, bytes]] = []
    with ThreadPoolExecutor(backup.AT_ONCE) as pool:
        for kind, part in archive.captures():
            if kind == "picture":
                waiting.append(part)
            if len(waiting) == backup.AT_ONCE:
                _write_all(pool, waiting, stored)
                progress.advance(len(waiting))
                waiting = []
        _write_all(pool, waiting, stored)
    archive.check_end(totals)  # the file did not change since it was checked
    if isinstance(default_storage, FileSystemStorage):
        os.sync()  # all of them at once, before the rows: one by one takes 0.7 ms each


def _write_all(pool: ThreadPoolExecutor, some: Sequence[tuple[str, bytes]], stored: set[str]) -> None:
    def write(picture: tuple[str, bytes]) -> None:
        backup.patiently(partial(_write_picture, *picture, picture[0] in stored))

    try:
        list((map if isinstance(default_storage, FileSystemStorage) else pool.map)(write, some))
    except OSError as error:
        raise Refused(f"The pictures cannot be written: {error.strerror}. Nothing was restored.") from None


def _write_picture(name: str, jpeg: bytes, is_there: bool) -> None:
    """Write the picture. One that a killed restore left stays if it is complete."""
    with backup.storage_errors():
        if is_there and default_storage.exists(name):
            with default_storage.open(name) as file:
                if file.read() == jpeg:
                    return
            default_storage.delete(name)
        if default_storage.save(name, ContentFile(jpeg)) != name:
            raise Refused(f"{name} cannot be written under its own name.")


# --- keys -------------------------------------------------------------------------------------------


def _write_keys(found: _Keys, restored: Restored) -> str | None:
    """The key for the cameras' passwords, if this service has it from now on."""
    folder = Path(settings.DATA_DIR)
    ours = ((keys.SECRET_KEY, found.secret_key, settings.SECRET_KEY),
            (keys.CREDENTIALS_KEY, found.credentials_keys[0], settings.CREDENTIALS_KEYS[0]))  # fmt: skip
    new_key = None
    are_unused = keys.are_alone_in(folder)
    for name, key, present in ours:
        path = folder / name
        if key == present:
            continue
        # Nothing was ever encrypted or signed with a key of this process, or of an earlier restore that was refused.
        if path in keys.made_here or (are_unused and keys.holds(path, present)):
            keys.replace(path, key)
            restored.written_keys.append(name)
            new_key = key if name == keys.CREDENTIALS_KEY else new_key
        else:
            restored.other_keys.append(name)
    return new_key


def _count_sealed(new_key: str | None) -> int:
    """Streams whose credentials no key opens that this service has from now on."""
    ours = _cipher([new_key] if new_key else settings.CREDENTIALS_KEYS)
    sealed, last = 0, 0
    while rows := queries.sealed_credentials(after=last, limit=backup_rows.BATCH):
        sealed += sum(not _opens(ours, token.token.encode()) for _, token in rows)
        last = rows[-1][0]
    return sealed


def _cipher(some_keys: Iterable[str]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in some_keys])


def _opens(cipher: MultiFernet, token: bytes) -> bool:
    try:
        cipher.decrypt(token)
    except InvalidToken:
        return False
    return True


# --- rows -------------------------------------------------------------------------------------------


def _write_rows(
    file: IO[bytes],
    manifest: Row,
    found: _Keys | None,
    new_key: str | None,
    restored: Restored,
    progress: Progress,
    is_resuming: bool,
) -> list[int]:
    """Write all rows or none, and return the ids of the captures that were in progress."""
    progress.begin("captures", restored.totals["captures"])
    archive = _Archive(file, is_skipping=True)
    archive.keys()
    ours = _cipher([new_key] if new_key else settings.CREDENTIALS_KEYS)
    try:
        with transaction.atomic():
            database.may_be_idle()
            _check_database()  # a service may have been started meanwhile
            for name in backup.TABLES:
                if name == "streams":
                    _save_streams(archive.table(name), ours, _cipher(found.credentials_keys) if found else None)
                else:
                    for row in archive.table(name):
                        backup_rows.save(name, row)
            ids = _save_captures(archive, manifest, progress, is_resuming)
            _set_statuses(ids, is_resuming)
            backup_rows.keep_ids(manifest["last_ids"])
    except (ValueError, TypeError, OverflowError) as error:
        raise BadRow(f"The database does not take its rows: {error}") from None
    except DatabaseError as error:
        if not _is_about_rows(error):
            raise
        raise BadRow(f"The database does not take its rows: {str(error).splitlines()[0]}") from None
    return ids


def _is_about_rows(error: DatabaseError) -> bool:
    return type(error).__name__ in ("IntegrityError", "DataError")


def _save_streams(rows: Iterable[Row], ours: MultiFernet, theirs: MultiFernet | None) -> None:
    for some in _batches(rows):
        streams = [backup_rows.made(Stream, row) for row in some]
        for stream in streams:
            if theirs and isinstance(stream.credentials, Sealed):
                stream.credentials = _opened_by(ours, theirs, stream.credentials)
        Stream.objects.bulk_create(streams)


def _opened_by(ours: MultiFernet, theirs: MultiFernet, credentials: Sealed) -> Sealed:
    """Encrypt the credentials with this service's key. They stay if it can read them already, or if no key can."""
    token = credentials.token.encode()
    if _opens(ours, token) or not _opens(theirs, token):
        return credentials
    return Sealed(ours.encrypt(theirs.decrypt(token)).decode())


def _save_captures(archive: _Archive, manifest: Row, progress: Progress, is_resuming: bool) -> list[int]:
    ids: list[int] = []
    for some in _batches(part for kind, part in archive.captures(is_reading=False) if kind == "capture"):
        captures, frames, timelines = [], [], []
        for row in some:
            capture, its_frames, timeline = _objects(row)
            if not capture.is_finished:
                ids.append(capture.pk)
                if not is_resuming:
                    _end(capture, datetime.fromisoformat(manifest["made_at"]))
            captures.append(capture)
            frames += its_frames
            timelines += [timeline] if timeline else []
        Capture.objects.bulk_create(captures)
        Frame.objects.bulk_create(frames, batch_size=500)
        Timeline.objects.bulk_create(timelines)
        progress.advance(len(captures))
    return ids


def _end(capture: Capture, made_at: datetime) -> None:
    """Mark the capture as stopped at the time of the backup, unless somebody had stopped it already."""
    if capture.stop_requested_at is None:
        capture.stop_requested_at, capture.ending = made_at, Ending.STOPPED
        capture.error_code, capture.error_text = ERROR_CODE, ERROR_TEXT


def _set_statuses(ids: list[int], is_resuming: bool) -> None:
    """Reset the statuses of all streams: no host works on any of them."""
    at_rest = Q(status__in=[Status.IDLE, Status.FAILED])
    fresh = {"attempt": 0, "next_attempt_at": None, "notices": ""}
    in_progress = Capture.objects.filter(finished_at=None)
    stopping = in_progress.filter(stop_requested_at__isnull=False).values("stream")
    waiting = in_progress.filter(stop_requested_at=None).values("stream")
    Stream.objects.exclude(at_rest).update(status=Status.IDLE, **fresh)
    Stream.objects.filter(pk__in=stopping).update(status=Status.STOPPING, **fresh)
    Stream.objects.filter(pk__in=waiting).update(status=Status.QUEUED, **fresh)


def _finish(restored: Restored, progress: Progress) -> None:
    """The captures that were stopped. What fails here, or is left by a signal, the supervisor does at its start."""
    stopped = queries.unclaimed().to_finish
    restored.unfinished = len(stopped)
    progress.begin("grids", len(stopped))
    with suppress(KeyboardInterrupt):
        for candidate in stopped:
            try:
                services.finish(candidate.capture_id)
                restored.unfinished -= 1
            except (OSError, DatabaseError) as error:
                log.error("capture=%s grid failed error=%s", candidate.capture_id, error)
            progress.advance()


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == backup_rows.BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
