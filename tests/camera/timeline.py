"""When which access unit is due, for as long as anybody watches. Pure."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from tests.camera.clip import TICKS_PER_S, AccessUnit, Clip


@dataclass(frozen=True, slots=True)
class Moment:
    """`at_s` since the clip's start is when the unit is sent; `ticks` (90 kHz) is what its packets claim.

    `number` counts the pictures in order of presentation, from the start of the first clip.
    """

    at_s: float
    ticks: int
    unit: AccessUnit
    number: int = 0


def timeline(clip: Clip, *, from_s: float = 0.0, is_looping: bool = True) -> Iterator[Moment]:
    """The clip again and again, with times that go on; from the first frame at or after `from_s`."""
    first = math.ceil(from_s * clip.scene.fps - 1e-6)
    for number in itertools.count(first):
        turn, index = divmod(number, len(clip.units))
        if turn and not is_looping:
            return
        unit = clip.units[index]
        ticks = unit.pts_ticks + turn * clip.duration_ticks
        yield Moment(number / clip.scene.fps, ticks, unit, round(ticks * clip.scene.fps / TICKS_PER_S))


class Reel(Iterator[Moment]):
    """A timeline that turns to another clip at a key frame, and whose last moment can be had again."""

    def __init__(self, clip: Clip, *, from_s: float, is_looping: bool) -> None:
        self._clip = self._next_clip = clip
        self._is_looping = is_looping
        self._moments = timeline(clip, from_s=from_s, is_looping=is_looping)
        self._turns_after_s = 0.0
        self._turns_at_s: float | None = None
        self._last: Moment | None = None
        self._is_again = False

    def turn_to(self, clip: Clip, after_s: float) -> None:
        """At the first key frame that comes `after_s` or more after the next moment."""
        self._next_clip = clip
        self._turns_after_s, self._turns_at_s = after_s, None

    def again(self) -> None:
        """The last moment was not sent: it is the next one too."""
        self._is_again = True

    def __next__(self) -> Moment:
        is_again, self._is_again = self._is_again, False
        moment = self._last if is_again and self._last else next(self._moments)
        if self._turns_at_s is None:
            self._turns_at_s = moment.at_s + self._turns_after_s - 1e-6
        if self._next_clip is not self._clip and moment.unit.is_key and moment.at_s >= self._turns_at_s:
            self._clip = self._next_clip
            self._moments = _shifted(timeline(self._clip, is_looping=self._is_looping), moment)
            moment = next(self._moments)
        self._last = moment
        return moment


def _shifted(moments: Iterator[Moment], start: Moment) -> Iterator[Moment]:
    for moment in moments:
        yield Moment(moment.at_s + start.at_s, moment.ticks + start.ticks, moment.unit, moment.number + start.number)
