"""Brightness against OpenCV's grey, for each kind of picture that a decoder gives."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.conversion import encode_frame
from streams.engine.scoring import brightness, luma_plane
from streams.engine.sheet import decode_jpeg
from tests.camera.clip import Codec, Scene

RGB = npt.NDArray[np.uint8]
MATRICES = [Colorspace.ITU601, Colorspace.ITU709, Colorspace.DEFAULT]
RANGES = [ColorRange.MPEG, ColorRange.JPEG, ColorRange.UNSPECIFIED]
SIZES = [(320, 240), (321, 241), (322, 181), (176, 144), (90, 160), (7, 5)]


def grey_picture(width: int = 320, height: int = 240, level: int = 120) -> RGB:
    """Neutral, with waves and a slope: no two rows are the same."""
    y, x = np.mgrid[0:height, 0:width]
    waves = level + 60 * np.sin(x / 9) + 30 * np.cos(y / 5) + x * 40 / width
    return np.repeat(np.clip(waves, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def coloured_picture() -> RGB:
    """A lawn, a wall and a sky: no colour that a screen could not show."""
    y, x = np.mgrid[0:240, 0:320]
    channels = [90 + 50 * np.sin(x / 40), 130 + 40 * np.cos(y / 30), 70 + 30 * np.sin((x + y) / 50)]
    return np.stack(channels, -1).astype(np.uint8)


def frame_of(
    picture: RGB, pix_fmt: str, matrix: Colorspace = Colorspace.ITU601, color_range: ColorRange = ColorRange.MPEG
) -> VideoFrame:
    """Converted to what is flagged; an unspecified range is what decoders mean by it: limited."""
    is_full = color_range is ColorRange.JPEG or pix_fmt.startswith(("yuvj", "gray", "rgb", "bgr", "gbr"))
    frame = VideoFrame.from_ndarray(picture, format="rgb24").reformat(
        format=pix_fmt,
        dst_colorspace=matrix,
        dst_color_range=ColorRange.JPEG if is_full else ColorRange.MPEG,
    )
    frame.colorspace, frame.color_range = matrix, color_range
    return frame


def opencv_grey(frame: VideoFrame) -> float:
    return float(cv2.cvtColor(frame.to_ndarray(format="bgr24"), cv2.COLOR_BGR2GRAY).mean())


def flat_frame(code: int, pix_fmt: str = "yuv420p", color_range: ColorRange = ColorRange.MPEG) -> VideoFrame:
    planes = np.full((36, 32), 128, np.uint8)
    planes[:24] = code
    frame = VideoFrame.from_ndarray(planes, format=pix_fmt)
    frame.color_range = color_range
    return frame


@pytest.mark.parametrize("color_range", RANGES, ids=lambda one: one.name)
@pytest.mark.parametrize("matrix", MATRICES, ids=lambda one: one.name)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "nv12", "yuv422p", "yuvj422p", "yuv444p", "yuv420p10le"])
def test_it_is_opencvs_grey_whatever_is_flagged(pix_fmt: str, matrix: Colorspace, color_range: ColorRange) -> None:
    frame = frame_of(grey_picture(), pix_fmt, matrix, color_range)
    assert brightness(frame) == pytest.approx(opencv_grey(frame), abs=1.0)


@pytest.mark.parametrize(
    "pix_fmt", ["gray", "gray10le", "rgb24", "bgr24", "gbrp", "nv21", "yuyv422", "uyvy422", "p010le", "yuv420p12le"]
)
def test_it_is_opencvs_grey_for_other_formats(pix_fmt: str) -> None:
    frame = frame_of(grey_picture(), pix_fmt)
    assert brightness(frame) == pytest.approx(opencv_grey(frame), abs=1.0)
    assert brightness(frame) == pytest.approx(float(grey_picture().mean()), abs=1.0)


@pytest.mark.parametrize("color_range", RANGES[:2], ids=lambda one: one.name)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "nv12"])
def test_it_is_opencvs_grey_for_coloured_pictures(pix_fmt: str, color_range: ColorRange) -> None:
    """Of the picture that is saved. OpenCV weighs red, green and blue as BT.601 does."""
    frame = frame_of(coloured_picture(), pix_fmt, Colorspace.ITU601, color_range)
    saved = decode_jpeg(encode_frame(frame))
    grey = float(cv2.cvtColor(saved, cv2.COLOR_BGR2GRAY).mean())
    assert brightness(frame) == pytest.approx(grey, abs=1.0)


@pytest.mark.parametrize("color_range", RANGES[:2], ids=lambda one: one.name)
@pytest.mark.parametrize("matrix", [Colorspace.ITU601, Colorspace.ITU709], ids=["BT.601", "BT.709"])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "nv12", "yuv420p10le"])
def test_it_is_opencvs_grey_of_colours_whatever_the_matrix_is(
    pix_fmt: str, matrix: Colorspace, color_range: ColorRange
) -> None:
    """Grey has the weights of BT.601 (section 2.5.1), whatever the video's luma has."""
    frame = frame_of(coloured_picture(), pix_fmt, matrix, color_range)
    red_green_blue = coloured_picture().mean(axis=(0, 1))
    assert brightness(frame) == pytest.approx(float(red_green_blue @ (0.299, 0.587, 0.114)), abs=1.0)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "nv12", "yuv420p10le", "gray", "rgb24"])
