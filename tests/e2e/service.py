"""The service as a person runs it: real processes on a free port, a folder of its own, plain HTTP."""

import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import requests

from tests.e2e.prepared import ADMIN, MANAGE, prepare_sqlite
from tests.e2e.prepared import ROOT as ROOT

LOOK_S = (0.05, 0.5)  # each look costs the service 10 ms
T = TypeVar("T")


def wait_for(get: Callable[[], T | None], what: str, limit_s: float = 60.0) -> T:
    """The first true answer of `get`, asked less often as time goes by. Fails with `what` after the limit."""
    end_s = time.monotonic() + limit_s
    pause_s, longest_s = LOOK_S
    while True:
        answer = get()
        if answer:
            return answer
        assert time.monotonic() < end_s, f"not within {limit_s:g} s: {what}"
        time.sleep(pause_s)
        pause_s = min(longest_s, pause_s * 1.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Calls(ABC):
    """What a client asks of a service at `url`."""

    @property
    @abstractmethod
    def url(self) -> str: ...

    def post(self, path: str, accept: str = "*/*", **fields: Any) -> requests.Response:
        return requests.post(self.url + path, data=fields, headers={"Accept": accept}, timeout=60)

    def begin(self, url: str, **fields: Any) -> int:
        """Start a stream; its capture's id."""
        answer = self.post("/start", "application/json", rtsp_url=url, **fields)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["capture"])

    def stop_once(self, name: str, accept: str = "*/*") -> requests.Response:
        return self.post("/stop", accept, process_name=name)

    def end(self, name: str, accept: str = "*/*", limit_s: float = 60.0) -> requests.Response:
        """What a stop is answered with when the capture is finished; a busy machine is asked twice."""
        until_s = time.monotonic() + limit_s
        while (answer := self.stop_once(name, accept)).status_code == 202 and time.monotonic() < until_s:
            pass  # each waits 10 s by itself
        return answer

    def capture(self, number: int) -> dict[str, Any]:
        answer = requests.get(f"{self.url}/captures/{number}/", headers={"Accept": "application/json"}, timeout=60)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait_for_samples(self, capture: int, samples: int, limit_s: float = 90.0) -> None:
        wait_for(lambda: self.capture(capture)["samples"] >= samples, f"{samples} samples of {capture}", limit_s)

    def wait_for_error(self, capture: int, limit_s: float) -> dict[str, Any]:
        """The capture as soon as it says what is wrong."""

        def failing() -> dict[str, Any] | None:
            found = self.capture(capture)
            return found if found["error"] else None

        return wait_for(failing, f"an error of capture {capture}", limit_s)


@dataclass
class Service(Calls):
    """Each of the `commands` is run whole; the first one serves."""

    folder: Path
    commands: tuple[tuple[str, ...], ...]
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        family = self.family()
        self.signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in family:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
        if error is not None:
            print(self.log)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {
            **kept,
            "DATA_DIR": str(self.folder / "data"),
            "MEDIA_ROOT": str(self.folder / "media"),
            "PORT": str(self.port),
            "CAPTURE_HOST_NAME": f"host-{self.port}",
            "DJANGO_SUPERUSER_USERNAME": ADMIN[0],
            "DJANGO_SUPERUSER_PASSWORD": ADMIN[1],
            "PYTHONUNBUFFERED": "1",
            **self.settings,
        }

    def start(self, *, until: str = "/readyz") -> None:
        """Returns when `until` answers 200."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.processes = [self._run(command, log) for command in self.commands]
        wait_for(lambda: self._answers(until), f"{until} of the service; its log:\n{self.log}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> list[int]:
        """Signal what was started, wait for its end; the exit codes."""
        self.signal(number)
        return [process.wait(60) for process in self.processes]

    def signal(self, number: signal.Signals) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def family(self) -> set[int]:
        """Ids of everything that the commands started, and of themselves."""
        parents = _parents()
        found = {process.pid for process in self.processes if process.poll() is None}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return found

    def supervisors(self) -> set[int]:
        return {pid for pid in self.family() if "supervise" in command_line(pid)}

    def _run(self, command: tuple[str, ...], log: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip

    def _answers(self, path: str) -> bool:
        for process in self.processes:
            assert process.poll() is None, self.log
        try:
            return requests.get(self.url + path, timeout=5).status_code == 200
        except requests.RequestException:
            return False


def runserver(folder: Path, *options: str, **settings: str) -> Service:
    return Service(folder, ((sys.executable, MANAGE, "runserver", *(options or ("--noreload",))),), settings)


def gunicorn(folder: Path, **settings: str) -> Service:
    """The website and the supervisor as two processes that know each other only by the database."""
    service = Service(folder, (), settings)
    prepare_sqlite(folder / "data" / "db.sqlite3")
    serve = (sys.executable, "-m", "gunicorn", "rtspsite.wsgi", "--bind", f"127.0.0.1:{service.port}")
    threads = ("--worker-class", "rtspsite.worker.Worker", "--threads", "16", "--no-control-socket")
    service.commands = ((*serve, *threads), (sys.executable, MANAGE, "supervise"))
    return service


def is_running(pid: int) -> bool:
    """Zombies are not: they wait for their parent alone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def _parents() -> dict[int, int]:
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return found
