"""The job cluster with real processes: whichever part dies or hangs, the next job is done; no recorder notices."""

import signal
import sqlite3
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from psycopg.sql import SQL

from tests.camera.clip import Scene
from tests.camera.server import ScriptedCamera
from tests.e2e.site import Jobs, Site, kill, wait_until_gone
from tests.servers import Database, PostgreSQL, Redis
from tests.streams.quick_manage import STUCK_S
from tests.streams.waiting import until

QUICK = str(Path(__file__).with_name("quick_manage.py"))
SCENE = Scene(160, 120, plan=(40, 200, 90, 120), fps=10, gop_s=0.2)
# As many as it takes: one name for each job, then function, arguments and options of its own.
QUEUE = """
import ast, sys
from django_q.tasks import async_task
for name, function, arguments, options in {jobs!r}:
    async_task(function, *arguments, task_name=name, **options)
"""
TAKEN = "SELECT 1 FROM django_q_ormq WHERE lock > datetime('now', '+10 seconds')"
DONE = "SELECT name, success FROM django_q_task"


class Shop:
    """A site of one host whose patience is short, and its jobs."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.host = site.hosts["north"]
        self.host.command = [sys.executable, QUICK, "supervise"]

    def queue(
        self, function: str = "streams.jobs.place", *arguments: object, times: int = 1, **options: object
    ) -> list[str]:
        """The names of the jobs."""
        names = [uuid.uuid4().hex for _ in range(times)]
        jobs = [(name, function, arguments or (0,), options) for name in names]
        self.site.manage("shell", "-c", QUEUE.format(jobs=jobs))
        return names

    def results(self) -> dict[str, bool]:
        """Of the jobs that were done, by name."""
        return {str(name): bool(success) for name, success in self._ask(DONE)}

    def is_at_work(self) -> bool:
        """Whether a job was taken from the queue and is not done."""
        return bool(self._ask(TAKEN))

    def wait_for(self, names: Sequence[str]) -> None:
        until(lambda: self.results().keys() >= set(names), 60)

    def does_jobs(self) -> bool:
        names = self.queue()
        self.wait_for(names)
        return all(self.results()[name] for name in names)

    def _ask(self, query: str) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(self.site.folder / "db.sqlite3", timeout=20)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


@contextmanager
def open_shop(folder: Path, database_url: str = "", redis_url: str = "", websites: int = 0) -> Iterator[Shop]:
    site = Site(folder, database_url, redis_url=redis_url, websites=websites)
    shop = Shop(site)
    with site:
        yield shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """It records one capture all the time."""
    with ScriptedCamera(SCENE) as camera, open_shop(tmp_path_factory.mktemp("shop"), websites=1) as shop:
        capture = shop.site.website.begin(camera.url)
        shop.site.website.wait_for_samples(capture, 1)
        yield shop


@pytest.fixture
def recorder(shop: Shop) -> Iterator[psutil.Process]:
    """That it runs on through the test is a part of each test."""
    (recorder,) = shop.host.recorders
    yield recorder
    assert shop.host.recorders == [recorder]


def parts_of(jobs: Jobs) -> dict[str, psutil.Process]:
    first, second = jobs.workers
    return {
        "leader": jobs.leader,
        "sentinel": jobs.sentinel,
        "pusher": jobs.pusher,
        "monitor": jobs.monitor,
        "first worker": first,
        "second worker": second,
    }


one_shop = pytest.mark.xdist_group("the job cluster's shop")
PARTS = ["leader", "sentinel", "pusher", "monitor", "first worker", "second worker"]


# --- death ------------------------------------------------------------------------------------------


@one_shop
@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_killed_costs_the_cluster_and_no_job(shop: Shop, recorder: psutil.Process, part: str) -> None:
    jobs = shop.host.jobs
    kill(parts_of(jobs)[part])
    wait_until_gone(jobs.all)
    assert shop.host.jobs.leader != jobs.leader
    assert shop.does_jobs()


@one_shop
def test_a_worker_that_is_killed_at_work_costs_the_cluster(shop: Shop, recorder: psutil.Process) -> None:
    jobs = shop.host.jobs
    shop.queue("time.sleep", 1000)
    until(shop.is_at_work)
    kill(jobs.workers[0])
    wait_until_gone(jobs.all)
    assert shop.does_jobs()


def test_nothing_is_left_of_a_cluster_whose_leader_and_supervisor_die_at_once(tmp_path: Path) -> None:
    with open_shop(tmp_path) as shop:
        jobs = shop.host.jobs
        kill(shop.host.supervisor, signal.SIGSTOP)
        kill(jobs.leader)
        kill(shop.host.supervisor)
        wait_until_gone(jobs.all)


def test_a_leader_that_is_paused_ends_when_its_supervisor_does(tmp_path: Path) -> None:
    with open_shop(tmp_path) as shop:
        jobs = shop.host.jobs
        kill(jobs.leader, signal.SIGSTOP)
        kill(shop.host.supervisor)
        wait_until_gone(jobs.all)


# --- hanging ----------------------------------------------------------------------------------------


@one_shop
@pytest.mark.parametrize("paused", [["leader"], ["sentinel"], ["pusher"], ["monitor"], PARTS[4:]], ids=" and ".join)
def test_a_part_that_hangs_costs_the_cluster(shop: Shop, recorder: psutil.Process, paused: list[str]) -> None:
    jobs = shop.host.jobs
    for part in paused:
        kill(parts_of(jobs)[part], signal.SIGSTOP)
    shop.queue()
    wait_until_gone(jobs.all)
    assert shop.does_jobs()


@one_shop
def test_one_worker_that_hangs_keeps_no_job_from_being_done(shop: Shop, recorder: psutil.Process) -> None:
    """The other one does it, or, if the queue's lock hangs too, those of the next cluster."""
    kill(shop.host.jobs.workers[0], signal.SIGSTOP)
    shop.queue()
    assert shop.does_jobs()


