"""`scripts/serve.sh` whose output nobody reads any more, or never could: the service goes on.

And what it is in the middle of starting when it is killed itself.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.camera.clip import Scene
from tests.camera.server import ScriptedCamera
from tests.e2e.prepared import ADMIN, MANAGE, ROOT, prepare_sqlite
from tests.e2e.rows import Rows
from tests.e2e.service import Service, is_running, wait_for

SERVE = str(ROOT / "scripts/serve.sh")
FORK_SERVER = "multiprocessing.forkserver"
SCENE = Scene(160, 120, (120.0, 60.0, 200.0, 90.0), fps=10, gop_s=0.5)


@dataclass
class Unread(Service):
    """Its output is a pipe that is read until `leave` is called."""

    reader: int = -1

    def leave(self) -> None:
        os.close(self.reader)

    def _run(self, command: tuple[str, ...], log: Any) -> "subprocess.Popen[bytes]":
        self.reader, writer = os.pipe()
        with os.fdopen(writer) as pipe:
            return super()._run(command, pipe)


@pytest.fixture
def camera() -> Iterator[ScriptedCamera]:
    with ScriptedCamera(SCENE, live=True) as camera:
        yield camera


def processes_of(service: Service, word: str) -> list[psutil.Process]:
    """Those with this word in their command line, in the order in which they were started."""
    found = []
    for pid in service.family():
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if word in " ".join(process.cmdline()[1:]):
                found.append(process)
    return sorted(found, key=psutil.Process.create_time)


def kill(service: Service, word: str, index: int = 0) -> None:
    """And wait for the one that takes its place."""
    killed = processes_of(service, word)[index]
    killed.kill()
    wait_for(lambda: bool(found := processes_of(service, word)) and found[index] != killed, f"another {word}")


def opened_by(pid: int) -> list[str]:
    """Standard output and error; 0 is the job cluster's link to its supervisor."""
    try:
        return [os.readlink(f"/proc/{pid}/fd/{number}") for number in (1, 2)]
    except FileNotFoundError:
        return [] if is_running(pid) else [os.devnull] * 2


def samples_go_on(service: Service, capture: int) -> None:
    service.wait_for_samples(capture, service.capture(capture)["samples"] + 3)


def test_it_goes_on_when_the_reader_of_its_output_goes_away(tmp_path: Path, camera: ScriptedCamera) -> None:
    """Each part has something to say afterwards, and serve.sh itself says that a part was killed."""
    service = Unread(tmp_path, (("bash", SERVE),), {"PYTHON": sys.executable})
    prepare_sqlite(tmp_path / "data" / "db.sqlite3")
    with service:
        capture = service.begin(camera.url, interval="0.5")
        service.wait_for_samples(capture, 1)
        service.leave()
        kill(service, FORK_SERVER, index=-1)  # a recorder, which is younger than the fork server
        for word in ("manage.py jobs", "rtspsite.wsgi", "manage.py supervise"):
            kill(service, word)
        wait_for(lambda: service._answers("/readyz"), "ready after the kills")
        samples_go_on(service, capture)
        assert service.end("demo").status_code in (200, 409)
        assert service.stop() == [0]


def test_a_stream_that_is_closed_is_given_to_no_file(tmp_path: Path, camera: ScriptedCamera) -> None:
    """The database, a socket or the script itself would get the log."""
    command = ("bash", "-c", f'exec bash "{SERVE}" <&- >&- 2>&-')
    service = Service(tmp_path, (command,), {"PYTHON": sys.executable})
    prepare_sqlite(tmp_path / "data" / "db.sqlite3")
    with service:
        capture = service.begin(camera.url, interval="0.5")
        samples_go_on(service, capture)
        for pid in service.family():
            assert not is_running(pid) or opened_by(pid) == [os.devnull] * 2, psutil.Process(pid).cmdline()
        assert service.stop() == [0]


def test_a_preparation_whose_account_is_made_has_worked_though_nobody_reads_that(tmp_path: Path) -> None:
    account = {"DJANGO_SUPERUSER_USERNAME": "second", "DJANGO_SUPERUSER_PASSWORD": ADMIN[1]}
    service = Service(tmp_path, (), account)
    prepare_sqlite(tmp_path / "data" / "db.sqlite3")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as pipe:
        done = subprocess.run(
            [sys.executable, MANAGE, "prepare"], cwd=ROOT, env=service.environment, stdout=pipe, stderr=pipe,
            timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0
    with Rows(f"sqlite:///{tmp_path}/data/db.sqlite3") as rows:
        assert rows.read("SELECT username FROM auth_user ORDER BY id")[-1] == ("second",)


SLOW_SETPRIV = """#!/bin/sh
case "$*" in *gunicorn*)
    touch "$STARTING"
    while kill -0 "$PPID" 2>/dev/null; do sleep 0.1; done ;;
esac
exec {setpriv} "$@"
"""


def test_what_is_being_started_when_it_is_killed_does_not_stay(tmp_path: Path) -> None:
    """The death of a parent is no signal for a child that asks for one afterwards."""
    programs, starting = tmp_path / "bin", tmp_path / "starting"
    programs.mkdir()
    (programs / "setpriv").write_text(SLOW_SETPRIV.format(setpriv=shutil.which("setpriv")))
    (programs / "setpriv").chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    settings = {"PYTHON": sys.executable, "PATH": path, "STARTING": str(starting)}
    service = Service(tmp_path, (("bash", SERVE, "web"),), settings)
    prepare_sqlite(tmp_path / "data" / "db.sqlite3")
    with (tmp_path / "log").open("wb") as log:
        serve = service._run(service.commands[0], log)
    wait_for(starting.exists, "the start of the website")
    serve.kill()
    serve.wait()
    try:
        wait_for(lambda: not of_service(service), "the end of all", 30)
    finally:
        for pid in of_service(service):
            os.kill(pid, signal.SIGKILL)


def of_service(service: Service) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("PORT") == str(service.port):
                found.append(process.pid)
    return found
