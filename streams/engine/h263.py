"""H.263 over RTP: pictures in parts, whose start codes have lost their two zero bytes (RFC 4629). Pure."""

from collections.abc import Mapping, Sequence

from .coded import Assembler, CodedPicture

_HEADER_BYTES = 2
_IS_START, _HAS_REDUNDANCY = 0x04, 0x02  # P and V, RFC 4629 section 5.1
_ZEROS = b"\0\0"
_EXTENDED_FORMAT = 7
_INTRA, _B = 0, 3


class H263(Assembler):
    """H263-1998 and H263-2000: old network cameras and phones. Of a picture's header its type alone is read."""

    __slots__ = ()

    def __init__(self, fmtp: Mapping[str, str]) -> None:
        super().__init__()

    def take(self, packet: memoryview, start: int, timestamp: int, is_marked: bool) -> Sequence[CodedPicture]:
        payload = packet[start:]
        rest = payload[_header_bytes(payload) :]
        has_start = len(rest) > 0 and payload[0] & _IS_START != 0
        is_start = has_start and rest[0] & 0xFC == 0x80  # else the start code is that of a group of blocks
        data = b"".join((_ZEROS if has_start else b"", rest))
        return self._take_part(data, timestamp, is_start=is_start, is_marked=is_marked)

    def _finished(self, is_whole: bool) -> CodedPicture:
        data = self._data()
        kind = _picture_type(data)
        return CodedPicture(
            data=data,
            timestamp=self._started,
            is_key=kind == _INTRA,
            is_reference=kind != _B,
            is_whole=is_whole,
            follows_loss=self._follows_loss,
        )


def _header_bytes(payload: memoryview) -> int:
    """With what it repeats of the picture's header; that of the payload and more if it does not end."""
    if len(payload) < _HEADER_BYTES:
        return _HEADER_BYTES
    extra = (payload[0] & 0x01) << 5 | payload[1] >> 3
    return _HEADER_BYTES + (payload[0] & _HAS_REDUNDANCY != 0) + extra


def _picture_type(data: bytes) -> int:
    """I, P, PB, B ... of H.263 tables 5.1.3 and 5.1.4: a bit of PTYPE, or three of PLUSPTYPE."""
    bits = int.from_bytes(data[:10].ljust(10, b"\0"))

    def field(at: int, size: int) -> int:
        return bits >> 80 - at - size & (1 << size) - 1

    if field(35, 3) != _EXTENDED_FORMAT:
        return field(38, 1)
    return field(59 if field(38, 3) == 1 else 41, 3)
