"""Backups by real processes: of captures that run, of a thousand captures, and killed in the middle."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from streams.engine import sheet
from tests.camera.clip import Scene, encode
from tests.camera.server import ScriptedCamera
from tests.e2e.prepared import MANAGE, prepare_sqlite
from tests.e2e.rows import Rows
from tests.e2e.service import ROOT, wait_for
from tests.e2e.site import KEYS, Site
from tests.servers import Database, PostgreSQL
from tests.streams.processes import environment, manage, managing, python

RUNNING, COUNT = 24, 9
# Brighter every second: each second every capture evicts a frame and deletes its file.
SCENE = Scene(160, 120, tuple(5.0 + second for second in range(240)), fps=5)
MANY = 1000

FILL = f"""
import django; django.setup()
import secrets
from datetime import timedelta
from pathlib import Path
import numpy as np
from django.conf import settings
from django.utils import timezone
from streams.engine import sheet
from streams.models import Capture, Frame, Stream, Timeline

now, media = timezone.now(), Path(settings.MEDIA_ROOT)
jpegs = [sheet.encode_jpeg(np.full((24, 32, 3), 9 * n, np.uint8), 90) for n in range(20)]
streams = Stream.objects.bulk_create(
    Stream(name=f"cam-{{n}}", url=f"rtsp://camera.example/{{n}}", credentials=f"user:word-{{n}}") for n in range(50))
captures = [
    Capture(id=3 * n + 1, stream=streams[n % 50], started_at=now - timedelta(hours={MANY} - n), ending="stopped",
            finished_at=now - timedelta(hours={MANY} - n - 1), samples=n, late_p50_s=n / 7,
            grid=f"grids/{{3 * n + 1}}/{{secrets.token_hex(4)}}.jpg")
    for n in range({MANY})]
Capture.objects.bulk_create(captures)
frames = [
    Frame(capture=capture, number=k, score=k / 3, captured_at=now, width=32, height=24,
          image=f"frames/{{capture.pk}}/{{k}}-{{secrets.token_hex(4)}}.jpg")
    for capture in captures for k in (1, 2)]
Frame.objects.bulk_create(frames)
Timeline.objects.bulk_create(Timeline(capture=capture, data="t" * 2000) for capture in captures)
for n, name in enumerate([str(c.grid.name) for c in captures] + [str(f.image.name) for f in frames]):
    path = media / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpegs[n % 20] + b"%d" % n + bytes((255, 217)))
"""
CALL = """
import django; django.setup()
from django.test import Client
us = Client(headers={"Host": "testserver", "Authorization": "Bearer " + "t" * 20, "Accept": "application/json"})
"""
MAKE_LINK = (
    CALL
    + """
print(us.post("/api/links", {"path": "LINK"}, "application/json").json()["url"])
"""
)
FOLLOW_LINK_AND_START = (
    CALL
    + """
