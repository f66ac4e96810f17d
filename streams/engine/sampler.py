"""Packets in, due frames out, and nothing decoded that no sample needs.

A sample is due every `interval_s` of stream time. It is the first clean frame at or after that moment; where key
frames come at least as often as samples are due it is the first clean key frame, which is one picture to decode.

    waiting     pictures since the last key frame, undecoded: `_group`
    chain       a decoder and what it was given, from a key frame on
    candidate   the earliest waiting picture at or after the due time; certain once no picture that is shown
                before it can still come (B-frames arrive after pictures that are shown later)

A picture that was lost or damaged taints all that follows until the next whole key frame: copies of damage carry
no flag. How many packets of which feed are decoded is in docs/engine.md.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from av.video.frame import VideoFrame

from .chain import Chain, Waiting
from .continuity import Watch
from .decoder import Decoder
from .feed import Packet
from .stream_clock import StreamClock

# A frame this little before the due time counts as at it: timestamps are rounded, to 1/90000 s by RTP.
TOLERANCE_S = 0.001
# A key frame this late after its usual distance does not come in time: the sample is taken from what is there.
PATIENCE_S = 0.5
# Key frame distances that are remembered: smart codecs change them with what moves.
REMEMBERED_KEYS = 4
# Of pictures that wait undecoded: 16 s at 4 Mbit/s. Each counts for a kilobyte at least, which is what it takes.
MAX_WAITING_BYTES = 8 << 20
# No key frame for so long: that is worth saying. Smart codecs send one in 48 s (1200 pictures) at the worst.
KEYLESS_S = 60.0
# No key frame for so long: begin without one. The longest distance that is a default is 10 s (zoneminder #4182).
NO_KEY_S = 15.0


@dataclass(frozen=True, slots=True)
class Sample:
    frame: VideoFrame
    stream_s: float
    """Stream time since the connection's first frame."""
    due_s: float
    """Stream time at which the sample was due."""
    arrived_at: float
    """Wall clock, seconds since 1970 UTC."""


@dataclass(slots=True)
class Counts:
    """Pictures `received`; of these `decoded`, and `rejected`: unfit, something before them or of them was lost or
    damaged. `missed`: due times without a sample."""

    received: int = 0
    decoded: int = 0
    rejected: int = 0
    missed: int = 0


class KeyFrames:
    """The distance of key frames, as observed."""

    def __init__(self) -> None:
        self._gaps_s: deque[float] = deque(maxlen=REMEMBERED_KEYS)
        self.last_s: float | None = None

    def note(self, stream_s: float) -> None:
        if self.last_s is not None:
            self._gaps_s.append(stream_s - self.last_s)
        self.last_s = stream_s

    def note_loss(self) -> None:
        """The next one may not be the next that was sent."""
        self.last_s = None

    @property
    def spacing_s(self) -> float | None:
        """The longest of late; None as long as that is unknown."""
        return max(self._gaps_s) if self._gaps_s else None


