"""Cameras as they are in the field, watched by a real session: what is on its leaderboard was filmed so.

The numbers in headings are rows of the table of what cameras do wrong (tests/camera/faults.py names them too).
Nothing is judged by how long it took: a picture says by its content which one of the film it is.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise, product

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from streams.engine import feed, rtsp, stream_clock
from streams.engine.address import parse
from streams.engine.backoff import Backoff
from streams.engine.clock import Clock
from streams.engine.conversion import to_bgr
from streams.engine.decoder import LibavDecoder
from streams.engine.notices import Notice
from streams.engine.report import Picture, Report, Seed, State, Status, Video
from streams.engine.session import Session
from streams.engine.sheet import decode_jpeg
from tests.camera.at_once import at_once
from tests.camera.auth import Scheme
from tests.camera.clip import Codec, Scene, encode
from tests.camera.faults import FAULTS, parse_fault
from tests.camera.mark import read_mark
from tests.camera.server import ScriptedCamera
from tests.camera.viewer import wait_until

from .builders import settings
from .capturing import LIMIT_S, WAIT_S, Capture, FastClock
from .odd_camera import OddCamera, Request, Say, answer

# With grain no two frames are the same; a key frame has 13 to 19 RTP packets, most others 2 to 8.
SCENE = Scene(320, 240, (60, 180, 90), fps=50, gop_s=0.2, noise=4.0)
SMALL = replace(SCENE, width=160, height=120)
STEP = 10  # frames between samples: one key frame
INTERVAL_S = STEP / SCENE.fps
EVERY_FRAME_S = 1 / SCENE.fps
ALL = 1000  # places on a leaderboard: each sample stays
BLOCK_PX = 8
# Of a block's mean. JPEG moves it by 0.7 at most; the nearest other frame of these films is 5 away.
TOLERANCE = 1.0
SCORE_TOLERANCE = 1.5
# Between the camera's clock and the moment of arrival, on a machine that is loaded.
LATE_S = 5.0
CODECS: tuple[Codec, ...] = ("h264", "hevc", "mpeg4", "mjpeg")
FILMED = [replace(SCENE, codec=codec) for codec in CODECS] + [replace(SCENE, b_frames=2)]


BOTH_TRANSPORTS = ("tcp", "udp")
both_transports = pytest.mark.parametrize("transport", BOTH_TRANSPORTS)


# --- what was filmed ---

Blocks = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Film:
    """The pictures in order of presentation, as means of blocks: (pictures, rows, columns), grey 0 to 255."""

    scene: Scene
    blocks: Blocks

    def distances(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Of each picture: the distance of the block that is least like that of the image."""
        return np.asarray(np.abs(self.blocks - blocks_of(image)).max(axis=(1, 2)), np.float32)


_filming = threading.Lock()


def film_of(scene: Scene) -> Film:
    """Decoded without a camera between; kept. Cases that are tested at once decode a scene once."""
    with _filming:
        return _film_of(scene)


@cache
def _film_of(scene: Scene) -> Film:
    clip = encode(scene)
    decoder = LibavDecoder(scene.codec)
    coded = [unit.data for unit in clip.units]
    if scene.codec == "mpeg4":
        coded[0] = clip.parameter_sets[0] + coded[0]
    frames = [frame for number, data in enumerate(coded) for frame in decoder.decode(data, number)]
    shown = sorted((*frames, *decoder.drain()), key=lambda frame: clip.units[frame.pts or 0].pts_ticks)
    assert len(shown) == scene.frames
    return Film(scene, np.stack([blocks_of(to_bgr(frame)) for frame in shown]))


