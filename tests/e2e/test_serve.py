"""scripts/serve.sh with scripts of the tests in place of manage.py: for deaths that are hard to come by."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.service import ROOT, free_port, wait_for


@dataclass
class Serve:
    """serve.sh of the checkout, with an application below `root`."""

    root: Path
    temporary: Path
    """Its TMPDIR. Short: names of sockets below it have a limit."""
    port: int = field(default_factory=free_port)
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    sessions: set[int] = field(default_factory=set)

    @property
    def app(self) -> Path:
        return self.root / "app"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def environment(self) -> dict[str, str]:
        folders = {"APP_DIR": self.app, "DATA_DIR": self.data, "MEDIA_ROOT": self.data / "media"}
        return {
            **{name: str(folder) for name, folder in folders.items()},
            "TMPDIR": str(self.temporary),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": "/",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
            **self.settings,
        }

    def start(self) -> None:
        with (self.root / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", ROOT / "scripts" / "serve.sh"],
                cwd=self.app,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self, number: signal.Signals | None = None, limit_s: float = 60) -> int:
        assert self.process
        if number:
            self.process.send_signal(number)
        return self.process.wait(limit_s)

    def wait_until_healthy(self) -> None:
        """Asked only once somebody listens: each healthcheck is a Python to start."""
        wait_for(self.listens, "the website listens")
        wait_for(self.is_healthy, "health")

    def listens(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def is_healthy(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log
        check = [sys.executable, str(ROOT / "scripts" / "healthcheck")]
        return subprocess.run(check, env=self.environment, capture_output=True).returncode == 0

    @property
    def log(self) -> str:
        return (self.root / "log").read_text()

    def processes(self) -> dict[int, str]:
        """All that serve.sh started and that still runs: id to command line.

        Known by its environment, which a job cluster in a session of its own has too, or, as a recorder's
        is emptied, by a session that was seen before.
        """
        mark = f"DATA_DIR={self.data}".encode()
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    self.sessions.add(int(session))
                if int(session) in self.sessions and state != "Z":
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it ended meanwhile
        return found

    def runs(self, what: str) -> bool:
        return any(what in line for line in self.processes().values())

    def process_id(self, of: str) -> int:
        """Of the oldest process with this in its command line, for what it starts has its line, too."""
        return min((pid for pid, line in self.processes().items() if of in line), key=begun)


def begun(pid: int) -> int:
    """When, in ticks since the system started. Ids begin anew at 32768: the lower one is not the older one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[Serve]:
    """Its website is gunicorn's with the project's worker; what manage.py does the test says."""
    temporary = Path(tempfile.mkdtemp(prefix="box-"))
    serve = Serve(tmp_path, temporary)
    (serve.app / "rtspsite").mkdir(parents=True)
    shutil.copy(ROOT / "rtspsite" / "worker.py", serve.app / "rtspsite")
    wsgi = 'def application(environ, start):\n    start("200 OK", [])\n    return [b"fine"]\n'
    (serve.app / "rtspsite" / "wsgi.py").write_text(wsgi)
    serve.data.mkdir()
    yield serve
    for pid in serve.processes():
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(temporary)


def supervise_with(serve: Serve, script: str) -> None:
    """`script` becomes `manage.py supervise`; `manage.py prepare` does nothing."""
    head = "import signal, subprocess, sys, time\nif sys.argv[1] == 'prepare':\n    sys.exit()\n"
    (serve.app / "manage.py").write_text(head + script)


def start_stand_in(serve: Serve) -> None:
    serve.start()
    wait_for(lambda: "ready" in serve.log, "the stand-in for the supervisor runs")
    serve.wait_until_healthy()


READY = "print('ready', flush=True)\n"


SLOW_TO_PREPARE = """
import os, sys, time
if sys.argv[1] == "prepare":
    print("preparing", flush=True)
    while not os.path.exists({go!r}):
        time.sleep(0.05)
    sys.exit()
print("ready", flush=True)
time.sleep(300)
"""


