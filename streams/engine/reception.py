"""What came of one RTP source, for the report block about it (RFC 3550 sections 6.4.1 and A.3). Pure.

Some cameras want to see their packets counted (Arlo, mediamtx #1403). Of each reading the last packet is looked at,
for its sequence number, and the others are only counted: a feed of 4 Mbit/s has 450 a second. Packets that are read
at once have no arrivals of their own, so the jitter is told as 0.
"""

import struct
from collections.abc import Sequence

from .rtcp import sender_report

_MISORDER_PACKETS = 1000  # further behind, and the sequence has begun anew
_MAX_LOST = (1 << 23) - 1  # 24 bits with a sign
_SEQUENCE_AND_SSRC = struct.Struct(">2xH4xI").unpack_from
_BLOCK = struct.Struct(">IB3sIIII")


class Reception:
    def __init__(self) -> None:
        self.ssrc: int | None = None
        """The source of the last packet; None before the first."""
        self._base = self._highest = 0  # sequence numbers, with the cycles above their 16 bits
        self._received = self._expected_before = self._received_before = 0
        self._reported: tuple[int, float] | None = None  # what `sender_report` gives, and when it came

    def note(self, packets: Sequence[memoryview]) -> None:
        """These came, in this order; each has its header of 12 bytes."""
        sequence, ssrc = _SEQUENCE_AND_SSRC(packets[-1])
        ahead = sequence - self._highest & 0xFFFF
        if ssrc != self.ssrc or 0x8000 <= ahead < 0x10000 - _MISORDER_PACKETS:
            first, source = _SEQUENCE_AND_SSRC(packets[0])
            self._begin(ssrc, first if source == ssrc else sequence)
            ahead = sequence - self._highest & 0xFFFF
        if ahead < 0x8000:
            self._highest += ahead
        self._received += len(packets)

    def note_report(self, compound: bytes, now_s: float) -> None:
        """RTCP came, at this moment of the monotonic clock."""
        if self.ssrc is not None and (middle := sender_report(compound, self.ssrc)) is not None:
            self._reported = middle, now_s

    def block(self, now_s: float) -> bytes:
        """The report block, with the fraction lost since the last one; empty before the first packet."""
        if self.ssrc is None:
            return b""
        expected = self._highest - self._base + 1
        lost = min(max(0, expected - self._received), _MAX_LOST)  # repeats would make it negative, which few expect
        expected_lately = expected - self._expected_before
        lost_lately = expected_lately - (self._received - self._received_before)
        fraction = min(255, (lost_lately << 8) // expected_lately) if lost_lately > 0 else 0
        self._expected_before, self._received_before = expected, self._received
        middle, reported_s = self._reported or (0, now_s)
        since = int((now_s - reported_s) * 65_536) & 0xFFFFFFFF
        highest = self._highest & 0xFFFFFFFF
        return _BLOCK.pack(self.ssrc, fraction, lost.to_bytes(3), highest, 0, middle, since)

    def _begin(self, ssrc: int, sequence: int) -> None:
        self.ssrc = ssrc
        self._base = self._highest = sequence
        self._received = self._expected_before = self._received_before = 0
        self._reported = None
