"""Real footage as mp4 files that GStreamer's server can play: fetched and encoded once, kept in the bench's cache."""

import fcntl
import os
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from bench.footage import CACHE, sources

FPS = 25
GOP_FRAMES = 25
FRAMES = 475  # of vtest: 19 s are enough to wait for
NAMES = ("bikes", "bigbuckbunny", "vtest")
_OPTIONS = {
    "preset": "veryfast",
    "crf": "20",
    "x264-params": f"keyint={GOP_FRAMES}:min-keyint={GOP_FRAMES}:scenecut=0:bframes=0:threads=2",
}


def films() -> dict[str, Path]:
    """By name. Whichever process comes first fetches them, the others wait. Raises bench.footage.NoFootage."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "footage.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = {path.stem: path for path in sources(lambda line: None)}
        return found | {"vtest": _as_mp4(found["vtest"], CACHE / f"vtest-{FPS}-{GOP_FRAMES}-{FRAMES}.mp4")}


def _as_mp4(source: Path, path: Path) -> Path:
    """GStreamer's server takes no msmpeg4. 25 frames a second in place of 10."""
    if not path.exists():
        unfinished = path.with_suffix(".unfinished.mp4")
        with av.open(source) as film, av.open(unfinished, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=FPS, options=_OPTIONS)
            assert isinstance(stream, VideoStream)
            shown = film.streams.video[0]
            stream.width, stream.height, stream.pix_fmt = shown.width, shown.height, "yuv420p"
            for number, frame in enumerate(islice(film.decode(shown), FRAMES)):
                container.mux(stream.encode(_numbered(frame, number)))
            container.mux(stream.encode(None))
        os.replace(unfinished, path)
    return path


def _numbered(frame: VideoFrame, number: int) -> VideoFrame:
    """Without the old key frames: the encoder sets its own."""
    again = frame.reformat(format="yuv420p")
    again.pts, again.time_base, again.pict_type = number, Fraction(1, FPS), 0
    return again
