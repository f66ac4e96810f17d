"""Stream time: when a picture was filmed, counted from the connection's first picture. Pure."""

import math

# Stream time and the arrival clock may differ by this much before the sender's timestamps are given up:
# more than any burst at the start or after a stall that is not yet a lost connection.
MAX_DRIFT_S = 15.0
# A step back within this is re-ordering (B-frames), a step ahead within this is jitter.
MAX_STEP_S = 1.5


# Timestamps that are all the same for so long are no time at all.
MAX_STANDSTILL_S = 2.0


class StreamClock:
    """Stream time of one connection, rebuilt from differences: it begins at 0 and never trusts a jump.

    A jump takes the picture's duration, or else the time between arrivals. Timestamps that stand still, or are
    MAX_DRIFT_S from the clock, are given up for the rest of the connection in favour of arrivals.
    """

    def __init__(self) -> None:
        self._offset_s = 0.0
        self._last_s = 0.0
        self._last_arrived_s: float | None = None
        self._begun_s = 0.0
        self._last_pts_s = math.nan
        self._moved_s = 0.0
        self.trusts_timestamps = True

    def at(self, pts_s: float, arrived_s: float, duration_s: float = 0.0) -> float:
        """Stream time of a picture by its timestamp (from any moment), arrival (monotonic), duration (0: unknown)."""
        if self._last_arrived_s is None:
            self._begun_s = self._last_arrived_s = arrived_s
            self._offset_s = -pts_s
        stream_s = self._next(pts_s, arrived_s - self._last_arrived_s, duration_s)
        self._last_arrived_s = arrived_s
        self._last_s = max(self._last_s, stream_s)
        is_drifting = abs(self._last_s - (arrived_s - self._begun_s)) > MAX_DRIFT_S
        if is_drifting or self._stands_still(pts_s, arrived_s):
            self.trusts_timestamps = False
        return stream_s

    def _stands_still(self, pts_s: float, arrived_s: float) -> bool:
        if pts_s != self._last_pts_s:
            self._last_pts_s, self._moved_s = pts_s, arrived_s
        return arrived_s - self._moved_s > MAX_STANDSTILL_S

    def _next(self, pts_s: float, waited_s: float, duration_s: float) -> float:
        if not self.trusts_timestamps:
            return self._last_s + waited_s
        stream_s = pts_s + self._offset_s
        if self._last_s - MAX_STEP_S <= stream_s <= self._last_s + waited_s + MAX_STEP_S:
            return stream_s
        stream_s = self._last_s + max(duration_s or waited_s, waited_s)
        self._offset_s = stream_s - pts_s
        return stream_s
