"""Which samples are copies of one picture. Pure.

A camera that freezes goes on sending (advanced-camera-card #1647): its picture, if it is a bright one, would fill the
leaderboard. Two pictures of a sensor are never the same: its noise differs.
"""

from collections.abc import Iterable

# So many copies in a row are no accident: a still from a relay between two streams comes once or twice.
FROZEN_AFTER = 3


class Copies:
    """A picture is known by its score and a fingerprint of some of its pixels."""

    def __init__(self, board: Iterable[tuple[int, float]] = ()) -> None:
        """`board`: (number, score) of samples whose fingerprints nobody remembers."""
        self._board: dict[int, tuple[float, int | None]] = {number: (score, None) for number, score in board}
        self._last: tuple[float, int | None] | None = None
        self._repeats = 0

    @property
    def is_frozen(self) -> bool:
        return self._repeats >= FROZEN_AFTER

    def note(self, score: float, fingerprint: int) -> bool:
        """The next sample; whether it is a copy of the one before or of one on the leaderboard."""
        seen = (score, fingerprint)
        is_repeat = seen == self._last
        self._last = seen
        self._repeats = self._repeats + 1 if is_repeat else 0
        return is_repeat or any(known in (seen, (score, None)) for known in self._board.values())

    def enter(self, number: int, score: float, fingerprint: int) -> None:
        """The sample is on the leaderboard now."""
        self._board[number] = (score, fingerprint)

    def keep(self, numbers: Iterable[int]) -> None:
        """Only these are on the leaderboard still."""
        self._board = {number: self._board[number] for number in numbers if number in self._board}