@dataclass(slots=True)
class Sampler:
    """One connection's sampling: a new connection needs a new one, but may go on with the same counts."""

    interval_s: float
    open_decoder: Callable[[], Decoder]
    counts: Counts = field(default_factory=Counts)
    watch: Watch = field(default_factory=Watch)
    """What tells of losses that RTP does not."""
    decodes_all: bool = False
    """Whether there is no key frame to begin with, so that every picture has to be decoded."""
    has_begun: bool = False
    """Whether a picture has come that decoding can begin with."""
    on_decoded: Callable[[], None] = lambda: None
    _clock: StreamClock = field(default_factory=StreamClock)
    _keys: KeyFrames = field(default_factory=KeyFrames)
    _number: int = 0
    _last_number: int = 0
    _ahead_s: float = -math.inf
    _due_s: float = -math.inf
    _keyless_since_s: float | None = None
    _is_open: bool = False
    _is_tainted: bool = False
    _is_closing: bool = False
    _group: list[Waiting] = field(default_factory=list)
    _group_bytes: int = 0
    _newest_key: int = 0
    _chain: Chain | None = None
    _idle_decoder: Decoder | None = None
    _candidate: Waiting | None = None
    _key_candidate: Waiting | None = None
    _is_certain: bool = False

    def push(self, packet: Packet) -> Iterator[Sample]:
        """Take the next picture of the connection; the samples that it completes."""
        waiting = self._place(packet)
        is_lossy = packet.follows_loss or not packet.is_whole
        breach = self.watch.breach(packet.data, waiting.stream_s, is_key=packet.is_key, is_lossy=is_lossy)
        if breach and breach.is_of_picture:
            waiting.packet = replace(packet, is_whole=False)
        if is_lossy or breach:
            yield from self._close()
            self._taint()
        if not self._may_wait(waiting):
            self.counts.rejected += self._is_tainted
            return
        self._append(waiting)
        yield from self._serve()
        if self._group_bytes > MAX_WAITING_BYTES:
            yield from self._relieve()
        self._trim()

    @property
    def lacks_key_frames(self) -> bool:
        """Whether more is decoded than a sample should need."""
        last_s = self._keys.last_s
        return self.decodes_all or (last_s is not None and self._ahead_s - last_s > KEYLESS_S)

    # --- where a picture belongs ---

    def _place(self, packet: Packet) -> Waiting:
        stream_s = self._clock.at(packet.pts_s, packet.arrived_s, packet.duration_s)
        is_ahead = stream_s > self._ahead_s
        self._ahead_s = max(self._ahead_s, stream_s)
        self._number += 1
        self.counts.received += 1
        return Waiting(self._number, packet, stream_s, is_ahead)

    def _may_wait(self, waiting: Waiting) -> bool:
        """Whether it can be decoded, in its turn."""
        packet = waiting.packet
        self.has_begun |= packet.is_key
        if packet.is_key and packet.is_whole:
            if self.decodes_all:
                self._forget_group()
            self._keys.note(waiting.stream_s)
            self._is_open, self._is_tainted, self.decodes_all = True, False, False
            self._keyless_since_s = None
        elif not self._is_open and packet.is_whole and self._is_beyond_keys(waiting):
            self._is_open, self._is_tainted, self.decodes_all = True, False, True
        return self._is_open

    def _is_beyond_keys(self, waiting: Waiting) -> bool:
        """Without key frames: begin where a gradual refresh does, or anywhere if there is no sign of one either."""
        if self._keyless_since_s is None:
            self._keyless_since_s = waiting.stream_s
        if self._keys.spacing_s is None and waiting.packet.is_refresh:
            self.has_begun = True
            return True
        return waiting.stream_s - self._keyless_since_s > max(NO_KEY_S, (self._keys.spacing_s or 0.0) + PATIENCE_S)

    def _append(self, waiting: Waiting) -> None:
        self._group.append(waiting)
        self._last_number = waiting.number
        if waiting.packet.is_key:
            self._newest_key = waiting.number
        self._group_bytes += waiting.cost_bytes
        self._consider(waiting)

    def _taint(self) -> None:
        self._keys.note_loss()
        self._forget_group()
        self._is_open = False
        self._is_tainted = True

    def _forget_group(self) -> None:
        self._group, self._group_bytes, self._chain = [], 0, None
        self._seek()

    def _trim(self) -> None:
        """Nothing before a key frame is needed to decode what follows."""
        if self._candidate is not None or not self._group or self._newest_key < self._group[0].number:
            return
        index = self._newest_key - self._group[0].number
        if index or self._chain:
            self._drop(index)
            self._leave_chain()

    def _drop(self, count: int) -> None:
        self._group_bytes -= sum(waiting.cost_bytes for waiting in self._group[:count])
        del self._group[:count]

    def _relieve(self) -> Iterator[Sample]:
        """Too much waits: if a key frame is the next sample anyhow forget it, else decode it."""
        if self._takes_key_frames():
            self._forget_group()
            self._is_open = False
        elif self._group:
            yield from self._decode(self._group[-1], is_alone=False)

    # --- which picture is the next sample ---

    def _seek(self) -> None:
        self._candidate = self._key_candidate = None
        self._is_certain = False
        for waiting in self._group:
            self._consider(waiting)

    def _consider(self, waiting: Waiting) -> None:
        if waiting.is_ahead and self._candidate is not None:
            self._is_certain = True
        if waiting.stream_s < self._due_s - TOLERANCE_S or not waiting.gives_frame:
            return
        if self._candidate is None or waiting.stream_s < self._candidate.stream_s:
            self._candidate = waiting
            self._is_certain = waiting.stream_s <= self._due_s + TOLERANCE_S
        if self._key_candidate is None and (waiting.packet.is_key or self._is_second_field(waiting)):
            self._key_candidate = waiting

    def _is_second_field(self, waiting: Waiting) -> bool:
        """Of a key frame whose first field was a picture of its own and gave no frame."""
        index = waiting.number - self._group[0].number
        return index > 0 and self._group[index - 1].packet.is_key and not self._group[index - 1].gives_frame

    def _target(self) -> Waiting | None:
        """The picture that is the next sample, as soon as that is certain."""
        if self._takes_key_frames():
            return self._key_candidate
        is_certain = self._is_certain or self._is_closing or self._due_s == -math.inf
        return self._candidate if is_certain else None

    def _takes_key_frames(self) -> bool:
        spacing_s, last_s = self._keys.spacing_s, self._keys.last_s
        if spacing_s is None or self.decodes_all or spacing_s > self.interval_s + TOLERANCE_S:
            return False
        return last_s is None or self._ahead_s - last_s <= spacing_s + PATIENCE_S

    def _is_last_of_group(self, target: Waiting) -> bool:
        """Whether no other sample is expected of the target's group, so that its decoder is of no more use.

        Once the next key frame is late nothing is expected any more: no group is begun more than twice.
        """
        if self.decodes_all:
            return False
        if self._due_s == -math.inf or self._takes_key_frames():
            return True
        spacing_s, last_s = self._keys.spacing_s, self._keys.last_s
        if spacing_s is None or last_s is None:
            return False
        ends_s = last_s + spacing_s - 2 * TOLERANCE_S
        return self._ahead_s < ends_s <= self._due_after(target.stream_s)[0]

    # --- decoding ---

    def _serve(self) -> Iterator[Sample]:
        """Decode what is certain."""
        while (target := self._next()) is not None:
            if not self._is_awaiting_frame():
                self._begin_anew(target)
            yield from self._decode(target, is_alone=self._chain is None and self._is_last_of_group(target))

    def _next(self) -> Waiting | None:
        if self._group and (self.decodes_all or self._is_awaiting_frame()):
            return self._group[-1]
        return self._target()

    def _is_awaiting_frame(self) -> bool:
        return self._chain is not None and self._chain.awaits(self._due_s - TOLERANCE_S)

    def _decode(self, target: Waiting, *, is_alone: bool) -> Iterator[Sample]:
        """Decode up to the target. `is_alone`: with a decoder of its own that is left afterwards, so the group is
        kept for the case that another sample comes of it; else the decoder takes the pictures over and stays."""
        chain = self._chain or Chain(self._a_decoder(), is_gradual=self.decodes_all)
        chain.wanted_from_s = self._due_s - TOLERANCE_S
        count = self._feed(chain, target)
        if is_alone or chain.damaged_from is not None:
            chain.finish()
        due_s = self._due_s
        yield from self._samples(chain, is_alone=is_alone)
        if chain.damaged_from is not None:
            self._spoil(chain.damaged_from)
        elif is_alone:
            target.gives_frame = self._due_s != due_s
        else:
            self._chain = chain
            self._drop(count)
        self._seek()

    def _a_decoder(self) -> Decoder:
        """The one that was in use: its frames' memory is there already, which is 4 % of what decoding takes."""
        decoder, self._idle_decoder = self._idle_decoder or self.open_decoder(), None
        decoder.begin_anew()
        return decoder

    def _begin_anew(self, target: Waiting) -> None:
        """At the target's key frame, if it has come since the chain got as far as it is."""
        index = self._key_before(target)
        if index is not None:
            self._drop(index)
            self._leave_chain()

    def _leave_chain(self) -> None:
        if self._chain:
            self._idle_decoder = self._chain.decoder
            self._chain = None

    def _feed(self, chain: Chain, target: Waiting) -> int:
        """Decode what the target needs; how many pictures of the group are behind it then."""
        end = target.number - self._group[0].number + 1
        for waiting in self._group[:end]:
            if self._is_needed(waiting, chain) and chain.damaged_from is None:
                chain.feed(waiting)
                self.counts.decoded += 1
                self.on_decoded()
        return end

    def _key_before(self, target: Waiting) -> int | None:
        """Index of the waiting key frame that the target needs; leading pictures need the one before their own."""
        for index in range(target.number - self._group[0].number, -1, -1):
            waiting = self._group[index]
            if waiting.packet.is_key and waiting.stream_s <= target.stream_s:
                return index
        return None

    def _is_needed(self, waiting: Waiting, chain: Chain) -> bool:
        """Whatever others copy from, even if it is shown before the key frame: a clock that was set back looks so."""
        return waiting.packet.is_reference or waiting.stream_s >= max(chain.begins_s, self._due_s - TOLERANCE_S)

    def _samples(self, chain: Chain, *, is_alone: bool) -> Iterator[Sample]:
        for waiting, frame in chain.frames():
            if waiting.stream_s < self._due_s - TOLERANCE_S:
                continue
            due_s = self._due_s
            self._due_s, missed = self._due_after(waiting.stream_s)
            self.counts.missed += missed
            yield self._sample(waiting, frame, due_s)
            if is_alone and chain.damaged_from is None:
                return

    def _sample(self, waiting: Waiting, frame: VideoFrame, due_s: float) -> Sample:
        return Sample(
            frame,
            stream_s=waiting.stream_s,
            due_s=waiting.stream_s if due_s == -math.inf else due_s,
            arrived_at=waiting.packet.arrived_at,
        )

    def _due_after(self, stream_s: float) -> tuple[float, int]:
        """When the next sample is due after one at this stream time, and how many due times that leaves out."""
        if self._due_s == -math.inf:
            return stream_s + self.interval_s, 0
        passed = int((stream_s - self._due_s + TOLERANCE_S) / self.interval_s)
        return self._due_s + (passed + 1) * self.interval_s, passed

    def _close(self) -> Iterator[Sample]:
        """Nothing more can be added to the group: what of it is due is what is there."""
        self._is_closing = True
        yield from self._serve()
        if self._chain and self._is_awaiting_frame():
            chain = self._chain
            chain.finish()
            yield from self._samples(chain, is_alone=False)
            if chain.damaged_from is not None:
                self._spoil(chain.damaged_from)
        self._is_closing = False

    def _spoil(self, number: int) -> None:
        """The picture of this number is damaged, so all are from there to the next key frame."""
        self._chain = None
        self.watch.note_loss()
        for index, waiting in enumerate(self._group):
            if waiting.packet.is_key and waiting.number > number:
                self.counts.rejected += waiting.number - number
                self._drop(index)
                return
        self.counts.rejected += self._last_number - number + 1
        self._taint()