def test_odd_sizes_are_whole_pictures(pix_fmt: str, size: tuple[int, int]) -> None:
    frame = frame_of(grey_picture(*size), pix_fmt)
    assert (frame.width, frame.height) == size
    assert brightness(frame) == pytest.approx(float(grey_picture(*size).mean()), abs=1.0)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "nv12", "yuv420p10le", "gray"])
def test_what_lies_between_the_rows_does_not_count(pix_fmt: str) -> None:
    frame = frame_of(grey_picture(322, 181), pix_fmt)
    clean = brightness(frame)
    plane = frame.planes[0]
    row_bytes = 322 * (2 if pix_fmt.endswith("10le") else 1)
    assert plane.line_size > row_bytes, "this frame has no padding"
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size).copy()
    rows[:, row_bytes:] = 0xFF
    rows[181:] = 0xFF
    plane.update(rows.tobytes())
    assert brightness(frame) == clean


@pytest.mark.parametrize(
    ("code", "color_range", "expected"),
    [
        (16, ColorRange.MPEG, 0.0),
        (235, ColorRange.MPEG, 254.3),  # OpenCV loses about so much where it stretches
        (125, ColorRange.MPEG, 109 * 255 / 219 - 0.7),
        (125, ColorRange.UNSPECIFIED, 109 * 255 / 219 - 0.7),
        (0, ColorRange.MPEG, 0.0),  # blacker than black
        (255, ColorRange.MPEG, 255.0),
        (0, ColorRange.JPEG, 0.0),
        (125, ColorRange.JPEG, 124.8),
        (255, ColorRange.JPEG, 254.8),
    ],
)
def test_it_runs_from_0_to_255(code: int, color_range: ColorRange, expected: float) -> None:
    assert brightness(flat_frame(code, color_range=color_range)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("pix_fmt", ["yuvj420p"])
def test_full_range_may_be_in_the_formats_name_alone(pix_fmt: str) -> None:
    frame = flat_frame(100, pix_fmt, ColorRange.UNSPECIFIED)
    assert brightness(frame) == pytest.approx(99.8)


@given(st.integers(0, 254))
def test_a_brighter_picture_scores_no_less(code: int) -> None:
    assert brightness(flat_frame(code)) <= brightness(flat_frame(code + 1))


def test_the_luma_plane_is_a_view_of_the_picture() -> None:
    frame = frame_of(grey_picture(321, 241), "yuv420p")
    plane = luma_plane(frame)
    assert plane is not None
    assert plane.shape == (241, 321)
    assert plane.dtype == np.uint8
    assert not plane.flags.owndata
    np.testing.assert_array_equal(plane, frame.to_ndarray(format="yuv444p")[0])


def test_a_deep_luma_plane_has_words() -> None:
    plane = luma_plane(frame_of(grey_picture(), "yuv420p10le"))
    assert plane is not None
    assert plane.dtype == np.uint16
    assert plane.max() > 255


@pytest.mark.parametrize("pix_fmt", ["rgb24", "yuyv422", "p010le", "nv21"])
def test_there_is_no_luma_plane_where_luma_lies_otherwise(pix_fmt: str) -> None:
    frame = frame_of(grey_picture(), pix_fmt)
    plane = luma_plane(frame)
    assert plane is None or plane.shape == (240, 320)


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4", "mjpeg"])
@pytest.mark.parametrize("is_full_range", [False, True])
def test_decoded_video_has_the_brightness_that_was_filmed(
    mp4: Callable[[Scene], Path], codec: Codec, is_full_range: bool
) -> None:
    plan = (4, 40, 128, 251)
    scene = replace(Scene(320, 240, plan, fps=5), codec=codec, is_full_range=is_full_range and codec != "mpeg4")
    with av.open(mp4(scene)) as container:
        scores = [brightness(frame) for frame in container.decode(video=0)]
    assert scores == pytest.approx([plan[index // 5] for index in range(20)], abs=1.0)
