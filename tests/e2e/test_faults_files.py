"""Checkpoints as seen from outside: while processes are killed, each row has its whole file at any moment."""

import random
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from streams.engine import sheet
from tests.camera.clip import Scene
from tests.camera.server import ScriptedCamera
from tests.e2e.rows import Rows
from tests.e2e.service import wait_for
from tests.e2e.site import Host, Site, kill
from tests.servers import Database

CAMERAS = 4
COUNT = 3
KILLING_S = 6.0
END_OF_JPEG = b"\xff\xd9"
# Brighter every second: whatever is saved is evicted three seconds later, and its file goes.
SCENE = Scene(160, 120, tuple(10.0 + 2 * second for second in range(120)), fps=10)


def test_at_every_moment_of_any_kill_each_row_has_its_whole_file(tmp_path: Path, own_database: Database) -> None:
    seed = random.randrange(1 << 32)
    print(f"{seed=}")
    with (
        ExitStack() as stack,
        Site(tmp_path, own_database.url, hosts={"north": 2, "south": 2}) as site,
        Rows(own_database.url) as rows,
        Reader(own_database.url, site.media) as reader,
    ):
        cameras = [stack.enter_context(ScriptedCamera(SCENE, path=f"cam-{n}", live=True)) for n in range(CAMERAS)]
        captures = [site.website.begin(camera.url, count=COUNT, interval=0.5) for camera in cameras]
        for capture in captures:
            site.website.wait_for_samples(capture, COUNT)
        kill_at_random(list(site.hosts.values()), random.Random(seed))
        killed_at = time.time()
        wait_for(lambda: rows.are_sampled(captures, killed_at), "samples again", 90.0)
        wait_for(lambda: len(reader.seen) > 3 * CAMERAS * COUNT, "files that came and went", 90.0)
        for number in range(CAMERAS):
            stop(site, f"cam-{number}")
        assert all(row.grid for row in rows.captures().values())
        rounds = reader.rounds
        wait_for(lambda: reader.rounds > rounds + 1, "another look at all files")
        print(f"{len(reader.seen)} files, looked at {reader.rounds} times")
        assert reader.broken == []
        assert len(rows.frames()) == CAMERAS * COUNT


def stop(site: Site, name: str) -> None:
    wait_for(lambda: site.website.stop_once(name).status_code == 200, f"the grid of {name}")


def kill_at_random(hosts: list[Host], chance: random.Random) -> None:
    """kill -9 of any process of the hosts; a supervisor is started again. All of them run in the end."""
    end_s = time.monotonic() + KILLING_S
    while time.monotonic() < end_s:
        kill(any_of(chance.choice(hosts), chance))
        time.sleep(chance.uniform(0.0, 0.3))
        restart(hosts)
    restart(hosts)


def restart(hosts: Iterable[Host]) -> None:
    for host in hosts:
        if not host.is_running:
            host.start()


def any_of(host: Host, chance: random.Random) -> psutil.Process:
    """A recorder or the supervisor, who write, as often as anything else."""
    writers = [host.supervisor, *host.recorders]
    return chance.choice(writers if chance.random() < 0.5 else host.processes() or writers)


class Reader(threading.Thread):
    """Reads all rows and the files that they name, over and over. `broken`: files of rows that were not whole."""

    def __init__(self, url: str, media: Path) -> None:
        super().__init__(name="reader", daemon=True)
        self.seen: set[str] = set()
        self.broken: list[str] = []
        self.rounds = 0
        self._whole: dict[str, tuple[int, int, int]] = {}
        self._url = url
        self._media = media
        self._is_over = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self.join(30.0)

    def run(self) -> None:
        with Rows(self._url) as rows:
            while not self._is_over.wait(0.005):
                self._read(rows)
                self.rounds += 1

    def _read(self, rows: Rows) -> None:
        """A row that is gone by now may have lost its file: it was evicted between the two looks."""
        suspects = {name for name in _names(rows) if not self._is_whole(name)}
        if suspects:
            self.broken += sorted(suspects & _names(rows))

    def _is_whole(self, name: str) -> bool:
        """One that was whole is read again when it is another file or has been written to since."""
        path = self._media / name
        try:
            found = path.stat()
            version = found.st_ino, found.st_size, found.st_mtime_ns
            if self._whole.get(name) == version:
                return True
            data = path.read_bytes()
            sheet.decode_jpeg(data)
        except (OSError, sheet.UnreadablePicture):
            return False
        self.seen.add(name)
        if data.endswith(END_OF_JPEG):
            self._whole[name] = version
            return True
        return False


def _names(rows: Rows) -> set[str]:
    grids = {row.grid for row in rows.captures().values() if row.grid}
    return {frame.image for frame in rows.frames()} | grids
