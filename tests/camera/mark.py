"""The number of a second, drawn along the top of a picture as blocks, and read back from what became of it.

The strip is sixteen cells wide and two rows high. The lower row is the complement of the upper one: the mean
does not depend on the number, and a cell is read as a difference, which brightness and range leave alone.

    1 0 | b7 b6 b5 b4 b3 b2 b1 b0 | c3 c2 c1 c0 | 0 1
"""

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]

CELLS = 16
ROWS_PER_PICTURE = 24  # a row is 5 px of a 160x120 picture and 7.5 px of a 320x180 grid cell
SECOND_MAX = 255

_HEAD = (1, 0)
_TAIL = (0, 1)
_CONTRAST_MIN = 24.0  # clips draw dark seconds with a contrast of 64; JPEG noise over a cell stays below 10


class MarkUnreadable(ValueError):
    """The picture has no mark, or one that is damaged."""


def draw_mark(picture: Picture, second: int, *, dark: int = 0, light: int = 255) -> None:
    """Draw into the picture: (height, width) or (height, width, 3), at least 160x120.

    `dark` and `light` are levels on the picture's own scale.
    """
    bits = _bits(second)
    row_px = row_height_px(picture.shape[0])
    edges = [round(cell * picture.shape[1] / CELLS) for cell in range(CELLS + 1)]
    for bit, left, right in zip(bits, edges, edges[1:], strict=False):
        picture[:row_px, left:right] = light if bit else dark
        picture[row_px : 2 * row_px, left:right] = dark if bit else light


def read_mark(image: Picture) -> int:
    """The second in a (height, width, 3) BGR or (height, width) grey image of a whole marked picture.

    Raises MarkUnreadable.
    """
    strip = image[: -(-2 * image.shape[0] // ROWS_PER_PICTURE)].astype(np.float64)
    grey = strip.mean(axis=2) if strip.ndim == 3 else strip
    row = image.shape[0] / ROWS_PER_PICTURE
    differences = [_cell(grey, cell, 0, row) - _cell(grey, cell, 1, row) for cell in range(CELLS)]
    contrasts = [abs(difference) for difference in differences]
    if min(contrasts) < max(_CONTRAST_MIN, max(contrasts) / 2):
        raise MarkUnreadable(f"contrast of the cells is {min(contrasts):.0f} to {max(contrasts):.0f}")
    return _second(tuple(int(difference > 0) for difference in differences))


def row_height_px(height_px: int) -> int:
    """The strip has two such rows."""
    return max(1, round(height_px / ROWS_PER_PICTURE))


def _cell(grey: npt.NDArray[np.float64], cell: int, row: int, row_px: float) -> float:
    """The mean of the middle half of a cell: edges smear when a picture is scaled or compressed."""
    top, bottom = round((row + 0.25) * row_px), round((row + 0.75) * row_px)
    cell_px = grey.shape[1] / CELLS
    left, right = round((cell + 0.25) * cell_px), round((cell + 0.75) * cell_px)
    if bottom <= top or right <= left:
        raise MarkUnreadable(f"a picture of {grey.shape[1]} px width is too small for a mark")
    return float(grey[top:bottom, left:right].mean())


def _bits(second: int) -> tuple[int, ...]:
    if not 0 <= second <= SECOND_MAX:
        raise ValueError(f"a mark holds 0 to {SECOND_MAX}, not {second}")
    return (*_HEAD, *_binary(second, 8), *_binary(_check(second), 4), *_TAIL)


def _second(bits: tuple[int, ...]) -> int:
    second = int("".join(map(str, bits[2:10])), 2)
    if bits != _bits(second):
        raise MarkUnreadable(f"cells {''.join(map(str, bits))} are no mark")
    return second


def _binary(number: int, digits: int) -> tuple[int, ...]:
    return tuple(number >> place & 1 for place in reversed(range(digits)))


def _check(second: int) -> int:
    """Four bits; 3 and 5 have inverses modulo 16, so any damage to one half of the number shows."""
    return ((second >> 4) * 3 + (second & 15) * 5 + 9) % 16
