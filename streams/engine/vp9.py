"""VP9 over RTP: frames in parts, each behind a descriptor (RFC 9628). Pure."""

from collections.abc import Mapping, Sequence

from .coded import Assembler, CodedPicture

# The payload descriptor, RFC 9628 section 4.2, and the scalability structure in it.
_HAS_PICTURE_ID, _IS_INTER, _HAS_LAYERS, _IS_FLEXIBLE, _BEGINS, _HAS_STRUCTURE = 0x80, 0x40, 0x20, 0x10, 0x08, 0x02
_LONG_PICTURE_ID = 0x80
_MORE_REFERENCES, _REFERENCES_MAX = 0x01, 3
_HAS_SIZES, _HAS_GROUP = 0x10, 0x08


class VP9(Assembler):
    """WebRTC's relays send it."""

    __slots__ = ()

    def __init__(self, fmtp: Mapping[str, str]) -> None:
        super().__init__()

    def take(self, packet: memoryview, start: int, timestamp: int, is_marked: bool) -> Sequence[CodedPicture]:
        payload = packet[start:]
        data = payload[_descriptor_bytes(payload) :]
        is_start = len(data) > 0 and payload[0] & _BEGINS != 0
        return self._take_part(data, timestamp, is_start=is_start, is_marked=is_marked)

    def _finished(self, is_whole: bool) -> CodedPicture:
        data = self._data()
        return CodedPicture(
            data=data,
            timestamp=self._started,
            is_key=_is_key(data),
            is_reference=True,
            is_whole=is_whole,
            follows_loss=self._follows_loss,
        )


def _is_key(frame: bytes) -> bool:
    """show_existing_frame and frame_type are 0: VP9 bitstream specification, section 6.2."""
    profile = (frame[0] >> 5 & 1) + (frame[0] >> 4 & 1) * 2
    bits = frame[0] >> (1 if profile == 3 else 2) & 0x03
    return frame[0] >> 6 == 2 and bits == 0


def _descriptor_bytes(payload: memoryview) -> int:
    """Its length; that of the payload if it does not end."""
    try:
        flags, at = payload[0], 1
        if flags & _HAS_PICTURE_ID:
            at += 2 if payload[at] & _LONG_PICTURE_ID else 1
        if flags & _HAS_LAYERS:
            at += 1 if flags & _IS_FLEXIBLE else 2
        if flags & _IS_FLEXIBLE and flags & _IS_INTER:
            for _ in range(_REFERENCES_MAX):
                at += 1
                if not payload[at - 1] & _MORE_REFERENCES:
                    break
        return at + _structure_bytes(payload[at:]) if flags & _HAS_STRUCTURE else at
    except IndexError:
        return len(payload)


def _structure_bytes(data: memoryview) -> int:
    """Raises IndexError."""
    layers, at = (data[0] >> 5) + 1, 1
    if data[0] & _HAS_SIZES:
        at += 4 * layers
    if data[0] & _HAS_GROUP:
        count, at = data[at], at + 1
        for _ in range(count):
            at += 1 + (data[at] >> 2 & 0x03)
    return at