anybody = Client(headers={"Host": "testserver"})
print(anybody.get("LINK").status_code, anybody.get("LINK" + "x").status_code)
print(us.post("/start", {"rtsp_url": "rtsp://camera.example/fresh"}).json()["capture"])
"""
)
DJANGO = {"DJANGO_SETTINGS_MODULE": "rtspsite.settings", "API_TOKEN": "t" * 20, "ALLOWED_HOSTS": "testserver"}


# --- captures that run --------------------------------------------------------------------------------


def test_each_backup_of_running_captures_is_whole(tmp_path: Path, own_database: Database) -> None:
    """In SQLite; the next test takes PostgreSQL."""
    site = Site(tmp_path / "site", hosts={"north": RUNNING})
    with ScriptedCamera(encode(SCENE), host="0.0.0.0", live=True) as camera, site, Rows(site.database_url) as rows:

        def begin(number: int) -> int:
            url = f"rtsp://127.0.1.{number + 1}:{camera.port}/demo"
            return site.website.begin(url, name=f"cam-{number}", count=COUNT, interval=0.2)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(begin, range(RUNNING)))
        wait_for(lambda: len(rows.frames()) == RUNNING * COUNT, "nine frames of each")
        begun = {frame.image for frame in rows.frames()}
        files = [tmp_path / f"{number}.tar" for number in range(3)]
        for file in files:
            assert f"{RUNNING} captures" in site.manage("backup", str(file))
        wait_for(lambda: begun - {frame.image for frame in rows.frames()}, "frames that lost their places")
        site.website.kill()
        site.hosts["north"].kill()
        check_restores(tmp_path, files, own_database)


def test_a_backup_of_running_captures_in_postgresql_is_whole(tmp_path: Path, own_database: Database) -> None:
    running, file, elsewhere = 4, tmp_path / "all.tar", tmp_path / "elsewhere"
    site = Site(tmp_path / "site", own_database.url, hosts={"north": running})
    with ScriptedCamera(encode(SCENE), host="0.0.0.0", live=True) as camera, site, Rows(site.database_url) as rows:
        for number in range(running):
            url = f"rtsp://127.0.1.{number + 1}:{camera.port}/demo"
            site.website.begin(url, name=f"cam-{number}", count=COUNT, interval=0.2)
        wait_for(lambda: len(rows.frames()) == running * COUNT, "nine frames of each")
        begun = {frame.image for frame in rows.frames()}
        site.manage("backup", str(file))
        assert begun - {frame.image for frame in rows.frames()}, "evicted meanwhile"
        site.website.kill()
        site.hosts["north"].kill()
    restored(elsewhere, file, {}, ["--resume"])
    check_whole(elsewhere, f"sqlite:///{database_of(elsewhere)}", False, running)


def check_restores(tmp_path: Path, files: list[Path], own_database: Database) -> None:
    """Each elsewhere; a supervisor goes on with those of the last one, while the camera still plays."""
    elsewhere = [tmp_path / name for name in ("one", "two", "three")]
    others: list[dict[str, str]] = [{}, {"DATABASE_URL": own_database.url}, {}]
    options: list[list[str]] = [[], ["--resume"], ["--resume"]]
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(restored, elsewhere, files, others, options))
    for folder, url, (said, is_over) in zip(
        elsewhere, ["", own_database.url, ""], zip(done, [True, False, False], strict=True), strict=True
    ):
        assert f"in progress at the backup: {RUNNING}" in said
        check_whole(folder, url or f"sqlite:///{database_of(folder)}", is_over)
    resumed_at, settings = time.time(), {**KEYS, "CAPTURE_SLOTS": "2"}
    with managing(elsewhere[2], "supervise", **settings), Rows(f"sqlite:///{database_of(elsewhere[2])}") as rows:
        oldest = sorted(rows.captures())[:2]
        wait_for(lambda: rows.are_sampled(oldest, resumed_at, "north"), "samples after the restore")


def restored(folder: Path, file: Path, variables: dict[str, str], options: list[str]) -> str:
    done = manage(folder, "restore", str(file), *options, **KEYS, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_whole(folder: Path, url: str, is_over: bool, running: int = RUNNING) -> None:
    """Each row has its picture, each picture decodes, no picture is without a row, no capture lacks a frame."""
    with Rows(url) as rows:
        captures, frames = rows.captures(), rows.frames()
        statuses = {status for (status,) in rows.read("SELECT status FROM streams_stream")}
    assert len(captures) == running
    assert len(frames) == running * COUNT
    grids = {capture.grid for capture in captures.values() if capture.grid}
    assert len(grids) == (running if is_over else 0)
    assert statuses == ({"idle"} if is_over else {"queued"})
    names = {frame.image for frame in frames} | grids
    media = folder / "media"
    assert names == {str(path.relative_to(media)) for path in media.rglob("*.jpg")}
    for name in names:
        sheet.decode_jpeg((media / name).read_bytes())


# --- a thousand captures --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a service that has a thousand captures."""
    folder = tmp_path_factory.mktemp("thousand")
    prepare_sqlite(folder / "data" / "db.sqlite3")
    done = python(FILL, folder, **DJANGO)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def moved(postgresql: PostgreSQL) -> Iterator[Database]:
    """An empty database: a restore migrates it."""
    database = postgresql.new_database()
    yield database
    database.drop()


