"""What goes: captures that are old enough or deleted, files that no row knows, hosts and failed jobs of long ago.

Rows go first, in one transaction for each batch, and their files after it: whenever a prune is killed, each row that
is left has its files, and what is left of the others is a file that no row knows, which the next prune removes.
"""

import contextlib
import errno
import heapq
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from typing import Any, TypeVar

from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.sessions.models import Session
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Exists, Min, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django_q.models import OrmQ, Schedule, Task
from django_q.tasks import async_task

from . import database, database_faults, reserve, storage_check
from .claims import forget_future
from .models import Capture, Frame, Host

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = TypeVar("Row", Capture, Host)

BATCH = 100
# Files are written before their rows: a checkpoint takes seconds, on a store that is away minutes. The rest of the
# hour is for the clocks of hosts and stores, which differ.
YOUNG_S = 3600.0
HOST_SILENT_S = 86_400.0  # containers get a new name at each start
SIGN_IN_S = 86_400.0  # long after it has counted; each new failure takes those that count no more with it
FAILED_JOB_DAYS = 30.0  # django-q2's save_limit counts successful tasks only
# The daily job looks at the folders of captures that ended lately: after that nothing writes there any more.
LATELY_DAYS = 7.0
# Of the 60 s that a job has: SQLite's busy timeout (20 s) may come on top.
JOB_S = 30.0
# What a request may take: 20,000 files on a disk.
REQUEST_S = 5.0
MISSING_NAMED = 10
# A job that is taken is free again after django-q2's `retry`; the rest is for clocks that differ.
JOB_AHEAD_S = settings.Q_CLUSTER["retry"] + 60.0
# Sessions and failed sign-ins of a clock that was ahead would last until that time has come.
SIGN_IN_AHEAD_S = 86_400.0
SCHEDULE = "prune"
SCHEDULE_HOUR_UTC = 3
_JOB = "streams.jobs.prune"
PUT_OFF_S = 60
_PUT_OFF = "prune again"
# The database that failed a moment ago may take a moment longer; a job has 60 s, and may have used 20 of them.
_PUT_OFF_TRIES, _PUT_OFF_PAUSE_S = 10, 1.0

# The names that services.py gives. Whatever else lies in the storage is not ours.
_FOLDER = re.compile(r"[1-9][0-9]{0,17}")
_OURS = re.compile(r"frames/[0-9]+/[0-9]+-[0-9a-f]{8}\.jpg|grids/[0-9]+/[0-9a-f]{8}\.jpg")
_FLAT_GRID = re.compile(r"([1-9][0-9]{0,17})-[0-9a-f]{8}\.jpg")
_NEVER = datetime.min.replace(tzinfo=UTC) + timedelta(seconds=YOUNG_S)


@dataclass(slots=True)
class Tally:
    count: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class Pruned:
    """What went, or would go in a dry run; and what was found and stays."""

    captures: int = 0
    capture_files: Tally = field(default_factory=Tally)
    unknown_files: Tally = field(default_factory=Tally)
    folders: int = 0
    hosts: int = 0
    failed_jobs: int = 0
    sign_ins: int = 0
    """Failed ones that count no more, and sessions that are over."""
    missing: int = 0
    """Rows whose file is not there."""
    missing_names: list[str] = field(default_factory=list)
    """The first MISSING_NAMED of them."""
    older_than_database: int = 0
    """Files under names of ours that another database must have known."""
    undeleted: int = 0
    """Files that the storage would not delete."""
    swept_to: int = 0
    """The folders of all captures up to this id were looked at."""
    is_complete: bool = False
    """False if the time was over before everything was looked at."""


Step = Callable[[Pruned], object]


