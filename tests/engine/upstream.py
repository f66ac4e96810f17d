"""A relay that lost packets on their way from the camera: slices or pictures are missing in an unbroken RTP sequence.

The film is a yard at night through which lamps move: whatever is copied from the wrong picture is a bright smear.
"""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame

from streams.engine.continuity import Watch, continuity
from streams.engine.decoder import LibavDecoder, padded
from streams.engine.feed import Packet
from streams.engine.rtp import CodedPicture
from streams.engine.sampler import Counts, Sampler
from tests.camera.clip import AccessUnit, split_nals
from tests.camera.rtp import payloads

from .rtp_film import a_packet, a_reader, annex_b

Codec = Literal["h264", "hevc", "mpeg4"]
Kind = Literal["slice", "P picture", "B picture", "key frame"]
CODECS: tuple[Codec, ...] = ("h264", "hevc", "mpeg4")
KINDS: tuple[Kind, ...] = ("slice", "P picture", "B picture", "key frame")

WIDTH_PX, HEIGHT_PX, FPS = 320, 180, 12
GROUPS, GROUP_PICTURES = 8, 12
LOSSES = 3  # of each film, each in a group of its own
FILMS = 4
DIFFERENCE = 2  # levels of a sample of any plane
TICKS = 90_000 // FPS

_NAMES = {"h264": "H264", "hevc": "H265", "mpeg4": "MP4V-ES"}
_COMMON = f"keyint={GROUP_PICTURES}:min-keyint={GROUP_PICTURES}:scenecut=0:bframes=2:b-adapt=0:slices=4:open-gop=0"
_OPTIONS = {
    "h264": ("libx264", {"preset": "veryfast", "qp": "26", "x264-params": f"{_COMMON}:b-pyramid=normal:threads=1"}),
    "hevc": (
        "libx265",
        {"preset": "ultrafast", "x265-params": f"{_COMMON}:ctu=16:frame-threads=1:rc-lookahead=5:log-level=none"},
    ),
    "mpeg4": ("mpeg4", {"sc_threshold": "1000000000", "qmin": "4", "qmax": "4", "ps": "800"}),
}
# ISO/IEC 14496-2 section 6.2.5.2: 16 zeros or more stand nowhere else in a picture.
_RESYNC = re.compile(rb"\x00\x00[\x02-\xff]")
_VOP = b"\0\0\1\xb6"


@dataclass(frozen=True, slots=True)
class Picture:
    """In its place in the order of decoding: `shown` is that in the order of presentation."""

    slices: tuple[bytes, ...]
    headers: tuple[bytes, ...]
    shown: int
    kind: Kind

    def data(self, codec: Codec, without: int | None = None) -> bytes:
        """Without this slice."""
        left = [part for number, part in enumerate(self.slices) if number != without]
        return b"".join([*self.headers, *left]) if codec == "mpeg4" else annex_b(*self.headers, *left)


@dataclass(frozen=True, slots=True)
class Film:
    codec: Codec
    pictures: tuple[Picture, ...]
    frames: tuple[np.ndarray, ...]
    """As libav gives them, in order of presentation."""


@dataclass(slots=True)
class Outcome:
    """`differing`: of the frames kept, those unlike the film's own. `rejected`: pictures."""

    losses: int = 0
    kept: int = 0
    differing: int = 0
    rejected: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.losses + other.losses,
            self.kept + other.kept,
            self.differing + other.differing,
            self.rejected + other.rejected,
        )


def with_losses(codec: Codec, kind: Kind, seed: int) -> Outcome:
    """LOSSES slices or pictures of a film are missing."""
    film, chance = film_of(codec, seed % FILMS), random.Random(f"{codec} {kind} {seed}")
    lost: dict[int, int | None] = {}
    for group in chance.sample(range(GROUPS), LOSSES):
        numbers = range(group * GROUP_PICTURES, (group + 1) * GROUP_PICTURES)
        number = chance.choice([n for n in numbers if kind in ("slice", film.pictures[n].kind)])
        lost[number] = chance.randrange(len(film.pictures[number].slices)) if kind == "slice" else None
    outcome = played(film, lost)
    outcome.losses = len(lost)
    return outcome


def without_loss(codec: Codec) -> Outcome:
    """Of all its films. `differing`: frames that were not kept as well."""
    total = Outcome()
    for seed in range(FILMS):
        film = film_of(codec, seed)
        outcome = played(film, {})
        outcome.differing += len(film.frames) - outcome.kept
        total += outcome
    return total


def played(film: Film, lost: dict[int, int | None]) -> Outcome:
    """`lost`: by picture the slice that is missing; None: all of it is."""
    counts = Counts()
    sampler = Sampler(1 / FPS, lambda: LibavDecoder(film.codec), counts, watch=Watch(continuity(film.codec)))
    outcome = Outcome()
    for coded in [*_received(film, lost), None]:
        packet = _fed(coded) if coded else _end(film)
        for sample in sampler.push(packet):
            outcome.kept += 1
            shown = film.frames[round(sample.arrived_at)]
            outcome.differing += _differs(shown, sample.frame.to_ndarray())
    outcome.rejected = counts.rejected - 1  # the end
    return outcome


