"""Wanted against running, as a pure plan."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.backoff import HEALTHY_S
from streams.engine.errors import OutOfMemory
from streams.queries import Wanted
from streams.supervisor import Plan, Running, _Restart, plan


def want(capture_id: int = 1, *, epoch: int = 1, is_stopping: bool = False) -> Wanted:
    return Wanted(capture_id, epoch, is_stopping)


@pytest.mark.parametrize(
    ("wanted", "running", "waiting", "expected"),
    [
        pytest.param([], {}, set(), Plan(), id="nothing"),
        pytest.param([want()], {}, set(), Plan(start=(want(),)), id="claimed: start"),
        pytest.param([want()], {1: Running(1)}, set(), Plan(), id="runs: leave it alone"),
        pytest.param([want()], {}, {1}, Plan(), id="waiting: not yet"),
        pytest.param([want()], {1: Running(1)}, {1}, Plan(), id="waiting and running: leave it alone"),
        pytest.param([], {1: Running(1)}, set(), Plan(drop=(1,)), id="claim lost: drop"),
        pytest.param([], {1: Running(1, is_leaving=True)}, set(), Plan(drop=(1,)), id="lost while leaving: drop"),
        pytest.param([want(epoch=2)], {1: Running(1)}, set(), Plan(drop=(1,)), id="claimed anew: drop first"),
        pytest.param([want(is_stopping=True)], {1: Running(1)}, set(), Plan(leave=(1,)), id="stopped: leave"),
        pytest.param([want(is_stopping=True)], {1: Running(1, True)}, set(), Plan(), id="leaving: told once"),
        pytest.param(
            [want(is_stopping=True)], {}, set(), Plan(hand_over=(want(is_stopping=True),)), id="stopped, no recorder"
        ),
        pytest.param(
            [want(is_stopping=True)], {}, {1}, Plan(hand_over=(want(is_stopping=True),)), id="stopped while waiting"
        ),
        pytest.param(
            [want(epoch=2, is_stopping=True)], {1: Running(1)}, set(), Plan(drop=(1,)), id="stopped, an old recorder"
        ),
        pytest.param(
            [want(3), want(1), want(2, is_stopping=True), want(5)],
            {2: Running(1), 4: Running(1), 5: Running(1)},
            {1},
            Plan(drop=(4,), leave=(2,), start=(want(3),)),
            id="all at once",
        ),
    ],
)
def test_the_plan(wanted: list[Wanted], running: dict[int, Running], waiting: set[int], expected: Plan) -> None:
    assert plan(wanted, running, waiting) == expected


ids = st.integers(1, 8)
wanteds = st.lists(st.builds(Wanted, ids, st.integers(1, 3), st.booleans()), unique_by=lambda row: row.capture_id)
runnings = st.dictionaries(ids, st.builds(Running, st.integers(1, 3), st.booleans()))
waitings = st.frozensets(ids)


def apply(todo: Plan, wanted: list[Wanted], running: dict[int, Running]) -> tuple[list[Wanted], dict[int, Running]]:
    """What is there once the plan is carried out: recorders that leave are gone later, not at once."""
    after = {pk: recorder for pk, recorder in running.items() if pk not in todo.drop}
    after |= {pk: replace(after[pk], is_leaving=True) for pk in todo.leave}
    after |= {row.capture_id: Running(row.epoch) for row in todo.start}
    return [row for row in wanted if row not in todo.hand_over], after


@given(wanteds, runnings, waitings)
def test_no_capture_is_in_two_parts_of_a_plan(
    wanted: list[Wanted], running: dict[int, Running], waiting: frozenset[int]
) -> None:
    todo = plan(wanted, running, waiting)
    named = [*todo.drop, *todo.leave, *(row.capture_id for row in (*todo.hand_over, *todo.start))]
    assert len(named) == len(set(named))


@given(wanteds, runnings, waitings)
def test_a_plan_carried_out_leaves_nothing_to_do_but_to_start_what_was_dropped(
    wanted: list[Wanted], running: dict[int, Running], waiting: frozenset[int]
) -> None:
    first = plan(wanted, running, waiting)
    wanted, running = apply(first, wanted, running)
    second = plan(wanted, running, waiting)
    assert (second.drop, second.leave) == ((), ())
    assert {row.capture_id for row in (*second.start, *second.hand_over)} <= set(first.drop)
    assert plan(*apply(second, wanted, running), waiting) == Plan()


@given(wanteds, runnings)
def test_in_the_end_what_runs_is_what_is_wanted(wanted: list[Wanted], running: dict[int, Running]) -> None:
    for _ in range(2):
        wanted, running = apply(plan(wanted, running), wanted, running)
    assert {pk: recorder.epoch for pk, recorder in running.items()} == {row.capture_id: row.epoch for row in wanted}
    assert all(running[row.capture_id].is_leaving for row in wanted if row.is_stopping)


@given(wanteds, runnings, waitings)
def test_only_what_holds_its_claim_is_told_anything(
    wanted: list[Wanted], running: dict[int, Running], waiting: frozenset[int]
) -> None:
    rows = {row.capture_id: row for row in wanted}
    todo = plan(wanted, running, waiting)
    assert all(rows[pk].epoch == running[pk].epoch and rows[pk].is_stopping for pk in todo.leave)
    assert all(pk not in rows or rows[pk].epoch != running[pk].epoch for pk in todo.drop)
    assert all(row.capture_id not in running and row in wanted for row in (*todo.start, *todo.hand_over))
    assert not waiting & {row.capture_id for row in todo.start}
    assert not [row for row in todo.start if row.is_stopping]


# --- when a recorder that died is replaced --------------------------------------------------------


def waits_of(deaths: list[float]) -> list[float]:
    """Seconds until the next recorder, after recorders that had lived so long; each wait is its step's longest."""
    restart, waits = _Restart(), []
    for lived_s in deaths:
        if restart.backoff:
            restart.backoff.uniform = lambda low, high: high
        restart.note_death(1000.0, lived_s)
        waits.append(restart.at_s - 1000.0)
    return waits


def test_the_first_death_is_replaced_at_once_and_the_next_ones_later_and_later() -> None:
    assert waits_of([5.0] * 9) == [0, 1, 2, 4, 8, 16, 32, 60, 60]


def test_a_recorder_that_lived_for_a_minute_is_replaced_at_once_again() -> None:
    assert waits_of([5.0, 5.0, 5.0, HEALTHY_S, 5.0, HEALTHY_S - 0.1]) == [0, 1, 2, 0, 1, 2]


def test_one_that_met_its_memory_limit_is_not_replaced_at_once() -> None:
    """Not the first time either: its camera would take it there again."""
    restart = _Restart()
    waits = []
    for _ in range(3):
        restart.note_death(1000.0, 5.0, OutOfMemory.retry)
        waits.append(restart.at_s - 1000.0)
    assert 60.0 <= waits[0] < waits[1] < waits[2]
