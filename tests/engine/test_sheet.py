"""Pictures as JPEG, and the grid: what lies where, and in which colour."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from streams.engine.conversion import encode_frame
from streams.engine.sheet import (
    BACKGROUND_BGR,
    GAP_PX,
    MAX_CELL_HEIGHT_PX,
    MAX_CELL_WIDTH_PX,
    UnreadablePicture,
    compose,
    decode_fit,
    decode_jpeg,
    encode_jpeg,
    fit,
    grid_columns,
)

BGR = npt.NDArray[np.uint8]
LEVELS = 6  # what JPEG may change of a flat area
EDGE_PX = 16  # a block of JPEG's chroma: within it a neighbour shows
# Kr and Kb: ITU-R BT.601 and BT.709
WEIGHTS = {Colorspace.ITU601: (0.299, 0.114), Colorspace.ITU709: (0.2126, 0.0722)}
# None is at the edge of what a matrix can say: there rounding would show.
COLOURS_RGB = [(200, 60, 60), (60, 180, 70), (50, 70, 200), (200, 190, 60), (128, 128, 128), (30, 30, 30)]


def colour(index: int) -> tuple[int, int, int]:
    """Far enough apart for JPEG, and none near the background."""
    return 90 + index % 4 * 50, 100 + index // 4 * 60, 240 - index * 15


def picture(index: int = 0, width: int = 160, height: int = 120) -> BGR:
    flat = np.empty((height, width, 3), np.uint8)
    flat[:] = colour(index)
    return flat


def composed(*pictures: BGR) -> BGR:
    return decode_jpeg(compose(pictures, grid_columns(len(pictures))))


def is_colour(area: npt.NDArray[np.uint8], bgr: tuple[int, int, int], levels: int = LEVELS) -> bool:
    return bool((np.abs(area.astype(int) - bgr) <= levels).all())


def box(grid: BGR, index: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of what has the colour of a picture."""
    distance = np.abs(grid.astype(int) - colour(index)).max(axis=2)
    rows, columns = (
        np.flatnonzero(distance.min(axis=1) <= 3 * LEVELS),
        np.flatnonzero(distance.min(axis=0) <= 3 * LEVELS),
    )
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1


@pytest.mark.parametrize("count", [1, 2, 4, 9, 10])
def test_the_best_is_first_then_left_to_right_and_top_to_bottom(count: int) -> None:
    grid = composed(*(picture(index) for index in range(count)))
    columns = math.ceil(math.sqrt(count))
    for index in range(count):
        row, column = divmod(index, columns)
        top, left = GAP_PX + row * (120 + GAP_PX), GAP_PX + column * (160 + GAP_PX)
        area = grid[top + EDGE_PX : top + 120 - EDGE_PX, left + EDGE_PX : left + 160 - EDGE_PX]
        assert is_colour(area, colour(index)), index


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (4, 2, 2), (5, 3, 2), (9, 3, 3), (10, 4, 3), (16, 4, 4)]
)
def test_it_is_as_square_as_can_be(count: int, columns: int, rows: int) -> None:
    grid = composed(*[picture()] * count)
    assert grid_columns(count) == columns
    assert grid.shape == (GAP_PX + rows * (120 + GAP_PX), GAP_PX + columns * (160 + GAP_PX), 3)


def test_places_without_a_picture_are_background() -> None:
    grid = composed(*(picture(index) for index in range(10)))
    top, left = 2 * (120 + GAP_PX) + GAP_PX, 2 * (160 + GAP_PX) + GAP_PX
    assert is_colour(grid[top + EDGE_PX :, left + EDGE_PX :], BACKGROUND_BGR)
    assert not is_colour(grid[top + EDGE_PX :, left - EDGE_PX :], BACKGROUND_BGR)


def test_mixed_sizes_keep_their_proportions_and_lie_in_the_middle() -> None:
    sizes = [(320, 180), (60, 160), (100, 50), (320, 240)]
    grid = composed(*(picture(index, *size) for index, size in enumerate(sizes)))
    assert grid.shape == (GAP_PX + 2 * (240 + GAP_PX), GAP_PX + 2 * (320 + GAP_PX), 3)
    for index, (width, height) in enumerate(sizes):
        row, column = divmod(index, 2)
        expected_top = GAP_PX + row * (240 + GAP_PX) + (240 - height) // 2
        expected_left = GAP_PX + column * (320 + GAP_PX) + (320 - width) // 2
        # a block of JPEG's chroma, 16 px, may smear an edge by some pixels
        assert box(grid, index) == pytest.approx((expected_top, expected_left, height, width), abs=3)


def test_no_picture_is_enlarged() -> None:
    grid = composed(picture(0, 40, 30), picture(1, 320, 240))
    assert box(grid, 0)[2:] == pytest.approx((30, 40), abs=3)


@pytest.mark.parametrize(
    ("width", "height", "shown_width", "shown_height"),
    [(1920, 1080, 640, 360), (1080, 1920, 360, 640), (2560, 640, 640, 160), (641, 640, 640, 639), (3000, 2, 640, 1)],
)
def test_large_pictures_are_made_to_fit(width: int, height: int, shown_width: int, shown_height: int) -> None:
    grid = composed(picture(0, width, height))
    assert shown_width <= MAX_CELL_WIDTH_PX
    assert shown_height <= MAX_CELL_HEIGHT_PX
    assert grid.shape[:2] == pytest.approx((shown_height + 2 * GAP_PX, shown_width + 2 * GAP_PX), abs=1)