def blocks_of(image: npt.NDArray[np.uint8]) -> Blocks:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    size = (image.shape[1] // BLOCK_PX, image.shape[0] // BLOCK_PX)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture on the leaderboard and the one of the film that it is."""

    picture: Picture
    scene: Scene
    index: int

    @property
    def begun_at(self) -> float:
        """When its camera began, if the picture came at the moment at which it was due."""
        return self.picture.captured_at - self.index / self.scene.fps


def shots(report: Report, *scenes: Scene) -> list[Shot]:
    """In order of capture. Fails where one was never filmed so, or has another mark or brightness."""
    found = [shot_of(picture, scenes) for picture in report.fresh]
    assert len(found) == len(report.board) > 0
    return sorted(found, key=lambda shot: shot.picture.number)


def shot_of(picture: Picture, scenes: tuple[Scene, ...]) -> Shot:
    image = decode_jpeg(picture.jpeg)
    assert image.shape == (picture.height, picture.width, 3)
    films = [film_of(scene) for scene in scenes if (scene.height, scene.width) == image.shape[:2]]
    off = {film.scene: film.distances(image) for film in films}
    scene = min(off, key=lambda scene: float(off[scene].min()))
    index = int(off[scene].argmin())
    second = index // scene.fps
    assert off[scene][index] < TOLERANCE, f"sample {picture.number} was never filmed: it is most like {index}"
    assert read_mark(image) == second
    assert picture.score == pytest.approx(scene.plan[second], abs=SCORE_TOLERANCE)
    return Shot(picture, scene, index)


def indices(found: list[Shot]) -> list[int]:
    return [shot.index for shot in found]


# --- a session that is watched ---


@dataclass
class Waits:
    """Of each pause: between which limits its length was to be, in seconds."""

    asked: list[tuple[float, float]] = field(default_factory=list)

    def draw(self, low: float, high: float) -> float:
        self.asked.append((low, high))
        return WAIT_S


@contextmanager
def watching(
    camera: ScriptedCamera,
    *,
    interval_s: float = INTERVAL_S,
    count: int = ALL,
    transport: str = "tcp",
    clock: Clock | None = None,
    waits: Waits | None = None,
    ends: Callable[[Status], bool] = lambda status: False,
    url: str = "",
) -> Iterator[Capture]:
    """A session with this camera, in a thread; it ends with the block. `url`: if credentials belong into it."""
    session = Session(
        settings(parse(url or camera.url), interval_s=interval_s, count=count, transport=transport),
        clock=clock,
        backoff=Backoff(uniform=(waits or Waits()).draw),
        on_change=lambda: capture.note(),
    )
    capture = Capture(session, ends=ends)
    capture.thread = threading.Thread(target=session.run, name="session", daemon=True)
    capture.thread.start()
    try:
        yield capture
    finally:
        left(capture)


def left(capture: Capture) -> None:
    capture.session.stop.set()
    capture.thread.join(LIMIT_S)
    assert not capture.thread.is_alive(), "the session does not stop"


def has(samples: int) -> Callable[[Report], bool]:
    return lambda report: report.counters.samples >= samples


def says(notice: Notice) -> Callable[[Report], bool]:
    return lambda report: notice in report.status.notices


def says_nothing(report: Report) -> bool:
    return report.status.state is State.CAPTURING and not report.status.notices


def is_quiet(capture: Capture) -> bool:
    """One connection, no error, no notice."""
    notices = [notice for status in capture.statuses for notice in status.notices]
    return not capture.codes and not notices and capture.report.counters.connections == 1


def has_failed(status: Status) -> bool:
    return status.state is State.RECONNECTING


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second is a long silence; that is still long for a camera on the same machine."""
    monkeypatch.setattr(rtsp, "SOCKET_TIMEOUT_S", 0.5)
    monkeypatch.setattr(rtsp, "ANSWER_S", 0.5)
    monkeypatch.setattr(feed, "FIRST_PACKET_S", 0.5)
    monkeypatch.setattr(feed, "SILENCE_S", 0.5)


# --- a camera as it should be: each codec (16), and the first picture of all ---


@at_once(product(FILMED, BOTH_TRANSPORTS))
def test_every_sample_is_a_key_frame_from_the_first_one_on(scene: Scene, transport: str) -> None:
    with ScriptedCamera(scene) as camera, watching(camera, transport=transport) as capture:
        report = capture.until(has(4))
    found = shots(report, scene)
    assert indices(found) == [STEP * number for number in range(len(found))]
    assert [shot.picture.number for shot in found] == [number + 1 for number in range(len(found))]
    assert report.status.video == Video(scene.codec, 320, 240)
    assert (report.counters.rejected, report.counters.missed, is_quiet(capture)) == (0, 0, True)


@at_once((scene,) for scene in FILMED)
def test_a_camera_that_begins_in_the_middle_is_sampled_from_its_first_key_frame_on(scene: Scene) -> None:
    """Row 10. MJPEG has nothing but key frames."""
    with (
        ScriptedCamera(scene, fault="mid_gop:0.1") as camera,
        watching(camera, interval_s=EVERY_FRAME_S) as capture,
    ):
        report = capture.until(has(20))
    first = 5 if scene.codec == "mjpeg" else STEP
    found = shots(report, scene)
    assert indices(found) == [first + number for number in range(len(found))]
    assert is_quiet(capture)


# --- frozen, and still (7) ---


def frozen(scene: Scene) -> Scene:
    next_scene = FAULTS["frozen"].next_scene
    assert next_scene
    return next_scene(scene)


def test_a_frozen_picture_has_one_place_however_bright_and_the_status_says_so_until_it_moves() -> None:
    scene = replace(SCENE, plan=(230, 60, 90), noise=2.0)
    with ScriptedCamera(scene, fault="frozen:0.4") as camera, watching(camera, count=9) as capture:
        stuck = capture.until(lambda report: says(Notice.FROZEN)(report) and report.counters.repeated >= 6)
        camera.fault = None
        moving = capture.until(says_nothing)
        last = capture.until(has(moving.counters.samples + 5))
    for report in (stuck, last):
        assert [shot.scene for shot in shots(report, scene, frozen(scene))].count(frozen(scene)) == 1
    assert stuck.counters.samples == stuck.counters.repeated + len(stuck.board)
    assert Notice.FROZEN not in last.status.notices
    assert capture.codes == []


@at_once([("h264",), ("mjpeg",)])
def test_a_still_picture_has_one_place(codec: Codec) -> None:
    scene = Scene(320, 240, (120,), fps=50, gop_s=0.2, has_motion=False, codec=codec)
    with ScriptedCamera(scene) as camera, watching(camera) as capture:
        report = capture.until(has(8))
    assert len(shots(report, scene)) == 1
    assert report.counters.repeated == report.counters.samples - 1


# --- loss and damage (8) ---


@at_once((scene, *line) for scene in FILMED for line in [("tcp", 29), ("udp", 97)])
def test_nothing_is_kept_of_what_lost_a_packet(scene: Scene, transport: str, lost_each: int) -> None:
    """Every frame is a sample; after each loss they go on with the next whole key frame."""
    with (
        ScriptedCamera(scene, fault=f"lost_packets:{lost_each}") as camera,
        watching(camera, interval_s=EVERY_FRAME_S, transport=transport) as capture,
    ):
        report = goes_on_after_rejections(capture)
    assert len(shots(report, scene)) > 5
    assert capture.codes == []


def goes_on_after_rejections(capture: Capture, times: int = 2) -> Report:
    """Pictures are rejected and samples taken, by turns."""
    report = capture.until(has(1))
    for _ in range(times):
        before = report.counters
        capture.until(lambda report, before=before: report.counters.rejected > before.rejected)  # type: ignore[misc]
        rejected = capture.report.counters
        report = capture.until(has(rejected.samples + 5))
    return report


def test_nor_where_only_key_frames_are_taken() -> None:
    with ScriptedCamera(SCENE, fault="lost_packets:29") as camera, watching(camera) as capture:
        report = capture.until(lambda report: report.counters.rejected > 0 and report.counters.samples >= 6)
    assert all(shot.index % STEP == 0 for shot in shots(report, SCENE))
    assert capture.codes == []


@at_once(product([SCENE, replace(SCENE, b_frames=2)], [211, 47]))
def test_bytes_that_changed_on_their_way_end_nothing(scene: Scene, damaged_each: int) -> None:
    """No line does that, since both TCP and UDP have checksums; the decoder's word counts, which is most of it."""
    with (
        ScriptedCamera(scene, fault=f"damaged:{damaged_each}") as camera,
        watching(camera, interval_s=EVERY_FRAME_S) as capture,
    ):
        goes_on_after_rejections(capture)
    assert capture.codes == []


# --- transports (9) ---


def refusals(camera: ScriptedCamera) -> int:
    return [asked.status for asked in camera.requests].count(461)


@at_once([("tcp", "udp"), ("udp", "tcp")])
def test_the_other_transport_is_taken_at_once_and_remembered(refused: str, other: str) -> None:
    with (
        ScriptedCamera(SCENE, fault=f"no_{refused}") as camera,
        watching(camera, transport=refused, waits=(waits := Waits())) as capture,
    ):
        capture.until(has(3))
        assert (capture.codes, waits.asked) == ([], []), "the other one was not taken at once"
        camera.hang_up()
        report = capture.until(lambda report: report.counters.connections == 2)
        report = capture.until(has(report.counters.samples + 3))
    assert refusals(camera) == 1
    assert (capture.codes, report.status.notices) == (["closed"], (Notice.OTHER_TRANSPORT,))
    assert shots(report, SCENE)


def test_a_camera_that_refuses_both_transports_is_asked_slowly() -> None:
    with (
        ScriptedCamera(SCENE, fault="setup_status:461") as camera,
        watching(camera, waits=(waits := Waits())) as capture,
    ):
        assert [capture.until_failed() for _ in range(2)] == ["transport_refused"] * 2
    assert waits.asked[:2] == [(60.0, 75.0), (120.0, 150.0)]


@pytest.mark.parametrize("refused", ["tcp", "udp"])
def test_a_camera_that_refused_both_transports_may_serve_either_later(refused: str) -> None:
    """A relay whose source is away refuses whatever it is asked for."""
    with ScriptedCamera(SCENE, fault="setup_status:461") as camera, watching(camera) as capture:
        capture.until_failed()
        camera.fault = f"no_{refused}"
        report = capture.until(has(3))
    assert (Notice.OTHER_TRANSPORT in report.status.notices) == (refused == "tcp")


@pytest.mark.usefixtures("impatient")
def test_a_camera_from_which_nothing_comes_by_udp_is_asked_for_tcp() -> None:
    with ScriptedCamera(SCENE, fault="silent_play") as camera, watching(camera, transport="udp") as capture:
        wait_until(lambda: [asked.method for asked in camera.requests].count("PLAY") == 2)
        camera.fault = None
        report = capture.until(has(3))
    assert report.status.notices == (Notice.OTHER_TRANSPORT,)


# --- the farewell (13) ---


@both_transports
def test_it_says_farewell_while_it_captures(transport: str) -> None:
    with ScriptedCamera(SCENE) as camera, watching(camera, transport=transport) as capture:
        capture.until(has(2))
        assert camera.teardowns == 0
        left(capture)
        wait_until(lambda: (camera.teardowns, camera.clients) == (1, 0))


@both_transports
def test_it_says_farewell_while_the_camera_is_silent(transport: str) -> None:
    with (
        ScriptedCamera(SCENE, fault="stall_after:0.3") as camera,
        watching(camera, transport=transport) as capture,
    ):
        capture.until(has(2))
        left(capture)
        wait_until(lambda: (camera.teardowns, camera.clients) == (1, 0))
    assert capture.codes == []


@pytest.mark.parametrize("fault", ["play_status:0", "silent_play"])
def test_it_says_farewell_while_it_opens(fault: str) -> None:
    with ScriptedCamera(SCENE, fault=fault) as camera, watching(camera) as capture:
        wait_until(lambda: "PLAY" in {asked.method for asked in camera.requests})
        left(capture)
        wait_until(lambda: (camera.teardowns, camera.clients) == (1, 0))
    assert capture.codes == []


@pytest.mark.parametrize("fault", ["silent", "describe_status:0"])
def test_it_only_hangs_up_where_there_is_no_session_yet(fault: str) -> None:
    with ScriptedCamera(SCENE, fault=fault) as camera, watching(camera) as capture:
        wait_until(lambda: camera.connections == 1)
        left(capture)
        wait_until(lambda: camera.clients == 0)
    assert (camera.teardowns, capture.codes) == (0, [])


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("fault", "code"),
    [("stall_after:0.3", "stalled"), ("play_status:453", "camera_full")],
)
def test_it_says_farewell_before_it_connects_again(fault: str, code: str) -> None:
    with ScriptedCamera(SCENE, fault=fault) as camera, watching(camera, ends=has_failed) as capture:
        assert capture.until_failed() == code
        wait_until(lambda: (camera.teardowns, camera.clients) == (1, 0))


