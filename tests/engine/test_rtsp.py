"""One RTSP session: against the scripted camera, GStreamer's server, and cameras that say odd bytes."""

import contextlib
import gc
import hashlib
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.engine import carrier, dialogue, errors, rtsp
from streams.engine.address import Address, parse, parse_networks
from streams.engine.clock import Stop, Stopped
from streams.engine.connection import Datagrams
from streams.engine.dialogue import Caution
from streams.engine.errors import CaptureError
from streams.engine.quirks import Quirks
from streams.engine.rtsp import RTSPSession, open_session
from tests.camera import rtp as camera_rtp
from tests.camera.auth import Scheme
from tests.camera.clip import Clip, Codec, Scene, encode
from tests.camera.gst import GstServer
from tests.camera.server import ScriptedCamera
from tests.camera.viewer import wait_until

from .odd_camera import SDP, OddCamera, Request, Say, answer, digest_fields, framed, plain, rtp

SCENE = Scene(320, 240, (40, 200, 90, 120), fps=50, gop_s=0.2)
HARD = "p@s/w:r%d? ö日"
PLAIN = "S3cret-W0rd"
LONG_S = 60.0  # for what comes at once, on a loaded machine
ENOUGH = 25
MEDIA = b"m=video 0 RTP/AVP 96"


@pytest.fixture
def stop() -> Stop:
    return Stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtsp, "SOCKET_TIMEOUT_S", 0.5)
    monkeypatch.setattr(rtsp, "ANSWER_S", 0.5)


def address_of(camera: ScriptedCamera | OddCamera, username: str | None = None, password: str = HARD) -> Address:
    return replace(parse(camera.url), username=username, password=username and password)


def collect(session: RTSPSession, count: int = ENOUGH) -> list[bytes]:
    """Copies; fewer only if none come for long."""
    packets: list[bytes] = []
    while len(packets) < count and (received := session.receive(LONG_S)):
        packets += map(bytes, received)
    return packets


def failure(address: Address, stop: Stop, transport: str = "tcp", wait_s: float = LONG_S) -> CaptureError:
    """Of opening, or of receiving until it ends."""
    with pytest.raises(CaptureError) as caught:
        receive_to_the_end(address, stop, transport, wait_s)
    return caught.value


def receive_to_the_end(address: Address, stop: Stop, transport: str = "tcp", wait_s: float = LONG_S) -> None:
    """Or until nothing has come for so long."""
    with open_session(address, transport, stop) as session:
        while session.receive(wait_s):
            pass


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


def assert_is_secret(text: str) -> None:
    assert not [form for form in (HARD, quote(HARD, safe=""), quote(HARD)) if form in text], text


# --- playing ---


def expected_payloads(clip: Clip) -> list[bytes]:
    return [part for unit in clip.units for part in camera_rtp.payloads(clip.scene.codec, unit)]


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4", "mjpeg"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_each_packet_comes_once_in_order_and_whole(codec: Codec, transport: str, stop: Stop) -> None:
    clip = encode(replace(SCENE, codec=codec))
    with ScriptedCamera(clip) as camera, open_session(address_of(camera), transport, stop) as session:
        packets = collect(session)
        assert session.peer == "127.0.0.1"
        assert session.track.payload_type == packets[0][1] & 0x7F
    assert [packet[12:] for packet in packets] == expected_payloads(clip)[: len(packets)]
    assert len(packets) >= ENOUGH


@pytest.fixture(scope="module")
def film(mp4: Callable[[Scene], Path]) -> Path:
    return mp4(SCENE)


AUTHS: list[tuple[str | None, Scheme]] = [(None, "digest"), ("user", "digest"), ("user", "basic")]


@pytest.mark.parametrize(("username", "auth"), AUTHS)
def test_gstreamer_is_understood(film: Path, username: str | None, auth: Scheme, stop: Stop) -> None:
    with GstServer({"demo": film}, username, username and "pa ss", auth) as server:
        address = parse(server.url_with_credentials("demo") if username else server.url("demo"))
        for transport in ("tcp", "udp"):
            with open_session(address, transport, stop) as session:
                packets = collect(session)
            assert session.track.encoding == "H264"
            assert {packet[0] >> 6 for packet in packets} == {2}
            assert {packet[1] & 0x7F for packet in packets} == {session.track.payload_type}
            numbers = [int.from_bytes(packet[2:4]) for packet in packets]
            assert all((b - a) % 65536 == 1 for a, b in pairwise(numbers))
            assert len(packets) >= ENOUGH


def test_a_wrong_password_is_refused_by_gstreamer(film: Path, stop: Stop) -> None:
    with GstServer({"demo": film}, "user", "right") as server:
        error = failure(replace(parse(server.url("demo")), username="user", password=HARD), stop)
    assert type(error) is errors.AuthRefused
    assert_is_secret(told(error))


# --- each fault ---


@dataclass(frozen=True, slots=True)
class Case:
    fault: str
    error: type[CaptureError]
    transport: str = "tcp"


CASES = [
    Case("auth_refused", errors.AuthRefused),
    Case("forbidden", errors.AuthRefused),
    Case("not_found", errors.NotFound),
    Case("full", errors.CameraFull),
    Case("unavailable", errors.CameraFull),
    Case("describe_status:400", errors.Refused),
    Case("describe_status:500", errors.Refused),
    Case("describe_status:0", errors.ConnectTimeout),
    Case("setup_status:0", errors.TransportRefused),
    Case("play_status:401", errors.AuthRefused),
    Case("play_status:453", errors.CameraFull),
    Case("play_status:454", errors.Refused),
    Case("play_status:0", errors.TransportRefused),
    Case("no_tcp", errors.TransportRefused),
    Case("no_udp", errors.TransportRefused, "udp"),
    Case("redirect", errors.AddressRefused),
    Case("redirect:rtsp://127.0.0.1:9/x", errors.AddressRefused),
    Case("redirect:nonsense", errors.AddressRefused),
    Case("refuses", errors.Unreachable),
    Case("silent", errors.ConnectTimeout),
    Case("not_rtsp", errors.NotRTSP),
    Case("close_after:0.2", errors.Closed),
    Case("reset_after:0.2", errors.Closed),
    Case("bye_after:0.2", errors.Closed),
    Case("bye_after:0.2", errors.Closed, "udp"),
    Case("audio_only", errors.NoVideo),
    Case("no_media", errors.NoVideo),
]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.fault}-{case.transport}")
def test_each_fault_is_the_right_error_and_leaves_nothing_behind(case: Case, stop: Stop) -> None:
    with ScriptedCamera(SCENE, fault=case.fault, username="user", password=HARD) as camera:
        error = failure(address_of(camera, "user"), stop, case.transport)
        wait_until(lambda: camera.clients == 0)
    assert type(error) is case.error, told(error)
    assert_is_secret(told(error))


def test_a_refusal_says_what_was_refused(stop: Stop) -> None:
    with ScriptedCamera(SCENE, fault="setup_status:406") as camera:
        assert "SETUP" in str(error := failure(address_of(camera), stop))
    assert "406" in str(error)


