"""VLC as a camera: a server that is not ours, which refuses TCP with 461 and whose film is joined somewhere."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from streams.engine.notices import Notice
from streams.engine.report import Video
from streams.engine.sheet import decode_jpeg
from tests.camera.clip import Codec, Scene
from tests.camera.vlc import VlcServer

from .capturing import capturing
from .differential import INTERVAL_S, SCENE
from .look import look

STEP = round(INTERVAL_S * SCENE.fps)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_its_film_is_sampled_by_udp(codec: Codec, mp4: Callable[[Scene], Path]) -> None:
    """180 px are 4 above a multiple of 16: of such pictures not one was kept once."""
    scene = replace(SCENE, height=180, codec=codec)
    with VlcServer(mp4(scene)) as server, capturing(server.url, interval_s=INTERVAL_S, count=1000) as capture:
        report = capture.until(lambda report: report.counters.samples >= 6)
    assert report.status.video == Video(codec, 320, 180)
    assert report.status.notices == (Notice.OTHER_TRANSPORT,)
    pictures = sorted(report.fresh, key=lambda picture: picture.number)
    greys = [
        np.asarray(cv2.cvtColor(decode_jpeg(picture.jpeg), cv2.COLOR_BGR2GRAY), np.uint8) for picture in pictures
    ]
    seen = [look(grey, SCENE) for grey in greys]
    assert None not in seen
    indices = [index for _, index in filter(None, seen)]
    assert {after - before for before, after in pairwise(indices)} == {STEP}
    assert capture.codes == []
