"""Whether this website can serve: the database, a supervisor, room for pictures. It answers in bounded time."""

import errno
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, TimeoutError, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from django.core.files.storage import FileSystemStorage, storages
from django.db import Error as DatabaseFailed
from django.db import connections

from . import claims, queries, reserve

log = logging.getLogger(__name__)

WITHIN_S = 2.0  # a probe usually waits for 3 to 5 s
MIN_FREE_BYTES = 64 * 1024 * 1024  # some hundred pictures of 1080p
MIN_FREE_FILES = 1000
# Folders that pictures go to, below the storage's own; each is made with its first picture.
_FOLDERS = ("", "frames", "grids")

T = TypeVar("T")


class Asker(Generic[T]):
    """Asks something that may hang, in a thread of its own, one at a time: who asks meanwhile gets the same answer.

    Nothing in this process can end a read from a database that is paused, or from a network folder that is away. So
    the one who waits gives up, and however often it is asked no more than one thread hangs.
    """

    def __init__(self, question: Callable[[], T]) -> None:
        self._question = question
        self._lock = threading.Lock()
        self._asked: Future[T] | None = None

    def begin(self) -> "Future[T]":
        with self._lock:
            if self._asked is None or self._asked.done():
                asked: Future[T] = Future()
                # No executor: at the end of the process it would wait for what hangs.
                threading.Thread(target=self._answer, args=[asked], daemon=True).start()
                self._asked = asked  # only now: a thread that could not be started answers nobody
            return self._asked

    def _answer(self, asked: "Future[T]") -> None:
        try:
            try:
                answer = self._question()
            finally:
                connections.close_all()  # this thread's own
        except BaseException as error:
            asked.set_exception(error)
        else:
            asked.set_result(answer)


@dataclass(frozen=True, slots=True)
class Check:
    is_ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class Room:
    """For pictures. `free_files` is None on file systems that do not count them."""

    free_bytes: int
    free_files: int | None
    is_writable: bool
    is_reserve_given_up: bool = False


def room() -> Room | None:
    """None if pictures are not kept in a folder of this machine. Raises OSError."""
    storage = storages["default"]
    if not isinstance(storage, FileSystemStorage):
        return None
    folder = _nearest(Path(storage.location))
    found = os.statvfs(folder)
    return Room(
        free_bytes=found.f_bavail * found.f_frsize,
        free_files=found.f_favail if found.f_files else None,
        is_writable=all(_is_writable(folder / name) for name in _FOLDERS),
        is_reserve_given_up=reserve.is_given_up(),
    )


def wait_for(*asked: "Future[Any]", within_s: float) -> None:
    """Until all have answered, or the time is over."""
    wait(asked, within_s)


DATABASE = Asker(queries.has_living_host)
ROOM = Asker(room)


def checks() -> dict[str, Check]:
    """What has to be there to serve, each with a sentence that holds no address, path or name."""
    database, storage = DATABASE.begin(), ROOM.begin()
    wait_for(database, storage, within_s=WITHIN_S)
    return {**_of_database(database), "storage": _of_room(storage)}


class Readiness:
    """Says in the log when it changes, not at each probe."""

    def __init__(self) -> None:
        self._failing: list[str] = []

    def note(self, found: Mapping[str, Check]) -> bool:
        """Whether all is well."""
        failing = [name for name, check in found.items() if not check.is_ok]
        if failing != self._failing:
            self._failing = failing
            if failing:
                log.error("not ready: %s", " ".join(found[name].message for name in failing))
            else:
                log.info("ready again")
        return not failing


def _of_database(asked: "Future[bool]") -> dict[str, Check]:
    try:
        has_host = asked.result(0)
    except TimeoutError:
        message = f"The database does not answer within {WITHIN_S:g} s."
    except DatabaseFailed as error:  # its own words may name addresses and users
        message = f"The database does not answer: {type(error).__name__}."
    else:
        heard = "A supervisor lives." if has_host else f"No supervisor was heard for {claims.CLAIM_S:g} s."
        return {"database": Check(True, "The database answers."), "supervisor": Check(has_host, heard)}
    return {
        "database": Check(False, message),
        "supervisor": Check(False, "Without the database nobody knows."),
    }


def _of_room(asked: "Future[Room | None]") -> Check:
    try:
        found = asked.result(0)
    except TimeoutError:
        return Check(False, f"The media folder does not answer within {WITHIN_S:g} s.")
    except OSError as error:
        return Check(False, f"The media folder cannot be read: {error.strerror}.")
    if found is None:
        return Check(True, "Not asked: pictures are not kept in a folder of this machine.")
    return judge(found)


def judge(found: Room) -> Check:
    """Whether it is enough."""
    if not found.is_writable:
        return Check(False, "The media folder is not writable.")
    if found.is_reserve_given_up:
        return Check(False, "The database's disk is full: nothing is started until there is room.")
    if found.free_bytes < MIN_FREE_BYTES:
        return Check(False, f"The disk is full: {_mib(found.free_bytes)} free, {_mib(MIN_FREE_BYTES)} needed.")
    if found.free_files is not None and found.free_files < MIN_FREE_FILES:
        return Check(False, f"The disk has room for {found.free_files} more files, {MIN_FREE_FILES} are needed.")
    return Check(True, f"There is room for pictures: {_mib(found.free_bytes)}.")


def _mib(size_bytes: int) -> str:
    return f"{size_bytes // (1024 * 1024)} MiB"


def _nearest(folder: Path) -> Path:
    """The folder, or if it is still to be made the one that it will be made in."""
    for path in (folder, *folder.parents):
        if path.is_dir():
            return path
        if path.exists():
            break
    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def _is_writable(folder: Path) -> bool:
    """A folder that is still to be made is no hindrance."""
    return not folder.exists() or os.access(folder, os.W_OK | os.X_OK, effective_ids=True)
