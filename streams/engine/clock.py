"""Time and waiting, injected: nothing else in the engine reads a clock or sleeps."""

import os
import threading
import time
from typing import Protocol


class Stopped(Exception):
    """Told to stop in the middle of something; no failure."""


class Stop(threading.Event):
    """A stop that a wait for sockets can watch as well: `fileno()` becomes readable once it is set."""

    def __init__(self) -> None:
        super().__init__()
        self._ends = os.pipe()

    def set(self) -> None:
        super().set()
        os.write(self._ends[1], b"!")  # a pipe holds 65,536 of them, and a stop is set a few times

    def fileno(self) -> int:
        return self._ends[0]

    def __del__(self) -> None:
        for end in self._ends:
            os.close(end)


class Clock(Protocol):
    def now(self) -> float:
        """Wall-clock time, seconds since 1970 UTC."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never jumps."""

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait until `stop` is set or the seconds are over; whether `stop` is set."""


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        return stop.wait(seconds)
