"""Frames of every kind that a stream can name become pictures."""

import numpy as np
import pytest
from av.video.frame import VideoFrame

from streams.engine import conversion
from streams.engine.conversion import encode_frame, to_bgr
from streams.engine.errors import Undecodable
from streams.engine.scoring import brightness

PLANES = np.random.default_rng(1).integers(60, 200, (180, 160), np.uint8)
BT601, BT2020 = 5, 9


def frame(matrix: int) -> VideoFrame:
    made = VideoFrame.from_ndarray(PLANES, format="yuv420p")
    made.colorspace = matrix
    return made


@pytest.mark.parametrize("matrix", range(256))
def test_whatever_matrix_a_camera_names_there_is_a_picture(matrix: int) -> None:
    """Eight bits of the stream say it. By 3, 8 and all from 10 on swscale converts nothing."""
    picture = to_bgr(frame(matrix))
    assert picture.shape == (120, 160, 3)
    assert encode_frame(frame(matrix))
    assert brightness(frame(matrix)) > 0
    if matrix in (3, 8) or matrix >= 10:
        assert (picture == to_bgr(frame(BT2020 if matrix == 10 else BT601))).all()


def test_a_kind_that_cannot_be_converted_is_the_cameras_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "_matrix", lambda _: 3)
    with pytest.raises(Undecodable, match="yuv420p"):
        to_bgr(frame(3))
