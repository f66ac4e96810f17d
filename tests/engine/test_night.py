"""A damaged feed at night: dark pictures, where whatever a broken one shows is brighter. None may be kept.

Each picture on the leaderboard is compared with the filmed ones, decoded from the file by libav: it has to be one
of them, within what JPEG loses. Which one is found by likeness, so the engine's own times are not trusted.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streams.engine.conversion import encode_frame, to_bgr
from streams.engine.report import Report, State, Status
from streams.engine.sheet import decode_jpeg
from tests.camera.clip import Scene, picture
from tests.camera.gst import GstServer
from tests.camera.proxy import Proxy, Trouble

from .capturing import capturing

Grey = npt.NDArray[np.float32]
TCP = {"rtsp_transport": "tcp", "fpsprobesize": "0"}

# 8 s of a yard at night with a sensor's grain, 3 to 4 Mbit/s: all seconds are about as dark.
PLAN = (10.0, 11.0, 10.0, 12.0, 11.0, 10.0, 12.0, 11.0)
NIGHT = Scene(640, 360, PLAN, fps=25, gop_s=2.0, noise=4.0)
# As Scene encodes, in Baseline; and with arithmetic coding and a filter, where damage goes unnoticed longer.
ENCODERS = {"cavlc": {"preset": "ultrafast"}, "cabac": {"preset": "veryfast", "profile": "main"}}
RATE_CONTROL = {"x264-params": "keyint=50:min-keyint=50:scenecut=0:bframes=0:threads=2:sliced-threads=0", "qp": "24"}
# Each so manyth RTP packet, and how many nights of it: what is asked for, and a line that nobody would put up with.
RARELY, OFTEN = 1000, 60
NIGHTS = {RARELY: 3, OFTEN: 2}
BLOCK_PX = 8
# Of a block's mean. JPEG of quality 92 moves it by 0.7 at most (measured over these films).
TOLERANCE = 1.0
# A byte that turns one valid coefficient into another one leaves a valid stream: no decoder can tell. Of two thousand
# damaged packets about ten got so onto a leaderboard (measured); in none is there anything to be seen.
LITTLE, LITTLE_SHARE = 8.0, 0.02


@dataclass
class Film:
    """The pictures as filmed: the means of their blocks, (rows, columns) each, grey 0 to 255."""

    path: Path

    @cached_property
    def blocks(self) -> list[Grey]:
        with av.open(self.path) as container:
            frames = container.decode(video=0)
            return [blocks_of(to_bgr(frame)) for frame in frames]

    def off(self, image: npt.NDArray[np.uint8]) -> Grey:
        """How far each block is from that of the filmed picture which is most like it."""
        seen = blocks_of(image)
        return min((np.abs(filmed - seen) for filmed in self.blocks), key=lambda off: float(off.max()))

    def worst_block(self, image: npt.NDArray[np.uint8]) -> float:
        return float(self.off(image).max())


def blocks_of(image: npt.NDArray[np.uint8]) -> Grey:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    size = (image.shape[1] // BLOCK_PX, image.shape[0] // BLOCK_PX)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)


@dataclass(frozen=True, slots=True)
class Run:
    encoder: str
    damages_each: int
    seed: int


RUNS = [Run(encoder, each, seed) for encoder in ENCODERS for each in NIGHTS for seed in range(NIGHTS[each])]


@dataclass(frozen=True, slots=True)
class Outcome:
    run: Run
    report: Report
    damaged: int


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Film]:
    folder = tmp_path_factory.mktemp("night")
    return {name: Film(write(folder / f"{name}.mp4", options)) for name, options in ENCODERS.items()}


def write(path: Path, options: dict[str, str]) -> Path:
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=NIGHT.fps, options=options | RATE_CONTROL)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = NIGHT.width, NIGHT.height, "yuv420p"
        neutral = np.full((NIGHT.height // 2, NIGHT.width), 128, np.uint8)
        for index in range(NIGHT.frames):
            frame = VideoFrame.from_ndarray(np.concatenate([picture(NIGHT, index), neutral]), format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, NIGHT.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def server(films: dict[str, Film]) -> Iterator[GstServer]:
    with GstServer({name: film.path for name, film in films.items()}) as server:
        yield server


def nights(server: GstServer) -> list[Outcome]:
    """Each run is one night; all at once, each through a bad line of its own."""
    with ThreadPoolExecutor(len(RUNS)) as pool:
        return list(pool.map(lambda run: one_night(server, run), RUNS))


def one_night(server: GstServer, run: Run) -> Outcome:
    """Every frame is a sample, from the first to the end of the film."""
    phase = run.seed * run.damages_each // NIGHTS[run.damages_each]
    with (
        Proxy(server.port, Trouble(damages_each=run.damages_each, seed=run.seed, phase=phase)) as proxy,
        capturing(proxy.url(run.encoder), interval_s=1 / NIGHT.fps, ends=is_over) as capture,
    ):
        return Outcome(run, capture.until(lambda report: is_over(report.status)), proxy.damaged)


def is_over(status: Status) -> bool:
    return status.state is State.RECONNECTING


@dataclass(frozen=True, slots=True)
class Kept:
    """A picture on a leaderboard: the worst block's distance, and the share of blocks that are not as filmed."""

    seed: int
    number: int
    score: float
    worst: float
    share: float


