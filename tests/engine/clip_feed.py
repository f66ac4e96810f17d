"""Clips as feeds: real pictures with times that a test has chosen, and decoders that count."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import TracebackType
from typing import Self, cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from streams.engine import errors
from streams.engine.decoder import Decoder, LibavDecoder
from streams.engine.feed import Packet
from streams.engine.h26x import recovery_frames
from tests.camera.clip import TICKS_PER_S, Scene, encode, split_nals

PATIENCE_S = 12.0
"""Of a feed whose pictures are less than 4 s apart."""
WALL_S = 1_700_000_000.0
"""Wall clock at monotonic 0 of all clips."""
_CODECS = {"h264": "h264", "hevc": "hevc", "mpeg4": "mpeg4", "mjpeg": "mjpeg"}


def packets_of(scene: Scene) -> list[Packet]:
    """Timestamps as filmed; each picture arrives when its turn has come, at a steady pace."""
    clip = encode(scene)
    configuration = clip.parameter_sets[0] if scene.codec == "mpeg4" else b""
    return [
        a_packet(
            configuration + unit.data if unit.is_key else unit.data,
            pts_s=unit.pts_ticks / TICKS_PER_S,
            duration_s=1 / scene.fps,
            is_key=unit.is_key,
            is_reference=_is_reference(scene, unit.data),
            arrived_s=index / scene.fps,
        )
        for index, unit in enumerate(clip.units)
    ]


@dataclass(frozen=True, slots=True)
class Film:
    """Small pictures of noise that moves, no two alike: for all patterns of pictures that an encoder can make.

    `key_every`: frames. `pyramid` (h264): B-frames that others copy from. `open_gop`: key frames with leading
    pictures (h264: recovery points; hevc: CRA). `refreshes` (h264): one key frame, then a column at a time.
    """

    frames: int = 24
    key_every: int = 8
    b_frames: int = 0
    pyramid: bool = False
    open_gop: bool = False
    refreshes: bool = False
    interlaced: bool = False
    width: int = 64
    height: int = 48
    seed: int = 0
    codec: str = "h264"


FILM_FPS = 10


@functools.lru_cache(maxsize=256)
def shown(film: Film) -> tuple[int, ...]:
    """Digests of all frames in order of presentation, decoded from the begin."""
    return tuple(digest(frame) for frame in decoded([packet.data for packet in filmed(film)], film.codec))


def decoded(pictures: Iterable[bytes], codec: str) -> list[VideoFrame]:
    decoder = LibavDecoder(codec)
    frames = [frame for number, data in enumerate(pictures) for frame in decoder.decode(data, number)]
    return [*frames, *decoder.drain()]


def digest(frame: VideoFrame) -> int:
    return zlib.crc32(np.ascontiguousarray(frame.to_ndarray()).data)


def joined(films: Sequence[Film]) -> list[Packet]:
    """One after the other, FILM_FPS pictures a second, each arriving when its turn has come."""
    packets: list[Packet] = []
    for film in films:
        packets += [later(packet, len(packets) / FILM_FPS) for packet in filmed(film)]
    return packets


@functools.lru_cache(maxsize=256)
def filmed(film: Film) -> tuple[Packet, ...]:
    """In order of decoding; all begins with parameter sets. Times as of `joined`."""
    encoder = cast(VideoCodecContext, av.CodecContext.create(_FILM_ENCODERS[film.codec], "w"))
    encoder.width, encoder.height, encoder.pix_fmt = film.width, film.height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, FILM_FPS), Fraction(FILM_FPS)
    encoder.gop_size, encoder.max_b_frames, encoder.thread_count = film.key_every, film.b_frames, 1
    encoder.options = _film_options(film)
    packets = [packet for frame in _film_frames(film) for packet in encoder.encode(frame)]
    packets += encoder.encode(None)
    return tuple(
        _film_packet(film.codec, bytes(packet), packet.pts or 0, index) for index, packet in enumerate(packets)
    )


_FIRST_SLICES = {"h264": b"\x65", "hevc": b"\x28", "mpeg4": b"\xb6"}


def headers(film: Film) -> bytes:
    """Parameter sets and the like: what stands before the first slice."""
    before, found, _ = filmed(film)[0].data.partition(b"\0\0\1" + _FIRST_SLICES[film.codec])
    assert found
    return before.rstrip(b"\0")


_FILM_ENCODERS = {"h264": "libx264", "hevc": "libx265", "mpeg4": "mpeg4"}


def _film_options(film: Film) -> dict[str, str]:
    common = (
        f"keyint={film.key_every}:min-keyint={film.key_every}:scenecut=0:bframes={film.b_frames}:b-adapt=0"
        f":open-gop={int(film.open_gop)}"
    )
    if film.codec == "h264":
        pyramid = "b-pyramid=normal:ref=3" if film.pyramid else "b-pyramid=none"
        modes = f"intra-refresh={int(film.refreshes)}:interlaced={int(film.interlaced)}"
        plain = "threads=1:sliced-threads=0:rc-lookahead=0:log-level=-1"
        return {"preset": "veryfast", "qp": "24", "x264-params": f"{common}:{pyramid}:{modes}:{plain}"}
    if film.codec == "hevc":
        plain = "rc-lookahead=5:frame-threads=1:pools=none:log-level=none"
        return {"preset": "ultrafast", "x265-params": f"{common}:crf=20:{plain}"}
    return {"sc_threshold": "1000000000", "qmin": "2", "qmax": "4"}


def _film_frames(film: Film) -> Iterator[VideoFrame]:
    random = np.random.default_rng(zlib.crc32(repr(film).encode()))
    still = random.integers(40, 200, (film.height * 3 // 2, film.width)).astype(np.uint8)
    for index in range(film.frames):
        frame = VideoFrame.from_ndarray(np.roll(still, (index // 8, index), axis=(0, 1)), format="yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, FILM_FPS)
        yield frame


def _film_packet(codec: str, data: bytes, shown_as: int, index: int) -> Packet:
    """What it is, by the units in it: ITU-T H.264 table 7-1, ITU-T H.265 table 7-1, ISO/IEC 14496-2 section 6.2.5."""
    units = split_nals(data)
    refresh = None
    if codec == "h264":
        points = [recovery_frames(unit) for unit in units if unit[0] & 31 == 6]
        refresh = next((point for point in points if point is not None), None)
        is_key = refresh == 0 or any(unit[0] & 31 == 5 for unit in units)
        is_reference = any(unit[0] & 31 in (1, 5) and unit[0] & 0x60 for unit in units)
    elif codec == "hevc":
        kinds = [unit[0] >> 1 & 63 for unit in units]
        is_key = any(16 <= kind < 24 for kind in kinds)
        is_reference = is_key or any(kind < 16 and kind % 2 for kind in kinds)
    else:
        (kind,) = (unit[1] >> 6 for unit in units if unit[:1] == b"\xb6")
        is_key, is_reference = kind == 0, kind != 2
    return a_packet(
        data,
        pts_s=shown_as / FILM_FPS,
        duration_s=1 / FILM_FPS,
        is_key=is_key,
        is_reference=is_reference,
        is_refresh=not is_key and bool(refresh),
        arrived_s=index / FILM_FPS,
    )


def _is_reference(scene: Scene, data: bytes) -> bool:
    """ITU-T H.264 section 7.4.1: nal_ref_idc of the slices. The other codecs' scenes have no B-frames here."""
    return scene.codec != "h264" or any(nal[0] & 31 in (1, 5) and nal[0] & 0x60 for nal in split_nals(data))


