"""H.264 or H.265: what the packets say, where the description may be wrong. Pure.

An Ezviz camera names H265 and sends H.264 (go2rtc #264). Each payload has a header that hardly ever makes sense as
one of the other codec. Packets wait until one says which it is, mostly the first one, so that no picture is lost.
"""

from collections.abc import Mapping, Sequence

from .coded import CodedPicture
from .h26x import H264, H265

_START_CODES = (b"\0\0\0\1", b"\0\0\1")
# So many packets that only the other codec can have sent, and none of the announced one, outweigh a description.
# One parameter set does, too.
_VOTES = 8
_WAITING_MAX = 256  # packets that say nothing: from then on the description is believed

# H.264: the single types that cameras send, STAP-A and FU-A (RFC 6184 table 1). H.265: slices, units 32 to 40, and
# in aggregates and fragments (RFC 7798 section 4.4).
_H264_SINGLE, _H264_REFERENCED, _H264_UNREFERENCED = (1, 5, 6, 7, 8, 9), (5, 7, 8), (6, 9)
_STAP_A, _FU_A = 24, 28
_H265_SINGLE = (*range(10), *range(16, 22), *range(32, 41))
_AP, _FU = 48, 49
# ITU-T H.264 annexes A, G and H.
_H264_PROFILES = frozenset({44, 66, 77, 83, 86, 88, 100, 110, 118, 122, 128, 138, 139, 244})


class CodecChoice:
    """Takes packets as an assembler does, and is replaced by one as soon as it has `chosen`."""

    complaint = ""
    has_key = False

    def __init__(self, fmtp: Mapping[str, str], *, is_h265: bool) -> None:
        """`is_h265`: which of the two the description names. Parameter sets of the other one outweigh that."""
        self._h264, self._h265 = H264(fmtp), H265(fmtp)
        self._is_h265 = is_h265
        if self._h264.has_sets != self._h265.has_sets:
            self._is_h265 = self._h265.has_sets
        self._votes = 0
        self._waiting: list[tuple[bytes, int, int, bool] | None] = []  # None: a loss
        self._chosen: H264 | H265 | None = None

    @property
    def chosen(self) -> H264 | H265 | None:
        return self._chosen

    @property
    def codec(self) -> str:
        return "hevc" if self._is_h265 else "h264"

    def take(self, packet: memoryview, start: int, timestamp: int, is_marked: bool) -> Sequence[CodedPicture]:
        payload = bytes(packet[start:])
        self._waiting.append((bytes(packet), start, timestamp, is_marked))
        for code in _START_CODES:
            payload = payload.removeprefix(code)
        can_be = {False: can_be_h264(payload), True: can_be_h265(payload)}
        if can_be[self._is_h265] == can_be[not self._is_h265]:
            return self._choose() if len(self._waiting) > _WAITING_MAX else ()
        if can_be[self._is_h265]:
            return self._choose()
        self._votes += 1
        if self._votes < _VOTES and not (is_h264_set(payload) or is_h265_set(payload)):
            return ()
        self._is_h265 = not self._is_h265
        return self._choose()

    def settle(self) -> Sequence[CodedPicture]:
        """Nothing speaks against the description: go by it."""
        if self._votes or not self._waiting:
            return ()
        pictures = list(self._choose())
        return [*pictures, *(self._chosen.settle() if self._chosen else ())]

    def lose(self) -> None:
        self._waiting.append(None)

    def extension(self, profile: int, data: memoryview) -> None:
        return

    def _choose(self) -> Sequence[CodedPicture]:
        chosen = self._chosen = self._h265 if self._is_h265 else self._h264
        waiting, self._waiting = self._waiting, []
        pictures: list[CodedPicture] = []
        for one in waiting:
            if one is None:
                chosen.lose()
            else:
                packet, start, timestamp, is_marked = one
                pictures += chosen.take(memoryview(packet), start, timestamp, is_marked)
        return pictures


def can_be_h264(payload: bytes) -> bool:
    """Whether an H.264 sender could have sent it. nal_ref_idc: H.264 section 7.4.1."""
    if len(payload) < 3 or payload[0] & 0x80:
        return False
    kind, is_reference = payload[0] & 0x1F, payload[0] & 0x60 != 0
    if kind == _STAP_A:
        inner = _first_unit(payload, 1)
        return inner[:1] != payload[:1] and can_be_h264(inner)
    if kind == _FU_A:
        return not payload[1] & 0x20 and payload[1] & 0x1F in _H264_SINGLE
    return kind in _H264_SINGLE and kind not in (_H264_UNREFERENCED if is_reference else _H264_REFERENCED)


def can_be_h265(payload: bytes) -> bool:
    """The same of H.265: layer 0, and nuh_temporal_id_plus1 is never 0 (H.265 section 7.4.2.2)."""
    if len(payload) < 4 or payload[0] & 0x81 or payload[1] & 0xF8:
        return False
    kind = payload[0] >> 1
    if kind == _FU:  # some that hold Annex B have a 0 there all the same (gortsplib #989)
        return payload[2] & 0x3F in _H265_SINGLE
    if not payload[1] & 0x07:
        return False
    if kind == _AP:
        inner = _first_unit(payload, 2)
        return inner[:1] != payload[:1] and can_be_h265(inner)
    return kind in _H265_SINGLE


def is_h264_set(payload: bytes) -> bool:
    """A sequence parameter set, alone or first in an aggregate, whose profile exists."""
    if payload and payload[0] & 0x9F == _STAP_A:
        payload = _first_unit(payload, 1)
    is_set = len(payload) > 3 and payload[0] & 0x9F == 7 and payload[0] & 0x60 != 0
    return is_set and payload[1] in _H264_PROFILES and not payload[2] & 0x03


def is_h265_set(payload: bytes) -> bool:
    """A video parameter set, alone or first in an aggregate: it holds sixteen ones (H.265 section 7.3.2.1)."""
    if payload[:1] == bytes([_AP << 1]):
        payload = _first_unit(payload, 2)
    return len(payload) > 6 and payload[:2] == b"\x40\x01" and payload[4:6] == b"\xff\xff"


def _first_unit(payload: bytes, at: int) -> bytes:
    """Of an aggregate, behind its length; empty if it is longer than the packet."""
    size = int.from_bytes(payload[at : at + 2])
    unit = payload[at + 2 : at + 2 + size]
    return unit if len(unit) == size else b""
