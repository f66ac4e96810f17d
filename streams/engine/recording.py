"""What runs in a recorder: the session, the memory settings, the two threads.

The recorder knows no Django, no database and no key but its camera's password. One thread runs the session,
the other answers the supervisor, so that a camera which hangs inside C code cannot silence the recorder.
"""

import contextlib
import os
import select
import signal
import socket
import threading
import time
import traceback
from functools import partial

import cv2

from . import heap, limits, lookups, sandbox
from .errors import CaptureError, OutOfMemory, RecorderDied
from .recorder import EXIT_OUT_OF_MEMORY, LEAVE_S
from .report import Seed, Settings
from .session import Session
from .wire import BadMessage, Changed, Inbox, Leave, Message, Pull, parts

# How often the answering thread looks at the clock for the session's deadline.
WATCH_S = 1.0
# The kernel ends a recorder whose answering thread has not run for so long: its supervisor may be gone.
DEAD_S = 30.0
# A recorder that takes most of a core for so long goes behind all others. 4K at 25 pictures a second of which each is
# decoded takes 0.7 of one; what is received only, a hundredth.
HEAVY_SHARE = 0.5
HEAVY_S = 20.0
_READ_BYTES = 1 << 20


def record(settings: Settings, seed: Seed, link: socket.socket) -> None:
    """Capture until told to leave or until the supervisor is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process without asking Python
    heap.give_back()
    limits.limit(settings.memory_bytes)
    sandbox.shut_in(*sandbox.ports_of(settings.address.port, settings.redirect_ports), closed=settings.closed)
    cv2.setNumThreads(1)
    try:
        _Recorder(settings, seed, link).run()
    except MemoryError:  # none is left to say so
        os._exit(EXIT_OUT_OF_MEMORY)


class _Recorder:
    def __init__(self, settings: Settings, seed: Seed, link: socket.socket) -> None:
        self._link = link
        # The session's thread never writes to the supervisor, who may be slow to read: it wakes the other thread.
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._readable = select.poll()
        self._readable.register(link, select.POLLIN)
        self._readable.register(self._woken, select.POLLIN)
        self._has_said_changed = False
        self._inbox = Inbox()
        files = lookups.files_for(settings.address, verifies_certificate=settings.verify_certificate)
        self._session = Session(settings, seed, on_change=self._wake, replaced_file=partial(sandbox.replaced, files))
        self._thread = threading.Thread(target=self._run_session, name="session", daemon=True)
        self._watched_s = self._weighed_s = time.monotonic()
        self._weighed_cpu_s = time.process_time()
        self._is_told_to_leave = False
        signal.signal(signal.SIGTERM, self._note)

    def run(self) -> None:
        _stay_alive()
        self._thread.start()
        limits.make_no_processes()
        try:
            while self._answer():
                pass
        except OSError:
            pass  # the supervisor is gone: nobody is left to report to
        self._session.stop.set()
        self._thread.join(LEAVE_S)
        os._exit(0)  # a thread that hangs inside C code must not keep the process

    def _note(self, *_: object) -> None:
        self._is_told_to_leave = True

    def _run_session(self) -> None:
        try:
            self._session.run()
        except Exception as error:  # the outermost loop of this thread; a message could quote what a camera sent
            why = _why(error)
            if not isinstance(why, OutOfMemory):
                with contextlib.suppress(OSError):  # nobody reads the log any more
                    traceback.print_tb(error.__traceback__)
            self._session.fail(why)

    def _answer(self) -> bool:
        """One round; whether to go on."""
        if self._is_told_to_leave:
            self._end()
            return False
        if time.monotonic() - self._watched_s >= WATCH_S and not self._watch():
            return False
        ready = [descriptor for descriptor, _ in self._readable.poll(WATCH_S * 1000)]
        if self._woken in ready:
            os.read(self._woken, _READ_BYTES)
            self._say_changed()
        if self._link.fileno() not in ready:
            return True
        data = self._link.recv(_READ_BYTES)
        return bool(data) and all(self._obey(message) for message in self._inbox.feed(data))

    def _obey(self, message: Message) -> bool:
        match message:
            case Pull(saved=saved):
                self._has_said_changed = False
                self._session.mark_saved(saved)
                self._send(self._session.report())
                return True
            case Leave(saved=saved):
                self._session.mark_saved(saved)
                self._end()
                return False
            case _:
                raise BadMessage("a supervisor only pulls or says leave")

    def _watch(self) -> bool:
        """By the clock, however often the supervisor asks; whether to go on."""
        self._watched_s = time.monotonic()
        _stay_alive()
        self._weigh()
        error = self._session.overdue()
        if error:
            self._session.fail(error)
            self._send(self._session.report(is_final=True))
            return False
        if not self._thread.is_alive():
            self._send(self._session.report(is_final=True))
            return False
        return True

    def _weigh(self) -> None:
        """A camera that makes more work than others does not make it theirs."""
        passed_s = self._watched_s - self._weighed_s
        if passed_s < HEAVY_S:
            return
        cpu_s = time.process_time()
        if (cpu_s - self._weighed_cpu_s) / passed_s > HEAVY_SHARE:
            self._session.is_heavy = True
            limits.step_back(self._thread.native_id or 0)
        self._weighed_s, self._weighed_cpu_s = self._watched_s, cpu_s

    def _end(self) -> None:
        self._session.stop.set()
        self._thread.join(LEAVE_S)
        self._send(self._session.report(is_final=True))

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is full of wake-ups already
            os.write(self._waker, b"w")

    def _say_changed(self) -> None:
        if not self._has_said_changed:
            self._has_said_changed = True
            self._send(Changed())

    def _send(self, message: Message) -> None:
        """However long the supervisor does not read: its database may be away for minutes."""
        room = select.poll()
        room.register(self._link, select.POLLOUT)
        for part in parts(message):
            left = memoryview(part)
            while left:
                _stay_alive()
                room.poll(WATCH_S * 1000)
                with contextlib.suppress(BlockingIOError):
                    left = left[self._link.send(left, socket.MSG_DONTWAIT) :]


def _why(error: Exception) -> CaptureError:
    is_full = isinstance(error, (MemoryError, OutOfMemory)) or (
        isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem
    )
    return OutOfMemory() if is_full else RecorderDied(f"The recorder met a fault of its own: {type(error).__name__}.")


def _stay_alive() -> None:
    signal.setitimer(signal.ITIMER_REAL, DEAD_S)
