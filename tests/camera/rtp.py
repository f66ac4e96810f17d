"""RTP and RTCP as bytes: access units in packets (RFC 6184, 7798, 6416, 2435), reports, farewells. Pure."""

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.camera.clip import AccessUnit, Codec, split_nals

PAYLOAD_BYTES_MAX = 1400  # fits an Ethernet frame with room for tunnels, as cameras do
VIDEO_TYPE = 96
JPEG_TYPE = 26  # static, RFC 3551
AUDIO_TYPE = 0  # PCMU, static
_NTP_EPOCH_S = 2_208_988_800  # 1900 to 1970


@dataclass(frozen=True, slots=True)
class Packet:
    """One RTP packet before its header; `timestamp` and `sequence` wrap when packed.

    `payload_type` and `ssrc` are those of the stream unless they are given.
    """

    sequence: int
    timestamp: int
    is_last: bool
    payload: bytes
    payload_type: int | None = None
    ssrc: int | None = None

    def pack(self, payload_type: int, ssrc: int) -> bytes:
        kind = payload_type if self.payload_type is None else self.payload_type
        second = kind | (0x80 if self.is_last else 0)
        sequence, timestamp = self.sequence & 0xFFFF, self.timestamp & 0xFFFFFFFF
        source = ssrc if self.ssrc is None else self.ssrc
        return struct.pack(">BBHII", 0x80, second, sequence, timestamp, source) + self.payload


def payload_type(codec: Codec) -> int:
    return JPEG_TYPE if codec == "mjpeg" else VIDEO_TYPE


def payloads(codec: Codec, unit: AccessUnit) -> list[bytes]:
    """In order; the last one closes the access unit."""
    if codec == "h264":
        return [part for nal in split_nals(unit.data) for part in _h264(nal)]
    if codec == "hevc":
        return [part for nal in split_nals(unit.data) for part in _hevc(nal)]
    if codec == "mjpeg":
        return list(_jpeg(unit.data))
    return _slices(unit.data, PAYLOAD_BYTES_MAX)


def sender_report(ssrc: int, timestamp: int, packets: int, payload_bytes: int) -> bytes:
    """With a CNAME, without which RFC 3550 allows no compound packet."""
    now_s = time.time() + _NTP_EPOCH_S
    whole_s = int(now_s)
    fraction = int((now_s - whole_s) * 2**32)
    numbers = (ssrc, whole_s, fraction, timestamp & 0xFFFFFFFF, packets, payload_bytes & 0xFFFFFFFF)
    return struct.pack(">BBH6I", 0x80, 200, 6, *numbers) + _description(ssrc)


def farewell(ssrc: int) -> bytes:
    """A receiver report without blocks, then BYE."""
    return struct.pack(">BBHI", 0x80, 201, 1, ssrc) + struct.pack(">BBHI", 0x81, 203, 1, ssrc)


def _description(ssrc: int) -> bytes:
    name = b"camera"
    chunk = struct.pack(">IBB", ssrc, 1, len(name)) + name
    chunk += b"\0" * (4 - len(chunk) % 4)
    return struct.pack(">BBH", 0x81, 202, len(chunk) // 4) + chunk


def _slices(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def _h264(nal: bytes) -> Iterator[bytes]:
    """RFC 6184: a single NAL unit packet, or FU-A (type 28)."""
    if len(nal) <= PAYLOAD_BYTES_MAX:
        yield nal
        return
    parts = _slices(nal[1:], PAYLOAD_BYTES_MAX - 2)
    for number, part in enumerate(parts):
        yield bytes([nal[0] & 0xE0 | 28, _place(number, parts) | nal[0] & 0x1F]) + part


def _hevc(nal: bytes) -> Iterator[bytes]:
    """RFC 7798: a single NAL unit packet, or a fragmentation unit (type 49)."""
    if len(nal) <= PAYLOAD_BYTES_MAX:
        yield nal
        return
    parts = _slices(nal[2:], PAYLOAD_BYTES_MAX - 3)
    for number, part in enumerate(parts):
        yield bytes([nal[0] & 0x81 | 49 << 1, nal[1], _place(number, parts) | nal[0] >> 1 & 0x3F]) + part


def _place(number: int, parts: list[bytes]) -> int:
    """The start and end bits of a fragment's header."""
    return (0x80 if number == 0 else 0) | (0x40 if number == len(parts) - 1 else 0)


def _jpeg(data: bytes) -> Iterator[bytes]:
    """RFC 2435: type 1 (4:2:0), the quantisation tables in each frame's first packet (Q = 255)."""
    size, tables, scan = _jpeg_parts(data)
    first = struct.pack(">BBH", 0, 0, len(tables)) + tables
    offset = 0
    for part in _slices(scan, PAYLOAD_BYTES_MAX - 8 - len(first)):
        header = struct.pack(">IBB", offset, 1, 255) + size
        yield header + (first if offset == 0 else b"") + part
        offset += len(part)


def _jpeg_parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Size in blocks of 8 px; quantisation tables (libav writes one for luma and chroma); the scan."""
    at, tables, blocks = 2, b"", b""
    while data[at + 1] != 0xDA:
        segment = data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4])]
        if data[at + 1] == 0xDB:
            tables += b"".join(part[1:] for part in _slices(segment, 65))
        if data[at + 1] == 0xC0:
            height_px, width_px = struct.unpack(">HH", segment[1:5])
            blocks = bytes([-(-width_px // 8), -(-height_px // 8)])
        at += 4 + len(segment)
    at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return blocks, (tables if len(tables) == 128 else tables * 2), data[at:].removesuffix(b"\xff\xd9")
