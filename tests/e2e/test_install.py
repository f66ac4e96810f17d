"""What `make setup` does and says on machines that lack something: Python and apt are stand-ins."""

import ast
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from django.conf import settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.e2e.service import Service, is_running, wait_for

ROOT = Path(__file__).resolve().parents[2]
# What the Dockerfile installs.
IMAGE = [ROOT / "requirements.txt", ROOT / "requirements-s3.txt"]

# A Python whose virtual environments are copies of this script, and whose pip installs nothing. Files in
# $MACHINE say what the machine has; every call that installs something is written to $MACHINE/log.
PYTHON = """#!/bin/bash
case "$1 $2" in
    "-c import ensurepip") [ -e "$MACHINE/packages/python3.11-venv" ] ;;
    "-c import sys, pip"*) exit 0 ;;
    "-c import sys;"*) cat "$MACHINE/version" ;;
    "-m venv")
        venv=$4
        [ "$3" != --clear ] || rm -rf "$venv"
        mkdir -p "$venv/bin"
        [ -e "$MACHINE/packages/python3.11-venv" ] || { echo "ensurepip is not available"; exit 1; }
        cp "$0" "$venv/bin/python"
        echo "VIRTUAL_ENV=$PWD/$venv" >"$venv/bin/activate"
        touch "$venv/pyvenv.cfg"
        ;;
    "-m pip") echo "pip ${*: -1}" >>"$MACHINE/log"; [ ! -e "$MACHINE/no-network" ] ;;
esac
"""
APT_GET = """#!/bin/bash
echo "apt-get $*" >>"$MACHINE/log"
for name; do [[ $name = -* || $name = install ]] || touch "$MACHINE/packages/$name"; done
"""
OTHERS = {
    "id": "cat $MACHINE/uid",
    "sudo": '[ -e "$MACHINE/sudo" ] && shift && "$@"',
    "dpkg-query": '[ -e "$MACHINE/packages/${!#}" ] && echo "install ok installed"',
    "apt-cache": '[ "$2" != chromium ] || [ ! -e "$MACHINE/ubuntu" ]',
}


