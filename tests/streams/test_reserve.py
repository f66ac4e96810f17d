"""The room that is kept on SQLite's disk: who may use it, what waits meanwhile, and when it is made again."""

import errno
import json
import logging
import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.files.storage import FileSystemStorage, default_storage
from django.db import OperationalError, connection
from django.test import Client
from pytest_django import Settings

from streams import reserve, retention, services
from streams.database_faults import DiskFull
from streams.models import Capture
from tests.streams.builders import (
    API,
    BROWSER,
    CURL,
    files,
    make_capture,
    make_claim,
    make_finished,
    make_picture,
    make_report,
    rows,
    start,
)

pytestmark = pytest.mark.django_db(transaction=True)
FREE = 10 * reserve.RESERVE_BYTES


@pytest.fixture(autouse=True)
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where it is made; there is much room."""
    found = tmp_path / "db.sqlite3-reserve"
    monkeypatch.setattr(reserve, "path", lambda: found)
    set_free(monkeypatch, FREE)
    return found


def set_free(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    monkeypatch.setattr(reserve, "_free_bytes", lambda _: free_bytes)


def fill(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """It was given up, and there is no room to make it again."""
    file.write_bytes(b"")
    set_free(monkeypatch, reserve.RESERVE_BYTES)


def disk_full() -> OperationalError:
    """As Django raises it, with SQLite's own error behind it."""
    with closing(sqlite3.connect(":memory:")) as small:
        small.execute("PRAGMA max_page_count = 1")
        try:
            small.execute("CREATE TABLE a (b)")
        except sqlite3.OperationalError as cause:
            error = OperationalError(str(cause))
            error.__cause__ = cause
            return error
    raise AssertionError("it took what it has no room for")


def test_it_is_really_there_and_its_owners_alone(file: Path) -> None:
    assert reserve.restore()
    found = file.stat()
    assert (found.st_size, stat.S_IMODE(found.st_mode)) == (reserve.RESERVE_BYTES, 0o600)
    assert found.st_blocks * 512 >= reserve.RESERVE_BYTES
    assert reserve.restore()
    assert not reserve.is_given_up()