def test_a_website_that_cannot_start_takes_the_supervisor_down(stand_in: Serve) -> None:
    """Its port is taken while the database is prepared; one that is taken before that is told at once."""
    go = stand_in.data / "go"
    (stand_in.app / "manage.py").write_text(SLOW_TO_PREPARE.format(go=str(go)))
    stand_in.start()
    wait_for(lambda: "preparing" in stand_in.log, "prepare runs")
    with socket.create_server(("127.0.0.1", stand_in.port)):
        go.touch()
        assert stand_in.end() not in (0, None)
    assert "ready" in stand_in.log
    assert "the website ended by itself" in stand_in.log
    assert "still there" not in stand_in.log
    assert stand_in.processes() == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_before_it_is_up_is_a_wanted_stop_too(stand_in: Serve, number: signal.Signals) -> None:
    (stand_in.app / "manage.py").write_text(f"import time\n{READY}time.sleep(60)\n")
    stand_in.start()
    wait_for(lambda: "ready" in stand_in.log, "prepare runs")
    assert stand_in.end(number) == 0, stand_in.log
    assert stand_in.processes() == {}


def test_serve_substitutes_no_command_while_it_can_be_stopped() -> None:
    """bash 5.2 loses a signal that comes as a `$( )` ends, too seldom for a test that sends one."""
    _, until_stopped = (ROOT / "scripts" / "serve.sh").read_text().split("\ntrap 'stopping", 1)
    functions = until_stopped.split('\nif [ -n "$stopping" ]; then', 1)[0]
    assert "wait -n" in functions
    assert re.findall(r"\$\((?!\()|`", re.sub(r"(?m)#.*$", "", functions)) == []


def test_a_failed_preparation_ends_it(stand_in: Serve) -> None:
    (stand_in.app / "manage.py").write_text("raise SystemExit('no database')\n")
    stand_in.start()
    assert stand_in.end() == 1
    assert "no database" in stand_in.log
    assert "could not prepare" in stand_in.log


def test_a_supervisor_that_ends_without_a_wish_is_a_failure_even_with_status_0(stand_in: Serve) -> None:
    supervise_with(stand_in, f"{READY}time.sleep(2)\n")
    stand_in.start()
    assert stand_in.end() == 1
    assert stand_in.processes() == {}


def test_what_a_killed_supervisor_left_in_another_session_is_ended_before_the_next_one(stand_in: Serve) -> None:
    """It ignores all that can be ignored."""
    stand_in.settings["SERVE_STOP_WITHIN_S"] = "0"
    script = "trap : TERM HUP; while :; do sleep 300; done"
    orphan = f"subprocess.Popen(['bash', '-c', '{script}'], start_new_session=True)\n"
    supervise_with(stand_in, f"{orphan}{READY}time.sleep(300)\n")
    start_stand_in(stand_in)
    wait_for(lambda: stand_in.runs("sleep 300"), "the orphan-to-be runs")
    before = {pid for pid, line in stand_in.processes().items() if "sleep 300" in line}
    os.kill(stand_in.process_id("manage.py supervise"), signal.SIGKILL)
    wait_for(lambda: stand_in.log.count("ready") == 2, "the next supervisor")
    assert not before & set(stand_in.processes())
    stand_in.end(signal.SIGTERM)
    assert stand_in.processes() == {}


def test_one_that_is_killed_again_and_again_is_started_after_longer_and_longer_pauses(stand_in: Serve) -> None:
    supervise_with(stand_in, f"{READY}import os\nos.kill(os.getpid(), signal.SIGKILL)\n")
    stand_in.start()
    wait_for(lambda: "again in 2 s" in stand_in.log, "a pause that grew")
    pauses = re.findall(r"supervisor was killed, status 137: starting it again in (\d+) s", stand_in.log)
    assert pauses == ["0", "1", "2"]
    stand_in.wait_until_healthy()
    assert stand_in.end(signal.SIGTERM) == 0, "a stop ends a pause too"
    assert stand_in.processes() == {}


def test_a_supervisor_that_does_not_leave_is_killed(stand_in: Serve) -> None:
    stand_in.settings["SERVE_STOP_WITHIN_S"] = "2"
    supervise_with(stand_in, f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{READY}time.sleep(300)\n")
    start_stand_in(stand_in)
    assert stand_in.end(signal.SIGTERM) == 1
    assert "still there 2 s after the stop" in stand_in.log
    assert stand_in.processes() == {}


def test_the_two_end_when_serve_itself_is_killed(stand_in: Serve) -> None:
    supervise_with(stand_in, f"{READY}time.sleep(300)\n")
    start_stand_in(stand_in)
    stand_in.end(signal.SIGKILL)
    wait_for(lambda: not stand_in.processes(), "all gone", 20)