@pytest.mark.parametrize("fault", ["silent_play", "stall_after:0.1"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_silence_is_no_error_of_the_session(fault: str, transport: str, stop: Stop) -> None:
    """How long is too long the feed decides."""
    with ScriptedCamera(SCENE, fault=fault) as camera, open_session(address_of(camera), transport, stop) as session:
        while session.receive(0.5):
            pass
        assert session.receive(0) == []
        session.close()
        wait_until(lambda: (camera.teardowns, camera.clients) == (1, 0))


PLAYING = ["slow_answers:0.05", "audio_too", "audio_never_sent", "no_sprop", "bare_newlines", "junk_lines", "sloppy"]


@pytest.mark.parametrize("fault", [*PLAYING, "unknown_codec", "bursts:0.5"])
def test_a_camera_that_is_merely_odd_is_received(fault: str, stop: Stop) -> None:
    with ScriptedCamera(SCENE, fault=fault) as camera, open_session(address_of(camera), "tcp", stop) as session:
        packets = collect(session)
    assert len(packets) >= ENOUGH
    assert {packet[1] & 0x7F for packet in packets} == {96}  # no sound among them


# --- where to connect ---


def test_of_several_addresses_the_one_that_answers_is_used(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    with OddCamera(host="127.0.0.3") as camera:
        monkeypatch.setattr(rtsp, "resolve", lambda *_: ["127.0.0.2", "::1", "127.0.0.3", "127.0.0.4"])
        with open_session(replace(parse(camera.url), host="camera.example"), "tcp", stop) as session:
            assert session.peer == "127.0.0.3"
    assert camera.requests[0].url == f"rtsp://camera.example:{camera.port}/live"


def test_a_name_is_resolved_once(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    """A second answer could be an address that was never checked."""
    monkeypatch.setattr(socket, "getaddrinfo", resolved := Resolver(socket.getaddrinfo))
    with ScriptedCamera(SCENE) as camera:
        address = replace(address_of(camera), host="localhost")
        with open_session(address, "tcp", stop) as session:
            assert collect(session, 1)
    assert resolved.count == 1


class Resolver:
    """Counts, and answers with IPv4 alone: that is where the camera is."""

    def __init__(self, real: Callable[..., object]) -> None:
        self._real = real
        self.count = 0

    def __call__(self, host: str, port: int, **_: object) -> object:
        self.count += 1
        return self._real(host, port, family=socket.AF_INET, type=socket.SOCK_STREAM)


def test_no_connection_is_made_to_a_refused_address(stop: Stop) -> None:
    with pytest.raises(errors.AddressRefused):
        open_session(parse("rtsp://me:word@169.254.169.254/x"), "tcp", stop)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_ipv6_is_spoken(transport: str, stop: Stop) -> None:
    with OddCamera(host="::1") as camera, open_session(address_of(camera), transport, stop) as session:
        assert session.peer == "::1"
    assert camera.requests[0].url == f"rtsp://[::1]:{camera.port}/live"


# --- who may watch ---

PASSWORDS = [f"a{character}b" for character in "@#/:%!?&=+ \"\\,;'$ö日"] + [HARD, "%41", ":", "@", ""]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_any_password_opens_a_camera(password: str, auth: Scheme, stop: Stop) -> None:
    with (
        ScriptedCamera(SCENE, username="user", password=password, auth=auth) as camera,
        open_session(address_of(camera, "user", password), "tcp", stop) as session,
    ):
        assert collect(session, 1)


@pytest.mark.parametrize(("auth", "has_qop"), [("basic", False), ("digest", False), ("digest", True)])
@pytest.mark.parametrize("username", ["user", HARD.replace(":", "")])
def test_basic_and_digest_are_spoken(auth: Scheme, has_qop: bool, username: str, stop: Stop) -> None:
    with ScriptedCamera(SCENE, username=username, password=HARD, auth=auth, has_qop=has_qop) as camera:
        with open_session(address_of(camera, username), "tcp", stop) as session:
            assert collect(session, 1)
        wait_until(lambda: camera.teardowns == 1)


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_a_wrong_password_is_tried_once_for_each_connection(auth: Scheme, stop: Stop) -> None:
    with ScriptedCamera(SCENE, username="user", password="right", auth=auth) as camera:
        assert type(failure(address_of(camera, "user", "wrong"), stop)) is errors.AuthRefused
        assert sum(request.has_authorization for request in camera.requests) == 1
        assert camera.connections == 1


def test_no_password_where_one_is_needed_is_refused_as_a_wrong_one_is(stop: Stop) -> None:
    with ScriptedCamera(SCENE, username="user", password=HARD) as camera:
        assert type(failure(address_of(camera), stop)) is errors.AuthRefused
        assert not any(request.has_authorization for request in camera.requests)


@dataclass
class Lock:
    """Asks for Digest, `refusals` times at least, before `plain` answers; a nonce is good for `uses` requests."""

    uses: int = 1000
    refusals: int = 1
    stale: str = ""
    name: str = "n"
    refused: int = 0
    _used: int = 0

    def __call__(self, request: Request) -> bytes | None:
        if self.refused >= self.refusals and self._used < self.uses and self._is_right(request):
            self._used += 1
            return plain(request)
        self.refused, self._used = self.refused + 1, 0
        challenge = f'Digest realm="cam", nonce="{self._nonce}"{self.stale}'
        return answer(request, "401 No", WWW_Authenticate=challenge)

    @property
    def _nonce(self) -> str:
        return f"{self.name}{self.refused}"

    def _is_right(self, request: Request) -> bool:
        told = digest_fields(request)
        right = _md5(_md5(f"user:cam:{HARD}"), self._nonce, _md5(f"{request.method}:{request.url}"))
        return (told.get("nonce"), told.get("uri"), told.get("response")) == (self._nonce, request.url, right)


def _md5(*parts: str) -> str:
    return hashlib.md5(":".join(parts).encode(), usedforsecurity=False).hexdigest()


def locked(lock: Lock, *methods: str) -> dict[str, Say]:
    return dict.fromkeys(methods or ("OPTIONS", "DESCRIBE", "SETUP", "PLAY", "GET_PARAMETER", "TEARDOWN"), lock)


def test_a_nonce_that_grew_stale_is_replaced_once_it_was_accepted(stop: Stop) -> None:
    with OddCamera(on=locked(lock := Lock(uses=1))) as camera:
        with open_session(address_of(camera, "user"), "tcp", stop):
            pass
        wait_until(lambda: camera.methods.count("TEARDOWN") == 2)
    assert camera.methods == [method for method in ("OPTIONS", "DESCRIBE", "SETUP", "PLAY", "TEARDOWN") for _ in "12"]
    assert lock.refused == 5


def test_a_nonce_that_is_stale_at_once_is_replaced_if_the_camera_says_so(stop: Stop) -> None:
    with OddCamera(on=locked(Lock(refusals=2, stale=', stale="true"'), "OPTIONS")) as camera:
        open_session(address_of(camera, "user"), "tcp", stop).close()
    assert camera.methods.count("OPTIONS") == 3


@pytest.mark.parametrize(("stale", "requests"), [(', stale="true"', 3), (', stale="false"', 2), ("", 2)])
def test_and_only_then(stale: str, requests: int, stop: Stop) -> None:
    with OddCamera(on=locked(Lock(refusals=99, stale=stale), "OPTIONS")) as camera:
        assert type(failure(address_of(camera, "user"), stop)) is errors.AuthRefused
    assert camera.methods == ["OPTIONS"] * requests


def test_a_camera_that_closes_with_its_401_is_connected_to_again_once(stop: Stop) -> None:
    lock = Lock()

    def closing(request: Request) -> bytes | None:
        said = lock(request)
        if said and b"401" in said:
            camera.send(said)
            return None
        return said

    with OddCamera(on=dict.fromkeys(("OPTIONS", "DESCRIBE"), closing)) as camera:
        with open_session(address_of(camera, "user"), "tcp", stop):
            pass
        assert camera.connections == 2
    assert lock.refused == 1


def test_and_if_it_closes_once_more_that_is_that(stop: Stop) -> None:
    def closing(request: Request) -> bytes | None:
        camera.send(answer(request, "401 No", WWW_Authenticate='Digest realm="cam", nonce="n"'))
        return None

    with OddCamera(on={"OPTIONS": closing}) as camera:
        assert type(failure(address_of(camera, "user"), stop)) is errors.AuthRefused
        assert camera.connections == 2


def test_and_only_for_a_401(stop: Stop) -> None:
    def closing(request: Request) -> bytes | None:
        if request.connection == 2:
            return plain(request) if request.method == "OPTIONS" else None
        camera.send(answer(request, "401 No", WWW_Authenticate='Digest realm="cam", nonce="n"'))
        return None

    with OddCamera(on=dict.fromkeys(("OPTIONS", "DESCRIBE"), closing)) as camera:
        assert type(failure(address_of(camera, "user"), stop)) is errors.Closed
        assert camera.connections == 2


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_a_refusal_after_a_welcome_is_asked_about_only_with_something_new(auth: Scheme, stop: Stop) -> None:
    with ScriptedCamera(SCENE, fault="play_status:401", username="user", password=HARD, auth=auth) as camera:
        assert type(failure(address_of(camera, "user"), stop)) is errors.AuthRefused
        plays = [request for request in camera.requests if request.method == "PLAY"]
    assert len(plays) == (1 if auth == "basic" else 3)  # each of its refusals has a nonce of its own


def test_no_request_line_holds_the_credentials(stop: Stop) -> None:
    with OddCamera(on=locked(Lock())) as camera, open_session(address_of(camera, "user"), "tcp", stop) as session:
        shown = repr(session) + repr(session.track) + repr(vars(session))
    assert_is_secret(shown + "".join(request.url + repr(request.headers) for request in camera.requests))
    assert not [request.url for request in camera.requests if "@" in request.url]


def basic(request: Request) -> bytes | None:
    """Whoever stands between may ask so."""
    return answer(request, "401 No", WWW_Authenticate='Basic realm="cam"')


@pytest.mark.parametrize("turns_at", ["OPTIONS", "SETUP", "PLAY"])
def test_a_camera_that_took_a_digest_never_gets_the_password_in_the_clear(turns_at: str, stop: Stop) -> None:
    """In the same connection, or in a later one of the same capture."""
    caution = Caution()
    with OddCamera(on=locked(Lock())) as camera:
        if turns_at == "OPTIONS":
            open_session(address_of(camera, "user"), "tcp", stop, caution).close()
        camera.on[turns_at] = basic
        with pytest.raises(errors.AuthRefused, match="in the clear"):
            open_session(address_of(camera, "user"), "tcp", stop, caution)
    sent = [request.headers.get("authorization", "") for request in camera.requests]
    assert any(text.startswith("Digest") for text in sent)
    assert not [text for text in sent if text.startswith("Basic")]


def test_nor_does_one_that_asks_so_at_a_keep_alive(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    monkeypatch.setattr(rtsp, "MIN_KEEPALIVE_S", 0.05)
    monkeypatch.setattr(rtsp, "SESSION_TIMEOUT_S", 0.1)
    with (
        OddCamera(on={**locked(Lock()), "GET_PARAMETER": basic}) as camera,
        open_session(address_of(camera, "user"), "tcp", stop) as session,
    ):
        while camera.methods.count("OPTIONS") < 3:
            session.receive(0.05)
        assert "GET_PARAMETER" in camera.methods
    assert not [request for request in camera.requests if "Basic" in request.headers.get("authorization", "")]


def test_a_camera_that_has_only_ever_asked_for_basic_gets_it(stop: Stop) -> None:
    caution = Caution()
    with ScriptedCamera(SCENE, username="user", password=HARD, auth="basic") as camera:
        for _ in range(2):
            open_session(address_of(camera, "user"), "tcp", stop, caution).close()
    assert not caution.has_met_digest


# --- redirects ---


def test_a_redirect_on_the_same_host_and_port_is_followed_with_the_password(stop: Stop) -> None:
    def describe(request: Request) -> bytes | None:
        if request.url.endswith("/live"):
            return answer(request, "301 Moved", Location=f"rtsp://{camera.authority}/other?x=1")
        return lock(request)

    lock = Lock()
    with OddCamera(on={"DESCRIBE": describe}) as camera, open_session(address_of(camera, "user"), "tcp", stop):
        pass
    assert [r.url for r in camera.requests if r.method == "DESCRIBE"][-1] == f"rtsp://{camera.authority}/other?x=1"


def test_a_camera_may_call_itself_by_the_address_that_it_was_found_at(stop: Stop) -> None:
    def describe(request: Request) -> bytes | None:
        if request.url.endswith("/live"):
            return answer(request, "302 Moved", Location=f"rtsp://x:y@127.0.0.1:{camera.port}/other")
        return lock(request)

    lock = Lock()
    with OddCamera(on={"DESCRIBE": describe}) as camera:
        there = replace(address_of(camera, "user"), host="localhost")
        with open_session(there, "tcp", stop) as session:
            assert session.peer == "127.0.0.1"
    assert [r.url for r in camera.requests if r.method == "DESCRIBE"][-1].endswith(f"localhost:{camera.port}/other")


@pytest.mark.parametrize("method", ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"])
@pytest.mark.parametrize("location", ["/{n}", "{n}", "//{authority}/{n}", "rtsp://{authority}/{n}"])
def test_five_redirects_on_the_host_and_port_are_followed(method: str, location: str, stop: Stop) -> None:
    """rtp2httpd #413, androidx/media #2282: by path alone, and one after the other."""

    def move(request: Request) -> bytes | None:
        if request.connection > 5:
            return plain(request)
        there = location.format(n=request.connection, authority=camera.authority)
        return answer(request, "302 Moved", Location=there)

    with OddCamera(on={method: move}) as camera, open_session(address_of(camera), "tcp", stop):
        pass
    assert camera.connections == 6
    assert camera.requests[-1].url.endswith("/5")


def test_a_sixth_redirect_is_not_followed(stop: Stop) -> None:
    with OddCamera(on={"DESCRIBE": lambda request: answer(request, "302 Moved", Location="/live")}) as camera:
        assert type(failure(address_of(camera), stop)) is errors.AddressRefused
    assert camera.connections == 6


def test_another_port_of_the_host_is_followed_where_the_settings_say_so(stop: Stop) -> None:
    """go2rtc #1881: from 554 to 1554."""
    with OddCamera() as other, OddCamera() as camera:
        camera.on["DESCRIBE"] = lambda request: answer(request, "302 Moved", Location=other.url)
        caution = Caution(redirect_ports=(other.port,))
        with open_session(address_of(camera), "tcp", stop, caution) as session:
            assert session.peer == "127.0.0.1"
    assert "PLAY" in other.methods


@pytest.mark.parametrize(("method", "status"), [("OPTIONS", 301), ("DESCRIBE", 302), ("SETUP", 303), ("PLAY", 305)])
@pytest.mark.parametrize(
    "there",
    [
        "rtsp://{other}/live",
        "rtsp://x:y@{other}/live",
        "rtsp://{elsewhere}/live",
        "rtsp://localhost:{port}/live",
        "rtsps://{same}/live",
        "//{elsewhere}/live",
        "",
        "http://x/",
        "file:///etc/passwd",
    ],
)
def test_a_redirect_to_anywhere_else_is_refused(method: str, status: int, there: str, stop: Stop) -> None:
    """Another port of the same host is another server: it gets no password either."""
    with OddCamera() as other, OddCamera(host="127.0.0.2") as elsewhere, OddCamera() as camera:
        names = {"other": other.authority, "elsewhere": elsewhere.authority, "same": camera.authority}
        location = there.format(**names, port=camera.port)
        camera.on[method] = lambda request: answer(request, f"{status} Moved", Location=location)
        error = failure(address_of(camera, "user"), stop)
    assert type(error) is errors.AddressRefused
    assert "redirect" in str(error)
    assert (other.connections, camera.connections) == (0, 1)
    assert_is_secret(told(error))


@pytest.mark.parametrize(
    "location", ["rtsp://S3cret-W0rd/", "rtsp://me:S3cret-W0rd@elsewhere/", "rtsp://x.S3cret-W0rd"]
)
def test_a_camera_cannot_tell_the_password_by_the_words_of_a_redirect(location: str, stop: Stop) -> None:
    with OddCamera(on={"DESCRIBE": lambda request: answer(request, "302 Moved", Location=location)}) as camera:
        error = failure(address_of(camera, "user", "S3cret-W0rd"), stop)
    assert type(error) is errors.AddressRefused
    assert "s3cret" not in str(error).lower()


@pytest.mark.parametrize(
    ("challenge", "words"),
    [
        ('Digest realm="r", nonce="n", algorithm=SHA-1', ": Digest with algorithm SHA-1."),
        ('Digest realm="r", nonce="n", qop="auth-int"', ": Digest with qop auth-int."),
        (f'Digest realm="r", nonce="n", algorithm={PLAIN}', "does not know."),
    ],
)
@pytest.mark.parametrize("method", ["OPTIONS", "DESCRIBE"])
def test_a_way_of_asking_that_is_not_known_is_named(challenge: str, words: str, method: str, stop: Stop) -> None:
    """Unless it is the password: the words are the camera's own."""
    with OddCamera(on={method: lambda request: answer(request, "401 No", WWW_Authenticate=challenge)}) as camera:
        error = failure(address_of(camera, "user", PLAIN), stop)
    assert type(error) is errors.AuthRefused
    assert words in str(error)
    assert PLAIN not in told(error)


def test_a_digest_that_cannot_be_met_is_no_way_around_the_one_that_was(stop: Stop) -> None:
    caution = Caution(has_met_digest=True)

    def ask(request: Request) -> bytes:
        return answer(request, "401 No", WWW_Authenticate='Digest realm="r", Basic realm="r"')

    with OddCamera(on={"OPTIONS": ask}) as camera, pytest.raises(errors.AuthRefused, match="in the clear"):
        open_session(address_of(camera, "user"), "tcp", stop, caution)
    assert not any("authorization" in request.headers for request in camera.requests)


# --- what cameras agree to ---


def agreeing(transport: str, then: bytes = b"") -> dict[str, Say]:
    return {
        "SETUP": lambda request: answer(request, Session="1", Transport=transport),
        "PLAY": lambda request: answer(request) + then,
    }


@pytest.mark.parametrize(
    ("transport", "channels"),
    [
        ("RTP/AVP/TCP;unicast;interleaved=4-5", (4, 5)),
        ("RTP/AVP/TCP;ssrc=22345684;interleaved=4-5", (4, 5)),
        ("RTP/AVP/TCP; unicast; Interleaved = 4 - 5 ;mode=play", (4, 5)),
        ("RTP/AVP;unicast;interleaved=4", (4, 5)),
        ("RTP/AVP/TCP;unicast", (0, 1)),
        ("RTP/AVP/TCP;interleaved=x", (0, 1)),
        ("RTP/AVP/TCP;interleaved=256-257", (0, 1)),
        ("", (0, 1)),
    ],
)
def test_the_camera_chooses_the_channels(transport: str, channels: tuple[int, int], stop: Stop) -> None:
    """gortsplib #72, retina #120."""
    stray = framed(7, rtp(1)) + framed(channels[1], rtp(2))
    with (
        OddCamera(on=agreeing(transport, stray + framed(channels[0], rtp(3)))) as camera,
        open_session(address_of(camera), "tcp", stop) as session,
    ):
        assert collect(session, 1) == [rtp(3)]


@pytest.mark.parametrize(
    ("asked", "agreed"),
    [
        ("tcp", "RTP/AVP;unicast;client_port=5000-5001;server_port=6000-6001"),
        ("tcp", "RTP/AVP;multicast;destination=239.1.1.1;port=5000-5001"),
        ("udp", "RTP/AVP/TCP;unicast;interleaved=0-1"),
        ("udp", "RTP/AVP;multicast;destination=239.1.1.1;port=5000-5001"),
    ],
)
def test_another_transport_than_was_asked_for_is_refused(asked: str, agreed: str, stop: Stop) -> None:
    with OddCamera(on=agreeing(agreed)) as camera:
        assert type(failure(address_of(camera), stop, asked)) is errors.TransportRefused
        wait_until(lambda: "TEARDOWN" in camera.methods)


def test_packets_before_the_answer_to_play_are_kept(stop: Stop) -> None:
    """retina #46."""

    def play(request: Request) -> bytes | None:
        return framed(0, rtp(1)) + framed(1, b"\x80\xc8\0\0") + answer(request) + framed(0, rtp(2))

    with OddCamera(on={"PLAY": play}) as camera, open_session(address_of(camera), "tcp", stop) as session:
        assert collect(session, 2) == [rtp(1), rtp(2)]


SLOPPY: dict[str, Callable[[Request, bytes], bytes]] = {
    "no_cseq": lambda request, said: said.replace(b"CSeq", b"X-CSeq"),
    "other_cseq": lambda request, said: said.replace(b"CSeq: ", b"CSeq: 99"),
    "bare_newlines": lambda request, said: said.replace(b"\r\n", b"\n"),
    "no_reason": lambda request, said: said.replace(b" 200 OK", b" 200"),
    "lower_case": lambda request, said: said.replace(b"Content-Length", b"content-length"),
    "continue": lambda request, said: b"RTSP/1.0 100 Continue\r\nCSeq: 1\r\n\r\n" + said,
    "blank_lines": lambda request, said: b"\r\n\r\n" + said,
    "no_length": lambda request, said: said.replace(b"Content-Length", b"X-Length"),
    "no_type_and_length": lambda request, said: said.replace(b"Content-", b"X-"),
    "lower_case_protocol": lambda request, said: said.replace(b"RTSP/1.0", b"rtsp/1.0"),
    "another_version": lambda request, said: said.replace(b"RTSP/1.0", b"RTSP/2.0"),
    "too_long": lambda request, said: said.replace(b"Content-Length: ", b"Content-Length: 1"),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", SLOPPY)
def test_sloppy_answers_are_understood(how: str, stop: Stop) -> None:
    def say(request: Request) -> bytes | None:
        said = plain(request)
        return said and SLOPPY[how](request, said)

    with (
        OddCamera(on=dict.fromkeys(("OPTIONS", "DESCRIBE", "SETUP", "PLAY"), say)) as camera,
        open_session(address_of(camera), "tcp", stop) as session,
    ):
        assert session.track.encoding == "H264"
        assert session.track.control == f"{camera.url}/track1"


def test_a_description_that_does_not_say_its_length_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, stop: Stop
) -> None:
    monkeypatch.setattr(rtsp, "SOCKET_TIMEOUT_S", 10_000.0)
    monkeypatch.setattr(rtsp, "ANSWER_S", 10_000.0)

    def describe(request: Request) -> bytes | None:
        return SLOPPY["no_length"](request, plain(request) or b"")

    with OddCamera(on={"DESCRIBE": describe}) as camera, open_session(address_of(camera), "tcp", stop) as session:
        assert session.track.encoding == "H264"


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({"Content_Base": "rtsp://10.0.0.7/live/"}, "rtsp://10.0.0.7/live/"),
        ({"Content_Base": "rtsp://me:word@10.0.0.7/live"}, "rtsp://10.0.0.7/live/"),
        ({"Content_Location": "rtsp://10.0.0.7/live/"}, "rtsp://10.0.0.7/live/"),
        ({"Content_Base": "rtsp://rtsp://10.0.0.7/live/"}, "rtsp://10.0.0.7/live/"),
        ({"Content_Base": "/base/", "Content_Location": ""}, "rtsp://{authority}/base/"),
        ({"Content_Base": "base/"}, "rtsp://{authority}/base/"),
        ({"Content_Base": "{authority}/base/"}, "rtsp://{authority}/base/"),
        ({"Content_Location": "//{authority}/base/"}, "rtsp://{authority}/base/"),
        ({"Content_Base": "127.0.0.1"}, "rtsp://{authority}/"),
        ({"Content_Base": "http://10.0.0.7/x", "Content_Location": "/base/"}, "rtsp://{authority}/base/"),
        ({}, "{url}/"),
    ],
)
def test_the_base_is_what_the_camera_names(headers: dict[str, str], base: str, stop: Stop) -> None:
    def describe(request: Request) -> bytes | None:
        told = {name: value.format(authority=camera.authority) for name, value in headers.items()}
        return answer(request, body=SDP, **told)

    with OddCamera(on={"DESCRIBE": describe}) as camera, open_session(address_of(camera), "tcp", stop):
        pass
    base = base.format(url=camera.url, authority=camera.authority)
    played = next(request.url for request in camera.requests if request.method == "PLAY")
    assert [request.url for request in camera.requests if request.method == "SETUP"] == [base + "track1"]
    assert played.rstrip("/") == base.rstrip("/")


def test_the_query_is_sent_as_it_is(stop: Stop) -> None:
    with OddCamera() as camera:
        address = parse(f"{camera.url}?channel=1&password=word")
        with open_session(address, "tcp", stop):
            pass
    assert camera.requests[0].url.endswith("/live?channel=1&password=word")
    assert next(r.url for r in camera.requests if r.method == "SETUP").endswith("?channel=1&password=word/track1")


@pytest.mark.parametrize("status", ["404 No", "405 No", "454 No", "500 No", "501 No", "551 No"])
def test_options_may_be_refused(status: str, stop: Stop) -> None:
    with (
        OddCamera(on={"OPTIONS": lambda request: answer(request, status)}) as camera,
        open_session(address_of(camera), "tcp", stop),
    ):
        pass


def test_options_that_get_a_401_without_a_challenge_do_not_matter(stop: Stop) -> None:
    with (
        OddCamera(on={**locked(Lock()), "OPTIONS": lambda request: answer(request, "401 No")}) as camera,
        open_session(address_of(camera, "user"), "tcp", stop),
    ):
        pass


@pytest.mark.parametrize("has_answered", [True, False])
def test_a_camera_that_closes_at_options_is_asked_for_its_description(has_answered: bool, stop: Stop) -> None:
    def close(request: Request) -> None:
        if has_answered:
            camera.send(answer(request))

    with OddCamera(on={"OPTIONS": close}) as camera, open_session(address_of(camera), "tcp", stop):
        pass
    assert (camera.connections, camera.methods[:2]) == (2, ["OPTIONS", "DESCRIBE"])


@pytest.mark.parametrize("status", ["400 No", "451 No", "456 No", "457 Invalid Range"])
def test_a_camera_that_refuses_the_range_plays_without(status: str, stop: Stop) -> None:
    """rtp2httpd #323."""

    def play(request: Request) -> bytes | None:
        return answer(request, status) if "range" in request.headers else plain(request)

    with OddCamera(on={"PLAY": play}) as camera, open_session(address_of(camera), "tcp", stop):
        pass
    assert camera.methods.count("PLAY") == 2


@pytest.mark.parametrize("line", ["m=video 0 RTP/SAVP 96", "m=video 0 RTP/SAVPF 96", "{}\r\na=crypto:1 AES inline:x"])
def test_an_encrypted_stream_is_named(line: str, stop: Stop) -> None:
    """go2rtc #81: it makes no picture."""
    told = SDP.replace(MEDIA, line.format(MEDIA.decode()).encode())
    with OddCamera(on={"DESCRIBE": lambda request: answer(request, body=told)}) as camera:
        error = failure(address_of(camera), stop)
    assert type(error) is errors.Undecodable
    assert "encrypted (SRTP)" in str(error)
    assert "SETUP" not in camera.methods


def test_beside_an_encrypted_track_the_plain_one_is_taken(stop: Stop) -> None:
    told = SDP.replace(MEDIA, b"m=video 0 RTP/SAVP 97\r\na=control:track0\r\n" + MEDIA)
    with (
        OddCamera(on={"DESCRIBE": lambda request: answer(request, body=told)}) as camera,
        open_session(address_of(camera), "tcp", stop) as session,
    ):
        assert session.track.control.endswith("track1")


# --- the other tracks ---

SOUND = b"m=audio 0 RTP/AVP 8\r\na=control:track2\r\n"
OTHERS = SOUND + b"m=application 0 RTP/AVP 107\r\na=control:track3\r\n"
BACKCHANNEL = b"m=audio 0 RTP/AVP 0\r\na=control:track4\r\na=sendonly\r\n"


def announcing(sdp: bytes, **on: Say) -> dict[str, Say]:
    return {"DESCRIBE": lambda request: answer(request, body=sdp, Content_Type="application/sdp"), **on}


def is_video(request: Request) -> bool:
    return request.url.endswith("track1")


def set_ups(camera: OddCamera) -> list[str]:
    """The track of each SETUP."""
    return [request.url[-6:] for request in camera.requests if request.method == "SETUP"]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_all_tracks_that_are_for_us_are_set_up_the_video_first(transport: str, stop: Stop) -> None:
    """retina PR #85, RTSP-Server #29: some cameras send nothing before."""
    sdp = SOUND + SDP + OTHERS[len(SOUND) :] + BACKCHANNEL
    with OddCamera(on=announcing(sdp)) as camera, open_session(address_of(camera), transport, stop) as session:
        assert session.track.control.endswith("track1")
    assert set_ups(camera) == ["track1", "track2", "track3"]
    offers = {request.headers["transport"] for request in camera.requests if request.method == "SETUP"}
    assert len(offers) == 3


def test_what_comes_on_the_channels_of_other_tracks_is_not_read(stop: Stop) -> None:
    def play(request: Request) -> bytes | None:
        strange = [framed(channel, b"no RTP at all") for channel in (2, 3, 4, 5)]
        return answer(request) + b"".join(strange) + framed(0, rtp(1))

    with (
        OddCamera(on=announcing(SDP + OTHERS, PLAY=play)) as camera,
        open_session(address_of(camera), "tcp", stop) as session,
    ):
        assert collect(session, 1) == [rtp(1)]


def test_the_session_is_that_of_the_video(stop: Stop) -> None:
    def set_up(request: Request) -> bytes | None:
        return answer(request, Session=request.url[-6:], Transport=request.headers["transport"])

    with OddCamera(on=announcing(SDP + SOUND, SETUP=set_up)) as camera, open_session(address_of(camera), "tcp", stop):
        pass
    assert [r.headers["session"] for r in camera.requests if r.method in ("PLAY", "TEARDOWN")] == ["track1"] * 2


@pytest.mark.parametrize("status", ["400 No", "404 No", "459 No", "461 No", "500 No"])
def test_another_track_may_be_refused(status: str, stop: Stop) -> None:
    def set_up(request: Request) -> bytes | None:
        return plain(request) if is_video(request) else answer(request, status)

    with OddCamera(on=announcing(SDP + SOUND, SETUP=set_up)) as camera, open_session(address_of(camera), "tcp", stop):
        pass
    assert (camera.connections, set_ups(camera)) == (1, ["track1", "track2"])


def close(request: Request) -> None:
    pass


def say_nothing(request: Request) -> bytes:
    return b""


def refuse(request: Request) -> bytes:
    return answer(request, "455 No")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("at", "does"),
    [("SETUP", close), ("SETUP", say_nothing), ("PLAY", close), ("PLAY", say_nothing), ("PLAY", refuse)],
)
def test_a_camera_that_bears_the_video_alone_gets_it_alone_from_then_on(at: str, does: Say, stop: Stop) -> None:
    def say(request: Request) -> bytes | Iterable[bytes] | None:
        is_in_order = is_video(request) if at == "SETUP" else "track2" not in set_ups(camera)[-1]
        return plain(request) if is_in_order else does(request)

    caution = Caution()
    with OddCamera(on=announcing(SDP + SOUND, **{at: say})) as camera:
        for _ in range(2):
            open_session(address_of(camera), "tcp", stop, caution).close()
    assert set_ups(camera) == ["track1", "track2", "track1", "track1"]


@pytest.mark.usefixtures("impatient")
def test_a_camera_that_fails_with_the_video_alone_too_is_asked_for_all_tracks_again(stop: Stop) -> None:
    """It was away, and insists on all of them, perhaps."""
    caution = Caution()
    with OddCamera(on=announcing(SDP + SOUND, PLAY=close)) as camera:
        with pytest.raises(errors.TransportRefused):
            open_session(address_of(camera), "tcp", stop, caution)
        camera.on["PLAY"] = plain
        open_session(address_of(camera), "tcp", stop, caution).close()
    assert set_ups(camera) == ["track1", "track2", "track1", "track1", "track2"]


# --- what SETUP may say ---


@pytest.mark.parametrize("status", [400, 406, 415, 451, 455, 459, 461, 500, 501, 505, 551])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_refused_setup_is_a_matter_of_the_transport(status: int, transport: str, stop: Stop) -> None:
    """viseron #695 #762 #861: cameras for UDP alone say that in many ways."""
    with OddCamera(on={"SETUP": lambda request: answer(request, f"{status} No")}) as camera:
        error = failure(address_of(camera), stop, transport)
    assert isinstance(error, errors.TransportRefused)
    assert (type(error.otherwise) is errors.Refused) == (status != 461)
    assert status == 461 or f"SETUP with status {status}" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.AuthRefused),
        (403, errors.AuthRefused),
        (404, errors.NotFound),
        (453, errors.CameraFull),
        (454, errors.Refused),
        (503, errors.CameraFull),
    ],
)
def test_but_not_where_another_transport_would_change_nothing(status: int, kind: type, stop: Stop) -> None:
    with OddCamera(on={"SETUP": lambda request: answer(request, f"{status} No")}) as camera:
        assert type(failure(address_of(camera), stop)) is kind


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("does", "kind"), [(close, errors.Closed), (say_nothing, errors.ConnectTimeout)])
@pytest.mark.parametrize("method", ["SETUP", "PLAY"])
def test_nor_does_a_camera_always_say_it(method: str, does: Say, kind: type, stop: Stop) -> None:
    """It may take a SETUP by TCP all the same, and then send by UDP alone."""
    with OddCamera(on={method: does}) as camera:
        error = failure(address_of(camera), stop)
    assert isinstance(error, errors.TransportRefused)
    assert type(error.otherwise) is kind
    assert method in str(error.otherwise)


