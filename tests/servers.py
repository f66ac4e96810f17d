"""Private PostgreSQL and Redis servers on free loopback ports, from the system's packages.

One of each is shared by all processes of a test run (`shared_postgresql`, `shared_redis`): a test takes a database of
its own there. Whoever stops or kills a server starts one for itself:

with PostgreSQL() as server:
    database = server.new_database()
    server.kill()
    server.start()

However the owner ends, its servers end with it (guard.py).
"""

import fcntl
import json
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

import psutil
import psycopg
import redis
from psycopg import sql

GUARD = Path(__file__).with_name("guard.py")
START_S = 60.0
STOP_S = 30.0
# Below the ports that the kernel gives to outgoing connections: one of those could take a stopped server's place.
PORTS = range(20_000, 32_000)
S = TypeVar("S", bound="Server")


class Server(ABC):
    """Its port and its password stay the same while it is stopped and started."""

    kind: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, *, owner: int | None = None) -> None:
        """`owner` is the process with whose end it ends; else this one."""
        self.password = secrets.token_hex(16)
        self.port = _free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.kind}-"))
        self._owner = owner or os.getpid()
        self._guard: subprocess.Popen[bytes] | None = None
        if os.getuid() == 0:
            os.chown(self.folder, *_unprivileged())

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def is_running(self) -> bool:
        return self._guard is not None and self._guard.poll() is None

    @property
    def pid(self) -> int:
        """Of the server's main process."""
        assert self._guard, f"this {self.kind} was not started here"
        (server,) = psutil.Process(self._guard.pid).children()
        return int(server.pid)

    def start(self) -> None:
        """Returns when it answers. A port that somebody else has is waited for, or changed at the first start."""
        is_new = self._guard is None
        limit_s = time.monotonic() + START_S
        while not self._starts(limit_s):
            assert time.monotonic() < limit_s, f"{self.kind} does not start:\n{self.log}"
            if is_new:
                self.port = _free_port()

    def stop(self) -> None:
        """As its administrator would: it ends its clients' connections and keeps what it has."""
        psutil.Process(self.pid).send_signal(self.stop_signal)
        self._wait()

    def kill(self) -> None:
        """kill -9 of all its processes."""
        server = psutil.Process(self.pid)
        server.suspend()  # it would fork others meanwhile
        family = [*server.children(recursive=True), server]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        limit_s = time.monotonic() + STOP_S
        while any(map(_is_running, family)):
            assert time.monotonic() < limit_s, f"{self.kind} cannot be killed"
            time.sleep(0.01)
        self._wait()

    def close(self) -> None:
        """End it and remove what it wrote."""
        if self.is_running:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @abstractmethod
    def ask(self) -> None:
        """Raises an error of its library while it does not answer."""

    @abstractmethod
    def _command(self) -> Sequence[str]: ...

    def _starts(self, limit_s: float) -> bool:
        """Whether it answers, in time and without having ended."""
        command = [sys.executable, "-I", "-S", str(GUARD), str(self._owner), str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self._guard = subprocess.Popen(
                [*command, *_unprivileged_command("--pdeathsig", "QUIT"), *self._command()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            )  # fmt: skip
        while self.is_running and time.monotonic() < limit_s:
            try:
                self.ask()
            except (psycopg.OperationalError, redis.RedisError):
                time.sleep(0.02)
            else:
                return True
        return False

    def _wait(self) -> None:
        assert self._guard
        self._guard.wait(STOP_S)


class PostgreSQL(Server):
    """With `is_durable` it waits for the disk as a real one does. It counts statements for `Database.statements`."""

    kind = "postgresql"
    stop_signal = signal.SIGINT  # "fast": does not wait for clients to leave

    def __init__(self, *, owner: int | None = None, is_durable: bool = True, max_connections: int = 100) -> None:
        super().__init__(owner=owner)
        self._options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "dynamic_shared_memory_type": "mmap",  # what is left after a kill lies in the folder
            "shared_preload_libraries": "pg_stat_statements",
            "max_connections": str(max_connections),
            "shared_buffers": "32MB",
            "timezone": "UTC",
            "fsync": "on" if is_durable else "off",
            "full_page_writes": "on" if is_durable else "off",
        }

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgres://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def new_database(self, *, template: str = "template1") -> "Database":
        """A copy of the template, to which nobody may be connected; PostgreSQL's own one is empty."""
        name = f"db_{secrets.token_hex(6)}"
        names = map(sql.Identifier, (name, template))
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
        return Database(self, name)

    def execute(
        self, statement: sql.SQL | sql.Composed, values: Sequence[object] = (), *, database: str = "postgres"
    ) -> list[Any]:
        """The rows of one statement, on a connection of its own."""
        with psycopg.connect(self.url_of(database), autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        if not (self.folder / "data").exists():
            self._make()
        super().start()
        self.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS pg_stat_statements"))

    def ask(self) -> None:
        self.execute(sql.SQL("SELECT 1"))

    def _make(self) -> None:
        password = self.folder / "password"
        password.write_text(self.password)
        password.chmod(0o600)
        if os.getuid() == 0:
            os.chown(password, *_unprivileged())
        options = ("--no-sync", "--auth=scram-sha-256", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8")
        initdb = (str(_postgresql_programs() / "initdb"), f"--pgdata={self.folder / 'data'}", f"--pwfile={password}")
        made = subprocess.run(
            [*_unprivileged_command(), *initdb, *options], capture_output=True, text=True, timeout=START_S, cwd="/",
            check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr

    def _command(self) -> Sequence[str]:
        options = [word for name, value in self._options.items() for word in ("-c", f"{name}={value}")]
        program = str(_postgresql_programs() / "postgres")
        return [program, "-D", str(self.folder / "data"), "-p", str(self.port), *options]


@dataclass(frozen=True, slots=True)
class Database:
    """One database of a server, with figures of who uses it."""

    server: PostgreSQL
    name: str

    @property
    def url(self) -> str:
        return self.server.url_of(self.name)

    def execute(self, statement: sql.SQL | sql.Composed, values: Sequence[object] = ()) -> list[Any]:
        return self.server.execute(statement, values, database=self.name)

    def statements(self) -> Counter[str]:
        """How often each statement was run here, BEGIN and COMMIT among them, since the server started.

        Two of these subtract. A server that was killed begins anew, one that was stopped goes on.
        """
        rows = self.server.execute(
            sql.SQL(
                "SELECT s.query, sum(s.calls)::bigint FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid"
                " WHERE d.datname = %s GROUP BY s.query"
            ),
            [self.name],
        )
        return Counter(dict(rows))

    def clients(self) -> list[int]:
        """The pid of the process at the other end of each connection."""
        found = sql.SQL("SELECT client_port FROM pg_stat_activity WHERE datname = %s AND client_port > 0")
        ports = {row[0] for row in self.server.execute(found, [self.name])}
        return sorted(
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.pid and connection.laddr and connection.laddr.port in ports
            and connection.raddr and connection.raddr.port == self.server.port
        )  # fmt: skip

    def drop(self) -> None:
        """Whoever is connected is thrown out."""
        self.server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self.name)))


class Redis(Server):
    """Keeps nothing on disk: whoever restarts it has lost what was in it."""

    kind = "redis"
    stop_signal = signal.SIGTERM
    databases: ClassVar[int] = 10_000

    @property
    def url(self) -> str:
        return self.url_of(0)

    def url_of(self, number: int) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{number}"

    def new_database(self) -> str:
        """The URL of a database that nobody else was given."""
        with self.client() as client:
            return self.url_of(client.incr("databases-given"))

    def client(self, url: str = "") -> "redis.Redis":
        return redis.Redis.from_url(url or self.url, socket_timeout=10, socket_connect_timeout=10)

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def ask(self) -> None:
        with self.client() as client:
            client.ping()

    def _command(self) -> Sequence[str]:
        options = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": self.password,
            "databases": self.databases,
            "dir": self.folder,
            "save": '""',
            "appendonly": "no",
        }
        path = self.folder / "redis.conf"
        path.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
        path.chmod(0o600)
        if os.getuid() == 0:
            os.chown(path, *_unprivileged())
        return [_program("redis-server"), str(path)]


