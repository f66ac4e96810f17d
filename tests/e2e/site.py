"""A service of several parts on one machine: websites and hosts around one database, and their processes by role.

with Site(tmp_path, database.url, hosts={"north": 3, "south": 3}) as site:
    capture = site.website.begin(camera.url)
    north = site.hosts["north"]
    kill(north.jobs.pusher)
    north.kill()
    north.start()

Processes are psutil's: what is done to one is never done to another that has its pid meanwhile.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import requests
from django.conf import settings as django_settings

from tests.e2e.prepared import ADMIN, MANAGE, ROOT, is_prepared, prepare_sqlite
from tests.e2e.service import Calls, free_port, wait_for

STOP_S = 60.0
SQLITE = "sqlite:///"
FORK_SERVER = "multiprocessing.forkserver"
KEYS = {"SECRET_KEY": "s" * 50, "CREDENTIALS_KEYS": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}


# --- processes --------------------------------------------------------------------------------------


def kill(process: psutil.Process, number: signal.Signals = signal.SIGKILL) -> None:
    """Not an error if it is gone already."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def is_running(process: psutil.Process) -> bool:
    """Zombies are not: they wait for their parent alone."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(processes: Iterable[psutil.Process], limit_s: float = 60.0) -> None:
    left = list(processes)
    wait_for(lambda: not any(map(is_running, left)), f"the end of {left}", limit_s)


@dataclass(frozen=True, slots=True)
class Jobs:
    """The job cluster of a host."""

    leader: psutil.Process
    sentinel: psutil.Process
    workers: tuple[psutil.Process, ...]
    monitor: psutil.Process
    pusher: psutil.Process

    @property
    def all(self) -> tuple[psutil.Process, ...]:
        return (self.leader, self.sentinel, *self.workers, self.monitor, self.pusher)


# --- parts ------------------------------------------------------------------------------------------


class Part:
    """One program of a site, and all that comes from it.

    A process is told to be the part's by its TMPDIR: it is the part's alone, each process inherits it, recorders too,
    which inherit little else, and it stays when the parent dies.
    """

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path, scratch: Path) -> None:
        self.name = name
        self.settings = environment
        """May be changed before it is started."""
        self.command = command
        self.root = ROOT
        """The checkout that it runs from."""
        self._log = log
        self._scratch = scratch
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Of all its starts."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def main(self) -> psutil.Process:
        """The process that was started last."""
        assert self._process, f"{self.name} was not started"
        return psutil.Process(self._process.pid)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def processes(self) -> list[psutil.Process]:
        """Whatever runs and comes from it, from an earlier start too, in the order in which they began."""
        mark = str(self._scratch)
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("TMPDIR") == mark:
                    found.append(process)
        return sorted(found, key=_age)

    def start(self) -> None:
        """Does not wait until it is ready."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, cwd=self.root, env={**self.settings, "TMPDIR": str(self._scratch)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def send(self, number: signal.Signals) -> None:
        """To the process that was started, alone."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait for its end; its exit code."""
        self.send(number)
        return self.wait()

    def wait(self, limit_s: float = STOP_S) -> int:
        assert self._process, f"{self.name} was not started"
        return self._process.wait(limit_s)

    def kill(self) -> None:
        """kill -9 of all its processes at one moment: none sees another one die, as when a machine goes dark."""
        family: set[psutil.Process] = set()
        while more := set(self.processes()) - family:
            for process in more:
                kill(process, signal.SIGSTOP)
            family |= more
        for process in family:
            kill(process)
        wait_until_gone(family)
        if self._process:
            self._process.wait(STOP_S)


