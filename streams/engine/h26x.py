"""H.264 and H.265 over RTP: NAL units out of packets (RFC 6184, RFC 7798), pictures out of NAL units. Pure."""

import base64
import binascii
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from .coded import PICTURE_BYTES_MAX, Assembler, CodedPicture

_START = b"\0\0\0\1"
_STARTS = (b"\0\0\1", _START)
_START_CODE = re.compile(rb"\x00{2,}\x01")
_PREFIX_UNITS_MAX = 64  # a picture has some ten units before its first slice
_PREFIX_BYTES_MAX = 1 << 20
_SET_BYTES_MAX = 4096  # parameter sets are some tens of bytes
_SETS_MAX = 64
_SETS_BYTES_MAX = 1 << 16  # of all; they are put before each key picture
_RECOVERY_POINT = 6  # type of SEI message, H.264 annex D.1


# What a unit is. Plain numbers: to look up a member of an Enum takes 100 ns, 25 times for each picture.
_SLICE, _SET, _SEI, _BEFORE, _AFTER, _IGNORED = range(6)
# Where the fragments that come in go: nowhere, to the picture, or to a buffer for units that are no slice.
_NOWHERE, _TO_PICTURE, _TO_PARTIAL = range(3)


class _H26x(Assembler):
    """A picture is its slices, and the units that stand before them.

    Parameter sets, SEI and delimiters wait until the next slice tells whose they are: some senders repeat
    the parameter sets before each slice of one picture (GStreamer's rtph264pay with config-interval=-1).
    """

    __slots__ = (
        "_carried",
        "_is_key",
        "_is_reference",
        "_open_unit",
        "_partial",
        "_picture_refresh",
        "_prefix",
        "_prefix_bytes",
        "_refresh",
        "_sets",
        "_slice_time",
    )

    HEADER_BYTES: ClassVar[int]
    NEEDED_SETS: ClassVar[frozenset[int]]  # types of parameter sets without which no picture decodes

    def __init__(self, known: Iterable[bytes]) -> None:
        """`known`: the parameter sets of the SDP, without start codes."""
        super().__init__()
        self._open_unit = _NOWHERE  # the one whose fragments come in
        self._partial = bytearray()  # a unit in fragments that is no slice
        self._prefix: list[bytes] = []  # units for whichever slice comes next
        self._prefix_bytes = 0
        self._carried: set[tuple[int, int]] = set()  # parameter sets in the prefix
        self._refresh: int | None = None  # recovery_frame_cnt in the prefix
        self._sets: dict[tuple[int, int], bytes] = {}  # newest of each type and id
        self._is_key = self._is_reference = False
        self._picture_refresh: int | None = None
        self._slice_time = 0  # the timestamp of the slice before
        for unit in known:
            if self._kind(unit) == _SET:
                self._keep_set(unit)
        self._carried.clear()

    @property
    def has_sets(self) -> bool:
        """Whether all parameter sets that a picture needs are known."""
        return self.NEEDED_SETS.issubset(kind for kind, _ in self._sets)

    @abstractmethod
    def _kind(self, head: bytes | memoryview) -> int:
        """Of a unit by its header."""

    @abstractmethod
    def _note_slice(self, head: bytes | memoryview) -> None:
        """The picture's first slice has come: what kind of picture is it?"""

    @abstractmethod
    def _set_key(self, unit: bytes) -> tuple[int, int]:
        """Type and id of a parameter set. Raises IndexError or ValueError."""

    def _is_first(self, head: bytes | memoryview) -> bool:
        """H.264: first_mb_in_slice, Exp-Golomb, 0 when its first bit is set. H.265 has a flag there."""
        return head[self.HEADER_BYTES] & 0x80 != 0

    def _drop_fragment(self) -> None:
        """What waits for the next slice may have belonged to a lost one. Parameter sets are good in any case."""
        self._open_unit = _NOWHERE
        self._partial.clear()
        self._refresh = None
        self._prefix = [unit for unit in self._prefix if self._kind(unit) == _SET]
        self._prefix_bytes = sum(map(len, self._prefix))

    def _unit(self, unit: memoryview) -> None:
        """A NAL unit that came whole."""
        self._close_fragment()
        if len(unit) <= self.HEADER_BYTES:
            return
        if not unit[0] and bytes(unit[:4]).startswith(_STARTS):
            self._split(bytes(unit))
        elif unit[0] & 0x80:  # forbidden_zero_bit: the sender knows it to be damaged
            self.lose()
        elif self._kind(unit) != _SLICE:
            self._side_unit(bytes(unit))
        elif self._begin_slice(unit):
            self._append(b"".join((_START, unit)))

    def _split(self, data: bytes) -> None:
        """Annex B inside of a unit, as sloppy cameras send it."""
        for unit in _START_CODE.split(data):
            if len(unit) > self.HEADER_BYTES:
                self._unit(memoryview(unit))

    def _side_unit(self, unit: bytes) -> None:
        """A whole unit that is no slice. A V380 sends SPS, PPS and slice as one, with start codes (retina #68)."""
        if b"\0\0\1" in unit:
            self._split(unit)
            return
        kind = self._kind(unit)
        if kind == _AFTER and self._has_picture and not self._is_gap:
            self._append(_START + unit)
        elif kind != _IGNORED and kind != _AFTER:
            self._keep_prefix(unit, kind)

    def _keep_prefix(self, unit: bytes, kind: int) -> None:
        if kind == _SET:
            self._keep_set(unit)
        elif kind == _SEI:
            self._note_sei(unit)
        self._prefix.append(unit)
        self._prefix_bytes += len(unit)
        if len(self._prefix) > _PREFIX_UNITS_MAX or self._prefix_bytes > _PREFIX_BYTES_MAX:
            self._clear_prefix()

    def _clear_prefix(self) -> None:
        self._prefix.clear()
        self._prefix_bytes = 0
        self._carried.clear()

    def _note_sei(self, unit: bytes) -> None:
        """H.264 alone has something in it that is of use here."""

    def _keep_set(self, unit: bytes) -> None:
        try:
            key = self._set_key(unit)
        except (IndexError, ValueError):
            return
        others_bytes = sum(len(known) for other, known in self._sets.items() if other != key)
        is_little = len(unit) <= _SET_BYTES_MAX and others_bytes + len(unit) <= _SETS_BYTES_MAX
        if is_little and (key in self._sets or len(self._sets) < _SETS_MAX):
            self._sets[key] = unit
            self._carried.add(key)

    def _begin_slice(self, head: bytes | memoryview) -> bool:
        """Its first bytes are here. False if the slice is of no use."""
        is_first = self._is_first(head)
        if self._has_picture and is_first:
            self._repeats = True
            self._close()
        before, self._slice_time = self._slice_time, self._timestamp
        if self._has_picture:
            self._shares_time |= self._timestamp == before
            self._continue()
        elif not self._open(is_first=is_first):
            return False
        else:
            self._picture_refresh, self._refresh = self._refresh, None
            self._note_slice(head)
            self._is_key &= self.has_sets
            is_beginning = self._is_key or self._picture_refresh is not None
            if is_beginning and not self._carried.issuperset(self._sets):
                self._append(b"".join(_START + self._sets[key] for key in sorted(self._sets)))
        if self._prefix:
            for unit in self._prefix:
                self._append(_START + unit)
            self._clear_prefix()
        return True

    def _begin_fragment(self, header: bytes, data: memoryview) -> None:
        """`header`: that of the unit, made up from the fragment's."""
        self._close_fragment()
        if bytes(data[:4]).startswith(_STARTS):
            # The unit came with a start code and a header of its own.
            self._partial += data
            self._open_unit = _TO_PARTIAL
        elif header[0] & 0x80:
            self.lose()
        elif self._kind(header) != _SLICE:
            # Or the start code was taken for the header (Amatek AR-N3222F with H.265, gortsplib #989).
            self._partial += header
            self._partial += data
            self._open_unit = _TO_PARTIAL
        elif len(data) and self._begin_slice(header + data[:1]):
            self._open_unit = _TO_PICTURE
            self._append(b"".join((_START, header, data)))

    def _add_fragment(self, data: memoryview) -> None:
        """Of a unit that is open, or whose begin is missing."""
        if self._open_unit == _TO_PICTURE:
            self._markers_lie |= self._is_marked
            self._append(data)
        elif self._open_unit == _TO_PARTIAL and len(self._partial) < PICTURE_BYTES_MAX:
            self._partial += data
        else:
            self._miss_begin()

    def _miss_begin(self) -> None:
        if not self._has_picture:
            super()._miss_begin()
        else:
            self._continue()
            self._is_damaged = True

    def _close_fragment(self) -> None:
        """The end bit, or another unit: some senders never set it."""
        self._open_unit = _NOWHERE
        if self._partial:
            unit, self._partial = bytes(self._partial), bytearray()
            self._unit(memoryview(unit))

    def _aggregate(self, data: memoryview, at: int, skipped_bytes: int) -> None:
        """Units behind their lengths of two bytes; `skipped_bytes` before each further length."""
        while at + 2 <= len(data):
            size = data[at] << 8 | data[at + 1]
            at += 2
            if at + size > len(data):
                self.lose()
                return
            self._unit(data[at : at + size])
            at += size + skipped_bytes

    def _taken(self, is_marked: bool) -> Sequence[CodedPicture]:
        """Where a unit waits for its slice, the packet was not the picture's."""
        if not self._prefix and not self._partial:
            self._is_marked = is_marked
        return self._given()

    def _change(self, timestamp: int, head: bytes | memoryview, *, is_rest: bool) -> None:
        """Another timestamp. `head` begins the packet's unit; `is_rest`: of one that began in a packet before.

        Without a gap in the sequence a fragment belongs to the unit that is open, whatever its timestamp.
        """
        if is_rest and self._open_unit != _NOWHERE:
            self._timestamp = timestamp
            return
        if not is_rest:
            self._close_fragment()
            is_slice = self._goes_on() and len(head) > self.HEADER_BYTES and self._kind(head) == _SLICE
            if is_slice and not self._is_first(head):
                self._timestamp = timestamp
                return
        self._turn(timestamp)

    def _finished(self, is_whole: bool) -> CodedPicture:
        if self._open_unit == _TO_PICTURE:
            self._open_unit = _NOWHERE
        return CodedPicture(
            data=self._data(),
            timestamp=self._started,
            is_key=self._is_key,
            is_reference=self._is_reference,
            is_whole=is_whole,
            follows_loss=self._follows_loss,
            refresh=self._picture_refresh or None,
        )


