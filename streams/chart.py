"""The timeline of a capture as what an SVG needs: places, paths, marks and words. Pure.

Across, everything is in percent of the width, paths in thousandths of it: the picture takes any width, and letters
and dots keep their size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .engine.timeline import Bucket, Timeline
from .models import MAX_INTERVAL_S, MIN_INTERVAL_S, Capture, Frame

HEIGHT_PX = 200
# Room above the brightest for a mark, and below the plot for the hours.
TOP_PX, BOTTOM_PX = 14, 26
# A pause in the samples that is longer than so many intervals is shown as a gap.
GAP_INTERVALS = 3.0
# A gap that nobody would see is not drawn.
MIN_GAP_PERCENT = 0.15
GAPS_TOLD = 20
# What was sampled a moment ago may not be saved yet.
CHECKPOINT_S = 5.0
# A feed whose brightness hardly changes is not blown up into mountains.
MIN_RANGE = 10.0
_LATEST = 253_402_300_000.0  # the year 9999 ends then: no later moment has a date
_TICKS = 4
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


@dataclass(frozen=True, slots=True)
class Dot:
    x_percent: float
    y_px: float
    words: str
    is_best: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without samples."""

    x_percent: float
    width_percent: float
    words: str


@dataclass(frozen=True, slots=True)
class Tick:
    words: str
    x_percent: float = 0.0
    y_px: float = 0.0
    is_first: bool = False
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """`band`: path data around darkest and brightest sample of each bucket; `line`: along the brightest."""

    band: str
    line: str
    singles: tuple[Dot, ...]
    """Samples with a gap on either side, which no line shows."""
    frames: tuple[Dot, ...]
    """Best last: on top of the others."""
    gaps: tuple[Gap, ...]
    told: tuple[Gap, ...]
    """The longest of the gaps, for a list of them."""
    reconnects: tuple[Dot, ...]
    hours: tuple[Tick, ...]
    levels: tuple[Tick, ...]
    summary: str
    height_px: int = HEIGHT_PX
    plot_px: int = HEIGHT_PX - BOTTOM_PX


@dataclass(frozen=True, slots=True)
class _Point:
    """A bucket with samples; `before` is what happened since the one before."""

    at: float
    bucket: Bucket
    before: Bucket


def chart(capture: Capture, frames: Sequence[Frame], timeline: Timeline | None, now: datetime) -> Chart | None:
    """`frames`: best first. None if there is nothing to show: no sample and no frame."""
    points, after = _points(timeline)
    if not points and not frames:
        return None
    longest_s = _longest_s(capture, timeline)
    moments = _moments(capture, points, frames)
    begins_at = min(moments)
    ends_at = _ends_at(capture, max(moments), longest_s, now)
    least_s = min(max(MIN_INTERVAL_S, capture.interval_s), MAX_INTERVAL_S)
    plot = _Plot(begins_at, max(ends_at, begins_at + least_s), *_levels(points, frames))
    runs = _runs(points, longest_s)
    gaps = _gaps(plot, points, max(moments), after, longest_s)
    again = _connected_again(timeline)
    return Chart(
        band="".join(_band(plot, run) for run in runs if len(run) > 1),
        line="".join(_line(plot, run) for run in runs if len(run) > 1),
        singles=tuple(
            Dot(plot.x_percent(run[0].at), plot.y_px(run[0].bucket.high), "") for run in runs if len(run) == 1
        ),
        frames=tuple(_dot(plot, rank, frame) for rank, frame in reversed([*enumerate(frames, 1)])),
        gaps=gaps,
        told=_longest(gaps),
        reconnects=_reconnects(plot, again),
        hours=plot.hours(),
        levels=plot.levels(),
        summary=_summary(points, frames, gaps, sum(count for _, count in again)),
    )


def _points(timeline: Timeline | None) -> tuple[list[_Point], Bucket]:
    """Buckets with samples, and what happened after the last of them."""
    points: list[_Point] = []
    before = Bucket()
    for at, bucket in timeline or ():
        if bucket.samples:
            points.append(_Point(at, bucket, before))
            before = Bucket()
        before.add(Bucket(connections=bucket.connections, error_code=bucket.error_code))
    return points, before