class Website(Part, Calls):
    """Gunicorn: `main` is its master."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings['PORT']}"

    @property
    def workers(self) -> list[psutil.Process]:
        return self.main.children()

    def wait_until_ready(self) -> None:
        wait_for(self._answers, f"the website; its log:\n{self.log}")

    def _answers(self) -> bool:
        assert self.is_running, self.log
        try:
            return requests.get(f"{self.url}/livez", timeout=5).status_code == 200
        except requests.RequestException:
            return False


class Host(Part):
    """A supervisor and what it runs."""

    _registered = 0

    @property
    def supervisor(self) -> psutil.Process:
        return self.main

    @property
    def recorders(self) -> list[psutil.Process]:
        """Children of a fork server that runs; whose fork server is gone is among `processes()` alone."""
        return [process for process in self.processes() if _is_fork_server(process) and _has_fork_server(process)]

    def recorder_of(self, capture: int) -> psutil.Process:
        """The recorder that was started last for this capture."""
        pids = wait_for(lambda: self._recorder_pids(capture), f"a recorder of capture {capture} on {self.name}")
        return psutil.Process(pids[-1])

    def _recorder_pids(self, capture: int) -> list[int]:
        return [int(pid) for pid in re.findall(rf" capture={capture} recorder started pid=(\d+)", self.log)]

    @property
    def jobs(self) -> Jobs:
        """The cluster of the supervisor that runs, as soon as it is complete."""
        return wait_for(self._jobs, f"the job cluster of {self.name}; its log:\n{self.log}")

    def _jobs(self) -> Jobs | None:
        """Django-q2's processes look alike: the sentinel forks the workers first, then the monitor, then the pusher.

        One that it replaces stands last: so this holds until a worker is recycled, after 50 jobs.
        """
        with suppress(psutil.NoSuchProcess):
            leaders = [child for child in self.main.children() if "jobs" in child.cmdline()]
            sentinels = [child for leader in leaders for child in leader.children()]
            parts = [part for sentinel in sentinels for part in sorted(sentinel.children(), key=_age)]
            workers: int = django_settings.Q_CLUSTER["workers"]
            if (len(leaders), len(sentinels), len(parts)) == (1, 1, workers + 2):
                return Jobs(leaders[0], sentinels[0], tuple(parts[:-2]), parts[-2], parts[-1])
        return None

    def start(self) -> None:
        self._registered = self._count_registered()
        super().start()

    def wait_until_ready(self) -> None:
        """Until the supervisor that was started last has registered."""
        wait_for(self._has_registered, f"the supervisor of {self.name}; its log:\n{self.log}")

    def _has_registered(self) -> bool:
        assert self.is_running, self.log
        return self._count_registered() > self._registered

    def _count_registered(self) -> int:
        return self.log.count(" supervisor started ")


def _age(process: psutil.Process) -> tuple[float, int]:
    """Two that began within the same hundredth of a second have their pids in order."""
    return process.create_time(), process.pid


def _is_fork_server(process: psutil.Process | None) -> bool:
    """Its children, the recorders, have its command line."""
    with suppress(psutil.Error):
        return process is not None and any(FORK_SERVER in word for word in process.cmdline())
    return False


def _has_fork_server(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return _is_fork_server(process.parent())
    return False


# --- the whole --------------------------------------------------------------------------------------


class Site:
    """Each part has a data folder of its own, as machines have; pictures, keys and the database are shared.

    Without `database_url` the database is SQLite, without `redis_url` it is the broker too. `settings` are
    environment variables of all parts.
    """

    def __init__(
        self,
        folder: Path,
        database_url: str = "",
        *,
        redis_url: str = "",
        hosts: Mapping[str, int] | None = None,
        websites: int = 1,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`hosts` are names and slots; without, one of eight slots."""
        self.folder = folder
        self.database_url = database_url or f"{SQLITE}{folder / 'db.sqlite3'}"
        self.settings = {"DATABASE_URL": self.database_url, **KEYS, **(settings or {})}
        if redis_url:
            self.settings["REDIS_URL"] = redis_url
        self._scratch = Path(tempfile.mkdtemp(prefix="site-"))  # short: names of sockets below it have a limit
        self.websites: list[Website] = []
        self.hosts: dict[str, Host] = {}
        for _ in range(websites):
            self.add_website()
        for name, slots in ({"north": 8} if hosts is None else hosts).items():
            self.add_host(name, slots)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._prepare()
            for part in self.parts:
                part.start()
            for website in self.websites:
                website.wait_until_ready()
            for host in self.hosts.values():
                host.wait_until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if error is not None:
            print(self.log)

    @property
    def website(self) -> Website:
        return self.websites[0]

    @property
    def parts(self) -> list[Part]:
        return [*self.websites, *self.hosts.values()]

    @property
    def media(self) -> Path:
        return self.folder / "media"

    @property
    def log(self) -> str:
        return "\n".join(f"--- {part.name}\n{part.log}" for part in self.parts)

    def processes(self) -> list[psutil.Process]:
        return [process for part in self.parts for process in part.processes()]

    def add_host(self, name: str, slots: int, **settings: str) -> Host:
        """Not started yet."""
        own = {"CAPTURE_HOST_NAME": name, "CAPTURE_SLOTS": str(slots), **settings}
        self.hosts[name] = Host(name, *self._place(name, [sys.executable, MANAGE, "supervise"], own))
        return self.hosts[name]

    def add_website(self, **settings: str) -> Website:
        """Not started yet. One worker process, as serve.sh has it."""
        name, port = f"web-{len(self.websites) + 1}", str(free_port())
        serve = [sys.executable, "-m", "gunicorn", "rtspsite.wsgi", "--bind", f"127.0.0.1:{port}"]
        threads = ["--worker-class", "rtspsite.worker.Worker", "--threads", "16", "--no-control-socket"]
        self.websites.append(Website(name, *self._place(name, [*serve, *threads], {"PORT": port, **settings})))
        return self.websites[-1]

    def manage(self, *arguments: str) -> str:
        """What a command of manage.py prints, run to its end as the first website would."""
        done = subprocess.run(
            [sys.executable, MANAGE, *arguments], cwd=ROOT, env=self._environment("web-1", {}),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=STOP_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _prepare(self) -> None:
        if self.database_url.startswith(SQLITE):
            prepare_sqlite(Path(self.database_url.removeprefix(SQLITE)))
        elif not is_prepared(self.database_url):
            self.manage("prepare")

    def _place(
        self, name: str, command: list[str], settings: dict[str, str]
    ) -> tuple[list[str], dict[str, str], Path, Path]:
        return command, self._environment(name, settings), self.folder / f"{name}.log", self._scratch / name

    def _environment(self, name: str, settings: dict[str, str]) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "CI_RUN") if name in os.environ}
        return {
            **kept,
            "DATA_DIR": str(self.folder / name),
            "MEDIA_ROOT": str(self.media),
            "DJANGO_SUPERUSER_USERNAME": ADMIN[0],
            "DJANGO_SUPERUSER_PASSWORD": ADMIN[1],
            "PYTHONUNBUFFERED": "1",
            **self.settings,
            **settings,
        }

    def _end(self) -> None:
        """As an administrator would; what is left after that is killed."""
        for part in self.parts:
            part.send(signal.SIGTERM)
        for part in self.parts:
            if part.is_running:
                with suppress(subprocess.TimeoutExpired):
                    part.wait(15.0)
        for part in self.parts:
            part.kill()
        shutil.rmtree(self._scratch, ignore_errors=True)
