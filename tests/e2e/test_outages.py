"""What the service needs goes away for a while, under load, and comes back: nothing is lost, only later."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import pytest
import requests

from streams.claims import CLAIM_S
from tests.camera.clip import Scene, encode
from tests.camera.server import ScriptedCamera
from tests.e2e.clients import CLIENTS, Answer, Clients, check_answers, check_files, unexpected
from tests.e2e.prepared import MANAGE
from tests.e2e.rows import Rows
from tests.e2e.service import Calls, Service, wait_for
from tests.e2e.site import Site, is_running
from tests.figures import Figure
from tests.servers import Database, PostgreSQL, Redis

COUNT = 100  # more than is sampled: the leaderboard holds all that ever was
INTERVAL_S = 2.0
LIMIT_S = 90.0
AWAY = (503, "database_away")
# Each second differs from all others; it begins anew after longer than a test may last.
LASTING = Scene(160, 120, tuple(250.0 - second for second in range(240)), fps=5)
# What the clients start and stop.
SHORT = Scene(160, 120, (120.0, 60.0, 200.0, 90.0, 160.0, 40.0, 220.0, 140.0), fps=10, gop_s=0.5)
# A picture is 100 KiB: more than the log of a host, which the quota is for as well.
LARGE = Scene(640, 360, tuple(230.0 - second for second in range(200)), fps=2, noise=16.0)
QUOTA_BYTES = 64 * 1024
PAGE_BYTES = 4096
UNSHARE = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--user", "--map-root-user"])]


@contextmanager
def cameras(scene: Scene, name: str, count: int) -> Iterator[list[str]]:
    """Their addresses."""
    clip = encode(scene)
    with ExitStack() as stack:
        yield [stack.enter_context(ScriptedCamera(clip, path=f"{name}-{n}", live=True)).url for n in range(count)]


class Visitor(threading.Thread):
    """Looks at pages all the time. `answers`: what each look was answered with."""

    def __init__(self, url: str, paths: Iterable[str]) -> None:
        super().__init__(name="visitor", daemon=True)
        self.answers: list[Answer] = []
        self._url = url
        self._paths = list(paths)
        self._is_over = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self.join(LIMIT_S)

    def run(self) -> None:
        while not self._is_over.wait(0.5):
            for path in self._paths:
                self.answers.append(self._look(path))

    def _look(self, path: str) -> Answer:
        at, began_s = time.time(), time.monotonic()
        answer = requests.get(self._url + path, headers={"Accept": "application/json"}, timeout=LIMIT_S)
        is_json = answer.headers["Content-Type"].startswith("application/json")
        return Answer(path, at, time.monotonic() - began_s, answer.status_code, answer.json() if is_json else {})


def within(answers: Iterable[Answer], since: float, until: float) -> list[Answer]:
    """Those that were asked and answered in that time."""
    return [answer for answer in answers if since < answer.at and answer.at + answer.took_s < until]


def longest_s(answers: Iterable[Answer]) -> float:
    return max(answer.took_s for answer in answers)


# --- PostgreSQL ---------------------------------------------------------------------------------------


@pytest.mark.timeout(360)
def test_postgresql_is_restarted_killed_and_away_under_load(
    tmp_path: Path, own_postgresql: PostgreSQL, figure: Figure
) -> None:
    url = own_postgresql.new_database().url
    site = Site(tmp_path, url, hosts={"north": 8, "south": 8})  # room for what the other one has
    with cameras(LASTING, "lasting", 4) as lasting, cameras(SHORT, "short", CLIENTS) as short, site:
        captures = [site.website.begin(address, count=COUNT, interval=INTERVAL_S) for address in lasting]
        for capture in captures:
            site.website.wait_for_samples(capture, 1)
        epochs, running = claims_of(url, captures), recorders_of(site, url, captures)
        supervisors = [host.supervisor for host in site.hosts.values()]
        with (
            Visitor(site.website.url, ["/", f"/captures/{captures[0]}/"]) as visitor,
            Clients(site.website, short, seed=1) as clients,
        ):
            answers = [visitor.answers, clients.answers]
            own_postgresql.kill()
            took_s = [come_back(own_postgresql, site, url, captures, answers, 3.0)]
            own_postgresql.stop()
            took_s += [come_back(own_postgresql, site, url, captures, answers, CLAIM_S + 5.0)]
        figure("postgresql away: all sampled and saved after its return", max(took_s), 5.0)
        figure("postgresql away: longest answer of a page", longest_s(visitor.answers), 3.0)
        assert clients.failures == []
        assert unexpected(clients.answers, AWAY) == []
        assert {answer.status for answer in visitor.answers} == {200, 503}
        assert [host.supervisor for host in site.hosts.values()] == supervisors
        assert all(map(is_running, [*supervisors, *running]))
        assert claims_of(url, captures) == epochs

        for address in [*lasting, *short]:
            stop(site.website, address)
        with Rows(url) as rows:
            nothing_was_lost(rows, captures)
            assert check_answers(clients.answers, rows, site.media) > 0
            check_files(rows, site.media)


def come_back(
    server: PostgreSQL, site: Site, url: str, captures: list[int], answers: list[list[Answer]], away_s: float
) -> float:
    """After it went: start it again when it has been away so long. How long until all is as it was before."""
    gone_at = time.time()
    time.sleep(away_s)
    back_at = time.time()
    for asked in answers:
        meanwhile = within(asked, gone_at, back_at)
        assert {(answer.status, answer.code) for answer in meanwhile} == {AWAY}
    server.start()
    started_at = time.time()
    with Rows(url) as rows:
        wait_for(lambda: rows.are_sampled(captures, started_at), "samples of after its return", LIMIT_S)
    return time.time() - started_at


def claims_of(url: str, captures: Iterable[int]) -> dict[int, tuple[str, int]]:
    with Rows(url) as rows:
        found = rows.captures()
    return {pk: (found[pk].host_name, found[pk].epoch) for pk in captures}


def recorders_of(site: Site, url: str, captures: Iterable[int]) -> list[psutil.Process]:
    return [site.hosts[host].recorder_of(pk) for pk, (host, _) in claims_of(url, captures).items()]


def stop(service: Calls, address: str) -> None:
    name = address.rpartition("/")[2]
    wait_for(lambda: service.stop_once(name).status_code in (200, 409, 404), f"/stop of {name}", LIMIT_S)


def nothing_was_lost(rows: Rows, captures: Iterable[int]) -> None:
    """All samples that were taken are on the leaderboards, and they were taken all the time."""
    samples = rows.captures()
    for capture, board in rows.boards(captures).items():
        assert sorted(frame.number for frame in board) == list(range(1, samples[capture].samples + 1))
        times = sorted(frame.captured_at for frame in board)
        assert max(later - earlier for earlier, later in pairwise(times)) < 4 * INTERVAL_S


# --- Redis --------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_redis_is_flushed_restarted_and_away_under_load(
    tmp_path: Path, own_database: Database, own_redis: Redis, figure: Figure
) -> None:
    site = Site(tmp_path, own_database.url, redis_url=own_redis.new_database(), hosts={"north": 8})
    with cameras(SHORT, "short", 2 * CLIENTS) as short, site, Rows(own_database.url) as rows:
        with (
            Visitor(site.website.url, ["/"]) as visitor,
            Clients(site.website, short, seed=2, is_patient=True) as clients,
        ):
            wait_for(lambda: len(clients.answers) > 2 * CLIENTS, "answers before the first outage")
            for _ in range(10):
                own_redis.flush()
                time.sleep(0.2)
            own_redis.stop()
            own_redis.start()
            wait_for_job(rows, time.time())
            own_redis.stop()
            gone_at = time.time()
            time.sleep(10.0)
            meanwhile = within([*clients.answers, *visitor.answers], gone_at, time.time())
            own_redis.start()
            wait_for_job(rows, time.time())
        figure("redis away: longest answer meanwhile", longest_s(meanwhile), 5.0)
        assert longest_s(clients.answers) < 30.0
        assert {answer.path for answer in meanwhile} == {"/", "/start", "/stop"}
        assert clients.failures == []
        assert unexpected(clients.answers) == []
        assert {answer.status for answer in visitor.answers} == {200}

        for address in short:
            stop(site.website, address)
        assert all(row.samples and row.grid for row in rows.captures().values())
        assert check_answers(clients.answers, rows, site.media) > 2 * CLIENTS
        check_files(rows, site.media)


def wait_for_job(rows: Rows, since: float) -> None:
    """One that was begun after that moment, and not by the tick."""
    moment = datetime.fromtimestamp(since, UTC)

    def is_done() -> bool:
        ((begun_at,),) = rows.read("SELECT max(started) FROM django_q_task")
        return bool(begun_at and begun_at > moment)

    wait_for(is_done, "a job from the broker", LIMIT_S)


# --- the disk -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Disk:
    """A service and where its pictures go.

    `says`: what /readyz says while there is no room; empty if it cannot know.
    """

    service: Calls
    database_url: str
    media: Path
    fill: Callable[[], None]
    make_room: Callable[[], None]
    says: str = ""


Way = Callable[[Path, pytest.FixtureRequest], AbstractContextManager[Disk]]


@contextmanager
def quota(folder: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """Fails in the middle of each file, on any machine."""
    with Site(folder, request.getfixturevalue("own_database").url) as site:

        def limit(size_bytes: int) -> None:
            for process in site.hosts["north"].processes():
                _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
                process.rlimit(psutil.RLIMIT_FSIZE, (size_bytes, hard))

        fill, make_room = (partial(limit, size_bytes) for size_bytes in (QUOTA_BYTES, psutil.RLIM_INFINITY))
        yield Disk(site.website, site.database_url, site.media, fill, make_room)


@contextmanager
def no_folder(folder: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """A file stands where the folder should be."""
    with Site(folder, request.getfixturevalue("own_database").url) as site:
        aside = site.media.with_name("aside")

        def take_away() -> None:
            site.media.rename(aside)
            site.media.touch()

        def bring_back() -> None:
            site.media.unlink()
            aside.rename(site.media)

        yield Disk(
            site.website, site.database_url, site.media, take_away, bring_back, "The media folder cannot be read"
        )


@contextmanager
def full_disk(folder: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """A file system of 96 MiB that only the service's processes see: it goes with them."""
    inside = ["sh", "-c", 'mount -t tmpfs -o size=96m tmpfs "$0" && exec "$@"', str(folder / "media")]
    command = (*UNSHARE, *inside, sys.executable, MANAGE, "runserver", "--noreload")
    (folder / "media").mkdir()
    with Service(folder, (command,)) as service:
        media = Path(f"/proc/{service.processes[0].pid}/root") / (folder / "media").relative_to("/")
        filler = media / "filler"

        def fill() -> None:
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(PAGE_BYTES))

        url = f"sqlite:///{folder / 'data' / 'db.sqlite3'}"
        yield Disk(service, url, media, fill, filler.unlink, "The disk is full")