# --- how long it may take ---


@pytest.mark.parametrize("method", ["DESCRIBE", "SETUP", "PLAY"])
def test_an_answer_may_take_longer_than_a_connection(
    method: str, monkeypatch: pytest.MonkeyPatch, stop: Stop
) -> None:
    """A relay starts its source for it: go2rtc #1633, frigate PR #17831."""
    monkeypatch.setattr(rtsp, "SOCKET_TIMEOUT_S", 0.2)
    monkeypatch.setattr(rtsp, "ANSWER_S", LONG_S)
    passed = threading.Event()

    def slow(request: Request) -> bytes | None:
        passed.wait(0.5)
        return plain(request)

    with OddCamera(on={method: slow}) as camera, open_session(address_of(camera), "tcp", stop):
        pass
    assert camera.connections == 1


def test_an_opening_has_an_end_however_often_it_is_redirected(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    monkeypatch.setattr(rtsp, "OPENING_S", 0.5)
    monkeypatch.setattr(rtsp, "ANSWER_S", 10_000.0)

    def describe(request: Request) -> bytes:
        return answer(request, "302 Moved", Location="/") if request.connection == 1 else b""

    with OddCamera(on={"DESCRIBE": describe}) as camera:
        assert type(failure(address_of(camera), stop)) is errors.ConnectTimeout


def test_packets_are_an_answer_to_play(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    monkeypatch.setattr(dialogue, "UNANSWERED_S", 0.1)
    with (
        OddCamera(on={"PLAY": lambda request: framed(0, rtp(1))}) as camera,
        open_session(address_of(camera), "tcp", stop) as session,
    ):
        assert collect(session, 1) == [rtp(1)]
        camera.send(b"RTSP/1.0 200 OK\r\nCSeq: 4\r\n\r\n" + framed(0, rtp(2)))  # at last
        assert collect(session, 1) == [rtp(2)]


# --- hostile ---


@pytest.mark.parametrize(
    ("greeting", "error"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", errors.NotRTSP),
        (b"\x15\x03\x01\0\2\2\x28", errors.NotRTSP),
        (b"", errors.Closed),
        (b"RTSP/1.0 200 OK\r\nCSeq", errors.Closed),
    ],
)
def test_a_port_that_says_something_else(greeting: bytes, error: type[CaptureError], stop: Stop) -> None:
    with OddCamera(greeting=greeting) as camera:
        assert type(failure(address_of(camera), stop)) is error


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"RTSP/1.0 200 OK\r\nContent-Length: 999999999\r\n\r\n", errors.Refused),
        (b"RTSP/1.0 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n", errors.NotRTSP),
        (b"RTSP/1.0 200 OK\r\nX: " + b"y" * 100_000, errors.NotRTSP),
    ],
)
def test_no_answer_is_read_without_end(said: bytes, error: type[CaptureError], stop: Stop) -> None:
    with OddCamera(on={"DESCRIBE": lambda request: said}) as camera:
        assert type(failure(address_of(camera), stop)) is error


