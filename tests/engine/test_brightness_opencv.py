"""Brightness against what OpenCV itself makes of the same file: VideoCapture, cvtColor to grey, mean.

OpenCV 5.0 converts by the matrix and the range that the file names, and weighs red, green and blue as BT.601 does; so
grey is luma for BT.601 alone. It converts quickly: 4:2:0 comes out 0.5 to 1.5 levels too dark (measured).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from av.video.stream import VideoStream

from streams.engine.scoring import brightness

RGB = npt.NDArray[np.uint8]

WIDTH_PX, HEIGHT_PX = 320, 240
EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
SHARP = {"preset": "ultrafast", "qp": "4", "x265-params": "qp=4:log-level=none"}
MATRICES = {
    "601": (Colorspace.ITU601, ColorPrimaries.SMPTE170M, ColorTrc.SMPTE170M),
    "709": (Colorspace.ITU709, ColorPrimaries.BT709, ColorTrc.BT709),
}
TONES = {"red": (200, 30, 40), "green": (30, 200, 40), "blue": (30, 40, 220), "orange": (230, 140, 30)}


@dataclass(frozen=True, slots=True)
class Kind:
    """A file: `matrix` "" is one that names none."""

    encoder: str
    pix_fmt: str
    matrix: str
    is_full_range: bool = False

    def __str__(self) -> str:
        return f"{self.encoder} {self.pix_fmt} {self.matrix or 'none'} {'full' if self.is_full_range else 'limited'}"


KINDS = [
    *(
        Kind(encoder, pix_fmt, matrix, is_full_range)
        for encoder in ("libx264", "libx265")
        for pix_fmt in ("yuv420p", "yuv420p10le")
        for matrix in ("601", "709", "")
        for is_full_range in (False, True)
    ),
    Kind("libx264", "yuv444p", "709"),
    Kind("mpeg4", "yuv420p", ""),
    Kind("mjpeg", "yuvj420p", "601", is_full_range=True),
]


def textured(colours: npt.NDArray[np.float64]) -> RGB:
    """With light and shade and grain, as all that is filmed: what is rounded averages out."""
    y, x = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX]
    grain = np.random.default_rng(1).normal(0, 4, (HEIGHT_PX, WIDTH_PX, 3))
    shade = 25 * np.sin(x / 17) * np.cos(y / 13)
    return np.asarray(np.clip(colours * 0.8 + 20 + shade[..., None] + grain, 0, 255), np.uint8)


def even(red: int, green: int, blue: int) -> RGB:
    return textured(np.broadcast_to(np.array([red, green, blue], np.float64), (HEIGHT_PX, WIDTH_PX, 3)))


def lawn_and_sky() -> RGB:
    picture = np.empty((HEIGHT_PX, WIDTH_PX, 3))
    picture[:100], picture[100:] = (110, 170, 235), (60, 140, 40)
    return textured(picture)


def bars() -> RGB:
    colours = np.array([(235, 20, 20), (20, 230, 20), (20, 20, 235), (230, 230, 20), (20, 220, 220), (220, 20, 220)])
    stripes = np.minimum(np.arange(WIDTH_PX) * 6 // WIDTH_PX, 5)
    return textured(np.broadcast_to(colours[stripes].astype(np.float64), (HEIGHT_PX, WIDTH_PX, 3)))


PICTURES: dict[str, Callable[[], RGB]] = {
    "lawn and sky": lawn_and_sky,
    "bars": bars,
    "grey": partial(even, 120, 120, 120),
    "night": partial(even, 0, 0, 10),
    **{name: partial(even, *tone) for name, tone in TONES.items()},
}


def converted(picture: RGB, kind: Kind) -> VideoFrame:
    color_range = ColorRange.JPEG if kind.is_full_range else ColorRange.MPEG
    matrix = MATRICES[kind.matrix or "601"][0]
    frame = VideoFrame.from_ndarray(picture, format="rgb24").reformat(
        format=kind.pix_fmt, dst_colorspace=matrix, dst_color_range=color_range, interpolation=EXACT
    )
    frame.color_range = color_range
    if kind.matrix:
        frame.colorspace = matrix
    return frame


def write(kind: Kind, path: Path) -> None:
    """One frame for each of the pictures, each a key frame."""
    with av.open(path, "w") as container:
        stream = container.add_stream(kind.encoder, rate=5, options=SHARP if "x26" in kind.encoder else {"qmin": "2"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, kind.pix_fmt
        context = stream.codec_context
        context.gop_size, context.bit_rate = 1, 20_000_000 if kind.encoder == "mpeg4" else 0
        context.color_range = ColorRange.JPEG if kind.is_full_range else ColorRange.MPEG
        if kind.matrix:
            context.colorspace, context.color_primaries, context.color_trc = MATRICES[kind.matrix]
        for index, picture in enumerate(PICTURES.values()):
            frame = converted(picture(), kind)
            frame.pts, frame.time_base = index, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def greys(path: Path) -> Iterator[float]:
    """OpenCV alone."""
    film = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    while (read := film.read())[0]:
        yield float(cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY).mean())
    film.release()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_brightness_is_opencvs_grey(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / ("film.avi" if kind.encoder == "mjpeg" else "film.mp4")
    write(kind, path)
    with av.open(path) as container:
        frames = list(container.decode(video=0))
    assert all(is_of(frame, kind) for frame in frames)
    seen = dict(zip(PICTURES, (round(brightness(frame), 2) for frame in frames), strict=True))
    assert seen == pytest.approx(dict(zip(PICTURES, islice(greys(path), len(PICTURES)), strict=True)), abs=1.0)


def is_of(frame: VideoFrame, kind: Kind) -> bool:
    """Whether the file is what was asked for: full range may be in the name of the format alone."""
    is_full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    is_deep = frame.format.components[0].bits == 10
    names_bt709 = frame.colorspace == Colorspace.ITU709
    return (is_full, is_deep, names_bt709) == (kind.is_full_range, "10" in kind.pix_fmt, kind.matrix == "709")