# ITU-T H.264 table 7-1. Left out: data partitions (2 to 4), which libav does not decode; auxiliary pictures and
# extensions for layers and views (14, 15, 19 to 21).
_H264_KINDS = (
    *[_IGNORED, _SLICE, _IGNORED, _IGNORED, _IGNORED, _SLICE],
    *[_SEI, _SET, _SET, _BEFORE, _AFTER, _AFTER, _AFTER, _SET],
    *[_IGNORED] * 18,
)
_H264_IDR, _H264_SPS, _H264_PPS = 5, 7, 8
_STAP_A, _STAP_B, _FU_A, _FU_B = 24, 25, 28, 29
_INTERLEAVED = (
    "The camera sends H.264 in interleaved packets (packetization mode 2), which are not read."
    " Choose another mode or codec in the camera's settings."
)


class H264(_H26x):
    __slots__ = ()

    HEADER_BYTES = 1
    NEEDED_SETS = frozenset({_H264_SPS, _H264_PPS})

    def __init__(self, fmtp: Mapping[str, str]) -> None:
        super().__init__(_units_of(fmtp))

    def take(self, packet: memoryview, start: int, timestamp: int, is_marked: bool) -> Sequence[CodedPicture]:
        if len(packet) < start + 2:
            return ()
        kind = packet[start] & 0x1F
        if kind == _FU_A and packet[start + 1] < 0x40 and not is_marked and timestamp == self._timestamp:
            end = self._size + len(packet) - start - 2
            if self._open_unit == _TO_PICTURE and not self._is_marked and end <= len(self._buffer):
                # The middle of a slice, nine packets of ten: the short way.
                self._buffer[self._size : end] = packet[start + 2 :]
                self._size = end
                return ()
        payload = packet[start:]
        if timestamp != self._timestamp:
            head = bytes((payload[0] & 0xE0 | payload[1] & 0x1F,)) + payload[2:3] if kind == _FU_A else payload
            self._change(timestamp, head, is_rest=kind == _FU_A and not payload[1] & 0x80)
        if kind < _STAP_A:
            self._unit(payload)
        elif kind in (_FU_A, _FU_B):
            self._fragment(payload, 2 if kind == _FU_A else 4)
        elif kind in (_STAP_A, _STAP_B):
            self._aggregate(payload, 1 if kind == _STAP_A else 3, 0)
        elif kind < 30:  # MTAP: units of several times in one packet, which no camera was seen to send
            self.lose()
            self.complaint = _INTERLEAVED
        return self._taken(is_marked)

    def _fragment(self, payload: memoryview, start: int) -> None:
        flags = payload[1]
        if flags & 0x80:
            self._begin_fragment(bytes((payload[0] & 0xE0 | flags & 0x1F,)), payload[start:])
        else:
            self._add_fragment(payload[start:])
        if flags & 0x40:
            self._close_fragment()

    def _kind(self, head: bytes | memoryview) -> int:
        return _H264_KINDS[head[0] & 0x1F]

    def _note_slice(self, head: bytes | memoryview) -> None:
        self._is_key = head[0] & 0x1F == _H264_IDR or self._picture_refresh == 0
        self._is_reference = head[0] & 0x60 != 0

    def _note_sei(self, unit: bytes) -> None:
        count = recovery_frames(unit)
        if count is not None:
            self._refresh = count

    def _set_key(self, unit: bytes) -> tuple[int, int]:
        """The id of an SPS is behind profile, constraints and level."""
        kind = unit[0] & 0x1F
        return kind, _exp_golomb(_unescaped(unit[4 if kind == _H264_SPS else 1 :][:16]), 0)


