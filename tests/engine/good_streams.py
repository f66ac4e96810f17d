"""Undamaged streams of many kinds, small and short: what an encoder can make of a picture's size and shape."""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import TimeoutError, get_context
from multiprocessing.pool import Pool

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from streams.engine.decoder import padded
from streams.engine.feed import Packet
from streams.engine.rtp import CodedPicture
from streams.engine.sizes import bits_of, skip_to_h265_size
from tests.camera.clip import AccessUnit, Codec, split_nals
from tests.camera.rtp import payloads

from .hostile import golombs
from .rtp_film import a_packet, a_reader, annex_b

FPS = 10
PICTURES = 14
TRIES = 3
ENCODE_S = 30.0  # takes a tenth of one
WIDTH_PX = 64  # libx265 crashes below
TICKS = 90_000 // FPS

HEIGHTS = (
    *range(16, 65),
    *(height for middle in (360, 450, 720, 1080, 1620) for height in range(middle - 16, middle + 17, 2)),
)
CHROMAS = ("gray", "yuv420p", "yuv422p", "yuv444p")
BITS = (8, 10)
CROPS = range(0, 31, 2)
SOME_CROPS = (0, 2, 12, 18, 30)
H264_MODES = {
    "plain": "bframes=0",
    "B-frames": "bframes=2:b-adapt=0",
    "B-pyramid": "bframes=3:b-adapt=0:b-pyramid=normal:ref=4",
    "open GOP": "bframes=2:b-adapt=0:open-gop=1",
    "four references": "bframes=0:ref=4",
    "weighted": "bframes=2:b-adapt=0:weightp=2:weightb=1:ref=3",
    "interlaced": "bframes=0:tff=1",
    "interlaced B-frames": "bframes=2:b-adapt=0:bff=1",
    "intra refresh": "bframes=0:intra-refresh=1",
    "one long group": "bframes=0:keyint=1000:min-keyint=1000",
    "key frames alone": "keyint=1:min-keyint=1",
    "scaling matrices": "bframes=0:cqm=jvt",
    "constant bit rate": "bframes=0:nal-hrd=cbr:vbv-maxrate=200:vbv-bufsize=200:filler=1:bitrate=200",
    "constrained": "bframes=0:constrained-intra=1:no-deblock=1",
}
H265_MODES = {
    "plain": "bframes=0",
    "B-frames": "bframes=2:b-adapt=0:b-pyramid=0",
    "B-pyramid": "bframes=4:b-adapt=0:b-pyramid=1:ref=4",
    "open GOP": "bframes=2:b-adapt=0:open-gop=1",
    "temporal layers": "bframes=3:b-adapt=0:temporal-layers=3",
    "intra refresh": "bframes=0:intra-refresh=1",
    "one long group": "bframes=0:keyint=1000:min-keyint=1000",
    "fields": "bframes=0:interlace=tff",
    "weighted": "bframes=2:b-adapt=0:weightp=1:weightb=1",
    "wavefronts": "bframes=0:wpp=1",
    "RADL": "bframes=3:b-adapt=0:open-gop=0:radl=2",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """`entropy`: of H.264, cabac or cavlc. `crop`: rows below the picture that are not shown. `tail`: bytes behind a
    slice, as cabac_zero_words and padding are."""

    codec: Codec
    height: int
    chroma: str
    bits: int
    mode: str
    entropy: str = "cabac"
    slices: int = 1
    crop: int = 0
    tail: bytes = b""

    @property
    def pix_fmt(self) -> str:
        return self.chroma if self.bits == 8 else f"{self.chroma}{self.bits}le"

    @property
    def is_possible(self) -> bool:
        """Of rows a chroma sample covers two in 4:2:0, and of those that are interlaced four."""
        unit = (2 if self.chroma == "yuv420p" else 1) * (2 if self.mode.startswith("interlaced") else 1)
        if self.codec == "h264" and self.chroma == "gray" and self.mode == "intra refresh":
            return False  # libx264 crashes (core 165)
        return not self.height % unit and not self.crop % unit


AXES: Mapping[Codec, Mapping[str, Sequence[object]]] = {
    "h264": {
        "height": HEIGHTS,
        "chroma": CHROMAS,
        "bits": BITS,
        "mode": tuple(H264_MODES),
        "entropy": ("cabac", "cavlc"),
        "slices": (1, 3),
        "crop": CROPS,
        "tail": (b"", b"\0\0\3\0\0\3", b"\0" * 5),
    },
    "hevc": {
        "height": HEIGHTS,
        "chroma": CHROMAS,
        "bits": (*BITS, 12),
        "mode": tuple(H265_MODES),
        "crop": CROPS,
        "tail": (b"", b"\0\0\3\0\0\3", b"\0" * 5),
    },
}


@functools.cache
def pairwise(codec: Codec) -> tuple[Kind, ...]:
    """Of each two axes any two values once. Heights are drawn, and of crops there are some."""
    axes = {name: values for name, values in AXES[codec].items() if name != "height"} | {"crop": SOME_CROPS}
    chance, kinds = random.Random(codec), []
    missing = {
        (one, a, other, b) for one, other in itertools.combinations(axes, 2) for a in axes[one] for b in axes[other]
    }
    while missing:
        drawn = [_drawn(codec, axes, chance) for _ in range(40)]
        best = max(drawn, key=lambda kind: len(_pairs(kind, axes) & missing))
        gained = _pairs(best, axes) & missing
        missing -= gained
        if gained:
            kinds.append(best)
        else:  # what is left is not possible together
            break
    return tuple(kinds)


@functools.cache
def whole(codec: Codec) -> tuple[Kind, ...]:
    """Each height with each chroma format and depth; the rest is drawn."""
    axes, chance, kinds = AXES[codec], random.Random(codec), []
    for height, chroma, bits in itertools.product(axes["height"], axes["chroma"], axes["bits"]):
        fixed = {"height": (height,), "chroma": (chroma,), "bits": (bits,)}
        for _ in range(2 if codec == "h264" else 1):
            if kind := _any(codec, {**axes, **fixed}, chance):
                kinds.append(kind)
    return tuple(kinds)


def _drawn(codec: Codec, axes: Mapping[str, Sequence[object]], chance: random.Random) -> Kind:
    kind = _any(codec, {**axes, "height": HEIGHTS}, chance)
    assert kind
    return kind


def _any(codec: Codec, axes: Mapping[str, Sequence[object]], chance: random.Random) -> Kind | None:
    """None where no such is possible: an odd height in 4:2:0."""
    for _ in range(60):
        kind = Kind(codec, **{name: chance.choice(values) for name, values in axes.items()})  # type: ignore[arg-type]
        if kind.is_possible:
            return kind
    return None


def _pairs(kind: Kind, axes: Iterable[str]) -> set[tuple[str, object, str, object]]:
    return {(a, getattr(kind, a), b, getattr(kind, b)) for a, b in itertools.combinations(axes, 2)}


@dataclass(frozen=True, slots=True)
class Stream:
    """Pictures in order of decoding. `frames`: how many libav gives of all."""

    units: tuple[AccessUnit, ...]
    frames: int


def stream_of(kind: Kind) -> Stream:
    """By another process: libx265 hangs about once in a thousand streams (measured). Then it is made anew."""
    for _ in range(TRIES - 1):
        try:
            return _encoder().apply_async(_encoded, (kind,)).get(ENCODE_S)
        except TimeoutError:
            _encoder().terminate()
            _encoder.cache_clear()
    return _encoder().apply_async(_encoded, (kind,)).get(ENCODE_S)


@functools.cache
def _encoder() -> Pool:
    return get_context("spawn").Pool(1)


def _encoded(kind: Kind) -> Stream:
    encoder = av.CodecContext.create(_ENCODERS[kind.codec], "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH_PX, kind.height + kind.crop, kind.pix_fmt
    encoder.time_base, encoder.framerate = Fraction(1, FPS), Fraction(FPS)
    encoder.options = _h264_options(kind) if kind.codec == "h264" else _h265_options(kind)
    coded = [packet for frame in [*_frames(kind), None] for packet in encoder.encode(frame)]
    units = tuple(
        AccessUnit(_made_up(kind, bytes(packet)), (packet.pts or 0) * TICKS, packet.is_keyframe) for packet in coded
    )
    return Stream(units, _frame_count(kind, units))


_ENCODERS = {"h264": "libx264", "hevc": "libx265"}


def _h264_options(kind: Kind) -> dict[str, str]:
    mode = H264_MODES[kind.mode]
    keys = "" if "keyint" in mode else "keyint=5:min-keyint=5:"
    entropy = f"cabac={int(kind.entropy == 'cabac')}:crop-rect=0,0,0,{kind.crop}"
    params = f"{keys}scenecut=0:{mode}:slices={kind.slices}:{entropy}:threads=1:log-level=-1"
    return {"preset": "veryfast", "x264-params": params} | ({} if "bitrate" in mode else {"crf": "26"})


def _h265_options(kind: Kind) -> dict[str, str]:
    mode = H265_MODES[kind.mode]
    keys = "" if "keyint" in mode else "keyint=5:min-keyint=5:"
    params = f"{keys}scenecut=0:{mode}:rc-lookahead=5:frame-threads=1:log-level=none"
    return {"preset": "ultrafast", "x265-params": params}


def _made_up(kind: Kind, data: bytes) -> bytes:
    """With the crop of H.265, which its encoder cannot be told."""
    if kind.codec == "hevc" and kind.crop:
        units = [_cropped(unit, kind) if unit[0] >> 1 & 63 == _H265_SPS else unit for unit in split_nals(data)]
        data = annex_b(*units)
    return data


_H265_SPS = 33


def _cropped(sps: bytes, kind: Kind) -> bytes:
    """ITU-T H.265 section 7.3.2.2.1: conformance_window_flag, then the offsets, in samples of chroma."""
    bits = bits_of(sps, at=2)
    skip_to_h265_size(bits)
    bits.skip(2)
    begin, offsets = bits.at, [0, 0, 0, 0]
    if bits.take(1):
        offsets = [bits.golomb() for _ in offsets]
    offsets[3] += kind.crop // (2 if kind.chroma == "yuv420p" else 1)
    text = bits.text[:begin] + "1" + golombs(*offsets) + bits.text[bits.at :].rstrip("0")
    text += "0" * (-len(text) % 8)
    return sps[:2] + re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\0\0\3", int(text, 2).to_bytes(len(text) // 8))[2:]


def _frames(kind: Kind) -> Iterator[VideoFrame]:
    """Grain and a lamp; without colour, as infrared at night is, or with it."""
    grain, height = np.random.default_rng(kind.height), kind.height + kind.crop
    has_colour = kind.height % 3 == 0
    for number in range(PICTURES):
        image = grain.integers(16, 30, (height, WIDTH_PX, 3) if has_colour else (height, WIDTH_PX)).astype(np.uint8)
        image[number : number + 8, 2 * number : 2 * number + 8] = 220
        frame = VideoFrame.from_ndarray(image, format="rgb24" if has_colour else "gray")
        frame = frame.reformat(format=kind.pix_fmt)
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        yield frame


def _frame_count(kind: Kind, units: Iterable[AccessUnit]) -> int:
    decoder = av.CodecContext.create(kind.codec, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    return sum(len(decoder.decode(packet)) for packet in [*(padded(unit.data) for unit in units), None])


def received(kind: Kind, stream: Stream) -> Iterator[Packet]:
    """By RTP; and a last one that is damaged, so that nothing waits for what may still come."""
    reader, sequence = a_reader({"h264": "H264", "hevc": "H265"}[kind.codec]), 0
    arrived = 0
    for unit in stream.units:
        parts = payloads(kind.codec, unit)
        for number, part in enumerate(parts, 1):
            is_last = number == len(parts)
            packet = a_packet(part + kind.tail * is_last, sequence, unit.pts_ticks, is_marked=is_last)
            sequence += 1
            for coded in reader.push(memoryview(packet)):
                yield _fed(coded, arrived)
                arrived += 1
    for coded in reader.settle():
        yield _fed(coded, arrived)
    yield _fed(CodedPicture(b"", PICTURES * TICKS, False, True, False, False), arrived + 1)


def _fed(coded: CodedPicture, arrived: int) -> Packet:
    return Packet(
        data=coded.data,
        pts_s=coded.timestamp / 90_000,
        duration_s=1 / FPS,
        is_key=coded.is_key,
        is_reference=coded.is_reference,
        is_whole=coded.is_whole,
        follows_loss=coded.follows_loss,
        is_refresh=coded.refresh is not None,
        arrived_at=arrived / FPS,
        arrived_s=arrived / FPS,
    )
