"""The job cluster as a child of the supervisor: started, watched, restarted and ended as a whole."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

log = logging.getLogger(__name__)

# Running and prefetched jobs may finish; the leader ends itself after 2.5 s.
STOP_GRACE_S = 3.0
# The sentinel is heard twice a second; while it looks for what is scheduled it may wait for SQLite.
SILENT_S = 15.0
BOOT_S = 60.0
# The supervisor looks four times a second. A longer pause is its own, and says nothing of the cluster.
ROUND_S = 1.0
# Waits after the first death, the second ...: each start costs about a second of one core.
RESTARTS_S: tuple[float, ...] = (0.0, 1.0, 2.0, 5.0, 10.0)
HEALTHY_S = 30.0
_END_S = 1.0
_READ_BYTES = 4096


class Cluster:
    """`manage.py jobs` in a session of its own: signals of the terminal do not reach it, and its group can be killed.

    It ends as a whole when one of its parts dies or hangs (streams.sentinel). When its leader or sentinel does, it
    is silent, and is ended here. Either way another one is started. No capture lives in it.
    """

    def __init__(self, command: list[str] | None = None) -> None:
        self._command = command or [sys.executable, sys.argv[0], "jobs"]
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._deaths = 0
        self._started_s = self._start_at_s = self._looked_s = self._stopped_s = 0.0
        self._silent_s = 0.0
        self._may_be_silent_s = BOOT_S

    @property
    def pid(self) -> int | None:
        """Of the leader; also the id of the group."""
        return self._process.pid if self._process else None

    def keep_alive(self) -> None:
        """Start the cluster if it is not running and its wait after the last end is over; end it if it is silent."""
        now_s = time.monotonic()
        if self._process and _has_ended(self._process):
            self._restart_later("ended", now_s)
        elif self._process and self._is_silent(now_s):
            self._restart_later("is silent", now_s)
        self._looked_s = now_s
        if self._process is None and now_s >= self._start_at_s:
            self._start(now_s)

    def stop(self) -> None:
        """Ask the leader alone: a signal to the whole group would cut jobs off."""
        self._stopped_s = time.monotonic()
        if self._process:
            os.kill(self._process.pid, signal.SIGTERM)  # Popen's own would reap it

    def join(self) -> None:
        """Wait for the end, STOP_GRACE_S from `stop` on at most, then end what is left."""
        if self._process:
            left_s = self._stopped_s + STOP_GRACE_S - time.monotonic()
            _wait_for_end(self._process, left_s)
            self._sweep()

    def _start(self, now_s: float) -> None:
        # The link tells the cluster when the supervisor is gone, however it went, and is where it is heard.
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(self._command, stdin=theirs.fileno(), start_new_session=True)
        except OSError as error:  # no process or memory left
            ours.close()
            log.error("job cluster not started error=%s", error.strerror)
            self._start_at_s = now_s + RESTARTS_S[-1]
            return
        ours.setblocking(False)
        self._link = ours
        self._started_s = now_s
        self._silent_s, self._may_be_silent_s = 0.0, BOOT_S

    def _is_silent(self, now_s: float) -> bool:
        self._silent_s += min(now_s - self._looked_s, ROUND_S)
        with suppress(BlockingIOError, ConnectionError):
            if self._link and self._link.recv(_READ_BYTES):
                self._silent_s, self._may_be_silent_s = 0.0, SILENT_S
        return self._silent_s > self._may_be_silent_s

    def _restart_later(self, event: str, now_s: float) -> None:
        if now_s - self._started_s > HEALTHY_S:
            self._deaths = 0
        wait_s = RESTARTS_S[min(self._deaths, len(RESTARTS_S) - 1)]
        self._deaths += 1
        self._start_at_s = now_s + wait_s
        process = self._process
        self._sweep()
        log.warning("job cluster %s code=%s restart_s=%g", event, process and process.returncode, wait_s)

    def _sweep(self) -> None:
        """Orphaned workers and pushers would go on taking jobs.

        The leader is still a zombie, or alive: its pid, which is the group's, belongs to nobody else.
        """
        process, self._process = self._process, None
        if process:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
        if self._link:
            self._link.close()
            self._link = None


def _has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Without reaping it, which would give its pid back."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _wait_for_end(process: "subprocess.Popen[bytes]", within_s: float) -> None:
    limit_s = time.monotonic() + within_s
    while not _has_ended(process) and time.monotonic() < limit_s:
        time.sleep(0.02)
