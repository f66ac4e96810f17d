"""Wanted against running, as a pure plan; and the tick that applies it."""

import contextlib
import logging
import select
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from django.conf import settings as configured
from django.core.exceptions import ObjectDoesNotExist
from django.db import DataError, IntegrityError, InternalError, close_old_connections, connection
from django.db import Error as DatabaseFailed

from . import claims, database_faults, locks, queries, services
from .claims import Claim, ClaimLost
from .cluster import Cluster
from .engine.backoff import HEALTHY_S, Backoff
from .engine.errors import CaptureError, CredentialsSealed, Retry
from .engine.notices import Notice
from .engine.recorder import RecorderProcess
from .engine.report import Report, Seed, Settings, State, Status
from .engine.wire import Changed
from .fields import Sealed
from .models import Capture, Host
from .private import private_paths
from .queries import Wanted

log = logging.getLogger(__name__)

TICK_S = 0.25
PULL_S = 2.0  # all recorders are asked in the same round: their answers come together and are heard together
# One that has news is asked between them, but not as often as it says so: each answer is written.
NEWS_S = 0.2
AWAY_S = 0.5
# A recorder that has not answered for so long hangs; it may take LEAVE_S to say farewell to its camera.
SILENT_S = 10.0
LEAVE_GRACE_S = 4.0
# A host that is told to leave is gone within 5 s, whatever its recorders and the database do. What is not saved by
# then is lost; to end the recorders, the cluster and the process itself takes up to 1.6 s on a busy machine.
HOST_LEAVE_S = 3.0
# At most so many are started in one tick, so that those that run are heard meanwhile.
STARTS = 16
# What a lost job leaves undone, the tick does after this: jobs start within a poll, 0.2 s.
FINISH_AFTER_S = 1.0
FINISH_AGAIN_S = 20.0
# A board of a hundred pictures on a slow store takes longer than a claim lasts: so many are saved between heartbeats.
FRESH = 16
# A host without the key of a camera's password asks again for the key, not the camera.
SEALED_S = 30.0
# What a recorder is told, and what was written past all doors may be out of range.
_OTHER_FIELDS = {field.name for field in Capture._meta.fields} - {"interval_s", "count", "transport"}
# A capture with a fault is left alone for so long, then longer; what its recorder has stays with the recorder.
DELAYS_S: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0, 10.0)


