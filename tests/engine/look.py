"""Which picture of a film it is, read from the picture alone: a mark tells its second, a block its place there."""

import numpy as np

from tests.camera.clip import Scene
from tests.camera.mark import MarkUnreadable, Picture, read_mark, row_height_px

Look = tuple[int, int]
"""Width in pixels, and the index of the picture in its clip in order of presentation."""
_CLEAR = 12.0  # luma levels by which the block stands out; grain over a block moves its mean by less than one


def look(grey: Picture, scene: Scene) -> Look | None:
    """`grey` is (height, width). The scene may have been filmed in another size. None: it cannot be told."""
    try:
        second = read_mark(grey)
    except MarkUnreadable:
        return None
    height, width = grey.shape
    top, block_px = height // 2, width // 16
    beside = grey[2 * row_height_px(height) + 2 : top - 2].mean()
    columns = np.abs(grey[top + 2 : top + height // 16 - 2].mean(axis=0) - beside)
    first = second * scene.fps
    step_px = max(2, block_px // 5)
    lefts = [index * step_px % (width - block_px) for index in range(first, first + scene.fps)]
    means = [columns[left : left + block_px].mean() for left in lefts]
    place = int(np.argmax(means))
    return (width, first + place) if means[place] > _CLEAR else None
