"""Pictures: as JPEG, and the grid made of a capture's frames. With OpenCV."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from .sizes import jpeg_size

Picture = NDArray[np.uint8]

FRAME_QUALITY = 92  # JPEG; 1080p surveillance pictures come to 150 to 500 kB
GRID_QUALITY = 88
MAX_CELL_WIDTH_PX = 640
MAX_CELL_HEIGHT_PX = 640
GAP_PX = 8
BACKGROUND_BGR = (24, 20, 18)
_REDUCED = ((4, cv2.IMREAD_REDUCED_COLOR_4), (2, cv2.IMREAD_REDUCED_COLOR_2))


class UnreadablePicture(ValueError):
    """Bytes that are no picture OpenCV can read."""


def encode_jpeg(picture: Picture, quality: int) -> bytes:
    """A (height, width, 3) uint8 BGR picture as JPEG; `quality` 1 to 100."""
    is_done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not is_done:
        raise UnreadablePicture("OpenCV could not encode the picture")
    return data.tobytes()


def decode_jpeg(data: bytes, flag: int = cv2.IMREAD_COLOR) -> Picture:
    """JPEG bytes as a (height, width, 3) uint8 BGR picture; raises UnreadablePicture."""
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if data else None
    except cv2.error:  # a header that claims more pixels than OpenCV allows
        picture = None
    if picture is None:
        raise UnreadablePicture("the bytes are no picture")
    return np.asarray(picture, np.uint8)


def decode_fit(data: bytes) -> Picture:
    """`fit` of what `decode_jpeg` gives. A large one is decoded at a half or a quarter, where that is three times a
    cell still: of 8K in 85 ms of a core, where all of it takes 330.
    """
    width, height = jpeg_size(data) or (0, 0)
    larger = max(width / MAX_CELL_WIDTH_PX, height / MAX_CELL_HEIGHT_PX)
    flag = next((flag for times, flag in _REDUCED if larger >= 3 * times), cv2.IMREAD_COLOR)
    return fit(decode_jpeg(data, flag))


def compose(pictures: Sequence[Picture], columns: int) -> bytes:
    """The grid as JPEG: pictures in the order given, left to right, top to bottom, `columns` in a full row.

    Every cell has the size of the largest picture, at most MAX_CELL_WIDTH_PX x MAX_CELL_HEIGHT_PX; a picture
    keeps its proportions, is never enlarged and lies in the middle of its cell. Fewer pictures than columns
    make a shorter row. Raises ValueError without pictures.
    """
    if not pictures:
        raise ValueError("a grid needs one picture at least")
    pictures = [fit(picture) for picture in pictures]
    cell_height, cell_width = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    size = (_offset(rows, cell_height), _offset(columns, cell_width), 3)
    grid = np.empty(size, np.uint8)
    grid[:] = BACKGROUND_BGR
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        height, width = picture.shape[:2]
        top = _offset(row, cell_height) + (cell_height - height) // 2
        left = _offset(column, cell_width) + (cell_width - width) // 2
        grid[top : top + height, left : left + width] = picture
    return encode_jpeg(grid, GRID_QUALITY)


def grid_columns(count: int) -> int:
    """Columns of a grid for `count` frames, as square as can be: 3 for 9."""
    return math.ceil(math.sqrt(count))


def fit(picture: Picture) -> Picture:
    """The picture as large as a cell may be, in its own proportions; never enlarged."""
    height, width = picture.shape[:2]
    scale = min(1.0, MAX_CELL_WIDTH_PX / width, MAX_CELL_HEIGHT_PX / height)
    if scale == 1.0:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _offset(index: int, length: int) -> int:
    return GAP_PX + index * (length + GAP_PX)