# --- one for all processes of a test run ------------------------------------------------------------


def shared_postgresql() -> PostgreSQL:
    """Does not wait for the disk, and is not to be stopped."""
    return _shared(PostgreSQL(owner=int(os.environ["TEST_RUN"]), is_durable=False, max_connections=300))


def shared_redis() -> Redis:
    return _shared(Redis(owner=int(os.environ["TEST_RUN"])))


def _shared(server: S) -> S:
    """This server, if the test run has none of its kind; else the one that it has."""
    with locked(Path(os.environ["TEST_DATA"]) / f"{server.kind}.json") as path:
        if path.exists():
            server.close()
            known = json.loads(path.read_text())
            server.folder, server.port, server.password = Path(known["folder"]), known["port"], known["password"]
        else:
            server.start()
            known = {"folder": str(server.folder), "port": server.port, "password": server.password}
            path.write_text(json.dumps(known))
    return server


@contextmanager
def locked(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


# --- programs and who runs them ---------------------------------------------------------------------


def _postgresql_programs() -> Path:
    """Debian keeps them outside PATH, one folder for each version."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max(found, key=lambda folder: int(folder.parent.name)) if found else Path(_program("postgres")).parent


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is not installed: make setup-dev"
    return found


def _unprivileged() -> tuple[int, int]:
    """PostgreSQL refuses to run as root: the user and group that its package makes."""
    user = pwd.getpwnam("postgres")
    return user.pw_uid, user.pw_gid


def _unprivileged_command(*options: str) -> list[str]:
    command = [_program("setpriv"), *options]
    if os.getuid() == 0:
        uid, gid = _unprivileged()
        command += [f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    return command if len(command) > 1 else []


def _is_running(process: psutil.Process) -> bool:
    """Zombies are not: whoever adopted them may take its time."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _free_port() -> int:
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")