def test_it_says_farewell_to_what_it_cannot_decode() -> None:
    """By a clock on which half a minute passes in one second."""
    with (
        ScriptedCamera(SCENE, fault="damaged:1") as camera,
        watching(camera, clock=FastClock(30), ends=has_failed) as capture,
    ):
        assert capture.until_failed() == "undecodable"
        wait_until(lambda: (camera.teardowns, camera.clients) == (1, 0))


# --- keep-alive (14, 30) ---


def test_a_session_is_kept_alive_over_udp() -> None:
    """The camera hangs up after 2 s without a request; over TCP test_feed.py shows it."""
    with (
        ScriptedCamera(SMALL, fault="session_timeout:2") as camera,
        watching(camera, transport="udp") as capture,
    ):
        begun_at = capture.until(has(1)).counters.last_sample_at or 0.0
        capture.until(lambda report: (report.counters.last_sample_at or 0.0) > begun_at + 4.2)
    assert is_quiet(capture)


def test_a_keep_alive_that_was_learned_is_told_and_used_by_the_next_recorder() -> None:
    """The camera says 454 to GET_PARAMETER."""

    def set_up(request: Request) -> bytes:
        return answer(request, Session="1;timeout=2", Transport=request.headers["transport"])

    on: dict[str, Say] = {"SETUP": set_up, "GET_PARAMETER": lambda request: answer(request, "454 Session Not Found")}
    quirks = ""
    for asked_before in (1, 0):
        with OddCamera(on=on) as camera:
            session = Session(settings(parse(camera.url)), Seed(quirks=quirks))
            thread = threading.Thread(target=session.run, daemon=True)
            thread.start()
            wait_until(lambda: camera.methods.count("OPTIONS") >= 3)
            quirks = session.report().quirks
            session.stop.set()
            thread.join(LIMIT_S)
            assert camera.methods.count("GET_PARAMETER") == asked_before
        assert quirks == '{"keepalive":"OPTIONS"}'


