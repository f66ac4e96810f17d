"""Brightness against what OpenCV itself makes of the same file: VideoCapture, cvtColor to grey, mean.

The files are encoded here, so that each names its matrix and range as a camera does. With TEST_ALL every combination
of properties is tried, else so many that each pair of properties is among them.
"""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from fractions import Fraction
from itertools import combinations, product
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream

from streams.engine.conversion import encode_frame, plane
from streams.engine.scoring import brightness
from streams.engine.sheet import decode_jpeg

YCbCr = npt.NDArray[np.uint8]
"""(height, width, 3), 8 bits, of which a format takes what it has."""
Picture = Callable[[int, int], YCbCr]
"""By width and height."""
Colours = tuple[ColorPrimaries, ColorTrc]

# Asked for is 1.0. It is nothing as long as both libraries bring the same swscale, which they do now.
LEVELS = 0.05
# What JPEG of quality 92 may do to the mean of a picture of noise that is not of this world.
JPEG_LEVELS = 1.0
WHOLE = bool(os.environ.get("TEST_ALL"))

LOSSLESS = {"qp": "0", "preset": "ultrafast", "x265-params": "lossless=1:log-level=none"}
CODINGS = {
    "ffv1": (
        "yuv420p yuv422p yuv444p gray gray10le gray12le yuv420p10le yuv422p10le yuv444p10le yuv420p12le yuv422p12le"
    ),
    "libx264": "yuv420p yuvj420p yuv422p yuvj422p yuv444p yuvj444p gray yuv420p10le yuv422p10le yuv444p10le",
    "libx265": "yuv420p yuv422p yuv444p gray yuv420p10le yuv422p10le yuv420p12le",
    "mpeg4": "yuv420p",
    "mjpeg": "yuvj420p yuvj422p yuvj444p",
    "rawvideo": "nv12 nv21 uyvy422 yuyv422 rgb24 bgr24",
}
RANGES = (ColorRange.UNSPECIFIED, ColorRange.MPEG, ColorRange.JPEG)
UNNAMED = 2
MATRICES = (UNNAMED, Colorspace.ITU601, Colorspace.ITU709, Colorspace.BT2020)
# The second has two bands, and the third a width and a height that are odd.
SIZES = ((322, 182), (1280, 128), (321, 241))
TAKES_ODD = ("ffv1",)
MAPPED: tuple[tuple[tuple[str, str], Colours], ...] = (
    (("ffv1", "yuv420p"), (ColorPrimaries.BT2020, ColorTrc.BT2020_10)),
    (("libx265", "yuv420p10le"), (ColorPrimaries.BT2020, ColorTrc.SMPTE2084)),
    (("libx265", "yuv420p10le"), (ColorPrimaries.BT709, ColorTrc.ARIB_STD_B67)),
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file is and says of itself."""

    coding: tuple[str, str]
    color_range: ColorRange
    matrix: int
    size: tuple[int, int]

    def __str__(self) -> str:
        width, height = self.size
        return f"{' '.join(self.coding)} {self.color_range.name.lower()} {int(self.matrix)} {width}x{height}"


def kinds() -> list[Kind]:
    codings = [(encoder, pix_fmt) for encoder, formats in CODINGS.items() for pix_fmt in formats.split()]
    every = [Kind(*one) for one in product(codings, RANGES, MATRICES, SIZES)]
    possible = [kind for kind in every if kind.size != SIZES[2] or kind.coding[0] in TAKES_ODD]
    return possible if WHOLE else pairwise(possible)


def pairwise(every: Sequence[Kind]) -> list[Kind]:
    """So many that each pair of values that is possible is in one of them: those with the most new pairs first."""
    shuffled, chosen = random.Random(1).sample(every, len(every)), []
    seen: set[object] = set()
    for least in range(6, 0, -1):
        for kind in shuffled:
            pairs = set(combinations(enumerate(astuple(kind)), 2))
            if len(pairs - seen) >= least:
                chosen.append(kind)
                seen |= pairs
    return chosen


def noise(width: int, height: int) -> YCbCr:
    """Most of its colours no screen can show."""
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def patches(width: int, height: int) -> YCbCr:
    """Random colours, of 8 x 8 pixels each."""
    small = np.random.default_rng(2).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return np.kron(small, np.ones((8, 8, 1), np.uint8))[:height, :width]


def ramp(width: int, height: int) -> YCbCr:
    """Every luma value, without colour."""
    picture = np.full((height, width, 3), 128, np.uint8)
    picture[..., 0] = np.arange(width * height).reshape(height, width) % 256
    return picture


def flat(*colour: int) -> Picture:
    return lambda width, height: np.broadcast_to(np.array(colour, np.uint8), (height, width, 3))


def halves(upper: int, lower: int) -> Picture:
    """Two luma values, without colour."""

    def picture(width: int, height: int) -> YCbCr:
        made = np.full((height, width, 3), 128, np.uint8)
        made[: height // 2, :, 0], made[height // 2 :, :, 0] = upper, lower
        return made

    return picture


PICTURES: tuple[Picture, ...] = (
    noise,
    patches,
    ramp,
    halves(250, 126),
    halves(240, 16),
    *(flat(*map(int, colour)) for colour in np.random.default_rng(3).integers(0, 256, (6, 3))),
    flat(90, 240, 110),  # a blue that a screen can show
)


def painted(picture: YCbCr, pix_fmt: str) -> VideoFrame:
    """A frame of the format with these codes, and low bits of noise where it is deeper."""
    height, width = picture.shape[:2]
    frame = VideoFrame(width, height, pix_fmt)
    if pix_fmt in PACKED:
        return painted(picture, PACKED[pix_fmt]).reformat(format=pix_fmt)
    bits = frame.format.components[0].bits
    low_bits = np.random.default_rng(4)
    for index in range(len(frame.planes)):
        into = plane(frame, index)
        rows, columns = height // len(into), width // into.shape[1]
        codes = picture[::rows, ::columns, index][: len(into), : into.shape[1]].astype(np.uint16) << (bits - 8)
        into[:] = codes | low_bits.integers(0, 1 << (bits - 8), into.shape, np.uint16)
    return frame


PACKED = {
    "nv12": "yuv420p",
    "nv21": "yuv420p",
    "uyvy422": "yuv422p",
    "yuyv422": "yuv422p",
    "rgb24": "yuv444p",
    "bgr24": "yuv444p",
}


def write(kind: Kind, folder: Path, pictures: Sequence[Picture], colours: Colours | None = None) -> Path:
    """One frame for each of the pictures, each a key frame."""
    encoder, pix_fmt = kind.coding
    path = folder / f"film.{ {'mjpeg': 'avi', 'rawvideo': 'nut'}.get(encoder, 'mkv') }"
    width, height = kind.size
    with av.open(path, "w") as container:
        stream = container.add_stream(encoder, rate=5, options=LOSSLESS if "x26" in encoder else {})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        context = stream.codec_context
        context.gop_size = 1
        context.color_range, context.colorspace = kind.color_range, kind.matrix
        if colours:
            context.color_primaries, context.color_trc = colours
        for index, picture in enumerate(pictures):
            frame = painted(picture(width, height), pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 5)
            frame.color_range, frame.colorspace = kind.color_range, kind.matrix
            if colours:
                frame.color_primaries, frame.color_trc = colours
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def greys(path: Path) -> Iterator[float]:
    """OpenCV alone."""
    film = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    while (read := film.read())[0]:
        yield float(cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY).mean())
    film.release()


def frames(path: Path) -> list[VideoFrame]:
    with av.open(path) as container:
        return list(container.decode(video=0))


def assert_is_opencvs(path: Path, count: int) -> None:
    seen = [brightness(frame) for frame in frames(path)]
    assert len(seen) == count
    assert seen == pytest.approx(list(greys(path)), abs=LEVELS)


@pytest.mark.parametrize("kind", kinds(), ids=str)
def test_brightness_is_opencvs_grey_mean(kind: Kind, tmp_path: Path) -> None:
    assert_is_opencvs(write(kind, tmp_path, PICTURES), len(PICTURES))


@pytest.mark.parametrize("color_range", RANGES, ids=lambda one: one.name.lower())
@pytest.mark.parametrize("coding", [("ffv1", "yuv420p"), ("ffv1", "yuv420p10le"), ("libx264", "gray")], ids=" ".join)
def test_every_luma_value_is_opencvs(coding: tuple[str, str], color_range: ColorRange, tmp_path: Path) -> None:
    """Flat, and beside each other one that is 100 away."""
    pictures = [flat(code, 128, 128) for code in range(256)]
    pictures += [halves(code, (code + 100) % 256) for code in range(256)]
    path = write(Kind(coding, color_range, UNNAMED, (32, 32)), tmp_path, pictures)
    assert_is_opencvs(path, len(pictures))


@pytest.mark.parametrize(("coding", "colours"), MAPPED, ids=str)
def test_colours_that_a_screen_lacks_are_mapped_as_opencv_does(
    coding: tuple[str, str], colours: Colours, tmp_path: Path
) -> None:
    kind = Kind(coding, ColorRange.MPEG, Colorspace.BT2020, (64, 48))
    path = write(kind, tmp_path, PICTURES, colours)
    seen, expected = [brightness(frame) for frame in frames(path)], list(greys(path))
    assert seen == pytest.approx(expected, abs=LEVELS)
    unnamed = list(greys(write(kind, tmp_path, PICTURES)))
    assert max(abs(one - other) for one, other in zip(expected, unnamed, strict=True)) > 1.0


@pytest.mark.parametrize("color_range", RANGES[1:], ids=lambda one: one.name.lower())
@pytest.mark.parametrize("matrix", MATRICES, ids=int)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "gray", "yuv420p10le"])
def test_the_saved_picture_has_the_brightness_that_it_is_ranked_by(
    pix_fmt: str, matrix: int, color_range: ColorRange
) -> None:
    for picture in (patches, ramp, halves(250, 126), flat(90, 240, 110)):
        frame = painted(picture(320, 240), pix_fmt)
        frame.color_range, frame.colorspace = color_range, matrix
        saved = cv2.cvtColor(decode_jpeg(encode_frame(frame)), cv2.COLOR_BGR2GRAY)
        assert brightness(frame) == pytest.approx(float(saved.mean()), abs=JPEG_LEVELS)
