"""Figures out of results: medians, ratios of one round with their spread, tables, targets. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.plan import COPY, FPS_1, OPENCV_1, OPENCV_10, SERVICE_1, SERVICE_10
from bench.run import MISSED_MOST, Result, Times

MB = 1_000_000
_ONE_FRAME_S = 0.04
Value = Callable[[Result], float | None]


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of some values, and their range."""

    middle: float
    least: float
    most: float


def figure(values: Iterable[float | None]) -> Figure | None:
    """None where there is no value."""
    known = [value for value in values if value is not None]
    return Figure(median(known), min(known), max(known)) if known else None


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least so many of them do not exceed; `share` is above 0, up to 1."""
    ranked = sorted(values)
    return ranked[max(0, -int(-share * len(ranked) // 1) - 1)]


def ratios(results: Sequence[Result], above: Sequence[Result], value: Value) -> list[float]:
    """Of each result to the one of `above` of its round: taken minutes, not half an hour, apart."""
    found = []
    for result in results:
        for other in above:
            numerator, denominator = value(result), value(other)
            if other.round == result.round and numerator is not None and denominator:
                found.append(numerator / denominator)
    return found


def of(results: Sequence[Result], contender: str, streams: int) -> list[Result]:
    """With so many streams, or with the largest number below it that was measured."""
    mine = [result for result in results if result.contender == contender and result.streams <= streams]
    most = max((result.streams for result in mine), default=0)
    return [result for result in mine if result.streams == most]


# --- the targets ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """`unit` stands behind the numbers; `streams` says where each side was measured."""

    name: str
    limit: float
    unit: str
    reached: Figure | None
    where: str

    @property
    def is_reached(self) -> bool | None:
        return None if self.reached is None else self.reached.middle <= self.limit


def targets(results: Sequence[Result]) -> list[Target]:
    """Issue 3's, in its order."""
    ten_32, ten_1 = of(results, SERVICE_10.name, 32), of(results, SERVICE_10.name, 1)
    one_8 = of(results, SERVICE_1.name, 8)
    copy, fps = of(results, COPY.name, 32), of(results, FPS_1.name, 8)
    loop_10, loop_1 = of(results, OPENCV_10.name, 8), of(results, OPENCV_1.name, 8)
    ten_64 = [result for result in results if result.contender == SERVICE_10.name and result.streams == 64]
    return [
        _ratio("CPU, interval 10 s, against ffmpeg copy", 1.5, ten_32, copy, _cpu),
        _ratio("CPU, interval 10 s, against the OpenCV loop", 0.06, ten_32, loop_10, _cpu),
        _ratio("CPU, interval 1 s, against ffmpeg fps=1", 0.5, one_8, fps, _cpu),
        _ratio("CPU, interval 1 s, against the OpenCV loop", 0.33, one_8, loop_1, _cpu),
        _ratio("CPU per stream, many against one, 10 s", 1.2, ten_32, ten_1, _cpu),
        _ratio("the same, recorders alone", 1.2, ten_32, ten_1, _recorders),
        _plain("PSS, interval 10 s", 20.0, " MB", ten_32, lambda result: result.pss_max_bytes / MB),
        _plain("the same, recorders alone", 20.0, " MB", ten_32, _recorder_mb),
        _ratio("PSS, interval 10 s, against the OpenCV loop", 1 / 6, ten_32, loop_10, _pss),
        _plain("samples missed, 64 streams, 10 s", 100 * MISSED_MOST, " %", ten_64, _missed_percent),
        _plain("lateness p95, interval 10 s", 2.1, " s", ten_32, _late_p95),
        _plain("lateness p95, interval 1 s", _ONE_FRAME_S, " s", one_8, _late_p95),
    ]


def _ratio(name: str, limit: float, mine: Sequence[Result], theirs: Sequence[Result], value: Value) -> Target:
    where = f"{_streams(mine)} against {_streams(theirs)}"
    return Target(name, limit, " x", figure(ratios(mine, theirs, value)), where)


def _plain(name: str, limit: float, unit: str, mine: Sequence[Result], value: Value) -> Target:
    return Target(name, limit, unit, figure(map(value, mine)), _streams(mine))


