"""Starting, stopping and starting again: who runs, who is left, and what is kept."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams.engine import sheet
from tests.camera.clip import Scene, encode
from tests.camera.mark import read_mark
from tests.camera.server import ScriptedCamera
from tests.e2e.page import Page, marks
from tests.e2e.service import Service, free_port, gunicorn, is_running, runserver, wait_for

# Darker every second: whoever forgets the first ones cannot have them again.
PLAN = tuple(250.0 - 3 * second for second in range(80))


@pytest.fixture
def camera() -> Iterator[ScriptedCamera]:
    with ScriptedCamera(encode(Scene(320, 240, PLAN, fps=10)), live=True) as camera:
        yield camera


@pytest.mark.parametrize("starter", [runserver, gunicorn])
def test_a_restart_goes_on_by_itself_and_keeps_what_it_had(
    starter: Callable[..., Service], tmp_path: Path, camera: ScriptedCamera
) -> None:
    with starter(tmp_path) as service:
        capture = service.begin(camera.url)
        service.wait_for_samples(capture, 6)
        family = service.family()
        codes = service.stop()
        assert codes == [0] * len(codes)
        wait_until_gone(family)
        assert (camera.clients, camera.teardowns) == (0, 1)
        saved = saved_seconds(service, capture)
        assert len(saved) >= 6

        service.start()
        wait_for(lambda: camera.clients == 1, "the camera's second viewer")
        service.wait_for_samples(capture, 14)
        found = service.capture(capture)
        answer = service.end("demo")
    assert found["status"] == "capturing"
    assert answer.status_code == 200
    shown = marks(Page(answer.text).grid(), 9)
    assert shown[: len(saved)] == saved
    assert shown == sorted(shown)


def wait_until_gone(family: set[int]) -> None:
    wait_for(lambda: not any(map(is_running, family)), "every process gone", 30)


def saved_seconds(service: Service, capture: int) -> list[int]:
    """The seconds whose frames lie on the disk, brightest first."""
    files = (service.folder / "media" / "frames" / str(capture)).iterdir()
    return sorted(read_mark(sheet.decode_jpeg(file.read_bytes())) for file in files)


def test_a_killed_website_takes_its_supervisor_with_it(tmp_path: Path, camera: ScriptedCamera) -> None:
    with runserver(tmp_path) as service:
        capture = service.begin(camera.url)
        service.wait_for_samples(capture, 1)
        family = service.family()
        service.stop(signal.SIGKILL)
        wait_until_gone(family)
        assert camera.clients == 0


def test_a_killed_supervisor_is_replaced_and_its_capture_goes_on(tmp_path: Path, camera: ScriptedCamera) -> None:
    with runserver(tmp_path) as service:
        capture = service.begin(camera.url)
        service.wait_for_samples(capture, 3)
        (first,) = service.supervisors()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: service.supervisors() - {first}, "another supervisor")
        service.wait_for_samples(capture, 6)
        assert len(service.supervisors()) == 1
        assert camera.connections == 2


def test_the_autoreloader_has_one_supervisor_and_takes_it_down(tmp_path: Path, camera: ScriptedCamera) -> None:
    with runserver(tmp_path, "--skip-checks") as service:
        capture = service.begin(camera.url)
        service.wait_for_samples(capture, 2)
        assert len(service.supervisors()) == 1
        assert service.log.count("supervisor started") == 1
        assert "running already" not in service.log
        family = service.family()
        service.stop()
        wait_until_gone(family)
        assert camera.teardowns == 1


def test_ctrl_c_ends_it_all(tmp_path: Path, camera: ScriptedCamera) -> None:
    with runserver(tmp_path) as service:
        capture = service.begin(camera.url)
        service.wait_for_samples(capture, 1)
        family = service.family()
        service.stop(signal.SIGINT)
        wait_until_gone(family)


def test_without_a_supervisor_nothing_is_lost_and_the_answers_say_so(tmp_path: Path, camera: ScriptedCamera) -> None:
    service = runserver(tmp_path, "--noreload", "--no-supervise")
    service.start(until="/livez")
    with_supervisor = runserver(tmp_path, port=str(free_port()))
    try:
        started = service.post("/start", rtsp_url=camera.url)
        assert started.status_code == 201
        assert "No supervisor is running" in started.text
        answer = service.end("demo")
        assert answer.status_code == 202
        assert 'http-equiv="refresh"' in answer.text
        assert f"{service.url}/captures/1/" in answer.text
    finally:
        service.stop()
    with with_supervisor:
        wait_for(lambda: with_supervisor.capture(1)["finished_at"], "the capture finished later")
