"""The sentinel of the job cluster: with a part that died or hangs, the whole cluster ends and is started anew."""

import logging
import os
import signal
import time
import uuid
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from django.db import connections
from django_q.cluster import Sentinel as Original
from django_q.signals import post_execute, post_execute_in_worker

log = logging.getLogger(__name__)

# A waiting job is begun within a poll of 0.2 s; the sentinel itself may wait 20 s for SQLite, but not in this round.
STUCK_S = 15.0
# What the broker holds costs a statement, and on PostgreSQL a connection.
LOOK_S = 5.0
# A round takes half a second. That one took longer says that this process was paused, not that jobs waited.
ROUND_S = 1.0
LAST_WORDS_S = 1.0


class Sentinel(Original):  # type: ignore[misc]  # it comes without types
    """Starts the parts of the cluster and watches them, twice a second.

    django-q2's own replaces a part that died; but the part may have died with the lock of a queue, and then all
    others wait for good (its issue 23), or with a job that nobody acknowledges. A part that hangs it does not
    see. Here both end the process group: whoever runs it sees the leader's end. `beats` counts the rounds.
    """

    def __init__(self, stop_event: Any, start_event: Any, beats: Any, done: Any) -> None:
        self._beats = beats
        self._done = done
        self._seen = 0
        self._stuck_s = 0.0
        self._round_s = self._looked_s = time.monotonic()
        self._is_queue_waiting = False
        super().__init__(_Rounds(stop_event, self._look), start_event, uuid.uuid4())

    def start(self) -> None:
        post_execute_in_worker.connect(_give_connections_back)
        post_execute.connect(self._note_done)
        super().start()

    def reincarnate(self, process: BaseProcess) -> None:
        """Workers are recycled and, after a timeout, end by themselves; a pusher whose broker failed does too."""
        process.join(LAST_WORDS_S)
        if process.exitcode != 0:
            self._end("a part died pid=%s code=%s", process.pid, process.exitcode)
        super().reincarnate(process)

    def _look(self) -> None:
        self._beats.value += 1
        now_s = time.monotonic()
        round_s, self._round_s = min(now_s - self._round_s, ROUND_S), now_s
        done = self._done.value
        is_stuck = done == self._seen and self._is_waiting(now_s)
        self._stuck_s = self._stuck_s + round_s if is_stuck else 0.0
        self._seen = done
        connections.close_all()  # the scheduler's too
        if self._stuck_s > STUCK_S:
            self._end("jobs wait and none is done stuck_s=%.0f", self._stuck_s)

    def _is_waiting(self, now_s: float) -> bool:
        """Whether there is something to do and a part that could do it. Jobs that run are bounded by a timeout."""
        if self.result_queue.qsize():
            return True
        if all(worker.timer.value > 0 for worker in self.pool):
            return False
        if self.task_queue.qsize():
            return True
        if now_s - self._looked_s > LOOK_S:
            self._looked_s = now_s
            self._is_queue_waiting = self.broker.queue_size() > 0
        return self._is_queue_waiting

    def _note_done(self, **_: Any) -> None:
        """In the monitor, which alone writes this number: no lock that it could die with."""
        self._done.value += 1
        connections.close_all()

    def _end(self, reason: str, *values: object) -> None:
        log.error(f"job cluster ends itself: {reason}", *values)
        os.killpg(0, signal.SIGKILL)


class _Rounds:
    """The stop event as the guarding loop waits for it: once in each of its rounds."""

    def __init__(self, event: Any, each_round: Callable[[], None]) -> None:
        self._event = event
        self._each_round = each_round

    def is_set(self) -> bool:
        return bool(self._event.is_set())

    def wait(self, wait_s: float) -> bool:
        self._each_round()
        return bool(self._event.wait(wait_s))


def _give_connections_back(**_: Any) -> None:
    """Between jobs a worker needs none, and a server that is restarted breaks none."""
    connections.close_all()