def test_a_flood_before_the_description_is_no_answer(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    monkeypatch.setattr(rtsp, "ANSWER_S", 0.3)

    def flood(request: Request) -> bytes | None:
        while True:  # ends when the client has closed
            camera.send(framed(0, rtp(1, 60_000)) * 10)

    with OddCamera(on={"DESCRIBE": flood}) as camera:
        assert type(failure(address_of(camera), stop)) is errors.ConnectTimeout


def test_a_camera_that_asks_without_end_and_never_listens_is_left(stop: Stop) -> None:
    def flood(request: Request) -> bytes | None:
        camera.send(answer(request))
        while True:
            camera.send(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n" * 1000)

    def set_up(request: Request) -> bytes | None:
        return answer(request, Session="5" * 4000)  # makes our answers long

    with OddCamera(on={"SETUP": set_up, "PLAY": flood}) as camera:
        assert type(failure(address_of(camera), stop, wait_s=100 * LONG_S)) is errors.Closed


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["OPTIONS", "DESCRIBE", "SETUP", "PLAY", "GREETING"]))
def test_random_bytes_are_a_capture_error(junk: bytes, at: str) -> None:
    def say(request: Request) -> bytes | None:
        camera.send(junk)
        return None

    stop = Stop()
    with (
        OddCamera(on={at: say}, greeting=junk if at == "GREETING" else None) as camera,
        contextlib.suppress(CaptureError),
    ):
        receive_to_the_end(address_of(camera), stop, wait_s=0.1)  # after OPTIONS it is an ordinary camera


