"""Plays a stream with libav and prints when each picture was decoded and how it looks, until it is killed.

One line is a picture: its timestamp and the monotonic clock, in seconds, its width and its index (look.py).

usage: python -m tests.engine.libav_player URL TRANSPORT PICTURES_PER_SECOND
"""

import sys
import time
from collections.abc import Iterator

import av
import numpy as np
from av.container.input import InputContainer
from av.video.frame import VideoFrame

from tests.camera.clip import Scene

from .look import look

# Without it libav reads some 28 pictures before it opens, to guess the frame rate.
_OPTIONS = {"fpsprobesize": "0"}


def main(url: str, transport: str, fps: int) -> None:
    scene = Scene(320, 240, (128,), fps=fps)
    with av.open(url, options=_OPTIONS | {"rtsp_transport": transport}) as container:
        for frame in _frames(container):
            seen = look(np.asarray(frame.to_ndarray(format="gray"), np.uint8), scene)
            print(frame.time or 0.0, time.monotonic(), *(seen or ()), flush=True)


def _frames(container: InputContainer) -> Iterator[VideoFrame]:
    """What cannot be decoded is passed over, as players do."""
    for packet in container.demux(video=0):
        try:
            yield from (frame for frame in packet.decode() if isinstance(frame, VideoFrame))
        except av.FFmpegError:
            continue


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