def kept(outcomes: list[Outcome], films: dict[str, Film], encoder: str, each: int) -> list[Kept]:
    found: list[Kept] = []
    for outcome in outcomes:
        if (outcome.run.encoder, outcome.run.damages_each) == (encoder, each):
            for one in outcome.report.fresh:
                off = films[encoder].off(decode_jpeg(one.jpeg))
                share = float((off > TOLERANCE).mean())
                found.append(Kept(outcome.run.seed, one.number, one.score, float(off.max()), share))
    assert len(found) >= 9 * NIGHTS[each] // 2, "there is little to be seen of such nights"
    return found


def test_no_damaged_picture_is_ever_kept(server: GstServer, films: dict[str, Film]) -> None:
    """On a line that damages one packet in a thousand. On one that is hardly a line nothing broken is seen."""
    outcomes = nights(server)
    assert_the_lines_were_bad(outcomes)
    for encoder in ENCODERS:
        assert [one for one in kept(outcomes, films, encoder, RARELY) if one.worst > TOLERANCE] == []
        pictures = kept(outcomes, films, encoder, OFTEN)
        assert [one for one in pictures if one.worst > LITTLE or one.share > LITTLE_SHARE] == []


def assert_the_lines_were_bad(outcomes: list[Outcome]) -> None:
    assert all(outcome.damaged > 0 for outcome in outcomes)
    assert all(outcome.report.counters.rejected > 0 for outcome in outcomes if outcome.run.damages_each == OFTEN)
    assert {outcome.report.status.error_code for outcome in outcomes} == {"closed"}


def test_a_plain_decoder_would_have_kept_them(server: GstServer, films: dict[str, Film]) -> None:
    """The nine brightest of six seconds as libav shows them, its own flag minded."""
    with ThreadPoolExecutor(len(ENCODERS)) as pool:
        found = list(pool.map(lambda encoder: kept_plainly(server, encoder), ENCODERS))
    for encoder, images in zip(ENCODERS, found, strict=True):
        assert max(films[encoder].worst_block(image) for image in images) > 5 * TOLERANCE


def kept_plainly(server: GstServer, encoder: str) -> list[npt.NDArray[np.uint8]]:
    with Proxy(server.port, Trouble(damages_each=OFTEN)) as proxy, av.open(proxy.url(encoder), options=TCP) as camera:
        frames = islice(camera.decode(video=0), 6 * NIGHT.fps)
        shown = [to_bgr(frame) for frame in frames if not frame.is_corrupt]
    return sorted(shown, key=lambda image: -float(image.mean()))[:9]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_whole_picture_is_within_the_tolerance(films: dict[str, Film], encoder: str) -> None:
    """Of what the leaderboard keeps on a good line: JPEG is all that is between."""
    with av.open(films[encoder].path) as container:
        saved = [encode_frame(frame) for frame in islice(container.decode(video=0), 0, None, 10)]
    assert max(films[encoder].worst_block(decode_jpeg(jpeg)) for jpeg in saved) < TOLERANCE