# --- what the server asks and says ---


def test_requests_of_the_camera_are_answered(stop: Stop) -> None:
    asked = ("OPTIONS", "GET_PARAMETER", "SET_PARAMETER", "ANNOUNCE", "DESCRIBE")
    said = b"".join(f"{method} * RTSP/1.0\r\nCSeq: {n}\r\n\r\n".encode() for n, method in enumerate(asked, 70))
    with (
        OddCamera(on=agreeing("", said + framed(0, rtp(1)))) as camera,
        open_session(address_of(camera), "tcp", stop) as session,
    ):

        def answers() -> list[tuple[str, str]]:
            heard = [request for request in camera.requests if request.method == "RTSP/1.0"]
            return [(request.headers["cseq"], request.url) for request in heard]

        assert collect(session, 1) == [rtp(1)]
        wait_until(lambda: len(answers()) == len(asked))
    assert answers() == [("70", "200"), ("71", "200"), ("72", "200"), ("73", "200"), ("74", "405")]


@pytest.mark.parametrize(
    "said",
    [
        b"TEARDOWN * RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        b"REDIRECT * RTSP/1.0\r\nCSeq: 1\r\nLocation: rtsp://x/\r\n\r\n",
        b'ANNOUNCE * RTSP/1.0\r\nCSeq: 1\r\nx-notice: 2101 "End-of-Stream Reached"\r\n\r\n',
        b"ANNOUNCE * RTSP/1.0\r\nCSeq: 1\r\nx-notice: 5402\r\n\r\n",
        framed(1, b"\x80\xc9\0\1\0\0\0\0\x81\xcb\0\1\0\0\0\0"),
    ],
)
def test_the_end_is_told_after_the_packets_before_it(said: bytes, stop: Stop) -> None:
    with OddCamera(on=agreeing("", framed(0, rtp(1)) + said)) as camera:
        with open_session(address_of(camera), "tcp", stop) as session:
            assert collect(session, 1) == [rtp(1)]
            for _ in range(2):
                with pytest.raises(errors.Closed):
                    session.receive(LONG_S)
        wait_until(lambda: "TEARDOWN" in camera.methods)


