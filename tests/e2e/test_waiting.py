"""Many clients wait at the same time, in a website that serve.sh runs: health checks and pages answer meanwhile."""

import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import psutil
import requests

from tests.camera.clip import Scene, encode
from tests.camera.server import ScriptedCamera
from tests.e2e.prepared import prepare_sqlite
from tests.e2e.rows import Rows
from tests.e2e.service import ROOT, Service, wait_for
from tests.figures import Figure

CLIENTS, THREADS, WAITERS = 40, 16, 8  # WEB_THREADS as it is by itself, and half of it
SCENE = Scene(160, 120, tuple(250.0 - second for second in range(60)), fps=2)
BROWSER = {"Accept": "text/html"}


def served(folder: Path, *role: str) -> Service:
    prepare_sqlite(folder / "data" / "db.sqlite3")
    return Service(folder, (("bash", str(ROOT / "scripts/serve.sh"), *role),), {"PYTHON": sys.executable})


class Probe(threading.Thread):
    """Asks /livez all the time; `took_s` of each answer."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.took_s: list[float] = []
        self.statuses: set[int] = set()
        self._url = url
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(0.02):
            began_s = time.monotonic()
            self.statuses.add(requests.get(f"{self._url}/livez", timeout=60).status_code)
            self.took_s.append(time.monotonic() - began_s)

    def end(self) -> None:
        self._is_over.set()
        self.join(60)


@contextmanager
def probed(url: str) -> Iterator[Probe]:
    probe = Probe(url)
    probe.start()
    try:
        yield probe
    finally:
        probe.end()


def test_forty_clients_wait_in_stop(tmp_path: Path, figure: Figure) -> None:
    """Half of the threads wait for a grid, the other clients get 202 at once, and in the end all see their grid."""
    with (
        ScriptedCamera(encode(SCENE), host="0.0.0.0", live=True) as camera,
        served(tmp_path) as service,
        Rows(f"sqlite:///{tmp_path / 'data' / 'db.sqlite3'}") as rows,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        captures = begin_all(service, camera)
        wait_for(lambda: rows.are_sampled(captures, 0.0), "a sample of each", 90)
        (supervisor,) = service.supervisors()
        pause(psutil.Process(supervisor), tmp_path / "data" / "db.sqlite3")  # so that nothing can be finished
        stops: list[Future[requests.Response]]
        with probed(service.url) as probe:
            stops = [pool.submit(service.stop_once, f"cam-{n}") for n in range(CLIENTS)]
            wait_for(
                lambda: sum(stop.done() for stop in stops) == CLIENTS - WAITERS, "an answer to those that do not wait"
            )
            assert {stop.result().status_code for stop in stops if stop.done()} == {202}
            assert requests.get(f"{service.url}/readyz", timeout=60).json()["database"]["ok"]
            page = requests.get(f"{service.url}/", headers=BROWSER, timeout=60)
            assert (page.status_code, "cam-39" in page.text) == (200, True)
            assert sum(stop.done() for stop in stops) == CLIENTS - WAITERS, "the others wait for their grid"
            psutil.Process(supervisor).resume()
            waited = [stop.result(60) for stop in stops]
        figure("40 clients in /stop: longest answer of /livez", max(probe.took_s), 0.5)
        assert probe.statuses == {200}
        assert {stop.status_code for stop in waited} == {200, 202}
        for capture in captures:  # what the page that refreshes itself becomes
            wait_for(partial(has_grid, service, capture), f"the grid of {capture}")
        assert [service.stop_once(f"cam-{n}").status_code for n in range(CLIENTS)] == [200] * CLIENTS


def pause(process: psutil.Process, database: Path) -> None:
    """Where it holds no lock of SQLite, which everybody would wait for."""

    def is_paused() -> bool:
        process.suspend()
        with closing(sqlite3.connect(database, timeout=1, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                process.resume()
                return False
        return True

    wait_for(is_paused, "a pause between two writes")


def begin_all(service: Service, camera: ScriptedCamera) -> list[int]:
    """One camera under many addresses: all of 127.0.0.0/8 is this machine."""
    return [
        service.begin(f"rtsp://127.0.1.{n + 1}:{camera.port}/demo", name=f"cam-{n}", count=1, interval=1)
        for n in range(CLIENTS)
    ]


def has_grid(service: Service, capture: int) -> bool:
    answer = requests.get(f"{service.url}/captures/{capture}/grid.jpg", timeout=60)
    return answer.status_code == 200


def test_forty_clients_wait_for_a_database_that_is_locked(tmp_path: Path, figure: Figure) -> None:
    """As many as are answered at a time wait for it; the others are refused, and health checks answer."""
    service = served(tmp_path, "web")
    service.start(until="/livez")
    with (
        service_ended(service),
        ThreadPoolExecutor(CLIENTS) as pool,
        closing(sqlite3.connect(tmp_path / "data" / "db.sqlite3", isolation_level=None)) as locker,
    ):
        locker.execute("BEGIN IMMEDIATE")
        with probed(service.url) as probe:
            starts = [pool.submit(start, service, n) for n in range(CLIENTS)]
            wait_for(lambda: sum(it.done() for it in starts) == CLIENTS - THREADS, "those that have no place")
            refused = [it.result() for it in starts if it.done()]
            assert {(it.status_code, it.json()["code"], it.headers["Retry-After"]) for it in refused} == {
                (503, "busy", "5")
            }
            again = requests.get(f"{service.url}/", headers=BROWSER, timeout=60)
            assert (again.status_code, "busy" in again.text) == (503, True)
            assert requests.get(f"{service.url}/metrics", timeout=60).status_code == 200
            locker.execute("ROLLBACK")
            assert [it.result(60).status_code for it in starts if it.result(60) not in refused] == [201] * THREADS
        figure("40 clients wait for a locked SQLite: longest answer of /livez", max(probe.took_s), 0.5)
        assert probe.statuses == {200}
        assert requests.get(f"{service.url}/", timeout=60).status_code == 200
    assert service.log.count("website busy requests=16") == 1


def start(service: Service, number: int) -> requests.Response:
    return service.post(
        "/start", "application/json", rtsp_url=f"rtsp://127.0.1.{number + 1}:9/demo", name=f"cam-{number}"
    )


@contextmanager
def service_ended(service: Service) -> Iterator[None]:
    try:
        yield
    finally:
        assert service.stop() == [0], service.log
