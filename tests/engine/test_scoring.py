"""Brightness against OpenCV's grey, for each kind of picture that a decoder gives."""

from collections.abc import Callable, Sequence
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

from streams.engine.conversion import BANDED, plane, to_bgr
from streams.engine.leaderboard import Leaderboard
from streams.engine.scoring import brightness, luma_plane
from tests.camera.clip import Codec, Scene

RGB = npt.NDArray[np.uint8]


def grey_picture(width: int = 320, height: int = 240, level: int = 120) -> RGB:
    """Neutral, with waves and a slope: no two rows are the same."""
    y, x = np.mgrid[0:height, 0:width]
    waves = level + 60 * np.sin(x / 9) + 30 * np.cos(y / 5) + x * 40 / width
    return np.repeat(np.clip(waves, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


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


def rows_frame(codes: Sequence[int]) -> VideoFrame:
    """Stripes of these luma codes, all of one height, without colour; limited range."""
    frame = VideoFrame(32, 4 * len(codes), "yuv420p")
    for index, code in enumerate((None, 128, 128)):
        plane(frame, index)[:] = np.repeat(codes, 4)[:, None] if code is None else code
    return frame


def flat_frame(code: int, pix_fmt: str = "yuv420p", color_range: ColorRange = ColorRange.MPEG) -> VideoFrame:
    planes = np.full((36, 32), 128, np.uint8)
    planes[:24] = code
    frame = VideoFrame.from_ndarray(planes, format=pix_fmt)
    frame.color_range = color_range
    return frame


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
        (125, ColorRange.MPEG, 126.0),
        (125, ColorRange.UNSPECIFIED, 126.0),
        (235, ColorRange.MPEG, 255.0),
        (0, ColorRange.MPEG, 0.0),  # blacker than black
        (255, ColorRange.MPEG, 255.0),
        (0, ColorRange.JPEG, 0.0),
        (125, ColorRange.JPEG, 125.0),
        (255, ColorRange.JPEG, 255.0),
    ],
)
def test_it_runs_from_0_to_255(code: int, color_range: ColorRange, expected: float) -> None:
    assert brightness(flat_frame(code, color_range=color_range)) == expected


def test_full_range_may_be_in_the_formats_name_alone() -> None:
    assert brightness(flat_frame(100, "yuvj420p", ColorRange.UNSPECIFIED)) == 100.0


@given(st.sampled_from(sorted(BANDED)), st.integers(1, 2100), st.integers(1, 150), st.integers(0, 99))
def test_a_picture_in_bands_has_the_brightness_of_the_whole(pix_fmt: str, width: int, height: int, seed: int) -> None:
    frame = VideoFrame(width, height, pix_fmt)
    for index in range(len(frame.planes)):
        into = plane(frame, index)
        into[:] = np.random.default_rng(seed).integers(0, 256, into.shape, np.uint8)
    whole = cv2.cvtColor(to_bgr(frame), cv2.COLOR_BGR2GRAY)
    assert brightness(frame) == pytest.approx(float(whole.mean()), abs=1e-6)


def ranking(size: int, frames: Sequence[VideoFrame]) -> list[int]:
    board: Leaderboard[None] = Leaderboard(size)
    for number, frame in enumerate(frames):
        board.offer(number, brightness(frame), None)
    return [number for number, _, _ in board.ranking()]


def test_what_is_whiter_than_white_counts_as_white() -> None:
    """A wall in half shade with a lamp on the other half has 191.5, and does not beat walls of 192 to 199."""
    lamp = rows_frame([250, 126])
    walls = [flat_frame(code) for code in (180, 181, 184, 187)]  # 190, 192, 195 and 199
    assert ranking(5, [lamp, *walls]) == [4, 3, 2, 0, 1]


def test_the_whitest_of_overexposed_pictures_win_and_not_the_first() -> None:
    """Luma 255, but for a part in shade, which is smaller in each: the mean luma of all is above white."""
    pictures = [rows_frame([120] * shade + [255] * (40 - shade)) for shade in (4, 3, 2, 1)]
    assert ranking(2, pictures) == [3, 2]


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
