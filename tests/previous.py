"""The release before this one, which runs beside it during an upgrade: its commit, its source, its own packages.

pyproject.toml names the commit. A clone that lacks it, as a shallow one does, fetches it.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from tests.servers import locked

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".venv-previous"
VENV = KEPT / "venv"
FETCH_S, INSTALL_S = 120.0, 400.0


@dataclass(frozen=True, slots=True)
class Release:
    """A source tree and the Python that has its pinned packages."""

    name: str
    root: Path
    python: str

    @property
    def manage(self) -> tuple[str, str]:
        return self.python, str(self.root / "manage.py")

    @property
    def serve(self) -> tuple[str, str]:
        """It takes the Python from the variable PYTHON."""
        return "bash", str(self.root / "scripts" / "serve.sh")


THIS = Release("new", ROOT, sys.executable)


def commit() -> str:
    """All 40 digits."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    return str(tool["upgrade"]["previous"])


def migrations(app: str = "streams") -> list[str]:
    """The names of an app's migrations at that commit, in order."""
    fetch(ROOT, commit())
    found = git(ROOT, "ls-tree", "--name-only", commit(), f"{app}/migrations/").stdout.decode().split()
    return sorted(Path(path).stem for path in found if Path(path).name[0].isdigit())


def read(path: str) -> str:
    """A file of that commit."""
    fetch(ROOT, commit())
    return git(ROOT, "show", f"{commit()}:{path}").stdout.decode()


def previous() -> Release:
    """Unpacked once for a test run. The packages stay in the checkout's .venv-previous, which git ignores."""
    root = Path(os.environ["TEST_DATA"]) / "previous"
    with locked(root.with_suffix(".made")) as done:
        if not done.exists():
            fetch(ROOT, commit())
            shutil.rmtree(root, ignore_errors=True)
            packed = git(ROOT, "archive", "--format=tar", commit()).stdout
            with tarfile.open(fileobj=BytesIO(packed)) as archive:
                archive.extractall(root, filter="data")
            done.touch()
    with locked(KEPT / "venv"):
        _install(root)
    return Release("old", root, str(VENV / "bin" / "python"))


def _install(root: Path) -> None:
    """By that release's own script, which does nothing where its pins are installed.

    Always a virtual environment of its own, also where the pins are the same: this one's has the packages of the
    tests as well, and a package that the release needs and does not name would not be missed.
    """
    pins = "requirements.txt"
    if VENV.exists() and not _are_equal(root / pins, VENV / f"installed-{pins}"):
        shutil.rmtree(VENV)  # else packages of another release would stay in it
    made = subprocess.run(
        ["bash", str(root / "scripts" / "setup.sh"), pins],
        env={**os.environ, "VENV": str(VENV), "PYTHON": sys.executable},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S, check=False,
    )  # fmt: skip
    assert made.returncode == 0, f"The previous release's packages cannot be installed:\n{made.stdout}{made.stderr}"


def _are_equal(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()


# --- git ------------------------------------------------------------------------------------------


class Missing(Exception):
    """The commit is not in this clone and cannot be fetched."""


def fetch(clone: Path, wanted: str) -> None:
    """Bring the commit into the clone, alone if it is shallow, else with its history. Raises Missing."""
    if not shutil.which("git"):
        raise Missing(_missing(wanted, "git is not installed"))
    if git(clone, "rev-parse", "--git-dir").returncode:
        raise Missing(_missing(wanted, f"{clone} is not a git clone"))
    with locked(Path(os.environ["TEST_DATA"]) / "fetch.git"):
        if _has(clone, wanted):
            return
        remotes = git(clone, "remote").stdout.decode().split()
        if not remotes:
            raise Missing(_missing(wanted, "this clone has no remote to fetch it from"))
        remote = "origin" if "origin" in remotes else remotes[0]
        is_shallow = git(clone, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
        said = ""
        for options in (
            (["--depth=1", remote, wanted], ["--unshallow", remote]) if is_shallow else ([remote, wanted],)
        ):
            said += git(clone, "fetch", "--no-tags", *options).stderr.decode(errors="replace")
            if _has(clone, wanted):
                return
        raise Missing(_missing(wanted, f"git cannot fetch it from {remote}: {said.strip()}"))


def git(clone: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run git in that clone, whatever its owner and a hook's environment; git never asks for a password."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(clone), *arguments],
        env={**kept, "GIT_TERMINAL_PROMPT": "0"},
        stdin=subprocess.DEVNULL, capture_output=True, timeout=FETCH_S, check=False,
    )  # fmt: skip


def _has(clone: Path, wanted: str) -> bool:
    return git(clone, "cat-file", "-e", f"{wanted}^{{tree}}").returncode == 0


def _missing(wanted: str, why: str) -> str:
    return f"The upgrade is tested from the previous release, commit {wanted}, which this clone lacks: {why}."
