"""How far apart a camera's pictures come, over the connections of one capture. Pure."""

from collections import deque

REMEMBERED = 4


class Pace:
    def __init__(self) -> None:
        self._distances_s: deque[float] = deque(maxlen=REMEMBERED)
        self._last_s: float | None = None

    def begin(self) -> None:
        """A connection begins: what lies between it and the one before is no distance."""
        self._last_s = None

    def note(self, arrived_s: float) -> None:
        """A picture came at this moment of the monotonic clock."""
        if self._last_s is not None:
            self._distances_s.append(arrived_s - self._last_s)
        self._last_s = arrived_s

    def note_silence(self, silent_s: float) -> None:
        """Nothing came for so long. A camera whose distances are unknown may be that slow."""
        if not self._distances_s:
            self._distances_s.append(silent_s)

    @property
    def longest_s(self) -> float | None:
        """The longest of the last four distances; None as long as none is known."""
        return max(self._distances_s) if self._distances_s else None
