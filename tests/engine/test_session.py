"""A capture from its first connection to its end, with real clips and a clock that waits in no time."""

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import pytest

from streams.engine import errors
from streams.engine.address import Address
from streams.engine.backoff import Backoff
from streams.engine.clock import Stop, Stopped
from streams.engine.continuity import GROUPS
from streams.engine.errors import CaptureError
from streams.engine.feed import Feed, Opener, Packet
from streams.engine.notices import Notice
from streams.engine.quirks import Quirks
from streams.engine.report import Counters, Report, Seed, State, Status, Video
from streams.engine.session import (
    FRAME_S,
    HANG_S,
    OPEN_S,
    TIMELINE_S,
    UNRESOLVED_S,
    Session,
)
from streams.engine.sheet import decode_jpeg
from streams.engine.timeline import Timeline
from tests.camera.clip import Scene, split_nals
from tests.camera.mark import read_mark
from tests.camera.viewer import wait_until

from .builders import an_address, settings
from .clip_feed import PATIENCE_S, WALL_S, ClipFeed, Film, joined, later, packets_of
from .numbered import renumbered
from .rtp_film import annex_b

PLAN = (40, 200, 90, 120, 60, 180)
SCENE = Scene(320, 240, PLAN, fps=5, gop_s=1.0)
Act = Callable[[], Feed]