@pytest.mark.parametrize("size", [(64, 48), (1920, 1080), (3840, 2160), (1000, 1920), (8192, 4320)])
def test_a_large_one_that_is_not_decoded_whole_looks_the_same(size: tuple[int, int]) -> None:
    width, height = size
    bars = np.repeat(np.arange(0, 240, 15, dtype=np.uint8), 64)
    jpeg = encode_jpeg(np.dstack([np.resize(bars, (height, width))] * 3), 90)
    quick, whole = decode_fit(jpeg), fit(decode_jpeg(jpeg))
    assert quick.shape == whole.shape
    assert np.abs(quick.astype(int) - whole).mean() < 1


def test_what_is_no_picture_does_not_fit_either() -> None:
    with pytest.raises(UnreadablePicture):
        decode_fit(b"no picture")


def test_a_large_and_a_small_one_share_a_grid() -> None:
    grid = composed(picture(0, 1920, 1080), picture(1, 160, 120))
    assert grid.shape == (360 + 2 * GAP_PX, 2 * 640 + 3 * GAP_PX, 3)
    assert box(grid, 1)[2:] == pytest.approx((120, 160), abs=3)


def test_a_grid_of_nothing_is_no_grid() -> None:
    with pytest.raises(ValueError, match="one picture"):
        compose([], 3)


# --- one frame ---


def yuv_frame(rgb: tuple[int, int, int], matrix: Colorspace, color_range: ColorRange) -> VideoFrame:
    """By the formulas of ITU-R BT.601 section 2.5 and BT.709 section 3."""
    kr, kb = WEIGHTS[matrix]
    red, green, blue = (channel / 255 for channel in rgb)
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / 2 / (1 - kb), (red - y) / 2 / (1 - kr)
    is_full = color_range is ColorRange.JPEG
    codes = (255 * y, 128 + 255 * cb, 128 + 255 * cr) if is_full else (16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr)
    planes = [np.full(px, round(code)) for code, px in zip(codes, (96 * 64, 48 * 32, 48 * 32), strict=True)]
    frame = VideoFrame.from_ndarray(np.concatenate(planes).astype(np.uint8).reshape(-1, 96), format="yuv420p")
    frame.colorspace, frame.color_range = matrix, color_range
    return frame


@pytest.mark.parametrize("rgb", COLOURS_RGB, ids=str)
@pytest.mark.parametrize("color_range", [ColorRange.MPEG, ColorRange.JPEG], ids=lambda one: one.name)
@pytest.mark.parametrize("matrix", WEIGHTS, ids=lambda one: one.name)
def test_a_frame_keeps_its_colours(matrix: Colorspace, color_range: ColorRange, rgb: tuple[int, int, int]) -> None:
    image = decode_jpeg(encode_frame(yuv_frame(rgb, matrix, color_range)))
    assert image.shape == (64, 96, 3)
    assert is_colour(image, (rgb[2], rgb[1], rgb[0])), image[32, 48]


def test_the_two_matrices_are_not_the_same() -> None:
    """Else the test before this one would pass whatever matrix is used."""
    frame = yuv_frame(COLOURS_RGB[1], Colorspace.ITU709, ColorRange.MPEG)
    frame.colorspace = Colorspace.ITU601
    red, green, blue = COLOURS_RGB[1]
    assert not is_colour(decode_jpeg(encode_frame(frame)), (blue, green, red))


def test_a_frame_that_names_no_matrix_is_taken_for_bt601() -> None:
    frame = yuv_frame(COLOURS_RGB[1], Colorspace.ITU601, ColorRange.MPEG)
    frame.colorspace = 2  # AVCOL_SPC_UNSPECIFIED
    red, green, blue = COLOURS_RGB[1]
    assert is_colour(decode_jpeg(encode_frame(frame)), (blue, green, red))


@pytest.mark.parametrize("size", [(321, 241), (7, 5), (2, 2), (322, 180)], ids=str)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "nv12", "yuv420p10le", "gray", "rgb24"])
def test_a_frame_keeps_its_size(size: tuple[int, int], pix_fmt: str) -> None:
    width, height = size
    frame = VideoFrame.from_ndarray(picture(0, width, height), format="bgr24").reformat(format=pix_fmt)
    assert decode_jpeg(encode_frame(frame)).shape == (height, width, 3)


# --- JPEG ---


def test_a_picture_survives_its_jpeg() -> None:
    assert is_colour(decode_jpeg(encode_jpeg(picture(3), 92)), colour(3))


def test_quality_is_what_is_asked_for() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (120, 160, 3), np.uint8)
    assert len(encode_jpeg(noise, 30)) < len(encode_jpeg(noise, 90))


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """The same bytes, whose header claims another size (ITU-T T.81 B.2.2)."""
    start = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:start] + height.to_bytes(2) + width.to_bytes(2) + jpeg[start + 4 :]


UNREADABLE = {
    "nothing": b"",
    "zero": b"\0",
    "words": b"no picture",
    "a marker": b"\xff\xd8\xff",
    "cut off": encode_jpeg(picture(), 90)[:100],
    "larger than OpenCV reads": with_size(encode_jpeg(picture(), 90), 65_000, 65_000),
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
def test_bytes_that_are_no_picture_are_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadablePicture):
        decode_jpeg(data)
