"""The job cluster with real processes: whichever part dies or hangs, the next job is done; no recorder notices."""

import json
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
from psycopg.sql import SQL

from tests.camera.clip import Scene
from tests.camera.server import ScriptedCamera
from tests.e2e.service import ROOT
from tests.e2e.site import Jobs, Site, kill, wait_until_gone
from tests.servers import Database, PostgreSQL, Redis
from tests.streams.quick_manage import STUCK_S
from tests.streams.waiting import until

QUICK = str(Path(__file__).with_name("quick_manage.py"))
SCENE = Scene(160, 120, plan=(40, 200, 90, 120), fps=10, gop_s=0.2)
# Runs as long as the site does. As many jobs as a line has: a name for each, then function, arguments and options.
QUEUE = """
import django, json, sys
django.setup()
from django.db import connections
from django_q.tasks import async_task
for line in sys.stdin:
    for name, function, arguments, options in json.loads(line):
        async_task(function, *arguments, task_name=name, **options)
    connections.close_all()
    print("queued", flush=True)
"""
TAKEN = "SELECT 1 FROM django_q_ormq WHERE lock > datetime('now', '+10 seconds')"
AWAY = "job broker away error=OperationalError"
DONE = "SELECT name, success FROM django_q_task"


class Shop:
    """A site of one host whose patience is short, and its jobs."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.host = site.hosts["north"]
        self._clerk: subprocess.Popen[str] | None = None
        for host in site.hosts.values():
            host.command = [sys.executable, QUICK, "supervise"]

    def queue(
        self, function: str = "streams.jobs.place", *arguments: object, times: int = 1, **options: object
    ) -> list[str]:
        """The names of the jobs."""
        names = [uuid.uuid4().hex for _ in range(times)]
        jobs = [(name, function, arguments or (0,), options) for name in names]
        if self._clerk is None:
            env = {**self.host.settings, "DJANGO_SETTINGS_MODULE": "rtspsite.settings"}
            command, pipe = [sys.executable, "-c", QUEUE], subprocess.PIPE
            self._clerk = subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, text=True)
        assert self._clerk.stdin
        assert self._clerk.stdout
        self._clerk.stdin.write(json.dumps(jobs) + "\n")
        self._clerk.stdin.flush()
        assert self._clerk.stdout.readline() == "queued\n"
        return names

    def close(self) -> None:
        """Jobs that are queued after this are queued by another process."""
        if self._clerk:
            self._clerk.kill()
            self._clerk.communicate(timeout=30)
            self._clerk = None

    def results(self) -> dict[str, bool]:
        """Of the jobs that were done, by name."""
        return {str(name): bool(success) for name, success in self._ask(DONE)}

    def taken(self) -> int:
        """How many jobs were taken from the queue and are not done."""
        return len(self._ask(TAKEN))

    def is_at_work(self) -> bool:
        return self.taken() > 0

    def wait_for(self, names: Sequence[str]) -> None:
        until(lambda: self.results().keys() >= set(names), 60)

    def does_jobs(self) -> bool:
        names = self.queue()
        self.wait_for(names)
        return all(self.results()[name] for name in names)

    def pause(self, process: psutil.Process) -> None:
        """Stop it where it holds no lock of SQLite: all others, this test too, would wait for that one."""
        kill(process, signal.SIGSTOP)
        while not self._is_unlocked():
            kill(process, signal.SIGCONT)
            until(self._is_unlocked)
            kill(process, signal.SIGSTOP)

    def _is_unlocked(self) -> bool:
        with closing(sqlite3.connect(self.site.folder / "db.sqlite3", timeout=2, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            return True

    def _ask(self, query: str) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(self.site.folder / "db.sqlite3", timeout=20)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


@contextmanager
def open_shop(
    folder: Path, database_url: str = "", redis_url: str = "", websites: int = 0, hosts: Sequence[str] = ("north",)
) -> Iterator[Shop]:
    site = Site(folder, database_url, redis_url=redis_url, websites=websites, hosts=dict.fromkeys(hosts, 8))
    shop = Shop(site)
    with closing(shop), site:
        yield shop


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


PARTS = ["leader", "sentinel", "pusher", "monitor", "first worker", "second worker"]


# --- hanging ----------------------------------------------------------------------------------------


@pytest.mark.timeout(360)
def test_a_part_that_hangs_costs_the_cluster_and_neither_job_nor_recorder(tmp_path: Path) -> None:
    """One that is killed does too: tests/e2e/test_faults_jobs.py."""
    with ScriptedCamera(SCENE) as camera, open_shop(tmp_path, websites=1) as shop:
        capture = shop.site.website.begin(camera.url)
        shop.site.website.wait_for_samples(capture, 1)
        recorders = shop.host.recorders
        assert len(recorders) == 1
        for paused in ([part] for part in PARTS[:4]):
            hang(shop, paused)
        hang(shop, PARTS[4:])
        assert shop.host.recorders == recorders

        # One worker's job is done by the other one, or, if the queue's lock hangs too, by those of the next cluster.
        shop.pause(shop.host.jobs.workers[0])
        shop.queue()
        assert shop.does_jobs()
        assert shop.host.recorders == recorders


def hang(shop: Shop, paused: Sequence[str]) -> None:
    jobs = shop.host.jobs
    for part in paused:
        shop.pause(parts_of(jobs)[part])
    shop.queue()  # it may have been in a queue of the cluster, and comes back when its time is over
    wait_until_gone(jobs.all)
    assert shop.does_jobs()


# --- jobs -------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_what_jobs_do_costs_the_cluster_only_when_it_cannot_go_on(tmp_path: Path) -> None:
    with open_shop(tmp_path) as shop:
        jobs = shop.host.jobs

        # Jobs wait for longer than it takes to be called stuck, at first behind such that take longer themselves;
        # one is told that its time is over.
        late = shop.queue("time.sleep", 1000, timeout=1)
        names = shop.queue("time.sleep", 1.5 * STUCK_S, times=3) + shop.queue("time.sleep", 0.1, times=4 * 10)
        shop.wait_for(late + names)
        assert not shop.results()[late[0]]
        assert all(shop.results()[name] for name in names)
        assert jobs.leader.is_running()

        # A leader that is told to leave lets running jobs end.
        jobs = shop.host.jobs
        names = shop.queue("time.sleep", 1)
        until(shop.is_at_work)
        kill(jobs.leader, signal.SIGTERM)
        wait_until_gone(jobs.all)
        until(lambda: "job cluster ended code=0" in shop.host.log)
        assert shop.results()[names[0]]
        assert shop.does_jobs()

        # A job that cannot be interrupted.
        jobs = shop.host.jobs
        shop.queue("tests.streams.odd_jobs.deaf", 1000.0, timeout=1)
        wait_until_gone(jobs.all)
        assert shop.does_jobs()

        # A worker that is killed at work.
        jobs = shop.host.jobs
        shop.queue("time.sleep", 1000)
        until(lambda: shop.taken() == 2)  # the deaf one's row waits for its retry
        kill(jobs.workers[0])
        wait_until_gone(jobs.all)
        assert shop.does_jobs()

        supervisors_that_leave_take_their_clusters_with_them(shop)


# --- leaving ----------------------------------------------------------------------------------------


def supervisors_that_leave_take_their_clusters_with_them(shop: Shop) -> None:
    """One with a job that does not end, one whose leader is paused, one whose sentinel is."""
    site, log = shop.site, shop.host.log
    until(lambda: shop.taken() == 2)  # those that were never done
    shop.queue("time.sleep", 1000)
    until(lambda: shop.taken() == 3)
    hosts = {part: site.add_host(part, 8) for part in ("leader", "sentinel")}
    for host in hosts.values():
        host.command = shop.host.command
        host.start()
    clusters = [shop.host.jobs]
    for part, host in hosts.items():
        host.wait_until_ready()
        clusters.append(host.jobs)
        kill(parts_of(clusters[-1])[part], signal.SIGSTOP)
    for host in site.hosts.values():
        host.send(signal.SIGTERM)
    assert [host.wait() for host in site.hosts.values()] == [0, 0, 0]
    for jobs in clusters:
        wait_until_gone(jobs.all)
    assert ["Traceback" in host.log.removeprefix(log) for host in site.hosts.values()] == [False] * 3


def test_nothing_is_left_of_a_cluster_whose_supervisor_dies_and_whose_leader_is_dead_or_paused(
    tmp_path: Path,
) -> None:
    with open_shop(tmp_path, hosts=("dead", "north")) as shop:
        dead, paused = shop.site.hosts["dead"], shop.host
        orphans, others = dead.jobs, paused.jobs
        kill(dead.supervisor, signal.SIGSTOP)
        kill(orphans.leader)
        kill(dead.supervisor)
        wait_until_gone(orphans.all)
        kill(others.leader, signal.SIGSTOP)
        kill(paused.supervisor)
        wait_until_gone(others.all)


# --- the database and the broker ----------------------------------------------------------------------


def done(database: Database) -> int:
    """How many jobs were done."""
    ((count,),) = database.execute(SQL("SELECT count(*) FROM django_q_task WHERE success"))
    return int(count)


def reaches(count: Callable[[], int], number: int) -> bool:
    return count() >= number


def test_a_cluster_gives_connections_back_and_outlives_a_database_that_is_restarted(
    own_postgresql: PostgreSQL, tmp_path: Path
) -> None:
    """The supervisor keeps one connection and the pusher another. What was queued before is done after."""
    database = own_postgresql.new_database()
    with open_shop(tmp_path, database.url) as shop:
        jobs = shop.host.jobs
        shop.queue(times=8)
        until(lambda: done(database) == 8, 60)
        until(lambda: database.clients() == sorted([shop.host.supervisor.pid, jobs.pusher.pid]), 60)
        for end in (own_postgresql.stop, own_postgresql.kill):
            before, away = done(database), shop.host.log.count(AWAY)
            shop.queue("time.sleep", 1.0, times=6)
            end()
            until(partial(reaches, lambda: shop.host.log.count(AWAY), away + 1), 60)
            own_postgresql.start()
            shop.queue(times=4)
            until(partial(reaches, lambda: done(database), before + 4), 60)
            assert all(part.is_running() for part in jobs.all)


def test_redis_takes_the_jobs_and_may_be_away(own_redis: Redis, tmp_path: Path) -> None:
    """Before the cluster begins, while it works, and paused when it ends."""
    own_redis.stop()
    with open_shop(tmp_path, redis_url=own_redis.url) as shop:
        jobs = shop.host.jobs
        own_redis.start()
        assert shop.does_jobs()
        assert not shop.is_at_work()  # nothing went through the database
        log = shop.host.log
        own_redis.kill()
        until(lambda: "job broker away error=ConnectionError" in shop.host.log.removeprefix(log), 60)
        shop.queue()  # lost, without an error
        shop.close()  # who met the outage asks no more for some seconds
        own_redis.start()
        until(lambda: "job broker back" in shop.host.log.removeprefix(log), 60)
        assert shop.does_jobs()
        assert all(part.is_running() for part in jobs.all)
        assert own_redis.password not in shop.host.log
        assert "Traceback" not in shop.host.log
        kill(psutil.Process(own_redis.pid), signal.SIGSTOP)
        assert shop.host.stop() == 0
        wait_until_gone(jobs.all)