def _streams(results: Sequence[Result]) -> str:
    return str(results[0].streams) if results else "-"


def _cpu(result: Result) -> float:
    return result.cpu


def _recorders(result: Result) -> float | None:
    return result.parts.get("recorders")


def _recorder_mb(result: Result) -> float | None:
    return result.pss_parts_bytes["recorders"] / MB if "recorders" in result.pss_parts_bytes else None


def _pss(result: Result) -> float:
    return result.pss_mean_bytes


def _missed_percent(result: Result) -> float | None:
    return 100 * result.tally.missed_share if result.tally else None


def _late_p95(result: Result) -> float | None:
    """The stream's that is worst off."""
    return max((late.p95_s for late in result.late), default=None)


# --- tables ---------------------------------------------------------------------------------------


def results_table(results: Sequence[Result]) -> str:
    """A row for each contender and number of streams: medians over the rounds."""
    head = [
        "contender",
        "streams",
        "CPU %",
        "(range)",
        "recorders + supervisor + jobs",
        "PSS MB",
        "most",
        "recorders",
    ]
    head += ["due", "taken", "late p50", "p95", "feed Mbit/s", "starved", "late ms", "feed CPU", "web", "others"]
    groups: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        groups.setdefault((result.contender, result.streams), []).append(result)
    return table(head, [_row(group) for group in groups.values()])


def _row(group: Sequence[Result]) -> list[str]:
    first = group[0]
    cpu = figure(result.cpu for result in group)
    assert cpu
    parts = " + ".join(f"{100 * median(one.parts[role] for one in group):.2f}" for role in first.parts)
    memory = [mb for mb in map(_recorder_mb, group) if mb is not None]
    late_s = figure(late.p50_s for result in group for late in result.late)
    latest_s = figure(map(_late_p95, group))
    tallies = [result.tally for result in group if result.tally]
    bits = figure(result.feed_bits_per_s for result in group)
    return [
        first.contender,
        str(first.streams),
        f"{100 * cpu.middle:.2f}",
        f"{100 * cpu.least:.2f}-{100 * cpu.most:.2f}" if len(group) > 1 else "",
        parts if len(first.parts) > 1 else "",
        f"{median(result.pss_mean_bytes for result in group) / MB:.1f}",
        f"{max(result.pss_max_bytes for result in group) / MB:.1f}",
        f"{median(memory):.1f}" if memory else "",
        str(sum(one.due for one in tallies)) if tallies else "",
        str(sum(one.taken for one in tallies)) if tallies else "",
        f"{late_s.middle:.3f}" if late_s else "-",
        f"{latest_s.most:.3f}" if latest_s else "-",
        f"{bits.middle / 1e6:.2f}" if bits else "-",
        str(max(result.starved for result in group)),
        f"{1000 * max(result.feed_late_s for result in group):.0f}",
        f"{100 * median(result.server_cpu for result in group):.0f}",
        f"{100 * median(result.web_cpu for result in group):.1f}",
        f"{100 * median(result.others_cpu for result in group):.0f}",
    ]


def targets_table(found: Sequence[Target]) -> str:
    rows = []
    for target in found:
        reached = target.reached
        said = {True: "yes", False: "NO", None: "not measured"}[target.is_reached]
        spread = f"{reached.least:.3f}-{reached.most:.3f}" if reached and reached.least != reached.most else ""
        value = f"{reached.middle:.3f}{target.unit}" if reached else "-"
        rows.append([target.name, target.where, f"{target.limit:.3g}{target.unit}", value, spread, said])
    return table(["target", "streams", "at most", "reached", "(range)", ""], rows)


def times_table(times: Times) -> str:
    rows = []
    for name, values in (("/start to first sample", times.first_sample_s), ("/stop to page", times.page_s)):
        shown = [f"{percentile(values, share):.2f}" for share in (0.5, 0.95)] if values else ["-", "-"]
        rows.append([name, str(len(values)), *shown])
    return table(["time, s", "runs", "p50", "p95"], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, in columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        return f"| {' | '.join(cells)} |"

    rule = "|" + "-" * (widths[0] + 2) + "|" + "".join("-" * (width + 1) + ":|" for width in widths[1:])
    return "\n".join([line(head), rule, *map(line, rows)])