def _moments(capture: Capture, points: Sequence[_Point], frames: Sequence[Frame]) -> list[float]:
    """When it began, and when there were samples: the timeline is saved more rarely than the rest."""
    sampled = [point.at for point in points] + [frame.captured_at.timestamp() for frame in frames]
    if capture.last_sample_at:
        sampled.append(capture.last_sample_at.timestamp())
    return [capture.started_at.timestamp(), *sampled]


def _ends_at(capture: Capture, last_at: float, longest_s: float, now: datetime) -> float:
    """Of a capture in progress: its last sample, unless that is so long ago that it tells something."""
    over = capture.stop_requested_at or capture.finished_at
    if over is None:
        is_silent = now.timestamp() - last_at > longest_s + CHECKPOINT_S
        return now.timestamp() if is_silent else last_at
    return max(over.timestamp(), last_at)


def _levels(points: Sequence[_Point], frames: Sequence[Frame]) -> tuple[float, float]:
    scores = [_score(frame) for frame in frames]
    low = min([point.bucket.low for point in points] + scores)
    high = max([point.bucket.high for point in points] + scores)
    spare = max(0.0, MIN_RANGE - (high - low)) / 2 + 0.06 * (high - low)
    return max(0.0, low - spare), min(255.0, high + spare)


def _longest_s(capture: Capture, timeline: Timeline | None) -> float:
    """The longest time between two samples that is no gap."""
    width_s = timeline.width_s if timeline else 0.0
    return max(GAP_INTERVALS * capture.interval_s, 2 * width_s + capture.interval_s)


def _runs(points: Sequence[_Point], longest_s: float) -> list[list[_Point]]:
    """Samples without a gap between them."""
    runs: list[list[_Point]] = []
    for point in points:
        if not runs or point.at - runs[-1][-1].at > longest_s:
            runs.append([])
        runs[-1].append(point)
    return runs


def _gaps(
    plot: "_Plot", points: Sequence[_Point], last_at: float, after: Bucket, longest_s: float
) -> tuple[Gap, ...]:
    if not points:
        return ()
    begins = [plot.begins_at, *(point.at for point in points[:-1]), last_at]
    ends = [*(point.at for point in points), plot.ends_at]
    between = [*(point.before for point in points), after]
    found = [
        _gap(plot, begin, end, happened)
        for begin, end, happened in zip(begins, ends, between, strict=True)
        if end - begin > longest_s
    ]
    return tuple(gap for gap in found if gap.width_percent >= MIN_GAP_PERCENT)


def _gap(plot: "_Plot", begin: float, end: float, happened: Bucket) -> Gap:
    words = f"No sample from {_clock(begin, plot.span_s)} to {_clock(end, plot.span_s)}"
    if happened.error_code:
        words += f": {happened.error_code}"
    x_percent = plot.x_percent(begin)
    return Gap(x_percent, round(plot.x_percent(end) - x_percent, 3), words)


def _longest(gaps: tuple[Gap, ...]) -> tuple[Gap, ...]:
    longest = set(sorted(gaps, key=lambda gap: -gap.width_percent)[:GAPS_TOLD])
    return tuple(gap for gap in gaps if gap in longest)


def _reconnects(plot: "_Plot", again: Sequence[tuple[float, int]]) -> tuple[Dot, ...]:
    return tuple(
        Dot(plot.x_percent(at), 0.0, f"Connected again at {_clock(at, plot.span_s)}" + _times(count))
        for at, count in again
    )


def _connected_again(timeline: Timeline | None) -> list[tuple[float, int]]:
    """When and how often connections began, but for the first one."""
    began = [(at, bucket.connections) for at, bucket in timeline or () if bucket.connections]
    if began:
        began[0] = (began[0][0], began[0][1] - 1)
    return [(at, count) for at, count in began if count]


def _times(count: int) -> str:
    return "" if count == 1 else f", {count} times"


