"""A picture of the differential's film says which one it is, whatever became of it."""

import numpy as np
import pytest

from streams.engine.sheet import decode_jpeg, encode_jpeg
from tests.camera.clip import Scene, picture

from .differential import SCENE
from .look import look

HALF = Scene(SCENE.width // 2, SCENE.height // 2, SCENE.plan, SCENE.fps, noise=SCENE.noise)


@pytest.mark.parametrize("scene", [SCENE, HALF], ids=["whole", "half"])
def test_each_picture_is_told_from_all_others(scene: Scene) -> None:
    for index in range(scene.frames):
        assert look(picture(scene, index), SCENE) == (scene.width, index)


def test_jpeg_does_not_hide_it() -> None:
    for index in range(0, SCENE.frames, 7):
        grey = picture(SCENE, index)
        jpeg = encode_jpeg(np.repeat(grey[:, :, np.newaxis], 3, axis=2), 75)
        assert look(decode_jpeg(jpeg)[:, :, 0], SCENE) == (SCENE.width, index)


def test_a_picture_that_nobody_filmed_is_none() -> None:
    assert look(np.full((240, 320), 128, np.uint8), SCENE) is None


def test_nor_is_one_whose_block_is_hidden() -> None:
    grey = picture(SCENE, 42).copy()
    grey[SCENE.height // 2 :] = grey[SCENE.height // 2 - 10 : SCENE.height // 2].mean()
    assert look(grey, SCENE) is None
