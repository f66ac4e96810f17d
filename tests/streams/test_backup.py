"""Backups: what is in them, what comes back, and what is refused before anything is written."""

import io
import json
import os
import random
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import patch

import pytest
from cryptography.fernet import Fernet
from django.conf import settings as configured
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command, load_command_class
from django.core.management.base import CommandError
from django.db import connections, models
from django_q.models import OrmQ, Schedule
from pytest_django import Settings

from rtspsite import keys
from streams import backup, backup_rows, queries, retention, services, tape
from streams.engine import composer, sheet
from streams.exits import Exit
from streams.management.commands import backup as backup_command
from streams.models import Capture, Frame, Host, Stream, Timeline
from streams.restore import Refused, opened
from streams.restore import restore as restore_from
from tests.streams.builders import (
    SECRET,
    URL_WITH_SECRET,
    all_files,
    compose_here,
    files,
    frames_of,
    make_capture,
    make_claim,
    make_finished,
    make_host,
    make_picture,
    make_report,
    record,
)
from tests.streams.processes import ROOT
from tests.streams.test_access import somebody
from tests.streams.test_links import link, pictures

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("own_process")]
KEPT = (Stream, Capture, Frame, Timeline, User, Group, LogEntry)
BLOCK = tape.BLOCK_BYTES


@pytest.fixture(autouse=True)
def quick_grids() -> Iterator[None]:
    with patch.object(composer, "compose", compose_here):
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "backups" / "all.tar"


def back_up(file: Path, *options: str) -> str:
    file.parent.mkdir(exist_ok=True)
    said = io.StringIO()
    call_command("backup", str(file), *options, stdout=said, stderr=io.StringIO())
    return said.getvalue()


def restore(file: Path, *options: str) -> str:
    said = io.StringIO()
    call_command("restore", str(file), *options, stdout=said, stderr=io.StringIO())
    return said.getvalue()


def refusal(file: Path) -> str:
    with pytest.raises(CommandError) as caught:
        restore(file)
    assert caught.value.returncode == Exit.REFUSED
    return str(caught.value)


def wipe(media: Path) -> None:
    """As a new service is."""
    for model in (Timeline, Frame, Capture, Stream, Host, LogEntry, User, Group, Schedule):
        model.objects.all().delete()
    shutil.rmtree(media)
    media.mkdir()


def rows(*models: Any) -> dict[str, list[dict[str, Any]]]:
    return {model.__name__: list(model.objects.order_by("pk").values()) for model in models or KEPT}


def is_empty(media: Path) -> bool:
    return not (files(media) or Stream.objects.exists() or Capture.objects.exists())


def contents(media: Path) -> dict[str, bytes]:
    return {name: (media / name).read_bytes() for name in files(media)}


# --- there and back ---------------------------------------------------------------------------------


def test_what_is_kept_comes_back_with_its_ids(file: Path, media: Path) -> None:
    kind, _ = ContentType.objects.get_or_create(app_label="streams", model="stream")
    right, _ = Permission.objects.get_or_create(content_type=kind, codename="view_stream", defaults={"name": "view"})
    group = Group.objects.create(name="watchers")
    group.permissions.add(right)
    keeper = User.objects.create_superuser("keeper", "k@example", "a-long-word")
    keeper.groups.add(group)
    keeper.user_permissions.add(right)
    capture = make_finished(URL_WITH_SECRET)
    make_finished("rtsp://camera.example/other", frames=2, name="other")
    Timeline.objects.create(capture=capture, data="{}")
    LogEntry.objects.create(user=keeper, content_type=kind, object_id="1", object_repr="demo", action_flag=2)
    retention.keep_schedule()
    Schedule.objects.update(repeats=0)
    before, kept = rows(), contents(media)
    addresses = [link(path) for path in pictures(capture)]

    said = back_up(file)
    assert "Backed up 2 streams, 2 captures and 13 pictures" in said
    assert "keys are not in it" in said
    assert file.stat().st_mode & 0o777 == 0o600
    assert SECRET.encode() not in file.read_bytes()
    assert configured.SECRET_KEY.encode() not in file.read_bytes()
    wipe(media)
    assert "Restored 2 streams, 2 captures and 13 pictures" in restore(file)

    for entries in (before["LogEntry"], rows()["LogEntry"]):
        [entry] = entries
        entry["id"] = 0
    after = rows()
    after["LogEntry"][0]["id"] = 0
    assert after == before
    assert contents(media) == kept
    assert [path.stat().st_mode & 0o777 for path in media.rglob("*.jpg")] == [0o600] * len(kept)
    assert Stream.objects.get(name="demo").address.password == SECRET
    assert Schedule.objects.get(name=retention.SCHEDULE).repeats == 0
    keeper = User.objects.get()
    assert (list(keeper.groups.all()), list(keeper.user_permissions.all())) == ([group], [right])
    assert list(group.permissions.all()) == [right]
    for address in addresses:
        assert somebody().get(address).status_code == 200


