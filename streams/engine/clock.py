"""Time and waiting, injected: nothing else in the engine reads a clock or sleeps."""

import threading
import time
from typing import Protocol


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
