"""Stream time follows timestamps as long as they can be believed, and arrivals when not."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.stream_clock import MAX_DRIFT_S, MAX_REORDER_S, MAX_STEP_S, StreamClock


def times(*pictures: tuple[float, float], duration_s: float = 0.1) -> list[float]:
    """Stream times of pictures given as timestamp and arrival."""
    clock = StreamClock()
    return [clock.at(pts_s, arrived_s, duration_s) for pts_s, arrived_s in pictures]


@pytest.mark.parametrize("pts_s", [0.0, 500.0, -500.0, 1e12])
def test_stream_time_begins_at_zero(pts_s: float) -> None:
    assert times((pts_s, 77.0)) == [0.0]


def test_it_takes_no_notice_of_jitter_in_arrivals() -> None:
    assert times((5.0, 0.0), (5.1, 0.3), (5.2, 0.31), (5.3, 0.32)) == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_a_step_back_is_re_ordering() -> None:
    assert times((5.0, 0.0), (5.3, 0.1), (5.1, 0.2), (5.2, 0.3)) == pytest.approx([0.0, 0.3, 0.1, 0.2])


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, 2.0, -2.0, 1e12])
def test_a_jump_is_as_long_as_a_picture(jump_s: float) -> None:
    pictures = ((5.0, 0.0), (5.1, 0.1), (5.2 + jump_s, 0.2), (5.3 + jump_s, 0.3))
    assert times(*pictures) == pytest.approx([0.0, 0.1, 0.2, 0.3], abs=1e-3)


def test_a_jump_of_pictures_without_a_duration_is_as_long_as_the_wait() -> None:
    assert times((5.0, 0.0), (99.0, 0.4), (99.1, 0.5), duration_s=0.0) == pytest.approx([0.0, 0.4, 0.5])


def test_a_jump_after_a_pause_is_as_long_as_the_pause() -> None:
    assert times((5.0, 0.0), (99.0, 5.0), (99.1, 5.1)) == pytest.approx([0.0, 5.0, 5.1])


def test_a_pause_that_both_clocks_saw_is_none_of_the_arrivals_business() -> None:
    assert times((5.0, 0.0), (13.0, 8.2), (13.1, 8.3)) == pytest.approx([0.0, 8.0, 8.1])


def test_a_jump_while_frames_are_re_ordered_counts_from_the_latest() -> None:
    pictures = ((5.0, 0.0), (5.3, 0.1), (5.1, 0.2), (99.0, 0.3))
    assert times(*pictures) == pytest.approx([0.0, 0.3, 0.1, 0.4])


def test_steps_ahead_within_the_limit_are_believed_and_beyond_are_not() -> None:
    within, beyond = MAX_STEP_S - 0.01, MAX_STEP_S + 0.01
    assert times((0.0, 0.0), (0.1 + within, 0.1)) == pytest.approx([0.0, 0.1 + within])
    assert times((0.0, 0.0), (0.11 + beyond, 0.1)) == pytest.approx([0.0, 0.1])
    assert times((0.0, 0.0), (1.0, 1.0), (1.0 - within, 1.1)) == pytest.approx([0.0, 1.0, 1.0 - within])
    assert times((0.0, 0.0), (1.0, 1.0), (1.0 - beyond, 1.1)) == pytest.approx([0.0, 1.0, 1.1])


def reordered(count: int) -> list[int]:
    """Numbers of presentation in order of decoding: three B-frames between two others, the middle one first."""
    return [0, *(top + step for top in range(0, count, 4) for step in (4, 2, 1, 3))]


@pytest.mark.parametrize("duration", [0.0, 1.0])
@pytest.mark.parametrize("fps", [25, 2, 1, 0.5])
def test_steps_of_re_ordering_are_longer_where_pictures_are_far_apart(fps: float, duration: float) -> None:
    """Row 46. Sent one by one, or all at once when the last of them is filmed. `duration`: 0 if no rate is told."""
    shown = reordered(40)
    expected = pytest.approx([number / fps for number in shown])
    steady = [(number / fps, index / fps) for index, number in enumerate(shown)]
    assert times(*steady, duration_s=duration / fps) == expected
    live = [(number / fps, max(shown[: index + 1]) / fps) for index, number in enumerate(shown)]
    assert times(*live, duration_s=duration / fps) == expected


def test_a_jump_among_pictures_that_are_far_apart_is_one_all_the_same() -> None:
    steady = [(float(number), float(index)) for index, number in enumerate(reordered(20))]
    jumped = [(pts_s + 21.0 + 2 * MAX_REORDER_S, arrived_s + 21.0) for pts_s, arrived_s in steady]
    assert max(times(*steady, *jumped, duration_s=0.0)) == pytest.approx(41.0, abs=4.0)


@pytest.mark.parametrize("speed", [0.0, 0.25, 4.0])
def test_timestamps_that_run_at_another_speed_are_given_up(speed: float) -> None:
    clock = StreamClock()
    arrivals_s = [index / 10 for index in range(1000)]
    stream_s = [clock.at(speed * arrived_s, arrived_s, 0.1) for arrived_s in arrivals_s]
    assert not clock.trusts_timestamps
    drifts_s = [at_s - arrived_s for at_s, arrived_s in zip(stream_s, arrivals_s, strict=True)]
    assert max(map(abs, drifts_s)) <= MAX_DRIFT_S + 1
    assert drifts_s[-1] == pytest.approx(drifts_s[-100])  # from then on it keeps pace


@pytest.mark.parametrize(("distance_s", "believed"), [(12.0, 2), (3.0, 2), (1.0, 6)])
def test_timestamps_that_crawl_are_given_up_at_once(distance_s: float, believed: int) -> None:
    """A slow camera that counts pictures in them."""
    told = times(*((0.1 * number, distance_s * number) for number in range(9)))
    steps_s = [after - before for before, after in itertools.pairwise(told)]
    assert steps_s == pytest.approx([0.1] * (believed - 1) + [distance_s] * (9 - believed))


def test_timestamps_that_catch_up_after_a_stall_are_believed() -> None:
    """Twenty seconds in which the network gives all there is once in four."""
    pictures = [(0.1 * number, 4.0 * (number // 40)) for number in range(200)]
    assert times(*pictures) == pytest.approx([pts_s for pts_s, _ in pictures])


def test_steady_timestamps_are_never_given_up() -> None:
    """An hour at a frame rate whose durations are rounded, with arrivals that come in bursts of a second."""
    clock = StreamClock()
    for index in range(25 * 3600):
        at_s = clock.at(index / 25, index // 25 + 1.0, 0.04)
    assert at_s == pytest.approx(3600 - 1 / 25)
    assert clock.trusts_timestamps


def test_a_burst_at_the_start_is_no_reason_for_mistrust() -> None:
    """A relay sends its last group of pictures at once: 10 s of them."""
    clock = StreamClock()
    stream_s = [clock.at(index / 10, max(0.0, index / 10 - 10.0), 0.1) for index in range(600)]
    assert stream_s == pytest.approx([index / 10 for index in range(600)])
    assert clock.trusts_timestamps


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0.0, 9.0), st.floats(0.0, 2.0)), min_size=1, max_size=60))
def test_it_never_leaves_the_time_of_arrivals_far_behind(steps: list[tuple[float, float, float]]) -> None:
    """Whatever is claimed: by MAX_DRIFT_S, and then by no more than the picture's own pause, duration and jitter."""
    clock, arrived_s = StreamClock(), 0.0
    for pts_s, waited_s, duration_s in steps:
        arrived_s += waited_s
        drift_s = clock.at(pts_s, arrived_s, duration_s) - (arrived_s - steps[0][1])
        assert abs(drift_s) <= MAX_DRIFT_S + 9.0 + 2.0 + MAX_REORDER_S
