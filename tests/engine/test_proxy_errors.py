"""Each error that a line can cause, between a session and GStreamer's server; and that sampling goes on after it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.engine import feed, rtsp
from streams.engine.notices import Notice
from streams.engine.report import State
from tests.camera.clip import Scene
from tests.camera.faults import Door, End
from tests.camera.gst import GstServer
from tests.camera.proxy import Proxy, Trouble

from .capturing import FastClock, capturing

SCENE = Scene(320, 240, (40, 90, 60, 120, 80, 200, 70, 110) * 4, fps=25, gop_s=0.4, noise=4.0)
Mp4 = Callable[[Scene], Path]


@pytest.fixture(scope="module")
def server(mp4: Mp4) -> Iterator[GstServer]:
    with GstServer({"demo": mp4(SCENE)}) as server:
        yield server


@pytest.fixture
def proxy(server: GstServer) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


LIMITS = {
    "timeout": [(rtsp, "SOCKET_TIMEOUT_S"), (rtsp, "ANSWER_S"), (feed, "FIRST_PACKET_S")],
    "stalled": [(feed, "SILENCE_S")],
}


@pytest.fixture
def is_impatient(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """The limits whose error is expected are a second: where a loaded machine takes longer it comes twice."""
    for module, name in LIMITS.get(code, []):
        monkeypatch.setattr(module, name, 1.0)


# --- at the door ---

AT_THE_DOOR = [
    pytest.param(Trouble(door=Door.REFUSES), "unreachable", id="refused"),
    pytest.param(Trouble(door=Door.SILENT), "timeout", id="silent"),
    pytest.param(Trouble(door=Door.HTTP), "not_rtsp", id="another protocol"),
    pytest.param(Trouble(end=End.STALL, after_bytes=300), "timeout", id="half an answer"),
    pytest.param(Trouble(end=End.CLOSE, after_bytes=0), "closed", id="closed at once"),
    pytest.param(Trouble(end=End.CLOSE, after_bytes=300), "closed", id="closed in an answer"),
    pytest.param(Trouble(end=End.RESET, after_bytes=300), "closed", id="reset in an answer"),
]


@pytest.mark.usefixtures("is_impatient")
@pytest.mark.parametrize(("trouble", "code"), AT_THE_DOOR)
def test_a_camera_that_cannot_be_had_is_captured_as_soon_as_it_can(proxy: Proxy, trouble: Trouble, code: str) -> None:
    proxy.trouble = trouble
    with capturing(proxy.url("demo")) as capture:
        assert capture.until_failed() == code
        assert capture.samples == 0
        proxy.trouble = None
        report = capture.until_it_goes_on()
    assert set(capture.codes) == {code}
    assert (report.status.error_code, report.status.next_attempt_at) == ("", None)


@pytest.mark.parametrize("end", [End.STALL, End.CLOSE], ids=str)
def test_where_no_packet_comes_by_tcp_udp_is_taken(end: End, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server sends its datagrams past the proxy."""
    monkeypatch.setattr(feed, "FIRST_PACKET_S", 1.0)
    proxy.trouble = Trouble(end=end)
    with capturing(proxy.url("demo")) as capture:
        report = capture.until(lambda report: report.counters.samples >= 3)
    assert (capture.codes, report.status.notices) == ([], (Notice.OTHER_TRANSPORT,))


@pytest.mark.parametrize(
    ("trouble", "code"),
    [(Trouble(door=Door.REFUSES), "unreachable"), (Trouble(door=Door.HTTP), "not_rtsp")],
    ids=["refused", "another protocol"],
)
def test_a_camera_that_was_there_before_comes_back(proxy: Proxy, trouble: Trouble, code: str) -> None:
    with capturing(proxy.url("demo")) as capture:
        capture.until_it_goes_on()
        proxy.trouble = trouble
        proxy.cut()
        assert [capture.until_failed() for _ in range(2)] == ["closed", code]
        proxy.trouble = None
        assert capture.until_it_goes_on().counters.connections >= 2
    assert set(capture.codes) == {"closed", code}


