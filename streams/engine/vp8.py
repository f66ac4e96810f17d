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
        at = _descriptor_bytes(payload)
        is_start = at < len(payload) and payload[0] & (_START | _PARTITION) == _START
        if timestamp == self._timestamp:
            self._shares_time |= self._has_picture and not is_start
        elif at < len(payload) and not is_start and self._goes_on():
            self._timestamp = timestamp
        else:
            self._turn(timestamp)
        if at >= len(payload):
            return self._given()
        if is_start:
            self._begin(payload[at:], is_reference=not payload[0] & _NON_REFERENCE)
        elif self._has_picture:
            self._continue()
            self._append(payload[at:])
        else:
            self._miss_begin()
        if self._has_picture:
            self._is_marked = is_marked
        return self._given()

    def _begin(self, data: memoryview, *, is_reference: bool) -> None:
        if self._has_picture:
            self._repeats = True
            self._close()
        self._open(is_first=True)
        self._is_reference = is_reference
        self._append(data)

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
