"""The best N, against a sorted list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.leaderboard import Leaderboard

# Few different scores, so that many are equal.
SCORES = st.lists(st.sampled_from([0.0, 1.5, 99.25, 99.5, 255.0]) | st.floats(0, 255), max_size=60)
SIZES = st.integers(1, 12)


def offered(size: int, scores: list[float]) -> Leaderboard[str]:
    board: Leaderboard[str] = Leaderboard(size)
    for number, score in enumerate(scores, 1):
        board.offer(number, score, f"picture {number}")
    return board


def best(size: int, scores: list[float]) -> list[tuple[int, float, str]]:
    """The plain way: sorted() is stable, so the earlier of equals comes first."""
    entries = [(number, score, f"picture {number}") for number, score in enumerate(scores, 1)]
    return sorted(entries, key=lambda entry: entry[1], reverse=True)[:size]


@given(SIZES, SCORES)
def test_it_holds_the_best_in_order_and_the_earlier_of_equals(size: int, scores: list[float]) -> None:
    board = offered(size, scores)
    assert board.ranking() == best(size, scores)
    assert len(board) == min(size, len(scores))


@given(SIZES, SCORES, st.floats(0, 255))
def test_it_accepts_exactly_what_then_stays(size: int, scores: list[float], score: float) -> None:
    board = offered(size, scores)
    is_accepted = board.accepts(score)
    assert board.offer(len(scores) + 1, score, "new") == is_accepted
    assert ("new" in [value for _, _, value in board.ranking()]) == is_accepted


@given(SIZES, SCORES, SCORES)
def test_one_that_begins_with_what_another_held_goes_on_as_that_one(
    size: int, scores: list[float], later: list[float]
) -> None:
    resumed = Leaderboard(size, offered(size, scores).ranking())
    for number, score in enumerate(later, len(scores) + 1):
        resumed.offer(number, score, f"picture {number}")
    assert resumed.ranking() == best(size, scores + later)


@given(SIZES, SCORES, st.integers(1, 60))
def test_a_replaced_picture_keeps_its_place_and_one_that_left_does_not_come_back(
    size: int, scores: list[float], number: int
) -> None:
    board = offered(size, scores)
    board.replace(number, "saved")
    expected = [(n, s, "saved" if n == number else value) for n, s, value in best(size, scores)]
    assert board.ranking() == expected


def test_an_equal_score_does_not_enter_a_full_board() -> None:
    board = offered(2, [10.0, 20.0])
    assert not board.accepts(10.0)
    assert not board.offer(3, 10.0, "late")
    assert [number for number, _, _ in board.ranking()] == [2, 1]


def test_a_number_is_taken_once() -> None:
    board = offered(3, [1.0])
    with pytest.raises(ValueError, match="already"):
        board.offer(1, 2.0, "again")
    assert len(board) == 1


@pytest.mark.parametrize("size", [0, -1])
def test_it_needs_room_for_one(size: int) -> None:
    with pytest.raises(ValueError, match="room"):
        Leaderboard[str](size)


def test_its_ranking_is_a_copy() -> None:
    board = offered(3, [1.0, 2.0])
    board.ranking().clear()
    assert len(board.ranking()) == 2