class FakeClock:
    """Waits take no time but pass it. `waits` holds their seconds."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.waits: list[float] = []

    def now(self) -> float:
        return WALL_S + self.passed_s

    def monotonic(self) -> float:
        return self.passed_s

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self.passed_s += 0.0 if stop.is_set() else seconds
        return stop.is_set()


@dataclass
class Stage:
    """An opener that does one act after the other; after the last one it says stop, and refuses."""

    acts: Sequence[Act | CaptureError]
    clock: FakeClock = field(default_factory=FakeClock)
    opened: list[tuple[Address, str]] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    session: Session = field(init=False)

    def open(self, address: Address, transport: str, stop: Stop) -> Feed:
        act = self.acts[len(self.opened)] if len(self.opened) < len(self.acts) else errors.Unreachable()
        self.opened.append((address, transport))
        if not isinstance(act, CaptureError):
            return act()
        if len(self.opened) >= len(self.acts):
            self.session.stop.set()
        raise act

    def note(self) -> None:
        self.reports.append(self.session.report())


def play(
    *acts: Act | CaptureError,
    clock: FakeClock | None = None,
    interval_s: float = 1.0,
    count: int = 9,
    seed: Seed | None = None,
    transport: str = "tcp",
    url: str = "rtsp://camera.example/demo",
    replaced_file: Callable[[], str] = str,
) -> Stage:
    """Runs a session through the acts and one more refusal, with the longest wait of each step."""
    stage = Stage([*acts, errors.Unreachable()], clock or FakeClock())
    stage.session = Session(
        settings(an_address(url), interval_s=interval_s, count=count, transport=transport),
        seed,
        opener=stage.open,
        clock=stage.clock,
        backoff=Backoff(uniform=lambda low, high: high),
        on_change=stage.note,
        replaced_file=replaced_file,
    )
    stage.session.run()
    return stage


def clip(clock: FakeClock | None, scene: Scene, ends_by: CaptureError | None = None, speed: float = 1.0) -> Act:
    """A connection that plays the clip; the clock runs along with its packets, `speed` times as slow."""

    def act() -> Feed:
        feed = ClipFeed(scene, ends_by)
        if clock is not None:
            feed.shown = paced(scene, clock, speed)
        return feed

    return act


def paced(scene: Scene, clock: FakeClock, speed: float) -> Iterator[Packet]:
    begun_s = clock.passed_s
    for packet in packets_of(scene):
        clock.passed_s = begun_s + packet.arrived_s * speed
        yield later(packet, begun_s)


def states(stage: Stage) -> list[tuple[State, str]]:
    return [(report.status.state, report.status.error_code) for report in stage.reports]


def marks(report: Report) -> list[int]:
    """The seconds of the film that its pictures show, best first."""
    return [read_mark(decode_jpeg(picture.jpeg)) for picture in report.fresh]


# --- what is captured ---


def test_the_brightest_frames_are_kept_best_first() -> None:
    report = play(clip(None, SCENE), count=4).session.report()
    assert marks(report) == [1, 5, 3, 2]
    assert [score for _, score in report.board] == pytest.approx([200, 180, 120, 90], abs=1)
    assert [number for number, _ in report.board] == [2, 6, 4, 3]


def test_a_score_is_that_of_its_picture() -> None:
    for picture in play(clip(None, SCENE)).session.report().fresh:
        image = decode_jpeg(picture.jpeg)
        assert image.shape == (picture.height, picture.width, 3) == (240, 320, 3)
        assert picture.score == pytest.approx(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean(), abs=1.0)


def test_all_samples_are_counted() -> None:
    counters = play(clip(None, SCENE), interval_s=0.5).session.report().counters
    assert (counters.samples, counters.connections) == (12, 1)
    assert (counters.missed, counters.rejected, counters.repeated) == (0, 0, 0)
    assert (counters.late_p50_s, counters.late_p95_s) == pytest.approx((0.0, 0.1))
    assert counters.last_sample_at == pytest.approx(WALL_S + 5.6, abs=0.11)


def test_a_picture_has_the_moment_of_its_arrival() -> None:
    pictures = play(clip(None, SCENE)).session.report().fresh
    assert [round(one.captured_at - WALL_S) for one in pictures] == [1, 5, 3, 2, 4, 0]


def test_of_equal_frames_the_earlier_ones_stay() -> None:
    scene = Scene(160, 120, (100,) * 6, fps=5, has_motion=False, gop_s=0.2)
    board = play(clip(None, scene), count=3).session.report().board
    assert len({score for _, score in board}) == 1
    assert [number for number, _ in board] == [1, 2, 3]


def test_it_says_what_it_captures() -> None:
    stage = play(clip(None, SCENE))
    capturing = stage.reports[0].status
    assert (capturing.state, capturing.video) == (State.CAPTURING, Video("h264", 320, 240))
    assert (capturing.error_code, capturing.next_attempt_at) == ("", None)


def test_it_opens_the_address_and_the_transport_it_was_given() -> None:
    assert set(play(clip(None, SCENE), transport="udp").opened) == {(an_address(), "udp")}


SILENT = errors.TransportRefused("Nothing comes.", otherwise=errors.ConnectTimeout())
REFUSED = errors.TransportRefused(otherwise=errors.Refused("The camera refused SETUP with status 500."))
NO_UDP = errors.TransportRefused("No UDP.")


def transports(stage: Stage) -> list[str]:
    return [transport for _, transport in stage.opened]


@pytest.mark.parametrize(
    ("first", "code"), [(SILENT, "timeout"), (REFUSED, "refused"), (NO_UDP, "transport_refused")]
)
def test_where_both_fail_the_error_is_that_of_the_one_that_was_asked_for(
    first: errors.TransportRefused, code: str
) -> None:
    stage = play(first, NO_UDP)
    assert transports(stage) == ["tcp", "udp", "tcp"]
    assert states(stage)[0] == (State.RECONNECTING, code)


def test_the_other_transport_is_left_where_nothing_shows_that_it_works() -> None:
    """The camera was away, and not its TCP."""
    assert transports(play(SILENT, errors.Unreachable(), clip(None, SCENE))) == ["tcp", "udp", "tcp", "tcp"]


@pytest.mark.parametrize(("first", "code"), [(SILENT, "timeout"), (REFUSED, "refused")])
def test_rtsps_never_falls_back_to_udp_and_says_so(first: errors.TransportRefused, code: str) -> None:
    stage = play(first, url="rtsps://camera.example/demo")
    assert transports(stage) == ["tcp", "tcp"]
    status = stage.reports[0].status
    assert status.error_code == code
    assert "does not try UDP" in status.error_text


def test_it_is_connecting_before_anything_has_come() -> None:
    report = Session(settings(), opener=Stage([]).open, clock=FakeClock()).report()
    assert report.status == Status(State.CONNECTING)
    assert (report.board, report.fresh, report.counters, report.is_final) == ((), (), Counters(), False)


# --- reconnecting ---


def test_it_waits_longer_after_each_failure() -> None:
    stage = play(*[errors.Unreachable() for _ in range(8)])
    assert stage.clock.waits[:-1] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_it_says_why_which_attempt_and_when_the_next_one_is() -> None:
    stage = play(errors.Unreachable(), errors.Unreachable("Gone."))
    first, second = (report.status for report in stage.reports[:2])
    assert first == Status(State.RECONNECTING, "unreachable", errors.Unreachable.words, 1, WALL_S + 1)
    assert second == Status(State.RECONNECTING, "unreachable", "Gone.", 2, WALL_S + 3)


@pytest.mark.parametrize("error", [errors.AuthRefused, errors.Refused, errors.NoVideo, errors.Undecodable])
def test_what_another_try_does_not_mend_is_tried_slowly(error: type[CaptureError]) -> None:
    stage = play(*[error() for _ in range(6)])
    assert stage.clock.waits[:-1] == [step_s * 1.25 for step_s in (60, 120, 240, 480, 900, 900)]


def test_a_full_camera_is_tried_later() -> None:
    assert play(errors.CameraFull(), errors.CameraFull()).clock.waits[:-1] == [37.5, 75]


@pytest.mark.parametrize("error", [errors.InvalidURL(), errors.AddressRefused(is_for_ever=True)])
def test_what_can_never_work_fails_at_once(error: CaptureError) -> None:
    stage = play(errors.Unreachable(), error, errors.Unreachable())
    assert states(stage) == [(State.RECONNECTING, "unreachable"), (State.FAILED, error.code)]
    assert len(stage.opened) == 2
    assert not stage.session.stop.is_set()


# --- another recorder has to take its place ---

UNRESOLVED = errors.Unreachable("The host name camera.example cannot be resolved.", is_unresolved=True)


def last_words(stage: Stage) -> Report:
    return stage.session.report(is_final=True)


@pytest.mark.parametrize("known", [errors.Closed(), errors.Unreachable(), NO_UDP, clip(None, SCENE)])
def test_it_ends_a_minute_after_a_name_that_it_knew_is_unknown(known: Act | CaptureError) -> None:
    """The one after it tries at once, and goes on with the ladder of waits."""
    stage = play(known, *[UNRESOLVED] * 50)
    assert not stage.session.stop.is_set()
    waits = list(itertools.accumulate(stage.clock.waits[-len(stage.opened) + 1 :]))
    assert UNRESOLVED_S <= waits[-1] <= UNRESOLVED_S + 1.0, "the first wait may be for what came before"
    report = last_words(stage)
    assert report.replace_reason == "camera.example was not resolved for 60 s"
    status = report.status
    assert (status.state, status.error_code, status.error_text) == (
        State.RECONNECTING, "unreachable", str(UNRESOLVED),
    )  # fmt: skip
    assert (status.attempt > 5, status.next_attempt_at) == (True, None)
    assert stage.session.report().replace_reason == "", "only the last report says so"

    after = play(*[UNRESOLVED] * 20, seed=Seed(samples=1, status=status))
    assert after.clock.waits[:3] == [60, 60, 60]
    assert last_words(after).replace_reason == "", "it has never resolved the name: it stays however long that takes"


def test_a_name_that_comes_back_within_the_minute_begins_it_anew() -> None:
    stage = play(*[errors.Closed(), UNRESOLVED, UNRESOLVED] * 2)
    assert stage.clock.waits[:-1] == [1, 2, 4, 8, 16, 32]
    assert last_words(stage).replace_reason == ""


def test_a_name_that_is_known_and_does_not_answer_ends_no_recorder() -> None:
    stage = play(*[errors.Unreachable()] * 30)
    assert last_words(stage).replace_reason == ""


def test_it_ends_before_a_connection_that_needs_a_file_which_was_replaced() -> None:
    """What is wrong is said as it was, and the successor waits for nothing."""
    files = iter(["", "", "/etc/hosts"])
    stage = play(errors.Closed(), errors.Stalled(), errors.Closed(), replaced_file=lambda: next(files))
    assert len(stage.opened) == 2
    report = last_words(stage)
    assert report.replace_reason == "/etc/hosts was replaced"
    assert report.status == Status(State.RECONNECTING, "stalled", errors.Stalled.words, 2)


def test_one_that_is_told_to_leave_looks_for_no_other() -> None:
    stage = Stage([UNRESOLVED])
    stage.session = Session(settings(), opener=stage.open, clock=stage.clock, replaced_file=lambda: "/etc/hosts")
    stage.session.stop.set()
    stage.session.run()
    assert last_words(stage).replace_reason == ""


def test_a_healthy_minute_begins_the_ladder_anew() -> None:
    clock = FakeClock()
    play(*[errors.Unreachable()] * 4, clip(clock, SCENE, speed=11), clock=clock)
    assert clock.waits[:5] == [1, 2, 4, 8, 1]


def test_half_a_minute_does_not() -> None:
    clock = FakeClock()
    play(*[errors.Unreachable()] * 4, clip(clock, SCENE, speed=6), clock=clock)
    assert clock.waits[:5] == [1, 2, 4, 8, 16]


def test_a_connection_without_a_sample_is_not_healthy_however_long_it_was() -> None:
    """No key frame comes: the minute counts from the first sample."""
    clock = FakeClock()

    def act() -> Feed:
        feed = ClipFeed(SCENE)
        feed.shown = headless(paced(SCENE, clock, 4.0))
        return feed

    play(errors.Unreachable(), act, act, clock=clock)
    assert clock.waits[:3] == [1, 2, 4]


def headless(packets: Iterable[Packet]) -> Iterator[Packet]:
    return (replace(packet, is_key=False) for packet in packets)


def broken(packets: Iterable[Packet]) -> Iterator[Packet]:
    return (replace(packet, is_whole=False) for packet in packets)


@pytest.mark.parametrize("earlier", [[], [errors.Unreachable()]], ids=["the first", "the second"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (headless, "no key frame yet"),
        (broken, "30 were rejected because part of them or of an earlier picture was lost"),
    ],
)
def test_the_last_words_say_why_no_sample_came_of_the_pictures_of_a_connection(
    change: Callable[[Iterable[Packet]], Iterator[Packet]], words: str, earlier: list[Act | CaptureError]
) -> None:
    def act() -> Feed:
        feed = ClipFeed(SCENE)
        feed.shown = stopping(change(packets_of(SCENE)))
        return feed

    def stopping(packets: Iterable[Packet]) -> Iterator[Packet]:
        yield from packets
        raise Stopped

    stage = Stage([*earlier, act])
    stage.session = Session(settings(), opener=stage.open, clock=stage.clock)
    stage.session.run()
    assert stage.session.report().status.error_code != "undecodable"
    status = stage.session.report(is_final=True).status
    assert status.error_code == "undecodable"
    assert words in status.error_text


def test_the_last_words_of_a_capture_with_samples_name_no_reason() -> None:
    """Some pictures were rejected on the way."""
    scene = replace(SCENE, plan=(40, 60, 80, 100))
    packets = packets_of(scene)
    packets[1] = replace(packets[1], is_whole=False)

    def act() -> Feed:
        feed = ClipFeed(scene)
        feed.shown = packets
        return feed

    report = play(act).session.report(is_final=True)
    assert report.counters.rejected > 0
    assert report.status.error_code == "unreachable"  # which ended it


def test_a_camera_that_leaves_out_numbers_is_captured_and_said_to_do_so() -> None:
    """From the sixth group on each picture is a sample."""
    film = Film(frames=80, key_every=8)
    packets = [replace(packet, data=annex_b(*renumbered(split_nals(packet.data), 2))) for packet in joined([film])]

    def act() -> Feed:
        feed = ClipFeed(SCENE)
        feed.shown = packets
        return feed

    stage = play(act, interval_s=0.1)
    report = stage.session.report()
    assert report.counters.samples == GROUPS + 80 - 8 * GROUPS
    assert report.counters.rejected == 7 * GROUPS
    notices = [report.status.notices for report in stage.reports if report.status.state is State.CAPTURING]
    assert notices == [(), (Notice.FRAME_NUM_OFF,)]


def test_the_leaderboard_is_kept_over_reconnects() -> None:
    dark, light = replace(SCENE, plan=(30, 70, 50)), replace(SCENE, plan=(60, 20, 240))
    report = play(clip(None, dark), errors.Unreachable(), clip(None, light), count=4).session.report()
    assert [score for _, score in report.board] == pytest.approx([240, 70, 60, 50], abs=1)
    assert [number for number, _ in report.board] == [6, 2, 4, 3]
    assert (report.counters.samples, report.counters.connections) == (6, 2)


def test_the_status_says_each_change_once() -> None:
    stage = play(clip(None, SCENE, errors.Stalled()), errors.AuthRefused(), clip(None, SCENE))
    assert states(stage)[:5] == [
        (State.CAPTURING, ""),
        (State.RECONNECTING, "stalled"),
        (State.RECONNECTING, "auth_refused"),
        (State.CAPTURING, ""),
        (State.RECONNECTING, "closed"),
    ]


def test_every_connection_is_left() -> None:
    feeds: list[ClipFeed] = []

    def act() -> Feed:
        feeds.append(ClipFeed(SCENE, errors.Stalled()))
        return feeds[-1]

    play(act, act, act)
    assert [feed.is_left for feed in feeds] == [True] * 3


# --- going on with the wait of another recorder ---


def waiting(code: str = "auth_refused", *, attempt: int = 3, wait_s: float | None = 100.0) -> Seed:
    """The recorder before this one was told so, and was to try again so many seconds from now."""
    next_at = None if wait_s is None else WALL_S + wait_s
    return Seed(status=Status(State.RECONNECTING, code, "As it was said.", attempt, next_at))


def test_it_waits_for_as_long_as_was_left_and_then_on_the_same_ladder() -> None:
    stage = play(errors.AuthRefused(), errors.AuthRefused(), seed=waiting())
    assert stage.clock.waits[:3] == [100, 480 * 1.25, 900 * 1.25]
    assert [report.status.attempt for report in stage.reports[:2]] == [4, 5]


def test_it_says_what_the_one_before_said_until_it_has_tried_itself() -> None:
    session = Session(settings(), waiting(), opener=refusing(errors.AuthRefused()), clock=FakeClock())
    assert session.report().status == waiting().status


def test_nothing_is_opened_while_it_waits_on() -> None:
    stage = Stage([])
    stage.session = Session(settings(), waiting(), opener=stage.open, clock=stage.clock)
    stage.clock.wait = lambda stop, seconds: stop.set() or True  # type: ignore[method-assign, func-returns-value]
    stage.session.run()
    assert stage.opened == []


@pytest.mark.parametrize("wait_s", [0.0, -5.0, -1e9])
def test_a_wait_that_is_over_is_none_and_is_counted(wait_s: float) -> None:
    stage = play(errors.CameraFull(), seed=waiting("camera_full", attempt=1, wait_s=wait_s))
    assert stage.clock.waits[0] == 75
    assert stage.reports[0].status.attempt == 2


def test_a_wall_clock_that_is_a_week_ahead_costs_no_more_than_the_longest_wait() -> None:
    stage = play(errors.AuthRefused(), seed=waiting(wait_s=7 * 86_400.0))
    assert stage.clock.waits[0] == 900 * 1.25


def test_another_failure_than_the_one_before_begins_its_own_ladder() -> None:
    assert play(errors.Unreachable(), seed=waiting()).clock.waits[:2] == [100, 1]


@pytest.mark.parametrize(
    "status",
    [
        Status(),
        Status(State.CAPTURING),
        Status(State.RECONNECTING, "auth_refused", "No.", attempt=0, next_attempt_at=WALL_S + 100),
        Status(State.RECONNECTING, "of_a_later_version", "What?", attempt=2, next_attempt_at=WALL_S + 100),
        Status(State.RECONNECTING, "invalid_url", "Never.", attempt=2, next_attempt_at=WALL_S + 100),
        Status(State.FAILED, "auth_refused", "No.", attempt=2, next_attempt_at=WALL_S + 100),
    ],
    ids=["new", "capturing", "no attempt", "unknown", "never retried", "failed"],
)
def test_who_has_nothing_to_wait_for_connects_at_once(status: Status) -> None:
    stage = play(errors.Unreachable(), seed=Seed(status=status))
    assert stage.clock.waits[0] == 1
    assert stage.reports[0].status.attempt == 1


def classes_of(error: type[CaptureError]) -> list[type[CaptureError]]:
    return [error, *(one for child in error.__subclasses__() for one in classes_of(child))]


def test_every_code_says_how_it_is_retried() -> None:
    classes = classes_of(CaptureError)[1:]
    assert len({one.code for one in classes}) == len(classes) > 10
    assert {one.code: errors.retry_of(one.code) for one in classes} == {one.code: one.retry for one in classes}
    assert errors.retry_of("") is None


# --- a path that was never there ---


def test_a_path_that_was_never_there_is_asked_for_rarely() -> None:
    stage = play(*[errors.NotFound()] * 5)
    assert stage.clock.waits[:5] == [step_s * 1.25 for step_s in (60, 300, 900, 3600, 3600)]


def test_a_path_that_has_had_a_sample_is_asked_for_soon() -> None:
    """A relay publishes it again once its camera is up."""
    clock = FakeClock()
    stage = play(clip(clock, SCENE), errors.NotFound(), errors.NotFound(), clock=clock)
    assert stage.session.report().counters.samples
    assert clock.waits[-4:] == [1, 2, 4, 8]  # the end of the clip, twice the path, the end of the stage


@pytest.mark.parametrize(("samples", "waits_s"), [(0, [100, 3600 * 1.25]), (7, [75, 8])])
def test_the_next_recorder_goes_on_with_the_step_of_the_one_before(samples: int, waits_s: list[float]) -> None:
    seed = replace(waiting("not_found", attempt=3), samples=samples)
    assert play(errors.NotFound(), seed=seed).clock.waits[:2] == waits_s


def test_a_name_that_is_refused_is_looked_up_again_on_the_slow_ladder() -> None:
    """What it resolves to may change; and whoever waits for that goes on waiting in the next recorder."""
    refused = [errors.AddressRefused("Not there.")] * 3
    stage = play(*refused)
    assert stage.clock.waits[:3] == [75, 150, 300]
    assert states(stage)[0] == (State.RECONNECTING, "address_refused")
    left = waiting("address_refused", attempt=2)
    assert play(errors.AddressRefused(), seed=left).clock.waits[:2] == [100, 300]


# --- what is learned about the camera ---


def test_a_transport_that_works_where_the_one_asked_for_does_not_is_learned() -> None:
    stage = play(REFUSED, clip(None, SCENE))
    assert [transport for _, transport in stage.opened][:3] == ["tcp", "udp", "udp"]
    assert Quirks.decode(stage.session.report().quirks) == Quirks(transport="udp")


def test_a_transport_that_nothing_came_over_is_not() -> None:
    stage = play(REFUSED, errors.Closed())
    assert [transport for _, transport in stage.opened][:2] == ["tcp", "udp"]
    assert stage.session.report().quirks == ""


def test_what_was_learned_is_where_the_next_recorder_begins() -> None:
    stage = play(clip(None, SCENE), seed=Seed(quirks='{"transport":"udp"}'))
    assert {transport for _, transport in stage.opened} == {"udp"}
    assert stage.reports[0].status.notices == (Notice.OTHER_TRANSPORT,)
    assert stage.reports[0].quirks == '{"transport":"udp"}'


def test_a_learned_transport_that_fails_now_gives_way_to_the_one_asked_for() -> None:
    """The camera was set up anew: what was learned is forgotten once something comes over the other one."""
    stage = play(REFUSED, clip(None, SCENE), seed=Seed(quirks='{"transport":"udp"}'))
    assert [transport for _, transport in stage.opened][:3] == ["udp", "tcp", "tcp"]
    assert stage.clock.waits[0] == 1.0, "only once the clip is over"
    assert stage.session.report().quirks == ""


def test_a_camera_that_refuses_both_says_what_was_wrong_with_each() -> None:
    stage = play(errors.TransportRefused("No TCP."), NO_UDP, errors.TransportRefused("No TCP."), NO_UDP)
    assert [transport for _, transport in stage.opened][:4] == ["tcp", "udp", "tcp", "udp"]
    assert stage.reports[0].status.error_text == "No TCP. No UDP."
    assert stage.clock.waits[:2] == [75, 150]


@pytest.mark.parametrize("quirks", ["", "{", '{"transport":"sctp"}'])
def test_quirks_that_cannot_be_read_are_none(quirks: str) -> None:
    stage = play(clip(None, SCENE), seed=Seed(quirks=quirks))
    assert {transport for _, transport in stage.opened} == {"tcp"}


# --- undecodable ---


def test_a_stream_without_a_clean_frame_for_too_long_is_undecodable() -> None:
    clock = FakeClock()

    def damaged() -> Feed:
        feed = ClipFeed(SCENE)
        feed.shown = (replace(packet, is_whole=False) for packet in paced(SCENE, clock, 10.0))
        return feed

    stage = play(damaged, clock=clock)
    assert states(stage)[0] == (State.RECONNECTING, "undecodable")
    assert FRAME_S < (stage.reports[0].status.next_attempt_at or 0) - WALL_S - stage.clock.waits[0] < FRAME_S + 3
    assert stage.reports[0].counters.samples == 0


def test_a_key_frame_every_twelve_seconds_is_no_reason_to_give_up() -> None:
    clock = FakeClock()
    stage = play(clip(clock, replace(SCENE, gop_s=2.0), speed=6.0), clock=clock)
    assert states(stage)[1] == (State.RECONNECTING, "closed")


@pytest.mark.parametrize(("patience_s", "first_code"), [(122.0, "closed"), (PATIENCE_S, "undecodable")])
def test_a_camera_whose_pictures_are_forty_seconds_apart_is_not_given_up(patience_s: float, first_code: str) -> None:
    """FIELD 59: as long as its feed waits for a picture, a sample is not overdue."""
    clock = FakeClock()

    def shown() -> Iterator[Packet]:
        for number, packet in enumerate(packets_of(replace(SCENE, gop_s=0.2))):
            clock.passed_s = 40.0 * number
            yield replace(packet, pts_s=clock.passed_s, arrived_s=clock.passed_s)

    def slow() -> Feed:
        feed = ClipFeed(SCENE)
        feed.patience_s, feed.shown = patience_s, shown()
        return feed

    stage = play(slow, clock=clock)
    assert next(code for _, code in states(stage) if code) == first_code


# --- what was there before, and what is saved ---


def test_the_scores_of_earlier_recorders_hold_their_places() -> None:
    seed = Seed(samples=40, board=((7, 210.0), (31, 150.0), (12, 20.0)))
    report = play(clip(None, SCENE), count=4, seed=seed).session.report()
    assert [number for number, _ in report.board] == [7, 42, 46, 31]
    assert [score for _, score in report.board] == pytest.approx([210, 200, 180, 150], abs=1)
    assert [picture.number for picture in report.fresh] == [42, 46]
    assert report.counters.samples == 6


def test_a_saved_picture_keeps_its_place_and_is_fresh_no_more() -> None:
    session = play(clip(None, SCENE), count=4).session
    before = session.report()
    session.mark_saved(frozenset({before.board[0][0], before.board[2][0], 999}))
    after = session.report()
    assert after.board == before.board
    assert after.fresh == (before.fresh[1], before.fresh[3])


def test_what_was_saved_and_then_beaten_does_not_come_back() -> None:
    session = play(clip(None, SCENE), count=1).session
    session.mark_saved(frozenset({1}))
    assert [picture.number for picture in session.report().fresh] == [2]


# --- its timeline ---


def test_the_timeline_has_every_sample_each_connection_and_what_went_wrong() -> None:
    clock = FakeClock()
    report = play(clip(clock, SCENE), errors.NotFound(), clip(clock, SCENE), clock=clock).session.report(
        is_final=True
    )
    timeline = Timeline.decode(report.timeline)
    buckets = [bucket for _, bucket in timeline]
    scores = [bucket.high for bucket in buckets if bucket.samples]
    assert scores == pytest.approx([*PLAN, *PLAN], abs=1)
    assert sum(bucket.connections for bucket in buckets) == report.counters.connections == 2
    assert [bucket.error_code for bucket in buckets if bucket.error_code] == [
        "closed",
        "not_found",
        "closed",
        "unreachable",
    ]
    captured = sorted(picture.captured_at for picture in report.fresh)
    assert min(abs(at - captured[0]) for at, bucket in timeline if bucket.samples) < timeline.width_s


def test_a_timeline_goes_on_from_recorder_to_recorder() -> None:
    before = play(clip(None, SCENE)).session.report(is_final=True).timeline
    after = Timeline.decode(
        play(clip(None, SCENE), seed=Seed(timeline=before)).session.report(is_final=True).timeline
    )
    assert after.samples == 12
    assert after.began_at == Timeline.decode(before).began_at


@pytest.mark.parametrize("saved", ["", "{", "[]"])
def test_a_timeline_that_cannot_be_read_is_begun_anew(saved: str) -> None:
    report = play(clip(None, SCENE), seed=Seed(timeline=saved)).session.report(is_final=True)
    assert Timeline.decode(report.timeline).samples == 6


def test_a_timeline_is_said_more_rarely_as_it_grows_and_not_without_news() -> None:
    clock = FakeClock()
    stage = play(clip(clock, SCENE), clock=clock)
    session, said_s = stage.session, []
    for second in range(120):
        clock.passed_s = float(second)
        session._timeline.note_sample(WALL_S + second, 50.0)
        if session.report().timeline:
            said_s.append(second)
    waits = [later - earlier for earlier, later in itertools.pairwise(said_s)]
    assert waits == sorted(waits)
    assert TIMELINE_S[0] <= waits[0] < 4
    assert waits[-1] == TIMELINE_S[1]
    clock.passed_s = 200.0
    assert Timeline.decode(session.report().timeline).samples == 6 + 120
    clock.passed_s = 300.0
    assert session.report().timeline == ""
    assert session.report(is_final=True).timeline != ""


# --- leaving ---


def test_stop_ends_a_wait() -> None:
    """With the real clock: the wait is a minute and more."""
    session = Session(settings(), opener=refusing(errors.AuthRefused()))
    thread = threading.Thread(target=session.run, daemon=True)
    thread.start()
    wait_until(lambda: session.report().status.state is State.RECONNECTING)
    session.stop.set()
    thread.join(20)
    assert not thread.is_alive()


def refusing(error: CaptureError) -> Opener:
    def opener(address: Address, transport: str, stop: Stop) -> Feed:
        raise error

    return opener


def test_stop_leaves_the_connection_and_keeps_what_had_come() -> None:
    feed = ClipFeed(SCENE)
    session = Session(settings(), opener=lambda *_: feed, clock=FakeClock())

    def packets() -> Iterator[Packet]:
        """As feeds do: what has arrived is given still."""
        for number, packet in enumerate(packets_of(SCENE)[:13]):
            if number == 7:
                session.stop.set()
            yield packet

    feed.shown = packets()
    session.run()
    assert feed.is_left
    assert session.report().counters.samples == 3


def test_a_session_that_is_told_to_stop_before_it_begins_opens_nothing() -> None:
    stage = Stage([errors.Unreachable()])
    stage.session = Session(settings(), opener=stage.open, clock=stage.clock)
    stage.session.stop.set()
    stage.session.run()
    assert stage.opened == []


# --- the deadlines, seen from another thread ---


@dataclass
class Probe:
    """Asks whether the session is overdue, when it is so many seconds later than it seems to the session."""

    session: Session
    clock: FakeClock

    def after(self, seconds: float) -> str:
        self.clock.passed_s += seconds
        error = self.session.overdue()
        self.clock.passed_s -= seconds
        return error.code if error else ""


def test_a_camera_that_hangs_at_connecting_is_overdue_as_a_timeout() -> None:
    answers: list[str] = []
    clock = FakeClock()

    def opener(address: Address, transport: str, stop: Stop) -> Feed:
        probe = Probe(session, clock)
        answers.extend([probe.after(OPEN_S - 1), probe.after(OPEN_S)])
        raise errors.InvalidURL

    session = Session(settings(), opener=opener, clock=clock)
    session.run()
    assert answers == ["", "timeout"]


def test_a_camera_that_hangs_before_its_first_packet_is_overdue_as_a_timeout() -> None:
    assert hung_at(SCENE, packet=0) == {OPEN_S - 1: "", OPEN_S: "timeout"}


def test_a_camera_that_hangs_after_a_packet_is_overdue_as_stalled() -> None:
    limit_s = PATIENCE_S + HANG_S
    assert hung_at(SCENE, packet=7) == {limit_s - 1: "", limit_s: "stalled"}


def hung_at(scene: Scene, packet: int) -> dict[float, str]:
    """What overdue() says while the feed waits for its packet of this number."""
    clock = FakeClock()
    answers: dict[float, str] = {}
    feed = ClipFeed(scene, errors.InvalidURL())
    session = Session(settings(), opener=lambda *_: feed, clock=clock)
    limit_s = OPEN_S if packet == 0 else PATIENCE_S + HANG_S

    def packets() -> Iterator[Packet]:
        for number, each in enumerate(packets_of(scene)):
            if number == packet:
                probe = Probe(session, clock)
                answers.update({seconds: probe.after(seconds) for seconds in (limit_s - 1, limit_s)})
            yield each

    feed.shown = packets()
    session.run()
    return answers


@pytest.mark.parametrize(("ending", "said"), [(errors.InvalidURL(), "invalid_url"), (None, "closed")])
def test_a_camera_that_hangs_at_the_farewell_is_overdue_too(ending: CaptureError | None, said: str) -> None:
    """And what was wrong before that is what is wrong."""
    clock = FakeClock()
    answers: list[str] = []

    class Clinging(ClipFeed):
        def __exit__(self, *_: object) -> None:
            answers.append(Probe(session, clock).after(60))
            session.stop.set()

    session = Session(settings(), opener=lambda *_: Clinging(SCENE, ending), clock=clock)
    session.run()
    assert answers == [said]


def test_nobody_is_overdue_while_waiting_for_the_next_attempt() -> None:
    answers: list[str] = []
    clock = FakeClock()
    session = Session(settings(), opener=refusing(errors.AuthRefused()), clock=clock)

    def on_wait(stop: threading.Event, seconds: float) -> bool:
        answers.append(Probe(session, clock).after(10_000))
        stop.set()
        return True

    clock.wait = on_wait  # type: ignore[method-assign]
    session.run()
    assert answers == [""]


def test_a_failure_from_outside_shows_in_the_status() -> None:
    session = Session(settings(), opener=refusing(errors.Unreachable()), clock=FakeClock())
    session.fail(errors.Stalled())
    status = session.report(is_final=True).status
    assert (status.state, status.error_code, status.attempt) == (State.RECONNECTING, "stalled", 1)


# --- what FIELD.md asks for ---


def picture_digest(jpeg: bytes) -> str:
    return hashlib.sha256(np.ascontiguousarray(decode_jpeg(jpeg)).tobytes()).hexdigest()


def test_a_camera_that_changes_its_size_gives_pictures_of_both() -> None:
    """FIELD 19: within one connection."""
    feed = Spliced(SCENE, replace(SCENE, width=160, height=120))
    report = play(lambda: feed).reports[-2]
    assert report.counters.connections == 1
    assert {(one.width, one.height) for one in report.fresh} == {(320, 240), (160, 120)}


class Spliced(ClipFeed):
    """One connection whose video becomes another one's in the middle."""

    def __init__(self, first: Scene, second: Scene) -> None:
        super().__init__(first)
        self.shown = [*packets_of(first), *(later(packet, len(PLAN)) for packet in packets_of(second))]