# --- what is beside the picture (15), and sloppy descriptions (20) ---


@at_once([("audio_too", "tcp"), ("audio_never_sent", "tcp"), ("no_sprop", "udp"), ("sloppy", "tcp")])
def test_it_minds_the_picture_alone(fault: str, transport: str) -> None:
    with ScriptedCamera(SCENE, fault=fault) as camera, watching(camera, transport=transport) as capture:
        report = capture.until(has(3))
    assert indices(shots(report, SCENE))[:3] == [0, STEP, 2 * STEP]
    assert [asked.method for asked in camera.requests].count("SETUP") == (2 if fault.startswith("audio") else 1)
    assert is_quiet(capture)


@pytest.mark.parametrize("fault", ["audio_only", "no_media"])
def test_a_camera_without_a_picture_is_asked_slowly(fault: str) -> None:
    with ScriptedCamera(SCENE, fault=fault) as camera, watching(camera, waits=(waits := Waits())) as capture:
        assert capture.until_failed() == "no_video"
    assert waits.asked[0] == (60.0, 75.0)
    assert "SETUP" not in {asked.method for asked in camera.requests}


# --- key frames that are far apart (17), or never come (18) ---

LONG = replace(SMALL, gop_s=3.0)
REFRESHED = replace(SMALL, intra_refresh=True, gop_s=0.4)


