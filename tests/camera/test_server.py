"""The scripted camera does what a camera does, as PyAV and a plain socket see it."""

import hashlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tests.camera.auth import Scheme
from tests.camera.clip import Codec, Scene
from tests.camera.server import ScriptedCamera
from tests.camera.viewer import Glimpse, PlainClient, view, wait_until, watch

PLAN = (40, 200, 90, 120)
SCENE = Scene(320, 240, PLAN, fps=50, gop_s=0.2)
GRAINY = replace(SCENE, width=640, height=480, noise=4)
STEP_TICKS = 1800


def test_it_shows_the_plan() -> None:
    with ScriptedCamera(replace(SCENE, fps=25)) as camera:
        seen = view(camera.url, frames=60)
    planned = [PLAN[number // 25] for number in range(60)]
    assert [glimpse.second for glimpse in seen.glimpses] == [number // 25 for number in range(60)]
    assert [glimpse.luma for glimpse in seen.glimpses] == pytest.approx(planned, abs=1)
    assert seen.steps_ticks == {3600}


def test_it_begins_again_at_the_end_and_its_timestamps_go_on() -> None:
    with ScriptedCamera(replace(SCENE, plan=(40,))) as camera:
        seen = view(camera.url, frames=65)
    assert [glimpse.digest for glimpse in seen.glimpses[50:]] == [one.digest for one in seen.glimpses[:15]]
    assert seen.steps_ticks == {STEP_TICKS}


def test_it_says_goodbye_at_the_end_of_a_clip_that_does_not_loop() -> None:
    with ScriptedCamera(replace(SCENE, plan=(40,)), loop=False) as camera:
        seen = view(camera.url, frames=99)
    assert (len(seen.glimpses), seen.error) == (50, "")


@pytest.mark.parametrize("codec", ["hevc", "mpeg4", "mjpeg"])
def test_it_speaks_other_codecs(codec: Codec) -> None:
    with ScriptedCamera(replace(GRAINY, plan=PLAN[:1], fps=10, codec=codec)) as camera:
        seen = view(camera.url)
    assert seen.seconds == [0]
    assert [glimpse.luma for glimpse in seen.glimpses] == pytest.approx([PLAN[0]] * 10, abs=1)


def test_it_sends_b_frames() -> None:
    with ScriptedCamera(replace(SCENE, b_frames=2)) as camera:
        assert view(camera.url, frames=20).steps_ticks == {STEP_TICKS}


def test_a_name_may_have_slashes_and_a_query() -> None:
    with ScriptedCamera(SCENE, path="live/main?channel=1&subtype=0") as camera:
        assert view(camera.url).seconds == [0]


def test_another_name_is_not_found() -> None:
    with ScriptedCamera(SCENE) as camera:
        assert view(camera.url + "s").error == "HTTPNotFoundError"


def test_it_sends_over_udp() -> None:
    with ScriptedCamera(GRAINY) as camera:
        assert view(camera.url, rtsp_transport="udp").seconds == [0]


def test_ten_clients_each_see_the_clip_from_its_start() -> None:
    with ScriptedCamera(SCENE) as camera:
        with ThreadPoolExecutor(10) as pool:
            views = list(pool.map(view, [camera.url] * 10))
        assert [seen.seconds for seen in views] == [[0]] * 10
        wait_until(lambda: camera.teardowns == 10 and camera.clients == 0)
        assert camera.connections == 10


def test_live_clients_share_one_clock() -> None:
    with ScriptedCamera(replace(SCENE, plan=tuple(range(50, 80))), live=True) as camera:
        watching = watch(camera.url)
        assert next(glimpse.second for glimpse in watching if glimpse.second) == 1
        late = view(camera.url, frames=1).glimpses[0].second
        watching.close()
    assert late in range(1, 30)


def test_it_remembers_what_it_was_asked() -> None:
    with ScriptedCamera(SCENE) as camera:
        view(camera.url)
        wait_until(lambda: camera.teardowns == 1)
        asked = camera.requests
    assert [one.method for one in asked[:4]] == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
    assert asked[-1].method == "TEARDOWN"
    assert {(one.status, one.has_authorization) for one in asked} == {(200, False)}
    assert asked[2].uri == f"{camera.url}/track0"
    assert all(before.at_s <= after.at_s for before, after in pairwise(asked))


def test_it_reports_with_rtcp_and_fills_in_rtp_info() -> None:
    with ScriptedCamera(SCENE) as camera, PlainClient(camera.url) as client:
        client.ask("DESCRIBE")
        client.ask("SETUP", "/track0", Transport="RTP/AVP/TCP;unicast;interleaved=4-5")
        status, headers, _ = client.ask("PLAY", Range="npt=0-")
        report, first = client.packet(), client.packet()
    assert (status, headers["range"]) == (200, "npt=0.000-")
    assert (report[0], report[1][1], first[0]) == (5, 200, 4)
    sequence, ticks = int.from_bytes(first[1][2:4]), int.from_bytes(first[1][4:8])
    assert headers["rtp-info"] == f"url={camera.url}/track0;seq={sequence};rtptime={ticks}"


@pytest.mark.parametrize("method", ["GET_PARAMETER", "SET_PARAMETER", "OPTIONS"])
def test_a_client_can_keep_its_session_alive(method: str) -> None:
    with ScriptedCamera(SCENE) as camera, PlainClient(camera.url) as client:
        client.play()
        assert client.ask(method)[0] == 200


@pytest.mark.parametrize(
    ("method", "suffix", "headers", "status"),
    [
        ("PLAY", "", {}, 455),
        ("PLAY", "", {"Session": "another"}, 454),
        ("SETUP", "", {"Transport": "RTP/AVP/TCP;interleaved=0-1"}, 459),
        ("SETUP", "/track7", {"Transport": "RTP/AVP/TCP;interleaved=0-1"}, 404),
        ("SETUP", "/track0", {"Transport": "RTP/AVP;multicast"}, 461),
        ("RECORD", "", {}, 405),
    ],
)
def test_it_refuses_what_makes_no_sense(method: str, suffix: str, headers: dict[str, str], status: int) -> None:
    with ScriptedCamera(SCENE) as camera, PlainClient(camera.url) as client:
        assert client.ask(method, suffix, **headers)[0] == status


PASSWORDS = ["secret", "p@ss:w/o#r?d%20!", 'a "b" \\c', "\u00fc\u00f1\u20ac", "&=+;,", ""]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(("auth", "has_qop"), [("basic", False), ("digest", False), ("digest", True)])
def test_it_lets_in_whoever_knows_the_password(auth: Scheme, has_qop: bool, password: str) -> None:
    with ScriptedCamera(SCENE, username="us er", password=password, auth=auth, has_qop=has_qop) as camera:
        assert view(camera.url_with_credentials, frames=1).seconds == [0]
        assert [one.status for one in camera.requests[:3]] == [200, 401, 200]
        assert [one.has_authorization for one in camera.requests[:3]] == [False, False, True]


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_it_refuses_whoever_does_not(auth: Scheme) -> None:
    with ScriptedCamera(SCENE, username="user", password="right", auth=auth) as camera:
        wrong = camera.url_with_credentials.replace("right", "wrong")
        assert view(camera.url).error == view(wrong).error == "HTTPUnauthorizedError"
        assert not [one for one in camera.requests if one.method in ("SETUP", "PLAY")]


def test_a_digest_with_a_nonce_that_it_never_gave_is_refused() -> None:
    with (
        ScriptedCamera(SCENE, username="user", password="right") as camera,
        PlainClient(camera.url) as client,
    ):
        challenge = client.ask("DESCRIBE")[1]["www-authenticate"]
        given = challenge.split('nonce="')[1].split('"')[0]
        assert client.ask("DESCRIBE", Authorization=_digest(camera.url, given))[0] == 200
        assert client.ask("DESCRIBE", Authorization=_digest(camera.url, "0" * 32))[0] == 401


def _digest(url: str, nonce: str) -> str:
    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    realm = "Scripted camera"
    response = md5(f"{md5(f'user:{realm}:right')}:{nonce}:{md5(f'DESCRIBE:{url}')}")
    return f'Digest username="user", realm="{realm}", nonce="{nonce}", uri="{url}", response="{response}"'


def test_it_hangs_up_and_goes_on_listening() -> None:
    with ScriptedCamera(SCENE) as camera:
        watching = watch(camera.url)
        next(watching)
        camera.hang_up()
        assert camera.clients == 0
        assert len(list(watching)) < 100
        assert view(camera.url).seconds == [0]


def test_it_comes_back_on_its_port_after_a_reboot() -> None:
    with ScriptedCamera(SCENE) as camera:
        for _ in range(3):
            camera.stop()
            assert view(camera.url).error == "ConnectionRefusedError"
            camera.start()
            assert view(camera.url).seconds == [0]


def test_a_fault_can_begin_and_end_while_a_client_watches() -> None:
    with ScriptedCamera(SCENE) as camera:
        watching = watch(camera.url)
        assert next(watching).second == 0
        camera.fault = "frozen"
        first_still = _first_still(watching)
        camera.fault = None
        assert camera.fault is None
        assert next(glimpse for glimpse in watching if glimpse.digest != first_still.digest)
        camera.fault = "close_after:0"
        assert len(list(watching)) < 100


def _first_still(watching: Iterator[Glimpse]) -> Glimpse:
    return next(after for before, after in pairwise(watching) if before.digest == after.digest)


def test_it_runs_as_a_program() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.camera", "--port", "0", "--size", "320x240", "--fps", "5"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        url = program.stdout.readline().strip()
        assert view(url).seconds[0] == 0
        program.send_signal(signal.SIGTERM)
        assert program.wait(30) == 0


def test_the_program_names_the_faults() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.camera", "--fault", "nothing_like_it"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "stall_after" in done.stderr