def test_it_is_not_made_where_nothing_would_be_left_beside_it(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    set_free(monkeypatch, reserve.RESERVE_BYTES + reserve.SPARE_BYTES - 1)
    assert not reserve.restore()
    assert (file.stat().st_size, reserve.is_given_up()) == (0, True)
    set_free(monkeypatch, reserve.RESERVE_BYTES + reserve.SPARE_BYTES)
    assert (reserve.restore(), reserve.is_given_up()) == (True, False)


def test_a_disk_that_is_full_meanwhile_leaves_none_of_it(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    def fails(*_: object) -> None:
        file.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", fails)
    assert not reserve.restore()
    assert file.stat().st_size == 0


@pytest.mark.parametrize("error", [disk_full(), OSError(errno.ENOSPC, ""), OSError(errno.EDQUOT, "")], ids=str)
def test_it_is_given_up_once_for_what_may_use_it(
    file: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    tries: list[int] = []

    @reserve.may_use
    def work() -> str:
        tries.append(file.stat().st_size)
        if len(tries) == 1:
            raise error
        return "done"

    reserve.restore()
    with caplog.at_level(logging.ERROR):
        assert work() == "done"
    assert tries == [reserve.RESERVE_BYTES, 0]
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said.startswith("storage full: the reserve is given up")
    tries.clear()
    with pytest.raises(type(error)):
        work()
    assert len(tries) == 1, "nothing is left to be given up"


def test_a_full_disk_of_the_pictures_alone_does_not_cost_it(file: Path, settings: Settings) -> None:
    @reserve.may_use
    def work() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    reserve.restore()
    settings.MEDIA_ROOT = "/proc"
    with pytest.raises(OSError, match="No space left on device"):
        work()
    assert file.stat().st_size == reserve.RESERVE_BYTES


def test_no_other_error_costs_it(file: Path) -> None:
    @reserve.may_use
    def work() -> None:
        raise OperationalError("database is locked")

    reserve.restore()
    with pytest.raises(OperationalError):
        work()
    assert file.stat().st_size == reserve.RESERVE_BYTES


@pytest.mark.parametrize("accept", [CURL, BROWSER, API])
def test_nothing_is_started_until_it_is_whole_again(
    client: Client, monkeypatch: pytest.MonkeyPatch, file: Path, accept: str
) -> None:
    make_capture()
    fill(monkeypatch, file)
    before = rows()
    for refused in (
        start(client, "rtsp://other.example/other", accept=accept),
        client.post("/api/streams", json.dumps({"rtsp_url": "rtsp://c.example/c"}), content_type="application/json"),
    ):
        assert (refused.status_code, refused["Retry-After"]) == (503, "5")
        assert "The disk of the database is full" in refused.content.decode()
    if accept == API:
        assert start(client, "rtsp://other.example/other", accept=accept).json()["code"] == "storage_full"
    assert rows() == before
    assert start(client, accept=accept).status_code == 200, "it runs already: nothing is written"
    set_free(monkeypatch, FREE)
    assert start(client, "rtsp://other.example/other", accept=accept).status_code == 201
    assert file.stat().st_size == reserve.RESERVE_BYTES


def test_nothing_is_started_on_a_disk_without_room_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    reserve.restore()
    set_free(monkeypatch, 4096)
    with pytest.raises(DiskFull):
        make_capture()


def test_pictures_wait_for_it_but_the_last_ones(monkeypatch: pytest.MonkeyPatch, file: Path, media: Path) -> None:
    capture = make_capture()
    claim = make_claim(capture)
    fill(monkeypatch, file)
    report = make_report(make_picture())
    with pytest.raises(OSError, match="No space left on device"):
        services.checkpoint(claim, services.Totals(), report)
    assert files(media) == []
    services.checkpoint(claim, services.Totals(), replace(report, fresh=()))
    assert Capture.objects.get().samples == 1
    services.checkpoint(claim, services.Totals(), replace(report, is_final=True))
    assert len(files(media)) == 1


def test_pictures_on_another_disk_do_not_wait(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    fill(monkeypatch, file)
    assert not reserve.leaves_room_for_files(default_storage)
    assert reserve.leaves_room_for_files(FileSystemStorage("/proc"))
    set_free(monkeypatch, FREE)
    assert reserve.leaves_room_for_files(default_storage)


def test_files_of_a_commit_that_found_no_room_are_removed(monkeypatch: pytest.MonkeyPatch, media: Path) -> None:
    """It surely failed; each further attempt would leave its own behind."""

    def commit() -> None:
        raise disk_full()

    claim = make_claim(make_capture())
    with monkeypatch.context() as patch:
        patch.setattr(connection, "_commit", commit)
        with pytest.raises(OperationalError):
            services.checkpoint(claim, services.Totals(), make_report(make_picture()))
    assert files(media) == []
    assert services.checkpoint(claim, services.Totals(), make_report(make_picture())) == {1}


def test_a_delete_makes_it_again(file: Path) -> None:
    capture = make_finished()
    file.write_bytes(b"")
    services.delete_stream(capture.stream)
    assert file.stat().st_size == reserve.RESERVE_BYTES


def test_a_prune_without_room_removes_files_that_no_row_knows_first(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    done: list[str] = []

    def remove_rows(self: object, keep_days: float) -> bool:
        done.append("rows")
        if len(done) == 1:
            raise disk_full()
        return True

    def sweep(self: object, after: int) -> bool:
        done.append("files")
        return True

    monkeypatch.setattr(retention._Run, "remove_rows", remove_rows)
    monkeypatch.setattr(retention._Run, "sweep", sweep)
    assert retention.prune(keep_days=1.0).is_complete
    assert done == ["rows", "files", "rows", "files"]
    assert file.stat().st_size == reserve.RESERVE_BYTES


def test_the_website_is_not_ready_without_it(client: Client, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    fill(monkeypatch, file)
    storage = client.get("/readyz").json()["storage"]
    assert (storage["ok"], "The database's disk is full" in storage["message"]) == (False, True)
    set_free(monkeypatch, FREE)
    assert client.get("/readyz").json()["storage"]["ok"], "or no start would come, which makes it again"
