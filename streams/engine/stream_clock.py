"""Stream time: when a picture was filmed, counted from the connection's first picture. Pure."""

import math
from collections import deque

# Stream time and the arrival clock may differ by this much before the sender's timestamps are given up:
# more than any burst at the start or after a stall that is not yet a lost connection.
MAX_DRIFT_S = 15.0
# A step back within this is re-ordering (B-frames), a step ahead within this is jitter.
MAX_STEP_S = 1.5
# Re-ordering also steps by so many pictures: encoders put up to seven B-frames between two others. At two pictures a
# second that is 4 s. Beyond MAX_REORDER_S a step is a jump at any rate.
REORDERED_PICTURES = 8
MAX_REORDER_S = 10.0
# The distance of pictures by their arrival: over so many, and over no fewer than a few if the camera names a rate.
PACED_PICTURES, FEW_PICTURES = 16, 4
# Timestamps that are all the same for so long are no time at all.
MAX_STANDSTILL_S = 2.0
# Nor are those that advance by less than this share of the time between arrivals, from picture to picture, for so
# long: a camera of one picture in 12 s may count pictures. After a stall of the network some would catch up.
SLOW_SHARE, MAX_SLOW_S = 1 / 4, 5.0


class StreamClock:
    """Stream time of one connection, rebuilt from differences: it begins at 0 and never trusts a jump.

    A jump takes the picture's duration, or else the time between arrivals. Timestamps that stand still, crawl, or are
    MAX_DRIFT_S from the clock, are given up for the rest of the connection in favour of arrivals.
    """

    def __init__(self) -> None:
        self._offset_s = 0.0
        self._last_s = 0.0
        self._last_arrived_s: float | None = None
        self._begun_s = 0.0
        self._last_pts_s = math.nan
        self._moved_s = 0.0
        self._slow_s: list[float] = []
        """The last times between arrivals, as far as the timestamps crawled."""
        self._arrivals_s: deque[float] = deque(maxlen=PACED_PICTURES + 1)
        self.trusts_timestamps = True

    def at(self, pts_s: float, arrived_s: float, duration_s: float = 0.0) -> float:
        """Stream time of a picture by its timestamp (from any moment), arrival (monotonic), duration (0: unknown)."""
        if self._last_arrived_s is None:
            self._begun_s = self._last_arrived_s = arrived_s
            self._offset_s = -pts_s
        self._arrivals_s.append(arrived_s)
        if self._crawls(pts_s, arrived_s - self._last_arrived_s):
            self.trusts_timestamps = False
        stream_s = self._next(pts_s, arrived_s - self._last_arrived_s, duration_s)
        self._last_arrived_s = arrived_s
        self._last_s = max(self._last_s, stream_s)
        is_drifting = abs(self._last_s - (arrived_s - self._begun_s)) > MAX_DRIFT_S
        if is_drifting or self._stands_still(pts_s, arrived_s):
            self.trusts_timestamps = False
        return stream_s

    def _crawls(self, pts_s: float, waited_s: float) -> bool:
        if 0 <= pts_s - self._last_pts_s < waited_s * SLOW_SHARE:
            self._slow_s.append(waited_s)
        else:
            self._slow_s.clear()
        return len(self._slow_s) > 1 and sum(self._slow_s) > MAX_SLOW_S

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
        reorder_s = min(REORDERED_PICTURES * self._distance_s(duration_s), MAX_REORDER_S)
        if self._last_s - reorder_s <= stream_s <= self._last_s + waited_s + reorder_s:
            return stream_s
        stream_s = self._last_s + max(duration_s or waited_s, waited_s)
        self._offset_s = stream_s - pts_s
        return stream_s

    def _distance_s(self, duration_s: float) -> float:
        """Of two pictures: by the rate that the camera names and by arrivals, either of which may be too short."""
        count = len(self._arrivals_s) - 1
        if count < (FEW_PICTURES if duration_s else 1):
            return duration_s
        return max(duration_s, (self._arrivals_s[-1] - self._arrivals_s[0]) / count)
