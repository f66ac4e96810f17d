"""Plays a stream with libav and prints how each decoded picture looks, one line a picture, until it is killed.

usage: python -m tests.engine.libav_player URL TRANSPORT PICTURES_PER_SECOND
"""

import sys

import av
import numpy as np
from av.container.input import InputContainer
from av.video.frame import VideoFrame

from tests.camera.clip import Scene

from .look import look

_NONE = "-"


def main(url: str, transport: str, fps: int) -> None:
    scene = Scene(320, 240, (128,), fps=fps)
    with av.open(url, options={"rtsp_transport": transport}) as container:
        print("open", flush=True)
        for frame in _frames(container):
            seen = look(np.asarray(frame.to_ndarray(format="gray"), np.uint8), scene)
            print(*(seen or (_NONE,)), flush=True)


def _frames(container: InputContainer):  # type: ignore[no-untyped-def]
    """What cannot be decoded is passed over, as players do."""
    for packet in container.demux(video=0):
        try:
            yield from (frame for frame in packet.decode() if isinstance(frame, VideoFrame))
        except av.FFmpegError:
            continue


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
