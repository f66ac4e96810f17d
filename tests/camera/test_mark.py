"""Any second is read back, whatever its picture went through; nothing is read from a picture without one."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.camera.mark import SECOND_MAX, MarkUnreadable, Picture, draw_mark, read_mark

SIZES = [(160, 120), (320, 240), (640, 360), (1280, 720), (1920, 1080), (704, 576), (1366, 768)]


def marked(second: int, size: tuple[int, int] = (640, 360), level: int = 90, **levels: int) -> Picture:
    picture = np.full((size[1], size[0], 3), level, np.uint8)
    draw_mark(picture, second, **levels)
    return picture


def jpeg(picture: Picture, quality: int = 40) -> Picture:
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded.astype(np.uint8)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_second_is_read_back(size: tuple[int, int]) -> None:
    assert [read_mark(marked(second, size)) for second in range(SECOND_MAX + 1)] == list(range(SECOND_MAX + 1))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_it_is_read_after_jpeg_and_from_a_grid_cell(size: tuple[int, int], level: int) -> None:
    for second in (0, 85, 170, 255):
        cell = cv2.resize(marked(second, size, level), (320, 180), interpolation=cv2.INTER_AREA)
        assert read_mark(jpeg(cell.astype(np.uint8))) == second


def test_it_is_read_with_low_contrast_and_in_grey() -> None:
    dark = jpeg(marked(77, (1920, 1080), level=1, dark=0, light=64))
    assert read_mark(dark[:, :, 0]) == 77
    assert read_mark(jpeg(marked(77, level=254, dark=191, light=255))) == 77


@given(first=st.integers(0, SECOND_MAX), second=st.integers(0, SECOND_MAX))
def test_the_mean_does_not_depend_on_the_number(first: int, second: int) -> None:
    assert marked(first, (322, 242)).mean() == marked(second, (322, 242)).mean()


@given(second=st.integers(0, SECOND_MAX), place=st.integers(0, 15))
def test_one_wrong_cell_is_noticed(second: int, place: int) -> None:
    picture = marked(second, (160, 120))
    picture[:10, 10 * place : 10 * place + 10] = 255 - picture[:10, 10 * place : 10 * place + 10]
    with pytest.raises(MarkUnreadable):
        read_mark(picture)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_without_mark_is_unreadable(level: int) -> None:
    with pytest.raises(MarkUnreadable):
        read_mark(np.full((360, 640, 3), level, np.uint8))


def test_noise_is_unreadable() -> None:
    random = np.random.default_rng(1)
    for _ in range(50):
        with pytest.raises(MarkUnreadable):
            read_mark(random.integers(0, 256, (120, 160, 3)).astype(np.uint8))


def test_a_picture_of_a_few_pixels_is_unreadable() -> None:
    with pytest.raises(MarkUnreadable):
        read_mark(np.zeros((8, 8, 3), np.uint8))


def test_a_number_beyond_a_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="256"):
        marked(256)
