"""Names: looked up once for each connection, every answer checked, and no other address asked for anything."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from streams.engine import errors, rtsp
from streams.engine.address import Address, parse, parse_networks
from streams.engine.clock import Stop
from streams.engine.dialogue import Caution
from streams.engine.report import State
from streams.engine.resolver import resolve
from streams.engine.rtsp import open_session
from tests.camera.clip import Scene
from tests.camera.proxy import Proxy
from tests.camera.server import ScriptedCamera

from .capturing import capturing
from .network import Names, watched
from .odd_camera import SDP, OddCamera, Request, Say, answer

SCENE = Scene(320, 240, (40, 200, 90, 120), fps=50, gop_s=0.2)
METADATA = "169.254.169.254"
LONG_S = 60.0

Naming = Callable[..., Names]


@pytest.fixture(scope="module")
def server() -> Iterator[Names]:
    names = Names()
    yield names
    names.close()


@pytest.fixture
def stop() -> Stop:
    return Stop()


@pytest.fixture
def naming(server: Names, monkeypatch: pytest.MonkeyPatch) -> Naming:
    """Look-ups of this process go to a DNS server that gives these answers."""

    def answer_with(**answers: list[list[str]]) -> Names:
        server.asked.clear()
        server.answers = {name.replace("_", "."): queue for name, queue in answers.items()}
        monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
        return server

    return answer_with


def named(url: str, name: str = "camera.example") -> Address:
    return replace(parse(url), host=name)


def away(elsewhere: str) -> dict[str, Say]:
    """A camera that names another host wherever it can."""
    sdp = SDP.replace(b"v=0\r\n", f"v=0\r\nc=IN IP4 {elsewhere}\r\na=control:rtsp://{elsewhere}/live/\r\n".encode())
    sdp = sdp.replace(b"a=control:track1", f"a=control:rtsp://{elsewhere}/live/track1".encode())

    def describe(request: Request) -> bytes | None:
        return answer(request, body=sdp, Content_Type="application/sdp", Content_Base=f"rtsp://{elsewhere}/live/")

    def set_up(request: Request) -> bytes | None:
        transport = f"{request.headers['transport']};source={elsewhere};destination={elsewhere};server_port=9-10"
        return answer(request, Session="5E55;timeout=1", Transport=transport)

    def play(request: Request) -> bytes | None:
        return answer(request, Session="5E55", RTP_Info=f"url=rtsp://{elsewhere}/live/track1;seq=1;rtptime=1")

    return {"DESCRIBE": describe, "SETUP": set_up, "PLAY": play}


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_what_a_camera_says_of_other_hosts_sends_nothing_there(
    transport: str, monkeypatch: pytest.MonkeyPatch, stop: Stop
) -> None:
    """Bases, control URLs, RTP-Info, and source and destination of the transport: names at best, never addresses."""
    monkeypatch.setattr(rtsp, "MIN_KEEPALIVE_S", 0.1)
    monkeypatch.setattr(rtsp, "REPORT_S", 0.05)
    with (
        OddCamera(host="127.0.0.2") as other,
        OddCamera(on=away(other.authority)) as camera,
        watched() as traffic,
        open_session(named(camera.url, "localhost"), transport, stop) as session,
    ):
        while "GET_PARAMETER" not in camera.methods:
            session.receive(0.1)
    assert traffic.looked_up == ["localhost"]
    assert traffic.hosts - {"::1"} == {"127.0.0.1"}
    assert other.connections == 0


def test_a_name_that_changes_its_answer_is_refused_at_the_next_connection(naming: Naming, stop: Stop) -> None:
    names = naming(camera_example=[["127.0.0.1"], [METADATA]])
    with OddCamera() as camera:
        open_session(named(camera.url), "tcp", stop).close()
        with watched() as traffic, pytest.raises(errors.AddressRefused, match=METADATA):
            open_session(named(camera.url), "tcp", stop)
        assert camera.connections == 1
    assert METADATA not in traffic.hosts
    assert names.asked == {"camera.example": 2}


def test_a_capture_waits_until_its_name_is_a_camera_s_again(naming: Naming) -> None:
    good, bad = ["127.0.0.1"], [METADATA]
    names = naming(camera_example=[good, bad, bad, good])
    with ScriptedCamera(SCENE) as camera, Proxy(camera.port) as proxy:
        with capturing(f"rtsp://camera.example:{proxy.port}/demo") as capture:
            capture.until(lambda report: report.counters.samples > 0)
            proxy.cut()
            capture.until_it_goes_on()
        refused = [status for status in capture.statuses if status.error_code == "address_refused"]
        assert [(status.state, status.attempt) for status in refused] == [
            (State.RECONNECTING, 1), (State.RECONNECTING, 2),
        ]  # fmt: skip
        assert proxy.connections == 2
    assert names.asked == {"camera.example": 4}


@pytest.mark.parametrize(
    "ips",
    [
        ["127.0.0.1", METADATA],
        [METADATA, "127.0.0.1"],
        ["127.0.0.1", "fe80::1"],
        ["127.0.0.1", f"::ffff:{METADATA}"],
        ["127.0.0.1", "64:ff9b::a9fe:a9fe"],
        ["0.0.0.0"],
        ["127.0.0.1"] * 40 + [METADATA],
    ],
    ids=lambda ips: f"{len(ips)} {ips[-1]}",
)
def test_one_answer_that_is_refused_is_enough(ips: list[str], naming: Naming, stop: Stop) -> None:
    naming(camera_example=[ips])
    with OddCamera() as camera, watched() as traffic, pytest.raises(errors.AddressRefused):
        open_session(named(camera.url), "tcp", stop)
    assert (camera.connections, traffic.hosts - {"127.0.0.1"}) == (0, set())


@pytest.mark.parametrize(("networks", "is_allowed"), [("127.0.0.0/8", True), ("10.0.0.0/8", False), ("::/0", False)])
def test_what_a_name_resolves_to_has_to_be_in_the_allowed_networks(
    networks: str, is_allowed: bool, naming: Naming, stop: Stop
) -> None:
    naming(camera_example=[["127.0.0.1", "::ffff:127.0.0.1"]])
    caution = Caution(parse_networks(networks))
    with OddCamera() as camera:
        if is_allowed:
            open_session(named(camera.url), "tcp", stop, caution).close()
        else:
            with pytest.raises(errors.AddressRefused, match="CAPTURE_ALLOWED_NETWORKS"):
                open_session(named(camera.url), "tcp", stop, caution)
    assert camera.connections == is_allowed


@pytest.mark.parametrize(
    "host", ["0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "169.16689662", "127.1", "0", "camera.1"]
)
def test_a_number_is_not_looked_up(host: str, naming: Naming) -> None:
    """Resolvers take them for addresses, and not all of them for the same ones."""
    names = naming()
    with pytest.raises(errors.AddressRefused, match="four decimal numbers"):
        resolve(parse(f"rtsp://{host}/x"))
    assert names.asked == {}


def test_an_address_is_what_it_says(naming: Naming) -> None:
    names = naming()
    assert resolve(parse("rtsp://127.0.0.2/x")) == ["127.0.0.2"]
    assert resolve(parse("rtsp://[::1]/x")) == ["::1"]
    assert names.asked == {}


def test_all_answers_are_given_once_each(naming: Naming) -> None:
    naming(camera_example=[["192.0.2.1", "2001:db8::1", "192.0.2.1"]])
    assert resolve(parse("rtsp://camera.example/x")) == ["192.0.2.1", "2001:db8::1"]


def test_no_answer_is_unreachable(naming: Naming) -> None:
    naming()
    with pytest.raises(errors.Unreachable, match=r"nobody\.example"):
        resolve(parse("rtsp://me:word@nobody.example/x"))