def _dot(plot: "_Plot", rank: int, frame: Frame) -> Dot:
    at = frame.captured_at.timestamp()
    words = f"Rank {rank}: {frame.score:.1f} at {_clock(at, plot.span_s)}"
    return Dot(plot.x_percent(at), plot.y_px(_score(frame)), words, is_best=rank == 1)


def _score(frame: Frame) -> float:
    """As a recorder should have reported it."""
    return min(255.0, max(0.0, frame.score))


def _line(plot: "_Plot", run: Sequence[_Point]) -> str:
    return "M" + "L".join(plot.place(point.at, point.bucket.high) for point in run)


def _band(plot: "_Plot", run: Sequence[_Point]) -> str:
    """There along the brightest, back along the darkest."""
    there = [plot.place(point.at, point.bucket.high) for point in run]
    back = [plot.place(point.at, point.bucket.low) for point in reversed(run)]
    return "M" + "L".join([*there, *back]) + "Z"


def _summary(points: Sequence[_Point], frames: Sequence[Frame], gaps: Sequence[Gap], reconnects: int) -> str:
    if not points:
        kept = "frame that was kept" if len(frames) == 1 else f"{len(frames)} frames that were kept"
        return f"Brightness of the {kept}; of the other samples none was noted."
    low = min(point.bucket.low for point in points)
    high = max(point.bucket.high for point in points)
    samples = sum(point.bucket.samples for point in points)
    words = f"Brightness of {samples} sample{'' if samples == 1 else 's'}, from {low:.0f} to {high:.0f} of 255."
    if reconnects:
        words += f" Connected again {reconnects} time{'' if reconnects == 1 else 's'}."
    if gaps:
        words += f" {len(gaps)} gap{'' if len(gaps) == 1 else 's'} without samples."
    return words


@dataclass(frozen=True, slots=True)
class _Plot:
    """From `begins_at` to `ends_at`, seconds since 1970 UTC, and from the score `low` to `high`."""

    begins_at: float
    ends_at: float
    low: float
    high: float

    @property
    def span_s(self) -> float:
        return self.ends_at - self.begins_at

    def x_percent(self, at: float) -> float:
        return round(100 * (at - self.begins_at) / self.span_s, 3)

    def y_px(self, score: float) -> float:
        room_px = HEIGHT_PX - BOTTOM_PX - TOP_PX
        return round(TOP_PX + room_px * (self.high - score) / (self.high - self.low), 1)

    def place(self, at: float, score: float) -> str:
        return f"{10 * self.x_percent(at):g} {self.y_px(score):g}"

    def hours(self) -> tuple[Tick, ...]:
        """Round moments, a few of them; the first and the last keep off the edges."""
        step_s = next((step for step in _STEPS_S if self.span_s / step <= _TICKS + 1), 0) or (
            86_400 * math.ceil(self.span_s / 86_400 / _TICKS)
        )
        first = math.ceil(self.begins_at / step_s) * step_s
        moments = [first + step_s * n for n in range(int(max(0.0, self.ends_at - first) / step_s) + 1)]
        ticks = [(at, self.x_percent(at)) for at in moments if at <= min(self.ends_at, _LATEST)]
        return tuple(Tick(_clock(at, self.span_s), x_percent=x, is_first=x < 6, is_last=x > 94) for at, x in ticks)

    def levels(self) -> tuple[Tick, ...]:
        """Round scores, two to five of them."""
        step = next(step for step in (2, 5, 10, 20, 50, 100) if (self.high - self.low) / step <= 5)
        first = math.ceil(self.low / step) * step
        return tuple(
            Tick(str(level), y_px=self.y_px(level)) for level in range(first, math.floor(self.high) + 1, step)
        )


def _clock(at: float, span_s: float) -> str:
    """As precise as a picture of so many seconds can be; UTC."""
    moment = datetime.fromtimestamp(at, UTC)
    if span_s < 3600:
        return f"{moment + timedelta(milliseconds=500):%H:%M:%S}"
    return f"{moment:%H:%M}" if span_s < 86_400 else f"{moment:%m-%d %H:%M}"
