"""Commands of the service as processes of their own, with a data folder of their own."""

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


def _run(command: list[str], folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    env = environment(folder, **variables)
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=STARTS_WITHIN_S, check=False
    )
