"""How bright a capture was over its time, in bounded space. Pure.

Time is cut into buckets of one width. When there are too many, each two neighbours become one and the width doubles:
a minute shows every sample, a month a few hundred buckets, each with its darkest and brightest sample.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

MAX_BUCKETS = 600
# A sample that comes a little early or late still has a bucket of its own, and is drawn where it was chosen.
BUCKETS_PER_INTERVAL = 32
MIN_WIDTH_S = 0.01
# 600 buckets with an error in each are 40 kB.
MAX_BYTES = 200_000
MAX_AT = 1e11  # seconds since 1970 that a datetime holds
MAX_SCORE = 255.0
_MAX_WHOLE = 1 << 53
_MAX_CODE_LENGTH = 32


@dataclass(slots=True)
class Bucket:
    """What happened in it. `low` and `high` are scores, and count only if there are `samples`."""

    samples: int = 0
    low: float = math.inf
    high: float = -math.inf
    connections: int = 0
    """That began in it."""
    error_code: str = ""
    """Of the last failure in it."""

    def add(self, other: "Bucket") -> None:
        """What happened in it after that, too."""
        self.samples += other.samples
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.connections += other.connections
        self.error_code = other.error_code or self.error_code


class Timeline:
    """From `began_at`, seconds since 1970 UTC, in buckets of `width_s` seconds; empty buckets are left out."""

    def __init__(self, began_at: float, width_s: float) -> None:
        self.began_at = began_at
        self.width_s = width_s
        self.events = 0
        """How many it was told of."""
        self._buckets: dict[int, Bucket] = {}

    @classmethod
    def of_interval(cls, began_at: float, interval_s: float) -> Self:
        """For a sample every `interval_s` seconds."""
        return cls(began_at, max(MIN_WIDTH_S, interval_s / BUCKETS_PER_INTERVAL))

    def note_sample(self, at: float, score: float) -> None:
        self._note(at, Bucket(samples=1, low=score, high=score))

    def note_connection(self, at: float) -> None:
        self._note(at, Bucket(connections=1))

    def note_error(self, at: float, code: str) -> None:
        self._note(at, Bucket(error_code=code))

    def __iter__(self) -> Iterator[tuple[float, Bucket]]:
        """(middle of the bucket, seconds since 1970 UTC; bucket), in the order of time."""
        for index in sorted(self._buckets):
            yield self.began_at + (index + 0.5) * self.width_s, self._buckets[index]

    @property
    def samples(self) -> int:
        return sum(bucket.samples for bucket in self._buckets.values())

    def _note(self, at: float, event: Bucket) -> None:
        self.events += 1
        index = max(0, int((at - self.began_at) / self.width_s))  # a clock that is set back: with the first ones
        self._buckets.setdefault(index, Bucket()).add(event)
        while len(self._buckets) > MAX_BUCKETS:
            self._merge()

    def _merge(self) -> None:
        merged: dict[int, Bucket] = {}
        for index in sorted(self._buckets):
            merged.setdefault(index // 2, Bucket()).add(self._buckets[index])
        self._buckets = merged
        self.width_s *= 2

    def encode(self) -> str:
        """As JSON: {"began_at", "width_s", "buckets": [[index, samples, low, high, connections, error code] ...]}."""
        rows = [_row(index, self._buckets[index]) for index in sorted(self._buckets)]
        return json.dumps(
            {"began_at": round(self.began_at, 3), "width_s": self.width_s, "buckets": rows}, separators=(",", ":")
        )

    @classmethod
    def decode(cls, text: str) -> Self:
        """Raises ValueError for anything that `encode` cannot have made."""
        if len(text) > MAX_BYTES:
            raise ValueError("a timeline of too many bytes")
        try:
            data = json.loads(text)
            timeline = cls(_real(data["began_at"]), _real(data["width_s"]))
            rows = data["buckets"]
            timeline._buckets = {_whole(row[0]): _bucket(*row[1:]) for row in rows}
        except (TypeError, KeyError, IndexError, RecursionError) as error:
            raise ValueError(f"no timeline: {type(error).__name__}") from None
        ends_at = timeline.began_at + (max(timeline._buckets, default=0) + 1) * timeline.width_s
        if timeline.width_s < MIN_WIDTH_S or timeline.began_at < 0 or ends_at > MAX_AT or len(rows) > MAX_BUCKETS:
            raise ValueError("a timeline out of range")
        return timeline


def _row(index: int, bucket: Bucket) -> list[Any]:
    """The end is left out where there is nothing to say."""
    scores = [round(bucket.low, 2), round(bucket.high, 2)] if bucket.samples else [0, 0]
    row = [index, bucket.samples, *scores]
    if bucket.connections or bucket.error_code:
        row += [bucket.connections, bucket.error_code]
    return row


def _bucket(samples: Any, low: Any, high: Any, connections: Any = 0, error_code: Any = "") -> Bucket:
    if type(error_code) is not str or len(error_code) > _MAX_CODE_LENGTH:
        raise ValueError("an error code that is none")
    bucket = Bucket(_whole(samples), connections=_whole(connections), error_code=error_code)
    if bucket.samples:
        bucket.low, bucket.high = _real(low), _real(high)
        if not 0 <= bucket.low <= bucket.high <= MAX_SCORE:
            raise ValueError("a score out of range")
    return bucket


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MAX_WHOLE:
        raise ValueError("a number out of range")
    return value


def _real(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) < _MAX_WHOLE:
        raise ValueError("a number out of range")
    return float(value)