def a_packet(
    data: bytes = b"",
    *,
    pts_s: float = 0.0,
    duration_s: float = 0.0,
    is_key: bool = False,
    is_reference: bool = True,
    is_refresh: bool = False,
    arrived_s: float = 0.0,
) -> Packet:
    """A whole picture after a whole picture."""
    return Packet(
        data=data,
        pts_s=pts_s,
        duration_s=duration_s,
        is_key=is_key,
        is_reference=is_reference,
        is_whole=True,
        follows_loss=False,
        is_refresh=is_refresh,
        arrived_at=WALL_S + arrived_s,
        arrived_s=arrived_s,
    )


def later(packet: Packet, by_s: float) -> Packet:
    """The same packet, stamped and arriving so much later."""
    return replace(
        packet,
        pts_s=packet.pts_s + by_s,
        arrived_s=packet.arrived_s + by_s,
        arrived_at=packet.arrived_at + by_s,
    )


class Decoders:
    """Opens decoders of a codec and keeps what they were given: the numbers of the pictures."""

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self.decoded: list[int] = []

    def __call__(self) -> Decoder:
        return _Counting(LibavDecoder(self._codec), self.decoded)


class _Counting:
    def __init__(self, decoder: Decoder, decoded: list[int]) -> None:
        self._decoder = decoder
        self._decoded = decoded
        self.drain = decoder.drain
        self.begin_anew = decoder.begin_anew

    def decode(self, data: bytes, number: int) -> list[VideoFrame]:
        self._decoded.append(number)
        return self._decoder.decode(data, number)


class ClipFeed:
    """A connection that plays a scene, or `shown` in its place, then ends by an error."""

    def __init__(self, scene: Scene, ends_by: errors.CaptureError | None = None) -> None:
        self.codec = _CODECS[scene.codec]
        self.patience_s = PATIENCE_S
        self.shown: Iterable[Packet] | None = None
        self.is_left = False
        self.open_decoder = Decoders(self.codec)
        self._scene = scene
        self._ends_by = ends_by or errors.Closed()

    def packets(self) -> Iterator[Packet]:
        yield from packets_of(self._scene) if self.shown is None else self.shown
        raise self._ends_by

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_left = True
