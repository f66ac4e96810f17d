"""The image, run as README.md and docs/operations.md say."""

import json
import os
import re
import socket
from pathlib import Path

import psutil
import pytest
import requests

from tests.camera.clip import Scene
from tests.camera.server import ScriptedCamera
from tests.e2e.page import Page, marks
from tests.e2e.service import ROOT, free_port, wait_for
from tests.image.podman import HARDENED, READ_ONLY, UID, Container, Containers, podman

SCENE = Scene(160, 120, tuple(80.0 + 4 * second for second in range(40)), fps=10)
OTHER = 4711


def test_it_captures_whatever_is_killed_and_its_volume_keeps_the_history(containers: Containers) -> None:
    options = documented_options()
    with ScriptedCamera(SCENE, live=True, username="viewer", password="a-word") as camera:
        first = containers.run(name="first", options=options, mounts=["history:/data"])
        first.wait_until_healthy()
        assert_has_no_right(first)
        url = camera.url.replace("rtsp://", "rtsp://viewer:a-word@")
        capture = first.begin(url, interval="0.2")
        first.wait_for_samples(capture, 2)
        kill_the_website(first, camera)
        kill_the_supervisor(first, camera)
        first.wait_for_samples(capture, 12)
        page = Page(first.end("demo", "text/html").text)
        assert "The 9 brightest of" in page.words
        assert len(set(marks(page.grid(), 9))) > 1
        recorded = first.capture(capture)
        assert len(recorded["frames"]) == 9

        # A capture that runs at the stop goes on in the next container, with the key that its password is sealed by.
        running = first.begin(url, interval="0.2")
        first.wait_for_samples(running, 2)
        keys = keys_in(containers)
        assert first.stop() == 0, first.log
        assert "still there" not in first.log
        assert_is_for_its_user_alone(containers.volume("history"))
        podman("rm", first.name)

        second = containers.run(name="second", options=options, mounts=["history:/data"])
        second.wait_until_healthy()
        assert keys_in(containers) == keys
        assert second.capture(capture) == recorded
        assert Page(requests.get(f"{second.url}/captures/{capture}/", timeout=60).text).words
        samples = second.capture(running)["samples"]
        second.wait_for_samples(running, samples + 2)
        assert second.stop() == 0, second.log


def documented_options() -> list[str]:
    """What docs/operations.md says of a confined container, without its port, volume and restart."""
    text = (ROOT / "docs" / "operations.md").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^    docker run (.+--cap-drop.+) exercise$", text, re.M)
    for left_out in ("-p 8000:8000", "-v exercise-data:/data", "--restart unless-stopped"):
        assert left_out in line
        line = line.replace(left_out, "")
    return [*line.split(), *READ_ONLY]


def assert_has_no_right(container: Container) -> None:
    """Its processes have the image's user and no capability; only the volume and /tmp can be written."""
    for process in container.processes():
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            continue  # it ended meanwhile
        rights = dict(re.findall(r"^(Uid|Gid|CapEff|CapPrm|CapBnd|CapAmb|NoNewPrivs):\s*(.+)$", status, re.M))
        assert {rights.pop("Uid"), rights.pop("Gid")} == {"\t".join([str(UID)] * 4)}
        assert {name: int(value, 16) for name, value in rights.items()} == {
            "CapEff": 0, "CapPrm": 0, "CapBnd": 0, "CapAmb": 0, "NoNewPrivs": 1,
        }  # fmt: skip
    folders = "/ /app /keys /opt/venv /run /var/tmp /data /tmp"
    tried = container.run("sh", "-c", f"for f in {folders}; do touch $f/try && rm $f/try && echo $f; done")
    assert tried.stdout.split() == ["/data", "/tmp"]


def kill_the_website(container: Container, camera: ScriptedCamera) -> None:
    """It is started again, and the capture does not notice."""
    container.process("gunicorn").kill()
    wait_for(lambda: "the website was killed, status 137" in container.log, "that it is seen")
    container.wait_until_healthy()
    assert (camera.connections, camera.clients) == (1, 1)


def kill_the_supervisor(container: Container, camera: ScriptedCamera) -> None:
    """It is started again, with nothing left of the one before, and the capture goes on; the website stays."""
    website = container.process("gunicorn")
    supervisor = container.process("manage.py supervise")
    its = [supervisor, *supervisor.children(recursive=True)]
    assert len(its) >= 4, "supervisor, fork server, recorder, job cluster"
    supervisor.kill()
    wait_for(lambda: not any(map(is_there, its)), "that nothing of it is left")
    wait_for(lambda: camera.connections == 2 and camera.clients == 1, "that the capture goes on")
    assert container.process("gunicorn") == website
    assert "the supervisor was killed, status 137: starting it again in 0 s." in container.log