def test_no_id_is_given_twice(file: Path, media: Path) -> None:
    """Neither one that is there nor one of a capture that was deleted: links may lead to it."""
    make_finished()
    last = make_finished("rtsp://camera.example/last", name="last")
    frame = Frame.objects.order_by("id").last()
    assert frame
    services.delete_stream(last.stream)
    back_up(file)
    wipe(media)
    restore(file)
    fresh = make_finished("rtsp://camera.example/fresh", name="fresh")
    assert fresh.pk > last.pk
    assert fresh.stream_id > last.stream_id
    assert min(fresh.frames.values_list("id", flat=True)) > frame.pk


def test_what_was_in_progress_is_stopped_and_finished(file: Path, media: Path) -> None:
    capture = make_capture()
    record(capture, frames=4)
    make_claim(capture, make_host("south"))
    queued = make_capture("rtsp://camera.example/queued", name="queued")
    back_up(file)
    wipe(media)
    assert "in progress at the backup: 2. They are stopped." in restore(file)
    found = Capture.objects.get(pk=capture.pk)
    assert (found.is_finished, found.ending, found.error_code) == (True, "stopped", "restored")
    assert "in progress when the backup was made" in found.error_text
    assert found.claimed_by is None
    assert sheet.decode_jpeg((media / str(found.grid.name)).read_bytes()).size
    assert Capture.objects.get(pk=queued.pk).is_finished
    assert set(Stream.objects.values_list("status", flat=True)) == {"idle"}
    assert not Host.objects.exists()


def test_what_was_in_progress_can_go_on(file: Path, media: Path) -> None:
    capture, stopping = make_capture(), make_capture("rtsp://camera.example/stopping", name="stopping")
    record(capture, frames=4)
    services.stop(stopping.stream)
    host = make_host("south")
    make_claim(capture, host)
    Stream.objects.filter(name="demo").update(status="reconnecting", attempt=3, next_attempt_at=datetime.now(UTC))
    back_up(file)
    wipe(media)
    jobs = OrmQ.objects.count()
    assert "go on when the service starts" in restore(file, "--resume")
    capture = Capture.objects.select_related("stream").get(pk=capture.pk)
    assert (capture.is_finished, capture.claimed_by, capture.stop_requested_at) == (False, None, None)
    assert (capture.stream.status, capture.stream.attempt) == ("queued", 0)
    assert Capture.objects.get(pk=stopping.pk).ending == "stopped"
    assert make_claim(capture, make_host("fresh"))
    assert OrmQ.objects.count() == jobs


def test_a_signal_after_the_rows_leaves_grids_to_the_supervisor(file: Path, media: Path) -> None:
    """All else is restored, and the command says so."""
    record(make_capture())
    back_up(file)
    wipe(media)
    with patch.object(services, "finish", side_effect=KeyboardInterrupt):
        assert "Grids not made yet: 1" in restore(file)
    [candidate] = queries.unclaimed().to_finish
    assert services.finish(candidate.capture_id)


# --- while captures run -----------------------------------------------------------------------------


