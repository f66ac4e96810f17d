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
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from .errors import OutOfMemory, RecorderDied
from .report import Report, Seed, Settings
from .wire import BadMessage, Inbox, Leave, Message, Pull, check_pictures, encode, picture_bytes

# A camera gets this long for its TEARDOWN before the recorder leaves without it.
LEAVE_S = 2.0
# A killed process is gone at once, unless the system itself hangs with it.
END_S = 1.0
# One that has closed its end is about to be gone.
GONE_S = 0.2
EXIT_OUT_OF_MEMORY = 12
_READ_BYTES = 1 << 20
_READS = 64  # of one recorder, before the others are heard
_MESSAGES = 16  # likewise; a recorder says one thing for each question, and once that it has something to say
_UNASKED = 64  # more of it than that, without a question, is a recorder that somebody else has taken over
_MACHINE = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP})
_ROOT = str(Path(__file__).resolve().parents[2])
_HARMLESS = frozenset({"PATH", "LANG", "LC_ALL", "TZ", "HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"})
_OPENED = "/proc/self/fd/"
_ways: list[int] = []  # to the fork server's socket: one, opened
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
        self._inbox = Inbox(settings.count * picture_bytes(settings.count))
        self._places = settings.count
        self._is_open = True
        self._owed = self._unasked = 0
        self.death: RecorderDied | OutOfMemory = RecorderDied()
        """Why it is gone, as far as that is known once it is ended."""
        self.heard_s = 0.0
        """When it last said something; monotonic."""
        self.asked_s: float | None = None
        """When the question was asked that is not answered yet; monotonic."""
        with far, _bare_environment():
            self._process: ForkServerProcess = _CONTEXT.Process(
                target=record, args=(settings, seed, far), daemon=True
            )
            try:
                _hide_fork_server()
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
                    messages += self._checked(self._inbox.feed(data))
                    if len(messages) >= _MESSAGES:
                        break
            except ConnectionError:
                self._is_open = False
            except BadMessage:
                self._is_open = False
                self.death = RecorderDied("The recorder of this stream said what none says, and is started again.")
        if any(isinstance(message, Report) for message in messages):
            self.asked_s = None
        return messages

    def _checked(self, messages: list[Message]) -> list[Message]:
        """Raises BadMessage for more than was asked for, and for pictures that are none."""
        for message in messages:
            if isinstance(message, Report):
                self._owed -= not message.is_final
                self._unasked = 0
                self._check_places(message)
                check_pictures(message)
            else:
                self._unasked += 1
            if self._owed < 0 or self._unasked > _UNASKED:
                raise BadMessage("more than was asked for")
        return messages

    def _check_places(self, report: Report) -> None:
        """Raises BadMessage for more pictures than were asked for, which would fill the disk."""
        numbers = {number for number, _ in report.board}
        if len(report.board) > self._places or not numbers.issuperset(picture.number for picture in report.fresh):
            raise BadMessage("more pictures than places")

    def end(self) -> None:
        """Leave nothing behind, at once: for a recorder that is dead, stuck or no longer ours."""
        gone = select.poll()
        gone.register(self._handle, select.POLLIN)
        is_gone = bool(gone.poll(0 if self._is_open else GONE_S * 1000))
        if self._is_open:
            self.death = RecorderDied("The recorder of this stream did not answer any more, and is started again.")
        self._is_open = False
        self._link.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        if is_gone or gone.poll(END_S * 1000):
            self._process.join(END_S)
        os.close(self._handle)
        if self._process.exitcode is None:
            return
        if is_gone:
            self.death = _death(self._process.exitcode)
        self._process.close()

    def _ask(self, message: Message) -> None:
        if self.asked_s is None:
            self.asked_s = time.monotonic()
        self._owed += 1
        try:
            self._link.sendall(encode(message))
        except BlockingIOError:
            pass  # the recorder has not read for so long that its socket is full: asked_s tells
        except OSError:
            self._is_open = False


def _death(exit_code: int) -> RecorderDied | OutOfMemory:
    """Of a recorder that ended without a word, which nobody here has ended."""
    if exit_code == EXIT_OUT_OF_MEMORY:
        return OutOfMemory()
    if exit_code == -signal.SIGKILL:
        return RecorderDied(
            "The recorder of this stream was killed, by somebody or by the system as its memory was full (SIGKILL). "
            "It is started again."
        )
    if exit_code == -signal.SIGALRM:
        return RecorderDied("The recorder of this stream hung, and is started again.")
    if -exit_code in _MACHINE:
        name = signal.Signals(-exit_code).name
        return RecorderDied(f"The recorder of this stream crashed ({name}), and is started again.")
    return RecorderDied()


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


def _hide_fork_server() -> None:
    """It makes a process of whatever is sent to its socket, one without a recorder's limits, and who has taken over a
    recorder knows where that is: from now on the socket has no name, and only this process a way to it.
    """
    forkserver.ensure_running()
    server = vars(forkserver._forkserver)
    address = server["_forkserver_address"]
    if address.startswith(_OPENED) or not Path(_OPENED).is_dir():
        return
    while _ways:  # to one that is gone
        os.close(_ways.pop())
    _ways.append(os.open(address, os.O_PATH | os.O_CLOEXEC))
    os.unlink(address)
    server["_forkserver_address"] = f"{_OPENED}{_ways[0]}"


def _replace_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