@at_once([("h264",), ("mpeg4",)])
def test_one_key_frame_is_enough_for_all_samples(codec: Codec) -> None:
    """By a clock on which the film's 3 s are a minute: no error is to be called for want of key frames."""
    scene = replace(LONG, codec=codec)
    with ScriptedCamera(scene) as camera, watching(camera, clock=FastClock(20)) as capture:
        report = capture.until(has(7))
    found = shots(report, scene)
    assert indices(found) == [STEP * number for number in range(len(found))]
    assert (report.counters.missed, is_quiet(capture)) == (0, True)


def test_a_first_key_frame_is_waited_for_for_long() -> None:
    """It comes after 2.6 s, which seem to be 78."""
    with (
        ScriptedCamera(LONG, fault="mid_gop:0.4") as camera,
        watching(camera, clock=FastClock(30)) as capture,
    ):
        report = capture.until(has(3))
    assert indices(shots(report, LONG))[:3] == [0, STEP, 2 * STEP]
    assert is_quiet(capture)


def test_a_picture_that_is_refreshed_by_and_by_is_sampled_from_its_start() -> None:
    with ScriptedCamera(REFRESHED) as camera, watching(camera) as capture:
        report = capture.until(has(12))
    found = shots(report, REFRESHED)
    assert indices(found) == [STEP * number for number in range(len(found))]
    assert capture.codes == []