class Meanwhile:
    """Does something between the snapshot of the rows and the first picture."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work

    def begin(self, what: str, total: int) -> None:
        if what == "captures with pictures":
            self._work()

    def advance(self, count: int = 1) -> None: ...

    def close(self) -> None: ...


def back_up_meanwhile(file: Path, work: Callable[[], object]) -> str:
    with patch.object(backup_command, "Bars", lambda _: Meanwhile(work)):
        return back_up(file)


def test_a_leaderboard_that_moves_on_is_kept_as_it_is_then(file: Path, media: Path) -> None:
    capture = make_capture(count=3)
    claim = make_claim(capture)
    services.checkpoint(claim, services.Totals(), make_report(*(make_picture(n, score=90.0 + n) for n in (1, 2, 3))))
    brighter = [make_picture(n, score=100.0 + n) for n in (4, 5)]
    report = make_report(*brighter, kept=((3, 93.0),))
    back_up_meanwhile(file, lambda: services.checkpoint(claim, services.Totals(), report))
    wipe(media)
    restore(file)
    found = Capture.objects.get()
    assert frames_of(found) == [(5, 105.0), (4, 104.0), (3, 93.0)]
    assert found.samples == 5
    assert files(media) == all_files(found)


def test_what_is_deleted_meanwhile_is_left_out(file: Path, media: Path) -> None:
    kept, gone = make_finished(), make_finished("rtsp://camera.example/gone", name="gone")
    said = back_up_meanwhile(file, lambda: services.delete_stream(gone.stream))
    assert "1 captures that were deleted" in said
    wipe(media)
    restore(file)
    assert list(Capture.objects.values_list("id", flat=True)) == [kept.pk]
    assert files(media) == all_files(kept)


@pytest.mark.parametrize("spoil", ["missing", "cut", "folder"])
def test_a_picture_that_cannot_be_read_is_named_and_left_out(file: Path, media: Path, spoil: str) -> None:
    capture = make_finished(frames=3, count=3)
    name = frame_name = str(capture.frames.order_by("id")[0].image.name)
    path = media / name
    data = path.read_bytes()
    path.unlink()
    if spoil == "cut":
        path.write_bytes(data[:-9])
    elif spoil == "folder":
        path.mkdir()
    with pytest.raises(CommandError, match=frame_name) as caught:
        back_up(file)
    assert caught.value.returncode == Exit.FAILED
    wipe(media)
    restore(file)
    assert Capture.objects.get().frames.count() == 2
    assert len(files(media)) == 3


# --- keys -------------------------------------------------------------------------------------------


def test_without_its_key_the_passwords_have_to_be_given_again(file: Path, media: Path, settings: Settings) -> None:
    make_finished(URL_WITH_SECRET)
    key = configured.CREDENTIALS_KEYS
    back_up(file)
    wipe(media)
    settings.CREDENTIALS_KEYS = [Fernet.generate_key().decode()]
    said = restore(file)
    assert "keys are not in the backup" in said
    assert "passwords of 1 streams cannot be read" in said
    settings.CREDENTIALS_KEYS = key
    assert Stream.objects.get().address.password == SECRET


def test_with_keys_the_passwords_are_for_the_key_that_there_is(
    file: Path, media: Path, settings: Settings, tmp_path: Path
) -> None:
    make_finished(URL_WITH_SECRET)
    assert "keys are in it" in back_up(file, "--with-keys")
    wipe(media)
    settings.DATA_DIR = tmp_path / "used"
    (settings.DATA_DIR / "more").mkdir(parents=True)
    settings.CREDENTIALS_KEYS = [Fernet.generate_key().decode()]
    settings.SECRET_KEY = "x" * 50
    said = restore(file)
    assert "keeps its own SECRET_KEY" in said
    assert "encrypted the passwords again" in said
    assert "cannot be read" not in said
    assert Stream.objects.get().address.password == SECRET


def test_keys_are_written_where_this_process_had_to_make_them(
    file: Path, media: Path, settings: Settings, tmp_path: Path
) -> None:
    make_finished(URL_WITH_SECRET)
    was = configured.SECRET_KEY, configured.CREDENTIALS_KEYS[0]
    back_up(file, "--with-keys")
    wipe(media)
    settings.DATA_DIR = tmp_path / "fresh"
    settings.SECRET_KEY = keys.secret_key(settings.DATA_DIR)
    settings.CREDENTIALS_KEYS = [keys.credentials_key(settings.DATA_DIR)]
    assert "written to DATA_DIR: secret_key, credentials_key" in restore(file)
    assert (keys.secret_key(settings.DATA_DIR), keys.credentials_key(settings.DATA_DIR)) == was
    assert {path.stat().st_mode & 0o777 for path in settings.DATA_DIR.glob("*_key")} == {0o600}
    settings.CREDENTIALS_KEYS = [was[1]]
    assert Stream.objects.get().address.password == SECRET


def test_a_file_that_was_refused_first_costs_no_keys(
    file: Path, media: Path, settings: Settings, tmp_path: Path
) -> None:
    make_finished(URL_WITH_SECRET)
    was = configured.SECRET_KEY, configured.CREDENTIALS_KEYS[0]
    back_up(file, "--with-keys")
    wipe(media)
    settings.DATA_DIR = tmp_path / "fresh"
    settings.SECRET_KEY = keys.secret_key(settings.DATA_DIR)
    settings.CREDENTIALS_KEYS = [keys.credentials_key(settings.DATA_DIR)]
    keys.made_here.clear()  # the process that was refused had made them
    assert "written to DATA_DIR: secret_key, credentials_key" in restore(file)
    assert (keys.secret_key(settings.DATA_DIR), keys.credentials_key(settings.DATA_DIR)) == was


def test_keys_beside_anything_else_stay(file: Path, media: Path, settings: Settings, tmp_path: Path) -> None:
    make_finished(URL_WITH_SECRET)
    back_up(file, "--with-keys")
    wipe(media)
    settings.DATA_DIR = tmp_path / "used"
    settings.SECRET_KEY = keys.secret_key(settings.DATA_DIR)
    settings.CREDENTIALS_KEYS = [keys.credentials_key(settings.DATA_DIR)]
    keys.made_here.clear()
    (settings.DATA_DIR / "prepare.lock").touch()
    was = settings.SECRET_KEY, settings.CREDENTIALS_KEYS[0]
    assert "keeps its own key for the cameras' passwords" in restore(file)
    assert (keys.secret_key(settings.DATA_DIR), keys.credentials_key(settings.DATA_DIR)) == was
    assert Stream.objects.get().address.password == SECRET


# --- what is refused ----------------------------------------------------------------------------------


def test_a_database_or_a_storage_with_content_is_refused(file: Path, media: Path) -> None:
    capture = make_finished()
    back_up(file)
    before = rows()
    assert "has streams or captures" in refusal(file)
    assert rows() == before
    wipe(media)
    foreign = media / "frames" / "7" / "1-0a1b2c3d.jpg"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"somebody's")
    assert "frames/7/1-0a1b2c3d.jpg" in refusal(file)
    assert files(media) == ["frames/7/1-0a1b2c3d.jpg"]
    assert not Stream.objects.exists()
    foreign.unlink()
    restore(file)
    assert files(media) == all_files(capture)


def test_a_living_host_is_refused(file: Path, media: Path) -> None:
    make_finished()
    back_up(file)
    wipe(media)
    make_host("south")
    assert "running on the host south" in refusal(file)
    assert is_empty(media)
    make_host("south", silent_s=60)
    restore(file)


def test_pictures_of_a_restore_that_was_killed_are_written_again(file: Path, media: Path) -> None:
    """Whole or not."""
    capture = make_finished()
    back_up(file)
    kept = contents(media)
    wipe(media)
    for name in all_files(capture)[:4]:
        path = media / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kept[name][: random.randrange(len(kept[name]))])
    restore(file)
    assert contents(media) == kept


class At:
    """Does something at each step of a restore."""

    def __init__(self, work: Callable[[str], object]) -> None:
        self._work = work
        self._step = ""

    def begin(self, what: str, total: int) -> None:
        self._step = what
        self._work(what)

    def advance(self, count: int = 1) -> None:
        self._work(f"{self._step} {count}")


def test_a_second_restore_beside_the_first_is_refused(file: Path, media: Path) -> None:
    """Before it writes anything: the pictures of another backup would stay."""
    capture = make_finished()
    back_up(file)
    wipe(media)
    said: dict[str, str] = {}

    def another(step: str) -> None:
        def run() -> None:
            try:
                said[step] = refusal(file)
            finally:
                connections.close_all()

        # A session of its own. It would have written all before the first one looks into the database again.
        if step in ("captures checked", "pictures"):
            thread = Thread(target=run)
            thread.start()
            thread.join()

    with file.open("rb") as opened_file, patch("signal.signal"):
        restore_from(opened_file, At(another))
    assert said == dict.fromkeys(["captures checked", "pictures"], "Another restore is running: wait for its end.")
    assert files(media) == all_files(capture)
    wipe(media)
    restore(file)


def test_a_row_from_before_a_column_is_taken() -> None:
    """As every new column has a default in the database, and often none beside it."""
    later = models.IntegerField(db_default=7)
    later.set_attributes_from_name("later")
    row = {"name": "a", "url": "rtsp://camera.example/a"}
    with patch.object(Stream._meta, "concrete_fields", [*Stream._meta.concrete_fields, later]):
        assert backup_rows.made(Stream, row).name == "a"
        del row["url"]
        with pytest.raises(backup_rows.BadRow, match="has no url"):
            backup_rows.made(Stream, row)


def test_an_account_of_the_same_name_is_replaced(file: Path, media: Path) -> None:
    """The one that the environment of the first start makes."""
    User.objects.create_user("keeper", "old@example", is_staff=True)
    back_up(file)
    wipe(media)
    User.objects.create_user("other")
    User.objects.create_user("keeper", "new@example")
    restore(file)
    assert dict(User.objects.values_list("username", "email")) == {"keeper": "old@example", "other": ""}


def manifest_of(file: Path) -> dict[str, Any]:
    with tarfile.open(file) as archive:
        found: dict[str, Any] = json.loads(archive.extractfile("manifest.json").read())  # type: ignore[union-attr]
    return found


def with_manifest(file: Path, **changes: Any) -> None:
    """The same backup with another manifest, and checksums that are right for it."""
    manifest = manifest_of(file) | changes
    buffer = io.BytesIO()
    with tarfile.open(file) as old:
        members = [(member.name, old.extractfile(member).read()) for member in old]  # type: ignore[union-attr]
    writer = tape.Writer(buffer, 0)
    writer.add("manifest.json", backup.encode_manifest(manifest))
    for name, data in members[1:-1]:
        writer.add(name, data)
    totals = json.loads(members[-1][1])
    del totals["sha256"]
    writer.add("totals.json", backup.encode_totals(totals, writer.sha256))
    writer.end()
    file.write_bytes(buffer.getvalue())


def test_what_a_newer_version_made_is_refused(file: Path, media: Path) -> None:
    make_finished()
    back_up(file)
    original = file.read_bytes()
    wipe(media)
    with_manifest(file, version=2)
    assert "newer version" in refusal(file)
    file.write_bytes(original)
    migrations = manifest_of(file)["migrations"]
    with_manifest(file, migrations=migrations | {"streams": [*migrations["streams"], "9999_from_the_future"]})
    assert "streams.9999_from_the_future" in refusal(file)
    assert is_empty(media)
    with_manifest(file, migrations=migrations)
    restore(file)


def test_a_backup_that_was_cut_or_changed_is_refused(file: Path, media: Path) -> None:
    """Wherever: each byte of it is checked."""
    make_finished(frames=2, count=2)
    back_up(file)
    original = file.read_bytes()
    wipe(media)
    seed = random.randrange(1 << 32)
    print(f"{seed=}")
    chance = random.Random(seed)
    headers = [at for at in range(0, len(original), BLOCK) if original[at + 257 : at + 262] == b"ustar"]
    positions = [chance.randrange(len(original)) for _ in range(100)]
    positions += [at + chance.randrange(BLOCK) for at in headers for _ in range(3)]
    for position in positions:
        damaged = bytearray(original)
        damaged[position] ^= 1 << chance.randrange(8)
        file.write_bytes(damaged)
        assert refusal(file), position
    for length in [0, 1, BLOCK, len(original) - 1, *(chance.randrange(len(original)) for _ in range(30))]:
        file.write_bytes(original[:length])
        assert refusal(file), length
    for more in (b"\0", b"x", bytes(BLOCK), original):
        file.write_bytes(original + more)
        assert refusal(file)
    assert is_empty(media)
    file.write_bytes(original)
    restore(file)


def hostile(name: str, **fields: Any) -> bytes:
    """A member as tarfile makes it, and its data."""
    info = tarfile.TarInfo(name)
    info.mode = 0o600
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "member",
    [
        hostile("pictures/frames/1/1-0a1b2c3d.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        hostile("pictures/frames/1/1-0a1b2c3d.jpg", type=tarfile.LNKTYPE, linkname="manifest.json"),
        hostile("pictures/frames/1/1-0a1b2c3d.jpg", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        hostile("pictures/frames", type=tarfile.DIRTYPE),
        hostile("pictures/frames/1/1-0a1b2c3d.jpg", size=1 << 40),
        hostile("pictures/" + "a" * 300),
    ],
)
def test_what_is_no_plain_file_is_refused(file: Path, media: Path, member: bytes) -> None:
    back_up(file)
    original = file.read_bytes()
    file.write_bytes(original[: -2 * BLOCK] + member + original[-2 * BLOCK :])
    assert "no backup holds" in refusal(file)
    assert is_empty(media)


def tampered(file: Path, change: Callable[[list[tuple[str, bytes]]], object]) -> None:
    """As somebody makes it who knows the format: all checksums are right."""
    with tarfile.open(file) as old:
        members = [(member.name, old.extractfile(member).read()) for member in old]  # type: ignore[union-attr]
    change(members)
    buffer = io.BytesIO()
    writer = tape.Writer(buffer, 0)
    for name, data in members[:-1]:
        writer.add(name, data)
    totals = json.loads(members[-1][1])
    del totals["sha256"]
    names = [name for name, _ in members]
    totals["pictures"] = sum(name.startswith("pictures/") for name in names)
    totals["captures"] = sum(name.startswith("captures/") for name in names)
    writer.add("totals.json", backup.encode_totals(totals, writer.sha256))
    writer.end()
    file.write_bytes(buffer.getvalue())


Members = list[tuple[str, bytes]]


def _at(members: Members, beginning: str) -> int:
    return next(at for at, (name, _) in enumerate(members) if name.startswith(beginning))


def _outside(members: Members) -> None:
    at = _at(members, "pictures/frames")
    members[at] = ("pictures/../../outside.jpg", members[at][1])


def _outside_in_the_row_too(members: Members) -> None:
    at, row = _at(members, "pictures/frames"), _at(members, "captures/")
    name = members[at][0].removeprefix("pictures/")
    members[at] = ("pictures/../../outside.jpg", members[at][1])
    members[row] = (members[row][0], members[row][1].replace(name.encode(), b"../../outside.jpg"))


def _absolute(members: Members) -> None:
    at = _at(members, "pictures/frames")
    members[at] = ("/tmp/outside.jpg", members[at][1])


def _twice(members: Members) -> None:
    at = _at(members, "pictures/frames")
    members.insert(at, members[at])


def _capture_twice(members: Members) -> None:
    members.insert(-1, members[_at(members, "captures/")])


def _picture_missing(members: Members) -> None:
    del members[_at(members, "pictures/frames")]


def _picture_changed(members: Members) -> None:
    at = _at(members, "pictures/frames")
    members[at] = (members[at][0], members[at][1] + b"more")


def _unknown_part(members: Members) -> None:
    members.insert(-1, ("etc/passwd", b"root"))


def _unknown_field(members: Members) -> None:
    at = _at(members, "captures/")
    members[at] = (members[at][0], members[at][1].replace(b'"samples"', b'"sampled"'))


def _wrong_value(members: Members) -> None:
    at = _at(members, "captures/")
    row = json.loads(members[at][1])
    row["capture"]["started_at"] = "yesterday"
    members[at] = (members[at][0], json.dumps(row).encode())


def _foreign_job(members: Members) -> None:
    at = _at(members, "rows/schedules")
    members[at] = (members[at][0], members[at][1].replace(b"streams.jobs.prune", b"os.system"))


@pytest.mark.parametrize(
    "change",
    [
        *(_outside, _outside_in_the_row_too, _absolute, _twice, _capture_twice, _picture_missing, _picture_changed),
        *(_unknown_part, _unknown_field, _wrong_value, _foreign_job),
    ],
)
def test_what_somebody_made_who_knows_the_format_is_refused(
    file: Path, media: Path, tmp_path: Path, change: Callable[[Members], object]
) -> None:
    retention.keep_schedule()
    make_finished(frames=2, count=2)
    back_up(file)
    wipe(media)
    tampered(file, change)
    before = files(tmp_path)
    assert refusal(file)
    assert is_empty(media)
    assert files(tmp_path) == before


def test_rows_that_the_database_does_not_take_are_refused_as_a_whole(file: Path, media: Path) -> None:
    """The pictures that were written by then are the next restore's."""
    make_finished(frames=2, count=2)
    back_up(file)
    original = file.read_bytes()
    wipe(media)

    def without_stream(members: Members) -> None:
        at = _at(members, "captures/")
        row = json.loads(members[at][1])
        row["capture"]["stream_id"] += 1
        members[at] = (members[at][0], json.dumps(row).encode())

    tampered(file, without_stream)
    assert "does not take its rows" in refusal(file)
    assert not Stream.objects.exists()
    file.write_bytes(original)
    restore(file)
    assert Capture.objects.get().frames.count() == 2


