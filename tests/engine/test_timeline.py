"""What is remembered of a capture's brightness: all of a short one, the extremes of a long one, in bounded space."""

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.engine.timeline import MAX_AT, MAX_BUCKETS, MAX_BYTES, MIN_WIDTH_S, Bucket, Timeline

BEGAN_AT = 1_790_000_000.0
SCORES = st.floats(0.0, 255.0)
LATER = st.floats(0.0, 1e7)
EVENTS = st.lists(st.tuples(LATER, st.one_of(SCORES, st.none(), st.sampled_from(["stalled", "closed"]))), max_size=50)


def filled(*scores: float, every_s: float = 1.0, interval_s: float = 1.0) -> Timeline:
    timeline = Timeline.of_interval(BEGAN_AT, interval_s)
    for number, score in enumerate(scores):
        timeline.note_sample(BEGAN_AT + number * every_s, score)
    return timeline


def buckets(timeline: Timeline) -> list[Bucket]:
    return [bucket for _, bucket in timeline]


def encoded(**changes: Any) -> str:
    """What one sample leaves, with changes."""
    return json.dumps({**json.loads(filled(7.0).encode()), **changes})


def test_ten_minutes_of_samples_are_each_remembered_where_they_came() -> None:
    scores = [float(n % 256) for n in range(600)]
    timeline = filled(*scores)
    assert [(bucket.low, bucket.high, bucket.samples) for bucket in buckets(timeline)] == [(s, s, 1) for s in scores]
    moments = [at - BEGAN_AT for at, _ in timeline]
    assert moments == pytest.approx(range(600), abs=timeline.width_s)


def test_samples_that_come_early_or_late_do_not_share_a_bucket() -> None:
    timeline = Timeline.of_interval(BEGAN_AT, 1.0)
    for number in range(40):
        timeline.note_sample(BEGAN_AT + number + (0.3 if number % 2 else 0.0), 100.0)
    assert [bucket.samples for bucket in buckets(timeline)] == [1] * 40


def test_a_long_capture_keeps_its_extremes_and_its_counts() -> None:
    timeline = filled(*(50.0 + (n % 7) for n in range(20_000)), 255.0, 0.0)
    assert MAX_BUCKETS / 2 < len(buckets(timeline)) <= MAX_BUCKETS
    assert timeline.samples == 20_002
    assert {bucket.low for bucket in buckets(timeline)[:-1]} == {50.0}
    assert {bucket.high for bucket in buckets(timeline)[:-1]} == {56.0}
    assert (buckets(timeline)[-1].low, buckets(timeline)[-1].high) == (0.0, 255.0)


def test_what_went_wrong_and_each_new_connection_is_remembered_with_its_moment() -> None:
    timeline = Timeline.of_interval(BEGAN_AT, 1.0)
    timeline.note_connection(BEGAN_AT)
    timeline.note_error(BEGAN_AT + 10, "stalled")
    timeline.note_error(BEGAN_AT + 10, "closed")
    timeline.note_connection(BEGAN_AT + 10.01)
    found = [(round(at - BEGAN_AT), bucket.connections, bucket.error_code) for at, bucket in timeline]
    assert found == [(0, 1, ""), (10, 1, "closed")]


def test_merging_loses_no_connection_and_no_error() -> None:
    timeline = filled(*[9.0] * 300)
    timeline.note_error(BEGAN_AT + 300, "timeout")
    for number in range(2000):
        timeline.note_connection(BEGAN_AT + 301 + number)
    assert sum(bucket.connections for bucket in buckets(timeline)) == 2000
    assert [bucket.error_code for bucket in buckets(timeline) if bucket.error_code] == ["timeout"]


def test_a_clock_that_is_set_back_or_far_forward_loses_nothing() -> None:
    timeline = filled(1.0, 2.0)
    timeline.note_sample(BEGAN_AT - 86_400, 3.0)
    timeline.note_sample(BEGAN_AT + 1e9, 4.0)
    for number in range(MAX_BUCKETS):
        timeline.note_sample(BEGAN_AT + number, 5.0)
    assert timeline.samples == Timeline.decode(timeline.encode()).samples == 4 + MAX_BUCKETS
    assert max(bucket.high for bucket in buckets(timeline)) == 5.0
    assert min(bucket.low for bucket in buckets(timeline)) == 1.0


@pytest.mark.parametrize(("interval_s", "width_s"), [(0.1, MIN_WIDTH_S), (1.0, 1 / 32), (86_400.0, 2_700.0)])
def test_its_buckets_are_as_fine_as_the_interval(interval_s: float, width_s: float) -> None:
    assert Timeline.of_interval(BEGAN_AT, interval_s).width_s == width_s


