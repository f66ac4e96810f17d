"""How long a capture waits after which failure."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.backoff import HEALTHY_S, LADDERS, Backoff
from streams.engine.errors import Retry

RETRIED = [Retry.QUICK, Retry.LATER, Retry.SLOW, Retry.RARE]


def longest() -> Backoff:
    """Draws the upper end of each range: without chance, the ladder itself shows."""
    return Backoff(uniform=lambda low, high: high)


def shortest() -> Backoff:
    return Backoff(uniform=lambda low, high: low)


def waits(backoff: Backoff, retry: Retry, count: int) -> list[float]:
    return [backoff.after(retry) for _ in range(count)]


def test_it_waits_longer_after_each_failure_up_to_a_minute() -> None:
    assert waits(longest(), Retry.QUICK, 9) == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_quick_wait_may_be_none_at_all() -> None:
    assert waits(shortest(), Retry.QUICK, 3) == [0, 0, 0]


@pytest.mark.parametrize(
    ("retry", "steps_s"),
    [
        (Retry.LATER, [30, 60, 120, 240, 300, 300]),
        (Retry.SLOW, [60, 120, 240, 480, 900, 900]),
        (Retry.RARE, [60, 300, 900, 3600, 3600, 3600]),
    ],
)
def test_other_ladders_are_never_quicker_than_their_step(retry: Retry, steps_s: list[float]) -> None:
    assert waits(shortest(), retry, 6) == steps_s
    assert waits(longest(), retry, 6) == [step_s * 1.25 for step_s in steps_s]


def test_a_wrong_password_is_tried_no_more_than_four_times_in_the_first_quarter_of_an_hour() -> None:
    """Cameras lock an account after a handful: attempts at 0 s, 60 s, 180 s and 420 s, at the earliest."""
    assert sum(waits(shortest(), Retry.SLOW, 4)) >= 15 * 60


def test_a_healthy_minute_begins_the_ladder_anew() -> None:
    backoff = longest()
    waits(backoff, Retry.QUICK, 5)
    assert backoff.after(Retry.QUICK, healthy_s=HEALTHY_S) == 1
    assert backoff.after(Retry.QUICK) == 2


def test_almost_a_healthy_minute_does_not() -> None:
    backoff = longest()
    waits(backoff, Retry.QUICK, 3)
    assert backoff.after(Retry.QUICK, healthy_s=HEALTHY_S - 0.1) == 8


def test_another_kind_of_failure_begins_its_ladder_at_the_foot() -> None:
    backoff = shortest()
    waits(backoff, Retry.QUICK, 5)
    assert waits(backoff, Retry.SLOW, 2) == [60, 120]


def test_attempts_are_counted_from_the_foot_of_the_ladder() -> None:
    backoff = longest()
    waits(backoff, Retry.QUICK, 3)
    assert backoff.attempt == 3
    backoff.after(Retry.SLOW)
    assert backoff.attempt == 1


@pytest.mark.parametrize("retry", RETRIED)
@pytest.mark.parametrize("attempts", [1, 3, 50])
def test_who_goes_on_where_another_one_was_waits_as_that_one_would_have(retry: Retry, attempts: int) -> None:
    first, second = longest(), longest()
    waits(first, retry, attempts)
    second.resume(retry, first.attempt)
    assert waits(second, retry, 3) == waits(first, retry, 3)
    assert second.attempt == first.attempt == attempts + 3


def test_what_is_never_retried_has_no_wait() -> None:
    with pytest.raises(ValueError, match="never"):
        Backoff().after(Retry.NEVER)


def test_the_longest_capture_has_a_wait_too() -> None:
    assert waits(longest(), Retry.QUICK, 2000)[-1] == 60


@given(st.lists(st.tuples(st.sampled_from(RETRIED), st.floats(0, 1e6)), max_size=40), st.randoms())
def test_every_wait_is_within_its_ladder(failures: list[tuple[Retry, float]], chance: random.Random) -> None:
    backoff = Backoff(uniform=chance.uniform)
    for retry, healthy_s in failures:
        first_s, *_, longest_s = LADDERS[retry]
        wait_s = backoff.after(retry, healthy_s)
        assert (0 if retry is Retry.QUICK else first_s) <= wait_s <= longest_s * 1.25


def test_many_captures_do_not_return_at_once() -> None:
    chance = random.Random(1)
    drawn = [Backoff(uniform=chance.uniform).after(Retry.QUICK) for _ in range(400)]
    assert sum(wait_s < 0.25 for wait_s in drawn) == pytest.approx(100, abs=40)
    assert max(drawn) <= 1