def run(folder: Path, *arguments: str, **variables: str) -> str:
    done = manage(folder, *arguments, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def say(code: str, folder: Path, **variables: str) -> str:
    done = python(code, folder, **DJANGO, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_thousand_captures_move_to_postgresql_and_back(thousand: Path, tmp_path: Path, moved: Database) -> None:
    """With their ids, pictures, passwords and links; restores that were killed leave nothing behind."""
    there, back = tmp_path / "there", tmp_path / "back"
    last = 3 * (MANY - 1) + 1
    link = say(MAKE_LINK.replace("LINK", f"/captures/{last}/grid.jpg"), thousand).removeprefix("http://testserver")
    first, second = tmp_path / "first" / "a.tar", tmp_path / "b.tar"
    first.parent.mkdir()
    killed_at("captures with pictures", thousand, "backup", str(first), "--with-keys")
    assert list(first.parent.iterdir()) == []
    assert f"{MANY} captures and {3 * MANY} pictures" in run(thousand, "backup", str(first), "--with-keys")

    said = run(there, "restore", str(first), DATABASE_URL=moved.url)
    assert "written to DATA_DIR: secret_key, credentials_key" in said
    run(there, "backup", str(second), DATABASE_URL=moved.url)
    seen = say(FOLLOW_LINK_AND_START.replace("LINK", link), there, DATABASE_URL=moved.url)
    assert seen.splitlines() == ["200 403", str(last + 1)]

    for step in ("pictures", "captures"):
        killed_at(step, back, "restore", str(second))
        assert count(back) == 0
    assert "passwords of 50 streams cannot be read" in run(back, "restore", str(second))
    assert differences(thousand, back) == []
    assert pictures_of(thousand) == pictures_of(back)


def killed_at(step: str, folder: Path, *arguments: str, number: signal.Signals = signal.SIGKILL) -> str:
    """The command, killed as soon as it says that it begins with the step; what it says after that."""
    process = subprocess.Popen(
        [sys.executable, MANAGE, *arguments], cwd=ROOT, env=environment(folder), text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr
    with process.stderr as lines:
        said = next((line for line in lines if line.startswith(f"{step}: ")), "")
        process.send_signal(number)
        rest = lines.read()
    code = process.wait(60)
    assert said, f"it never came to {step}"
    assert code == (-number if number == signal.SIGKILL else 130), rest
    return rest


def database_of(folder: Path) -> str:
    return str(folder / "data" / "db.sqlite3")


def count(folder: Path) -> int:
    """Of streams, captures and frames."""
    with sqlite3.connect(database_of(folder)) as connection:
        tables = ("stream", "capture", "frame")
        found = [connection.execute(f"SELECT count(*) FROM streams_{table}").fetchone()[0] for table in tables]  # noqa: S608
    connection.close()
    return sum(found)


def differences(one: Path, other: Path) -> list[object]:
    """Rows that only one of them has. Of a stream also what its password is encrypted as."""
    connection = sqlite3.connect(database_of(one))
    connection.execute("ATTACH ? AS other", [database_of(other)])
    found: list[object] = []
    for table in ("stream", "capture", "frame", "timeline"):
        for here, there in (("main", "other"), ("other", "main")):
            query = f"SELECT * FROM {here}.streams_{table} EXCEPT SELECT * FROM {there}.streams_{table}"  # noqa: S608
            found += connection.execute(query).fetchall()
    connection.close()
    return found


def pictures_of(folder: Path) -> dict[str, bytes]:
    media = folder / "media"
    return {str(path.relative_to(media)): path.read_bytes() for path in media.rglob("*.jpg")}


def test_sigterm_ends_a_backup_with_one_sentence(thousand: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    said = killed_at("captures with pictures", thousand, "backup", str(folder / "a.tar"), number=signal.SIGTERM)
    assert said.splitlines() == ["CommandError: Interrupted before the backup was complete. No file was written."]
    assert os.listdir(folder) == []


def test_a_reader_that_goes_away_ends_a_backup_with_one_sentence(thousand: Path) -> None:
    with subprocess.Popen(
        [sys.executable, MANAGE, "backup", "-"], cwd=ROOT, env=environment(thousand), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stderr
        begin = process.stdout.read(1000)
        process.stdout.close()
        said = process.stderr.read().decode()
    assert b"manifest.json" in begin
    assert process.returncode == 5
    assert said.splitlines()[-1] == "CommandError: Standard output cannot be written: Broken pipe."
