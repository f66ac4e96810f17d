"""Two hundred captures on one supervisor: what that asks of the database."""

import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.camera.clip import Scene, encode
from tests.camera.server import ScriptedCamera
from tests.e2e.rows import Rows
from tests.e2e.service import wait_for
from tests.e2e.site import Host, Site
from tests.figures import Figure
from tests.servers import Database

CAPTURES = 200
INTERVAL_S = 2.0
STEADY_S = 12.0
LOOK_S = 0.5  # to find whose a connection is takes a look at all processes of the machine
# Two pictures a second, and no second is brighter than the first: the leaderboard stays as it is.
SCENE = Scene(160, 120, tuple(250.0 - second for second in range(240)), fps=2)


@pytest.mark.timeout(420)
def test_two_hundred_captures_on_one_supervisor(tmp_path: Path, own_database: Database, figure: Figure) -> None:
    site = Site(tmp_path, own_database.url, hosts={"north": CAPTURES})
    with ScriptedCamera(encode(SCENE), host="0.0.0.0", live=True) as camera, site, Rows(own_database.url) as rows:
        host = site.hosts["north"]
        began_at = time.time()
        captures = begin_all(site, camera)
        wait_for(lambda: rows.are_sampled(captures, began_at), "a sample of each", 180.0)
        figure("200 captures: all sampled after the first /start", time.time() - began_at, 60.0)

        calls, connections, cpu_s, took_s = watch(own_database, host)
        per_capture = calls.total() / took_s / CAPTURES
        print(*calls.most_common(12), sep="\n")
        figure("200 captures: statements", per_capture, 1.0, "/s per capture")
        figure("200 captures: connections of the host, most", max(connections), 3.0, "")
        figure("200 captures: processor", cpu_s / took_s, 2.0, "cores")
        assert per_capture < 1.0
        assert max(connections) <= 3
        assert camera.clients == CAPTURES
        watched_at = time.time()
        wait_for(lambda: rows.are_sampled(captures, watched_at), "a sample of each after that", 60.0)
        site.website.kill()
        host.kill()  # to take leave of two hundred cameras takes longer


def begin_all(site: Site, camera: ScriptedCamera) -> list[int]:
    """One camera under two hundred addresses: all of 127.0.0.0/8 is this machine."""

    def begin(number: int) -> int:
        return site.website.begin(
            f"rtsp://127.0.1.{number + 1}:{camera.port}/demo", name=f"cam-{number}", count=1, interval=INTERVAL_S
        )

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(begin, range(CAPTURES)))


def watch(database: Database, host: Host) -> tuple[Counter[str], list[int], float, float]:
    """For STEADY_S: statements, connections of the host at each look, seconds of processor time; how long it was."""
    family = host.processes()
    pids = {process.pid for process in family}
    before, before_s, began_s = database.statements(), processor_s(family), time.monotonic()
    connections = []
    while time.monotonic() - began_s < STEADY_S:
        connections.append(sum(pid in pids for pid in database.clients()))
        time.sleep(LOOK_S)
    took_s = time.monotonic() - began_s
    return database.statements() - before, connections, processor_s(family) - before_s, took_s


def processor_s(family: Iterable[psutil.Process]) -> float:
    total_s = 0.0
    for process in family:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total_s += times.user + times.system
    return total_s