@dataclass
class Machine:
    """A checkout, and around it a machine that is made of stand-ins."""

    state: Path
    checkout: Path

    def has(self, **files: str) -> None:
        for name, content in files.items():
            (self.state / name.replace("_", "-")).write_text(content)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.state / 'bin'}:/usr/bin:/bin"
        return subprocess.run(
            ["make", "--no-print-directory", *arguments],
            cwd=self.checkout,
            env={"PATH": path, "MACHINE": str(self.state), "HOME": str(self.state)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def installed(self) -> list[str]:
        log = self.state / "log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Debian with Python 3.11 and all of its venv, used by somebody who is not root."""
    checkout = tmp_path / "a checkout"
    shutil.copytree(ROOT / "scripts", checkout / "scripts")
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, checkout)
    machine = Machine(tmp_path / "machine", checkout)
    (machine.state / "packages").mkdir(parents=True)
    (machine.state / "packages" / "python3.11-venv").touch()
    machine.has(version="3.11\n", uid="1000\n")
    pythons = dict.fromkeys(("python3", *(f"python3.{minor}" for minor in range(10, 15))), PYTHON)
    scripts = {name: f"#!/bin/bash\n{line}\n" for name, line in OTHERS.items()}
    (machine.state / "bin").mkdir()
    for name, text in (pythons | scripts | {"apt-get": APT_GET}).items():
        file = machine.state / "bin" / name
        file.write_text(text)
        file.chmod(0o755)
    return machine


def without_venv(machine: Machine) -> None:
    (machine.state / "packages" / "python3.11-venv").unlink()


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the scripts said on standard error; make's own line about the failure is left out."""
    return [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]


def test_a_second_setup_installs_nothing_until_there_are_new_pins(machine: Machine) -> None:
    first, second = machine.make("setup"), machine.make("setup")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert machine.installed() == ["pip requirements.txt"]
    assert second.stdout + second.stderr == ""
    with (machine.checkout / "requirements.txt").open("a") as pins:
        pins.write("one==1.0\n")
    machine.make("setup")
    assert machine.installed() == ["pip requirements.txt"] * 2


def test_an_interrupted_installation_is_done_again(machine: Machine) -> None:
    machine.has(no_network="")
    assert machine.make("setup").returncode != 0
    (machine.state / "no-network").unlink()
    assert machine.make("setup").returncode == 0
    assert machine.installed() == ["pip requirements.txt"] * 2


@pytest.mark.parametrize("damage", ["moved", "python gone"])
def test_an_environment_that_cannot_work_is_made_anew(machine: Machine, damage: str) -> None:
    machine.make("setup")
    if damage == "moved":
        machine.checkout = machine.checkout.rename(machine.checkout.with_name("elsewhere"))
    else:
        (machine.checkout / ".venv/bin/python").unlink()
    assert machine.make("setup").returncode == 0
    assert machine.installed() == ["pip requirements.txt"] * 2


def test_a_folder_that_is_no_environment_is_left_alone(machine: Machine) -> None:
    done = machine.make("setup", "VENV=scripts")
    assert done.returncode != 0
    assert said(done) == ["setup: scripts is not a virtual environment: name another folder with VENV="]
    assert (machine.checkout / "scripts/setup.sh").exists()


def test_an_environment_that_is_a_link_to_another_one_is_left_alone(machine: Machine, tmp_path: Path) -> None:
    """Its scripts name the other folder, so it would be taken for a moved one and emptied."""
    other = tmp_path / "other"
    (other / "bin").mkdir(parents=True)
    (machine.checkout / ".venv").symlink_to(other)
    done = machine.make("setup")
    assert done.returncode != 0
    (line,) = said(done)
    assert line.startswith("setup: .venv is a link, and is not used")
    assert (other / "bin").is_dir()


def test_a_python_that_is_too_old_is_told_in_one_line(machine: Machine) -> None:
    machine.has(version="3.10\n")
    done = machine.make("setup")
    assert done.returncode != 0
    (line,) = said(done)
    assert "needs Python 3.11 or newer" in line
    assert "3.10" in line
    assert not (machine.checkout / ".venv").exists()


def test_another_python_is_taken_where_python3_is_too_old(machine: Machine) -> None:
    old = machine.state / "bin" / "python3"
    old.write_text("#!/bin/bash\necho 3.9\n")
    done = machine.make("setup")
    assert done.returncode == 0, done.stderr
    assert "with python3.13" in done.stdout


def test_a_named_python_is_not_replaced_by_another(machine: Machine) -> None:
    done = machine.make("setup", "PYTHON=/no/such/python")
    assert done.returncode != 0
    assert "found none" in done.stderr


def test_debians_python_without_venv_is_told_in_one_line_where_nothing_may_be_installed(
    machine: Machine,
) -> None:
    without_venv(machine)
    done = machine.make("setup")
    assert done.returncode != 0
    (line,) = said(done)
    assert line.endswith("apt-get install python3.11-venv")
    assert machine.installed() == []
    assert not (machine.checkout / ".venv").exists(), "half an environment is left"


@pytest.mark.parametrize("right", [{"uid": "0\n"}, {"sudo": ""}], ids=["root", "sudo"])
def test_debians_python_without_venv_is_completed_where_that_is_allowed(
    machine: Machine, right: dict[str, str]
) -> None:
    without_venv(machine)
    machine.has(**right)
    done = machine.make("setup")
    assert done.returncode == 0, done.stderr
    assert machine.installed()[-2].endswith("--no-install-recommends python3.11-venv")
    assert machine.installed()[-1] == "pip requirements.txt"


def test_system_packages_of_the_tests_are_told_in_one_line_where_nothing_may_be_installed(
    machine: Machine,
) -> None:
    (machine.state / "packages" / "chromium").touch()
    done = machine.make("setup-dev")
    assert done.returncode != 0
    (line,) = said(done)
    assert "gir1.2-gst-rtsp-server-1.0" in line
    assert "chromium" not in line, "it is there"


def test_system_packages_of_the_tests_are_installed_once(machine: Machine) -> None:
    machine.has(uid="0\n")
    machine.make("setup-dev")
    assert sum(" install " in line for line in machine.installed()) == 1
    before = machine.installed()
    done = machine.make("setup-dev")
    assert done.returncode == 0, done.stderr
    assert machine.installed() == before


def test_a_package_that_apt_does_not_know_is_told_and_the_rest_installed(machine: Machine) -> None:
    machine.has(uid="0\n", ubuntu="")
    done = machine.make("setup-dev")
    assert done.returncode == 0, done.stderr
    assert "does not know chromium" in done.stderr
    assert (machine.state / "packages" / "python3-gi").exists()


def test_every_pin_has_hashes_and_no_file_names_where_packages_come_from() -> None:
    for name, least in {"requirements.txt": 20, "requirements-s3.txt": 5, "requirements-dev.txt": 20}.items():
        text = (ROOT / name).read_text()
        pins = [line for line in text.splitlines() if "==" in line]
        assert len(pins) > least
        assert all(line.endswith("\\") for line in pins)
        assert "://" not in text
        assert "--index" not in text
        assert "--find-links" not in text


def test_the_image_installs_all_that_the_service_imports_and_all_that_this_needs() -> None:
    """The same pins are installed to run these tests: `make setup-dev`."""
    installed = packages_distributions()
    imported = {package for file in sources("streams", "rtspsite") for package in imported_by(file)}
    imported |= {name.partition(".")[0] for name in (*settings.INSTALLED_APPS, *settings.MIDDLEWARE)}
    imported -= {*sys.stdlib_module_names, "streams", "rtspsite"}
    assert {"av", "cv2", "django", "storages"} <= imported
    pinned = {name for file in IMAGE for name in pins(file)}
    by_name = {"gunicorn", "pillow", "psycopg-binary"}  # what serve.sh runs, and what Django imports by itself
    used = by_name | {canonicalize_name(installed[package][0]) for package in imported}
    assert used - pinned == set()
    assert {needed for name in pinned for needed in needed_by(name)} - pinned == set()


def sources(*folders: str) -> list[Path]:
    return [file for folder in folders for file in (ROOT / folder).rglob("*.py")]


def imported_by(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def pins(file: Path) -> list[str]:
    return [canonicalize_name(name) for name in re.findall(r"^([\w.-]+)(?:\[.*\])?==", file.read_text(), re.M)]


def needed_by(name: str) -> Iterator[str]:
    """Distributions that it cannot do without here, whatever it may have in addition."""
    for requirement in map(Requirement, requires(name) or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)


def test_make_run_serves_with_capturing_on_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    """In the environment that runs the tests, where nothing is left to install."""
    settings = {"VENV": sys.prefix, "TERM": "dumb"}
    with Service(tmp_path, (("make", "run"),), settings) as service:
        family = service.family()
        assert service.supervisors()
        os.killpg(service.processes[0].pid, signal.SIGINT)  # as the terminal does
        service.processes[0].wait(60)
        wait_for(lambda: not any(map(is_running, family)), "every process gone", 30)


TAKEN = {
    "scripts/serve.sh": "serve: port {} of 127.0.0.1 is taken: choose another one, for example PORT={}.\n",
    "scripts/serve.sh web": "serve: port {} of 127.0.0.1 is taken: choose another one, for example PORT={}.\n",
    f"{sys.executable} manage.py runserver": "CommandError: Port {} of 127.0.0.1 is taken: choose another one, "
    "for example manage.py runserver 8001.\n",
}


@pytest.mark.parametrize(("command", "says"), TAKEN.items(), ids=[key.split("/")[-1] for key in TAKEN])
def test_a_port_that_is_taken_is_told_in_one_sentence_before_anything_is_prepared(
    tmp_path: Path, command: str, says: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        env = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "PORT": str(port)}
        env |= {"DATA_DIR": str(tmp_path / "data"), "MEDIA_ROOT": str(tmp_path / "media")}
        done = subprocess.run(
            command.split(), env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert (done.stdout, done.stderr) == ("", says.format(port, port + 1))
    assert not (tmp_path / "data" / "db.sqlite3").exists()


@pytest.mark.parametrize("python", ["3.11.0", "3.13.0"])
def test_all_that_the_oldest_python_and_a_new_one_need_is_pinned(python: str) -> None:
    """pip takes nothing without a hash: Debian 12 has 3.11.2, for which redis asks for one more than for 3.11.3."""
    for file in ("requirements.txt", "requirements-dev.txt"):
        pinned = set(re.findall(r"^([a-z0-9-]+)(?:\[.*\])?==", (ROOT / file).read_text(), re.M))
        there = {"python_full_version": python, "python_version": python.rpartition(".")[0], "extra": ""}
        needed = {
            canonicalize_name(one.name)
            for name in pinned
            for one in map(Requirement, requires_of(name))
            if one.marker is None or one.marker.evaluate(there)
        }
        assert needed - pinned - {"pip"} == set(), file  # which an environment begins with


def requires_of(name: str) -> list[str]:
    """What is installed here asks for; nothing of what only other systems install."""
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []
