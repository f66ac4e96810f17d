"""Short films as RTP packets, and what a reader makes of them."""

import functools
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
import numpy as np
from av.packet import Packet as AvPacket
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from streams.engine.rtp import CodedPicture, Depacketizer, depacketizer
from streams.engine.sdp import Track
from tests.camera.clip import AccessUnit, Codec, Scene, encode, split_nals
from tests.camera.rtp import payload_type, payloads

TICKS = 3600  # a frame at 25 fps
SSRC = 0x1234
Marks = Literal["last", "each", "never"]

ENCODINGS: dict[Codec, str] = {"h264": "H264", "hevc": "H265", "mpeg4": "MP4V-ES", "mjpeg": "JPEG"}
_ENCODERS = {"h264": "libx264", "hevc": "libx265"}
WIDTH_PX, HEIGHT_PX, SLICES = 320, 256, 4


@dataclass(frozen=True, slots=True)
class Film:
    """Units in decoding order, and what stands before each key picture (mpeg4)."""

    codec: Codec
    units: tuple[AccessUnit, ...]
    configuration: bytes = b""

    def whole(self, unit: AccessUnit) -> bytes:
        """What a reader should make of it."""
        return self.configuration + unit.data if unit.is_key else unit.data


@functools.lru_cache
def film(codec: Codec, b_frames: int = 0) -> Film:
    """Of the scripted camera: one slice a picture, but several packets."""
    noise = 6.0 if codec in ("h264", "hevc") else 0.0
    scene = Scene(320, 240, (60.0, 170.0), fps=12, gop_s=0.5, codec=codec, b_frames=b_frames, noise=noise)
    clip = encode(scene)
    return Film(codec, clip.units, clip.parameter_sets[0] if codec == "mpeg4" else b"")


@functools.lru_cache
def sliced(codec: Codec, b_frames: int = 0, frames: int = 9) -> Film:
    """Several slices a picture, some of more than one packet: noise."""
    options = {
        "h264": f"slices={SLICES}:threads=1:keyint=4:scenecut=0:bframes={b_frames}:b-adapt=0:log=-1",
        "hevc": f"slices={SLICES}:keyint=4:scenecut=0:bframes={b_frames}:b-adapt=0:rc-lookahead=5"
        ":repeat-headers=1:log-level=none:ctu=32",
    }
    context = av.CodecContext.create(_ENCODERS[codec], "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
    context.time_base = Fraction(1, 25)
    name = "x264-params" if codec == "h264" else "x265-params"
    context.options = {"preset": "ultrafast", name: options[codec]}
    noise = np.random.default_rng(1)
    units: list[AccessUnit] = []
    for index in range(frames):
        plane = noise.integers(100, 140, (HEIGHT_PX * 3 // 2, WIDTH_PX), np.uint8)
        frame = VideoFrame.from_ndarray(plane, format="yuv420p")
        frame.pts = index
        units += [_unit(codec, bytes(packet), packet.pts or 0) for packet in context.encode(frame)]
    units += [_unit(codec, bytes(packet), packet.pts or 0) for packet in context.encode(None)]
    return Film(codec, tuple(units))


def _unit(codec: Codec, data: bytes, index: int) -> AccessUnit:
    nals = split_nals(data)
    is_key = any(nal[0] & 31 == 5 if codec == "h264" else 16 <= nal[0] >> 1 & 63 <= 23 for nal in nals)
    return AccessUnit(annex_b(*nals), index * TICKS, is_key)


def annex_b(*nals: bytes) -> bytes:
    return b"".join(b"\0\0\0\1" + nal for nal in nals)


def a_reader(
    encoding: str = "H264", fmtp: Mapping[str, str] | None = None, *, is_ordered: bool = True
) -> Depacketizer:
    kind = 26 if encoding == "JPEG" else 96
    track = Track(encoding, kind, 90_000, "rtsp://camera.example/track0", fmtp or {}, 25.0)
    return depacketizer(track, is_ordered=is_ordered)


def reader_of(film: Film, *, is_ordered: bool = True) -> Depacketizer:
    fmtp = {"config": film.configuration.hex()} if film.configuration else None
    return a_reader(ENCODINGS[film.codec], fmtp, is_ordered=is_ordered)


def a_packet(
    payload: bytes,
    sequence: int = 0,
    timestamp: int = 0,
    *,
    is_marked: bool = False,
    payload_type: int = 96,
    ssrc: int = SSRC,
) -> bytes:
    second = payload_type | (0x80 if is_marked else 0)
    return struct.pack(">BBHII", 0x80, second, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + payload


def packets_by_unit(
    film: Film, *, sequence: int = 65_530, timestamp: int = 2**32 - 9000, marks: Marks = "last"
) -> list[list[bytes]]:
    """Numbers and times wrap in the middle of the film."""
    sent: list[list[bytes]] = []
    for unit in film.units:
        parts = payloads(film.codec, unit)
        sent.append([])
        for number, part in enumerate(parts):
            is_marked = marks == "each" or (marks == "last" and number == len(parts) - 1)
            at = timestamp + unit.pts_ticks
            kind = payload_type(film.codec)
            sent[-1].append(a_packet(part, sequence, at, is_marked=is_marked, payload_type=kind))
            sequence += 1
    return sent


def packets(film: Film, *, marks: Marks = "last") -> list[bytes]:
    return [packet for unit in packets_by_unit(film, marks=marks) for packet in unit]


def push_all(reader: Depacketizer, sent: Iterable[bytes], *, is_settled: bool = True) -> list[CodedPicture]:
    """Each packet in the same memory, as the connection has it: what is not copied is gone with the next."""
    sent = list(sent)
    buffer = bytearray(max(map(len, sent), default=0))
    pictures: list[CodedPicture] = []
    for packet in sent:
        buffer[:] = bytes(len(buffer))
        buffer[: len(packet)] = packet
        pictures += reader.push(memoryview(buffer)[: len(packet)])
    return pictures + list(reader.settle()) if is_settled else pictures


def read(sent: Iterable[bytes], encoding: str = "H264", fmtp: Mapping[str, str] | None = None) -> list[CodedPicture]:
    return push_all(a_reader(encoding, fmtp), sent)


def decode(codec: Codec, data: Sequence[bytes]) -> list[bytes]:
    """The frames of a fresh decoder, as bytes: planes one behind the other."""
    context = av.CodecContext.create(codec, "r")
    assert isinstance(context, VideoCodecContext)
    frames = [frame for part in data for frame in context.decode(AvPacket(part))]
    frames += context.decode(None)
    return [frame.to_ndarray().tobytes() for frame in frames]
