"""`make demo` as a person runs it who has no camera."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
import requests

from tests.e2e.prepared import MANAGE, ROOT
from tests.e2e.service import Service, free_port, is_running, wait_for

NAMES = ["garden", "harbour-bad-wifi", "street"]


class Demo(Service):
    @property
    def home(self) -> Path:
        """Where it keeps its data."""
        (found,) = Path(self.settings["TMPDIR"]).glob("capture-demo-*")
        return found

    def streams(self, *arguments: str) -> Any:
        """What `manage.py streams` says of it, as JSON."""
        data = {"DATA_DIR": str(self.home / "data"), "MEDIA_ROOT": str(self.home / "media")}
        environment = {name: value for name, value in self.environment.items() if name != "DATABASE_URL"} | data
        done = subprocess.run(
            [sys.executable, MANAGE, "streams", *arguments, "--json"],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        return json.loads(done.stdout)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A short name: sockets lie below it, whose names may have 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        yield Path(folder)


def test_three_cameras_are_captured_until_ctrl_c_and_nothing_is_left(tmp_path: Path, scratch: Path) -> None:
    """In the environment that runs the tests, where nothing is left to install; with short films."""
    settings = {
        "VENV": sys.prefix,
        "TERM": "dumb",
        "TMPDIR": str(scratch),
        "LOOP": "2",
        "DATABASE_URL": "postgres://user@127.0.0.1:1/of-another-installation",
    }
    with Demo(tmp_path, (("make", "demo"),), settings) as demo:
        wait_for(lambda: f"open http://localhost:{demo.port}" in demo.log, "the address to open", 120)
        wait_for(lambda: all(stream["samples"] for stream in demo.streams()), "samples of all three", 60)
        assert [stream["process_name"] for stream in demo.streams()] == NAMES
        page = requests.get(demo.url, headers={"Accept": "text/html"}, timeout=30)
        assert page.status_code == 200
        assert all(name in page.text for name in NAMES)

        grid = tmp_path / "grid.jpg"
        stopped = demo.streams("stop", "garden", "--output", str(grid))
        assert stopped["process_name"] == "garden"
        assert stopped["frames"], (stopped, demo.log)
        assert (picture := cv2.imread(str(grid))) is not None
        assert cv2.mean(picture)[0] > 10, "a black picture"

        family = demo.family()
        assert len(family) > 10
        os.killpg(demo.processes[0].pid, signal.SIGINT)  # as the terminal does
        demo.processes[0].wait(60)
        wait_for(lambda: not any(map(is_running, family)), "every process gone", 30)
    assert list(scratch.iterdir()) == []
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "media").exists()
    assert "Traceback" not in demo.log


STAND_IN = """\
#!/bin/sh
case "$*" in
    "- "* | *healthcheck | *prepare | *"streams stop --all") exit 0 ;;
    *tests.camera.demo*) %s ;;
    *"streams start"*) kill -INT "$PPID"; exit 1 ;;
    *) exec sleep 60 ;;
esac
"""


@pytest.mark.parametrize(
    ("cameras", "status"),
    [("exit 1", 1), ("printf 'rtsp://a\nrtsp://b\nrtsp://c\n'; exec sleep 60", 0)],
    ids=["failed", "ctrl-c while a stream is started"],
)
def test_what_is_to_be_kept_stays_though_nobody_listens(tmp_path: Path, cameras: str, status: int) -> None:
    """The folder may be anyone's, and the terminal is closed."""
    python, kept = tmp_path / "python", tmp_path / "kept folder"
    python.write_text(STAND_IN % cameras)
    python.chmod(0o755)
    kept.mkdir()
    (kept / "precious").touch()
    env = {"PATH": os.environ["PATH"], "PYTHON": str(python), "PORT": str(free_port()), "KEEP": str(kept)}
    with open("/dev/full", "w") as full:
        done = subprocess.run([ROOT / "scripts" / "demo.sh"], env=env, stderr=full, timeout=60, check=False)
    assert (done.returncode, (kept / "precious").exists()) == (status, True)


def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        env = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "PORT": str(port), "TMPDIR": str(tmp_path)}
        done = subprocess.run(
            [ROOT / "scripts" / "demo.sh"], env=env, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr == f"demo: port {port} is taken: PORT=8001 make demo\n"
    assert list(tmp_path.iterdir()) == []
