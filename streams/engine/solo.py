"""One capture without a service: a recorder, another one when it dies, and the pictures in memory."""

import select
import time
from dataclasses import replace
from types import TracebackType
from typing import Self

from .backoff import HEALTHY_S, Backoff
from .clock import Stop
from .errors import Retry
from .recorder import LEAVE_S, RecorderProcess
from .report import Counters, Picture, Report, Seed, Settings, State, Status
from .wire import Changed, Message

LOOK_S = 0.25
# A recorder that has not answered for so long hangs.
SILENT_S = 10.0
# Beside what the camera gets for its farewell: a busy machine.
LEAVE_GRACE_S = LEAVE_S + 2.0


class NoRecorder(Exception):
    """One sentence."""


class Solo:
    """The recorder is a process as in the service: a camera that hangs inside C code cannot keep this one.

    Begins with the block; what was captured is still here after it.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.status = Status()
        self._before = Counters()
        self._now = Counters()
        self._board: tuple[tuple[int, float], ...] = ()
        self._pictures: dict[int, Picture] = {}
        self._timeline = self._quirks = ""
        self.replace_reasons: list[str] = []
        """Why recorders ended so that others take their places, in order."""
        self._process: RecorderProcess | None = None
        self._is_final = False
        self._deaths = Backoff()
        self._has_died = False
        self._started_s = self._start_at_s = self._pulled_s = 0.0

    def __enter__(self) -> Self:
        """Raises NoRecorder if no process can be made."""
        try:
            self._start()
        except OSError as error:  # its socket may have no place there, too
            raise NoRecorder(
                f"No recorder can be started, with its socket below TMPDIR: {error.strerror or error}."
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def is_over(self) -> bool:
        """It met an error that is never to be tried again."""
        return self._process is None and self.status.state is State.FAILED

    @property
    def counters(self) -> Counters:
        """Of all its recorders together."""
        before, now = self._before, self._now
        return replace(
            now,
            samples=before.samples + now.samples,
            missed=before.missed + now.missed,
            rejected=before.rejected + now.rejected,
            repeated=before.repeated + now.repeated,
            connections=before.connections + now.connections,
            last_sample_at=now.last_sample_at or before.last_sample_at,
        )

    @property
    def pictures(self) -> list[Picture]:
        """Best first."""
        return [self._pictures[number] for number, _ in self._board if number in self._pictures]

    def look(self, stop: Stop, within_s: float = LOOK_S) -> None:
        """Wait until the recorder says something, `stop` is set or the time is over; take in what was said."""
        if self._process is None:
            self._start_when_due(stop, within_s)
            return
        select.select([self._process.fileno(), stop.fileno()], [], [], within_s)
        messages = self._receive(self._process)
        if self._is_final or self._is_dead(self._process):
            self._bury()
        else:
            self._pull(self._process, within_s, is_changed=any(isinstance(message, Changed) for message in messages))

    def leave(self) -> None:
        """End the recorder and take its last words; a camera that hangs costs LEAVE_GRACE_S at most."""
        if self._process is None:
            return
        limit_s = time.monotonic() + LEAVE_GRACE_S
        self._process.leave(frozenset(self._pictures))
        while self._process.is_alive and not self._is_final and time.monotonic() < limit_s:
            select.select([self._process.fileno()], [], [], LOOK_S)
            self._receive(self._process)
        self._end()

    def _start_when_due(self, stop: Stop, within_s: float) -> None:
        wait_s = self._start_at_s - time.monotonic()
        if self.is_over or wait_s > 0:
            stop.wait(within_s if self.is_over else min(wait_s, within_s))
            return
        try:
            self._start()
        except OSError:  # no process or memory left
            self._note_death()

    def _start(self) -> None:
        seed = Seed(self.counters.samples, self._board, self.status, self._timeline, self._quirks)
        self._process = RecorderProcess(self.settings, seed)
        self._is_final = False
        self._started_s = time.monotonic()

    def _receive(self, process: RecorderProcess) -> list[Message]:
        messages = process.receive()
        for message in messages:
            if isinstance(message, Report):
                self._take(message)
        return messages

    def _take(self, report: Report) -> None:
        known = self._pictures | {picture.number: picture for picture in report.fresh}
        self._pictures = {number: known[number] for number, _ in report.board if number in known}
        self._board, self._now, self.status = report.board, report.counters, report.status
        self._timeline = report.timeline or self._timeline
        self._quirks = report.quirks
        self._is_final = report.is_final
        if report.replace_reason:
            self.replace_reasons.append(report.replace_reason)

    def _pull(self, process: RecorderProcess, every_s: float, *, is_changed: bool) -> None:
        now_s = time.monotonic()
        if process.asked_s is None and (is_changed or now_s - self._pulled_s >= every_s):
            self._pulled_s = now_s
            process.pull(frozenset(self._pictures))

    def _is_dead(self, process: RecorderProcess) -> bool:
        asked_s = process.asked_s
        is_silent = asked_s is not None and time.monotonic() - max(asked_s, process.heard_s) > SILENT_S
        return is_silent or not process.is_alive

    def _bury(self) -> None:
        """It ended by itself: for good, or since its camera hung or it crashed, and then another one goes on."""
        was_told, is_failed = self._is_final, self.status.state is State.FAILED
        process = self._process
        self._end()
        if is_failed:
            return
        if not was_told and process:
            died = process.death
            self.status = Status(State.RECONNECTING, died.code, str(died))
        self._note_death()

    def _note_death(self) -> None:
        """The first time at once, then after a while that grows."""
        now_s = time.monotonic()
        lived_s = now_s - self._started_s
        is_first = not self._has_died or lived_s >= HEALTHY_S
        self._start_at_s = now_s + (0.0 if is_first else self._deaths.after(Retry.QUICK, lived_s))
        self._has_died = True

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.end()
        self._process = None
        self._before, self._now = self.counters, Counters()
