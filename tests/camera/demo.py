"""Three cameras for whoever has none: a garden, a street, and a harbour whose connection is lost now and then.

with demo_cameras() as cameras:
    cameras["garden"].url

`python -m tests.camera.demo` prints their addresses and plays until Ctrl-C.
"""

import io
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from fractions import Fraction

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from tests.camera.clip import TICKS_PER_S, Clip, Scene, read_mp4
from tests.camera.scenery import HEIGHT, LOOP_S, PLACES, WIDTH, Place
from tests.camera.server import ScriptedCamera

FPS = 8
# What the camera of that place is called; its name says what to expect.
PATHS = {"garden": "garden", "street": "street", "harbour": "harbour-bad-wifi"}
LOSSY = "harbour"
# Long enough for two or three attempts, and then so long that the waits between attempts begin anew (backoff.py).
AWAY_S, FIRST_AWAY_AFTER_S, AWAY_AFTER_S = 4.0, 25.0, 90.0


@contextmanager
def demo_cameras(*, loop_s: int = LOOP_S, has_outages: bool = True) -> Iterator[dict[str, ScriptedCamera]]:
    """By the place's name. Drawing and encoding a loop of all takes some seconds; a shorter one is its beginning."""
    with ThreadPoolExecutor(len(PLACES)) as pool:
        clips = list(pool.map(lambda place: film(place, loop_s), PLACES))
    with ExitStack() as stack:
        cameras = {
            place.name: stack.enter_context(ScriptedCamera(clip, path=PATHS[place.name], live=True))
            for place, clip in zip(PLACES, clips, strict=True)
        }
        if has_outages:
            stack.enter_context(_outages(cameras[LOSSY]))
        yield cameras


def film(place: Place, loop_s: int = LOOP_S) -> Clip:
    """A key frame each second, so that whoever samples once a second sees the same moments in each loop."""
    scene = Scene(WIDTH, HEIGHT, plan=(128.0,) * loop_s, fps=FPS)  # its plan is only as long as the film
    draw = place.prepare()
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"video_track_timescale": str(TICKS_PER_S)}) as container:
        options = {"preset": "ultrafast", "crf": "20", "x264-params": f"keyint={FPS}:min-keyint={FPS}:scenecut=0"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.max_b_frames = 0
        stream.codec_context.colorspace, stream.codec_context.color_range = Colorspace.ITU601, ColorRange.MPEG
        for index in range(scene.frames):
            planes = cv2.cvtColor(draw(index / FPS), cv2.COLOR_BGR2YUV_I420)  # of BT.601, limited range
            frame = VideoFrame.from_ndarray(np.asarray(planes, np.uint8), format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    return read_mp4(scene, file)


@contextmanager
def _outages(camera: ScriptedCamera) -> Iterator[None]:
    """Its port is closed and every viewer lost, again and again."""
    over = threading.Event()

    def run() -> None:
        after_s = FIRST_AWAY_AFTER_S
        while not over.wait(after_s):
            camera.stop()
            over.wait(AWAY_S)
            camera.start()
            after_s = AWAY_AFTER_S

    thread = threading.Thread(target=run, name="outages", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def main(arguments: Sequence[str]) -> None:
    """`--loop S`: shorter films."""
    loop_s = int(arguments[1]) if arguments[:1] == ["--loop"] else LOOP_S
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # at once, also while it draws: there is nothing to tidy up
    with demo_cameras(loop_s=loop_s) as cameras:
        for camera in cameras.values():
            print(camera.url, flush=True)
        while True:
            signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
