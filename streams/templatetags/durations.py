"""Spans of time, as people say them."""

from datetime import datetime, timedelta

from django import template

from streams import database

register = template.Library()

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


@register.filter
def duration(span: timedelta, units: int = 2) -> str:
    """The largest units that there are: 3 d 4 h, 12 min 5 s, 0 s."""
    left_s = max(0, int(span.total_seconds()))
    counts: list[tuple[int, str]] = []
    for unit, length_s in _UNITS:
        count, left_s = divmod(left_s, length_s)
        if count or counts or unit == "s":
            counts.append((count, unit))
    return " ".join(f"{count}\N{NO-BREAK SPACE}{unit}" for count, unit in counts[:units] if count or len(counts) == 1)


@register.filter
def ago(moment: datetime) -> str:
    """By the largest unit that there is: 3 h ago."""
    return f"{duration(database.now() - moment, units=1)} ago"


@register.filter
def since(moment: datetime, end: datetime | None = None) -> str:
    """How long it is from then to the end, or to now."""
    return duration((end or database.now()) - moment)
