"""A lock of SQLite and a database that is away, in the log. test_locked_postgresql.py has rows and tables."""

import logging
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from django.db import OperationalError

from rtspsite.logs import WithoutDatabaseTraceback
from tests.e2e.prepared import prepare_sqlite
from tests.figures import Figure
from tests.streams.processes import managing
from tests.streams.waiting import until

# --- SQLite -----------------------------------------------------------------------------------------


def test_a_supervisor_ends_in_time_while_a_process_holds_sqlite(tmp_path: Path, figure: Figure) -> None:
    """It waits in C for SQLite, where no signal is heard."""
    file = tmp_path / "data" / "db.sqlite3"
    prepare_sqlite(file)

    def log_of() -> str:
        return (tmp_path / "log").read_text()

    with managing(tmp_path, "supervise") as supervisor:
        until(lambda: "supervisor started" in log_of(), 60)
        holder = sqlite3.connect(file, timeout=60, isolation_level=None)
        try:
            holder.execute("BEGIN IMMEDIATE")
            until(lambda: "database locked" in log_of(), 60)
            told_s = time.monotonic()
            supervisor.send_signal(signal.SIGTERM)
            assert supervisor.wait(60) == 0
            took_s = time.monotonic() - told_s
        finally:
            holder.close()
    figure("sqlite locked: a supervisor ends after SIGTERM", took_s, 5.0)
    assert took_s < 10.0  # the kernel's own timer would have taken 12 s
    assert log_of().count("database locked") == 1
    assert "Traceback" not in log_of()


# --- the log ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["django-q", "django.db.backends.base"])
def test_a_database_that_fails_is_a_line_and_no_traceback_in_the_log_of_jobs_and_after_a_commit(
    caplog: pytest.LogCaptureFixture, name: str
) -> None:
    log = logging.getLogger(name)
    for error in (OperationalError("FATAL:\n  too many clients"), ValueError("a fault")):
        try:
            raise error
        except type(error):
            log.exception("Could not save task result")
    away, fault = caplog.records
    assert away.getMessage() == ("Could not save task result error=OperationalError words='FATAL: too many clients'")
    assert away.exc_info is None
    assert fault.exc_info
    assert any(isinstance(one, WithoutDatabaseTraceback) for one in log.filters)