def may_mount() -> bool:
    """Containers mostly may not."""
    tried = subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0


# Where a disk can be made and filled, nothing has to stand in for it.
@pytest.mark.parametrize("way", [no_folder, full_disk if may_mount() else quota])
def test_without_room_captures_go_on_and_all_is_saved_later(
    tmp_path: Path, request: pytest.FixtureRequest, way: Way
) -> None:
    with cameras(LARGE, "large", 2) as addresses, way(tmp_path, request) as disk, Rows(disk.database_url) as rows:
        service = disk.service
        captures = [service.begin(address, count=COUNT) for address in addresses]
        for capture in captures:
            service.wait_for_samples(capture, 3)
        disk.fill()
        wait_for(lambda: all(says_full(service, pk) for pk in captures), "storage_full of both", LIMIT_S)
        page = requests.get(f"{service.url}/captures/{captures[0]}/", headers={"Accept": "text/html"}, timeout=60)
        assert "Pictures cannot be saved" in page.text
        assert disk.says in health_of(service)
        saved = rows.boards(captures)
        samples = service.capture(captures[0])["samples"]
        service.wait_for_samples(captures[0], samples + 5)

        answer = service.stop_once("large-1", "application/json")
        assert (answer.status_code, answer.json()["code"]) == (202, "stopping")
        assert says_full(service, captures[1])
        assert rows.boards(captures) == saved
        disk.make_room()
        wait_for(lambda: not says_full(service, captures[0]), "an end of storage_full", LIMIT_S)
        for address in addresses:
            stop(service, address)
        assert health_of(service) == ""
        assert all(row.grid for row in rows.captures().values())
        nothing_was_lost(rows, captures)
        check_files(rows, disk.media)


def says_full(service: Calls, capture: int) -> bool:
    return "storage_full" in service.capture(capture)["notices"]


def health_of(service: Calls) -> str:
    """What /readyz says of the storage if it is not well."""
    answer = requests.get(f"{service.url}/readyz", timeout=60)
    storage = answer.json()["storage"]
    assert (answer.status_code == 200) == storage["ok"]
    return "" if storage["ok"] else str(storage["message"])
