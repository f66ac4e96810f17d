"""The picture of a capture's brightness: where its lines, gaps and marks are, and what it says in words."""

import itertools
import re
from datetime import UTC, datetime, timedelta

import pytest
from django.template.loader import render_to_string

from streams.chart import GAPS_TOLD, HEIGHT_PX, Chart, chart
from streams.engine.timeline import Timeline
from streams.models import Capture, Frame
from tests.streams.builders import NOON
from tests.streams.html import read

MOMENT = datetime.fromtimestamp(NOON, UTC)  # 14:13:20


def a_capture(lasted_s: float | None = None, interval_s: float = 1.0, last_sample_s: float | None = None) -> Capture:
    return Capture(
        started_at=MOMENT,
        stop_requested_at=later(lasted_s),
        finished_at=later(lasted_s),
        interval_s=interval_s,
        last_sample_at=later(last_sample_s),
    )


def later(seconds: float | None) -> datetime | None:
    return None if seconds is None else MOMENT + timedelta(seconds=seconds)


def a_frame(later_s: float, score: float) -> Frame:
    return Frame(captured_at=MOMENT + timedelta(seconds=later_s), score=score)


def a_timeline(samples: dict[float, float], interval_s: float = 1.0) -> Timeline:
    """Seconds after the start, and the scores."""
    timeline = Timeline.of_interval(NOON, interval_s)
    timeline.note_connection(NOON)
    for later_s, score in samples.items():
        timeline.note_sample(NOON + later_s, score)
    return timeline


def drawn(
    timeline: Timeline | None,
    *frames: Frame,
    lasted_s: float | None = 60.0,
    interval_s: float = 1.0,
    now_s: float = 60.0,
) -> Chart:
    found = chart(a_capture(lasted_s, interval_s), frames, timeline, MOMENT + timedelta(seconds=now_s))
    assert found is not None
    return found


def places(path: str) -> list[list[tuple[float, float]]]:
    """Of each piece of a path, its points."""
    pieces = [piece.rstrip("Z").split("L") for piece in path.split("M")[1:]]
    return [[(float(x), float(y)) for x, y in (place.split(" ") for place in piece)] for piece in pieces]


MINUTE = {float(n): 100.0 + n for n in range(60)}


def test_there_is_nothing_to_draw_without_samples_and_frames() -> None:
    assert chart(a_capture(), [], None, MOMENT) is None
    assert chart(a_capture(), [], a_timeline({}), MOMENT) is None


def test_every_sample_is_on_the_line_at_its_time_and_height() -> None:
    [points] = places(drawn(a_timeline(MINUTE)).line)
    assert [x for x, _ in points] == pytest.approx([1000 * (n + 1 / 64) / 60 for n in range(60)], abs=0.1)
    heights = [y for _, y in points]
    assert heights == sorted(heights, reverse=True)
    assert all(0 < y < HEIGHT_PX for y in heights)
    steps = [low - high for low, high in itertools.pairwise(heights)]
    assert steps == pytest.approx([steps[0]] * 59, abs=0.11)


def test_a_frame_lies_on_the_line_where_it_was_chosen() -> None:
    found = drawn(a_timeline(MINUTE), a_frame(59.0, 159.0), a_frame(58.0, 158.0))
    [points] = places(found.line)
    assert [dot.is_best for dot in found.frames] == [False, True]
    for dot, (x, y) in zip(found.frames, points[-2:], strict=True):
        assert (10 * dot.x_percent, dot.y_px) == pytest.approx((x, y), abs=0.5)
    assert found.frames[-1].words == "Rank 1: 159.0 at 14:14:19"


def test_a_pause_is_a_gap_with_its_reason_and_breaks_the_line() -> None:
    timeline = a_timeline({n: 100.0 for n in MINUTE if not 20 <= n < 40})
    timeline.note_error(NOON + 21, "stalled")
    timeline.note_connection(NOON + 39)
    found = drawn(timeline)
    assert len(places(found.line)) == len(places(found.band)) == 2
    [gap] = found.gaps
    assert (gap.x_percent, gap.width_percent) == pytest.approx((100 * 19 / 60, 100 * 21 / 60), abs=1)
    assert gap.words == "No sample from 14:13:39 to 14:14:00: stalled"
    [again] = found.reconnects
    assert again.x_percent == pytest.approx(100 * 39 / 60, abs=0.5)
    assert again.words == "Connected again at 14:13:59"
    assert (
        found.summary
        == "Brightness of 40 samples, from 100 to 100 of 255. Connected again 1 time. 1 gap without samples."
    )


