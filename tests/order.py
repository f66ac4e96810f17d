"""In which order the tests run, where several workers share them."""

from collections.abc import Callable, Hashable, Sequence
from itertools import groupby
from typing import TypeVar

T = TypeVar("T")
# What is left for the end of a worker's stretch, to be taken by whoever is done before it.
TAIL = 0.3


def spread(items: Sequence[T], workers: int, group: Callable[[T], Hashable], is_slow: Callable[[T], bool]) -> list[T]:
    """The same items, with the slow groups spread over the workers' stretches, and over the first part of each.

    Slow tests mostly wait: side by side they leave the cores idle, and at the end the workers. Groups stay together,
    as their tests share what was started for them; quick ones are cut where a stretch is full.
    """
    slow = [list(those) for is_one, those in _groups(items, group, is_slow) if is_one]
    quick = [item for is_one, those in _groups(items, group, is_slow) if not is_one for item in those]
    ordered: list[T] = []
    for worker in range(workers):
        size = (len(items) - len(ordered)) // (workers - worker)
        mine = slow[worker::workers]
        room = max(0, size - sum(map(len, mine)))
        ordered += _alternated(mine, quick[:room], is_slow_first=worker % 2 == 0)
        del quick[:room]
    return ordered + quick


def _groups(
    items: Sequence[T], group: Callable[[T], Hashable], is_slow: Callable[[T], bool]
) -> list[tuple[bool, list[T]]]:
    return [(is_slow(those[0]), those) for those in (list(found) for _, found in groupby(items, group))]


def _alternated(slow: Sequence[Sequence[T]], quick: Sequence[T], *, is_slow_first: bool) -> list[T]:
    step = int(len(quick) * (1 - TAIL)) // max(1, len(slow))
    ordered: list[T] = []
    for index, those in enumerate(slow):
        between = quick[index * step : (index + 1) * step]
        ordered += [*those, *between] if is_slow_first else [*between, *those]
    return ordered + list(quick[len(slow) * step :])
