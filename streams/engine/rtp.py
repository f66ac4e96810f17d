"""RTP packets in, coded pictures out: headers, order, losses (RFC 3550). Pure."""

import struct
from collections.abc import Callable, Sequence
from typing import Protocol

from . import errors
from .coded import Assembler, CodedPicture
from .h26x import H264, H265
from .jpeg import JPEG
from .mpeg4 import MPEG4
from .sdp import Track

__all__ = ["CodedPicture", "Depacketizer", "depacketizer"]

_HEADER = struct.Struct(">HHII").unpack_from  # flags and payload type, sequence number, timestamp, SSRC
_EXTENSION: Callable[[memoryview, int], tuple[int, int]] = struct.Struct(">HH").unpack_from  # profile, words
_HEADER_BYTES = 12
_MARKER = 0x80
_REORDER_PACKETS = 64  # 140 ms of a feed of 4 Mbit/s: longer is a loss
_DROPOUT_PACKETS = 3000  # RFC 3550 appendix A.1: a sequence number further ahead is another sequence
_MISORDER_PACKETS = 1000  # further behind as well; the RFC's 100 is less than a burst over Wi-Fi
_STRANGERS_MAX = 64  # so many in a row that do not fit, and they are the sequence


class Depacketizer(Protocol):
    @property
    def lost(self) -> int:
        """RTP packets missed so far."""

    def push(self, packet: memoryview) -> Sequence[CodedPicture]:
        """One RTP packet, header included; what is kept is copied. The pictures that it completes."""

    def settle(self) -> Sequence[CodedPicture]:
        """The line went quiet: the picture that waits, if its last packet had the marker bit.

        So a feed of one frame a second is not a frame late.
        """


def depacketizer(track: Track, *, is_ordered: bool) -> Depacketizer:
    """`is_ordered`: over TCP. Raises Undecodable for an encoding without a reader here."""
    make = _ASSEMBLERS.get(track.encoding.upper())
    if make is None:
        name = "".join(letter for letter in track.encoding if letter.isprintable())[:32]
        raise errors.Undecodable(f"The stream's video is {name or 'of no known kind'}: it cannot be decoded.")
    return _Line(make(track), track.payload_type, is_ordered)


_ASSEMBLERS: dict[str, Callable[[Track], Assembler]] = {
    "H264": lambda track: H264(track.fmtp),
    "H265": lambda track: H265(track.fmtp),
    "HEVC": lambda track: H265(track.fmtp),
    "MP4V-ES": lambda track: MPEG4(track.fmtp),
    "JPEG": lambda track: JPEG(track.fmtp),
}


