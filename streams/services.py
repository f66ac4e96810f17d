"""Every write: start, stop, change, place, checkpoint, hand over, finish. Doors and the supervisor call these."""

import errno
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, Storage, default_storage
from django.db import IntegrityError, connection, transaction
from django.db.models.fields.files import FieldFile
from django.db.models.functions import Coalesce, Now
from django_q.tasks import async_task

from . import claims, database, database_faults, queries, reserve, retention, storage_check
from .claims import Claim, ClaimLost
from .engine import composer
from .engine.address import MASK, MAX_NAME_LENGTH, Address, check_literal
from .engine.backoff import longest_wait_s
from .engine.errors import CaptureError, InvalidURL, RecorderDied, Retry
from .engine.notices import Notice
from .engine.quirks import Quirks
from .engine.report import Picture, Report, State
from .engine.report import Status as EngineStatus
from .fields import Sealed, is_newest, with_newest_key
from .models import Capture, Ending, Frame, Host, Status, Stream, Timeline

log = logging.getLogger(__name__)

T = TypeVar("T")
Meanwhile = Callable[[], object]

_NAME_TRIES = 1000
_MAKING_STREAMS = 0x6D616B696E67  # any number that nothing else in the database locks
SETTINGS = ("interval_s", "count", "transport", "verify_certificate")  # of a stream, a Wish and a Change
GIVE_UP_FILES_S = 600.0  # a storage that is away longer has lost the file
_LONGEST_WAIT_S = max(longest_wait_s(retry) for retry in Retry if retry is not Retry.NEVER)
# The disk or the quota is full, or the file system takes nothing: it may end, and no grid is given up for it.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# Somebody has put something else in the place of a capture's own folder of grids, or closed it.
_NO_FOLDER = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENOENT)
_START_TRIES = 50  # each lost to another request that got further: far more than ask at once


class Refused(Exception):
    """A wish that contradicts what is there. `field` is the input that does; empty if none does."""

    def __init__(self, field: str, code: str, words: str) -> None:
        super().__init__(words)
        self.field = field
        self.code = code


class StartRefused(Refused):
    """A start that contradicts what is there."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What /start asks for; validated. Without a `name` the address gives one.

    None leaves a known stream's setting as it is stored; a new stream gets the model's default. An address without a
    user name keeps the credentials that are stored for it, unless `is_whole`.
    """

    address: Address
    interval_s: float | None = None
    count: int | None = None
    transport: str | None = None
    name: str = ""
    verify_certificate: bool | None = None
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    capture: Capture
    is_new: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What shall be different of a stream; None stays as it is.

    An address brings its credentials, or none. Without an address an empty `username` takes user name and password
    away, and an empty `password` the password.
    """

    address: Address | None = None
    username: str | None = None
    password: str | None = None
    interval_s: float | None = None
    count: int | None = None
    transport: str | None = None
    name: str | None = None
    verify_certificate: bool | None = None

    @property
    def has_credentials(self) -> bool:
        return not (self.username is None and self.password is None)

    def applied(self, to: Wish) -> Wish:
        """The wish with these settings and this name; not with these credentials."""
        given = {name: getattr(self, name) for name in (*SETTINGS, "name")}
        return replace(to, **{name: value for name, value in given.items() if value is not None})


# --- start and stop: wishes -----------------------------------------------------------------------


def start(wish: Wish) -> Started:
    """Have a capture of this address in progress: the one that is, or a new one, never two.

    Raises StartRefused when one is in progress with other settings or the name belongs to another address,
    AddressRefused for an address that is never connected to.
    """
    check_literal(wish.address, settings.CAPTURE_ALLOWED_NETWORKS)
    return _committed(lambda: _start(_stream_of(wish), wish))


@database.retried
def start_again(stream: Stream, change: Change | None = None) -> Started:
    """Capture a known stream with the settings it has, or others. Raises as `start`."""
    change = change or Change()
    with transaction.atomic():  # what is changed at the same time is started with the change or not changed
        stream = _locked(stream)
        address = _recredited(stream, change)
        if isinstance(stream.credentials, Sealed) and not change.has_credentials:
            raise StartRefused("process_name", "credentials_sealed", _sealed_words(stream))
        return start(change.applied(Wish(address, name=stream.name, is_whole=True)))


@reserve.may_use
@database.retried
def stop(stream: Stream) -> Capture | None:
    """Have the capture in progress end; the capture that ends, or the last that did; None if there is none."""
    with transaction.atomic():
        capture = Capture.objects.select_for_update().filter(stream=stream, finished_at=None).first()
        if capture is None:
            return queries.latest_capture(stream)
        if capture.stop_requested_at is None:
            Capture.objects.filter(pk=capture.pk).update(stop_requested_at=Now(), ending=Ending.STOPPED)
            Stream.objects.filter(pk=stream.pk).update(
                status=Status.STOPPING, status_at=Now(), attempt=0, next_attempt_at=None, notices="", newer_notices=""
            )
            _log_after_commit("stream=%s capture=%s stop requested", stream.name, capture.pk)
            _nudge("finish", capture.pk)
    return capture


@database.retried
def _committed(work: Callable[[], T]) -> T:
    """What it returns, in a transaction."""
    tries = 0
    while True:
        try:
            with transaction.atomic():
                return work()
        except IntegrityError:  # another request made the same stream or capture just now: read what it made
            tries += 1
            if tries == _START_TRIES:
                raise


def _start(stream: Stream, wish: Wish) -> Started:
    running = Capture.objects.filter(stream=stream, finished_at=None).select_related("stream").first()
    if running:
        _check_same(running, wish)
        return Started(running, is_new=False)
    reserve.require()
    stream.quirks = _still_known(stream, wish.transport)
    stream.credentials = _asked_address(stream, wish).secret
    _take_settings(stream, wish)
    stream.status, stream.status_at = Status.QUEUED, database.exact_now()
    stream.error_code = stream.error_text = stream.notices = stream.newer_notices = ""
    stream.attempt, stream.next_attempt_at = 0, None
    stream.save()
    capture = Capture.objects.create(
        stream=stream,
        interval_s=stream.interval_s,
        count=stream.count,
        transport=stream.transport,
        started_at=stream.status_at,
    )
    _log_after_commit("stream=%s capture=%s queued interval_s=%g", stream.name, capture.pk, capture.interval_s)
    _nudge("place", capture.pk)
    return Started(capture, is_new=True)


def _stream_of(wish: Wish) -> Stream:
    """The stream of this address, locked; made if there is none."""
    url = wish.address.public
    stream = Stream.objects.select_for_update().filter(url=url).first()
    if stream is None:
        _check_room()
        now = database.exact_now()
        return Stream.objects.create(url=url, name=_free_name(wish), created_at=now, status_at=now)
    if wish.name and wish.name != stream.name:
        raise StartRefused("rtsp_url", "address_taken", _address_taken_words(stream))
    return stream


def _asked_address(stream: Stream, wish: Wish) -> Address:
    """With the stream's stored credentials where the wish brings none. Raises StartRefused if no key opens them."""
    if wish.is_whole or not wish.address.lacks_credentials:
        return wish.address
    if isinstance(stream.credentials, Sealed):
        raise StartRefused("process_name", "credentials_sealed", _sealed_words(stream))
    return wish.address.filled_from(stream.address)