@at_once([(0.1, "tcp"), (0.52, "udp")])
def test_a_camera_without_key_frames_is_joined_and_the_status_says_so(missed_s: float, transport: str) -> None:
    """Two rounds of 20 frames have to pass before a picture is whole. The clip's end brings a key frame."""
    with (
        ScriptedCamera(REFRESHED, fault=f"mid_gop:{missed_s}") as camera,
        watching(camera, transport=transport) as capture,
    ):
        said = capture.until(says(Notice.NO_KEY_FRAMES))
        refreshed = capture.until(has(said.counters.samples + 3))
        after = capture.until(says_nothing)
    found = shots(refreshed, REFRESHED)
    first = round(missed_s * REFRESHED.fps)
    assert first + 20 <= found[0].index <= first + 80
    assert {b.index - a.index for a, b in pairwise(found)} == {STEP}
    assert indices(shots(after, REFRESHED))[: len(found)] == indices(found)
    assert capture.codes == []


def test_a_refreshed_picture_that_lost_a_packet_is_waited_for() -> None:
    with (
        ScriptedCamera(REFRESHED, fault="mid_gop:0.1") as camera,
        watching(camera, interval_s=EVERY_FRAME_S) as capture,
    ):
        before = capture.until(says(Notice.NO_KEY_FRAMES))
        camera.fault = "lost_packets:211"
        rejected = capture.until(lambda report: report.counters.rejected > before.counters.rejected)
        report = capture.until(has(rejected.counters.samples + 10))
    assert shots(report, REFRESHED)
    assert capture.codes == []


# --- another size (19) ---


@at_once([("h264", INTERVAL_S), ("hevc", INTERVAL_S), ("mjpeg", INTERVAL_S), ("h264", EVERY_FRAME_S)])
def test_pictures_of_another_size_are_sampled_as_they_come(codec: Codec, interval_s: float) -> None:
    scene = replace(SCENE, codec=codec)
    half = replace(scene, width=160, height=120)
    with ScriptedCamera(scene, fault="smaller:0.5") as camera, watching(camera, interval_s=interval_s) as capture:
        report = capture.until(lambda report: report.status.video == Video(codec, 160, 120))
        report = capture.until(has(report.counters.samples + 5))
    sizes = [shot.scene for shot in shots(report, scene, half)]
    assert set(sizes) == {scene, half}
    assert sizes == sorted(sizes, key=[scene, half].index)
    assert is_quiet(capture)


# --- time (21, 22) ---


