"""GStreamer's RTSP server plays our films: the same pictures, exact timestamps, real time."""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.camera.auth import Scheme
from tests.camera.clip import Scene, cached_mp4
from tests.camera.gst import GstServer, GstUnavailable, gst_command
from tests.camera.viewer import view

SCENE = Scene(320, 240, (40, 200), fps=25)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("films")
    return {
        "demo": cached_mp4(SCENE, folder),
        "live/reordered": cached_mp4(replace(SCENE, b_frames=2), folder),
        "hevc": cached_mp4(replace(SCENE, codec="hevc"), folder),
        "mpeg4": cached_mp4(replace(SCENE, codec="mpeg4"), folder),
    }


@pytest.fixture(scope="module")
def server(films: dict[str, Path]) -> Iterator[GstServer]:
    with GstServer(films) as running:
        yield running


@pytest.mark.parametrize("name", ["demo", "live/reordered", "hevc", "mpeg4"])
def test_it_shows_the_plan_with_exact_timestamps(server: GstServer, name: str) -> None:
    seen = view(server.url(name), frames=35)
    planned = [SCENE.plan[number // 25] for number in range(35)]
    assert [glimpse.luma for glimpse in seen.glimpses] == pytest.approx(planned, abs=1)
    assert [glimpse.second for glimpse in seen.glimpses] == [number // 25 for number in range(35)]
    assert seen.steps_ticks == {3600}


def test_it_plays_in_real_time_and_ends_with_the_film(server: GstServer) -> None:
    began_s = time.monotonic()
    seen = view(server.url("demo"), frames=99)
    assert (len(seen.glimpses), seen.error) == (50, "")
    assert time.monotonic() - began_s > 1.9  # a loaded machine is slower, never faster


def test_each_client_has_the_film_from_its_start(server: GstServer) -> None:
    with ThreadPoolExecutor(5) as pool:
        views = list(pool.map(view, [server.url("demo")] * 5))
    assert [seen.seconds for seen in views] == [[0]] * 5


def test_it_sends_over_udp(server: GstServer) -> None:
    assert view(server.url("demo"), rtsp_transport="udp").seconds == [0]


def test_another_name_is_not_found(server: GstServer) -> None:
    assert view(server.url("nothing")).error == "HTTPNotFoundError"


@pytest.mark.parametrize("auth", ["digest", "basic"])
def test_it_asks_for_credentials(films: dict[str, Path], auth: Scheme) -> None:
    with GstServer(films, "us er", "p@ss:w/\u00fc", auth) as server:
        assert view(server.url("demo")).error == "HTTPUnauthorizedError"
        assert view(server.url_with_credentials("demo"), frames=1).seconds == [0]


def test_it_ends_when_nobody_holds_its_input(films: dict[str, Path]) -> None:
    command = gst_command(films)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline().startswith(b"ready ")
        process.stdin.close()
        assert process.wait(30) == 0


def test_it_says_when_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(GstUnavailable), GstServer({"demo": tmp_path / "missing.mp4"}):
        pass
