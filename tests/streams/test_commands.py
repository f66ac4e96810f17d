"""The commands as processes: prepare, and supervise with its cluster and recorders."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from streams.management.commands.supervise import Command
from streams.supervisor import Supervisor
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


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


# --- prepare --------------------------------------------------------------------------------------


def test_prepare_can_be_repeated_and_makes_the_account_once(tmp_path: Path) -> None:
    first = manage(tmp_path, "prepare", **ACCOUNT)
    assert (first.returncode, first.stdout.strip()) == (0, "The account keeper was made.")
    hashed = ask(tmp_path, "SELECT password FROM auth_user")
    again = manage(tmp_path, "prepare", **(ACCOUNT | {"DJANGO_SUPERUSER_PASSWORD": "another-9-word"}))
    assert (again.returncode, again.stdout) == (0, "")
    assert ask(tmp_path, "SELECT password FROM auth_user") == hashed
    assert ask(tmp_path, "SELECT username, is_staff, is_superuser FROM auth_user") == [("keeper", 1, 1)]
    assert "horse-battery-9" not in f"{first.stdout}{first.stderr}{hashed}"


def test_prepare_makes_no_account_that_was_not_asked_for(tmp_path: Path) -> None:
    assert manage(tmp_path, "prepare").returncode == 0
    assert manage(tmp_path, "prepare", DJANGO_SUPERUSER_USERNAME="keeper").returncode == 0
    assert ask(tmp_path, "SELECT username FROM auth_user") == []


def test_what_prepare_makes_is_for_the_service_alone(tmp_path: Path) -> None:
    manage(tmp_path, "prepare")
    assert (tmp_path / "data/db.sqlite3").stat().st_mode & 0o077 == 0


def test_two_that_prepare_at_once_both_succeed(tmp_path: Path) -> None:
    """Two containers that start together against one database."""
    command = [sys.executable, "manage.py", "prepare"]
    env = environment(tmp_path, **ACCOUNT)
    both = [
        subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert ask(tmp_path, "SELECT username FROM auth_user") == [("keeper",)]


# --- supervise ------------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    assert manage(tmp_path, "prepare").returncode == 0
    return tmp_path


def test_a_second_supervisor_of_one_host_name_is_refused(prepared: Path) -> None:
    with managing(prepared, "supervise") as first:
        until(lambda: "supervisor started" in log_of(prepared), 60)
        second = manage(prepared, "supervise")
        assert second.returncode == 1
        assert second.stderr.strip() == "CommandError: A supervisor for the host name 'north' is running already."
        assert first.poll() is None
        assert ask(prepared, "SELECT name, slots FROM streams_host") == [("north", 64)]


def test_a_supervisor_of_another_host_name_runs_beside_it(prepared: Path) -> None:
    (prepared / "south").mkdir()
    shared = {name: value for name, value in environment(prepared).items() if name.endswith(("DIR", "ROOT"))}
    with (
        managing(prepared, "supervise"),
        managing(prepared / "south", "supervise", **(shared | {"CAPTURE_HOST_NAME": "south"})),
    ):
        until(lambda: len(ask(prepared, "SELECT 1 FROM streams_host")) == 2, 60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_supervisor_that_is_told_to_leave_leaves_nobody_behind(prepared: Path, number: signal.Signals) -> None:
    with managing(prepared, "supervise") as process:
        until(lambda: len(children(process.pid)) > 3, 60)  # the cluster, its workers, pusher and monitor
        started = children(process.pid)
        process.send_signal(number)
        assert process.wait(30) == 0
        until(lambda: all(map(is_gone, started)))
    assert "host=north supervisor left" in log_of(prepared)
    assert "Traceback" not in log_of(prepared)
    alive = "SELECT 1 FROM streams_host WHERE heartbeat_at > datetime('now', '-15 seconds')"
    assert ask(prepared, alive) == []


def test_the_cluster_of_a_supervisor_that_was_killed_ends_by_itself(prepared: Path) -> None:
    with managing(prepared, "supervise") as process:
        until(lambda: len(children(process.pid)) > 3, 60)
        started = children(process.pid)
        process.kill()
        until(lambda: all(map(is_gone, started)))


def test_the_lock_of_a_supervisor_that_was_killed_is_free_at_once(prepared: Path) -> None:
    with managing(prepared, "supervise") as first:
        until(lambda: "supervisor started" in log_of(prepared), 60)
        first.kill()
        first.wait(30)
    with managing(prepared, "supervise") as second:
        until(lambda: "supervisor started" in log_of(prepared), 60)
        assert second.poll() is None
    assert "waiting whether" not in log_of(prepared)


def elsewhere(folder: Path) -> dict[str, str]:
    """Another machine with the database of the first one and, by mistake, its name."""
    return {"DATABASE_URL": f"sqlite:///{folder}/data/db.sqlite3", "DATA_DIR": str(folder / "other")}


def test_a_second_machine_of_one_host_name_is_refused(prepared: Path) -> None:
    with managing(prepared, "supervise") as first:
        until(lambda: "supervisor started" in log_of(prepared), 60)
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
    assert ask(prepared, "SELECT name, epoch FROM streams_host") == [("north", 1)]


def test_the_name_of_a_machine_that_was_killed_is_taken_over(prepared: Path) -> None:
    with managing(prepared, "supervise") as first:
        until(lambda: "supervisor started" in log_of(prepared), 60)
        first.kill()
        first.wait(30)
    with managing(prepared, "supervise", **elsewhere(prepared)) as second:
        until(lambda: "supervisor started" in log_of(prepared), 60)
        assert second.poll() is None
    assert "waiting whether another machine has this name" in log_of(prepared)


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


def test_a_cluster_that_is_killed_is_started_again(prepared: Path) -> None:
    with managing(prepared, "supervise") as process:
        until(lambda: len(children(process.pid)) > 3, 60)
        leader = children(process.pid)[0]
        os.killpg(leader, signal.SIGKILL)
        until(lambda: "job cluster ended" in log_of(prepared), 60)
        until(lambda: len(children(process.pid)) > 3 and leader not in children(process.pid), 60)


def test_a_supervisor_ends_with_the_process_that_started_it(prepared: Path) -> None:
    """runserver gives its pid; a pid that is not the parent's is a parent that is gone."""
    with managing(prepared, "supervise", "--parent", "1") as process:
        assert process.wait(60) == 0


def test_a_supervisor_that_waits_for_the_database_can_be_told_to_leave(tmp_path: Path) -> None:
    """Not migrated is as good as away."""
    with managing(tmp_path, "supervise") as process:
        until(lambda: "waiting for the database" in log_of(tmp_path), 60)
        process.terminate()
        process.wait(10)