class _Line:
    """One track's packets: in order, without repeats, their headers taken off."""

    __slots__ = (
        "_announced",
        "_assembler",
        "_held",
        "_is_begun",
        "_is_ordered",
        "_next",
        "_plain",
        "_raw",
        "_ssrc",
        "_strangers",
        "_take",
        "_unwrapped",
        "lost",
    )

    def __init__(self, assembler: Assembler, payload_type: int, is_ordered: bool) -> None:
        self._assembler = assembler
        self._take = assembler.take
        self._is_ordered = is_ordered
        self._announced = payload_type
        self._plain = 0
        self._expect_type(payload_type)
        self._is_begun = False
        self._next = -1
        self._ssrc = -1
        self._raw = self._unwrapped = 0  # the timestamp before, as sent and as given
        self._strangers = 0
        self._held: dict[int, bytes] = {}  # packets that came too early, by sequence number
        self.lost = 0

    def push(self, packet: memoryview) -> Sequence[CodedPicture]:
        """The common case alone: no padding, no extension, next in order. 450 a second at 4 Mbit/s."""
        try:
            flags, sequence, timestamp, ssrc = _HEADER(packet)
        except struct.error:
            return ()
        if sequence != self._next or flags | _MARKER != self._plain or ssrc != self._ssrc:
            return self._place(packet, flags, sequence, timestamp, ssrc)
        self._next = sequence + 1 & 0xFFFF
        self._strangers = 0
        if timestamp != self._raw:
            self._unwrap(timestamp)
        pictures = self._take(packet, _HEADER_BYTES, self._unwrapped, flags & _MARKER != 0)
        return [*pictures, *self._release()] if self._held else pictures

    def settle(self) -> Sequence[CodedPicture]:
        pictures: list[CodedPicture] = []
        while self._held:
            pictures += self._skip()
        return [*pictures, *self._assembler.settle()]

    def _expect_type(self, payload_type: int) -> None:
        self._plain = 0x8000 | _MARKER | payload_type

    def _place(
        self, packet: memoryview, flags: int, sequence: int, timestamp: int, ssrc: int
    ) -> Sequence[CodedPicture]:
        """A packet that is not simply the next one."""
        if flags >> 14 != 2 or (not self._is_of_type(flags & 0x7F) and ssrc != self._ssrc):
            return ()
        if not self._is_begun:
            self._begin(sequence, timestamp, ssrc)
        ahead = sequence - self._next & 0xFFFF
        is_near = ssrc == self._ssrc and ahead < _DROPOUT_PACKETS
        if not is_near and self._is_stranger(ssrc, ahead):
            return ()
        if not is_near:
            self._begin_anew(sequence, ssrc)
            ahead = 0
        self._strangers = 0
        if ahead and not self._is_ordered:
            return self._hold(packet, sequence)
        if ahead:
            self._miss(ahead)
        return [*self._accept(packet, flags, sequence, timestamp), *self._release()]

    def _is_of_type(self, payload_type: int) -> bool:
        """Some cameras announce one type and send another: until the announced one comes, the first that does.

        Types 64 to 95 are RTCP on the same port (RFC 5761), those below mean something else (RFC 3551).
        """
        if payload_type == self._plain & 0x7F:
            return True
        if payload_type == self._announced or (not self._is_begun and payload_type >= 96):
            self._expect_type(payload_type)
            return True
        return False

    def _begin(self, sequence: int, timestamp: int, ssrc: int) -> None:
        self._is_begun = True
        self._next, self._ssrc = sequence, ssrc
        self._raw = self._unwrapped = timestamp

    def _begin_anew(self, sequence: int, ssrc: int) -> None:
        """How many were lost nobody knows: one at least."""
        self._held.clear()
        self._next, self._ssrc = sequence, ssrc
        self.lost += 1
        self._assembler.lose()

    def _is_stranger(self, ssrc: int, ahead: int) -> bool:
        """Late, repeated, or of another sequence, like that of a session before: to be left out.

        Over TCP a new sequence is taken at once; a late packet there was mixed up by a relay, and its place
        was called lost.
        """
        is_late = ssrc == self._ssrc and ahead > 0xFFFF - _MISORDER_PACKETS
        if self._is_ordered and not is_late:
            return False
        self._strangers += 1
        return self._strangers <= _STRANGERS_MAX

    def _hold(self, packet: memoryview, sequence: int) -> Sequence[CodedPicture]:
        self._held[sequence] = bytes(packet)
        return self._skip() if len(self._held) > _REORDER_PACKETS else ()

    def _skip(self) -> Sequence[CodedPicture]:
        """What is missing before the first packet held is lost."""
        ahead = min(sequence - self._next & 0xFFFF for sequence in self._held)
        self._miss(ahead)
        return self._release()

    def _miss(self, packets: int) -> None:
        self._next = self._next + packets & 0xFFFF
        self.lost += packets
        self._assembler.lose()

    def _release(self) -> Sequence[CodedPicture]:
        pictures: list[CodedPicture] = []
        while self._held and (held := self._held.pop(self._next, None)) is not None:
            flags, sequence, timestamp, _ = _HEADER(held)
            pictures += self._accept(memoryview(held), flags, sequence, timestamp)
        return pictures

    def _accept(self, packet: memoryview, flags: int, sequence: int, timestamp: int) -> Sequence[CodedPicture]:
        """The next packet in order, whatever is in its header. One of another type only takes its number."""
        self._next = sequence + 1 & 0xFFFF
        if flags & 0x7F != self._plain & 0x7F:
            return ()
        start = self._payload_start(packet, flags)
        end = len(packet) - (packet[-1] if flags & 0x2000 else 0)
        if start is None or end < start:
            self.lost += 1
            self._assembler.lose()
            return ()
        if start == end:
            return ()
        self._unwrap(timestamp)
        return self._take(packet[:end], start, self._unwrapped, flags & _MARKER != 0)

    def _payload_start(self, packet: memoryview, flags: int) -> int | None:
        """Behind the sources and the extension; None if the packet ends before."""
        start = _HEADER_BYTES + (flags >> 8 & 0x0F) * 4
        if not flags & 0x1000:
            return start
        if len(packet) < start + 4:
            return None
        profile, words = _EXTENSION(packet, start)
        extension, start = start + 4, start + 4 + words * 4
        if start <= len(packet):
            self._assembler.extension(profile, packet[extension:start])
        return start

    def _unwrap(self, timestamp: int) -> None:
        """Forward or back, whichever is nearer."""
        self._unwrapped += (timestamp - self._raw + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        self._raw = timestamp
