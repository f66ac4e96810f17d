"""Starting, stopping and starting again: who runs, who is left, and what is kept."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from streams.engine import sheet
from tests.camera.clip import Scene, encode
from tests.camera.mark import read_mark
from tests.camera.server import ScriptedCamera
from tests.e2e.page import Page, marks
from tests.e2e.rows import Rows
from tests.e2e.service import Service, gunicorn, is_running, runserver, wait_for
from tests.figures import Figure

# Darker every second: whoever forgets the first ones cannot have them again.
PLAN = (*(250.0 - 3 * second for second in range(75)), *(24.0,) * 165)
STARTED_BEFORE = 3  # supervisors of the same log: one was killed and replaced, then all were started again


@pytest.fixture
def camera() -> Iterator[ScriptedCamera]:
    with ScriptedCamera(encode(Scene(160, 120, PLAN, fps=5)), live=True) as camera:
        yield camera


def test_gunicorn_and_a_supervisor_go_on_by_themselves_and_keep_what_they_had(
    tmp_path: Path, camera: ScriptedCamera
) -> None:
    with gunicorn(tmp_path) as service:
        capture = service.begin(camera.url)
        service.wait_for_samples(capture, 6)
        leave(service, camera, signal.SIGTERM)
        saved = saved_seconds(service, capture)
        assert len(saved) >= 6

        service.start()
        keeps_what_it_had(service, camera, capture, saved)


def test_runserver_goes_on_by_itself_and_keeps_what_it_had(
    tmp_path: Path, camera: ScriptedCamera, figure: Figure
) -> None:
    """Each time it ends in another way: told to in two ways, killed; and its supervisor is killed below it."""
    without_a_supervisor_nothing_is_lost_and_the_answers_say_so(tmp_path, camera)
    with runserver(tmp_path) as service:
        wait_for(lambda: service.capture(1)["finished_at"], "the capture finished later")
        capture = service.begin(camera.url)
        service.wait_for_samples(capture, 6)
        a_killed_supervisor_is_replaced(service, camera, capture, figure)
        leave(service, camera, signal.SIGINT)
        saved = saved_seconds(service, capture)
        assert len(saved) >= 6

        service.start()
        wait_for(lambda: camera.clients == 1, "the camera's viewer")
        family = service.family()
        service.stop(signal.SIGKILL)
        wait_until_gone(family)
        assert camera.clients == 0

    with runserver(tmp_path, "--skip-checks") as service:  # with the autoreloader
        keeps_what_it_had(service, camera, capture, saved)
        assert len(service.supervisors()) == 1
        assert service.log.count("supervisor started") == 1 + STARTED_BEFORE
        assert "running already" not in service.log
        service.begin(camera.url)
        wait_for(lambda: camera.clients == 1, "the camera's viewer")
        leave(service, camera, signal.SIGTERM)


def without_a_supervisor_nothing_is_lost_and_the_answers_say_so(folder: Path, camera: ScriptedCamera) -> None:
    service = runserver(folder, "--noreload", "--no-supervise")
    service.start(until="/livez")
    try:
        started = service.post("/start", rtsp_url=camera.url)
        assert started.status_code == 201
        assert "No supervisor is running" in started.text
        answer = service.stop_once("demo")
        assert answer.status_code == 202
        assert 'http-equiv="refresh"' in answer.text
        assert f"{service.url}/captures/1/" in answer.text
    finally:
        service.stop()


def a_killed_supervisor_is_replaced(service: Service, camera: ScriptedCamera, capture: int, figure: Figure) -> None:
    (pid,) = service.supervisors()
    supervisor = psutil.Process(pid)
    family = {pid, *(child.pid for child in supervisor.children(recursive=True))}
    with Rows(f"sqlite:///{service.folder / 'data' / 'db.sqlite3'}") as rows:
        kept = rows.boards([capture])[capture]
        killed_at = time.time()
        os.kill(pid, signal.SIGKILL)
        wait_until_gone(family)
        figure("supervisor killed (runserver): nothing of it left", time.time() - killed_at, 5.0)
        wait_for(lambda: rows.are_sampled([capture], killed_at), "a sample of after the kill")
        figure("supervisor killed (runserver): sampled again", time.time() - killed_at, 10.0)
        assert kept
        # Nine places, and each second is darker than the one before.
        assert kept <= rows.boards([capture])[capture]
    assert len(service.supervisors()) == 1
    assert camera.connections == 2


def leave(service: Service, camera: ScriptedCamera, number: signal.Signals) -> None:
    """Told to, it takes leave of the camera, and nothing of it is left."""
    family, teardowns = service.family(), camera.teardowns
    codes = service.stop(number)
    assert codes == [0] * len(codes)
    wait_until_gone(family)
    assert (camera.clients, camera.teardowns) == (0, teardowns + 1)


def keeps_what_it_had(service: Service, camera: ScriptedCamera, capture: int, saved: list[int]) -> None:
    wait_for(lambda: camera.clients == 1, "the camera's next viewer")
    samples = service.capture(capture)["samples"]
    service.wait_for_samples(capture, max(samples, 9) + 5)
    assert service.capture(capture)["status"] == "capturing"
    answer = service.end("demo")
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
