"""The disk that holds SQLite and the pictures is full: what ends captures and makes room works, nothing is lost."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from streams.reserve import RESERVE_BYTES
from tests.camera.clip import Scene
from tests.e2e.clients import check_files
from tests.e2e.prepared import MANAGE
from tests.e2e.rows import Rows
from tests.e2e.service import ROOT, Calls, Service, wait_for
from tests.e2e.site import Site
from tests.e2e.test_outages import UNSHARE, cameras, may_mount, nothing_was_lost
from tests.servers import PostgreSQL, _unprivileged, _unprivileged_command

DISK = "120m"
COUNT = 100  # more than is sampled: the leaderboard holds all that ever was
# A picture is 100 KiB.
SCENE = Scene(640, 360, tuple(230.0 - second for second in range(120)), fps=2, noise=16.0)
JSON = "application/json"
ASK = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
print(json.dumps(connection.execute(sys.argv[2]).fetchall()))
"""


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """`folder` is the disk as this process sees it, `inside` as the service does."""

    service: Service
    folder: Path
    inside: Path

    @property
    def database(self) -> Path:
        return self.folder / "data" / "db.sqlite3"

    @property
    def reserve(self) -> os.stat_result:
        return Path(f"{self.database}-reserve").stat()

    def fill(self) -> None:
        """To the last byte, also what SQLite's log has room for."""
        for _ in range(2):
            self.ask("PRAGMA wal_checkpoint(TRUNCATE)")
            with suppress(OSError), (self.folder / "filler").open("ab", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))

    def ask(self, query: str) -> list[Any]:
        """Of the database, by a process that sees the disk under its own name: SQLite follows no link of /proc."""
        answer: list[Any] = json.loads(
            self.run(sys.executable, "-c", ASK, str(self.inside / "data/db.sqlite3"), query)
        )
        return answer

    def empty(self) -> None:
        (self.folder / "filler").unlink()

    def run(self, *command: str) -> str:
        """What it prints."""
        user = () if os.getuid() == 0 else ("--user", "--preserve-credentials")
        enter = ("nsenter", "--target", str(self.service.processes[0].pid), "--mount", *user, f"--wd={ROOT}", "--")
        done = subprocess.run(
            [*enter, *command], env=self.service.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """It goes with the service, whose processes alone see it."""
    disk = folder / "disk"
    disk.mkdir()
    inside = ["sh", "-c", f'mount -t tmpfs -o size={DISK} tmpfs "$0" && exec "$@"', str(disk)]
    settings = {"DATA_DIR": str(disk / "data"), "MEDIA_ROOT": str(disk / "media"), "PYTHON": sys.executable}
    with Service(folder, ((*UNSHARE, *inside, "bash", str(ROOT / "scripts/serve.sh")),), settings) as service:
        yield SmallDisk(service, Path(f"/proc/{service.processes[0].pid}/root") / disk.relative_to("/"), disk)


class RowsInside(Rows):
    def __init__(self, disk: SmallDisk) -> None:
        self._disk = disk

    def read(self, query: str) -> list[Any]:
        return self._disk.ask(query)


@pytest.mark.skipif(not may_mount(), reason="no file system can be mounted here")
def test_on_a_full_disk_all_that_makes_room_works(tmp_path: Path) -> None:
    with cameras(SCENE, "cam", 4) as addresses, small_disk(tmp_path) as disk:
        service = disk.service
        reserve = disk.reserve
        assert (reserve.st_size, stat.S_IMODE(reserve.st_mode)) == (RESERVE_BYTES, 0o600)
        assert reserve.st_blocks * 512 >= RESERVE_BYTES, "it is really there"
        over, first, second = (service.begin(address, count=COUNT) for address in addresses[:3])
        for capture in (over, first, second):
            service.wait_for_samples(capture, 3)
        assert service.end("cam-0").status_code == 409

        disk.fill()
        for accept in (JSON, "text/html"):
            refused = service.post("/start", accept, rtsp_url=addresses[3], count=COUNT)
            assert (refused.status_code, "storage_full" in refused.text) == (503, True), refused.text
        assert "The disk of the database is full" in refused.text
        samples = service.capture(first)["samples"]
        service.wait_for_samples(second, 1)
        stopped = service.end("cam-1", JSON)
        assert (stopped.status_code, stopped.json()["code"]) == (409, "not_enough_frames")
        assert stopped.json()["samples"] >= samples
        assert stopped.json()["grid"], "there was room for it"
        assert disk.reserve.st_size == 0
        assert "storage full: the reserve is given up" in service.log
        readyz = requests.get(f"{service.url}/readyz", timeout=60)
        assert (readyz.status_code, readyz.json()["storage"]["ok"]) == (503, False)
        assert service.post("/start", JSON, rtsp_url=addresses[3]).json()["code"] == "storage_full"

        rows = RowsInside(disk)
        nothing_was_lost(rows, [over, first])
        deleted = requests.delete(f"{service.url}/api/streams/cam-0", timeout=60)
        assert deleted.status_code == 204, deleted.text
        assert over not in rows.captures()
        assert "1 removed" in disk.run(sys.executable, MANAGE, "prune", "--days", "0.000001")
        assert set(rows.captures()) == {second}
        assert service.post("/start", JSON, rtsp_url=addresses[3]).json()["code"] == "storage_full"

        disk.empty()
        fourth = service.begin(addresses[3], count=COUNT)
        assert disk.reserve.st_size == RESERVE_BYTES
        for capture in (second, fourth):
            service.wait_for_samples(capture, service.capture(capture)["samples"] + 2)
        for name in ("cam-2", "cam-3"):
            assert service.end(name).status_code == 409
        assert requests.get(f"{service.url}/readyz", timeout=60).json()["storage"]["ok"]
        nothing_was_lost(rows, [second, fourth])
        check_files(rows, disk.folder / "media")
        assert service.log.count("storage full: the reserve is given up") == 1
        assert "database away" not in service.log


# --- PostgreSQL -----------------------------------------------------------------------------------


class SmallPostgreSQL(PostgreSQL):
    """Its data lie on a disk of 160 MiB, which goes with the process that holds it."""

    def __init__(self) -> None:
        super().__init__(is_durable=False)
        self._place = self.folder
        uid, gid = _unprivileged()
        mount = f'mount -t tmpfs -o size=160m,uid={uid},gid={gid},mode=700 tmpfs "$0" && exec "$@"'
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", mount, str(self._place),
             *_unprivileged_command("--pdeathsig", "KILL"), "sleep", "infinity"]
        )  # fmt: skip
        # Only what runs as the same user may go in by this way: `sleep` does, once it is that.
        self.folder = Path(f"/proc/{self._holder.pid}/root") / self._place.relative_to("/")
        wait_for(lambda: self._is_held(uid), "a disk of its own")

    def _is_held(self, uid: int) -> bool:
        assert self._holder.poll() is None
        return "sleep" in Path(f"/proc/{self._holder.pid}/comm").read_text() and self.folder.stat().st_uid == uid

    def close(self) -> None:
        super().close()
        self._holder.kill()
        self._holder.wait()
        shutil.rmtree(self._place, ignore_errors=True)


@pytest.mark.skipif(os.getuid() != 0 or not may_mount(), reason="no file system can be mounted here")
def test_a_full_disk_of_postgresql_is_told_as_that(tmp_path: Path) -> None:
    with SmallPostgreSQL() as server, Site(tmp_path, server.new_database().url, hosts={}) as site:
        website, filler = site.website, server.folder / "filler"
        assert start(website, 0).status_code == 201
        with suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        # What is written fits into pages that there are for a while; a table that has to grow does not.
        answers = (start(website, number) for number in range(1, 500))
        refused = next(answer for answer in answers if answer.status_code != 201)
        assert (refused.status_code, refused.json()["code"]) == (503, "storage_full")
        assert "The disk of the database is full" in refused.json()["message"]
        assert "failed: storage full error=OperationalError" in website.log
        assert requests.get(f"{website.url}/", timeout=60).status_code == 200
        filler.unlink()
        wait_for(lambda: start(website, 500).status_code == 201, "a start once there is room")


def start(website: Calls, number: int) -> requests.Response:
    return website.post("/start", JSON, rtsp_url=f"rtsp://10.9.9.9/{'x' * 400}-{number}", name=f"cam-{number}")
