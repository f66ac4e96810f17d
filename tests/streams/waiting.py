"""Waits for what happens in another process, and gives up in the end."""

import time
from collections.abc import Callable


def until(
    condition: Callable[[], object], within_s: float = 30.0, pause: Callable[[], object] = lambda: time.sleep(0.02)
) -> None:
    limit_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > limit_s:
            raise AssertionError(f"not within {within_s:g} s")
        pause()
