"""The samples of a feed, in plain words: what decoding everything and then choosing would give. Pure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

TOLERANCE_S = 0.001
PATIENCE_S = 0.5


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture in order of arrival. `is_rotten`: only its decoder sees that it is damaged."""

    at_s: float
    is_key: bool = False
    is_whole: bool = True
    follows_loss: bool = False
    is_rotten: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    number: int
    due_s: float


@dataclass(slots=True)
class Plain:
    """All frames are there as soon as their packets have come. `group_spacing_s`: of each key frame's number, the
    key frame distance that was expected when it came."""

    interval_s: float
    taken: list[Choice] = field(default_factory=list)
    group_spacing_s: dict[int, float | None] = field(default_factory=dict)
    rejected: int = 0
    missed: int = 0
    is_open_choice: bool = False
    """Whether sampling turned to key frames while another picture waited, maybe in a decoder already."""
    due_s: float = -math.inf
    ahead_s: float = -math.inf
    key_gaps_s: list[float] = field(default_factory=list)
    last_key_s: float | None = None
    clean_from_s: float | None = None
    is_tainted: bool = False
    known: list[tuple[int, Shot, bool]] = field(default_factory=list)

    def see(self, number: int, shot: Shot) -> None:
        is_ahead = shot.at_s > self.ahead_s
        self.ahead_s = max(self.ahead_s, shot.at_s)
        if shot.follows_loss or not shot.is_whole:
            self._choose(is_last=True)
            self._taint()
        took_keys = self.takes_keys
        if shot.is_key and shot.is_whole:
            self._note_key(number, shot)
        if self.takes_keys and not took_keys:
            self.is_open_choice |= any(other.at_s >= self.due_s - TOLERANCE_S for _, other, _ in self.known)
        if self.clean_from_s is None:
            self.rejected += self.is_tainted
            return
        self.known.append((number, shot, is_ahead))
        self._choose(is_last=False)

    def _note_key(self, number: int, shot: Shot) -> None:
        if self.last_key_s is not None:
            self.key_gaps_s.append(shot.at_s - self.last_key_s)
        self.last_key_s = shot.at_s
        self.group_spacing_s[number] = self.spacing_s
        self.is_tainted = False
        if self.clean_from_s is None:
            self.clean_from_s = shot.at_s

    def _taint(self) -> None:
        """Until the next key frame; what is shown before that copies from what is lost."""
        self.known, self.clean_from_s, self.last_key_s, self.is_tainted = [], None, None, True

    @property
    def spacing_s(self) -> float | None:
        return max(self.key_gaps_s[-4:], default=None)

    @property
    def takes_keys(self) -> bool:
        spacing_s = self.spacing_s
        if spacing_s is None or spacing_s > self.interval_s + TOLERANCE_S:
            return False
        return self.last_key_s is None or self.ahead_s - self.last_key_s <= spacing_s + PATIENCE_S

    def _choose(self, *, is_last: bool) -> None:
        while (index := self._certain(is_last)) is not None:
            number, shot, _ = self.known[index]
            rotten = self._rotten_before(index)
            if rotten is not None:
                self._cut_out(rotten)
                continue
            due_s = shot.at_s if self.due_s == -math.inf else self.due_s
            self.taken.append(Choice(number, due_s))
            self.due_s = due_s + self.interval_s
            while self.due_s <= shot.at_s + TOLERANCE_S:
                self.due_s += self.interval_s
                self.missed += 1

    def _certain(self, is_last: bool) -> int | None:
        """The picture that is the next sample; what might still come before it has had its chance."""
        from_s = max(self.due_s - TOLERANCE_S, self.clean_from_s or -math.inf)
        fit = [index for index, (_, shot, _) in enumerate(self.known) if shot.at_s >= from_s]
        if self.takes_keys:
            return next((index for index in fit if self.known[index][1].is_key), None)
        if not fit:
            return None
        first = min(fit, key=lambda index: self.known[index][1].at_s)
        if is_last or self.known[first][1].at_s <= self.due_s + TOLERANCE_S or self.due_s == -math.inf:
            return first
        return first if any(is_ahead for _, _, is_ahead in self.known[fit[0] + 1 :]) else None

    def _rotten_before(self, index: int) -> int | None:
        """The first picture on the way to this one, from its key frame on, that its decoder finds damaged."""
        at_s = self.known[index][1].at_s
        keys = (place for place in range(index, -1, -1) if self.known[place][1].is_key)
        key = next((place for place in keys if self.known[place][1].at_s <= at_s), 0)
        return next((place for place in range(key, index + 1) if self.known[place][1].is_rotten), None)

    def _cut_out(self, index: int) -> None:
        """From the damaged picture to the next key frame."""
        later = range(index + 1, len(self.known))
        key = next((place for place in later if self.known[place][1].is_key), None)
        self.rejected += (len(self.known) if key is None else key) - index
        if key is None:
            self._taint()
        else:
            self.known = self.known[key:]
            self.clean_from_s = self.known[0][1].at_s


def plainly(shots: Iterable[Shot], interval_s: float) -> Plain:
    plain = Plain(interval_s)
    for number, shot in enumerate(shots):
        plain.see(number, shot)
    return plain
