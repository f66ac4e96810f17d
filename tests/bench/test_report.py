"""Figures out of results: medians, percentiles, ratios, targets, tables."""

import pytest

from bench import report
from bench.report import Figure, figure, of, percentile, ratios, table, targets
from bench.run import Result, Times
from bench.service import Lateness, Tally


def result(contender: str = "service 10 s", streams: int = 32, number: int = 1, **changes: object) -> Result:
    """One core's hundredth and 10 MB for each stream, nothing beside it."""
    values: dict[str, object] = {
        "contender": contender,
        "streams": streams,
        "round": number,
        "seconds": 30.0,
        "cpu": 0.01,
        "parts": {"peer": 0.01},
        "pss_mean_bytes": 10e6,
        "pss_max_bytes": 10e6,
        "pss_parts_bytes": {"peer": 10e6},
        "web_cpu": 0.0,
        "server_cpu": 0.1,
        "others_cpu": 0.0,
        "machine_cpu": 0.5,
        "feed_bits_per_s": 4e6,
        "feed_late_s": 0.01,
        "starved": 0,
    }
    return Result(**(values | changes))  # type: ignore[arg-type]


def test_a_figure_is_the_median_and_the_range_of_what_is_known() -> None:
    assert figure([3.0, None, 1.0, 10.0]) == Figure(3.0, 1.0, 10.0)
    assert figure([None]) is None


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5), (0.95, 10), (0.9, 9), (1.0, 10), (0.01, 1)])
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(share: float, expected: float) -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], share) == expected


def test_a_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.5) == percentile([7.0], 0.95) == 7.0


def test_ratios_are_taken_within_a_round() -> None:
    mine = [result(number=1, cpu=0.02), result(number=2, cpu=0.09)]
    theirs = [result("ffmpeg copy", number=1, cpu=0.01), result("ffmpeg copy", number=2, cpu=0.03)]
    assert ratios(mine, theirs, lambda one: one.cpu) == pytest.approx([2.0, 3.0])


def test_a_ratio_to_nothing_is_none_at_all() -> None:
    assert ratios([result()], [result(cpu=0.0)], lambda one: one.cpu) == []


def test_where_a_number_of_streams_was_not_measured_the_next_lower_one_stands_in() -> None:
    measured = [result(streams=1), result(streams=6), result(streams=12), result("other", streams=8)]
    assert [one.streams for one in of(measured, "service 10 s", 8)] == [6]
    assert of(measured, "unknown", 8) == []


def test_each_target_says_whether_it_is_reached() -> None:
    found = {
        target.name: target
        for target in targets(
            [
                result(cpu=0.015, pss_max_bytes=25e6, late=(Lateness(0.1, 0.2), Lateness(0.1, 2.2))),
                result(streams=1, cpu=0.0125),
                result("ffmpeg copy"),
                result("opencv loop 10 s", streams=8, cpu=0.3, pss_mean_bytes=60e6),
                result(streams=64, tally=Tally(due=1000, taken=994, reported_missed=0)),
            ]
        )
    }
    assert found["CPU, interval 10 s, against ffmpeg copy"].reached == Figure(1.5, 1.5, 1.5)
    assert found["CPU, interval 10 s, against ffmpeg copy"].is_reached
    assert found["CPU, interval 10 s, against the OpenCV loop"].is_reached
    assert found["CPU per stream, many against one, 10 s"].is_reached
    assert found["PSS, interval 10 s"].is_reached is False
    assert found["PSS, interval 10 s, against the OpenCV loop"].is_reached
    assert found["samples missed, 64 streams, 10 s"].is_reached is False
    assert found["lateness p95, interval 10 s"].is_reached is False
    assert found["CPU, interval 1 s, against ffmpeg fps=1"].is_reached is None


def test_the_spread_of_a_ratio_is_shown() -> None:
    measured = [
        one
        for number, cpu in enumerate((0.01, 0.012, 0.02), 1)
        for one in (result(number=number, cpu=cpu), result("ffmpeg copy", number=number))
    ]
    (row,) = (line for line in report.targets_table(targets(measured)).splitlines() if "against ffmpeg copy" in line)
    assert [cell.strip() for cell in row.strip("|").split("|")[1:]] == [
        "32 against 32",
        "1.5 x",
        "1.200 x",
        "1.000-2.000",
        "yes",
    ]


def test_the_results_have_a_row_for_each_contender_and_number_of_streams() -> None:
    parts = {"recorders": 0.006, "supervisor": 0.003, "jobs": 0.001}
    text = report.results_table(
        [
            result(number=1, cpu=0.01, parts=parts, tally=Tally(10, 10, 0), late=(Lateness(0.5, 1.5),)),
            result(number=2, cpu=0.03, parts=parts, tally=Tally(10, 9, 1), late=(Lateness(0.7, 1.0),)),
            result("ffmpeg copy", feed_bits_per_s=None),
        ]
    )
    head, _, first, second = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    row = dict(zip(head, first, strict=True))
    assert (row["CPU %"], row["(range)"]) == ("2.00", "1.00-3.00")
    assert row["recorders + supervisor + jobs"] == "0.60 + 0.30 + 0.10"
    assert (row["due"], row["taken"], row["late p50"], row["p95"]) == ("20", "19", "0.600", "1.500")
    assert dict(zip(head, second, strict=True))["feed Mbit/s"] == "-"


def test_a_table_is_markdown_in_columns() -> None:
    assert table(["name", "n"], [["a", "10"], ["bcdef", "1"]]).splitlines() == [
        "| name  |  n |",
        "|-------|---:|",
        "| a     | 10 |",
        "| bcdef |  1 |",
    ]


def test_times_that_were_not_taken_leave_a_dash() -> None:
    text = report.times_table(Times(first_sample_s=[1.0, 2.0], page_s=[]))
    assert "|    2 | 1.00 | 2.00 |" in text
    assert "|    0 |    - |    - |" in text
