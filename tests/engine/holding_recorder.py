"""A recorder's main function whose session holds the interpreter for ever, and one whose limit of that is short.

Named by the test in place of streams.engine.recorder.record; the fork server imports them by these names.
"""

import ctypes
import socket

from streams.engine import recorder, recording
from streams.engine.report import Seed, Settings
from streams.engine.session import Session

DEAD_S = 4.0
record_as_ever = recorder.record


def record(settings: Settings, seed: Seed, link: socket.socket) -> None:
    """C code that neither returns nor lets another thread run: PyDLL keeps the lock of the interpreter."""
    Session.run = lambda self: ctypes.PyDLL(None).sleep(3600)  # type: ignore[method-assign]
    record_soon_dead(settings, seed, link)


def record_soon_dead(settings: Settings, seed: Seed, link: socket.socket) -> None:
    recording.DEAD_S = DEAD_S
    record_as_ever(settings, seed, link)
