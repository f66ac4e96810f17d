"""The little of RTCP (RFC 3550 section 6) that a viewer needs: a sign of life, and the sender's farewell. Pure."""

import struct
from collections.abc import Iterator

_SENDER_REPORT, _RECEIVER_REPORT, _DESCRIPTION, _BYE = 200, 201, 202, 203
_CNAME = 1


def receiver_report(ssrc: int, name: bytes, block: bytes = b"") -> bytes:
    """Return a compound packet: a receiver report with this report block, if any, and the CNAME that it must have.

    `name`: 255 bytes at most.
    """
    item = struct.pack(">IBB", ssrc, _CNAME, len(name)) + name
    item += bytes(4 - len(item) % 4)  # one zero byte at least ends the list
    description = struct.pack(">BBH", 0x81, _DESCRIPTION, len(item) // 4) + item
    head = struct.pack(">BBHI", 0x80 | bool(block), _RECEIVER_REPORT, 1 + len(block) // 4, ssrc)
    return head + block + description


def has_bye(compound: bytes, ssrc: int | None = None) -> bool:
    """Whether this source leaves (None: any source). Nothing counts without a source, or cut short."""
    for count, kind, packet in _packets(compound):
        sources, reason = packet[4 : 4 + 4 * count], packet[4 + 4 * count :]
        if kind != _BYE or not sources or len(sources) < 4 * count or (reason and reason[0] >= len(reason)):
            continue
        if ssrc is None or ssrc in struct.unpack(f">{count}I", sources):
            return True
    return False


def sender_report(compound: bytes, ssrc: int) -> int | None:
    """The middle 32 bits of the NTP time in this source's sender report, the last one in the packet."""
    found = None
    for _, kind, packet in _packets(compound):
        if kind == _SENDER_REPORT and len(packet) >= 28 and int.from_bytes(packet[4:8]) == ssrc:
            found = int.from_bytes(packet[10:14])
    return found


def _packets(compound: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Count, type and bytes of each packet, up to the first that is malformed."""
    at = 0
    while at + 4 <= len(compound):
        first, kind, words = struct.unpack_from(">BBH", compound, at)
        end = at + 4 + 4 * words
        if first >> 6 != 2 or end > len(compound):
            return
        yield first & 31, kind, compound[at:end]
        at = end