# --- the plan -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Running:
    """A recorder as the plan sees it."""

    epoch: int
    is_leaving: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Capture ids, and what to do about each: in this order."""

    drop: tuple[int, ...] = ()
    """End the recorder at once and write nothing: its claim is lost."""
    leave: tuple[int, ...] = ()
    """Ask the recorder to leave: its capture was stopped."""
    hand_over: tuple[Wanted, ...] = ()
    """Stopped and without a recorder: give the claim back, so that it can be finished."""
    start: tuple[Wanted, ...] = ()
    """Start a recorder."""


def plan(wanted: Sequence[Wanted], running: Mapping[int, Running], waiting: AbstractSet[int] = frozenset()) -> Plan:
    """What makes `running` what is `wanted`; captures that are `waiting` are not started yet."""
    rows = {row.capture_id: row for row in wanted}
    held = {pk for pk, recorder in running.items() if pk in rows and rows[pk].epoch == recorder.epoch}
    idle = [row for row in wanted if row.capture_id not in running]
    return Plan(
        drop=tuple(pk for pk in running if pk not in held),
        leave=tuple(pk for pk in running if pk in held and rows[pk].is_stopping and not running[pk].is_leaving),
        hand_over=tuple(row for row in idle if row.is_stopping),
        start=tuple(row for row in idle if not row.is_stopping and row.capture_id not in waiting),
    )


# --- the tick -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Recorder:
    """A running recorder and what the supervisor knows of it."""

    process: RecorderProcess
    claim: Claim
    name: str
    base: services.Totals
    started_s: float
    pulled_s: float = 0.0
    has_news: bool = False
    settled_s: float = 0.0
    """All that it had sampled up to then is saved; monotonic."""
    saved: frozenset[int] = frozenset()
    last: Report | None = None
    """What was saved last."""
    status: Status | None = None
    """The status that was saved last."""
    quirks: str = ""
    """What was learned about the camera, as it was saved last."""
    is_storage_full: bool = False
    left_s: float | None = None
    """When it was asked to leave."""
    final: Report | None = None
    """Its last words, until they are saved."""
    save_again_s: float = 0.0


@dataclass(slots=True)
class _Restart:
    """When a recorder that ended by itself may be replaced: at once, and if that one dies soon, later and later."""

    backoff: Backoff | None = None
    at_s: float = 0.0

    def note_death(self, now_s: float, lived_s: float, retry: Retry = Retry.QUICK) -> None:
        is_first = self.backoff is None or lived_s >= HEALTHY_S
        if self.backoff is None or is_first:
            self.backoff = Backoff()
        self.at_s = now_s if is_first and retry is Retry.QUICK else now_s + self.backoff.after(retry)


@dataclass(slots=True)
class _Delay:
    """A capture with a fault of its own: the others go on, and it is tried again later and later."""

    name: str
    since_s: float
    at_s: float = 0.0
    tries: int = 0
    reported: str = ""
    """The fault that the log has."""

    def note_try(self, now_s: float) -> None:
        self.at_s = now_s + DELAYS_S[min(self.tries, len(DELAYS_S) - 1)]
        self.tries += 1


@dataclass(slots=True)
class _ToFinish:
    """A stopped capture that is not finished yet. Whoever makes its grid raises the epoch first, and voids the grid
    that another one is making: so each is given twice the time of the one before."""

    epoch: int
    since_s: float
    wait_s: float
    is_said: bool = False

    def note(self, epoch: int, now_s: float) -> None:
        if epoch != self.epoch:
            self.epoch, self.since_s, self.wait_s = epoch, now_s, min(2 * self.wait_s, FINISH_AGAIN_S)


class Supervisor:
    """Keeps the recorders and the job cluster of one host alive. One thread; `tick` is one round."""

    def __init__(self, host: Host, cluster: Cluster) -> None:
        self.host = host
        self.cluster = cluster
        self._recorders: dict[int, _Recorder] = {}
        self._restarts: dict[int, _Restart] = {}
        self._to_finish: dict[int, _ToFinish] = {}
        self._delays: dict[int, _Delay] = {}
        self._inherited: dict[int, int] | None = None
        """Epochs of claims that a forerunner of this name made: `register` could not give them back."""
        self._heartbeat_s = 0.0
        self._heartbeat_locked_s: float | None = None
        self._is_database_away = False
        self._troubles: set[str] = set()
        """What is wrong with the database, as the log has it."""
        self.is_told_to_leave: Callable[[], bool] = bool
        """Called between two captures, because a round may take long."""

    def tick(self) -> None:
        """One round: say that the host lives, hear the recorders, compare wanted with running, and act."""
        self.cluster.keep_alive()
        close_old_connections()
        with self._database(is_whole=True):
            self._heartbeat()
            if self._inherited is None:
                self._inherited = {row.capture_id: row.epoch for row in queries.wanted_of(self.host)}
            self._hear()
            self._claim_and_finish()
            self._apply(queries.wanted_of(self.host))

    def wait(self) -> None:
        """Until the next tick is due. Recorders that have something to say are heard meanwhile: of what is wanted
        nothing is asked then, or a hundred captures would ask the database fifty times a second."""
        until_s = time.monotonic() + TICK_S
        if self._is_database_away:  # what they say stays with them meanwhile
            time.sleep(AWAY_S)
            return
        while (left_s := until_s - time.monotonic()) > 0 and self._listen(left_s):
            with self._database():
                self._hear()

    def _listen(self, wait_s: float) -> bool:
        """Whether a recorder has something to say within that time."""
        poll = select.poll()
        for capture_id, recorder in self._recorders.items():
            if recorder.process.is_alive and not self._is_delayed(capture_id):
                poll.register(recorder.process.fileno(), select.POLLIN)
        return bool(poll.poll(wait_s * 1000))

    @contextlib.contextmanager
    def _database(self, is_whole: bool = False) -> Iterator[None]:
        """Log a failing database once, and try again with the next round.

        Only a whole round shows that it is back: others may have had nothing to write.
        """
        try:
            yield
        except DatabaseFailed as error:
            self._say_database(error)
        else:
            if is_whole:
                self._say_database(None)

    def abandon(self) -> None:
        """End everything and write nothing: another supervisor has this host's name and its claims."""
        self.cluster.stop()
        for capture_id in list(self._recorders):
            self._end(capture_id)
        self.cluster.join()

    def leave(self, told_s: float | None = None) -> None:
        """Save what the recorders have, end them, give the claims back: the captures stay wanted.

        `told_s`: when the host was told to leave, monotonic; it is gone HOST_LEAVE_S after that.
        """
        self.cluster.stop()
        self.is_told_to_leave = bool  # always False from here on, so no capture is skipped
        locks.hurry(connection)
        for recorder in self._recorders.values():
            self._ask_to_leave(recorder)
        for delay in self._delays.values():
            delay.at_s = delay.tries = 0
        limit_s = (time.monotonic() if told_s is None else told_s) + HOST_LEAVE_S
        while self._recorders and time.monotonic() < limit_s:
            self._try(self._hear)
            self._try(self.wait)
        for capture_id, recorder in list(self._recorders.items()):
            _log(recorder, logging.ERROR, "ended unsaved: what came since the last checkpoint is lost")
            self._end(capture_id)
        self._try(lambda: claims.retire(self.host))
        self.cluster.join()

    def _try(self, step: Callable[[], None]) -> None:
        """On the way out neither a database that is away nor a lost claim may keep the others from leaving."""
        try:
            with self._database():
                step()
        except claims.HostTaken:
            log.warning("host=%s another supervisor has this name", self.host.name)

    # --- hearing ---

    def _hear(self) -> None:
        """Read what recorders said, ask those that are due, and end those that are dead or silent."""
        for capture_id, recorder in list(self._recorders.items()):
            if self.is_told_to_leave():
                return
            self._heartbeat()  # many checkpoints on a slow disk may take longer than a claim lasts
            if self._is_delayed(capture_id):
                continue
            with self._alone(capture_id, recorder.name):
                try:
                    self._hear_one(recorder, time.monotonic())
                except ClaimLost:
                    _log(recorder, logging.WARNING, "claim lost")
                    self._end(capture_id)
                except (DataError, IntegrityError, ValueError, OverflowError):  # it cannot be true
                    log.exception("stream=%s capture=%s report refused", recorder.name, capture_id)
                    self._end(capture_id)
                    self._restart_later(recorder)

    def _hear_one(self, recorder: _Recorder, now_s: float) -> None:
        messages = recorder.process.receive()
        reports = [message for message in messages if isinstance(message, Report)]
        recorder.has_news |= any(isinstance(message, Changed) for message in messages)
        if reports and reports[-1].is_final:  # it holds all that those before it hold
            recorder.final = reports[-1]
        elif reports:
            self._save(recorder, reports[-1])
        if recorder.final:
            self._take_leave(recorder, recorder.final, now_s)
        elif _is_dead(recorder, now_s):
            self._bury(recorder)
        elif _may_be_asked(recorder) and _is_due(recorder, now_s):
            recorder.pulled_s, recorder.has_news = now_s, False
            recorder.process.pull(recorder.saved)

    def _save(self, recorder: _Recorder, report: Report) -> bool:
        """Checkpoint what is new; whether it worked. What cannot be written the recorder keeps and says again."""
        if report != recorder.last:
            if not self._checkpoint(recorder, report):
                return False
            self._note_success(recorder.claim.capture_id)
        recorder.settled_s = max(recorder.settled_s, recorder.pulled_s)
        return True

    def _checkpoint(self, recorder: _Recorder, report: Report) -> bool:
        try:
            for part, later in _parts(report):
                self._heartbeat()
                recorder.saved = services.checkpoint(
                    recorder.claim, recorder.base, part, recorder.status, later, recorder.quirks
                )
        except OSError as error:
            if not recorder.is_storage_full:
                _log(recorder, logging.ERROR, "checkpoint failed error=%s", error.strerror)
            recorder.is_storage_full = True
            full = replace(report.status, notices=(*report.status.notices, Notice.STORAGE_FULL))
            known = recorder.status if recorder.left_s is None else None  # a stop has wiped what the stream said
            without = replace(report, fresh=(), status=full)
            services.checkpoint(recorder.claim, recorder.base, without, known, frozenset(), recorder.quirks)
            self._note_quirks(recorder, report.quirks)
            self._note_status(recorder, full)
            return False
        if recorder.is_storage_full:
            recorder.is_storage_full = False
            _log(recorder, logging.INFO, "checkpoint worked again")
        recorder.last = None if report.fresh else replace(report, timeline="")
        self._note_quirks(recorder, report.quirks)
        self._note_status(recorder, report.status)
        return True

    def _note_quirks(self, recorder: _Recorder, quirks: str) -> None:
        if quirks != recorder.quirks:
            _log(recorder, logging.INFO, "learned quirks=%s", quirks or "{}")
            recorder.quirks = quirks

    def _note_status(self, recorder: _Recorder, status: Status) -> None:
        last, recorder.status = recorder.status or Status(), status
        if replace(last, notices=()) != replace(status, notices=()):
            _log_status(recorder, status)
        for notice in status.notices:
            if notice.rule and notice not in last.notices:
                _log(recorder, logging.WARNING, "rule stood down rule=%s", notice.rule)

    def _take_leave(self, recorder: _Recorder, final: Report, now_s: float) -> None:
        """A recorder ended by its own will: it was told to, it must not go on, or its camera hangs.

        Its last words are kept here until they are saved.
        """
        if now_s < recorder.save_again_s:
            return
        recorder.save_again_s = now_s + PULL_S
        if not self._save(recorder, final):
            return
        self._end(recorder.claim.capture_id)
        if final.status.state is State.FAILED:
            self._fail(recorder.claim, final.status.error_code, final.status.error_text)
        elif recorder.left_s is None:
            if final.replace_reason:
                _log(recorder, logging.INFO, "recorder replaced reason=%r", final.replace_reason)
            self._restart_later(recorder)
        else:
            services.hand_over(recorder.claim)

    def _bury(self, recorder: _Recorder) -> None:
        """A recorder died or hangs: what it had since the last checkpoint is lost, all else is not."""
        pid = recorder.process.pid
        self._end(recorder.claim.capture_id)
        death = recorder.process.death
        _log(recorder, logging.WARNING, "recorder died pid=%s error=%s words=%r", pid, death.code, str(death))
        if recorder.left_s is not None:
            services.hand_over(recorder.claim)
            return
        self._restart_later(recorder, death.retry)
        services.note_death(recorder.claim, death)

    def _restart_later(self, recorder: _Recorder, retry: Retry = Retry.QUICK) -> None:
        now_s = time.monotonic()
        restart = self._restarts.setdefault(recorder.claim.capture_id, _Restart())
        restart.note_death(now_s, now_s - recorder.started_s, retry)

    # --- acting ---

    def _heartbeat(self) -> None:
        now_s = time.monotonic()
        if now_s - self._heartbeat_s < claims.HEARTBEAT_S:
            return
        settled_s = min((recorder.settled_s for recorder in self._recorders.values()), default=now_s)
        try:
            claims.heartbeat(self.host, now_s - settled_s)
        except DatabaseFailed as error:
            if not locks.is_row_lock(error):
                raise
            if self._heartbeat_locked_s is None:
                self._heartbeat_locked_s = now_s
                holder = locks.row_holder(connection, Host._meta.db_table)
                log.error(
                    "host=%s heartbeat delayed: its row is locked " + holder.format, self.host.name, *holder.values
                )
        else:
            if self._heartbeat_locked_s is not None:
                log.info("host=%s heartbeat back after_s=%.0f", self.host.name, now_s - self._heartbeat_locked_s)
                self._heartbeat_locked_s = None
        self._heartbeat_s = now_s

    def _claim_and_finish(self) -> None:
        """Do what no job has done."""
        unclaimed = queries.unclaimed()
        if unclaimed.to_capture and self._heartbeat_locked_s is None:
            claimed = self._claim_some(unclaimed.to_capture)
            if left := set(unclaimed.expired).difference(claimed):
                claims.expire(sorted(left))
        now_s = time.monotonic()
        waiting, self._to_finish = self._to_finish, {}
        for capture in unclaimed.to_finish:
            one = waiting.get(capture.capture_id) or _ToFinish(capture.epoch, now_s, FINISH_AFTER_S)
            one.note(capture.epoch, now_s)
            self._to_finish[capture.capture_id] = one
        for capture_id, one in self._to_finish.items():
            if self.is_told_to_leave():
                return
            if now_s - one.since_s > one.wait_s and not self._is_delayed(capture_id):
                self._heartbeat()
                with self._alone(capture_id):
                    self._finish(capture_id)
                    self._note_success(capture_id)

    def _claim_some(self, free: Sequence[claims.Candidate]) -> list[int]:
        """Another session may hold this host's row: a job that claims, for a moment."""
        try:
            return claims.claim(self.host, free)
        except DatabaseFailed as error:
            if not locks.is_of_one_row(error):
                raise
            return []

    def _finish(self, capture_id: int) -> None:
        try:
            services.finish(capture_id, self._heartbeat)
        except OSError as error:
            self._say_unfinished(capture_id, error)

    def _fail(self, claim: Claim, error_code: str, error_text: str) -> None:
        try:
            services.fail(claim, error_code, error_text, self._heartbeat)
        except OSError as error:
            self._say_unfinished(claim.capture_id, error)

    def _say_unfinished(self, capture_id: int, error: OSError) -> None:
        """Tried again and again, said once."""
        one = self._to_finish.get(capture_id)
        if one is None or not one.is_said:
            log.error("capture=%s grid failed error=%s", capture_id, error.strerror)
        if one:
            one.is_said = True

    def _apply(self, wanted: Sequence[Wanted]) -> None:
        ids = {row.capture_id for row in wanted}
        known = ids | self._to_finish.keys() | self._recorders.keys()
        self._delays = {pk: delay for pk, delay in self._delays.items() if pk in known}
        self._restarts = {pk: restart for pk, restart in self._restarts.items() if pk in ids}
        now_s = time.monotonic()
        waiting = {pk for pk, restart in self._restarts.items() if restart.at_s > now_s}
        running = {pk: Running(r.claim.epoch, r.left_s is not None) for pk, r in self._recorders.items()}
        todo = plan(wanted, running, waiting)
        for capture_id in todo.drop:
            _log(self._recorders[capture_id], logging.WARNING, "claim lost")
            self._end(capture_id)
        for capture_id in todo.leave:
            self._ask_to_leave(self._recorders[capture_id])
        for row in todo.hand_over:
            if not self._is_delayed(row.capture_id):
                with self._alone(row.capture_id):
                    services.hand_over(self._claim(row))
                    self._note_success(row.capture_id)
        for row in [row for row in todo.start if not self._is_delayed(row.capture_id)][:STARTS]:
            if self.is_told_to_leave():
                return
            self._heartbeat()
            with self._alone(row.capture_id), contextlib.suppress(ClaimLost, ObjectDoesNotExist):
                self._try_to_start(self._renewed(row))
                self._note_success(row.capture_id)

    def _renewed(self, row: Wanted) -> Wanted:
        """A claim of this supervisor's own, in place of a forerunner's: that one may wake up and write."""
        if (self._inherited or {}).get(row.capture_id) != row.epoch:
            return row
        claim = claims.renew(self._claim(row))
        return replace(row, epoch=claim.epoch)

    def _claim(self, row: Wanted) -> Claim:
        return Claim(row.capture_id, self.host.pk, row.epoch)

    def _try_to_start(self, row: Wanted) -> None:
        try:
            self._start(row)
        except OSError as error:  # no process or memory left: later, or another host
            log.error("capture=%s recorder not started error=%s", row.capture_id, error.strerror or error)
            self._restarts.setdefault(row.capture_id, _Restart()).note_death(time.monotonic(), 0.0)
        except CaptureError as error:  # an address that this version does not take
            with contextlib.suppress(ClaimLost):
                self._fail(self._claim(row), error.code, str(error))

    def _start(self, row: Wanted) -> None:
        capture = queries.capture_to_record(row.capture_id)
        stream = capture.stream
        if isinstance(stream.credentials, Sealed):
            services.note_death(self._claim(row), CredentialsSealed())
            self._restarts[row.capture_id] = _Restart(at_s=time.monotonic() + SEALED_S)
            return
        capture.clean_fields(exclude=_OTHER_FIELDS)
        settings = Settings(
            address=stream.address,
            interval_s=capture.interval_s,
            count=capture.count,
            transport=capture.transport,
            verify_certificate=stream.verify_certificate,
            networks=configured.CAPTURE_ALLOWED_NETWORKS,
            redirect_ports=configured.CAPTURE_REDIRECT_PORTS,
            closed=private_paths(),
            memory_bytes=configured.CAPTURE_MEMORY_MB << 20,
        )
        board = tuple((frame.number, frame.score) for frame in capture.frames.all())
        timeline = queries.saved_timeline(capture)
        seed = Seed(capture.samples, board, services.saved_status(stream), timeline, stream.quirks)
        now_s = time.monotonic()
        recorder = _Recorder(
            process=RecorderProcess(settings, seed),
            claim=self._claim(row),
            name=stream.name,
            base=services.Totals.of(capture),
            started_s=now_s,
            settled_s=now_s,
            quirks=stream.quirks,
        )
        self._recorders[row.capture_id] = recorder
        _log(recorder, logging.INFO, "recorder started pid=%s frames_kept=%s", recorder.process.pid, len(board))

    def _ask_to_leave(self, recorder: _Recorder) -> None:
        recorder.left_s = time.monotonic()
        recorder.process.leave(recorder.saved)

    def _end(self, capture_id: int) -> None:
        recorder = self._recorders.pop(capture_id, None)
        if recorder:
            recorder.process.end()

    # --- faults of one capture ---

    @contextlib.contextmanager
    def _alone(self, capture_id: int, name: str = "") -> Iterator[None]:
        """Delay a capture that fails. An error that concerns all captures is raised and ends the round."""
        try:
            yield
        except (ClaimLost, claims.HostTaken):
            raise
        except DatabaseFailed as error:
            if not (isinstance(error, DataError | IntegrityError | InternalError) or locks.is_of_one_row(error)):
                raise
            self._delay(capture_id, name, error)
        except Exception as error:  # a row that another version or a person wrote, or a fault of ours
            self._delay(capture_id, name, error)

    def _is_delayed(self, capture_id: int) -> bool:
        delay = self._delays.get(capture_id)
        return delay is not None and time.monotonic() < delay.at_s

    def _delay(self, capture_id: int, name: str, error: Exception) -> None:
        """Reported once, not with each try. A lock only with the second one: most are gone by then."""
        now_s = time.monotonic()
        delay = self._delays.setdefault(capture_id, _Delay(name or _name_of(capture_id), now_s))
        delay.note_try(now_s)
        locked = locks.lock_in(error)
        fault = f"locked {locked.table}" if locked else f"{type(error).__name__}: {error}"
        if fault == delay.reported or (locked and delay.tries == 1):
            return
        delay.reported = fault
        one = delay.name, capture_id
        if locked:
            holder = locks.row_holder(connection, locked.table)
            log.error("stream=%s capture=%s delayed error=locked " + holder.format, *one, *holder.values)
        else:
            told = type(error).__name__, str(error)[:300]
            log.error("stream=%s capture=%s delayed error=%s words=%r", *one, *told, exc_info=error)

    def _note_success(self, capture_id: int) -> None:
        delay = self._delays.pop(capture_id, None)
        if delay and delay.reported:
            after_s = time.monotonic() - delay.since_s
            log.info("stream=%s capture=%s goes on after_s=%.0f", delay.name, capture_id, after_s)

    def _say_database(self, error: DatabaseFailed | None) -> None:
        """One line for each trouble, one when the database is back. A lock is reported with the second round that
        waits for it."""
        if error is None:
            if self._troubles:
                log.info("host=%s database back", self.host.name)
            self._troubles.clear()
            self._is_database_away = False
            return
        was_away, self._is_database_away = self._is_database_away, True
        if locks.lock_in(error):
            if was_away and "locked" not in self._troubles:
                holder = locks.locked_tables(connection)
                log.error(
                    "host=%s database locked: nothing is saved meanwhile " + holder.format,
                    self.host.name,
                    *holder.values,
                )
                self._troubles.add("locked")
            return
        event = database_faults.fault_of(error).event
        if event not in self._troubles:
            words = " ".join(str(error).split())[:300]
            log.error("host=%s " + event + " error=%s words=%r", self.host.name, type(error).__name__, words)
            self._troubles.add(event)
        if not connection.in_atomic_block:
            connection.close()  # the next one may reach a server that took over


