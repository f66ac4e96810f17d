"""Waits for what happens in another process, and gives up in the end."""

import time
from collections.abc import Callable

LOOK_S = (0.02, 0.1)


def until(condition: Callable[[], object], within_s: float = 30.0, pause: Callable[[], object] | None = None) -> None:
    """Looks less often as time goes by, unless the caller has a pause of its own."""
    limit_s = time.monotonic() + within_s
    pause_s, longest_s = LOOK_S
    while not condition():
        if time.monotonic() > limit_s:
            raise AssertionError(f"not within {within_s:g} s")
        if pause:
            pause()
        else:
            time.sleep(pause_s)
            pause_s = min(longest_s, pause_s * 1.2)