# ITU-T H.265 table 7-1; types 10 to 15 and 22 to 31 are slices of editions to come.
_H265_KINDS = (
    *[_SLICE] * 32,
    *[_SET, _SET, _SET, _BEFORE, _AFTER, _AFTER, _AFTER, _SEI, _AFTER],
    *[_IGNORED] * 23,
)
_H265_IRAP = range(16, 24)
_H265_VPS, _H265_SPS, _H265_PPS = 32, 33, 34
_AP, _FU, _PACI = 48, 49, 50


class H265(_H26x):
    __slots__ = ("_don_bytes", "_top_layer")

    HEADER_BYTES = 2
    NEEDED_SETS = frozenset({_H265_VPS, _H265_SPS, _H265_PPS})

    def __init__(self, fmtp: Mapping[str, str]) -> None:
        self._top_layer = 0  # the highest temporal layer announced or seen
        # Decoding order numbers: read over; units that are sent in another order than theirs are not sorted.
        self._don_bytes = 2 if _whole(fmtp.get("sprop-max-don-diff", "")) else 0
        super().__init__(_units_of(fmtp))

    def take(self, packet: memoryview, start: int, timestamp: int, is_marked: bool) -> Sequence[CodedPicture]:
        if len(packet) < start + 3:
            return ()
        kind = packet[start] >> 1 & 0x3F
        if kind == _FU and packet[start + 2] < 0x40 and not is_marked and timestamp == self._timestamp:
            end = self._size + len(packet) - start - 3
            if self._open_unit == _TO_PICTURE and not self._is_marked and end <= len(self._buffer):
                self._buffer[self._size : end] = packet[start + 3 :]
                self._size = end
                return ()
        payload = packet[start:]
        if timestamp != self._timestamp:
            head = _fragment_header(payload) + payload[3 + self._don_bytes :][:1] if kind == _FU else payload
            self._change(timestamp, head, is_rest=kind == _FU and not payload[2] & 0x80)
        if kind == _FU:
            self._fragment(payload)
        elif kind == _AP:
            self._aggregate(payload, 2 + self._don_bytes, self._don_bytes // 2)
        elif kind < _AP and self._don_bytes:
            self._unit(memoryview(bytes(payload[:2]) + bytes(payload[4:])))
        elif kind < _AP:
            self._unit(payload)
        elif kind == _PACI:  # extensions of the payload header, which no camera was seen to send
            self.lose()
        return self._taken(is_marked)

    def _fragment(self, payload: memoryview) -> None:
        flags = payload[2]
        if flags & 0x80:
            self._begin_fragment(_fragment_header(payload), payload[3 + self._don_bytes :])
        else:
            self._add_fragment(payload[3:])
        if flags & 0x40:
            self._close_fragment()

    def _kind(self, head: bytes | memoryview) -> int:
        """Ignored: nuh_layer_id above 0, which is more views or resolutions of the same picture; and
        nuh_temporal_id_plus1 of 0, which is no header (H.265 section 7.4.2.2)."""
        if head[0] & 0x01 or head[1] & 0xF8 or not head[1] & 0x07:
            return _IGNORED
        return _H265_KINDS[head[0] >> 1 & 0x3F]

    def _note_slice(self, head: bytes | memoryview) -> None:
        """Even types below 16: no picture of the same temporal layer copies from it."""
        kind, layer = head[0] >> 1 & 0x3F, (head[1] & 0x07) - 1
        self._top_layer = max(self._top_layer, layer)
        self._is_key = kind in _H265_IRAP
        self._is_reference = kind >= 16 or kind % 2 == 1 or layer < self._top_layer

    def _keep_set(self, unit: bytes) -> None:
        super()._keep_set(unit)
        if len(unit) > 2 and unit[0] >> 1 & 0x3F == _H265_SPS:
            self._top_layer = max(self._top_layer, unit[2] >> 1 & 0x07)

    def _set_key(self, unit: bytes) -> tuple[int, int]:
        kind = unit[0] >> 1 & 0x3F
        if kind == _H265_VPS:
            return kind, unit[2] >> 4
        return kind, _exp_golomb(_unescaped(unit[2:128]), _sps_id_bit(unit) if kind == _H265_SPS else 0)


def _fragment_header(payload: memoryview) -> bytes:
    """Of the unit that an H.265 fragment is part of."""
    return bytes((payload[0] & 0x81 | (payload[2] & 0x3F) << 1, payload[1]))


def recovery_frames(sei: bytes) -> int | None:
    """recovery_frame_cnt of an H.264 SEI unit, if it holds a recovery point (H.264 sections 7.3.2.3.1, D.1.8)."""
    data = _unescaped(sei)
    at = 1
    while at + 2 < len(data):
        kind, at = _sei_number(data, at)
        size, at = _sei_number(data, at)
        if kind == _RECOVERY_POINT and at < len(data):
            return _exp_golomb(data, at * 8)
        at += size
    return None


def _sei_number(data: bytes, at: int) -> tuple[int, int]:
    """Bytes of 255 and a last one, added up; and where the next number begins."""
    total = 0
    while at < len(data) and data[at] == 255:
        total += 255
        at += 1
    return total + (data[at] if at < len(data) else 0), at + 1


def _sps_id_bit(sps: bytes) -> int:
    """Behind the two bytes of the header: where sps_seq_parameter_set_id begins (H.265 sections 7.3.2.2, 7.3.3)."""
    data = _unescaped(sps[2:128])
    layers = data[0] >> 1 & 0x07
    bit = 8 + 96  # sub-layers; general profile, tier and level
    if layers:
        present = int.from_bytes(data[13:15])
        bit += 16
        for layer in range(layers):
            flags = present >> 14 - 2 * layer
            bit += (88 if flags & 2 else 0) + (8 if flags & 1 else 0)
    return bit


def _unescaped(unit: bytes) -> bytes:
    """Without the bytes that keep start codes out."""
    return unit.replace(b"\0\0\3", b"\0\0")


def _exp_golomb(data: bytes, bit: int) -> int:
    """ue(v) of H.264 section 9.1. Raises ValueError where the data ends or the number is beyond 32 bits."""
    window = int.from_bytes(data[bit // 8 :][:9].ljust(9, b"\0")) << bit % 8 & 2**72 - 1
    zeros = 72 - window.bit_length()
    if zeros > 31:
        raise ValueError("no Exp-Golomb code")
    return (window >> 71 - 2 * zeros) - 1


def _units_of(fmtp: Mapping[str, str]) -> list[bytes]:
    """Parameter sets of the SDP, in Base64 with commas, of either codec: some cameras use the other one's names.

    What cannot be read is left out.
    """
    units = []
    for name in ("sprop-parameter-sets", "sprop-vps", "sprop-sps", "sprop-pps"):
        for text in fmtp.get(name, "").split(","):
            try:
                data = base64.b64decode(text.strip() + "=" * (-len(text.strip()) % 4))
            except (binascii.Error, ValueError):
                continue
            units += [unit.rstrip(b"\0") for unit in _START_CODE.split(data)]
    return [unit for unit in units if len(unit) > 2]


def _whole(text: str) -> int:
    return int(text) if text.strip().isdecimal() else 0