@given(EVENTS, st.sampled_from([0.1, 1.0, 86_400.0]))
def test_what_is_saved_comes_back(events: list[tuple[float, float | str | None]], interval_s: float) -> None:
    timeline = Timeline.of_interval(BEGAN_AT, interval_s)
    for later_s, event in events:
        if event is None:
            timeline.note_connection(BEGAN_AT + later_s)
        elif isinstance(event, str):
            timeline.note_error(BEGAN_AT + later_s, event)
        else:
            timeline.note_sample(BEGAN_AT + later_s, event)
    again = Timeline.decode(timeline.encode())
    assert (again.began_at, again.width_s, again.samples) == (timeline.began_at, timeline.width_s, timeline.samples)
    for (at, bucket), (at_again, bucket_again) in zip(timeline, again, strict=True):
        assert at_again == at
        assert (bucket_again.connections, bucket_again.error_code) == (bucket.connections, bucket.error_code)
        if bucket.samples:
            assert bucket_again.low == pytest.approx(bucket.low, abs=0.006)
            assert bucket_again.high == pytest.approx(bucket.high, abs=0.006)


def test_the_next_recorder_goes_on_in_the_same_buckets() -> None:
    timeline = Timeline.decode(filled(*[10.0] * 700).encode())
    timeline.note_sample(BEGAN_AT + 700, 20.0)
    assert timeline.samples == 701
    assert [at for at, _ in timeline] == sorted(at for at, _ in timeline)
    assert buckets(timeline)[-1].high == 20.0


def test_the_longest_one_is_short_enough_to_be_read() -> None:
    timeline = Timeline.of_interval(BEGAN_AT, 1.0)
    for number in range(MAX_BUCKETS):
        timeline.note_sample(BEGAN_AT + 1e9 + number, 123.456)
        timeline.note_error(BEGAN_AT + 1e9 + number, "x" * 32)
    text = timeline.encode()
    assert len(text) < MAX_BYTES / 2
    assert Timeline.decode(text).samples == MAX_BUCKETS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        "{}",
        "{" * 100_000,
        "[" * 100_000,
        encoded(began_at="x"),
        encoded(began_at=-1),
        encoded(began_at=MAX_AT),
        encoded(began_at=math.nan),
        encoded(width_s=0),
        encoded(width_s=-1),
        encoded(width_s=1e-320),
        encoded(width_s=MIN_WIDTH_S / 2),
        encoded(width_s=math.inf),
        encoded(width_s=True),
        encoded(buckets=7),
        encoded(buckets=[7]),
        encoded(buckets=[[]]),
        encoded(buckets=[[1]]),
        encoded(buckets=[[-1, 1, 0, 0]]),
        encoded(buckets=[[1.5, 1, 0, 0]]),
        encoded(buckets=[[1 << 52, 1, 0, 0]]),
        encoded(buckets=[[1, -1, 0, 0]]),
        encoded(buckets=[[1, True, 0, 0]]),
        encoded(buckets=[[1, 1, math.nan, 0]]),
        encoded(buckets=[[1, 1, 9, 8]]),
        encoded(buckets=[[1, 1, -1, 8]]),
        encoded(buckets=[[1, 1, 9, 256]]),
        encoded(buckets=[[1, 1, 0, math.inf]]),
        encoded(buckets=[[1, 1, 0, 0, -1, ""]]),
        encoded(buckets=[[1, 1, 0, 0, 0, 7]]),
        encoded(buckets=[[1, 1, 0, 0, 0, "x" * 33]]),
        encoded(buckets=[[1, 1, 0, 0, 0, "", 0]]),
        encoded(buckets=[[n, 1, 0, 0] for n in range(MAX_BUCKETS + 1)]),
        encoded(more=" " * MAX_BYTES),
    ],
)
def test_what_is_no_timeline_is_refused(text: str) -> None:
    assert Timeline.decode(encoded()).samples == 1
    with pytest.raises(ValueError, match=r"timeline|range|none|Expecting|column"):
        Timeline.decode(text)


@given(st.recursive(st.none() | st.integers() | st.floats() | st.text(max_size=4), st.lists, max_leaves=8))
@example([[0, 1, 5, 3]])
def test_nothing_but_a_refusal_comes_of_garbage(rows: Any) -> None:
    text = encoded(buckets=rows)
    try:
        timeline = Timeline.decode(text)
    except ValueError:
        return
    assert Timeline.decode(timeline.encode()).samples == timeline.samples
