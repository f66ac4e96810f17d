"""How long to wait after which failure. Pure: randomness is injected."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import Retry

# The waits of each ladder in seconds; the last one is for every further failure.
# QUICK: a camera reboots in about a minute, and 15,000 restarts in three days (viseron PR #1461) help nobody.
# LATER: RTSP sessions that a camera still holds time out after 60 s (RFC 2326 section 12.37).
# SLOW: cameras lock an account after a handful of wrong passwords (home-assistant #22323).
# RARE: a path that was never there is a typing mistake: it was asked for 47 times in 22 minutes.
LADDERS: dict[Retry, tuple[float, ...]] = {
    Retry.QUICK: (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0),
    Retry.LATER: (30.0, 60.0, 120.0, 240.0, 300.0),
    Retry.SLOW: (60.0, 120.0, 240.0, 480.0, 900.0),
    Retry.RARE: (60.0, 300.0, 900.0, 3600.0),
}
HEALTHY_S = 60.0
# All but QUICK lengthen a step by up to a quarter.
LONGER = 1.25


def longest_wait_s(retry: Retry) -> float:
    return LONGER * LADDERS[retry][-1]


@dataclass(slots=True)
class Backoff:
    """The waits between connections of one capture: full jitter, begun anew only after a healthy minute."""

    uniform: Callable[[float, float], float] = random.uniform
    attempt: int = field(default=0, init=False)
    _ladder: Retry | None = field(default=None, init=False)

    def resume(self, retry: Retry, attempt: int) -> None:
        """Go on where another one was after so many failures: a restart must not lead to a quick retry."""
        self.attempt, self._ladder = attempt, retry

    def after(self, retry: Retry, healthy_s: float = 0.0) -> float:
        """Seconds to wait after a failure; `healthy_s` is for how long frames had come before it.

        QUICK takes full jitter (0 to the step), so that a hundred cameras behind one switch do not return
        at once. The others only lengthen the step: they must never be quick. Another ladder begins at its foot.
        Raises ValueError for NEVER.
        """
        if retry is Retry.NEVER:
            raise ValueError("an error that is never retried has no wait")
        if healthy_s >= HEALTHY_S or retry is not self._ladder:
            self.attempt, self._ladder = 0, retry
        steps_s = LADDERS[retry]
        step_s = steps_s[min(self.attempt, len(steps_s) - 1)]
        self.attempt += 1
        if retry is Retry.QUICK:
            return self.uniform(0.0, step_s)
        return self.uniform(step_s, step_s * LONGER)
