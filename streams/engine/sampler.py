"""Packets in, due frames out.

A sample is due every `interval_s` of stream time; it is the first clean frame at or after that moment.
This sampler decodes every packet; which of them it could leave undecoded is nobody's business but its own.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from av.video.frame import VideoFrame

from .errors import Undecodable
from .feed import MICROSECOND, Decoder, Packet

# Stream time and the arrival clock may differ by this much before the sender's timestamps are given up:
# more than any burst at the start or after a stall that is not yet a lost connection.
MAX_DRIFT_S = 15.0
# A step back within this is re-ordering (B-frames), a step ahead within this is jitter.
MAX_STEP_S = 1.5
# A frame this little before the due time counts as at it: timestamps are rounded, to 1/90000 s by RTP.
TOLERANCE_S = 0.001


@dataclass(frozen=True, slots=True)
class Sample:
    frame: VideoFrame
    stream_s: float
    """Stream time since the connection's first frame."""
    arrived_at: float
    """Wall clock, seconds since 1970 UTC."""


class StreamClock:
    """Stream time of one connection, rebuilt from differences: it begins at 0 and never trusts a jump.

    Timestamps that are missing take the packet's duration, or else the time between arrivals. Timestamps that
    stand still or run fast for MAX_DRIFT_S are given up for the rest of the connection in favour of arrivals.
    """

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._last_s = 0.0
        self._last_arrived_s: float | None = None
        self._begun_s = 0.0
        self.trusts_timestamps = True

    def at(self, packet: Packet) -> float:
        if self._last_arrived_s is None:
            self._begun_s = self._last_arrived_s = packet.arrived_s
            stream_s = self._from(packet, 0.0)
        else:
            stream_s = self._next(packet, packet.arrived_s - self._last_arrived_s)
        self._last_arrived_s = packet.arrived_s
        self._last_s = max(self._last_s, stream_s)
        self._check_drift(packet)
        return stream_s

    def _next(self, packet: Packet, waited_s: float) -> float:
        if not self.trusts_timestamps:
            return self._last_s + waited_s
        step_s = packet.duration_s or waited_s
        if packet.pts_s is None:
            return self._last_s + step_s
        if self._offset_s is None:
            return self._from(packet, self._last_s + step_s)
        stream_s = packet.pts_s + self._offset_s
        if self._last_s - MAX_STEP_S <= stream_s <= self._last_s + waited_s + MAX_STEP_S:
            return stream_s
        return self._from(packet, self._last_s + max(step_s, waited_s))

    def _from(self, packet: Packet, stream_s: float) -> float:
        """Count from here: this packet's timestamp means `stream_s`."""
        if packet.pts_s is not None:
            self._offset_s = stream_s - packet.pts_s
        return stream_s

    def _check_drift(self, packet: Packet) -> None:
        drift_s = self._last_s - (packet.arrived_s - self._begun_s)
        if abs(drift_s) > MAX_DRIFT_S:
            self.trusts_timestamps = False


@dataclass(slots=True)
class Counts:
    """`clean` and `rejected`: decoded frames that may be scored or not; `missed`: due times without a frame."""

    clean: int = 0
    rejected: int = 0
    missed: int = 0


@dataclass(slots=True)
class _Held:
    """A frame that is shown before others which were decoded before it (B-frames): it may copy from those,
    so their flags, which come later, decide about it too. `before`: their presentation times."""

    sample: Sample
    before: set[int]


@dataclass(slots=True)
class Sampler:
    """One connection's sampling: a new connection needs a new one, but may go on with the same counts."""

    interval_s: float
    decoder: Decoder
    counts: Counts = field(default_factory=Counts)
    _clock: StreamClock = field(default_factory=StreamClock)
    _has_begun: bool = False
    _clean_from_us: int | None = None
    _first_s: float | None = None
    _due_s: float = 0.0
    _arrivals: dict[int, float] = field(default_factory=dict)
    _held: list[_Held] = field(default_factory=list)

    def push(self, packet: Packet) -> Iterator[Sample]:
        """Take the next packet of the connection; the samples that it completes."""
        stream_us = round(self._clock.at(packet) * MICROSECOND)
        self._watch(packet, stream_us)
        for frame in self._decode(packet, stream_us):
            yield from self._take(frame, stream_us if frame.pts is None else frame.pts, packet)

    def _take(self, frame: VideoFrame, frame_us: int, packet: Packet) -> Iterator[Sample]:
        arrived_at, before = self._arrival_of(frame_us, packet)
        if frame.is_corrupt:
            self._clean_from_us = None
            self._drop_copies_of(frame_us)
        for held in self._held:
            held.before.discard(frame_us)
        if self._clean_from_us is None or frame_us < self._clean_from_us:
            self.counts.rejected += 1
        else:
            self._held.append(_Held(Sample(frame, frame_us / MICROSECOND, arrived_at), before))
        yield from self._release()

    def _release(self) -> Iterator[Sample]:
        """Of the frames that nothing can speak against any more those that are due."""
        while self._held and not self._held[0].before:
            sample = self._held.pop(0).sample
            self.counts.clean += 1
            if self._is_due(sample.stream_s):
                yield sample

    def _drop_copies_of(self, frame_us: int) -> None:
        kept = [held for held in self._held if frame_us not in held.before]
        self.counts.rejected += len(self._held) - len(kept)
        self._held = kept

    def _watch(self, packet: Packet, stream_us: int) -> None:
        """Damage taints all that follows, until the next whole key frame: copies of damage carry no flag."""
        if packet.is_damaged:
            self._clean_from_us = None
        elif packet.is_key:
            self._has_begun = True
            if self._clean_from_us is None:
                self._clean_from_us = stream_us

    def _decode(self, packet: Packet, stream_us: int) -> list[VideoFrame]:
        if not self._has_begun:
            return []
        self._arrivals[stream_us] = packet.arrived_at
        try:
            return self.decoder.decode(packet, stream_us)
        except Undecodable:
            self._arrivals.pop(stream_us, None)
            self._clean_from_us = None
            return []

    def _arrival_of(self, frame_us: int, packet: Packet) -> tuple[float, set[int]]:
        """When the frame's packet came, and which packets fed before it have not given their frame yet."""
        before = set(itertools.takewhile(lambda fed_us: fed_us != frame_us, self._arrivals))
        arrived_at = self._arrivals.pop(frame_us, packet.arrived_at)
        for lost_us in [fed_us for fed_us in self._arrivals if fed_us < frame_us]:
            del self._arrivals[lost_us]
            before.discard(lost_us)
            self._drop_copies_of(lost_us)
        return arrived_at, before

    def _is_due(self, frame_s: float) -> bool:
        if self._first_s is None:
            self._first_s = self._due_s = frame_s
        if frame_s < self._due_s - TOLERANCE_S:
            return False
        passed = int((frame_s - self._due_s + TOLERANCE_S) / self.interval_s)
        self.counts.missed += passed
        self._due_s += (passed + 1) * self.interval_s
        return True
