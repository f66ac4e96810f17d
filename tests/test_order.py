"""The order of the tests: nothing is lost, and no worker has all that waits."""

import pytest

from tests.order import TAIL, spread

# Files by name: "s" has slow tests.
FILES = {"q1": 70, "s1": 5, "s2": 3, "s3": 9, "q2": 40, "s4": 1, "q3": 89, "s5": 4}
ITEMS = [(name, number) for name, count in FILES.items() for number in range(count)]


def ordered(workers: int) -> list[tuple[str, int]]:
    return spread(ITEMS, workers, lambda item: item[0], lambda item: item[0].startswith("s"))


def stretches(workers: int) -> list[list[tuple[str, int]]]:
    """As xdist cuts the list."""
    left, found = ordered(workers), []
    for worker in range(workers):
        size = len(left) // (workers - worker)
        found.append(left[:size])
        left = left[size:]
    return found


@pytest.mark.parametrize("workers", [1, 2, 3, 6, 40])
def test_each_test_is_there_once_and_files_stay_in_order(workers: int) -> None:
    assert sorted(ordered(workers)) == sorted(ITEMS)
    for name, count in FILES.items():
        assert [number for file, number in ordered(workers) if file == name] == list(range(count))


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_slow_files_are_whole_and_spread(workers: int) -> None:
    each = [{name for name, _ in stretch if name.startswith("s")} for stretch in stretches(workers)]
    assert max(map(len, each)) - min(map(len, each)) <= 1
    assert sum(map(len, each)) == len({name for name in FILES if name.startswith("s")})


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_a_stretch_ends_with_quick_ones(workers: int) -> None:
    for stretch in stretches(workers):
        tail = stretch[-int(len(stretch) * TAIL / 2) :]
        assert not any(name.startswith("s") for name, _ in tail)
