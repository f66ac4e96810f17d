"""Several hosts around one database: slots are shared out, each process is known, and the main journey."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.camera.clip import Clip, Scene, encode
from tests.camera.server import ScriptedCamera
from tests.e2e.page import Page, marks
from tests.e2e.rows import Rows, jobs_done
from tests.e2e.scenes import brightest
from tests.e2e.service import wait_for
from tests.e2e.site import Host, Site, is_running, kill, wait_until_gone
from tests.figures import Figure
from tests.servers import Database

# Nine seconds of ten stand out, in no order that a service could guess; what follows never enters.
PLAN = (120.0, 200.0, 80.0, 220.0, 140.0, 60.0, 180.0, 100.0, 160.0, 240.0, *(20.0,) * 50)
SLOTS = {"north": 3, "south": 3}


@pytest.fixture(scope="module")
def clip() -> Clip:
    return encode(Scene(160, 120, PLAN, fps=10, gop_s=1.0))


@pytest.fixture
def cameras(clip: Clip) -> Iterator[list[ScriptedCamera]]:
    with ExitStack() as stack:
        yield [stack.enter_context(ScriptedCamera(clip, path=f"cam-{n}")) for n in range(8)]


def test_two_hosts_share_eight_captures(
    tmp_path: Path, own_database: Database, cameras: list[ScriptedCamera], figure: Figure
) -> None:
    with Site(tmp_path, own_database.url, hosts=SLOTS) as site, Rows(own_database.url) as rows:
        captures = dict(zip([site.website.begin(camera.url) for camera in cameras], cameras, strict=True))
        six_run_and_the_next_starts_when_one_stops(site, captures, figure)
        claimed = sorted((row.host_name, pk) for pk, row in rows.captures().items() if row.is_claimed)
        on = {name: [pk for host_name, pk in claimed if host_name == name] for name in SLOTS}
        each_process_of_a_host_is_known_by_its_role(site, own_database, on["north"])
        journey_ends_with_the_nine_brightest(site, rows, on["south"][-1], captures)
        the_host_goes_at_once_and_comes_back(site, [captures[pk] for pk in on["north"]])
    assert site.processes() == []


def six_run_and_the_next_starts_when_one_stops(
    site: Site, cameras: dict[int, ScriptedCamera], figure: Figure
) -> None:
    captures = list(cameras)
    for capture in captures[:6]:
        site.website.wait_for_samples(capture, 2)
    assert statuses(site, captures) == ["capturing"] * 6 + ["queued"] * 2
    assert recording(site) == SLOTS
    assert [camera.clients for camera in cameras.values()] == [1] * 6 + [0] * 2

    stopped_s = time.monotonic()  # /stop may take longer to answer than the next one to start
    site.website.end("cam-2")
    wait_for(lambda: cameras[captures[6]].connections, "the first of those that wait")
    figure("eight captures, six slots: one stopped, the next begins", time.monotonic() - stopped_s, 2.0)
    site.website.wait_for_samples(captures[6], 2)
    running = [capture for capture in captures if capture != captures[2]]
    assert statuses(site, running) == ["capturing"] * 6 + ["queued"]
    assert recording(site) == SLOTS
    assert cameras[captures[7]].connections == 0


def statuses(site: Site, captures: list[int]) -> list[str]:
    return [site.website.capture(capture)["status"] for capture in captures]


def recording(site: Site) -> dict[str, int]:
    return {name: len(host.recorders) for name, host in site.hosts.items()}


def each_process_of_a_host_is_known_by_its_role(site: Site, database: Database, captures: list[int]) -> None:
    north = site.hosts["north"]
    jobs, recorders, family = north.jobs, north.recorders, north.processes()
    assert recorders == [north.recorder_of(capture) for capture in sorted(captures, key=recorder_pid(north))]
    known = [north.supervisor, *jobs.all, *recorders]
    assert len(set(known)) == len(known)
    # The standard library's own two: its resource tracker and the fork server.
    assert len(set(family) - set(known)) == 2
    assert set(known) < set(family)
    # Of the cluster's processes the pusher alone asks the database all the time.
    clients = {north.supervisor.pid, jobs.pusher.pid}
    wait_for(lambda: clients <= set(database.clients()), "connections of the supervisor and the pusher")

    kill(jobs.leader)
    wait_until_gone(jobs.all)
    wait_for(lambda: north.jobs.leader != jobs.leader, "another job cluster")
    assert north.recorders == recorders
    assert site.website.main.pid not in {process.pid for process in north.processes()}
    assert len(site.website.workers) == 1


def recorder_pid(host: Host) -> Callable[[int], int]:
    return lambda capture: host.recorder_of(capture).pid


def journey_ends_with_the_nine_brightest(
    site: Site, rows: Rows, capture: int, cameras: dict[int, ScriptedCamera]
) -> None:
    site.website.wait_for_samples(capture, len(PLAN[:10]) + 1)
    answer = site.website.end(cameras[capture].url.rpartition("/")[2])
    assert answer.status_code == 200
    assert marks(Page(answer.text).grid(), 9) == brightest(PLAN)
    wait_for(lambda: jobs_done(rows) == {"place": True, "finish": True}, "both kinds of jobs, done")


def the_host_goes_at_once_and_comes_back(site: Site, cameras: list[ScriptedCamera]) -> None:
    north = site.hosts["north"]
    family = north.processes()
    north.kill()
    assert not any(map(is_running, family))
    assert north.processes() == []
    assert [(camera.connections, camera.teardowns) for camera in cameras] == [(1, 0)] * 3
    north.start()
    north.wait_until_ready()
    wait_for(lambda: [camera.connections for camera in cameras] == [2] * 3, "each camera's second viewer")
