"""VP8 over RTP: frames in parts, each behind a descriptor of one to six bytes (RFC 7741). Pure."""

from collections.abc import Mapping, Sequence

from .coded import Assembler, CodedPicture

# The payload descriptor, RFC 7741 section 4.2: its first byte, and the flags of the one that extends it.
_EXTENDED, _NON_REFERENCE, _START, _PARTITION = 0x80, 0x20, 0x10, 0x07
_HAS_PICTURE_ID, _HAS_TL0PICIDX, _HAS_LAYER = 0x80, 0x40, 0x30  # the last one: T or K
_LONG_PICTURE_ID = 0x80


class VP8(Assembler):
    """WebRTC's relays send it. A frame begins with the start of its first partition."""

    __slots__ = ("_is_reference",)

    def __init__(self, fmtp: Mapping[str, str]) -> None:
        super().__init__()
        self._is_reference = True

    def take(self, packet: memoryview, start: int, timestamp: int, is_marked: bool) -> Sequence[CodedPicture]:
        payload = packet[start:]
        data = payload[_descriptor_bytes(payload) :]
        is_start = len(data) > 0 and payload[0] & (_START | _PARTITION) == _START
        given = self._take_part(data, timestamp, is_start=is_start, is_marked=is_marked)
        if is_start:
            self._is_reference = not payload[0] & _NON_REFERENCE
        return given

    def _finished(self, is_whole: bool) -> CodedPicture:
        data = self._data()
        is_key = data[:1] != b"" and not data[0] & 0x01  # the frame tag, RFC 6386 section 9.1
        return CodedPicture(
            data=data,
            timestamp=self._started,
            is_key=is_key,
            is_reference=self._is_reference or is_key,
            is_whole=is_whole,
            follows_loss=self._follows_loss,
        )


def _descriptor_bytes(payload: memoryview) -> int:
    """Its length; that of the payload and more if it does not end."""
    if len(payload) < 2 or not payload[0] & _EXTENDED:
        return 1
    flags, size = payload[1], 2
    if flags & _HAS_PICTURE_ID:
        size += 2 if len(payload) > size and payload[size] & _LONG_PICTURE_ID else 1
    return size + (flags & _HAS_TL0PICIDX != 0) + (flags & _HAS_LAYER != 0)
