"""RTP packets in, coded pictures out: headers, order, losses (RFC 3550). Pure."""

import struct
from collections.abc import Callable, Sequence
from typing import Protocol

from . import errors
from .codec_choice import CodecChoice
from .coded import Assembler, CodedPicture
from .encodings import ENCODINGS
from .sdp import Track

__all__ = ["CodedPicture", "Depacketizer", "depacketizer"]

_HEADER = struct.Struct(">HHII").unpack_from  # flags and payload type, sequence number, timestamp, SSRC
_EXTENSION: Callable[[memoryview, int], tuple[int, int]] = struct.Struct(">HH").unpack_from  # profile, words
_HEADER_BYTES = 12
_MARKER = 0x80
_RTCP_TYPES = range(64, 96)  # RTCP on the same port looks like these (RFC 5761)
_VIDEO_TYPES_FROM = 24  # RFC 3551 section 6: static types below are sound
_REORDER_PACKETS = 64  # 140 ms of a feed of 4 Mbit/s: longer is a loss
_DROPOUT_PACKETS = 3000  # RFC 3550 appendix A.1: a sequence number further ahead is another sequence
_MISORDER_PACKETS = 1000  # further behind as well; the RFC's 100 is less than a burst over Wi-Fi
_STRANGERS_MAX = 64  # so many in a row that do not fit, and they are the sequence
# Another source is taken once ours has been silent for half a second of its timestamps, or three of our pictures. A
# session that ended may still send on our channel for 65 s (retina #17), a key frame of it is 200 packets in a row.
_SILENCE_PICTURES = 3
_SILENCE_S_MIN, _SILENCE_S_MAX = 0.5, 10.0
_FOREIGN_BYTES_MAX = 8 << 20  # packets of another source that are kept until then: 16 s at 4 Mbit/s
_PACKET_COST_BYTES = 256  # of memory, beside its bytes
_LEAPS_MAX = 6  # so many numbers that are not one more, and none that is: they do not count packets
_RESTARTS_MAX = 3  # nor do they if so many short sequences follow each other over TCP

# What is known of the sequence numbers. Over UDP they are believed. TCP loses nothing by itself: there the order of
# arrival counts where the numbers do not count packets. A relay's numbers do, and show what it has not received.
#
#   _UNPROVEN  --one more within a picture-->  _PROVEN
#   _UNPROVEN  --the same again, or only leaps-->  _MEANINGLESS  <--another sequence three times--  _PROVEN
_UNPROVEN, _PROVEN, _MEANINGLESS = range(3)


class Depacketizer(Protocol):
    @property
    def lost(self) -> int:
        """RTP packets missed so far."""

    @property
    def codec(self) -> str:
        """libav's name of the decoder for the pictures; certain from the first picture on."""

    @property
    def complaint(self) -> str:
        """A sentence about what cannot be read of the stream; empty if there is nothing."""

    def push(self, packet: memoryview) -> Sequence[CodedPicture]:
        """One RTP packet, header included; what is kept is copied. The pictures that it completes."""

    def settle(self) -> Sequence[CodedPicture]:
        """The line went quiet: the picture that waits, if its last packet had the marker bit.

        So a feed of one frame a second is not a frame late.
        """


def depacketizer(track: Track, *, is_ordered: bool) -> Depacketizer:
    """`is_ordered`: over TCP. Raises Undecodable for an encoding without a reader here."""
    if track.encoding not in ENCODINGS:
        name = "".join(letter for letter in track.encoding if letter.isprintable())[:32]
        raise errors.Undecodable(f"The stream's video is {name or 'of no known kind'}: it cannot be decoded.")
    return _Line(track, is_ordered)