@one_shop
def test_a_job_that_cannot_be_interrupted_costs_the_cluster(shop: Shop, recorder: psutil.Process) -> None:
    jobs = shop.host.jobs
    shop.queue("tests.streams.odd_jobs.deaf", 1000.0, timeout=1)
    wait_until_gone(jobs.all)
    assert shop.does_jobs()


@one_shop
def test_a_job_whose_time_is_over_costs_no_cluster(shop: Shop, recorder: psutil.Process) -> None:
    leader = shop.host.jobs.leader
    names = shop.queue("time.sleep", 1000, timeout=1)
    shop.wait_for(names)
    assert not shop.results()[names[0]]
    assert shop.does_jobs()
    assert leader.is_running()


@one_shop
def test_a_cluster_that_has_much_to_do_is_left_in_peace(shop: Shop, recorder: psutil.Process) -> None:
    """Jobs wait for longer than it takes to be called stuck, at first behind such that take longer themselves."""
    leader = shop.host.jobs.leader
    names = shop.queue("time.sleep", 1.5 * STUCK_S, times=3) + shop.queue("time.sleep", 0.1, times=4 * 10)
    shop.wait_for(names)
    assert all(shop.results()[name] for name in names)
    assert leader.is_running()


# --- leaving ----------------------------------------------------------------------------------------


@one_shop
def test_a_leader_that_is_told_to_leave_lets_running_jobs_end(shop: Shop, recorder: psutil.Process) -> None:
    jobs = shop.host.jobs
    names = shop.queue("time.sleep", 1)
    until(shop.is_at_work)
    kill(jobs.leader, signal.SIGTERM)
    wait_until_gone(jobs.all)
    until(lambda: "job cluster ended code=0" in shop.host.log)
    assert shop.results()[names[0]]
    assert shop.does_jobs()


@pytest.mark.parametrize("trouble", ["a job that does not end", "a paused leader", "a paused sentinel", "no trouble"])
def test_a_supervisor_that_leaves_takes_the_cluster_with_it(tmp_path: Path, trouble: str) -> None:
    with open_shop(tmp_path) as shop:
        jobs = shop.host.jobs
        if trouble == "a job that does not end":
            shop.queue("time.sleep", 1000)
            until(shop.is_at_work)
        elif trouble != "no trouble":
            kill(parts_of(jobs)[trouble.removeprefix("a paused ")], signal.SIGSTOP)
        assert shop.host.stop() == 0
        wait_until_gone(jobs.all)
        assert "Traceback" not in shop.host.log


# --- the database and the broker ----------------------------------------------------------------------


def done(database: Database) -> int:
    """How many jobs were done."""
    ((count,),) = database.execute(SQL("SELECT count(*) FROM django_q_task WHERE success"))
    return int(count)


def test_parts_of_a_cluster_give_their_connections_back(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """The supervisor keeps one and the pusher another."""
    database = postgresql.new_database()
    with open_shop(tmp_path, database.url) as shop:
        jobs = shop.host.jobs
        shop.queue(times=8)
        until(lambda: done(database) == 8, 60)
        until(lambda: database.clients() == sorted([shop.host.supervisor.pid, jobs.pusher.pid]), 60)
    database.drop()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_database_that_is_restarted_costs_no_cluster(own_postgresql: PostgreSQL, tmp_path: Path, end: str) -> None:
    """Each part takes it up again; what was queued before is done after."""
    database = own_postgresql.new_database()
    with open_shop(tmp_path, database.url) as shop:
        jobs = shop.host.jobs
        shop.queue(times=4)
        until(lambda: done(database) == 4, 60)
        shop.queue("time.sleep", 1.0, times=6)
        getattr(own_postgresql, end)()
        until(lambda: "job broker away error=OperationalError" in shop.host.log, 60)
        own_postgresql.start()
        shop.queue(times=4)
        until(lambda: done(database) >= 8, 60)
        assert all(part.is_running() for part in jobs.all)


def test_redis_takes_the_jobs_and_may_be_away(own_redis: Redis, tmp_path: Path) -> None:
    with open_shop(tmp_path, redis_url=own_redis.new_database()) as shop:
        assert shop.does_jobs()
        jobs = shop.host.jobs
        assert not shop.is_at_work()  # nothing went through the database
        own_redis.kill()
        until(lambda: "job broker away error=ConnectionError" in shop.host.log, 60)
        shop.queue()  # lost, without an error
        own_redis.start()
        until(lambda: "job broker back" in shop.host.log, 60)
        assert shop.does_jobs()
        assert all(part.is_running() for part in jobs.all)
        assert own_redis.password not in shop.host.log
        assert "Traceback" not in shop.host.log


def test_a_cluster_starts_before_redis_does(own_redis: Redis, tmp_path: Path) -> None:
    own_redis.stop()
    with open_shop(tmp_path, redis_url=own_redis.url) as shop:
        leader = shop.host.jobs.leader
        own_redis.start()
        assert shop.does_jobs()
        assert leader.is_running()


def test_a_paused_redis_keeps_no_supervisor_from_leaving(own_redis: Redis, tmp_path: Path) -> None:
    with open_shop(tmp_path, redis_url=own_redis.url) as shop:
        jobs = shop.host.jobs
        kill(psutil.Process(own_redis.pid), signal.SIGSTOP)
        assert shop.host.stop() == 0
        wait_until_gone(jobs.all)
