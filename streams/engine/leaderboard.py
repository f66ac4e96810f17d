"""The best N samples so far. Pure."""

import bisect
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Leaderboard(Generic[T]):
    """At most `size` entries, highest score first; on equal scores the earlier sample stays and leads.

    A sample is known by its number, which grows with time over the whole capture.
    """

    def __init__(self, size: int, entries: Iterable[tuple[int, float, T]] = ()) -> None:
        if size < 1:
            raise ValueError("a leaderboard needs room for one sample at least")
        self.size = size
        self._keys: list[tuple[float, int]] = []
        self._values: dict[int, T] = {}
        for number, score, value in entries:
            self.offer(number, score, value)

    def __len__(self) -> int:
        return len(self._keys)

    def accepts(self, score: float) -> bool:
        """Whether a later sample of this score would enter."""
        return len(self) < self.size or -score < self._keys[-1][0]

    def offer(self, number: int, score: float, value: T) -> bool:
        """Enter a sample if it is good enough; whether it stayed."""
        if number in self._values:
            raise ValueError(f"sample {number} is on the leaderboard already")
        bisect.insort(self._keys, (-score, number))
        self._values[number] = value
        if len(self._keys) > self.size:
            del self._values[self._keys.pop()[1]]
        return number in self._values

    def replace(self, number: int, value: T) -> None:
        """Give a sample another value at the same place; nothing happens if it has left the leaderboard."""
        if number in self._values:
            self._values[number] = value

    def ranking(self) -> list[tuple[int, float, T]]:
        """(number, score, value), best first."""
        return [(number, -key, self._values[number]) for key, number in self._keys]