def is_there(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def keys_in(containers: Containers) -> list[bytes]:
    return [(containers.volume("history") / name).read_bytes() for name in ("secret_key", "credentials_key")]


def assert_is_for_its_user_alone(volume: Path) -> None:
    files = [path for path in volume.rglob("*") if path.is_file()]
    assert len(list((volume / "media" / "frames").rglob("*.jpg"))) >= 9
    assert {(path.stat().st_uid, path.stat().st_gid) for path in [volume, *volume.rglob("*")]} == {(UID, UID)}
    assert [str(path) for path in files if path.stat().st_mode & 0o077] == [], "others can read it"
    assert [str(path) for path in volume.rglob("*") if path.stat().st_mode & 0o022] == [], "others can write it"


def test_the_checkout_mounted_over_app_is_what_runs(containers: Containers) -> None:
    """README's line: nothing is hidden, nothing is written to the checkout, a stop has 10 s. Logs can be JSON."""
    before = {path for path in ROOT.rglob("*") if path.lstat().st_uid == UID}
    with ScriptedCamera(SCENE) as camera:
        container = containers.run(settings={"HOST": "0.0.0.0", "LOG_FORMAT": "json"}, mounts=[f"{ROOT}:/app"])
        container.wait_until_healthy()
        assert container.run("test", "-e", "/app/tests/image/test_run.py").returncode == 0, "the checkout is mounted"
        capture = container.begin(camera.url, interval="0.1")
        container.wait_for_samples(capture, 2)
        assert container.stop() == 0, container.log
        wait_for(lambda: camera.clients == 0, "that the camera is left")
    lines = [json.loads(line) for line in container.log.splitlines()]
    assert len(lines) > 3
    assert all(isinstance(line, dict) for line in lines), "each line is an object"
    assert {path for path in ROOT.rglob("*") if path.lstat().st_uid == UID} == before


def test_a_folder_of_somebody_else_is_reported_in_one_sentence_with_two_ways_out(
    containers: Containers, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir(mode=0o755)
    os.chown(folder, OTHER, OTHER)
    refused = containers.run(mounts=[f"{folder}:/data"])
    assert refused.wait() == 1
    (line,) = refused.log.splitlines()
    assert f"DATA_DIR /data is not writable for uid {UID}: run chown {UID} on the folder behind /data" in line
    assert f"--user {OTHER}:{OTHER}" in line
    let_in = containers.run(options=[*HARDENED, "--user", f"{OTHER}:{OTHER}"], mounts=[f"{folder}:/data"])
    let_in.wait_until_healthy()
    assert let_in.stop() == 0
    assert (folder / "db.sqlite3").stat().st_uid == OTHER


def test_a_media_folder_of_root_is_reported_in_one_sentence(containers: Containers, tmp_path: Path) -> None:
    refused = containers.run(settings={"MEDIA_ROOT": "/pictures/inside"}, mounts=[f"{tmp_path}:/pictures"])
    assert refused.wait() == 1
    (line,) = refused.log.splitlines()
    assert "MEDIA_ROOT /pictures/inside is not writable for uid" in line
    assert "--user" not in line, "as root nobody should run it"


def test_a_folder_without_the_checkout_is_reported_in_one_sentence(containers: Containers, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    refused = containers.run(mounts=[f"{tmp_path}:/app"])
    assert refused.wait() == 1
    (line,) = refused.log.splitlines()
    assert "cannot read /app/manage.py" in line
    assert "mount the checkout" in line


def test_a_port_that_is_taken_is_reported_in_one_sentence(containers: Containers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = containers.run(settings={"PORT": str(port)})
        assert refused.wait() == 1
    (line,) = refused.log.splitlines()
    assert f"port {port} of 127.0.0.1 is taken" in line


def test_the_health_check_says_what_is_wrong(containers: Containers) -> None:
    """As a command of its own, with no service behind it."""
    port = free_port()
    check = ["--entrypoint", "python3", "--env", f"PORT={port}"]
    silent = containers.run("/opt/exercise/healthcheck", options=check)
    assert silent.wait() == 1
    assert f"http://127.0.0.1:{port}/readyz does not answer" in silent.log
    supervisor = containers.run("/opt/exercise/healthcheck", "supervise", options=check)
    assert supervisor.wait() == 1
    assert "the database is away" in supervisor.log


COMMANDS = {"migrate --plan": (0, "streams.0001_initial"), "no-such": (1, "Unknown command: 'no-such'")}


@pytest.mark.parametrize("command", COMMANDS)
def test_any_other_word_is_a_command_of_manage_py(containers: Containers, command: str) -> None:
    status, said = COMMANDS[command]
    container = containers.run(*command.split(), options=HARDENED)
    assert container.wait() == status
    assert said in container.log
    assert "serve:" not in container.log, "nothing else is done"