def test_each_reconnect_counts_also_where_several_are_one_mark() -> None:
    timeline = a_timeline(dict.fromkeys(MINUTE, 100.0))
    for _ in range(3):
        timeline.note_connection(NOON + 30)
    found = drawn(timeline)
    assert [dot.words for dot in found.reconnects] == ["Connected again at 14:13:50, 3 times"]
    assert "Connected again 3 times." in found.summary


def test_a_late_sample_is_no_gap() -> None:
    assert drawn(a_timeline({n: 100.0 for n in MINUTE if n not in (20, 30, 31)})).gaps == ()


@pytest.mark.parametrize(("lasted_s", "now_s", "until_s"), [(60.0, 999.0, 60), (None, 90.0, 90)])
def test_what_came_before_the_first_sample_and_after_the_last_is_a_gap_too(
    lasted_s: float | None, now_s: float, until_s: int
) -> None:
    timeline = a_timeline({n: 100.0 for n in MINUTE if 20 <= n < 40})
    timeline.note_error(NOON + 41, "unreachable")
    found = drawn(timeline, lasted_s=lasted_s, now_s=now_s)
    before, after = found.gaps
    assert before.x_percent == 0.0
    assert before.width_percent == pytest.approx(100 * 20 / until_s, abs=1)
    assert after.x_percent + after.width_percent == pytest.approx(100.0)
    assert after.words.endswith(": unreachable")


def test_a_capture_in_progress_ends_where_the_newest_frame_is() -> None:
    found = drawn(a_timeline(MINUTE), a_frame(64.0, 120.0), lasted_s=None, now_s=60.0)
    assert found.frames[0].x_percent == 100.0


def test_what_is_not_told_yet_is_no_gap() -> None:
    """The timeline is saved every ten seconds, the counts every two."""
    running = a_capture(last_sample_s=69.0)
    found = chart(running, [], a_timeline(MINUTE), MOMENT + timedelta(seconds=71))
    assert found is not None
    assert found.gaps == ()
    assert places(found.line)[0][-1][0] == pytest.approx(1000 * 59 / 69, abs=1)
    silent = chart(running, [], a_timeline(MINUTE), MOMENT + timedelta(seconds=90))
    assert silent is not None
    [gap] = silent.gaps
    assert (gap.x_percent, gap.width_percent) == pytest.approx((100 * 69 / 90, 100 * 21 / 90), abs=0.01)


def test_a_sample_between_two_gaps_is_a_dot() -> None:
    found = drawn(a_timeline({0.0: 50.0, 1.0: 51.0, 30.0: 80.0, 58.0: 60.0, 59.0: 61.0}))
    [dot] = found.singles
    assert dot.x_percent == pytest.approx(50.0, abs=0.5)
    assert len(places(found.line)) == 2


def test_an_hour_is_a_band_between_darkest_and_brightest() -> None:
    found = drawn(a_timeline({float(n): (40.0 if n % 2 else 200.0) for n in range(3600)}), lasted_s=3600.0)
    [line], [band] = places(found.line), places(found.band)
    assert {y for _, y in line} == {min(y for _, y in band)}
    assert {y for _, y in band} == {min(y for _, y in band), max(y for _, y in band)}
    ways = [x for x, _ in band]
    there, back = ways[: len(line)], ways[len(line) :]
    assert there == [x for x, _ in line] == back[::-1]
    assert found.gaps == ()
    assert found.summary.startswith("Brightness of 3600 samples, from 40 to 200 of 255.")


def test_without_a_timeline_the_frames_are_shown_and_nothing_is_claimed_of_the_rest() -> None:
    found = drawn(None, a_frame(5.0, 90.0), a_frame(3.0, 80.0))
    assert (found.line, found.gaps, len(found.frames)) == ("", (), 2)
    assert found.summary == "Brightness of the 2 frames that were kept; of the other samples none was noted."
    alone = drawn(None, a_frame(5.0, 90.0)).summary
    assert alone == "Brightness of the frame that was kept; of the other samples none was noted."