def _name_of(capture_id: int) -> str:
    """For the log: the fault may be in the row itself."""
    with contextlib.suppress(DatabaseFailed):
        return str(Capture.objects.filter(pk=capture_id).values_list("stream__name", flat=True).first())
    return "?"


def _parts(report: Report) -> Iterator[tuple[Report, frozenset[int]]]:
    """The report with a few fresh pictures at a time, best first, and the numbers of those that are still to come."""
    for begin in range(0, max(1, len(report.fresh)), FRESH):
        later = frozenset(picture.number for picture in report.fresh[begin + FRESH :])
        timeline = "" if later else report.timeline
        yield replace(report, fresh=report.fresh[begin : begin + FRESH], timeline=timeline), later


def _may_be_asked(recorder: _Recorder) -> bool:
    return recorder.left_s is None and recorder.process.asked_s is None


def _is_due(recorder: _Recorder, now_s: float) -> bool:
    if recorder.has_news and now_s - recorder.pulled_s >= NEWS_S:
        return True
    return now_s // PULL_S > recorder.pulled_s // PULL_S


def _is_dead(recorder: _Recorder, now_s: float) -> bool:
    if not recorder.process.is_alive:
        return True
    if recorder.left_s is not None:
        return now_s - max(recorder.left_s, recorder.process.heard_s) > LEAVE_GRACE_S
    asked_s = recorder.process.asked_s  # a long answer comes in parts, once it is read again after a pause of ours
    return asked_s is not None and now_s - max(asked_s, recorder.process.heard_s) > SILENT_S


def _log(recorder: _Recorder, level: int, event: str, *values: object) -> None:
    log.log(level, f"stream=%s capture=%s {event}", recorder.name, recorder.claim.capture_id, *values)


def _log_status(recorder: _Recorder, status: Status) -> None:
    """One line for each change of state."""
    if status.video:
        video = status.video
        _log(recorder, logging.INFO, "capturing codec=%s size=%sx%s", video.codec, video.width, video.height)
        return
    wait_s = max(0.0, (status.next_attempt_at or 0.0) - time.time())
    _log(
        recorder,
        logging.ERROR if status.state is State.FAILED else logging.WARNING,
        "%s error=%s attempt=%s next_attempt_s=%.1f words=%r",
        status.state.value,
        status.error_code,
        status.attempt,
        wait_s,
        status.error_text,
    )
