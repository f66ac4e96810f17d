"""What is measured, in which order."""

from itertools import count

import pytest

from bench.plan import (
    CONTENDERS,
    COPY,
    FPS_1,
    LOOK,
    OPENCV_1,
    OPENCV_10,
    SERVICE_1,
    SERVICE_10,
    fitting,
    full_plan,
    narrowed,
    quick_plan,
)
from bench.run import samples_of


def test_in_each_round_the_decisive_pairs_take_turns() -> None:
    rounds = [[step.contender for step in full_plan(3) if step.round == number] for number in (1, 2, 3)]
    for contenders in rounds:
        at = contenders.index(SERVICE_10)
        assert contenders[at : at + 6] == [SERVICE_10, COPY, OPENCV_10, SERVICE_1, FPS_1, OPENCV_1]


def test_every_contender_is_first_measured_alone() -> None:
    plan = full_plan(3)
    alone = plan[: plan.index(next(step for step in plan if step.streams != (1,)))]
    assert {step.contender for step in alone} == set(CONTENDERS) - {OPENCV_1}, "as dear as OPENCV_10"
    assert {step.round for step in alone if step.contender.command is None} == {LOOK}


def test_a_window_holds_whole_intervals_of_ten_seconds() -> None:
    steps = [step for step in full_plan(3) if step.contender is SERVICE_10 and step.round != LOOK]
    assert {step.seconds for step in steps} == {60}
    assert all(step.is_filled for step in steps)


def test_all_windows_together_leave_time_within_forty_minutes() -> None:
    windows_s = sum(len(step.streams) * step.seconds for step in full_plan(2))
    fills_s = sum(230 if step.contender is SERVICE_10 else 46 for step in full_plan(2) if step.is_filled)
    assert windows_s + fills_s < 30 * 60


def test_a_quick_look_has_every_contender() -> None:
    assert {step.contender for step in quick_plan()} == set(CONTENDERS)


def test_the_command_line_narrows_the_plan() -> None:
    steps = narrowed(full_plan(2), ["copy", "service 10"], (2, 4), 7)
    assert {(step.contender, step.round) for step in steps} == {
        (one, number) for one in (SERVICE_10, COPY) for number in (1, 2)
    }
    assert len(steps) == 4
    assert {(step.streams, step.seconds) for step in steps} == {((4, 2), 7)}


def test_a_plan_that_is_not_narrowed_stays_as_it_is() -> None:
    plan = full_plan(2)
    assert narrowed(plan, [], None, None) == plan


@pytest.mark.parametrize(
    ("cpu_per_stream", "cores", "expected"),
    [(0.0, 4, 32), (0.25, 4, 13), (0.25, 2, 6), (0.1, 4, 32), (9.0, 4, 1)],
)
def test_only_so_many_streams_as_the_machine_carries(cpu_per_stream: float, cores: int, expected: int) -> None:
    assert fitting(32, cpu_per_stream, cores) == expected


@pytest.mark.parametrize(
    ("film_s", "interval_s"), [(60.0, 10.0), (64.02, 10.0), (7.0, 10.0), (61.0, 1.0), (12.0, 8.0)]
)
def test_a_leaderboard_is_filled_once_the_same_samples_come_again(film_s: float, interval_s: float) -> None:
    """But not before it has nine."""
    whole_s = round(film_s)
    again = next(number for number in count(1) if number * interval_s % whole_s == 0)
    assert samples_of(film_s, interval_s) == max(9, again)