# --- while it is watched ---


@pytest.mark.usefixtures("is_impatient")
@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        pytest.param(Trouble(end=End.STALL, after_packets=20), "stalled", id="stall"),
        pytest.param(Trouble(end=End.STALL, after_packets=20, splits_packet=True), "stalled", id="stall in a packet"),
        pytest.param(Trouble(end=End.CLOSE, after_packets=20), "closed", id="close"),
        pytest.param(Trouble(end=End.RESET, after_packets=20), "closed", id="reset"),
        pytest.param(Trouble(end=End.CLOSE, after_packets=20, splits_packet=True), "closed", id="close in a packet"),
        pytest.param(Trouble(end=End.RESET, after_packets=20, splits_packet=True), "closed", id="reset in a packet"),
    ],
)
def test_a_line_that_ends_is_named_and_taken_up_again(proxy: Proxy, trouble: Trouble, code: str) -> None:
    with capturing(proxy.url("demo")) as capture:
        board = capture.until_it_goes_on().board
        proxy.trouble = trouble
        assert capture.until_failed() == code
        proxy.trouble = None
        report = capture.until_it_goes_on()
    assert report.counters.connections >= 2
    assert set(capture.codes) == {code}
    # what was captured before is not forgotten, only beaten
    assert {number for number, _ in report.board} >= {number for number, _ in board} or len(report.board) == 9


def test_nothing_whole_for_half_a_minute_is_undecodable(proxy: Proxy) -> None:
    """Ten times faster by the session's clock. A byte in each packet: no key frame of 8 packets stays whole."""
    proxy.trouble = Trouble(damages_each=1)
    with capturing(proxy.url("demo"), clock=FastClock(10)) as capture:
        assert capture.until_failed() == "undecodable"
        assert capture.samples == 0
        proxy.trouble = None
        capture.until_it_goes_on()


@pytest.mark.parametrize("with_reset", [False, True], ids=["close", "reset"])
def test_a_line_that_is_cut_again_and_again_is_taken_up_each_time(proxy: Proxy, with_reset: bool) -> None:
    with capturing(proxy.url("demo")) as capture:
        for cuts in range(1, 6):
            report = capture.until_it_goes_on()
            assert report.counters.connections == cuts
            proxy.cut(with_reset=with_reset)
            assert capture.until_failed() == "closed"
        capture.until_it_goes_on()
    assert capture.codes == ["closed"] * 5


# --- no error ---


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(Trouble(segment_bytes=50), id="tiny segments"),
        pytest.param(Trouble(delay_s=0.3), id="delay"),
        pytest.param(Trouble(jitter_s=0.3), id="jitter"),
    ],
)
def test_a_line_that_is_only_slow_is_no_trouble(proxy: Proxy, trouble: Trouble) -> None:
    proxy.trouble = trouble
    with capturing(proxy.url("demo")) as capture:
        report = capture.until(lambda report: report.counters.samples >= 8)
    assert (capture.codes, report.counters.connections, report.counters.rejected) == ([], 1, 0)


def test_a_short_stall_ends_no_connection(proxy: Proxy) -> None:
    """What was swallowed in the meantime is lost, as with a camera behind a bad wireless link."""
    with capturing(proxy.url("demo")) as capture:
        capture.until_it_goes_on()
        proxy.trouble = Trouble(end=End.STALL)
        swallowed = capture.samples
        proxy.trouble = None
        capture.until(lambda report: report.counters.samples > swallowed + 5)
    assert (capture.codes, capture.report.counters.connections) == ([], 1)


def test_lost_packets_are_no_error_but_their_frames_are_rejected(proxy: Proxy) -> None:
    proxy.trouble = Trouble(drops_each=50)
    with capturing(proxy.url("demo"), interval_s=0.04) as capture:
        report = capture.until(lambda report: report.counters.samples >= 10 and report.counters.rejected > 0)
    assert proxy.dropped > 0
    assert (capture.codes, report.status.state) == ([], State.CAPTURING)