@pytest.mark.parametrize("lasted_s", [0.0, 0.2, 7, 61, 3600, 86_400, 40 * 86_400, 4e8])
def test_there_are_a_few_hours_below_whatever_it_lasted(lasted_s: float) -> None:
    found = drawn(a_timeline({0.0: 100.0, lasted_s: 120.0}), lasted_s=lasted_s, now_s=lasted_s)
    assert 0 <= len(found.hours) <= 6
    assert len(found.hours) >= 2 or lasted_s < 2
    assert all(0 <= tick.x_percent <= 100 for tick in found.hours)
    assert len({tick.words for tick in found.hours}) == len(found.hours)
    assert all(tick.is_first or tick.x_percent > 5 for tick in found.hours)
    assert all(tick.is_last or tick.x_percent < 95 for tick in found.hours)
    assert not any(tick.is_first or tick.is_last for tick in found.hours if 10 < tick.x_percent < 90)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (0.0, 255.0), (255.0, 255.0), (100.0, 100.4), (17.0, 40.0)])
def test_round_levels_lie_within_the_picture(low: float, high: float) -> None:
    found = drawn(a_timeline({0.0: low, 1.0: high}))
    assert 1 <= len(found.levels) <= 6
    assert all(0 < tick.y_px <= found.plot_px for tick in found.levels)
    assert all(0 < y <= found.plot_px for _, y in places(found.line)[0])


@pytest.mark.parametrize("score", [-5.0, 260.0, -1e300, 1e300])
def test_a_score_that_is_none_spoils_no_page(score: float) -> None:
    """A recorder that a camera has taken over may report any."""
    found = drawn(None, a_frame(5.0, score))
    [dot] = found.frames
    assert 0 < dot.y_px <= found.plot_px
    assert 1 <= len(found.levels) <= 6


def test_noise_is_not_blown_up() -> None:
    heights = [y for _, y in places(drawn(a_timeline({0.0: 100.0, 1.0: 100.4})).line)[0]]
    assert abs(heights[0] - heights[1]) < HEIGHT_PX / 10


def test_of_a_thousand_gaps_the_longest_are_told() -> None:
    timeline = a_timeline({10.0 * n + (5.0 if n == 30 else 0.0): 100.0 for n in range(60)})
    found = drawn(timeline, lasted_s=600.0)
    assert len(found.gaps) > len(found.told) == GAPS_TOLD
    assert any("to 14:18:25" in gap.words for gap in found.told)
    html = render_to_string("streams/_timeline.html", {"chart": found})
    assert html.count("<li>No sample from") == GAPS_TOLD
    assert html.count("<title>No sample from") == len(found.gaps)
    assert "The longest gaps" in html


def test_a_gap_that_nobody_would_see_is_not_drawn() -> None:
    found = drawn(a_timeline({0.0: 1.0, 1.0: 1.0, 9.0: 1.0, 86_000.0: 1.0}), lasted_s=86_000.0)
    assert [gap.words for gap in found.gaps] == ["No sample from 14:13 to 14:06"]
    assert len(places(found.line)) == 1


def test_the_picture_is_one_image_that_says_what_it_shows() -> None:
    timeline = a_timeline({n: 100.0 for n in MINUTE if not 20 <= n < 40})
    timeline.note_error(NOON + 21, "<b>")
    timeline.note_connection(NOON + 39)
    html = render_to_string("streams/_timeline.html", {"chart": drawn(timeline, a_frame(3.0, 100.0))})
    page = read(f"<!doctype html>{html}")
    assert page.faults == []
    assert not re.search(r" style=|<a |<b>|xlink", html)
    assert 'role="img" aria-label="Brightness of 40 samples' in html
    assert "No sample from 14:13:39 to 14:14:00: <b>" in page.text
    for kind in ("frame timeline-best", "gap", "reconnect", "line", "band"):
        assert f'class="timeline-{kind}"' in html


def test_nothing_is_drawn_of_nothing() -> None:
    assert render_to_string("streams/_timeline.html", {"chart": None}).strip() == ""
