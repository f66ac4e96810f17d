"""The job cluster as a child of the supervisor: started, watched, restarted and ended as a whole."""

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from .engine.backoff import Backoff
from .engine.errors import Retry

log = logging.getLogger(__name__)

# Running and prefetched jobs may finish; a finish job composes one grid, far below a second.
STOP_GRACE_S = 4.0


class Cluster:
    """`manage.py jobs` in a session of its own: signals of the terminal do not reach it, and its group can be killed.

    When its leader or sentinel dies, the whole group is ended and started again. Its other parts the sentinel
    replaces, not always with success; the supervisor's tick does what no job has done. No capture lives here.
    """

    def __init__(self, command: list[str] | None = None) -> None:
        self._command = command or [sys.executable, sys.argv[0], "jobs"]
        self._process: subprocess.Popen[bytes] | None = None
        self._backoff = Backoff()
        self._started_s = 0.0
        self._start_at_s = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def keep_alive(self) -> None:
        """Start the cluster if it is not running and its wait after the last end is over."""
        now_s = time.monotonic()
        if self._process and self._process.poll() is not None:
            wait_s = self._backoff.after(Retry.QUICK, now_s - self._started_s)
            self._start_at_s = now_s + wait_s
            log.warning("job cluster ended code=%s restart_s=%.1f", self._process.returncode, wait_s)
            self._sweep()
        if self._process is None and now_s >= self._start_at_s:
            self._start()

    def stop(self) -> None:
        """Ask the leader alone: a signal to the whole group would cut jobs off and hang it."""
        if self._process:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    def join(self) -> None:
        """Wait for the end, for a bounded time, then end what is left."""
        if self._process:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_GRACE_S)
            self._sweep()

    def _start(self) -> None:
        # The pipe tells the cluster when the supervisor is gone, however it went.
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, start_new_session=True)
        self._started_s = time.monotonic()

    def _sweep(self) -> None:
        """Orphaned workers and pushers would go on taking jobs."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin:
            process.stdin.close()