def _take_settings(stream: Stream, given: Wish | Change) -> None:
    for name in SETTINGS:
        value = getattr(given, name)
        if value is not None:
            setattr(stream, name, value)


def _check_room() -> None:
    """Exact however many ask at once: SQLite has one transaction that writes at a time, PostgreSQL is told to."""
    limit = settings.CAPTURE_MAX_STREAMS
    if not limit:
        return
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_MAKING_STREAMS])
    if Stream.objects.count() >= limit:
        words = f"There are {limit} streams, which is the limit: delete one, or raise CAPTURE_MAX_STREAMS."
        raise StartRefused("rtsp_url", "too_many_streams", words)


def _free_name(wish: Wish) -> str:
    if wish.name:
        if Stream.objects.filter(name=wish.name).exists():
            raise _name_taken(wish.name)
        return wish.name
    base = wish.address.name
    taken = set(Stream.objects.filter(name__startswith=base[: MAX_NAME_LENGTH - 5]).values_list("name", flat=True))
    names = [base, *(f"{base[: MAX_NAME_LENGTH - 5]}-{n}" for n in range(2, _NAME_TRIES))]
    for name in names:
        if name not in taken:
            return name
    raise StartRefused("name", "name_taken", f"A thousand streams are called {base}: give this one a name.")


def _check_same(running: Capture, wish: Wish) -> None:
    """A repeat that asks for something else must not pass for done."""
    stream = running.stream
    if running.stop_requested_at:
        raise StartRefused("process_name", "stopping", f"{stream.name} is being stopped: start it again in a moment.")
    differing = list(_differing(running, wish))
    if not differing:
        return
    has = _listed([words for words, _ in differing])
    optional = _listed([name for _, name in differing if name])
    advice = f"stop it first, or leave {optional} out" if all(name for _, name in differing) else "stop it first"
    raise StartRefused("process_name", "already_running", f"{stream.name} is already running with {has}: {advice}.")


