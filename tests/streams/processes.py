"""Commands of the service as processes of their own, with a data folder of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STARTS_WITHIN_S = 60


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Nothing of the test's own settings; data and pictures below the folder."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "DATA_DIR": str(folder / "data"),
        "MEDIA_ROOT": str(folder / "media"),
        "CAPTURE_HOST_NAME": "north",
        **variables,
    }


def manage(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable, "manage.py", *arguments], folder, variables)


def python(code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable, "-c", code], folder, variables)


SETTINGS = """
import importlib, json, os, sys
for variables in json.load(sys.stdin):
    os.environ.update(variables)
    for name in [name for name in sys.modules if name.split(".")[0] == "rtspsite"]:
        del sys.modules[name]
    try:
        s = importlib.import_module("rtspsite.settings")
        print(json.dumps([True, str({})]))
    except Exception as error:
        print(json.dumps([False, str(error)]))
    for name in variables:
        del os.environ[name]
"""


def settings_with(folder: Path, what: str, *cases: dict[str, str]) -> list[tuple[bool, str]]:
    """Whether each case's variables are taken, and what comes of them or the complaint; all in one process."""
    command = [sys.executable, "-c", SETTINGS.replace("{}", what)]
    done = _run(command, folder, {}, json.dumps(cases))
    assert done.returncode == 0, done.stderr
    return [(bool(is_taken), str(said)) for is_taken, said in map(json.loads, done.stdout.splitlines())]


@contextmanager
def managing(folder: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs on. What it logs is in `folder / "log"`; it is gone when the context ends."""
    command = [sys.executable, "manage.py", *arguments]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(folder, **variables), stderr=log, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


def children(pid: int) -> list[int]:
    """Pids of all descendants, sessions of their own included."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found[1:]


def _run(
    command: list[str], folder: Path, variables: dict[str, str], said: str = ""
) -> subprocess.CompletedProcess[str]:
    env = environment(folder, **variables)
    return subprocess.run(
        command, cwd=ROOT, env=env, input=said, capture_output=True, text=True, timeout=STARTS_WITHIN_S, check=False
    )