@pytest.fixture
def mistrustful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timestamps are given up when they are 0.6 s away from the arrivals, in place of 15."""
    monkeypatch.setattr(stream_clock, "MAX_DRIFT_S", 0.6)


def came_when_they_say(found: list[Shot], began_at: float) -> None:
    """The moments told are those of arrival, whatever the timestamps: in order, and within the test."""
    moments = [shot.picture.captured_at for shot in found]
    assert moments == sorted(moments)
    assert began_at <= moments[0]
    assert moments[-1] <= time.time()


@at_once([("jumping_timestamps:3600", "tcp"), ("jumping_timestamps:5", "udp"), ("backward_timestamps:-10", "tcp")])
def test_a_jump_of_the_clock_moves_no_sample(fault: str, transport: str) -> None:
    """The clip jumps in second 1: sample 5, or 6. The jump takes the time between two arrivals, which is longer than
    a frame on a busy machine: what follows falls due that much earlier."""
    began_at = time.time()
    with ScriptedCamera(SCENE, fault=fault) as camera, watching(camera, transport=transport) as capture:
        report = capture.until(has(8))
    found = shots(report, SCENE)
    early = [STEP * number - index for number, index in enumerate(indices(found))]
    assert early[:5] == [0] * 5
    assert all(0 <= frames < STEP / 2 for frames in early), early
    came_when_they_say(found, began_at)
    begun = [shot.begun_at for shot in found]
    assert max(begun) - min(begun) < LATE_S
    assert (report.counters.missed, is_quiet(capture)) == (0, True)


@pytest.mark.usefixtures("mistrustful")
@at_once(zip(["no_timestamps", "stuck_timestamps:0.2", "fast_timestamps:8", "slow_timestamps:0.1", "rush:4"]))
def test_with_timestamps_that_are_no_use_samples_come_at_the_interval_by_arrivals(fault: str) -> None:
    """Of a stretch of 1.2 s after they were given up: a sample every 0.2 s, or a due time that was missed."""
    scene = replace(SCENE, plan=SCENE.plan * 3)
    began_at = time.time()
    with ScriptedCamera(scene, fault=fault) as camera, watching(camera) as capture:
        first_at = capture.until(has(1)).counters.last_sample_at or 0.0
        before = capture.until(comes_after(first_at + 1.1)).counters
        report = capture.until(comes_after((before.last_sample_at or 0.0) + 1.2))
    after = report.counters
    samples, missed = after.samples - before.samples, after.missed - before.missed
    passed = ((after.last_sample_at or 0.0) - (before.last_sample_at or 0.0)) / INTERVAL_S
    assert samples + missed == pytest.approx(passed, abs=1.5)
    assert samples > passed / 2
    came_when_they_say(shots(report, scene), began_at)
    assert capture.codes == []


def comes_after(moment: float) -> Callable[[Report], bool]:
    return lambda report: (report.counters.last_sample_at or 0.0) >= moment


def test_of_a_burst_each_sample_is_taken_that_was_due() -> None:
    began_at = time.time()
    with ScriptedCamera(SCENE, fault="bursts:1") as camera, watching(camera) as capture:
        report = capture.until(has(8))
    found = shots(report, SCENE)
    assert indices(found) == [STEP * number for number in range(len(found))]
    came_when_they_say(found, began_at)
    assert (report.counters.missed, is_quiet(capture)) == (0, True)


def test_what_is_sent_too_fast_is_not_queued() -> None:
    """Four times as fast: a picture that is captured when the camera has just sent it does not come from a queue."""
    amount = parse_fault("rush:4").amount
    scene = replace(SMALL, plan=SCENE.plan * 4)
    with ScriptedCamera(scene, fault="rush:4") as camera, watching(camera) as capture:
        report = capture.until(has(20))
    found = shots(report, scene)
    sent_at = [shot.picture.captured_at - shot.index / scene.fps / amount for shot in found]
    assert max(sent_at) - min(sent_at) < LATE_S
    assert is_quiet(capture)


# --- redirects (25) ---


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_a_redirect_to_another_host_is_refused_and_nobody_there_hears_of_it(auth: Scheme) -> None:
    with (
        ScriptedCamera(SCENE, host="127.0.0.2", path="trap") as trap,
        ScriptedCamera(SCENE, username="user", password="word", auth=auth) as camera,
    ):
        camera.fault = f"redirect:{trap.url}"
        with watching(camera, url=camera.url_with_credentials) as capture:
            status = capture.until(lambda report: report.status.attempt >= 2).status
        assert (trap.connections, trap.requests) == (0, [])
    assert (status.state, status.error_code) == (State.RECONNECTING, "address_refused")
    assert "word" not in repr(capture.statuses)
