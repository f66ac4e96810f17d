"""Several hosts around one database: slots are shared out, and the main journey on each database and broker."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.camera.clip import Clip, Scene, encode
from tests.camera.server import ScriptedCamera
from tests.e2e.page import Page, marks
from tests.e2e.scenes import brightest
from tests.e2e.service import wait_for
from tests.e2e.site import Host, Site, is_running, kill, wait_until_gone
from tests.servers import Database, PostgreSQL, Redis

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


def statuses(site: Site, captures: list[int]) -> list[str]:
    return [site.website.capture(capture)["status"] for capture in captures]


def recording(site: Site) -> dict[str, int]:
    return {name: len(host.recorders) for name, host in site.hosts.items()}


def test_of_eight_captures_six_run_on_two_hosts_and_the_next_starts_when_one_stops(
    tmp_path: Path, database: Database, cameras: list[ScriptedCamera]
) -> None:
    with Site(tmp_path, database.url, hosts=SLOTS) as site:
        captures = [site.website.begin(camera.url) for camera in cameras]
        for capture in captures[:6]:
            site.website.wait_for_samples(capture, 2)
        assert statuses(site, captures) == ["capturing"] * 6 + ["queued"] * 2
        assert recording(site) == SLOTS
        assert [camera.clients for camera in cameras] == [1] * 6 + [0] * 2

        site.website.end("cam-2")
        stopped_s = time.monotonic()
        wait_for(lambda: cameras[6].connections, "the first of those that wait")
        print(f"the next began {time.monotonic() - stopped_s:.2f} s after /stop had answered")
        site.website.wait_for_samples(captures[6], 2)
        running = [capture for capture in captures if capture != captures[2]]
        assert statuses(site, running) == ["capturing"] * 6 + ["queued"]
        assert recording(site) == SLOTS
        assert cameras[7].connections == 0


def test_each_process_of_a_host_is_known_by_its_role_and_all_go_at_once(
    tmp_path: Path, postgresql: PostgreSQL, cameras: list[ScriptedCamera]
) -> None:
    database = postgresql.new_database()
    with Site(tmp_path, database.url, hosts={"north": 3}) as site:
        north = site.hosts["north"]
        captures = [site.website.begin(camera.url) for camera in cameras[:3]]
        for capture in captures:
            site.website.wait_for_samples(capture, 1)
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

        family = north.processes()
        north.kill()
        assert not any(map(is_running, family))
        assert north.processes() == []
        assert [camera.teardowns for camera in cameras[:3]] == [0] * 3
        north.start()
        north.wait_until_ready()
        wait_for(lambda: [camera.connections for camera in cameras[:3]] == [2] * 3, "each camera's second viewer")
    assert site.processes() == []


def recorder_pid(host: Host) -> Callable[[int], int]:
    return lambda capture: host.recorder_of(capture).pid


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Empty for SQLite in the site's own folder."""
    if request.param == "sqlite":
        yield ""
        return
    database: Database = request.getfixturevalue("postgresql").new_database()
    yield database.url
    database.drop()


@pytest.fixture(params=["orm", "redis"])
def broker(request: pytest.FixtureRequest) -> Redis | None:
    """None for the database as broker."""
    return None if request.param == "orm" else request.getfixturevalue("own_redis")


def test_the_main_journey_on_each_database_and_broker(
    tmp_path: Path, database_url: str, broker: Redis | None, clip: Clip
) -> None:
    redis_url = broker.url if broker else ""
    with ScriptedCamera(clip) as camera, Site(tmp_path, database_url, redis_url=redis_url) as site:
        capture = site.website.begin(camera.url)
        site.website.wait_for_samples(capture, len(PLAN[:10]) + 1)
        answer = site.website.end("demo")
        assert answer.status_code == 200
        assert marks(Page(answer.text).grid(), 9) == brightest(PLAN)
        wait_for(lambda: not site.hosts["north"].recorders, "the recorder's end")
        assert jobs_done(site) == {"place": True, "finish": True}
        assert broker is None or jobs_queued(broker) >= 2


def jobs_done(site: Site) -> dict[str, bool]:
    """The jobs whose results are known, and how they went: the tick alone does not stand in for the broker."""
    code = "from django_q.models import Task; print(*Task.objects.values_list('func', 'success'))"

    def both() -> dict[str, bool] | None:
        """A finish job is queued by the stop and another one when the recorder has handed over."""
        found = re.findall(r"'streams\.jobs\.(\w+)', (True|False)", site.manage("shell", "--no-imports", "-c", code))
        went = {job: all(success == "True" for name, success in found if name == job) for job, _ in found}
        return went if len(went) == 2 else None

    return wait_for(both, "results of both jobs")


def jobs_queued(broker: Redis) -> int:
    with broker.client() as client:
        return int(client.info("commandstats").get("cmdstat_rpush", {"calls": 0})["calls"])