class _Line:
    """One track's packets: in order, without repeats, their headers taken off."""

    __slots__ = (
        "_announced",
        "_assembler",
        "_before",
        "_codec",
        "_counting",
        "_early",
        "_grows",
        "_held",
        "_is_begun",
        "_is_ordered",
        "_leaps",
        "_next",
        "_pace",
        "_plain",
        "_raw",
        "_restarted_at",
        "_restarts",
        "_rival",
        "_ssrc",
        "_stranger_bytes",
        "_strangers",
        "_take",
        "_track",
        "_type",
        "_unwrapped",
        "lost",
    )

    def __init__(self, track: Track, is_ordered: bool) -> None:
        encoding = ENCODINGS[track.encoding]
        assembler: Assembler | CodecChoice = encoding.assembler(track.fmtp)
        self._assembler = assembler
        self._take = self._take_undecided if isinstance(assembler, CodecChoice) else assembler.take
        self._codec = encoding.codec
        self._track = track
        self._rival: _Line | None = None  # another source that came before ours has given a key frame
        self._is_ordered = is_ordered
        self._announced = track.payload_type
        self._counting = _UNPROVEN if is_ordered else _PROVEN
        self._type = self._plain = 0
        self._expect_type(track.payload_type)
        self._is_begun = False
        self._next = -1
        self._ssrc = -1
        self._raw = self._unwrapped = 0  # the timestamp before, as sent and as given
        self._pace = 0  # the longest distance of two pictures of late, in ticks
        self._strangers: list[bytes] = []  # packets that do not fit, in a row, of one source
        self._stranger_bytes = 0
        self._held: dict[int, bytes] = {}  # packets that came too early, by sequence number
        self._before = b""  # the packet before, as long as the numbers are unproven
        self._early: list[bytes] = []  # packets behind the first leap, until it is known what leaps mean
        self._grows = False  # whether a number was one more than the one before
        self._leaps = self._restarts = 0
        self._restarted_at = 0  # the number that the sequence began with
        self.lost = 0

    @property
    def codec(self) -> str:
        return self._codec

    @property
    def complaint(self) -> str:
        return self._assembler.complaint

    def push(self, packet: memoryview) -> Sequence[CodedPicture]:
        """The common case alone: no padding, no extension, next in order. 450 a second at 4 Mbit/s."""
        try:
            flags, sequence, timestamp, ssrc = _HEADER(packet)
        except struct.error:
            return ()
        if sequence != self._next or flags | _MARKER != self._plain or ssrc != self._ssrc:
            return self._place(packet, flags, sequence, timestamp, ssrc)
        self._next = sequence + 1 & 0xFFFF
        if timestamp != self._raw:
            self._unwrap(timestamp)
        pictures = self._take(packet, _HEADER_BYTES, self._unwrapped, flags & _MARKER != 0)
        return [*pictures, *self._release()] if self._held else pictures

    def settle(self) -> Sequence[CodedPicture]:
        pictures = list(self._take_early())
        while self._held:
            pictures += self._skip()
        pictures += self._assembler.settle()
        self._note_choice()
        return pictures

    # --- which codec ---

    def _take_undecided(
        self, packet: memoryview, start: int, timestamp: int, is_marked: bool
    ) -> Sequence[CodedPicture]:
        """The description may name the wrong one of H.264 and H.265: the first packets tell."""
        pictures = self._assembler.take(packet, start, timestamp, is_marked)
        self._note_choice()
        return pictures

    def _note_choice(self) -> None:
        choice = self._assembler
        if isinstance(choice, CodecChoice) and choice.chosen:
            self._assembler, self._take, self._codec = choice.chosen, choice.chosen.take, choice.codec

    # --- which packets ---

    def _expect_type(self, payload_type: int) -> None:
        self._type = payload_type
        self._plain = 0x8000 | _MARKER | payload_type if self._counting == _PROVEN else 0

    def _place(
        self, packet: memoryview, flags: int, sequence: int, timestamp: int, ssrc: int
    ) -> Sequence[CodedPicture]:
        """A packet that is not simply the next one."""
        kind = flags & 0x7F
        if flags >> 14 != 2 or kind in _RTCP_TYPES:
            return ()
        if not self._is_begun:
            if kind != self._announced and kind < _VIDEO_TYPES_FROM:
                return ()
            self._expect_type(kind)
            self._begin(sequence, timestamp, ssrc)
        elif ssrc != self._ssrc:
            return self._meet(packet, kind, timestamp, ssrc)
        elif kind == self._announced:
            # Some cameras announce one type and send another: until the announced one comes, the first that does.
            self._expect_type(kind)
        if self._strangers and _HEADER(self._strangers[0])[3] != ssrc:
            self._forget_strangers()
        if self._counting == _UNPROVEN:
            return self._take_unproven(packet, flags, sequence, timestamp)
        return self._take_in_order(packet, flags, sequence, timestamp)

    def _begin(self, sequence: int, timestamp: int, ssrc: int) -> None:
        self._is_begun = True
        self._next, self._ssrc = sequence, ssrc
        self._raw = self._unwrapped = timestamp

    def _begin_anew(self, sequence: int, ssrc: int) -> None:
        """How many were lost nobody knows: one at least."""
        self._held.clear()
        self._next, self._ssrc = sequence, ssrc
        self._before = b""
        self.lost += 1
        self._assembler.lose()

    def _meet(self, packet: memoryview, kind: int, timestamp: int, ssrc: int) -> Sequence[CodedPicture]:
        """A packet of another source: a session before this one, which the camera still serves, or our new one.

        It is kept until it is known which, so that nothing is lost of a new one.
        """
        if kind not in (self._announced, self._type):
            return ()
        if not self._assembler.has_key and (pictures := self._compare(packet, ssrc)):
            return pictures
        if self._strangers and _HEADER(self._strangers[0])[3] != ssrc:
            self._forget_strangers()
        self._note_stranger(packet)
        began = _HEADER(self._strangers[0])[2]
        silent_s = abs(_signed(timestamp - began)) / self._track.clock_rate
        patience_s = max(_SILENCE_S_MIN, _SILENCE_PICTURES * self._pace / self._track.clock_rate)
        is_announced = kind == self._announced != self._type
        is_ours = silent_s > min(patience_s, _SILENCE_S_MAX) or self._stranger_bytes > _FOREIGN_BYTES_MAX
        return self._adopt() if is_ours or is_announced else ()

    def _compare(self, packet: memoryview, ssrc: int) -> Sequence[CodedPicture]:
        """Of two sources that come from the start, the one whose key frame is whole first is the stream."""
        if self._rival is None:
            self._rival = _Line(self._track, self._is_ordered)
        rival = self._rival
        if rival._is_begun and rival._ssrc != ssrc:
            return ()
        pictures = rival.push(packet)
        if not rival._assembler.has_key:
            return ()
        lost = self.lost
        for name in self.__slots__:
            setattr(self, name, getattr(rival, name))
        self.lost += lost
        return pictures

    def _note_stranger(self, packet: memoryview) -> None:
        self._strangers.append(bytes(packet))
        self._stranger_bytes += len(packet) + _PACKET_COST_BYTES
        self._plain = 0  # so the next packet that fits is no plain one, and they are forgotten

    def _forget_strangers(self) -> None:
        self._strangers.clear()
        self._stranger_bytes = 0
        self._expect_type(self._type)

    def _adopt(self) -> Sequence[CodedPicture]:
        """The packets that did not fit are the stream from now on."""
        packets, self._strangers, self._stranger_bytes = self._strangers, [], 0
        _, sequence, _, ssrc = _HEADER(packets[0])
        pictures = list(self._take_early())
        self._begin_anew(sequence, ssrc)
        for packet in packets:
            pictures += self.push(memoryview(packet))
        return pictures

    # --- in which order ---

    def _take_in_order(self, packet: memoryview, flags: int, sequence: int, timestamp: int) -> Sequence[CodedPicture]:
        """Of our source, after what was lost before it, or later if something may still come before it."""
        ahead = sequence - self._next & 0xFFFF if self._counting != _MEANINGLESS else 0
        if ahead >= _DROPOUT_PACKETS:
            return self._out_of_sequence(packet, flags, sequence, timestamp, ahead)
        self._forget_strangers()
        if ahead and not self._is_ordered:
            return self._hold(packet, sequence)
        if ahead:
            self._miss(ahead)
        return [*self._accept(packet, flags, sequence, timestamp), *self._release()]

    def _take_unproven(self, packet: memoryview, flags: int, sequence: int, timestamp: int) -> Sequence[CodedPicture]:
        """Over TCP. Packets wait while nothing but leaps was seen: they are losses, or the numbers mean nothing."""
        before, self._before = self._before, bytes(packet)
        if before == self._before:
            return ()
        _, last, at, _ = _HEADER(before) if before else (0, sequence, timestamp, 0)
        step = sequence - last & 0xFFFF
        if step == 1:
            self._grows = True
            self._trust(_PROVEN if timestamp == at else _UNPROVEN)
        elif before and step == 0:
            self._trust(_MEANINGLESS)
        elif before and not self._grows:
            self._leaps += 1
            self._early.append(self._before)
            if self._leaps < _LEAPS_MAX:
                return ()
            self._trust(_MEANINGLESS)
            return self._take_early()
        return [*self._take_early(), *self._take_in_order(packet, flags, sequence, timestamp)]

    def _trust(self, counting: int) -> None:
        self._counting = counting
        self._expect_type(self._type)

    def _take_early(self) -> Sequence[CodedPicture]:
        """The packets behind the first leap, now that it is known what it was."""
        if not self._early:
            return ()
        early, self._early = self._early, []
        pictures: list[CodedPicture] = []
        for packet in early:
            flags, sequence, timestamp, _ = _HEADER(packet)
            pictures += self._take_in_order(memoryview(packet), flags, sequence, timestamp)
        return pictures

    def _out_of_sequence(
        self, packet: memoryview, flags: int, sequence: int, timestamp: int, ahead: int
    ) -> Sequence[CodedPicture]:
        """Late or repeated, to be left out; or the begin of another sequence.

        Over TCP that is taken at once; a late packet there was mixed up by a relay, and its place was called lost.
        """
        is_late = ahead > 0xFFFF - _MISORDER_PACKETS and _signed(timestamp - self._raw) <= 0
        if not self._is_ordered or is_late:
            self._note_stranger(packet)
            return self._adopt() if len(self._strangers) > _STRANGERS_MAX else ()
        self._forget_strangers()
        is_short = self._next - self._restarted_at & 0xFFFF < _MISORDER_PACKETS
        self._restarts, self._restarted_at = self._restarts * is_short + 1, sequence
        if self._restarts >= _RESTARTS_MAX:
            self._trust(_MEANINGLESS)
        else:
            self._begin_anew(sequence, self._ssrc)
        return self._accept(packet, flags, sequence, timestamp)

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
        if flags & 0x7F != self._type:
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
        step = _signed(timestamp - self._raw)
        self._unwrapped += step
        self._raw = timestamp
        self._pace = max(self._pace - (self._pace >> 3), abs(step))  # of late: it shrinks by an eighth each


def _signed(ticks: int) -> int:
    """A difference of timestamps, from -2**31 on."""
    return (ticks + 0x80000000 & 0xFFFFFFFF) - 0x80000000