def _differing(running: Capture, wish: Wish) -> Iterator[tuple[str, str]]:
    """What the capture has in another way than is asked for, with both values, and what to leave out to get it so.

    Credentials have no value here, and secrets of the path or the query cannot be left out.
    """
    stream = running.stream
    if wish.interval_s not in (None, running.interval_s):
        yield f"interval {running.interval_s:g} s (you asked for {wish.interval_s:g} s)", "the interval"
    if wish.count not in (None, running.count):
        yield f"count {running.count} (you asked for {wish.count})", "the count"
    if wish.transport not in (None, running.transport):
        yield f"transport {running.transport} (you asked for {wish.transport})", "the transport"
    if wish.verify_certificate not in (None, stream.verify_certificate):
        is_on, is_asked = ("on" if it else "off" for it in (stream.verify_certificate, wish.verify_certificate))
        yield f"certificate verification {is_on} (you asked for {is_asked})", "verify_certificate"
    if _brings_others(stream, wish):
        is_optional = wish.address.without_user().filled_from(stream.address) == stream.address
        yield "other credentials", "the credentials" if is_optional else ""


def _brings_others(stream: Stream, wish: Wish) -> bool:
    """Whether the wish names other credentials than the stream has."""
    if isinstance(stream.credentials, Sealed) and not wish.is_whole and wish.address.lacks_credentials:
        return False  # it names none, so that none can be others
    has: str = stream.credentials
    return _asked_address(stream, wish).secret != has