def prune(
    *,
    keep_days: float,
    is_dry_run: bool = False,
    lately_days: float = math.inf,
    limit_s: float = math.inf,
    after: int = 0,
    on_step: Step = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Pruned:
    """Remove what is to go. Any number may run at once, beside everything else.

    `keep_days` 0 keeps every capture. Folders of captures that ended longer than `lately_days` ago, or have an id up
    to `after`, are not looked at. `on_step` is called after each batch. Raises OSError when the storage cannot be
    read.
    """
    run = _Run(is_dry_run, lately_days, clock() + limit_s, on_step, clock)
    run.pruned.swept_to = after
    try:
        is_done = run.remove_rows(keep_days)
    except OperationalError as error:
        if database_faults.fault_of(error) is not database_faults.FULL:
            raise
        run.sweep(after)  # what no row knows needs no room in the database to go
        is_done = run.remove_rows(keep_days)
    run.pruned.is_complete = is_done and run.sweep(after)
    if not is_dry_run:
        reserve.restore()
    return run.pruned


def prune_in_turns(after: int = 0) -> Pruned:
    """What fits into one job. The rest is the next job's: each removes captures or gets on with the folders."""
    pruned = prune(keep_days=settings.CAPTURE_KEEP_DAYS, lately_days=LATELY_DAYS, limit_s=JOB_S, after=after)
    if not pruned.is_complete:
        async_task(_JOB, pruned.swept_to, task_name="prune")
    if pruned.missing:
        log.error("files missing count=%s first=%s", pruned.missing, pruned.missing_names[0])
    log.info("pruned captures=%s files=%s", pruned.captures, pruned.capture_files.count + pruned.unknown_files.count)
    return pruned


def names_of(captures: "QuerySet[Capture]") -> list[str]:
    """The files that their rows point to."""
    grids = captures.order_by().exclude(grid="").values_list("grid")
    frames = Frame.objects.order_by().filter(capture__in=captures.order_by()).values_list("image")
    return [str(name) for (name,) in grids.union(frames, all=True)]


def remove_files(capture_ids: Sequence[int], names: Sequence[str]) -> None:
    """The files of captures that were deleted, as far as there is time in a request; the rest is the next prune's."""
    end_s = time.monotonic() + REQUEST_S
    _Run(False, math.inf, end_s, lambda _: None, time.monotonic).remove_files(capture_ids, names)


def keep_schedule() -> None:
    """Have the daily job in django-q2's schedule, once. When it runs, and whether, may be changed in the admin.

    A next run that is more than its period and a day away was written by a clock that was ahead.
    """
    with transaction.atomic():
        first, *others = Schedule.objects.select_for_update().filter(name=SCHEDULE).order_by("id") or [None]
        if first is None:
            Schedule.objects.create(
                name=SCHEDULE, func=_JOB, schedule_type=Schedule.DAILY, repeats=-1, next_run=_next_night()
            )
            return
        Schedule.objects.filter(pk__in=[other.pk for other in others]).delete()
        Schedule.objects.filter(pk=first.pk).exclude(func=_JOB).update(func=_JOB)
        next_run = _next_night() if first.next_run is None else _not_too_far(first, database.exact_now())
        if next_run != first.next_run:
            Schedule.objects.filter(pk=first.pk).update(next_run=next_run)
            was, words = first.next_run, "schedule=%s next_run=%s put right: it was %s"
            database.after_commit(lambda: log.warning(words, SCHEDULE, next_run.isoformat(), was))


def put_off(after: int) -> None:
    """Have a prune from there on in PUT_OFF_S, once, beside the daily one. Raises the database's errors."""
    for tries_left in reversed(range(_PUT_OFF_TRIES)):
        try:
            then = database.exact_now() + timedelta(seconds=PUT_OFF_S)
            once = {"func": _JOB, "args": f"({after},)", "schedule_type": Schedule.ONCE, "next_run": then}
            Schedule.objects.update_or_create(name=_PUT_OFF, defaults=once)
        except (OperationalError, InterfaceError):
            if not tries_left:
                raise
        else:
            return
        connection.close()
        time.sleep(_PUT_OFF_PAUSE_S)


def put_jobs_right() -> None:
    """Free the jobs that a clock that was ahead has queued or taken: they would wait until that time has come."""
    ahead = OrmQ.objects.filter(lock__gt=_ago(seconds=-JOB_AHEAD_S))
    if count := ahead.update(lock=Now()):
        database.after_commit(lambda: log.warning("jobs put right: a clock was ahead count=%s", count))


def _next_night() -> datetime:
    now = database.exact_now()
    tonight = now.replace(hour=SCHEDULE_HOUR_UTC, minute=0, second=0, microsecond=0)
    return tonight if tonight > now else tonight + timedelta(days=1)


def _not_too_far(schedule: Schedule, now: datetime) -> datetime:
    """The next run; if it is too far away, the next time of the same day and hour. ONCE may be as far as it likes."""
    next_run: datetime = schedule.next_run
    if schedule.schedule_type == Schedule.ONCE:
        return next_run
    period: timedelta = schedule.calculate_next_run(now) - now
    if next_run <= now + period + timedelta(days=1):
        return next_run
    step = timedelta(weeks=1) if period >= timedelta(weeks=1) else timedelta(days=1)
    return next_run - step * ((next_run - now) // step)


# --- one run --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Run:
    is_dry_run: bool
    lately_days: float
    end_s: float
    on_step: Step
    clock: Callable[[], float]
    pruned: Pruned = field(default_factory=Pruned)
    # A service that was given a new database and an old media folder must not take all of it for litter.
    born_at: datetime = field(default_factory=lambda: _born_at())
    now: datetime = field(default_factory=database.exact_now)
    _ahead: timedelta | None = None

    def remove_rows(self, keep_days: float) -> bool:
        """Whether all captures were removed that are finished and old enough."""
        self.forget_hosts()
        self.forget_failed_jobs()
        self.forget_sign_ins()
        return self.remove_captures(keep_days)

    @reserve.may_use
    def forget_hosts(self) -> None:
        """Those that claim nothing."""
        if not self.is_dry_run:
            forget_future()
        claims = Capture.objects.filter(claimed_by=OuterRef("pk"))
        hosts = Host.objects.filter(~Exists(claims), heartbeat_at__lt=_ago(seconds=HOST_SILENT_S))
        with transaction.atomic():
            # A supervisor that claims holds the lock on its host's row.
            ids = list(_locked(hosts).order_by("id").values_list("id", flat=True))
            self.pruned.hosts = len(ids)
            if not self.is_dry_run:
                Host.objects.filter(pk__in=ids).delete()

    @reserve.may_use
    def forget_failed_jobs(self) -> None:
        tasks = Task.objects.filter(success=False, stopped__lt=_ago(days=FAILED_JOB_DAYS))
        self.pruned.failed_jobs = tasks.count() if self.is_dry_run else tasks.delete()[0]

    @reserve.may_use
    def forget_sign_ins(self) -> None:
        attempts = AccessAttempt.objects.filter(attempt_time__lt=_ago(seconds=SIGN_IN_S))
        # Signed in, or locked out, by a clock that was ahead.
        ahead = AccessAttempt.objects.filter(attempt_time__gt=_ago(seconds=-SIGN_IN_AHEAD_S))
        longest_s = settings.SESSION_COOKIE_AGE + SIGN_IN_AHEAD_S
        sessions = Session.objects.filter(Q(expire_date__lt=Now()) | Q(expire_date__gt=_ago(seconds=-longest_s)))
        for rows in (attempts, ahead, sessions):
            self.pruned.sign_ins += rows.count() if self.is_dry_run else rows.delete()[0]

    # --- captures ---

    def remove_captures(self, keep_days: float) -> bool:
        """Whether all were, that are finished and old enough."""
        after = 0
        while keep_days and (ids := self._remove_batch(keep_days, after)):
            after = ids[-1]
            self.on_step(self.pruned)
            if self._is_over():
                return False
        return True

    @reserve.may_use
    @database.retried
    def _remove_batch(self, keep_days: float, after: int) -> list[int]:
        """The ids of the captures that went. Another prune's batch is skipped, not waited for."""
        with transaction.atomic():
            old = Capture.objects.filter(finished_at__lt=_ago(days=keep_days), id__gt=after)
            ids = list(_locked(old).order_by("id").values_list("id", flat=True)[:BATCH])
            names = names_of(Capture.objects.filter(pk__in=ids))
            if ids and not self.is_dry_run:
                Capture.objects.filter(pk__in=ids).delete()
        self.pruned.captures += len(ids)
        self.remove_files(ids, names)
        return ids

    def remove_files(self, ids: Sequence[int], names: Sequence[str]) -> None:
        """Of captures whose rows are gone: what is left is found by the next prune."""
        for name in names:
            if self._is_over():
                return
            self._remove(name, self.pruned.capture_files)
        for pk in ids:
            if self._is_over():
                return
            self._remove_folder(f"frames/{pk}")
            self._remove_folder(f"grids/{pk}")

    # --- files that no row knows ---

    def sweep(self, after: int) -> bool:
        """Whether the files of all captures after that one were looked at."""
        shelves = _Shelves.read()
        self._sweep_flat_grids(shelves)
        for name in shelves.probes:
            self._remove_unknown(name, self.now)
        folders = heapq.merge(sorted(shelves.frames), sorted(shelves.grids))
        captures = (pk for (pk,) in _pages(Capture.objects.filter(id__gt=after)))
        found = heapq.merge((pk for pk in folders if pk > after), captures)
        for ids in _batches(pk for pk, _ in groupby(found)):
            is_done = self._sweep_folders(shelves, self._ended_lately(ids))
            if is_done:
                self.pruned.swept_to = ids[-1]
            self.on_step(self.pruned)
            if not is_done or self._is_over():
                return False
        return True

    def _sweep_flat_grids(self, shelves: "_Shelves") -> None:
        """As the first versions named them: what they wrote is known to a row or litter."""
        for items in _batches(sorted(shelves.flat_grids.items())):
            captures = Capture.objects.in_bulk([pk for _, pk in items])
            for name, pk in items:
                capture = captures.get(pk)
                if capture is None or capture.grid.name != name:
                    self._remove_unknown(name, self._settled_at(capture, name))

    def _sweep_folders(self, shelves: "_Shelves", ids: Sequence[int]) -> bool:
        """Whether there was time for all. Listing, captures, frames: in this order, so that a file that was adopted
        meanwhile is known."""
        listed = {pk: shelves.listdir(pk) for pk in ids}
        rows = Capture.objects.filter(pk__in=ids).select_related("claimed_by")
        captures = {row.pk: row for row in rows.only("grid", "finished_at", "claimed_by__saved_at")}
        known = _known_files(ids, captures.values())
        for pk in ids:
            capture = captures.get(pk)
            for folder, names in listed[pk].items():
                self._sweep_folder(folder, names, known[pk], capture)
            for name in sorted(known[pk].difference(*listed[pk].values())):
                if name not in shelves.flat_grids:
                    self._note_if_missing(pk, name)
            self.pruned.swept_to = pk
            if self._is_over() and pk != ids[-1]:
                return False
        return True

    def _sweep_folder(self, folder: str, names: set[str], known: set[str], capture: Capture | None) -> None:
        unknown = [name for name in sorted(names - known) if _OURS.fullmatch(name)]
        removed = [self._remove_unknown(name, self._settled_at(capture, name)) for name in unknown]
        if sum(removed) == len(names) and (capture is None or capture.is_finished):
            self._remove_folder(folder)

    def _ended_lately(self, ids: Sequence[int]) -> Sequence[int]:
        """Without those that ended long ago."""
        if math.isinf(self.lately_days):
            return ids
        rows = Capture.objects.filter(pk__in=ids, finished_at__lt=_ago(days=self.lately_days))
        settled = set(rows.values_list("id", flat=True))
        return [pk for pk in ids if pk not in settled]

    def _settled_at(self, capture: Capture | None, name: str) -> datetime:
        """A file that was written before this moment and is unknown stays unknown.

        What is not finished gets its grid from whoever made one, however long he was paused. A checkpoint holds only
        while the capture is claimed, and its host's `saved_at` tells which ones are over.
        """
        if capture is None or capture.is_finished:
            return self.now
        if name.startswith("grids/"):
            return _NEVER
        return self.now if capture.claimed_by is None else min(self.now, capture.claimed_by.saved_at)

    # --- files ---

    def _remove_unknown(self, name: str, settled_at: datetime) -> bool:
        try:
            with _storage():
                written_at = default_storage.get_modified_time(name)
        except FileNotFoundError:
            return True  # another prune, or its writer, was faster
        if written_at < self.born_at:
            self.pruned.older_than_database += 1
            return False
        if written_at - self._storage_ahead() > settled_at - timedelta(seconds=YOUNG_S):
            return False
        return self._remove(name, self.pruned.unknown_files)

    def _storage_ahead(self) -> timedelta:
        """By how much the storage's clock is ahead of the database's; it dates the files.

        If no file can be written, as on a full disk, its clock is taken for this host's, if that one is behind.
        """
        if self._ahead is None:
            try:
                ahead_s = (storage_check.probe(default_storage) - database.exact_now()).total_seconds()
            except OSError:
                ahead_s = min(0.0, database.host_ahead_s())
            self._ahead = timedelta(seconds=ahead_s if abs(ahead_s) > database.TOLERANCE_S else 0.0)
        return self._ahead

    def _remove(self, name: str, tally: Tally) -> bool:
        """Whether it is gone. What is gone already counts for whoever removed it."""
        try:
            with _storage():
                size_bytes = default_storage.size(name)
                if not self.is_dry_run:
                    default_storage.delete(name)
        except FileNotFoundError:
            return True
        except OSError as error:
            log.warning("file=%s could not be deleted error=%s", name, error.strerror)
            self.pruned.undeleted += 1
            return False
        tally.count += 1
        tally.size_bytes += size_bytes
        return not self.is_dry_run

    def _remove_folder(self, name: str) -> None:
        """If it is empty. Object stores have no folders."""
        if self.is_dry_run or not isinstance(default_storage, FileSystemStorage):
            return
        with contextlib.suppress(OSError), _storage():  # not empty: something of somebody else's
            if default_storage.exists(name):
                default_storage.delete(name)
                self.pruned.folders += 1

    def _note_if_missing(self, capture_id: int, name: str) -> None:
        """The row is asked after the file: files go after their rows."""
        with _storage():
            if default_storage.exists(name):
                return
        frames = Frame.objects.filter(capture=capture_id, image=name)
        if frames.exists() or Capture.objects.filter(pk=capture_id, grid=name).exists():
            self.pruned.missing += 1
            if len(self.pruned.missing_names) < MISSING_NAMED:
                self.pruned.missing_names.append(name)

    def _is_over(self) -> bool:
        return self.clock() >= self.end_s


@dataclass(frozen=True, slots=True)
class _Shelves:
    """Which captures have a folder in the storage, and what lies beside the folders."""

    frames: frozenset[int]
    grids: frozenset[int]
    flat_grids: dict[str, int]
    """And the captures that they name."""
    probes: list[str]
    """What `storage_check` wrote and could not delete."""

    @classmethod
    def read(cls) -> "_Shelves":
        folders, names = _listdir("grids")
        flat_grids = {f"grids/{name}": int(match[1]) for name in names if (match := _FLAT_GRID.fullmatch(name))}
        captures, others = _listdir(storage_check.FOLDER)
        probes = [f"{storage_check.FOLDER}/{name}" for name in others if storage_check.PROBE.fullmatch(name)]
        return cls(_numbers(captures), _numbers(folders), flat_grids, probes)

    def listdir(self, capture_id: int) -> dict[str, set[str]]:
        """Its folders and what is in each."""
        folders = [("frames", self.frames), ("grids", self.grids)]
        names = [f"{folder}/{capture_id}" for folder, ids in folders if capture_id in ids]
        return {name: {f"{name}/{entry}" for entries in _listdir(name) for entry in entries} for name in names}


def _numbers(folders: Iterable[str]) -> frozenset[int]:
    return frozenset(int(name) for name in folders if _FOLDER.fullmatch(name))


def _known_files(ids: Sequence[int], captures: Iterable[Capture]) -> Mapping[int, set[str]]:
    """The files that the rows of each capture point to."""
    found: dict[int, set[str]] = {pk: set() for pk in ids}
    for capture in captures:
        if capture.grid:
            found[capture.pk].add(str(capture.grid.name))
    for pk, name in Frame.objects.filter(capture__in=ids).values_list("capture_id", "image"):
        found[pk].add(str(name))
    return found


def _pages(rows: "QuerySet[Capture]", *fields: str) -> Iterator[tuple[Any, ...]]:
    """Id and fields of each row, by id; no cursor is held open over what is done between."""
    after = 0
    while page := list(rows.filter(id__gt=after).order_by("id").values_list("id", *fields)[: 10 * BATCH]):
        yield from page
        after = page[-1][0]


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    left = iter(items)
    while batch := list(islice(left, BATCH)):
        yield batch


def _locked(rows: "QuerySet[Row]") -> "QuerySet[Row]":
    """Nobody else's transaction holds them, nor gets them before this one ends. SQLite locks everything anyway."""
    can_skip = connection.features.has_select_for_update_skip_locked
    return rows.select_for_update(skip_locked=can_skip)


def _ago(*, days: float = 0.0, seconds: float = 0.0) -> Any:
    """By the database's clock."""
    return Now() - timedelta(days=days, seconds=seconds)


def _born_at() -> datetime:
    """When the database was made."""
    first = MigrationRecorder(connection).migration_qs.aggregate(first=Min("applied"))["first"]
    return first if isinstance(first, datetime) else datetime.now(UTC)


def _listdir(path: str) -> tuple[list[str], list[str]]:
    """Folders and files; none if there is no such folder."""
    try:
        with _storage():
            return default_storage.listdir(path)
    except FileNotFoundError:
        return [], []


@contextlib.contextmanager
def _storage() -> Iterator[None]:
    """Turn the errors of any storage into OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__} of the storage") from error
