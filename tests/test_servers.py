"""The private servers of the tests: what they keep, what they count, and that they end with whoever started them."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from django.db import connection
from psycopg import sql

from tests.e2e.service import ROOT, is_running, wait_for
from tests.servers import Database, PostgreSQL, Redis, Server

STARTS_WITHIN_S = 120
READ = sql.SQL("SELECT word FROM words")


def make_words(database: Database) -> None:
    database.execute(sql.SQL("CREATE TABLE words (word text)"))
    database.execute(sql.SQL("INSERT INTO words VALUES ('kept')"))


def end_by_its_guard(server: Server) -> None:
    """kill -9 of the process that would end it with its owner."""
    process = psutil.Process(server.pid)
    guard = process.parent()
    assert guard
    guard.kill()
    wait_for(lambda: not is_running(process.pid), "the server's end")


# --- PostgreSQL -----------------------------------------------------------------------------------


def test_postgresql_comes_back_where_it_was_with_what_it_had(own_postgresql: PostgreSQL) -> None:
    """However it ended."""
    database = own_postgresql.new_database()
    url = database.url
    make_words(database)
    for end in (PostgreSQL.stop, PostgreSQL.kill):
        before = own_postgresql.pid
        end(own_postgresql)
        assert not own_postgresql.is_running
        with pytest.raises(psycopg.OperationalError):
            database.execute(READ)
        own_postgresql.start()
        assert own_postgresql.pid != before
        assert database.url == url
        assert database.execute(READ) == [("kept",)]
    end_by_its_guard(own_postgresql)


def test_databases_of_one_server_know_nothing_of_each_other(postgresql: PostgreSQL, database: Database) -> None:
    make_words(database)
    other = postgresql.new_database()
    with pytest.raises(psycopg.errors.UndefinedTable):
        other.execute(READ)
    other.drop()
    with pytest.raises(psycopg.OperationalError):
        other.execute(READ)


def test_statements_of_one_database_are_counted(postgresql: PostgreSQL) -> None:
    database, other = postgresql.new_database(), postgresql.new_database()
    make_words(database)
    make_words(other)
    before = database.statements()
    for _ in range(3):
        database.execute(READ)
    other.execute(READ)
    assert database.statements() - before == {READ.as_string(): 3}


def test_connections_are_told_by_the_process_that_has_them(postgresql: PostgreSQL) -> None:
    database = postgresql.new_database()
    assert database.clients() == []
    with psycopg.connect(database.url), psycopg.connect(database.url), psycopg.connect(postgresql.url):
        assert database.clients() == [os.getpid()] * 2
    wait_for(lambda: not database.clients(), "the end of both connections")


def test_nobody_gets_in_without_the_password(postgresql: PostgreSQL) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgresql.url.replace(postgresql.password, "wrong"))


@pytest.mark.django_db
def test_django_is_tested_on_the_database_that_was_asked_for() -> None:
    assert connection.vendor == (os.environ.get("TEST_DATABASE") or "sqlite")


# --- Redis ----------------------------------------------------------------------------------------


def test_redis_comes_back_where_it_was_with_nothing(own_redis: Redis) -> None:
    url = own_redis.url
    for end in (Redis.stop, Redis.kill):
        with own_redis.client() as client:
            client.set("word", "gone")
        end(own_redis)
        assert not own_redis.is_running
        own_redis.start()
        assert own_redis.url == url
        with own_redis.client() as client:
            assert client.keys() == []
    end_by_its_guard(own_redis)


def test_databases_of_one_redis_know_nothing_of_each_other(own_redis: Redis) -> None:
    first, second = own_redis.new_database(), own_redis.new_database()
    assert first != second
    with own_redis.client(first) as mine, own_redis.client(second) as others:
        mine.set("word", "mine")
        assert others.get("word") is None
        own_redis.flush()
        assert mine.get("word") is None


# --- how they end ---------------------------------------------------------------------------------

START_AND_WAIT = """
import sys
from tests.servers import Redis
server = Redis()
server.start()
print(server.pid, server.folder, flush=True)
sys.stdin.read()
"""


def test_a_server_ends_with_its_owner_and_leaves_nothing() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with owner:
        try:
            assert owner.stdout
            pid, folder = owner.stdout.readline().split()
        finally:
            owner.kill()
        wait_for(lambda: not is_running(int(pid)), "the server's end")
        wait_for(lambda: not Path(folder).exists(), "the end of its folder")


TAKE = """
import sys
from tests.servers import shared_postgresql, shared_redis
servers = shared_postgresql(), shared_redis()
print(*(word for server in servers for word in (server.url, server.folder)), flush=True)
sys.stdin.read()
"""


def test_all_processes_of_a_run_share_one_server_of_each_kind_which_end_with_it(tmp_path: Path) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as run:
        environment = {**os.environ, "TEST_DATA": str(tmp_path), "TEST_RUN": str(run.pid)}
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", TAKE],
                cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(2)
        ]  # fmt: skip
        told = {worker.communicate(timeout=STARTS_WITHIN_S)[0] for worker in workers}
        assert len(told) == 1
        postgresql_url, data, redis_url, folder = told.pop().split()
        psycopg.connect(postgresql_url).close()  # it outlives who started it
        family = {process.pid for process in psutil.process_iter() if _works_in(process, data, folder)}
        assert len(family) > 2
        assert redis_url
        run.kill()
        wait_for(lambda: _is_refused(postgresql_url), "the end of the servers with that of the run")
        wait_for(lambda: not any(map(is_running, family)), "the end of all their processes")
        wait_for(lambda: not Path(data).exists() and not Path(folder).exists(), "the end of their folders")


def _works_in(process: psutil.Process, *folders: str) -> bool:
    """Also PostgreSQL's many processes, each in its data folder."""
    with suppress(psutil.Error):
        return process.cwd().startswith(folders)
    return False


def _is_refused(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return True
    return False
