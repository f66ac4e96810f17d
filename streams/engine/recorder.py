"""The supervisor's end of recorders: each is a process, at the other end of a socket.

Nothing that decodes is loaded here: that is for the fork server alone, and for the recorders that it makes.
"""

import contextlib
import errno
import multiprocessing
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from .report import Report, Seed, Settings
from .wire import BadMessage, Inbox, Leave, Message, Pull, encode

# A camera gets this long for its TEARDOWN before the recorder leaves without it.
LEAVE_S = 2.0
# A killed process is gone at once, unless the system itself hangs with it.
END_S = 1.0
_READ_BYTES = 1 << 20
_READS = 64  # of one recorder, before the others are heard
_ROOT = str(Path(__file__).resolve().parents[2])
_HARMLESS = frozenset({"PATH", "LANG", "LC_ALL", "TZ", "HOME", "TMPDIR"})
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([f"{__package__}.preload"])


def record(settings: Settings, seed: Seed, link: socket.socket) -> None:
    """A recorder's main function. Whoever starts one only names it."""
    from . import recording  # libav, OpenCV and NumPy: 20 MB that a supervisor has no use for

    recording.record(settings, seed, link)


class RecorderProcess:
    """The supervisor's end of one recorder. Nothing here blocks."""

    def __init__(self, settings: Settings, seed: Seed) -> None:
        """Raises OSError if no process can be made now."""
        self._link, far = socket.socketpair()
        self._link.setblocking(False)
        self._inbox = Inbox()
        self._is_open = True
        self.heard_s = 0.0
        """When it last said something; monotonic."""
        self.asked_s: float | None = None
        """When the question was asked that is not answered yet; monotonic."""
        with far, _bare_environment():
            self._process: ForkServerProcess = _CONTEXT.Process(
                target=record, args=(settings, seed, far), daemon=True
            )
            try:
                self._process.start()
            except EOFError:  # and a recorder that it made all the same sees this end closed, and leaves
                self._link.close()
                raise ChildProcessError(errno.ECHILD, "the fork server died") from None
        # Not by its number, which is another process's if the fork server has reaped it or is gone itself.
        self._handle = os.pidfd_open(self.pid)

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def fileno(self) -> int:
        """For select(): readable when the recorder has said something or has died."""
        return self._link.fileno()

    @property
    def is_alive(self) -> bool:
        return self._is_open

    def pull(self, saved: frozenset[int]) -> None:
        self._ask(Pull(saved))

    def leave(self, saved: frozenset[int]) -> None:
        self._ask(Leave(saved))

    def receive(self) -> list[Message]:
        """What has come in. A recorder that closes its end, or breaks the protocol, counts as dead from then on."""
        messages: list[Message] = []
        with contextlib.suppress(BlockingIOError):
            try:
                for _ in range(_READS):
                    data = self._link.recv(_READ_BYTES)
                    if not data:
                        self._is_open = False
                        break
                    self.heard_s = time.monotonic()
                    messages += self._inbox.feed(data)
            except (ConnectionError, BadMessage):
                self._is_open = False
        if any(isinstance(message, Report) for message in messages):
            self.asked_s = None
        return messages

    def end(self) -> None:
        """Leave nothing behind, at once: for a recorder that is dead, stuck or no longer ours."""
        self._is_open = False
        self._link.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        gone = select.poll()
        gone.register(self._handle, select.POLLIN)
        if gone.poll(END_S * 1000):
            self._process.join(END_S)
        os.close(self._handle)
        if self._process.exitcode is not None:
            self._process.close()

    def _ask(self, message: Message) -> None:
        if self.asked_s is None:
            self.asked_s = time.monotonic()
        try:
            self._link.sendall(encode(message))
        except BlockingIOError:
            pass  # the recorder has not read for so long that its socket is full: asked_s tells
        except OSError:
            self._is_open = False


@contextlib.contextmanager
def _bare_environment() -> Iterator[None]:
    """The fork server inherits the environment of whoever starts it first: it shall hold no key and no address."""
    kept = dict(os.environ)
    bare = {name: value for name, value in kept.items() if name in _HARMLESS}
    # The server's own import path, and no thread before its forks.
    bare |= {"PYTHONPATH": _ROOT, "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    _replace_environment(bare)
    try:
        yield
    finally:
        _replace_environment(kept)


def _replace_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