def _listed(words: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


# --- create, change, delete: streams at rest --------------------------------------------------------


def create_stream(wish: Wish) -> Stream:
    """A stream that nobody captures yet. Raises Refused if the address or the name is another stream's, and
    AddressRefused."""
    check_literal(wish.address, settings.CAPTURE_ALLOWED_NETWORKS)
    return _committed(lambda: _create(wish))


def change_stream(stream: Stream, change: Change) -> Stream:
    """The stream as it is then. Raises Refused while it is captured, if the address or the name is another stream's
    or the stream is gone; and AddressRefused."""
    if change.address:
        check_literal(change.address, settings.CAPTURE_ALLOWED_NETWORKS)
    return _committed(lambda: _change(_at_rest(stream), change))


@database.retried
def check_change(stream: Stream, change: Change) -> None:
    """Raises Refused if `change_stream` would because of the credentials, or because the stream is captured."""
    with transaction.atomic():
        _recredited(_at_rest(stream), change)


@reserve.may_use
@database.retried
def delete_stream(stream: Stream) -> None:
    """With all its captures, frames and files. Raises Refused while it is captured and if it is gone."""
    with transaction.atomic():
        stream = _at_rest(stream)
        captures = Capture.objects.filter(stream=stream)
        # Locked before their frames go, as in a prune: the two would wait for each other.
        ids = list(captures.select_for_update().order_by("id").values_list("id", flat=True))
        names = retention.names_of(captures)
        stream.delete()
        _log_after_commit("stream=%s deleted captures=%s files=%s", stream.name, len(ids), len(names))
        database.after_commit(lambda: retention.remove_files(ids, names))
        database.after_commit(reserve.restore)


def _create(wish: Wish) -> Stream:
    reserve.require()
    _check_address_free(wish.address)
    _check_room()
    now = database.exact_now()
    stream = Stream(name=_free_name(wish), url=wish.address.public, credentials=wish.address.secret)
    stream.created_at = stream.status_at = now
    _take_settings(stream, wish)
    stream.save()
    _log_after_commit("stream=%s created", stream.name)
    return stream


def _change(stream: Stream, change: Change) -> Stream:
    stream.quirks = _still_known(stream, change.transport, change.address)
    was = (stream.url, stream.credentials, stream.transport, stream.verify_certificate)
    if change.address:
        _check_address_free(change.address, stream)
        stream.url, stream.credentials = change.address.public, change.address.secret
    elif change.has_credentials:
        stream.credentials = _recredited(stream, change).secret
    if change.name and change.name != stream.name:
        if Stream.objects.filter(name=change.name).exists():
            raise _name_taken(change.name)
        stream.name = change.name
    _take_settings(stream, change)
    if was != (stream.url, stream.credentials, stream.transport, stream.verify_certificate):
        # What went wrong with the old ones is history: it may be what the change corrects.
        stream.status, stream.error_code, stream.error_text = Status.IDLE, "", ""
        stream.save(update_fields=["status", "error_code", "error_text"])
    stream.save(update_fields=["name", "url", "credentials", *SETTINGS, "quirks"])
    _log_after_commit("stream=%s changed", stream.name)
    return stream


def _still_known(stream: Stream, transport: str | None, address: Address | None = None) -> str:
    """What was learned about the camera and holds with this transport and address; None: the stream's own."""
    if address and address.public != stream.url:
        return ""
    if transport in (None, stream.transport):
        return stream.quirks
    return replace(Quirks.decode(stream.quirks), transport="").encode()


def _recredited(stream: Stream, change: Change) -> Address:
    """The stream's address with the credentials as they shall be. Raises Refused if some that stay cannot be read,
    or if another version took an address that this one does not."""
    try:
        address = stream.address
    except InvalidURL:
        words = f"The address of {stream.name} is not valid. Give the stream its address again."
        raise StartRefused("process_name", "invalid_url", words) from None
    if not change.has_credentials:
        return address
    is_whole = change.username is not None and change.password is not None and MASK not in stream.url
    if isinstance(stream.credentials, Sealed) and not is_whole:
        raise Refused("", "credentials_sealed", _sealed_words(stream))
    username = address.username if change.username is None else change.username or None
    password = address.password if change.password is None else change.password or None
    if change.username == "" and change.password is None:
        password = None
    try:
        return address.with_credentials(username, password)
    except InvalidURL as error:
        raise Refused("password", "invalid_password", str(error)) from None


def _sealed_words(stream: Stream) -> str:
    return f"The password of {stream.name} cannot be read with the present keys: give the address and it once more."


def _locked(stream: Stream) -> Stream:
    """As it is now, and stays until the transaction ends. Raises StartRefused if it is gone."""
    found = Stream.objects.select_for_update().filter(pk=stream.pk).first()
    if found is None:
        raise StartRefused("process_name", "unknown_stream", f"{stream.name} was deleted.")
    return found


def _at_rest(stream: Stream) -> Stream:
    """Locked, with no capture in progress: whoever starts it locks it, too."""
    found = _locked(stream)
    if Capture.objects.filter(stream=found, finished_at=None).exists():
        raise Refused("", "in_progress", f"{found.name} is being captured: stop it first.")
    return found


def _check_address_free(address: Address, but: Stream | None = None) -> None:
    known = Stream.objects.filter(url=address.public).first()
    if known and known != but:
        raise Refused("rtsp_url", "address_taken", _address_taken_words(known))


def _address_taken_words(stream: Stream) -> str:
    return f"This address already belongs to the stream {stream.name}."


def _name_taken(name: str) -> StartRefused:
    return StartRefused("name", "name_taken", f"The name {name} belongs to another stream.")


# --- keys -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reencrypted:
    """Streams by what became of their credentials. `newest`: nothing, they were so; `sealed`: no key opens them."""

    done: int = 0
    newest: int = 0
    sealed: int = 0

    @property
    def total(self) -> int:
        return self.done + self.newest + self.sealed

    def __add__(self, other: "Reencrypted") -> "Reencrypted":
        return Reencrypted(self.done + other.done, self.newest + other.newest, self.sealed + other.sealed)


def reencrypt(batch: int = 200) -> Iterator[Reencrypted]:
    """Bring all stored credentials to the newest of CREDENTIALS_KEYS; what became of each batch.

    Beside running captures, and more than once at a time: a row is written only while it holds what was read.
    """
    last = 0
    while rows := queries.sealed_credentials(after=last, limit=batch):
        with transaction.atomic():
            found = sum((_reencrypt(pk, token) for pk, token in rows), Reencrypted())
        yield found
        last = rows[-1][0]


def _reencrypt(pk: int, token: Sealed | None) -> Reencrypted:
    """Whoever wrote the row since it was read may have other keys: then it is read again."""
    while token is not None:
        if is_newest(token):
            return Reencrypted(newest=1)
        fresh = with_newest_key(token)
        if fresh is None:
            return Reencrypted(sealed=1)
        if Stream.objects.filter(pk=pk, credentials=token).update(credentials=fresh):
            return Reencrypted(done=1)
        token = dict(queries.sealed_credentials(after=pk - 1, limit=1)).get(pk)
    return Reencrypted()


# --- jobs -----------------------------------------------------------------------------------------


def _log_after_commit(event: str, *values: object) -> None:
    """What is rolled back, by whichever transaction is the outermost, did not happen."""
    database.after_commit(lambda: log.info(event, *values))


def _nudge(job: str, capture_id: int) -> None:
    """Queue a job once the transaction is committed. If that fails, the supervisor's tick does the work."""
    transaction.on_commit(
        lambda: async_task(f"streams.jobs.{job}", capture_id, task_name=f"{job} {capture_id}"), robust=True
    )


# --- place: the job and the tick ------------------------------------------------------------------


def place(capture_id: int, host_name: str) -> bool:
    """Claim the capture for this host if it is alive, free and has a slot.

    Not while older ones wait: the tick claims them first, and this one after them. The recorder looks the address up,
    and refuses it: what is looked up here could be another one by then.
    """
    host = Host.objects.filter(claims.is_alive(), name=host_name).first()
    candidate = next(iter(queries.unclaimed().to_capture), None)
    if host is None or candidate is None or candidate.capture_id != capture_id:
        return False
    return bool(claims.claim(host, [candidate]))


# --- checkpoint, hand over, finish: what a recorder has -------------------------------------------


@dataclass(frozen=True, slots=True)
class Totals:
    """What the earlier recorders of a capture had counted."""

    samples: int = 0
    missed: int = 0
    rejected: int = 0
    repeated: int = 0
    connections: int = 0

    @classmethod
    def of(cls, capture: Capture) -> "Totals":
        return cls(capture.samples, capture.missed, capture.rejected, capture.repeated, capture.connections)


@database.retried
def checkpoint(
    claim: Claim,
    base: Totals,
    report: Report,
    known: EngineStatus | None = None,
    later: frozenset[int] = frozenset(),
    known_quirks: str = "",
) -> frozenset[int]:
    """Save what a recorder reports; the numbers of all frames that are saved now.

    `known` is the status saved last and `known_quirks` the quirks; `later` are frames on the leaderboard that another
    call saves.

    The JPEG files are written first, then rows and counters in one transaction, and the files of evicted frames
    go last: at any instant each row has its whole file. Raises ClaimLost, and then leaves nothing behind; OSError
    when a file cannot be written, unless it is a last one and the stop was asked for long ago.
    """
    is_known = (report.status, report.quirks) == (known, known_quirks)
    if not report.fresh and is_known:  # most often: one statement, no transaction
        _save_counters(claim, base, report)
        _save_timeline(claim, report.timeline)
        return frozenset(number for number, _ in report.board) - later
    lost = False
    try:
        write = _write_last_files if report.is_final else _write_files
        frames = write(claim.capture_id, report.fresh)
    except OSError as error:
        if not (report.is_final and _are_given_up(claim.capture_id, error)):
            raise
        log.error(
            "capture=%s pictures given up count=%s error=%s", claim.capture_id, len(report.fresh), error.strerror
        )
        frames, lost = [], True
    is_committing = False
    try:
        with transaction.atomic():
            _save_counters(claim, base, report)
            evicted = _save_frames(claim, report, frames, later) if frames else []
            _save_timeline(claim, report.timeline)
            if lost:
                _note_lost(claim)
            if report.status != known:
                _save_status(claim, report.status)
            if report.quirks != known_quirks:
                Stream.objects.filter(captures=claim.capture_id).update(quirks=report.quirks)
            is_committing = True
    except BaseException as error:
        # A commit whose answer was lost may hold: litter is swept, a lost file is not.
        if not is_committing or database_faults.fault_of(error) is database_faults.FULL:
            _delete_files(frames)
        raise
    _delete_files(evicted)
    return frozenset(number for number, _ in report.board) - later


def saved_status(stream: Stream) -> EngineStatus:
    """Where the last recorder of the stream stood, as its successor has to know it: whether it waited.

    In this host's time, and never longer than the longest wait: a clock may have been years ahead.
    """
    if not stream.attempt or stream.next_attempt_at is None:
        return EngineStatus()
    wait_s = stream.next_attempt_at.timestamp() - database.now().timestamp()
    too_long_s = max(0.0, wait_s - _LONGEST_WAIT_S)
    return EngineStatus(
        State.RECONNECTING,
        stream.error_code,
        stream.error_text,
        stream.attempt,
        stream.next_attempt_at.timestamp() + database.host_ahead_s() - too_long_s,
    )


@reserve.may_use
@database.retried
def hand_over(claim: Claim) -> None:
    """All that the recorder had is saved: the capture may be finished, or recorded by the next host."""
    with transaction.atomic():
        if not claims.release(claim):
            return
        claims.queue_again([claim.capture_id])
        if queries.capture_to_finish(claim.capture_id):
            _nudge("finish", claim.capture_id)


@database.retried
def note_death(claim: Claim, error: CaptureError | None = None) -> None:
    """The recorder is gone without a word, or cannot be; another one goes on with what was saved. Raises ClaimLost.

    One that waited for its next attempt leaves that as it is: its successor waits on.
    """
    error = error or RecorderDied()
    with transaction.atomic():
        if not claim.rows().update(error_code=error.code, error_text=str(error)):
            raise ClaimLost
        rows = Stream.objects.filter(captures=claim.capture_id, attempt=0).exclude(status=Status.STOPPING)
        fields = {"error_code": error.code, "error_text": str(error), "notices": "", "newer_notices": ""}
        rows.update(status=Status.RECONNECTING, status_at=Now(), **fields)


@reserve.may_use
def fail(claim: Claim, error_code: str, error_text: str, meanwhile: Meanwhile = bool) -> None:
    """End a capture that is never to be tried again; it keeps what it has. Raises ClaimLost."""
    rows = claim.rows().filter(stop_requested_at=None)
    fields = {"error_code": error_code, "error_text": error_text, "ending": Ending.FAILED}
    if not rows.update(**fields, stop_requested_at=Now(), claimed_by=None) and not claims.release(claim):
        raise ClaimLost
    finish(claim.capture_id, meanwhile)


@reserve.may_use
def finish(capture_id: int, meanwhile: Meanwhile = bool) -> bool:
    """Make the grid of a stopped capture that no living host records, and close it; whether this call did.

    Two that run at once make two grids and keep the later one. `meanwhile` is called twice a second while it is made.
    """
    capture = queries.capture_to_finish(capture_id)
    if capture is None or not _fence(capture):
        return False
    left_out = _write_grid(capture, meanwhile)
    litter = _litter(capture)
    if not _close(capture, left_out):
        _delete(capture.grid)
        return False
    _delete_names(capture.grid.storage, litter)  # what a kill leaves here, the pruning job finds
    return True


@database.retried
def _close(capture: Capture, left_out: "_LeftOut | None") -> bool:
    """Whether the capture is finished by this call: with this grid, and with what is to be said of it."""
    error = {"error_code": left_out.code, "error_text": left_out.words} if left_out else {}
    with transaction.atomic():
        rows = Capture.objects.filter(pk=capture.pk, epoch=capture.epoch, finished_at=None)
        if not rows.update(grid=capture.grid.name, finished_at=Now(), claimed_by=None, **error):
            return False
        status = Status.FAILED if capture.ending == Ending.FAILED else Status.IDLE
        is_fine = status == Status.IDLE and not left_out and capture.frames.count() >= capture.count
        # A capture that got all its frames needs no attention, whatever went wrong on the way: that is history.
        known = error or {"error_code": capture.error_code, "error_text": capture.error_text}
        _set_status(capture.stream_id, status, *(("", "") if is_fine else known.values()))
        _log_after_commit("stream=%s capture=%s finished ending=%s", capture.stream, capture.pk, capture.ending)
        if left_out and left_out.fault:
            fault = left_out.fault
            database.after_commit(lambda: log.error("capture=%s finished without a grid error=%s", capture.pk, fault))
    return True


def _write_files(capture_id: int, pictures: Sequence[Picture]) -> list[Frame]:
    """The JPEGs on disk, and the rows for them, not saved yet. All or, with an OSError, none."""
    if pictures and not reserve.leaves_room_for_files(default_storage):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return _write_each(capture_id, pictures)


@reserve.may_use
def _write_last_files(capture_id: int, pictures: Sequence[Picture]) -> list[Frame]:
    """Those of a recorder that ends: nobody else has them."""
    return _write_each(capture_id, pictures)


def _are_given_up(capture_id: int, error: OSError) -> bool:
    """Whether pictures that cannot be written are left out, as those that cannot be read are: GIVE_UP_FILES_S after
    the stop, while the storage takes other files."""
    is_stopped = Capture.objects.filter(pk=capture_id, stop_requested_at__isnull=False)
    if error.errno in _NO_ROOM or not is_stopped.exists() or not _is_late(capture_id):
        return False
    try:
        storage_check.probe(default_storage)
    except OSError:
        return False
    return True


def _note_lost(claim: Claim) -> None:
    words = "Some of the last pictures could not be written and are lost."
    claim.rows().update(error_code="picture_lost", error_text=words)


def _write_each(capture_id: int, pictures: Sequence[Picture]) -> list[Frame]:
    frames: list[Frame] = []
    try:
        for picture in pictures:
            frames.append(_frame(capture_id, picture))
            _write(frames[-1].image, picture.jpeg)
    except BaseException:
        _delete_files(frames)
        raise
    return frames


def _frame(capture_id: int, picture: Picture) -> Frame:
    return Frame(
        capture_id=capture_id,
        number=picture.number,
        score=picture.score,
        captured_at=_moment(picture.captured_at),
        width=picture.width,
        height=picture.height,
        image=f"frames/{capture_id}/{picture.number}-{secrets.token_hex(4)}.jpg",
    )


def _write(file: FieldFile, data: bytes) -> None:
    """Under the name that the file has, which nothing else has. Raises OSError, whatever the storage raises."""
    with storage_check.os_errors():
        file.storage.save(str(file.name), ContentFile(data))
    if isinstance(file.storage, FileSystemStorage):
        _settle(file.path)


def _settle(path: str) -> None:
    """On the disk before its row is: a power cut leaves no row without its file. 0.7 ms for 300 kB on an SSD."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _read(file: FieldFile) -> bytes:
    """Raises OSError, whatever the storage raises."""
    with storage_check.os_errors(), file.open() as opened:
        return bytes(opened.read())


def _save_counters(claim: Claim, base: Totals, report: Report) -> None:
    """The first write of the transaction, and the fence of all others in it."""
    counters, status = report.counters, report.status
    fields: dict[str, Any] = {
        "samples": base.samples + counters.samples,
        "missed": base.missed + counters.missed,
        "rejected": base.rejected + counters.rejected,
        "repeated": base.repeated + counters.repeated,
        "connections": base.connections + counters.connections,
    }
    if counters.last_sample_at is not None:
        fields["last_sample_at"] = _database_moment(counters.last_sample_at)
        fields |= {"late_p50_s": counters.late_p50_s, "late_p95_s": counters.late_p95_s}
    if status.error_code:
        fields |= {"error_code": status.error_code, "error_text": status.error_text}
    if not claim.rows().update(**fields):
        raise ClaimLost


def _save_timeline(claim: Claim, data: str) -> None:
    """If there is one to save: one statement, fenced by itself, but for the first time."""
    if not data or Timeline.objects.filter(capture__in=claim.rows()).update(data=data):
        return
    with transaction.atomic():
        if not claim.rows().select_for_update().exists():
            raise ClaimLost
        Timeline.objects.update_or_create(capture_id=claim.capture_id, defaults={"data": data})


def _save_frames(claim: Claim, report: Report, frames: list[Frame], later: frozenset[int]) -> list[Frame]:
    """The rows of new frames. Returns frames whose files nothing points to any more: evicted, or saved before.

    The best of those that lost their places keep the places of frames that come `later`.
    """
    board = {number for number, _ in report.board}
    saved = {frame.number: frame for frame in Frame.objects.filter(capture=claim.capture_id)}
    outgoing = [frame for number, frame in saved.items() if number not in board]
    evicted = sorted(outgoing, key=lambda frame: (-frame.score, frame.number))[len(later) :]
    if evicted:
        Frame.objects.filter(pk__in=[frame.pk for frame in evicted]).delete()
    Frame.objects.bulk_create([frame for frame in frames if frame.number not in saved])
    return evicted + [frame for frame in frames if frame.number in saved]


def _save_status(claim: Claim, status: EngineStatus) -> None:
    """A stream that is being stopped says so until it is finished; the last error stays until the next start."""
    fields: dict[str, Any] = {"status": status.state.value, "attempt": status.attempt}
    fields["notices"] = ",".join(notice for notice in status.notices if not notice.is_new)
    fields["newer_notices"] = ",".join(notice for notice in status.notices if notice.is_new)
    fields["next_attempt_at"] = None if status.next_attempt_at is None else _database_moment(status.next_attempt_at)
    if status.error_code:
        fields |= {"error_code": status.error_code, "error_text": status.error_text}
    streams = Stream.objects.filter(captures=claim.capture_id)
    streams.exclude(status=Status.STOPPING).exclude(**fields).update(**fields, status_at=Now())
    if Notice.STORAGE_FULL in status.notices:  # why it takes so long
        streams.filter(status=Status.STOPPING).update(notices=Notice.STORAGE_FULL.value)


def _set_status(stream_id: int, status: Status, error_code: str, error_text: str) -> None:
    Stream.objects.filter(pk=stream_id).update(
        status=status,
        status_at=Now(),
        error_code=error_code,
        error_text=error_text,
        attempt=0,
        next_attempt_at=None,
        notices="",
        newer_notices="",
    )


def _fence(capture: Capture) -> bool:
    """From here on nobody who claimed the capture, and may wake up again, writes about it."""
    rows = Capture.objects.filter(pk=capture.pk, epoch=capture.epoch, finished_at=None)
    capture.epoch += 1
    return bool(rows.update(epoch=capture.epoch, claimed_by=None))


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """What a finished capture lacks, as its page shows it."""

    code: str
    words: str
    fault: str = ""
    """Why there is no grid, for the log."""


def _write_grid(capture: Capture, meanwhile: Meanwhile) -> _LeftOut | None:
    """Set `capture.grid`, not saved yet; it stays empty without frames. Return what it lacks, or why there is none.

    Raises OSError while it may still be made.
    """
    composed = _compose(capture, meanwhile)
    if not composed.grid:
        return composed.left_out
    try:
        _save_grid(capture, composed.grid)
    except OSError as error:
        Stream.objects.filter(pk=capture.stream_id).update(notices=Notice.STORAGE_FULL.value)
        if error.errno in _NO_ROOM or not _is_late(capture.pk):
            raise
        storage_check.probe(capture.grid.storage)
        return _LeftOut("no_grid", f"The grid could not be written: {error.strerror}.", str(error))
    return composed.left_out


def _save_grid(capture: Capture, grid: bytes) -> None:
    """In the capture's own folder; beside it if that one is no folder or closed. Raises OSError."""
    name = secrets.token_hex(4)
    capture.grid.name = f"grids/{capture.pk}/{name}.jpg"
    try:
        try:
            _write(capture.grid, grid)
        except OSError as error:
            if error.errno not in _NO_FOLDER:
                raise
            _delete(capture.grid)
            capture.grid.name = f"grids/{capture.pk}-{name}.jpg"
            _write(capture.grid, grid)
    except BaseException:
        _delete(capture.grid)
        capture.grid.name = ""
        raise


@dataclass(frozen=True, slots=True)
class _Composed:
    """The grid's JPEG; empty if there is none to write."""

    grid: bytes = b""
    left_out: _LeftOut | None = None


def _compose(capture: Capture, meanwhile: Meanwhile) -> _Composed:
    """A frame whose file is spoilt, or cannot be read for long, is left out, and named in the log.

    Raises OSError for a file that may come back, and for a process that was killed: a storage that is away, or a
    memory that is full for a moment, must not cost the grid.
    """
    frames = list(queries.ranked_frames(capture))
    jpegs = _read_all(capture, frames, meanwhile)
    names = [name for name in (str(frame.image.name) for frame in frames) if name in jpegs]
    if not names:
        return _Composed(left_out=_missing(len(frames), len(frames)))
    try:
        composed = composer.compose([jpegs[name] for name in names], capture.count, meanwhile)
    except composer.ComposerDied as error:
        if error.was_killed and not _is_late(capture.pk):
            raise OSError(errno.EIO, str(error)) from None
        return _Composed(left_out=_LeftOut("no_grid", f"The grid could not be made: {error}."[:300], str(error)))
    for index in composed.unreadable:
        log.error("capture=%s file=%s unreadable error=no picture", capture.pk, names[index])
    missing = len(frames) - len(names) + len(composed.unreadable)
    return _Composed(composed.grid, _missing(missing, len(frames)))


def _missing(missing: int, frames: int) -> _LeftOut | None:
    if not missing:
        return None
    words = f"{missing} of {frames} pictures could not be read and {'is' if missing == 1 else 'are'} not in the grid."
    return _LeftOut("picture_unreadable", words)


def _read_all(capture: Capture, frames: Sequence[Frame], meanwhile: Meanwhile) -> dict[str, bytes]:
    """The JPEGs by name. Raises OSError if one cannot be read, at first.

    GIVE_UP_FILES_S after the stop what cannot be read twice is left out, if the storage answers before and after it:
    a storage that is away as a whole costs no picture.
    """
    jpegs: dict[str, bytes] = {}
    faults = _read_into(jpegs, frames, meanwhile, lambda: _is_late(capture.pk))
    if not faults:
        return jpegs
    storage_check.probe(capture.grid.storage)
    faults = _read_into(jpegs, [frame for frame in frames if frame.image.name in faults], meanwhile)
    if faults:
        storage_check.probe(capture.grid.storage)
    for name, error in faults.items():
        log.error("capture=%s file=%s unreadable error=%s", capture.pk, name, error)
    return jpegs


def _read_into(
    jpegs: dict[str, bytes], frames: Sequence[Frame], meanwhile: Meanwhile, is_late: Callable[[], bool] = lambda: True
) -> dict[str, OSError]:
    """What could not be read, by name. Raises OSError for the first of it unless it is late."""
    faults: dict[str, OSError] = {}
    for frame in frames:
        try:
            jpegs[str(frame.image.name)] = _read(frame.image)
        except OSError as error:
            if not faults and not is_late():
                raise
            faults[str(frame.image.name)] = error
            meanwhile()  # a storage may take seconds to say so
    return faults


def _litter(capture: Capture) -> list[str]:
    """Files of a capture that nobody writes about any more, which no row knows: killed processes left them.

    Not what is older than the capture: another database, or the one before a restore, had its number too.
    """
    known = {str(frame.image.name) for frame in capture.frames.all()} | {str(capture.grid.name)}
    storage, found = capture.grid.storage, list[str]()
    since = capture.started_at - timedelta(hours=1)  # clocks differ
    for folder in (f"frames/{capture.pk}", f"grids/{capture.pk}"):
        try:
            names = {f"{folder}/{name}" for name in storage.listdir(folder)[1]} - known
            found += [name for name in sorted(names) if storage.get_modified_time(name) >= since]
        except FileNotFoundError:
            continue
        except Exception:  # each storage has errors of its own
            log.warning("folder=%s cannot be listed", folder, exc_info=True)
    return found


def _is_late(capture_id: int) -> bool:
    """Whether the stop was asked for long ago, by the database's clock."""
    rows = Capture.objects.filter(pk=capture_id).annotate(asked_at=Coalesce("stop_requested_at", "started_at"))
    return rows.filter(asked_at__lt=Now() - timedelta(seconds=GIVE_UP_FILES_S)).exists()


def _delete_files(frames: Iterable[Frame]) -> None:
    for frame in frames:
        _delete(frame.image)


def _delete(file: FieldFile) -> None:
    if file.name:
        _delete_names(file.storage, [file.name])


def _delete_names(storage: Storage, names: Iterable[str]) -> None:
    """What cannot be deleted now is litter, not a loss. A read-only disk refuses for what is not there, too."""
    for name in names:
        try:
            storage.delete(name)
        except NotADirectoryError:
            pass  # a file is in the place of its folder, so it is not there
        except OSError as error:
            if not isinstance(storage, FileSystemStorage) or os.path.lexists(storage.path(name)):
                log.warning("file=%s could not be deleted error=%s", name, error.strerror)
        except Exception:  # each storage has errors of its own
            log.warning("file=%s could not be deleted", name, exc_info=True)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _database_moment(seconds: float) -> datetime:
    """A moment of this host's clock, in the database's time."""
    return _moment(seconds - database.host_ahead_s())