def test_nor_is_a_packet_lost_that_came_with_the_end(stop: Stop) -> None:
    with OddCamera() as camera, open_session(address_of(camera), "tcp", stop) as session:
        camera.send(framed(0, rtp(1)) + framed(1, b"\x81\xcb\0\1\0\0\0\0"))
        assert collect(session, 1) == [rtp(1)]
        with pytest.raises(errors.Closed):
            session.receive(LONG_S)


def test_other_notices_and_reports_do_not_end_it(stop: Stop) -> None:
    said = b"ANNOUNCE * RTSP/1.0\r\nCSeq: 1\r\nx-notice: 1103\r\n\r\n" + framed(1, b"\x80\xcb") + framed(1, b"")
    said += framed(1, b"\x81\xcb\0\1\0\0\0\7")  # BYE of another source: a session that was before
    with (
        OddCamera(on=agreeing("", said + framed(0, rtp(1)))) as camera,
        open_session(address_of(camera), "tcp", stop) as session,
    ):
        assert collect(session, 1) == [rtp(1)]
        assert session.receive(0.05) == []


def test_what_came_before_the_end_of_the_connection_is_given(stop: Stop) -> None:
    def play(request: Request) -> bytes | None:
        camera.send(answer(request) + framed(0, rtp(1)) + framed(0, rtp(2)) + framed(0, rtp(3))[:9])
        return None

    with OddCamera(on={"PLAY": play}) as camera, open_session(address_of(camera), "tcp", stop) as session:
        assert collect(session, 2) == [rtp(1), rtp(2)]
        with pytest.raises(errors.Closed):
            session.receive(LONG_S)


# --- staying ---


def test_a_session_is_kept_alive(stop: Stop) -> None:
    with ScriptedCamera(SCENE, session_timeout_s=2) as camera:
        with open_session(address_of(camera), "tcp", stop) as session:
            packets = collect(session, 200)
        ticks = int.from_bytes(packets[-1][4:8]) - int.from_bytes(packets[0][4:8])
        assert ticks % 2**32 > 3 * 90_000
        assert "GET_PARAMETER" in [request.method for request in camera.requests]


def kept_alive(
    monkeypatch: pytest.MonkeyPatch,
    stop: Stop,
    on: dict[str, Say],
    count: int,
    username: str | None = None,
    every_s: float = 0.05,
    caution: Caution | None = None,
) -> list[Request]:
    """The first requests after PLAY to a camera that wants one so often."""
    monkeypatch.setattr(rtsp, "MIN_KEEPALIVE_S", every_s)

    def play(request: Request) -> bytes | None:
        monkeypatch.setattr(rtsp, "SESSION_TIMEOUT_S", 60.0)
        return plain(request)

    monkeypatch.setattr(rtsp, "SESSION_TIMEOUT_S", 0.1)
    with (
        OddCamera(on={**on, "PLAY": on.get("PLAY", play)}) as camera,
        open_session(address_of(camera, username), "tcp", stop, caution) as session,
    ):
        began = len(camera.requests)
        wait_until(lambda: session.receive(0.05) == [] and len(camera.requests) >= began + count)
        return camera.requests[began : began + count]


