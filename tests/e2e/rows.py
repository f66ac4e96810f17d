"""What stands in a site's database, read past the service; and on PostgreSQL, who wrote it.

with Rows(site.database_url) as rows:
    rows.captures()[capture].samples
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, LiteralString, Self

import psycopg

from streams.engine import sheet
from tests.camera.mark import read_mark

_SQLITE = "sqlite:///"
_HISTORY = b"""
CREATE TABLE history (id bigserial, transaction xid8, writer text, capture_id bigint);
CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE written bigint;
BEGIN
  IF TG_TABLE_NAME = 'streams_capture' THEN written := NEW.id;
  ELSIF TG_OP = 'DELETE' THEN written := OLD.capture_id;
  ELSE written := NEW.capture_id;
  END IF;
  INSERT INTO history (transaction, writer, capture_id)
    VALUES (pg_current_xact_id(), current_setting('application_name'), written);
  RETURN NULL;
END $$;
CREATE TRIGGER note_capture AFTER UPDATE ON streams_capture FOR EACH ROW EXECUTE FUNCTION note_write();
CREATE TRIGGER note_frame AFTER INSERT OR DELETE ON streams_frame FOR EACH ROW EXECUTE FUNCTION note_write();
"""


@dataclass(frozen=True, slots=True)
class CaptureRow:
    """`sampled_at`: arrival of the last sample, seconds since 1970 UTC; 0 before the first one."""

    id: int
    is_claimed: bool
    host_name: str
    epoch: int
    samples: int
    sampled_at: float
    grid: str


@dataclass(frozen=True, slots=True)
class FrameRow:
    """`captured_at`: seconds since 1970 UTC."""

    capture_id: int
    number: int
    score: float
    captured_at: float
    image: str


@dataclass(frozen=True, slots=True)
class Write:
    transaction: int
    writer: str
    capture_id: int


class Rows:
    """A connection that stays open; each read sees what is committed then."""

    def __init__(self, url: str) -> None:
        self._url = url
        if url.startswith(_SQLITE):
            self._connection: Any = sqlite3.connect(url.removeprefix(_SQLITE), timeout=20, isolation_level=None)
        else:
            self._connection = psycopg.connect(url, autocommit=True, connect_timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def read(self, query: LiteralString) -> list[Any]:
        found: list[Any] = self._connection.execute(query).fetchall()
        return found

    def captures(self) -> dict[int, CaptureRow]:
        found = self.read(
            "SELECT id, claimed_by_id IS NOT NULL, host_name, epoch, samples, last_sample_at, grid"
            " FROM streams_capture"
        )
        return {
            pk: CaptureRow(pk, bool(claimed), host, epoch, samples, _seconds(at), grid)
            for pk, claimed, host, epoch, samples, at, grid in found
        }

    def frames(self) -> list[FrameRow]:
        found = self.read("SELECT capture_id, number, score, captured_at, image FROM streams_frame ORDER BY id")
        return [FrameRow(capture, number, score, _seconds(at), image) for capture, number, score, at, image in found]

    def boards(self, captures: Iterable[int]) -> dict[int, set[FrameRow]]:
        """The saved leaderboard of each."""
        frames = self.frames()
        return {pk: {frame for frame in frames if frame.capture_id == pk} for pk in captures}

    def are_sampled(self, captures: Iterable[int], since: float, host: str = "") -> bool:
        """Whether each of them has a sample of after that moment, by that host."""
        found = self.captures()
        return all(found[pk].sampled_at > since and host in ("", found[pk].host_name) for pk in captures)

    def keep_history(self) -> None:
        """From now on, on PostgreSQL."""
        self._connection.execute(_HISTORY)

    def history(self) -> list[Write]:
        """Each write of a capture's row or of its frames, in order; the writer is an application_name."""
        query: LiteralString = "SELECT transaction::text::bigint, writer, capture_id FROM history ORDER BY id"
        return [Write(*row) for row in self.read(query)]


def seconds_of(media: Path, frames: Iterable[FrameRow]) -> dict[int, int]:
    """Number of each frame to the second that its file shows."""
    return {frame.number: read_mark(sheet.decode_jpeg((media / frame.image).read_bytes())) for frame in frames}


def _seconds(moment: datetime | str | None) -> float:
    """SQLite keeps text, in UTC."""
    if moment is None:
        return 0.0
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    return moment.timestamp()


def jobs_done(rows: Rows) -> dict[str, bool]:
    """The jobs whose results are known, and how they went: the tick alone does not stand in for the broker."""
    went: dict[str, bool] = {}
    query: LiteralString = "SELECT func, success FROM django_q_task WHERE func IN ('{}.place', '{}.finish')"
    for function, success in rows.read(query.replace("{}", "streams.jobs")):
        job = function.rpartition(".")[2]
        went[job] = went.get(job, True) and bool(success)
    return went
