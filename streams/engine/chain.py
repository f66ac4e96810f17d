"""A chain: pictures that are decoded one after the other, from a key frame on, and the frames that come out.

Frames come out in order of presentation, which with B-frames is not the order of decoding, and what is wrong with
a picture may be told only when its frame comes out. So a frame is held until all that was decoded before it has
come out too: it may copy from that.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from av.video.frame import VideoFrame

from .decoder import Decoder
from .errors import Undecodable
from .feed import Packet

# A decoder re-orders at most 16 frames (ITU-T H.264 A.3.1, MaxDpbFrames), which may come as two fields each; what
# waits for longer has no frame. Frames that are held for it count as well: of 1080p each is 3 MB.
MAX_PENDING = 48
# Of frames that are held for an earlier one: 16 of 4K and more of all that is smaller.
MAX_HELD_BYTES = 200 << 20
_COST_BYTES = 1024


@dataclass(slots=True)
class Waiting:
    """A picture in its place: `number` grows in order of arrival, `is_ahead` if all before are shown before it."""

    number: int
    packet: Packet
    stream_s: float
    is_ahead: bool
    gives_frame: bool = True

    @property
    def cost_bytes(self) -> int:
        """Of memory, while it waits."""
        return len(self.packet.data) + _COST_BYTES


class Chain:
    """`is_gradual`: it does not begin with a key frame, so the decoder may complain until its picture is whole.

    Then the second round of refreshing is waited for. libav counts the frames of the first and believes that its
    picture is whole then; but it skips the very picture it begins with, and says nothing, if nothing can pass for
    the one that is copied from (H.264 with frame_num 0 or 1 there: measured).
    """

    def __init__(self, decoder: Decoder, *, is_gradual: bool = False) -> None:
        self.decoder = decoder
        self._is_settling = is_gradual
        self._rounds: list[int] = []
        self._settles_after: int | None = None
        self._pending: dict[int, Waiting] = {}
        self._held: list[tuple[Waiting, VideoFrame]] = []
        self.begins_s = -math.inf
        """Stream time of its key frame: what is shown before but comes after copies from what is not in the chain."""
        self.wanted_from_s = -math.inf
        """Frames that are shown before this stream time are not kept: 25 of 1080p are 78 MB."""
        self.decoded = 0
        self.damaged_from: int | None = None
        """Number of the first picture that is not as it was sent, and with it all that follow."""

    def feed(self, waiting: Waiting) -> None:
        if not self.decoded and not self._is_settling:
            self.begins_s = waiting.stream_s
        self.decoded += 1
        if self._is_settling and waiting.packet.is_refresh:
            self._rounds.append(waiting.number)
        if waiting.stream_s >= self.begins_s:
            self._pending[waiting.number] = waiting
        is_long = len(self._pending) + len(self._held) > MAX_PENDING
        if self._pending and (is_long or self._held_bytes > MAX_HELD_BYTES):
            del self._pending[next(iter(self._pending))]
        try:
            frames = self.decoder.decode(waiting.packet.data, waiting.number)
        except Undecodable:
            if self._pending.pop(waiting.number, None):
                self._note_damage(waiting.number)
            return
        self._take(frames)

    def finish(self) -> None:
        """Have the frames that the decoder holds back. Nothing can be fed after that."""
        try:
            self._take(self.decoder.drain())
        except Undecodable:
            for number in list(self._pending)[:1]:
                self._note_damage(number)
        self._pending.clear()

    def frames(self) -> Iterator[tuple[Waiting, VideoFrame]]:
        """The clean ones, in order of presentation, as far as they are known to be."""
        while self._held and all(number > self._held[0][0].number for number in self._pending):
            waiting, frame = self._held.pop(0)
            if self.damaged_from is None or waiting.number < self.damaged_from:
                yield waiting, frame

    def awaits(self, from_s: float) -> bool:
        """Whether a frame that is shown at this stream time or later has not come out yet."""
        held = (waiting for waiting, _ in self._held)
        return any(waiting.stream_s >= from_s for waiting in (*self._pending.values(), *held))

    @property
    def _held_bytes(self) -> int:
        """As if all were as large as the last, in 4:2:0 with 8 bits."""
        if not self._held:
            return 0
        frame = self._held[-1][1]
        return len(self._held) * frame.width * frame.height * 3 // 2

    def _take(self, frames: list[VideoFrame]) -> None:
        for frame in frames:
            waiting = self._pending.pop(frame.pts or 0, None)
            if waiting is None:  # the second of two fields, or a frame that is shown twice
                continue
            self._is_settling = self._is_settling and not self._is_whole_by(waiting.number)
            if frame.is_corrupt:
                self._note_damage(waiting.number)
            if not self._is_settling and waiting.stream_s >= self.wanted_from_s:
                self._held.append((waiting, frame))
            for number in [n for n, other in self._pending.items() if other.stream_s < waiting.stream_s]:
                del self._pending[number]  # its turn is over: it has no frame

    def _is_whole_by(self, number: int) -> bool:
        """Of a picture that is refreshed by and by. Without a sign of that the decoder's word counts."""
        if not self._rounds:
            return True
        if self._settles_after is None:
            self._settles_after = number - self._rounds[0]
        return len(self._rounds) > 1 and number >= self._rounds[1] + self._settles_after

    def _note_damage(self, number: int) -> None:
        """The picture of this number is not as it was sent. In the first round of refreshing that says nothing."""
        if not self._is_settling or len(self._rounds) > 1:
            self.damaged_from = number if self.damaged_from is None else min(number, self.damaged_from)
