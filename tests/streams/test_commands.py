"""The commands as processes: prepare, and supervise with its cluster and recorders."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from streams.management.commands.supervise import Command
from streams.supervisor import Supervisor
from tests.e2e.prepared import prepare_sqlite
from tests.streams.processes import ROOT, children, environment, manage, managing
from tests.streams.waiting import until

ACCOUNT = {"DJANGO_SUPERUSER_USERNAME": "keeper", "DJANGO_SUPERUSER_PASSWORD": "horse-battery-9"}


def ask(folder: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(folder / "data/db.sqlite3", timeout=20)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def log_of(folder: Path) -> str:
    return (folder / "log").read_text()


def is_running(process: "subprocess.Popen[str]") -> bool:
    return process.poll() is None


def has_cluster(process: "subprocess.Popen[str]") -> bool:
    """The leader, its sentinel, workers, pusher and monitor."""
    return len(children(process.pid)) > 3


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


# --- prepare --------------------------------------------------------------------------------------


def test_two_that_prepare_at_once_both_succeed_and_what_they_made_stays(tmp_path: Path) -> None:
    """Two containers that start together against one database; later a third one, after an update."""
    command = [sys.executable, "manage.py", "prepare"]
    env = environment(tmp_path, **ACCOUNT)
    both = [
        subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    lines = [line for text in said for line in text.splitlines()]
    assert [line for line in lines if "reserve made" not in line] == ["The account keeper was made."]
    assert len(lines) == 2
    accounts = ask(tmp_path, "SELECT username, is_staff, is_superuser, password FROM auth_user")
    assert [account[:3] for account in accounts] == [("keeper", 1, 1)]
    assert "horse-battery-9" not in f"{said}{accounts}"
    assert (tmp_path / "data/db.sqlite3").stat().st_mode & 0o077 == 0
    daily = [("prune", "streams.jobs.prune", "D")]
    assert ask(tmp_path, "SELECT name, func, schedule_type FROM django_q_schedule") == daily

    again = manage(tmp_path, "prepare", **(ACCOUNT | {"DJANGO_SUPERUSER_PASSWORD": "another-9-word"}))
    assert (again.returncode, again.stdout) == (0, "")
    assert ask(tmp_path, "SELECT username, is_staff, is_superuser, password FROM auth_user") == accounts
    assert ask(tmp_path, "SELECT name, func, schedule_type FROM django_q_schedule") == daily


def test_prepare_makes_no_account_that_was_not_asked_for(tmp_path: Path) -> None:
    assert manage(tmp_path, "prepare", DJANGO_SUPERUSER_USERNAME="keeper").returncode == 0
    assert ask(tmp_path, "SELECT username FROM auth_user") == []


# --- supervise ------------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    prepare_sqlite(tmp_path / "data/db.sqlite3")
    return tmp_path


def elsewhere(folder: Path) -> dict[str, str]:
    """Another machine with the database of the first one and, by mistake, its name."""
    return {"DATABASE_URL": f"sqlite:///{folder}/data/db.sqlite3", "DATA_DIR": str(folder / "other")}


def test_one_supervisor_runs_of_each_host_name(prepared: Path) -> None:
    with managing(prepared, "supervise") as first:
        until(lambda: "supervisor started" in log_of(prepared), 60)
        second = manage(prepared, "supervise")
        assert second.returncode == 1
        assert second.stderr.strip() == "CommandError: A supervisor for the host name 'north' is running already."
        second = manage(prepared, "supervise", **elsewhere(prepared))
        assert second.returncode == 1
        assert second.stderr.strip().splitlines()[-1] == (
            "CommandError: Another machine runs a supervisor for the host name 'north': "
            "set CAPTURE_HOST_NAME to another one."
        )
        assert "waiting whether another machine has this name" in second.stderr
        assert "supervisor started" not in second.stderr
        assert first.poll() is None
        assert "another supervisor has this name" not in log_of(prepared)
        assert ask(prepared, "SELECT name, slots, epoch FROM streams_host") == [("north", 64, 1)]

        until(partial(has_cluster, first), 60)
        started = children(first.pid)
        first.kill()
        first.wait(30)
        until(lambda: all(map(is_gone, started)))

    with managing(prepared, "supervise") as second_start:  # the lock of one that was killed is free at once
        until(lambda: "supervisor started" in log_of(prepared), 60)
        assert second_start.poll() is None
        assert "waiting whether" not in log_of(prepared)
        second_start.kill()
        second_start.wait(30)
        killed_s = time.monotonic()

    with managing(prepared, "supervise", **elsewhere(prepared)) as third:  # the name of a machine that was killed
        until(lambda: "supervisor started" in log_of(prepared), 60)
        assert third.poll() is None
        is_asked_at_once = time.monotonic() - killed_s < 6  # after that the name is free
        assert "waiting whether another machine has this name" in log_of(prepared) or not is_asked_at_once


def test_supervisors_side_by_side_leave_when_they_are_told_and_leave_nobody_behind(prepared: Path) -> None:
    """The first one's cluster is killed before, and started again. Not migrated is as good as away."""
    shared = {name: value for name, value in environment(prepared).items() if name.endswith(("DIR", "ROOT"))}
    folders = {name: prepared / name for name in ("south", "orphan", "waiting")}
    for folder in folders.values():
        folder.mkdir()
    with (
        managing(prepared, "supervise") as north,
        managing(folders["south"], "supervise", **shared, CAPTURE_HOST_NAME="south") as south,
        # runserver gives its pid; a pid that is not the parent's is a parent that is gone
        managing(folders["orphan"], "supervise", "--parent", "1", **shared, CAPTURE_HOST_NAME="east") as orphan,
        managing(folders["waiting"], "supervise") as waiting,
    ):
        for process in (north, south):
            until(partial(has_cluster, process), 60)
        leader = children(north.pid)[0]
        os.killpg(leader, signal.SIGKILL)
        until(lambda: "job cluster ended" in log_of(prepared), 60)
        until(lambda: has_cluster(north) and leader not in children(north.pid), 60)
        assert orphan.wait(60) == 0
        until(lambda: "waiting for the database" in log_of(folders["waiting"]), 60)
        assert all(map(is_running, (north, south, waiting)))

        started = children(north.pid) + children(south.pid)
        north.send_signal(signal.SIGTERM)
        south.send_signal(signal.SIGINT)
        waiting.terminate()
        assert (north.wait(30), south.wait(30)) == (0, 0)
        waiting.wait(30)
        until(lambda: all(map(is_gone, started)))
    for name, folder in (("north", prepared), ("south", folders["south"])):
        assert f"host={name} supervisor left" in log_of(folder)
        assert "Traceback" not in log_of(folder)
    alive = "SELECT 1 FROM streams_host WHERE heartbeat_at > datetime('now', '-15 seconds')"
    assert ask(prepared, alive) == []


def test_a_fault_while_recorders_are_heard_does_not_end_the_supervisor(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(Supervisor):
        def __init__(self) -> None:
            self.ticks = 0

        def tick(self) -> None:
            self.ticks += 1

        def wait(self) -> None:
            raise RuntimeError("a fault")

    faulty = Faulty()
    Command()._tick(faulty)
    assert faulty.ticks == 1
    assert ["tick failed" in record.getMessage() for record in caplog.records] == [True]
