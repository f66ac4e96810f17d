"""Each fault as libav meets it: the exception, or the frames. The engine maps errors by this table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest

from tests.camera.at_once import at_once
from tests.camera.clip import Scene
from tests.camera.faults import FAULTS
from tests.camera.server import ScriptedCamera
from tests.camera.viewer import PlainClient, View, view, wait_until

SCENE = Scene(320, 240, (40, 200, 90, 120), fps=50, gop_s=0.2)
GRAINY = replace(SCENE, width=640, height=480, noise=4)
STEP_TICKS = 1800
IMPATIENT = {"timeout": "400000"}  # microseconds; where a timeout is what comes
BY_UDP = {"rtsp_transport": "udp"}


@dataclass(frozen=True, slots=True)
class Case:
    """`error` is what libav's open or read raises; `shows` holds for what was seen up to there."""

    fault: str
    error: str = ""
    shows: Callable[[View], bool] = lambda seen: len(seen.glimpses) == 0
    scene: Scene = SCENE
    frames: int = 15
    options: Mapping[str, str] = field(default_factory=dict)


def plays(seen: View) -> bool:
    return len(seen.glimpses) >= 15 and None not in seen.seconds and seen.steps_ticks == {STEP_TICKS}


def ends_early(seen: View) -> bool:
    return 0 < len(seen.glimpses) <= 15 and seen.seconds == [0]


def is_still(seen: View) -> bool:
    return len({glimpse.digest for glimpse in seen.glimpses}) == 1


def freezes_after_ten(seen: View) -> bool:
    return len({glimpse.digest for glimpse in seen.glimpses}) == 11


def shrinks(seen: View) -> bool:
    return {glimpse.size_px for glimpse in seen.glimpses} == {(320, 240), (160, 120)}


def has_one_key_frame(seen: View) -> bool:
    return [glimpse.is_key for glimpse in seen.glimpses].count(True) == 1


def starts_with_a_later_key_frame(seen: View) -> bool:
    return seen.glimpses[0].is_key and (seen.glimpses[0].pts_ticks or 0) > 0


def misses_frames_unnoticed(seen: View) -> bool:
    """A packet that was a whole frame leaves no flag: only the timestamps show it."""
    return not is_tainted(seen) and 2 * STEP_TICKS in seen.steps_ticks


def is_tainted(seen: View) -> bool:
    return any(glimpse.is_corrupt for glimpse in seen.glimpses)


def steps(*ticks: int) -> Callable[[View], bool]:
    return lambda seen: seen.steps_ticks == set(ticks)


CASES = [
    Case("auth_refused", "HTTPUnauthorizedError"),
    Case("forbidden", "HTTPForbiddenError"),
    Case("not_found", "HTTPNotFoundError"),
    Case("full", "HTTPOtherClientError"),
    Case("unavailable", "HTTPServerError"),
    Case("describe_status:400", "HTTPBadRequestError"),
    Case("describe_status:454", "HTTPOtherClientError"),
    Case("describe_status:0", "InvalidDataError", options=IMPATIENT),
    Case("setup_status:500", "HTTPServerError"),
    Case("setup_status:0", "InvalidDataError", options=IMPATIENT),
    Case("play_status:453", "HTTPOtherClientError"),
    Case("play_status:0", "PermissionError", options=IMPATIENT),
    Case("no_tcp", "OSError"),
    Case("no_tcp", shows=plays, options=BY_UDP),
    Case("no_udp", "OSError", options=BY_UDP),
    Case("no_udp", shows=plays),
    Case("redirect", "ConnectionRefusedError"),
    Case("refuses", "ConnectionRefusedError"),
    Case("silent", "InvalidDataError", options=IMPATIENT),
    Case("not_rtsp", "InvalidDataError"),
    Case("slow_answers:0.05", shows=plays),
    Case("silent_play", "TimeoutError", options=IMPATIENT),
    Case("stall_after:0.3", "TimeoutError", ends_early, frames=99, options={"timeout": "1500000"}),
    Case("close_after:0.3", shows=ends_early, frames=99),
    Case("reset_after:0.3", shows=ends_early, frames=99),
    Case("bye_after:0.3", shows=ends_early, frames=99),
    # libav reads RTCP first: a goodbye that overtakes a key frame leaves parameter sets alone.
    Case("bye_after:0.3", shows=ends_early, frames=99, options=BY_UDP, scene=replace(SCENE, gop_s=4)),
    Case("session_timeout:9", shows=plays),
    Case("audio_only", "IndexError"),
    Case("audio_only", "HTTPOtherClientError", options={"allowed_media_types": "video"}),
    Case("audio_too", shows=lambda seen: seen.seconds == [0]),
    Case("audio_never_sent", shows=lambda seen: seen.seconds == [0], options={"analyzeduration": "300000"}),
    Case("audio_never_sent", shows=plays, options={"allowed_media_types": "video"}),
    Case("no_media", "HTTPOtherClientError"),
    Case("unknown_codec", "DecoderNotFoundError", options={"analyzeduration": "300000"}),
    Case("no_sprop", shows=plays),
    Case("bare_newlines", shows=plays),
    Case("junk_lines", shows=plays),
    Case("sloppy", shows=plays),
    Case("mid_gop:0.1", shows=starts_with_a_later_key_frame),
    Case("lost_packets:97", shows=is_tainted, scene=GRAINY),
    Case("lost_packets:10", shows=misses_frames_unnoticed),
    Case("damaged:97", shows=is_tainted, scene=GRAINY),
    Case("damaged:1", "InvalidDataError", lambda seen: set(seen.seconds) <= {None}, scene=GRAINY),
    Case("frozen", shows=is_still, frames=30),
    Case("frozen:0.2", shows=freezes_after_ten, frames=20),
    Case("smaller:0.2", shows=shrinks),
    Case("one_key_frame", shows=has_one_key_frame, frames=30),
    Case("intra_refresh", shows=has_one_key_frame, frames=30),
    Case("no_timestamps", shows=steps(0)),
    Case("stuck_timestamps:0.2", shows=steps(STEP_TICKS, 0)),
    Case("jumping_timestamps:10", shows=steps(STEP_TICKS, 901_800), frames=60),
    Case("backward_timestamps:-10", shows=steps(STEP_TICKS, -898_200), frames=60),
    Case("fast_timestamps:4", shows=steps(4 * STEP_TICKS)),
    Case("slow_timestamps:0.5", shows=steps(STEP_TICKS // 2)),
    Case("bursts:1", shows=plays),
    Case("rush:4", shows=plays),
]


@at_once((case,) for case in CASES)
def test_a_fault_is_met_as_the_table_says(case: Case) -> None:
    with ScriptedCamera(case.scene, fault=case.fault) as camera:
        try:
            seen = view(camera.url, case.frames, **case.options)
        except IndexError:  # PyAV's, where there is no video stream
            seen = View((), "IndexError")
    assert (seen.error, case.shows(seen)) == (case.error, True), seen


def test_the_table_has_each_fault() -> None:
    assert {case.fault.partition(":")[0] for case in CASES} == set(FAULTS)


def test_a_reset_is_a_reset() -> None:
    with ScriptedCamera(SCENE, fault="reset_after:0.2") as camera, PlainClient(camera.url) as client:
        client.play()
        with pytest.raises(ConnectionResetError):
            client.read_all()


def test_a_close_is_not_a_reset() -> None:
    with ScriptedCamera(SCENE, fault="close_after:0.2") as camera, PlainClient(camera.url) as client:
        client.play()
        assert client.read_all()
        wait_until(lambda: camera.clients == 0)


def test_a_goodbye_is_said_by_rtcp() -> None:
    with ScriptedCamera(SCENE, fault="bye_after:0.1") as camera, PlainClient(camera.url) as client:
        client.play()
        # A report, two parameter sets, five frames, the goodbye.
        packets = [client.packet() for _ in range(9)]
        kinds = [packet[1] for channel, packet in packets if channel == 1]
        assert kinds == [200, 201]
        assert packets[-1][1][9] == 203
        assert client.ask("GET_PARAMETER")[0] == 200


def test_a_session_without_requests_ends() -> None:
    with ScriptedCamera(SCENE, fault="session_timeout:0.3") as camera, PlainClient(camera.url) as client:
        client.play()
        client.read_all()
        wait_until(lambda: camera.clients == 0)


def test_libav_keeps_a_session_alive_by_requests() -> None:
    with ScriptedCamera(SCENE, session_timeout_s=2) as camera:
        assert plays(view(camera.url, 120))
        assert "GET_PARAMETER" in {one.method for one in camera.requests}


def test_libav_follows_a_redirect_and_takes_the_password_along() -> None:
    """Why the engine must not let libav meet a redirect: it is Basic credentials that go there."""
    with (
        ScriptedCamera(SCENE, host="127.0.0.2", path="trap") as trap,
        ScriptedCamera(SCENE, username="user", password="word", auth="basic") as camera,
    ):
        camera.fault = f"redirect:{trap.url}"
        assert view(camera.url_with_credentials).seconds == [0]
        assert trap.requests[0].has_authorization
