"""What README.md and docs/operations.md say, done word for word."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from streams.engine import sheet
from tests.camera.clip import Scene
from tests.camera.server import ScriptedCamera
from tests.e2e.page import Page, marks
from tests.e2e.scenes import plan
from tests.e2e.service import ROOT, runserver

README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SETTINGS = re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', (ROOT / "rtspsite" / "settings.py").read_text())


def test_the_curl_lines_start_a_capture_and_bring_its_grid(tmp_path: Path) -> None:
    start, stop = re.findall(r"^    (curl (?!-H).*)$", README, re.M)  # test_guarded.py has the one with a token
    scene = Scene(320, 240, plan(7, levels=18, tail_s=42), fps=10)
    [(username, password)] = re.findall(r"rtsp://(.+):(.+)@", start)
    camera = ScriptedCamera(scene, username=username, password=password, host="127.0.0.1")
    with camera, runserver(tmp_path / "service") as service:
        answer = shell(localised(start, camera.port, service.port), tmp_path)
        assert "process_name=demo" in answer
        service.wait_for_samples(1, 10)
        shell(localised(stop, camera.port, service.port), tmp_path)
    assert password not in service.log
    assert "***" not in service.log
    page = Page((tmp_path / "response.html").read_text())
    assert len(set(marks(page.grid(), 9))) == 9


def test_the_line_without_a_service_brings_a_grid(tmp_path: Path) -> None:
    """For less than its minute: fewer frames than nine are a code of their own, and their grid is there."""
    [line] = [line.strip() for line in README.splitlines() if "manage.py capture" in line]
    scene = Scene(320, 240, plan(8, levels=18, tail_s=42), fps=10)
    with ScriptedCamera(scene, host="127.0.0.1") as camera:
        shorter = line.replace("--duration 60", "--duration 2").replace(
            "camera.example:8554", f"127.0.0.1:{camera.port}"
        )
        assert shorter.count(str(camera.port)) == shorter.count("--duration 2") == 1
        words = shorter.replace(".venv/bin/python manage.py", f"{sys.executable} {ROOT / 'manage.py'}").split()
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stderr
    said = re.search(r"captured: (\d) of 9", done.stderr)
    assert said, done.stderr
    count = int(said[1])
    assert len(set(marks(sheet.decode_jpeg((tmp_path / "grid.jpg").read_bytes()), count))) == count >= 2


def localised(line: str, camera_port: int, service_port: int) -> str:
    """The same line for a camera and a service on this machine."""
    assert "camera.example:8554" in line or "/stop" in line
    return line.replace("camera.example:8554", f"127.0.0.1:{camera_port}").replace(
        "localhost:8000", f"127.0.0.1:{service_port}"
    )


def shell(line: str, folder: Path) -> str:
    done = subprocess.run(["bash", "-c", line], cwd=folder, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


@pytest.mark.parametrize("command", sorted(set(re.findall(r"(?:^    |`)make ([a-z-]+)", README, re.M))))
def test_each_make_command_exists(command: str) -> None:
    assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize(
    "folder", re.findall(r"^\| `([^`]+)`(?:, `([^`]+)`)? \|", README.partition("| where |")[2], re.M)
)
def test_each_place_exists(folder: tuple[str, str]) -> None:
    missing = [name for name in filter(None, folder) if name != "data/" and not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_is_told(name: str) -> None:
    assert f"`{name}`" in OPERATIONS
    assert re.search(rf"^#{name}=", (ROOT / ".env.example").read_text(), re.M)