# --- the file -----------------------------------------------------------------------------------------


def test_what_was_there_before_stays_if_the_backup_fails(file: Path, media: Path) -> None:
    make_finished()
    file.parent.mkdir()
    file.write_bytes(b"the one of yesterday")

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(CommandError, match="No file was written") as caught:
        back_up_meanwhile(file, fail)
    assert caught.value.returncode == Exit.KILLED
    assert files(file.parent) == ["all.tar"]
    assert file.read_bytes() == b"the one of yesterday"
    file.chmod(0o644)
    back_up(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert files(file.parent) == ["all.tar"]


def test_where_files_cannot_be_nameless_the_backup_is_whole_or_not_there(file: Path, media: Path) -> None:
    make_finished()
    with patch("streams.whole_file._open_nameless", lambda _: None):
        back_up(file)
        assert file.stat().st_mode & 0o777 == 0o600
        with pytest.raises(CommandError, match="is a folder"):
            back_up(file.parent)
    assert files(file.parent) == ["all.tar"]
    wipe(media)
    restore(file)


def test_a_full_disk_is_one_sentence(file: Path, media: Path) -> None:
    make_finished()
    with (
        pytest.raises(CommandError, match=r"^.* cannot be written: No space left on device\.$") as caught,
        patch("streams.whole_file._open_nameless", lambda _: os.open("/dev/full", os.O_WRONLY)),
    ):
        back_up(file)
    assert caught.value.returncode == Exit.CANNOT_WRITE
    assert files(file.parent) == []


def test_a_full_disk_of_temporary_files_is_one_sentence(file: Path, media: Path, capfdbinary: Any) -> None:
    """What is left in memory is written late: as the file is read again."""
    make_finished()
    with (
        pytest.raises(CommandError, match=r"^[^\n]*No space left on device\.$") as caught,
        patch("tempfile.TemporaryFile", lambda dir: open("/dev/full", "r+b", buffering=1 << 20)),
        patch("sys.stdout", open(os.devnull, "w")),
    ):
        call_command("backup", "-", stderr=io.StringIO())
    assert caught.value.returncode == Exit.CANNOT_WRITE


def test_by_standard_input_it_is_the_same(file: Path, media: Path, tmp_path: Path) -> None:
    """A pipe cannot be read twice: what comes is copied first, and checked before anything is written."""
    capture = make_finished()
    back_up(file)
    data = file.read_bytes()
    wipe(media)
    progress = Meanwhile(lambda: None)
    for sent, is_whole in ((data[:-BLOCK], False), (data, True)):
        before = files(tmp_path)
        with opened("-", tmp_path, io.BytesIO(sent)) as copy, nullcontext() if is_whole else pytest.raises(Refused):
            restore_from(copy, progress)
        assert Stream.objects.exists() is is_whole
        assert is_whole or files(tmp_path) == before
    assert files(media) == all_files(capture)


# --- what the docs say --------------------------------------------------------------------------------

DOCUMENTED = re.findall(
    r"^ {4}.*?((?:backup|restore) (?:-|\S+\.tar)(?: --\S+)?)(?= |$)",
    "".join((ROOT / name).read_text() for name in ("README.md", "docs/operations.md")),
    re.M,
)


def test_each_line_of_the_docs_is_understood() -> None:
    assert len(DOCUMENTED) >= 10
    for line in DOCUMENTED:
        name, *words = line.replace("\\%", "%").split()
        command = load_command_class("streams", name)
        assert command.create_parser("manage.py", name).parse_args(words).file
