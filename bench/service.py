"""The service as it runs in production, seen from outside: HTTP, its SQLite file, its processes."""

import sqlite3
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.measure import with_its_parent
from tests.e2e.service import Service, command_line, wait_for

# Everything but the web server and the script that started both: what capturing costs.
RECORDERS, SUPERVISOR, JOBS, WEB, SCRIPT = "recorders", "supervisor", "jobs", "web", "script"
CAPTURING = (RECORDERS, SUPERVISOR, JOBS)
_POLL_S = 0.01
_FIRST_S = 60.0
_STOPS = 8  # at a time: each of them occupies one of the web server's 16 threads
# A checkpoint comes 2 s after the one before, and a sample at most one key frame interval after it is due: a stream
# whose last known sample is older than that by an interval or more has missed some.
_REPORT_S = 2.5


class NotReported(LookupError):
    """The service does not tell this figure."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What the database says of one capture. Times are seconds since 1970 UTC."""

    samples: int
    missed: int
    last_sample_at: float
    read_at: float


@dataclass(frozen=True, slots=True)
class Lateness:
    """Seconds of stream time from a sample's due time to its own, of one capture's latest thousand samples."""

    p50_s: float
    p95_s: float


@dataclass(frozen=True, slots=True)
class Tally:
    due: int
    taken: int
    reported_missed: int

    @property
    def missed_share(self) -> float:
        return max(0, self.due - self.taken) / self.due if self.due else 0.0


class Captures:
    """A private instance of a checkout, with its folder and port, until the end of the context."""

    def __init__(self, checkout: Path, folder: Path, slots: int) -> None:
        python = checkout / ".venv" / "bin" / "python"
        settings = {
            "APP_DIR": str(checkout),
            "PYTHON": str(python) if python.exists() else sys.executable,
            "CAPTURE_SLOTS": str(slots),
            "LOG_LEVEL": "WARNING",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = with_its_parent(["bash", str(checkout / "scripts" / "serve.sh")], "TERM")
        self._service = Service(folder, (tuple(command),), settings)
        self._running: dict[int, str] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # a start that fails ends what has begun
            stack.push(self._service.__exit__)
            self._service.start()
            database = self._service.folder / "data" / "db.sqlite3"
            self._database = sqlite3.connect(f"file:{database}?mode=ro", uri=True, isolation_level=None)
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._service.__exit__(kind, error, trace)

    def start(self, url: str, interval_s: float) -> int:
        """The capture's id, as soon as /start has answered."""
        capture = self._service.begin(url, interval=f"{interval_s:g}")
        self._running[capture] = url.rpartition("/")[2]
        return capture

    def stop(self, capture: int) -> None:
        """Returns with the page; a stop that takes longer than the page waits for is waited for."""
        self._ask_to_stop(self._running.pop(capture))
        self._wait_for_end(capture)

    def keep(self, count: int) -> None:
        """Stop all but the first so many, several at a time."""
        surplus = list(self._running)[count:]
        with ThreadPoolExecutor(_STOPS) as stops:
            list(stops.map(self._ask_to_stop, [self._running[capture] for capture in surplus]))
        for capture in surplus:
            self._wait_for_end(capture)
            del self._running[capture]

    def wait_for_samples(self, capture: int, samples: int, limit_s: float = _FIRST_S) -> None:
        """Polled every 10 ms. Raises AssertionError."""
        end_s = time.monotonic() + limit_s
        while self._row("samples", capture)[0] < samples:
            assert time.monotonic() < end_s, f"capture {capture} has not {samples} samples after {limit_s:g} s"
            time.sleep(_POLL_S)

    def wait_for_all(self, samples: int, limit_s: float) -> None:
        for capture in self._running:
            self.wait_for_samples(capture, samples, limit_s)

    def progress(self) -> dict[int, Progress]:
        """Of the running captures that have a sample."""
        found = {}
        for capture in self._running:
            samples, missed, last = self._row("samples, missed, last_sample_at", capture)
            if last is not None:
                found[capture] = Progress(samples, missed, seconds_of(last), time.time())
        return found

    def lateness(self) -> list[Lateness]:
        """Of the running captures. Raises NotReported."""
        try:
            rows = [self._row("late_p50_s, late_p95_s", capture) for capture in self._running]
        except sqlite3.OperationalError:  # no such column: an older version
            raise NotReported("lateness is not reported by this version") from None
        return [Lateness(*row) for row in rows if None not in row]

    def roles(self) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {role: set() for role in (*CAPTURING, WEB, SCRIPT)}
        for pid in self._service.family():
            found[role_of(command_line(pid))].add(pid)
        return found

    def check(self) -> None:
        for process in self._service.processes:
            assert process.poll() is None, self._service.log

    def _ask_to_stop(self, name: str) -> None:
        answer = self._service.end(name, "text/html")
        assert answer.status_code in (200, 202, 409), answer.text

    def _wait_for_end(self, capture: int) -> None:
        wait_for(lambda: self._row("finished_at IS NOT NULL", capture)[0], f"the end of capture {capture}")

    def _row(self, columns: str, capture: int) -> tuple[Any, ...]:
        query = f"SELECT {columns} FROM streams_capture WHERE id = ?"  # noqa: S608 (columns are ours)
        with closing(self._database.execute(query, (capture,))) as rows:
            row: tuple[Any, ...] = rows.fetchone()
        return row


def role_of(command: Sequence[str]) -> str:
    """Recorders have their fork server's command line; whatever is unknown is counted as capturing."""
    words = " ".join(command)
    if "multiprocessing.forkserver" in words:
        return RECORDERS
    if "gunicorn" in words:
        return WEB
    if "manage.py jobs" in words:
        return JOBS
    return SCRIPT if "serve.sh" in words else SUPERVISOR


def seconds_of(stored: str) -> float:
    """A moment as Django keeps it in SQLite: UTC, without saying so."""
    return datetime.fromisoformat(stored).replace(tzinfo=UTC).timestamp()


def tally(before: dict[int, Progress], after: dict[int, Progress], interval_s: float, gop_s: float) -> Tally:
    """Samples that fell due between two looks, and those taken, over all captures that were there at both.

    By the service's counts and times alone: a row's number of samples belongs to its time of the last one, so due
    are the whole intervals between the two last ones, and those that a stalled stream is behind by now.
    """
    due = taken = missed = 0
    for capture in before.keys() & after.keys():
        old, new = before[capture], after[capture]
        due += round((new.last_sample_at - old.last_sample_at) / interval_s)
        due += max(0, int((new.read_at - new.last_sample_at - _REPORT_S - gop_s) / interval_s))
        taken += new.samples - old.samples
        missed += new.missed - old.missed
    return Tally(due, taken, missed)
