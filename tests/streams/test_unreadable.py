"""Pictures that cannot be read, and grids that cannot be written: real files, and the database's time moved."""

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from django.core.files.storage import FileSystemStorage
from django.db.models.functions import Now
from django.test import Client
from pytest_django import Settings

from rtspsite.object_store import ObjectStore
from streams import services
from streams.engine import sheet
from streams.engine.report import Report
from streams.models import Capture, Stream
from tests.streams.builders import files, make_capture, make_claim, make_picture, make_report, record
from tests.streams.html import read
from tests.streams.test_storage import Store, one_store, pictures, store

__all__ = ("one_store", "pictures", "store")  # fixtures

pytestmark = pytest.mark.django_db


def stopped(frames: int = 4) -> Capture:
    """With so many frames, stopped a moment ago."""
    capture = make_capture(count=frames)
    record(capture, frames=frames)
    services.stop(capture.stream)
    return capture


def eleven_minutes_pass(capture: Capture) -> None:
    Capture.objects.filter(pk=capture.pk).update(stop_requested_at=Now() - timedelta(minutes=11))


def pictures_in_grid(capture: Capture) -> int:
    """Of 32 x 24 pixels with a border of 8, in rows of two."""
    height, _, _ = sheet.decode_jpeg(capture.grid.read()).shape
    return 2 * ((int(height) - 8) // 32)


def folder(path: Path) -> None:
    path.mkdir()


def no_file(path: Path) -> None:
    """A link to nothing."""
    path.symlink_to(path.with_suffix(".gone"))


def loop(path: Path) -> None:
    path.symlink_to(path)


def fault_of_the_disk(path: Path) -> None:
    """Reading it gives EIO, to root as well."""
    path.symlink_to("/proc/self/mem")


@pytest.mark.parametrize("spoil", [folder, no_file, loop, fault_of_the_disk])
def test_a_picture_that_cannot_be_read_is_left_out_and_named_after_ten_minutes(
    media: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    capture = stopped(frames=5)
    name = str(capture.frames.get(number=5).image.name)
    (media / name).unlink()
    spoil(media / name)
    with pytest.raises(OSError):  # noqa: PT011
        services.finish(capture.pk)
    assert Stream.objects.get().status == "stopping"
    eleven_minutes_pass(capture)
    assert services.finish(capture.pk)
    capture.refresh_from_db()
    assert pictures_in_grid(capture) == 4
    words = "1 of 5 pictures could not be read and is not in the grid."
    assert (capture.error_code, capture.error_text) == ("picture_unreadable", words)
    stream = Stream.objects.get()
    assert (stream.status, stream.error_code, stream.error_text) == ("idle", "picture_unreadable", words)
    assert f"file={name} unreadable error=" in caplog.text
    assert not [found for found in files(media) if "probe" in found]
    services.delete_stream(stream)


def test_the_page_of_the_capture_says_what_is_missing(client: Client, media: Path) -> None:
    capture = stopped()
    (media / str(capture.frames.get(number=2).image.name)).unlink()
    eleven_minutes_pass(capture)
    services.finish(capture.pk)
    page = read(client.get(f"/captures/{capture.pk}/").content.decode()).text
    assert (
        page.count("1 of 4 pictures could not be read and is not in the grid.") == 2
    )  # at the top, and how it ended
    assert "The last" not in page  # it is not about the camera


def test_the_page_of_a_capture_without_a_grid_says_why(client: Client, media: Path) -> None:
    capture = stopped()
    shutil.rmtree(media / f"frames/{capture.pk}")
    (media / f"frames/{capture.pk}").touch()
    eleven_minutes_pass(capture)
    services.finish(capture.pk)
    page = read(client.get(f"/captures/{capture.pk}/").content.decode()).text
    assert "4 of 4 pictures could not be read" in page
    assert "grid of this capture is gone" not in page


def test_a_folder_of_frames_that_is_none_costs_the_grid_and_not_the_end(media: Path) -> None:
    capture = stopped()
    shutil.rmtree(media / f"frames/{capture.pk}")
    (media / f"frames/{capture.pk}").touch()
    eleven_minutes_pass(capture)
    assert services.finish(capture.pk)
    capture.refresh_from_db()
    assert (bool(capture.grid), capture.frames.count()) == (False, 4)
    assert capture.error_text == "4 of 4 pictures could not be read and are not in the grid."


def test_a_grid_that_was_never_written_is_not_reported_as_one_that_could_not_be_deleted(
    media: Path, caplog: pytest.LogCaptureFixture
) -> None:
    capture = stopped()
    (media / "grids").touch()
    with pytest.raises(OSError):  # noqa: PT011
        services.finish(capture.pk)
    assert "could not be deleted" not in caplog.text


def test_a_storage_that_is_away_as_a_whole_costs_no_picture_however_late(media: Path) -> None:
    capture = stopped()
    eleven_minutes_pass(capture)
    (media / "frames").rename(media / "away")
    (media / "frames").touch()
    for _ in range(3):
        with pytest.raises(OSError):  # noqa: PT011
            services.finish(capture.pk)
    (media / "frames").unlink()
    (media / "away").rename(media / "frames")
    assert services.finish(capture.pk)
    capture.refresh_from_db()
    assert (pictures_in_grid(capture), capture.error_code) == (4, "")


def test_a_storage_that_goes_while_it_is_read_costs_no_picture(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pictures are read, then nothing any more."""
    capture = stopped()
    eleven_minutes_pass(capture)
    read, begun = services._read, iter(range(99))

    def go_away(file: Any) -> bytes:
        if next(begun) == 2:
            (media / "frames").rename(media / "away")
            (media / "frames").touch()
        return read(file)

    with monkeypatch.context() as patch:
        patch.setattr(services, "_read", go_away)
        with pytest.raises(OSError):  # noqa: PT011
            services.finish(capture.pk)
    assert Capture.objects.get().finished_at is None


def test_last_pictures_that_cannot_be_written_are_given_up_after_ten_minutes(
    media: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not those of a capture that goes on, nor while the storage takes nothing at all."""
    capture = make_capture(count=2)
    claim, base = make_claim(capture), services.Totals()
    (media / "frames").mkdir(parents=True)
    (media / f"frames/{capture.pk}").touch()
    running = make_report(make_picture())
    last = replace(running, is_final=True)
    services.stop(capture.stream)

    def is_refused(report: Report) -> bool:
        try:
            services.checkpoint(claim, base, report)
        except OSError:
            return True
        return False

    assert is_refused(last)
    eleven_minutes_pass(capture)
    assert is_refused(running)
    (media / "frames").rename(media / "away")
    (media / "frames").touch()
    assert is_refused(last)
    (media / "frames").unlink()
    (media / "away").rename(media / "frames")
    assert Capture.objects.get().error_code == ""
    assert not is_refused(last)
    assert f"capture={capture.pk} pictures given up count=1 error=" in caplog.text
    services.hand_over(claim)
    assert services.finish(capture.pk)
    capture.refresh_from_db()
    assert (capture.error_code, capture.frames.count(), capture.stream.captures.count()) == ("picture_lost", 0, 1)
    assert Stream.objects.get().error_code == "picture_lost"


def test_a_read_only_disk_is_no_line_for_each_picture_that_it_did_not_take(
    media: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It refuses to delete a file that is not there, too."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    capture = make_capture()
    record(capture, frames=1)
    monkeypatch.setattr(FileSystemStorage, "_save", refuse)
    monkeypatch.setattr(FileSystemStorage, "delete", refuse)
    with pytest.raises(OSError, match="Read-only"):
        services.checkpoint(make_claim(capture), services.Totals(), make_report(make_picture(7)))
    assert "could not be deleted" not in caplog.text
    services._delete_files(capture.frames.all())
    assert caplog.text.count("could not be deleted error=Read-only") == 1


# --- the grid -------------------------------------------------------------------------------------


def test_a_grid_lies_beside_its_folder_if_that_is_a_file(media: Path) -> None:
    capture = stopped()
    (media / "grids").mkdir()
    (media / f"grids/{capture.pk}").touch()
    assert services.finish(capture.pk)
    capture.refresh_from_db()
    assert Path(str(capture.grid.name)).parent == Path("grids")
    assert (pictures_in_grid(capture), capture.error_code) == (4, "")


def test_a_grid_that_cannot_be_written_is_given_up_after_ten_minutes_and_the_frames_stay(media: Path) -> None:
    capture = stopped()
    (media / "grids").touch()
    with pytest.raises(OSError, match="in the place of a folder"):
        services.finish(capture.pk)
    eleven_minutes_pass(capture)
    assert services.finish(capture.pk)
    capture.refresh_from_db()
    assert (bool(capture.grid), capture.error_code, capture.frames.count()) == (False, "no_grid", 4)
    assert capture.error_text == "The grid could not be written: a file is in the place of a folder."


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_waited_for_as_long_as_it_takes(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = stopped()
    eleven_minutes_pass(capture)

    def full(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(services, "_write", full)
    with pytest.raises(OSError, match=os.strerror(number)):
        services.finish(capture.pk)
    assert Stream.objects.get().notices == "storage_full"


# --- the object store -----------------------------------------------------------------------------


def denied(key: str) -> Any:
    raise ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {}}, "GetObject")


def cut_short(key: str) -> Any:
    """As the client reads a body whose connection ends early."""
    return {"Body": StreamingBody(BytesIO(b"half a"), content_length=9999)}


@pytest.mark.parametrize("answer", [denied, cut_short])
def test_one_object_that_cannot_be_read_is_left_out(
    pictures: ObjectStore, settings: Settings, monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], Any]
) -> None:
    capture = stopped(frames=5)
    spoilt = str(capture.frames.get(number=4).image.name)
    client = pictures.connection.meta.client
    get_object = client.get_object

    def get(**fields: Any) -> Any:
        return answer(spoilt) if fields["Key"].endswith(spoilt) else get_object(**fields)

    monkeypatch.setattr(client, "get_object", get)
    with pytest.raises(OSError, match="the store"):
        services.finish(capture.pk)
    eleven_minutes_pass(capture)
    assert services.finish(capture.pk)
    capture.refresh_from_db()
    assert (pictures_in_grid(capture), capture.error_code) == (4, "picture_unreadable")


def test_a_store_that_is_away_costs_no_picture_however_late(pictures: ObjectStore, store: Store) -> None:
    capture = stopped()
    eleven_minutes_pass(capture)
    store.end()
    for _ in range(2):
        with pytest.raises(OSError, match="store"):
            services.finish(capture.pk)
    assert Capture.objects.get().finished_at is None