def test_a_keep_alive_names_the_session_and_its_url(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    for request in kept_alive(monkeypatch, stop, {}, 3):
        assert (request.method, request.headers["session"]) == ("GET_PARAMETER", "5E55")
        assert request.url.endswith("/live")


def test_where_get_parameter_is_not_offered_options_is_sent(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    on: dict[str, Say] = {"OPTIONS": lambda request: answer(request, Public="DESCRIBE, SETUP, PLAY, TEARDOWN")}
    assert {request.method for request in kept_alive(monkeypatch, stop, on, 2)} == {"OPTIONS"}


@pytest.mark.parametrize("status", ["454 Session Not Found", "405 No", "500 No", "401 No"])
def test_a_refused_get_parameter_ends_nothing_and_is_not_sent_again(
    status: str, monkeypatch: pytest.MonkeyPatch, stop: Stop
) -> None:
    """FIELD 30: 454 on a living session."""
    caution = Caution()
    on: dict[str, Say] = {"GET_PARAMETER": lambda request: answer(request, status)}
    methods = [request.method for request in kept_alive(monkeypatch, stop, on, 3, caution=caution)]
    assert methods == ["GET_PARAMETER", "OPTIONS", "OPTIONS"]
    assert caution.quirks == Quirks(keepalive="OPTIONS")
    methods = [request.method for request in kept_alive(monkeypatch, stop, on, 2, caution=caution)]
    assert methods == ["OPTIONS", "OPTIONS"], "it is known in the next connection"


def test_a_refused_options_ends_nothing_either(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    def options(request: Request) -> bytes | None:
        return answer(request, "454 No" if "session" in request.headers else "200 OK", Public="DESCRIBE, SETUP, PLAY")

    caution = Caution()
    requests = kept_alive(monkeypatch, stop, {"OPTIONS": options}, 3, caution=caution)
    assert {request.method for request in requests} == {"OPTIONS"}
    assert caution.quirks == Quirks()


def ended(camera: OddCamera, stop: Stop, *, played_s: float, kept_s: float) -> str:
    """What is learned of a connection that the camera ended so long after PLAY and after the keep-alive before."""
    caution = Caution()
    with open_session(address_of(camera), "tcp", stop, caution) as session:
        session._keep_alive()
        session._played_s -= played_s
        session._kept_s[-1] = time.monotonic() - kept_s
        session._heard_s = session._kept_s[-1] - 5.0
        wait_until(lambda: session.receive(0.05) == [] and camera.methods[-1] in ("OPTIONS", "GET_PARAMETER"))
        camera.hang_up()
        with pytest.raises(errors.Closed):
            session.receive(LONG_S)
    return caution.quirks.keepalive


def test_a_stream_that_stopped_at_a_keep_alive_is_laid_to_it_though_others_were_sent_since(stop: Stop) -> None:
    """Silence is known to be the end only later."""
    caution = Caution()
    with OddCamera() as camera, open_session(address_of(camera), "tcp", stop, caution) as session:
        for _ in range(3):
            session._keep_alive()
        for number, kept_s in enumerate((100.0, 130.0, 160.0)):
            session._kept_s[number] = kept_s
        session._played_s, session._heard_s = 10.0, 120.0
        session.note_end()
        assert caution.quirks == Quirks(), "between two of them"
        session._has_ended, session._heard_s = False, 130.1
        session.note_end()
    assert caution.quirks == Quirks(keepalive="OPTIONS")


@pytest.mark.parametrize(
    ("public", "played_s", "kept_s", "learned"),
    [
        ("PLAY, GET_PARAMETER", 30, 0, "OPTIONS"),
        ("PLAY, GET_PARAMETER", 45, 15, ""),
        ("PLAY", 60, 30, "GET_PARAMETER"),
        ("PLAY", 75, 15, "GET_PARAMETER"),
        ("PLAY", 45, 15, ""),
        ("PLAY", 600, 15, ""),
    ],
    ids=[
        "FIELD 31: over GET_PARAMETER",
        "at any time",
        "FIELD 55: on time",
        "on time, looked at now and then",
        "before the time",
        "long after it",
    ],
)
def test_a_keep_alive_that_ends_the_session_or_does_not_keep_it_gives_way_to_the_other_one(
    public: str, played_s: float, kept_s: float, learned: str, stop: Stop
) -> None:
    with OddCamera(on={"OPTIONS": lambda request: answer(request, Public=public)}) as camera:
        assert ended(camera, stop, played_s=played_s, kept_s=kept_s) == learned


def test_a_keep_alive_with_a_stale_nonce_is_repeated_once(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    for uses, nonces, methods in ((1, ["n1", "k1", "k1", "k2"], "GGGG"), (0, ["n1", "k1", "k1", "k1"], "GGOO")):
        on = {**locked(Lock(), "DESCRIBE"), **locked(Lock(uses=uses, name="k"), "GET_PARAMETER")}
        requests = kept_alive(
            monkeypatch, stop, on, 4, "user", every_s=0.5
        )  # answers come before the next one is due
        assert [digest_fields(request)["nonce"] for request in requests] == nonces
        assert "".join(request.method[0] for request in requests) == methods


@pytest.mark.parametrize(
    ("told_s", "every_s"),
    [("30", 15.0), ("60", 30.0), ("3600", 30.0), ("0", 30.0), ("1", 1.0), ("x", 30.0), ("", 30.0)],
)
def test_half_the_timeout_is_the_interval(told_s: str, every_s: float, stop: Stop) -> None:
    on: dict[str, Say] = {"SETUP": lambda request: answer(request, Session=f" 1 ; TimeOut = {told_s}")}
    with OddCamera(on=on) as camera, open_session(address_of(camera), "tcp", stop) as session:
        assert session._keepalive_every_s == every_s
    assert [request.headers["session"] for request in camera.requests if request.method == "PLAY"] == ["1"]


def test_receiver_reports_are_sent_in_the_connection(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    monkeypatch.setattr(rtsp, "REPORT_S", 0.05)
    with (
        OddCamera(on=agreeing("RTP/AVP/TCP;interleaved=4-5", framed(4, rtp(9)))) as camera,
        open_session(address_of(camera), "tcp", stop) as session,
    ):
        wait_until(lambda: session.receive(0.05) == [] and len(camera.reports) >= 2)
    assert {(report[0], report[2]) for report in camera.reports} == {(5, 201)}
    block = camera.reports[-1][9:33]
    assert (camera.reports[-1][1], block[8:12]) == (0x81, bytes([0, 0, 0, 9])), "one block: the highest number so far"


def test_the_first_receiver_report_is_sent_at_once(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    """FIELD 33."""
    monkeypatch.setattr(rtsp, "REPORT_S", 10_000.0)
    with OddCamera() as camera, open_session(address_of(camera), "tcp", stop) as session:
        wait_until(lambda: session.receive(0.05) == [] and len(camera.reports) >= 1)
    assert camera.reports[0][:3] == bytes([1, 0x80, 201]), "without a block, for nothing has come"


# --- stopping and leaving ---


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_stop_ends_a_wait_for_packets(transport: str, stop: Stop) -> None:
    with OddCamera() as camera, open_session(address_of(camera), transport, stop) as session:
        threading.Thread(target=stop.set).start()
        assert session.receive(10_000) == []
        assert session.receive(10_000) == []


@pytest.mark.parametrize("fault", ["silent", "describe_status:0", "setup_status:0", "play_status:0"])
def test_stop_ends_a_wait_for_an_answer(fault: str, monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    monkeypatch.setattr(rtsp, "SOCKET_TIMEOUT_S", 10_000.0)
    monkeypatch.setattr(rtsp, "ANSWER_S", 10_000.0)
    with ScriptedCamera(SCENE, fault=fault) as camera:
        method = "" if fault == "silent" else fault.partition("_")[0].upper()

        def set_when_asked() -> None:
            wait_until(lambda: camera.clients == 1 and method in ["", *(r.method for r in camera.requests)])
            stop.set()

        threading.Thread(target=set_when_asked).start()
        with pytest.raises(Stopped):
            open_session(address_of(camera), "tcp", stop)
        wait_until(lambda: camera.clients == 0)


def test_nothing_is_opened_once_stop_is_set(stop: Stop) -> None:
    stop.set()
    with OddCamera() as camera, pytest.raises(Stopped):
        open_session(address_of(camera), "tcp", stop)
    assert camera.connections == 0


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_leaving_says_teardown_though_stop_is_set(transport: str, stop: Stop) -> None:
    with ScriptedCamera(SCENE) as camera:
        with open_session(address_of(camera), transport, stop) as session:
            collect(session, 1)
            stop.set()
        wait_until(lambda: (camera.teardowns, camera.clients) == (1, 0))
        session.close()
        assert camera.teardowns == 1


def test_leaving_by_an_error_says_teardown_too(stop: Stop) -> None:
    with ScriptedCamera(SCENE) as camera:
        with pytest.raises(ZeroDivisionError), open_session(address_of(camera), "tcp", stop):
            raise ZeroDivisionError
        wait_until(lambda: (camera.teardowns, camera.clients) == (1, 0))


def test_a_teardown_is_heard_in_the_middle_of_a_flood(stop: Stop) -> None:
    """Closing with packets unread resets the connection, and what was said last would be lost with it."""
    with ScriptedCamera(SCENE, fault="rush:50") as camera:
        with open_session(address_of(camera), "tcp", stop) as session:
            session.wake_at(1 << 20)
            wait_until(lambda: camera.requests[-1].method == "PLAY")
        wait_until(lambda: (camera.teardowns, camera.clients) == (1, 0))


def test_the_answer_to_the_farewell_is_heard_though_it_is_short(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    monkeypatch.setattr(rtsp, "CLOSE_S", 10_000.0)
    with OddCamera() as camera, open_session(address_of(camera), "tcp", stop) as session:
        session.wake_at(1 << 20)


def test_a_camera_that_does_not_answer_the_farewell_is_left_all_the_same(stop: Stop) -> None:
    with OddCamera(on={"TEARDOWN": lambda request: b""}) as camera:
        with open_session(address_of(camera), "tcp", stop):
            pass
        wait_until(lambda: camera.open_connections == 0)
    assert camera.methods[-1] == "TEARDOWN"


# --- buffers ---


def drained(session: RTSPSession) -> bool:
    session.drain()
    return True


def test_packets_that_were_drained_come_next_and_those_before_stay(stop: Stop) -> None:
    with OddCamera() as camera, open_session(address_of(camera), "tcp", stop) as session:
        camera.send(framed(0, rtp(1, 1000)))
        (first,) = session.receive(LONG_S)
        camera.send(b"".join(framed(0, rtp(number, 50_000)) for number in range(2, 50)))
        stream = session._dialogue.stream
        wait_until(lambda: drained(session) and stream.pending_bytes >= 48 * 50_016)
        assert bytes(first) == rtp(1, 1000)
        assert [bytes(packet) for packet in session.receive(0)] == [rtp(number, 50_000) for number in range(2, 50)]
        camera.send(framed(0, rtp(99)))
        assert collect(session, 1) == [rtp(99)]


def test_no_more_is_drained_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    monkeypatch.setattr(carrier, "MAX_DRAINED_BYTES", 1 << 20)

    def flood(request: Request) -> bytes | None:
        camera.send(answer(request))
        while True:
            camera.send(framed(0, rtp(1, 60_000)))

    with OddCamera(on={"PLAY": flood}) as camera, open_session(address_of(camera), "tcp", stop) as session:
        stream = session._dialogue.stream
        wait_until(lambda: drained(session) and stream.pending_bytes >= 1 << 20)
        before = stream.pending_bytes
        session.drain()
        assert stream.pending_bytes == before < 4 << 20
        while len(session.receive(LONG_S)) < 17:  # the first came with the answer to PLAY
            pass


def test_the_end_that_was_drained_comes_after_the_packets(stop: Stop) -> None:
    def play(request: Request) -> bytes | None:
        camera.send(answer(request) + framed(0, rtp(1)))
        return None

    with OddCamera(on={"PLAY": play}) as camera, open_session(address_of(camera), "tcp", stop) as session:
        wait_until(lambda: drained(session) and session._dialogue.has_ended)
        assert collect(session, 1) == [rtp(1)]
        with pytest.raises(errors.Closed):
            session.receive(LONG_S)


def test_fewer_wake_ups_are_to_be_had(stop: Stop) -> None:
    """Of 200 small packets a second each is a wake-up otherwise. A packet's head may be taken and its rest not."""
    quick = replace(SCENE, fps=200)
    with ScriptedCamera(quick) as camera, open_session(address_of(camera), "tcp", stop) as session:
        collect(session, 5)
        session.wake_at(4000)
        session.receive(LONG_S)  # what had come before
        sizes = [sum(4 + len(packet) for packet in session.receive(LONG_S)) for _ in range(3)]
        session.wake_at(1)
        small = [len(session.receive(LONG_S)) for _ in range(20)]
    assert min(sizes) >= 4000 - 1420
    assert min(small) <= 2


def test_a_long_wait_for_many_bytes_gives_what_there_is(stop: Stop) -> None:
    with OddCamera() as camera, open_session(address_of(camera), "tcp", stop) as session:
        session.wake_at(1_000_000)
        camera.send(framed(0, rtp(1)))
        wait_until(lambda: [bytes(packet) for packet in session.receive(0.05)] == [rtp(1)])


# --- UDP ---


class Sender:
    """Two UDP sockets for a camera that answers SETUP with their ports."""

    def __init__(self, host: str = "127.0.0.1", tells_ports: bool = True) -> None:
        self._sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in "12"]
        for own in self._sockets:
            own.bind((host, 0))
            own.settimeout(LONG_S)
        self.ports = [own.getsockname()[1] for own in self._sockets]
        self._tells_ports = tells_ports
        self.target = 0

    def set_up(self, request: Request) -> bytes | None:
        client = request.headers["transport"].partition("client_port=")[2]
        self.target = int(client.partition("-")[0])
        assert self.target % 2 == 0
        told = f";server_port={self.ports[0]}-{self.ports[1]}" if self._tells_ports else ""
        return answer(request, Session="1", Transport=f"RTP/AVP;unicast;client_port={client}{told}")

    def send(self, data: bytes, which: int = 0) -> None:
        self._sockets[which].sendto(data, ("127.0.0.1", self.target + which))

    def hear(self, which: int) -> bytes:
        return self._sockets[which].recv(2000)

    def close(self) -> None:
        for own in self._sockets:
            own.close()


@pytest.fixture
def sender() -> Iterator[Sender]:
    sender = Sender()
    yield sender
    sender.close()


def test_holes_are_punched_and_reports_sent(sender: Sender, monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    monkeypatch.setattr(rtsp, "REPORT_S", 0.05)
    with (
        OddCamera(on={"SETUP": sender.set_up}) as camera,
        open_session(address_of(camera), "udp", stop) as session,
    ):
        assert sender.hear(0)[:1] == b"\x80"
        assert sender.hear(1)[:2] == b"\x80\xc9"
        session.receive(0.2)
        assert sender.hear(1)[:2] == b"\x80\xc9"


def test_reports_go_beside_the_port_that_packets_come_from(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, stop: Stop
) -> None:
    """Where the camera tells no ports."""
    monkeypatch.setattr(rtsp, "REPORT_S", 0.05)
    sent: list[int] = []
    monkeypatch.setattr(Datagrams, "_send", lambda self, own, port, data: sent.append(port))
    sender._tells_ports = False
    with OddCamera(on={"SETUP": sender.set_up}) as camera, open_session(address_of(camera), "udp", stop) as session:
        assert session.receive(0.1) == []
        assert sent == []
        sender.send(rtp(1))
        assert collect(session, 1) == [rtp(1)]
        wait_until(lambda: session.receive(0.05) == [] and len(sent) >= 1)
    assert set(sent) == {sender.ports[0] + 1}


@pytest.mark.parametrize(
    "ports", ["", ";server_port=0-0", ";server_port=x", ";server_port=99999-5", ";server_port=7"]
)
def test_a_camera_need_not_tell_its_ports(ports: str, sender: Sender, stop: Stop) -> None:
    sender._tells_ports = False

    def set_up(request: Request) -> bytes | None:
        sender.set_up(request)
        return answer(request, Session="1", Transport=f"RTP/AVP;unicast;source=10.1.2.3{ports}")

    with OddCamera(on={"SETUP": set_up}) as camera, open_session(address_of(camera), "udp", stop) as session:
        sender.send(rtp(1))
        assert collect(session, 1) == [rtp(1)]


def test_datagrams_are_an_answer_to_play_too(sender: Sender, monkeypatch: pytest.MonkeyPatch, stop: Stop) -> None:
    monkeypatch.setattr(dialogue, "UNANSWERED_S", 0.1)

    def play(request: Request) -> bytes:
        sender.send(rtp(1))
        return b""

    on: dict[str, Say] = {"SETUP": sender.set_up, "PLAY": play}
    with OddCamera(on=on) as camera, open_session(address_of(camera), "udp", stop) as session:
        assert collect(session, 1) == [rtp(1)]


def test_packets_of_strangers_do_not_count(sender: Sender, stop: Stop) -> None:
    stranger = Sender("127.0.0.2")
    with OddCamera(on={"SETUP": sender.set_up}) as camera, open_session(address_of(camera), "udp", stop) as session:
        stranger.target = sender.target
        for number in range(3):
            stranger.send(rtp(100 + number))
            stranger.send(b"\x81\xcb\0\1\0\0\0\1", 1)  # BYE
            sender.send(rtp(number))
            assert collect(session, 1) == [rtp(number)]
    stranger.close()


def naming(sender: Sender, source: str) -> dict[str, Say]:
    """A camera that says where its packets come from."""

    def set_up(request: Request) -> bytes | None:
        sender.set_up(request)
        told = f";source={source};server_port={sender.ports[0]}-{sender.ports[1]}"
        return answer(request, Session="1", Transport=f"RTP/AVP;unicast{told}")

    return {"SETUP": set_up}


@pytest.fixture
def other_sender() -> Iterator[Sender]:
    sender = Sender("127.0.0.2")
    yield sender
    sender.close()


def test_packets_come_from_another_address_that_the_camera_names(other_sender: Sender, stop: Stop) -> None:
    """FIELD 52: a recorder with two networks."""
    with (
        OddCamera(on=naming(other_sender, "127.0.0.2")) as camera,
        open_session(address_of(camera), "udp", stop) as session,
    ):
        assert other_sender.hear(0)[:1] == b"\x80", "a hole is punched for that address, too"
        other_sender.send(rtp(1))
        assert collect(session, 1) == [rtp(1)]
        other_sender.send(b"\x81\xcb\0\1\0\0\0\0", 1)
        with pytest.raises(errors.Closed):
            session.receive(LONG_S)


@pytest.mark.parametrize("source", ["127.0.0.2", "169.254.169.254"])
def test_but_not_from_one_that_is_not_allowed(source: str, sender: Sender, other_sender: Sender, stop: Stop) -> None:
    """Behind a NAT the camera's own view of its address does no harm."""
    caution = Caution(networks=parse_networks("127.0.0.1"))
    with (
        OddCamera(on=naming(sender, source)) as camera,
        open_session(address_of(camera), "udp", stop, caution) as session,
    ):
        other_sender.target = sender.target
        other_sender.send(rtp(1))
        assert session.receive(0.05) == []
        assert session.trouble.startswith(f"The camera names {source} as the source of its packets. ")
        assert f"does not connect to {source}" in session.trouble
        sender.send(rtp(2))
        assert collect(session, 1) == [rtp(2)]


@pytest.mark.parametrize("source", ["", "cam.example", "::1", "0.0.0.0", "127.0.0.1", "[1", "999.1.1.1"])
def test_a_source_that_is_of_no_use_is_ignored(source: str, sender: Sender, stop: Stop) -> None:
    with (
        OddCamera(on=naming(sender, source)) as camera,
        open_session(address_of(camera), "udp", stop) as session,
    ):
        assert session.trouble == ""
        sender.send(rtp(1))
        assert collect(session, 1) == [rtp(1)]


def test_packets_of_an_address_that_was_not_named_are_said(sender: Sender, other_sender: Sender, stop: Stop) -> None:
    with OddCamera(on={"SETUP": sender.set_up}) as camera, open_session(address_of(camera), "udp", stop) as session:
        assert session.trouble == ""
        other_sender.target = sender.target
        other_sender.send(rtp(1))
        assert session.receive(0.05) == []
        assert "127.0.0.2" in session.trouble


def test_over_udp_packets_come_on_when_the_connection_has_ended(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, stop: Stop
) -> None:
    """FIELD 53."""
    with OddCamera(on={"SETUP": sender.set_up}) as camera, open_session(address_of(camera), "udp", stop) as session:
        sender.send(rtp(1))
        assert collect(session, 1) == [rtp(1)]
        camera.hang_up()
        wait_until(lambda: session.receive(0.05) == [] and session.is_disconnected)
        waits = count_waits(session, monkeypatch)
        session._keepalive_at_s = session._report_at_s = session._chore_at_s = 0.0
        assert session.receive(0.2) == []
        assert len(waits) < 10, "the end of a connection can be read without end"
        assert not session._kept_s, "nobody is there to be asked to keep the session"
        for number in range(2, 5):
            sender.send(rtp(number))
            assert collect(session, 1) == [rtp(number)]


def count_waits(session: RTSPSession, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Moments at which the session goes to sleep from now on."""
    waits, wait = list[float](), session._playing.wait

    def counted(now_s: float, until_s: float) -> carrier.Ready:
        waits.append(now_s)
        return wait(now_s, until_s)

    monkeypatch.setattr(session._playing, "wait", counted)
    return waits


def test_datagrams_too_short_for_rtp_hold_nobody_up(sender: Sender, stop: Stop) -> None:
    with OddCamera(on={"SETUP": sender.set_up}) as camera, open_session(address_of(camera), "udp", stop) as session:
        for _ in range(10):
            sender.send(b"")
            sender.send(b"\x80" * 11)
        sender.send(rtp(1))
        assert collect(session, 1) == [rtp(1)]
        sender.send(b"")
        sender.send(b"\x80" * 11)
        session.drain()
        sender.send(rtp(2))
        assert collect(session, 1) == [rtp(2)]


def test_what_was_drained_over_udp_comes_next(sender: Sender, stop: Stop) -> None:
    with OddCamera(on={"SETUP": sender.set_up}) as camera, open_session(address_of(camera), "udp", stop) as session:
        sender.send(rtp(0, 1000))
        (first,) = session.receive(LONG_S)
        for number in range(1, 9):
            for part in range(3):
                sender.send(rtp(number * 3 + part, 30_000))
            session.drain()  # on one host a datagram that was sent is there
        assert bytes(first) == rtp(0, 1000)
        assert [bytes(packet) for packet in session.receive(0)] == [rtp(number, 30_000) for number in range(3, 27)]
        sender.send(rtp(99))
        assert collect(session, 1) == [rtp(99)]


def test_fewer_wake_ups_are_to_be_had_over_udp(stop: Stop) -> None:
    with ScriptedCamera(replace(SCENE, fps=200)) as camera, open_session(address_of(camera), "udp", stop) as session:
        collect(session, 20)
        session.wake_at(100_000)
        session.receive(LONG_S)
        assert max(len(session.receive(LONG_S)) for _ in range(10)) >= 5


def test_a_bye_over_udp_ends_it(sender: Sender, stop: Stop) -> None:
    with OddCamera(on={"SETUP": sender.set_up}) as camera, open_session(address_of(camera), "udp", stop) as session:
        sender.send(b"\x81\xcb\0\1\0\0\0\1", 1)
        with pytest.raises(errors.Closed):
            session.receive(LONG_S)


# --- what it costs ---


def test_a_plain_camera_loads_no_tls() -> None:
    """6 ms and 0.9 MB in each recorder."""
    code = "import sys; import streams.engine.rtsp; sys.exit('ssl' in sys.modules or 'av' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=LONG_S, check=False).returncode == 0


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning", "error::ResourceWarning")
@pytest.mark.usefixtures("impatient")
def test_no_socket_is_left_to_the_garbage_collector(stop: Stop) -> None:
    """An open one warns when it is collected."""
    for fault in ("describe_status:0", "refuses", "no_udp", "silent"):
        with ScriptedCamera(SCENE, fault=fault) as camera:
            failure(address_of(camera), stop, "udp")
            failure(replace(address_of(camera), scheme="rtsps"), stop, "udp")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("camera.example").configure_cert(tls)
    with OddCamera(tls=tls) as odd:
        failure(address_of(odd), stop, "udp")
        open_session(address_of(odd), "udp", stop, Caution(verifies_certificate=False)).close()
    gc.collect()
