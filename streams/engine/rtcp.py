"""The little of RTCP (RFC 3550 section 6) that a viewer needs: a sign of life, and the sender's farewell. Pure."""

import struct

_SENDER_REPORT, _RECEIVER_REPORT, _DESCRIPTION, _BYE = 200, 201, 202, 203
_CNAME = 1


def receiver_report(ssrc: int, name: bytes) -> bytes:
    """Without report blocks, and with the CNAME that each compound packet must have. `name`: 255 bytes at most."""
    item = struct.pack(">IBB", ssrc, _CNAME, len(name)) + name
    item += bytes(4 - len(item) % 4)  # one zero byte at least ends the list
    description = struct.pack(">BBH", 0x81, _DESCRIPTION, len(item) // 4) + item
    return struct.pack(">BBHI", 0x80, _RECEIVER_REPORT, 1, ssrc) + description


def has_bye(compound: bytes) -> bool:
    """Whether a sender takes leave in this packet; anything malformed is none."""
    at = 0
    while at + 4 <= len(compound):
        first, kind, words = struct.unpack_from(">BBH", compound, at)
        if first >> 6 != 2:
            return False
        if kind == _BYE:
            return True
        at += 4 + 4 * words
    return False
