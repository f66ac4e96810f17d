"""Spans of time in words."""

from datetime import UTC, datetime, timedelta

import pytest

from streams.templatetags.durations import ago, duration, since

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("span_s", "words"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3659, "1 h"),
        (7_980, "2 h 13 min"),
        (86_400, "1 d"),
        (90_061, "1 d 1 h"),
        (8_640_000, "100 d"),
    ],
)
def test_a_span_is_said_with_its_two_largest_units(span_s: float, words: str) -> None:
    assert duration(timedelta(seconds=span_s)).replace("\N{NO-BREAK SPACE}", " ") == words


def test_how_long_something_lasted_and_how_long_ago_it_was() -> None:
    assert since(NOON, NOON + timedelta(minutes=5)) == "5\N{NO-BREAK SPACE}min"
    assert (
        since(datetime.now(UTC) - timedelta(days=2, hours=3, minutes=5))
        == "2\N{NO-BREAK SPACE}d 3\N{NO-BREAK SPACE}h"
    )
    assert ago(datetime.now(UTC) - timedelta(hours=3, minutes=19)) == "3\N{NO-BREAK SPACE}h ago"
