"""The private servers of the tests: what they keep, what they count, and that they end with whoever started them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


# --- PostgreSQL -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [PostgreSQL.stop, PostgreSQL.kill])
def test_postgresql_comes_back_where_it_was_with_what_it_had(
    own_postgresql: PostgreSQL, end: Callable[[PostgreSQL], None]
) -> None:
    database = own_postgresql.new_database()
    url, first = database.url, own_postgresql.pid
    make_words(database)
    end(own_postgresql)
    assert not own_postgresql.is_running
    with pytest.raises(psycopg.OperationalError):
        database.execute(READ)
    own_postgresql.start()
    assert own_postgresql.pid != first
    assert database.url == url
    assert database.execute(READ) == [("kept",)]


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


@pytest.mark.parametrize("end", [Redis.stop, Redis.kill])
def test_redis_comes_back_where_it_was_with_nothing(own_redis: Redis, end: Callable[[Redis], None]) -> None:
    url = own_redis.url
    with own_redis.client() as client:
        client.set("word", "gone")
    end(own_redis)
    assert not own_redis.is_running
    own_redis.start()
    assert own_redis.url == url
    with own_redis.client() as client:
        assert client.keys() == []


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
from tests.servers import PostgreSQL, Redis
server = {"PostgreSQL": PostgreSQL, "Redis": Redis}[sys.argv[1]]()
server.start()
print(server.pid, server.folder, flush=True)
sys.stdin.read()
"""


@contextmanager
def owner_of(kind: type[Server]) -> Iterator[tuple[subprocess.Popen[str], psutil.Process, Path]]:
    """A process that has started such a server, the server, and its folder."""
    owner = subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT, kind.__name__],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with owner:
        try:
            assert owner.stdout
            pid, folder = owner.stdout.readline().split()
            yield owner, psutil.Process(int(pid)), Path(folder)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            owner.kill()


@pytest.mark.parametrize("kind", [PostgreSQL, Redis])
def test_a_server_ends_with_its_owner_and_leaves_nothing(kind: type[Server]) -> None:
    with owner_of(kind) as (owner, server, folder):
        family = {server.pid, *(child.pid for child in server.children(recursive=True))}
        owner.kill()
        wait_for(lambda: not any(map(is_running, family)), "the server's end")
        wait_for(lambda: not folder.exists(), "the end of its folder")


@pytest.mark.parametrize("kind", [PostgreSQL, Redis])
def test_a_server_ends_also_if_its_guard_is_killed(kind: type[Server]) -> None:
    with owner_of(kind) as (_, server, _folder):
        guard = server.parent()
        assert guard
        guard.kill()
        wait_for(lambda: not is_running(server.pid), "the server's end")


TAKE = """
import sys
from tests.servers import shared_postgresql, shared_redis
print(shared_postgresql().url, shared_redis().url, flush=True)
sys.stdin.read()
"""


def test_all_processes_of_a_run_share_one_server_of_each_kind(tmp_path: Path) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as run:
        environment = {**os.environ, "TEST_DATA": str(tmp_path), "TEST_RUN": str(run.pid)}
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", TAKE],
                cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(3)
        ]  # fmt: skip
        told = {worker.communicate(timeout=STARTS_WITHIN_S)[0] for worker in workers}
        assert len(told) == 1
        postgresql_url, redis_url = told.pop().split()
        psycopg.connect(postgresql_url).close()  # it outlives who started it
        assert redis_url
        run.kill()
        wait_for(lambda: _is_refused(postgresql_url), "the end of the servers with that of the run")


def _is_refused(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return True
    return False
