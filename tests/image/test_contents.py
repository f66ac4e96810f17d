"""What is in the image, layer by layer: scripts/test-image.sh lays into the context what must not get there."""

import os
import re
from pathlib import Path
from typing import Any

from tests.image.podman import UID, Containers, files_below, inspected, podman

CONTEXT = Path(os.environ.get("TEST_IMAGE_CONTEXT", ""))
# As .dockerignore has it, told again: what a checkout holds beside the service.
NOT_THE_SERVICE = ("tests/", "bench/", "deploy/", "media/", "data/", ".ci/", ".git/", ".venv/", ".mypy_cache/")
PLANTED = re.compile(
    r"(^|/)(\.env(\.production)?|\.git|\.venv|data|media|__pycache__|\.mypy_cache|\.coverage)(/|$)|\.sqlite3"
)


def layers_of(image: str) -> list[Path]:
    """Its folders, the lowest one first."""
    driver: dict[str, Any] = inspected(image)["GraphDriver"]
    assert driver["Name"] in ("overlay", "vfs")
    if driver["Name"] == "vfs":
        return [Path(driver["Data"]["dir"])]  # all layers at once
    data = driver["Data"]
    return [*map(Path, reversed(data.get("LowerDir", "").split(":"))), Path(data["UpperDir"])]


def own_layers() -> list[Path]:
    """Without those of the image that it stands on."""
    below = inspected("docker.io/library/python:3.13-slim")["RootFS"]["Layers"]
    layers = layers_of("exercise")
    return layers if len(layers) == 1 else layers[len(below) :]


def test_the_service_is_in_it_and_nothing_else_of_the_checkout(containers: Containers) -> None:
    names = {str(path.relative_to(CONTEXT)) for path in CONTEXT.rglob("*") if path.is_file()}
    expected = {name for name in names if not name.startswith(NOT_THE_SERVICE) and not PLANTED.search(name)}
    assert {"manage.py", ".env.example", "streams/models.py", "rtspsite/settings.py"} <= expected
    listed = containers.run("/app", "-type", "f", options=["--entrypoint", "find"])
    assert listed.wait() == 0, listed.log
    assert {line.removeprefix("/app/") for line in listed.log.splitlines()} == expected


def test_no_layer_holds_what_was_planted() -> None:
    """A file that a later step removed would still be in the layer of the step that brought it."""
    planted = re.findall(r"planted-\S+", " ".join((CONTEXT / name).read_text() for name in (".env", ".git/config")))
    assert planted == ["planted-.env", "planted-.git/config"]
    wanted = re.compile(rb"planted-[.\w]")
    looked_at = 0
    for layer in own_layers():
        for folder in ("app", "opt/exercise"):
            for path in files_below(layer / folder):
                if path.is_file() and not path.is_symlink():
                    looked_at += 1
                    assert not wanted.search(path.read_bytes()), path
    assert looked_at > 100
    told = podman("history", "--no-trunc", "exercise").stdout
    assert "image-install.sh" in told
    assert not re.search(r"planted-|index-url|pip\.conf", told)


def test_its_settings_hold_no_secret_and_no_trace_of_the_machine_that_built_it() -> None:
    image = inspected("exercise")
    config = image["Config"]
    assert {pair.split("=")[0] for pair in config["Env"]} == {
        "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "APP_DIR", "DATA_DIR", "MEDIA_ROOT", "HOST", "PORT",
    }  # fmt: skip
    assert config["User"] == f"{UID}:{UID}"
    assert config["Entrypoint"] == ["bash", "/opt/exercise/serve.sh"]
    assert list(config["Volumes"]) == ["/data"]
    assert list(config["ExposedPorts"]) == ["8000/tcp"]
    assert image["Healthcheck"]["Test"] == ["CMD", "python3", "/opt/exercise/healthcheck"]


def test_another_source_leaves_the_layer_of_the_packages_as_it_is() -> None:
    ours, other = (inspected(image)["RootFS"]["Layers"] for image in ("exercise", "exercise-changed"))
    same = [mine == theirs for mine, theirs in zip(ours, other, strict=True)]
    assert same[-1] is False
    assert same[:-1] == [True] * (len(ours) - 1)
    assert len(ours) >= 4


LOOK = r"""
import os, stat
def walk(folder):
    for entry in os.scandir(folder):
        if entry.path in ("/proc", "/sys", "/dev"):
            continue
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            continue
        if status.st_uid == os.getuid() or os.access(entry.path, os.W_OK):
            print("writable", entry.path)
        if status.st_mode & (stat.S_ISUID | stat.S_ISGID) and stat.S_ISREG(status.st_mode):
            print("set-id", entry.path)
        if entry.is_dir(follow_symlinks=False) and os.access(entry.path, os.R_OK | os.X_OK):
            walk(entry.path)
walk("/")
"""


def test_its_user_owns_and_writes_its_folders_alone_and_no_program_gives_more(containers: Containers) -> None:
    """Without --read-only, which would hide it."""
    container = containers.run("-c", LOOK, options=["--entrypoint", "python3"])
    assert container.wait() == 0, container.log
    found = sorted(container.log.splitlines())
    assert found == [
        f"writable {path}" for path in ("/data", "/data/media", "/keys", "/run/lock", "/tmp", "/var/tmp")
    ]
