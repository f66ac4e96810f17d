"""MPEG-1 and MPEG-2 video over RTP: a picture's packets, each behind a header of 4 or 8 bytes (RFC 2250). Pure."""

import re
from collections.abc import Mapping, Sequence

from .coded import Assembler, CodedPicture

_HEADER_BYTES = 4
_IS_MPEG2 = 0x04  # T: four bytes more, RFC 2250 section 3.4
_INTRA, _B = 1, 3
# ISO/IEC 13818-2 table 6-1: what may begin a picture, and what ends a sequence's headers.
_PICTURE, _GROUP, _SEQUENCE = b"\0\0\1\0", b"\0\0\1\xb8", b"\0\0\1\xb3"
_STARTS = (_PICTURE, _GROUP, _SEQUENCE)
_AFTER_HEADERS = re.compile(rb"\x00\x00\x01[\x00\xb8]")
_HEADERS_BYTES_MAX = 4096  # two matrices of 64 bytes and some extensions


class MPEG2(Assembler):
    """Encoders and relays of broadcasts send it. The headers of the sequence stand before each I picture."""

    __slots__ = ("_headers",)

    def __init__(self, fmtp: Mapping[str, str]) -> None:
        super().__init__()
        self._headers = b""

    def take(self, packet: memoryview, start: int, timestamp: int, is_marked: bool) -> Sequence[CodedPicture]:
        payload = packet[start:]
        at = 2 * _HEADER_BYTES if payload and payload[0] & _IS_MPEG2 else _HEADER_BYTES
        data = bytes(payload[at:])
        return self._take_part(data, timestamp, is_start=data.startswith(_STARTS), is_marked=is_marked)

    def _finished(self, is_whole: bool) -> CodedPicture:
        data = self._data()
        kind = _picture_type(data)
        if data.startswith(_SEQUENCE) and (end := _AFTER_HEADERS.search(data)) and end.start() < _HEADERS_BYTES_MAX:
            self._headers = data[: end.start()]
        elif kind == _INTRA:
            data = self._headers + data
        return CodedPicture(
            data=data,
            timestamp=self._started,
            is_key=kind == _INTRA and data.startswith(_SEQUENCE),
            is_reference=kind != _B,
            is_whole=is_whole,
            follows_loss=self._follows_loss,
        )


def _picture_type(data: bytes) -> int:
    """picture_coding_type (ISO/IEC 13818-2 section 6.2.3); GStreamer leaves it out of the packets' headers."""
    header = data[data.find(_PICTURE) :][:6]
    return header[5] >> 3 & 0x07 if len(header) == 6 and header.startswith(_PICTURE) else 0
