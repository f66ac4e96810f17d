"""`manage.py prune` and the daily job as processes: what they say, how they end, and what a kill leaves behind."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tests.e2e.prepared import prepare_sqlite
from tests.streams.processes import ROOT, environment, manage, managing
from tests.streams.waiting import until

DAY_S = 86_400.0


@contextmanager
def database(folder: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(folder / "data/db.sqlite3", timeout=60)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """The database was made long before any file."""
    prepare_sqlite(tmp_path / "data/db.sqlite3")
    with database(tmp_path) as connection:
        connection.execute("UPDATE django_migrations SET applied = '2001-01-01 00:00:00'")
    return tmp_path


def fill(folder: Path, captures: int, *, ended_days_ago: float = 10.0, frames: int = 2) -> None:
    """Finished captures with frames and grids of 100 bytes, written two hours ago."""
    with database(folder) as connection:
        name = f"s{ended_days_ago:g}"
        stream = connection.execute(
            "INSERT INTO streams_stream (interval_s, count, transport, name, url, credentials, created_at, status,"
            " status_at, error_code, error_text, attempt, notices) VALUES"
            " (1, 9, 'tcp', ?, ?, '', datetime('now'), 'idle', datetime('now'), '', '', 0, '')",
            (name, f"rtsp://camera.example/{name}"),
        ).lastrowid
        for _ in range(captures):
            capture = connection.execute(
                "INSERT INTO streams_capture (interval_s, count, transport, stream_id, started_at, finished_at,"
                " ending, error_code, error_text, epoch, host_name, samples, missed, rejected, repeated, connections,"
                " grid)"
                " VALUES (1, 9, 'tcp', ?, datetime('now', '-90 days'), datetime('now', ?), 'stopped',"
                " '', '', 2, 'north', 9, 0, 0, 0, 1, '')",
                (stream, f"-{ended_days_ago} days"),
            ).lastrowid
            grid = f"grids/{capture}/0123abcd.jpg"
            connection.execute("UPDATE streams_capture SET grid = ? WHERE id = ?", (grid, capture))
            put(folder, grid)
            for number in range(1, frames + 1):
                image = f"frames/{capture}/{number}-0123abcd.jpg"
                put(folder, image)
                connection.execute(
                    "INSERT INTO streams_frame (number, score, captured_at, width, height, image, capture_id)"
                    " VALUES (?, 100, datetime('now'), 32, 24, ?, ?)",
                    (number, image, capture),
                )


def put(folder: Path, name: str) -> Path:
    path = folder / "media" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 100)
    then = time.time() - 7200
    os.utime(path, (then, then))
    return path


def files(folder: Path) -> set[str]:
    media = folder / "media"
    return {str(path.relative_to(media)) for path in media.rglob("*") if path.is_file()}


def known_files(folder: Path) -> set[str]:
    with database(folder) as connection:
        query = "SELECT image FROM streams_frame UNION SELECT grid FROM streams_capture WHERE grid != ''"
        return {str(name) for (name,) in connection.execute(query)}


def count(folder: Path, table: str = "streams_capture") -> int:
    with database(folder) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


# --- what it says ---------------------------------------------------------------------------------


def test_it_says_what_would_go_what_is_missing_and_what_went(prepared: Path) -> None:
    fill(prepared, 3)
    fill(prepared, 1, ended_days_ago=1)
    before = files(prepared)
    done = manage(prepared, "prune", "--dry-run", "--days", "5")
    assert done.stdout.splitlines()[0] == "Finished captures older than 5 days: 3 would go with 9 files of 900 bytes"
    assert (count(prepared), files(prepared)) == (4, before)

    (prepared / "media/frames/4/2-0123abcd.jpg").unlink()
    done = manage(prepared, "prune")  # captures are kept for ever unless asked otherwise
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "Captures: all kept")
    assert "Rows whose file is missing: 1 kept: frames/4/2-0123abcd.jpg" in done.stdout.splitlines()
    assert count(prepared) == 4

    put(prepared, "frames/4/2-0123abcd.jpg")
    put(prepared, "frames/999/1-0123abcd.jpg")
    done = manage(prepared, "prune", CAPTURE_KEEP_DAYS="7.5")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "Finished captures older than 7.5 days: 3 removed with 9 files of 900 bytes",
        "Files that no row knows: 1 files of 100 bytes removed",
        "Hosts silent for a day: 0 removed",
        "Failed jobs older than 30 days: 0 removed",
        "Failed sign-ins and sessions that are over: 0 removed",
    ]
    assert (count(prepared), len(files(prepared))) == (1, 3)

    assert manage(prepared, "prune", "--days", "0", CAPTURE_KEEP_DAYS="0.5").returncode == 0
    assert count(prepared) == 1
    assert manage(prepared, "prune", "--days", "0.5").returncode == 0
    assert (count(prepared), files(prepared)) == (0, set())


@pytest.mark.parametrize("days", ["-1", "nan", "inf", "1e9", "seven", ""])
def test_days_that_are_no_number_of_days_are_refused(days: str) -> None:
    with pytest.raises(CommandError, match="--days: must be a number of days from 0 to 36500"):
        call_command("prune", f"--days={days}")


def test_a_database_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    done = manage(tmp_path, "prune")
    assert done.returncode == 1
    assert done.stderr.startswith("CommandError: The database is away or not migrated: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_storage_that_cannot_be_read_is_one_sentence(prepared: Path) -> None:
    (prepared / "media").mkdir(exist_ok=True)
    (prepared / "media/frames").write_bytes(b"not a folder")
    done = manage(prepared, "prune")
    assert done.returncode == 1
    assert done.stderr.startswith("CommandError: The pictures' storage cannot be read: ")
    assert len(done.stderr.splitlines()) == 1


def test_on_a_terminal_it_shows_how_far_it_is(prepared: Path) -> None:
    fill(prepared, 150, frames=0)
    far, near = os.openpty()
    try:
        command = [sys.executable, "manage.py", "prune", "--days", "5"]
        with subprocess.Popen(
            command, cwd=ROOT, env=environment(prepared), stderr=near, stdout=subprocess.PIPE, text=True
        ) as process:
            said, _ = process.communicate(timeout=60)
        shown = os.read(far, 100_000).decode()
    finally:
        os.close(near)
        os.close(far)
    assert "100 captures, 100 files; looked at captures up to 0" in shown
    assert "150 captures, 150 files" in shown
    assert said.startswith("Finished captures older than 5 days: 150 removed with 150 files")


# --- kill -9 --------------------------------------------------------------------------------------


def is_gone(path: Path) -> bool:
    return not path.exists()


def first_file(folder: Path) -> Path:
    """The one that a prune removes first."""
    with database(folder) as connection:
        (name,) = connection.execute("SELECT grid FROM streams_capture ORDER BY id LIMIT 1").fetchone()
    return folder / "media" / str(name)


def test_what_a_killed_prune_leaves_the_next_one_ends(prepared: Path) -> None:
    """Two of them are killed at their first file. At each kill every row has its files."""
    fill(prepared, 1000)
    fill(prepared, 5, ended_days_ago=1)
    kept = {name for name in files(prepared) if int(name.split("/")[1]) > 1000}
    for _ in range(2):
        before, first = count(prepared), first_file(prepared)
        with managing(prepared, "prune", "--days", "5") as process:
            until(partial(is_gone, first), 60, lambda: time.sleep(0.002))
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        assert known_files(prepared) <= files(prepared)
        assert 5 < count(prepared) < before
    done = manage(prepared, "prune", "--days", "5")
    assert done.returncode == 0, done.stderr
    assert count(prepared) == 5
    assert files(prepared) == known_files(prepared) == kept


# --- every day ------------------------------------------------------------------------------------


def test_a_host_prunes_when_the_schedule_says_so(prepared: Path) -> None:
    """django-q2's scheduler looks for the first time half a minute after its start."""
    fill(prepared, 2)
    with database(prepared) as connection:
        connection.execute("UPDATE django_q_schedule SET next_run = datetime('now', '-1 minute')")
    with managing(prepared, "supervise", CAPTURE_KEEP_DAYS="5") as process:
        until(lambda: count(prepared) == 0 and not files(prepared), 120)
        until(lambda: count(prepared, "django_q_task") == 1, 30)
        process.terminate()
        process.wait(30)
    with database(prepared) as connection:
        tasks = connection.execute("SELECT func, success FROM django_q_task").fetchall()
        later = "SELECT 1 FROM django_q_schedule WHERE next_run > datetime('now') AND repeats = -1"
        assert len(connection.execute(later).fetchall()) == 1
    assert tasks == [("streams.jobs.prune", 1)]