def _differs(shown: np.ndarray, kept: np.ndarray) -> bool:
    return shown.shape != kept.shape or int(np.abs(shown.astype(np.int16) - kept).max()) > DIFFERENCE


def _received(film: Film, lost: dict[int, int | None]) -> Iterable[CodedPicture]:
    """RTP's numbers are given after the loss."""
    reader, sequence = a_reader(_NAMES[film.codec]), 0
    for number, picture in enumerate(film.pictures):
        if number in lost and (lost[number] is None or len(picture.slices) == 1):
            continue
        data = picture.data(film.codec, lost.get(number))
        parts = payloads(film.codec, AccessUnit(data, 0, picture.kind == "key frame"))
        for index, part in enumerate(parts):
            packet = a_packet(part, sequence, picture.shown * TICKS, is_marked=index == len(parts) - 1)
            sequence += 1
            yield from reader.push(memoryview(packet))
    yield from reader.settle()


def _fed(coded: CodedPicture) -> Packet:
    """It arrives when it is shown: so a sample tells which one it is."""
    return Packet(
        data=coded.data,
        pts_s=coded.timestamp / 90_000,
        duration_s=1 / FPS,
        is_key=coded.is_key,
        is_reference=coded.is_reference,
        is_whole=coded.is_whole,
        follows_loss=coded.follows_loss,
        is_refresh=coded.refresh is not None,
        arrived_at=coded.timestamp / TICKS,
        arrived_s=coded.timestamp / 90_000,
    )


def _end(film: Film) -> Packet:
    """So that nothing waits for what may still come."""
    last = CodedPicture(b"", len(film.frames) * TICKS, False, True, False, False)
    return _fed(last)


@functools.lru_cache(maxsize=16)
def film_of(codec: Codec, seed: int) -> Film:
    encoder, options = _OPTIONS[codec]
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
    context.time_base, context.framerate = Fraction(1, FPS), Fraction(FPS)
    context.gop_size, context.options = GROUP_PICTURES, options
    context.max_b_frames = 2
    coded = [packet for frame in [*_night(seed), None] for packet in context.encode(frame)]
    decoder = av.CodecContext.create(codec, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    frames: list[VideoFrame] = []
    for packet in coded:
        data = padded(bytes(packet))
        data.pts = packet.pts
        frames += decoder.decode(data)
    frames += decoder.decode(None)
    kinds = {frame.pts: "B picture" if frame.pict_type == PictureType.B else "P picture" for frame in frames}
    keys = {packet.pts: "key frame" for packet in coded if packet.is_keyframe}
    pictures = [
        Picture(*_parted(codec, bytes(packet)), packet.pts or 0, cast(Kind, (kinds | keys)[packet.pts]))
        for packet in coded
    ]
    return Film(codec, tuple(pictures), tuple(frame.to_ndarray() for frame in frames))


def _parted(codec: Codec, data: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Slices, and what stands before them. MPEG-4: the first one has the picture's header."""
    if codec == "mpeg4":
        begin = data.index(_VOP)
        cuts = [begin, *(match.start() for match in _RESYNC.finditer(data, begin + 8)), len(data)]
        return tuple(data[a:b] for a, b in itertools.pairwise(cuts)), (data[:begin],)
    units = split_nals(data)
    is_slice = [unit[0] & 31 in (1, 5) if codec == "h264" else unit[0] >> 1 & 63 < 32 for unit in units]
    slices = tuple(unit for unit, known in zip(units, is_slice, strict=True) if known)
    return slices, tuple(unit for unit, known in zip(units, is_slice, strict=True) if not known)


def _night(seed: int) -> Iterable[VideoFrame]:
    """A sensor's grain, and lamps of 16 x 10 pixels, each on a way of its own."""
    grain = np.random.default_rng(seed)
    ways = grain.integers([0, 0, 5, -3], [WIDTH_PX - 16, HEIGHT_PX - 10, 12, 4], (6, 4))
    for number in range(GROUPS * GROUP_PICTURES):
        image = np.full((HEIGHT_PX * 3 // 2, WIDTH_PX), 128, np.uint8)
        image[:HEIGHT_PX] = grain.integers(16, 24, (HEIGHT_PX, WIDTH_PX))
        for x, y, across, down in ways:
            left, top = (x + number * across) % (WIDTH_PX - 16), (y + number * down) % (HEIGHT_PX - 10)
            image[top : top + 10, left : left + 16] = 200
        frame = VideoFrame.from_ndarray(image, format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        yield frame


def kinds_of(film: Film) -> Sequence[Kind]:
    return [picture.kind for picture in film.pictures]
