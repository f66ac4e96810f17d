"""The image's steps, taken without Docker: the checkout read-only as /app, serve.sh run by nobody special."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.camera.clip import Scene
from tests.camera.server import ScriptedCamera

ROOT = Path(__file__).resolve().parents[2]
UID = 10001 if os.getuid() == 0 else os.getuid()
# May read everything, as the tests' Python can stand in root's home, but write in its own folders only, and gets no
# other right by whatever program: --cap-drop ALL --security-opt no-new-privileges.
AS_USER = [
    "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--bounding-set=-all,+dac_read_search",
    "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--no-new-privs",
] if os.getuid() == 0 else []  # fmt: skip
# --read-only --tmpfs /tmp: in mounts of its own nothing can be written but the volume and the temporary folder.
READ_ONLY = """
for folder in "$DATA_DIR" "$TMPDIR"; do mount --bind "$folder" "$folder"; done
findmnt --raw --noheadings --output TARGET | while read -r place; do
    case $place in "$DATA_DIR" | "$TMPDIR" | /dev* | /proc* | /sys*) ;; *) mount -o remount,bind,ro "$place" ;; esac
done
touch "$APP_DIR/manage.py" && exit 99
exec "$@"
"""
IN_MOUNTS_OF_ITS_OWN = ["unshare", "--mount", "--propagation", "private", "bash", "-c", READ_ONLY, "bash"]


def dockerfile() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name, re.sub(r" +", " ", rest).strip()) for name, rest in lines]


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in dockerfile() if name == instruction]


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in arguments("ENV") for pair in line.split())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(is_so: Callable[[], object], what: str, limit_s: float = 60) -> None:
    end_s = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < end_s, f"{what}: not within {limit_s} s"
        time.sleep(0.1)


@dataclass
class Container:
    """A folder laid out as the image is, and serve.sh running in it."""

    root: Path
    temporary: Path
    """Its /tmp. Short: names of sockets below it have a limit."""
    port: int = field(default_factory=free_port)
    settings: dict[str, str] = field(default_factory=dict)
    role: tuple[str, ...] = ()
    is_read_only: bool = False
    """All but the volume and /tmp; only root can make it so."""
    process: subprocess.Popen[bytes] | None = None
    sessions: set[int] = field(default_factory=set)

    @property
    def app(self) -> Path:
        return self.root / "app"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def mounts(self) -> list[str]:
        return IN_MOUNTS_OF_ITS_OWN if self.is_read_only and os.getuid() == 0 else []

    @property
    def environment(self) -> dict[str, str]:
        folders = {"APP_DIR": self.app, "DATA_DIR": self.data, "MEDIA_ROOT": self.data / "media"}
        return {
            **image_environment(),
            **{name: str(folder) for name, folder in folders.items()},
            "TMPDIR": str(self.temporary),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": "/",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            **self.settings,
        }

    def start(self) -> None:
        with (self.root / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*self.mounts, *AS_USER, "bash", self.root / "opt/exercise/serve.sh", *self.role],
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
        wait_until(self.listens, "the website listens")
        wait_until(self.is_healthy, "health")

    def listens(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def is_healthy(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log
        check = [sys.executable, str(self.root / "opt/exercise/healthcheck")]
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

    def snapshot(self) -> dict[str, tuple[int, int]]:
        return {str(p): (p.lstat().st_mtime_ns, p.lstat().st_size) for p in [self.app, *self.app.rglob("*")]}


def begun(pid: int) -> int:
    """When, in ticks since the system started. Ids begin anew at 32768: the lower one is not the older one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def lay_image(root: Path) -> None:
    """What the Dockerfile's COPY lines and image-install.sh lay down, but for the installed packages."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "bench/", "media/")):
            (root / "app" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / "app" / name)
    (root / "opt/exercise").mkdir(parents=True)
    for name in ("serve.sh", "healthcheck", "keys.sh"):
        shutil.copy(ROOT / "scripts" / name, root / "opt/exercise")
    for folder in [root / "app", *(p for p in (root / "app").rglob("*") if p.is_dir())]:
        folder.chmod(0o555)
    (root / "data").mkdir()
    os.chown(root / "data", UID, UID)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    lay_image(tmp_path)
    temporary = Path(tempfile.mkdtemp(prefix="box-"))
    os.chown(temporary, UID, UID)
    container = Container(tmp_path, temporary)
    yield container
    for pid in container.processes():
        os.kill(pid, signal.SIGKILL)
    for folder in (tmp_path / "app").rglob("*"):
        if folder.is_dir():
            folder.chmod(0o755)
    container.app.chmod(0o755)
    shutil.rmtree(temporary)


@pytest.fixture
def stand_in(container: Container) -> Container:
    """A container whose manage.py is a script of the test's: for deaths that are hard to come by."""
    container.app.chmod(0o755)
    (container.app / "manage.py").unlink()
    worker = (container.app / "rtspsite" / "worker.py").read_text()
    shutil.rmtree(container.app / "rtspsite")
    (container.app / "rtspsite").mkdir()
    (container.app / "rtspsite" / "worker.py").write_text(worker)
    wsgi = 'def application(environ, start):\n    start("200 OK", [])\n    return [b"fine"]\n'
    (container.app / "rtspsite" / "wsgi.py").write_text(wsgi)
    return container


def supervise_with(container: Container, script: str) -> None:
    """`script` becomes `manage.py supervise`; `manage.py prepare` does nothing."""
    head = "import signal, subprocess, sys, time\nif sys.argv[1] == 'prepare':\n    sys.exit()\n"
    (container.app / "manage.py").write_text(head + script)


def start_stand_in(container: Container) -> None:
    container.start()
    wait_until(lambda: "ready" in container.log, "the stand-in for the supervisor runs")
    container.wait_until_healthy()


JSON = {"Accept": "application/json"}
READY = "print('ready', flush=True)\n"


def frames_kept(container: Container) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{container.port}/captures/1/", headers=JSON)
    with urllib.request.urlopen(request) as answer:
        return len(json.load(answer)["frames"])


def post(container: Container, path: str, **fields: str) -> bytes:
    body = urllib.parse.urlencode(fields).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{container.port}/{path}", body) as answer:
        return bytes(answer.read())


def test_a_capture_goes_on_whatever_is_killed_and_nobody_is_left_behind(container: Container) -> None:
    before = container.snapshot()
    container.is_read_only = True
    with ScriptedCamera(Scene(160, 120, (80.0, 120.0), fps=10)) as camera:
        container.start()
        container.wait_until_healthy()
        assert b"process_name=demo" in post(container, "start", rtsp_url=camera.url, interval="0.2")
        wait_until(lambda: camera.clients == 1, "the capture runs")
        kill_the_website(container)
        assert (camera.connections, camera.clients) == (1, 1)
        kill_the_supervisor(container, camera)
        wait_until(lambda: frames_kept(container) == 9, "nine frames")
        wait_until(lambda: len(list(container.data.glob("media/frames/1/*"))) == 9, "nine frames in the volume")
        page = post(container, "stop", process_name="demo")
    assert b"The 9 brightest of" in page
    assert b'src="data:image/jpeg;base64,' in page
    assert len(list((container.data / "media" / "grids").iterdir())) == 1
    assert container.end(signal.SIGTERM) == 0, container.log
    assert "still there" not in container.log
    assert container.processes() == {}
    assert container.snapshot() == before, "the checkout was written to"
    assert [str(path) for path in container.data.rglob("*") if path.stat().st_mode & 0o077] == [], (
        "others can read it"
    )
    left = {path.name.partition("-")[0] for path in container.temporary.iterdir()}
    assert left <= {"pymp"}, "beside the folder of the sockets of the one that was killed"


def kill_the_website(container: Container) -> None:
    """It is started again."""
    os.kill(container.process_id("gunicorn"), signal.SIGKILL)
    wait_until(lambda: "the website was killed, status 137" in container.log, "it is seen")
    container.wait_until_healthy()


def kill_the_supervisor(container: Container, camera: ScriptedCamera) -> None:
    """It is started again, and its capture goes on; the website does not notice."""
    website = container.process_id("gunicorn")
    others = ("gunicorn", "serve.sh")
    its = {pid for pid, line in container.processes().items() if not any(other in line for other in others)}
    assert len(its) >= 4, "supervisor, fork server, recorder, job cluster"
    assert container.runs("forkserver")
    killed_s = time.monotonic()
    os.kill(container.process_id("manage.py supervise"), signal.SIGKILL)
    wait_until(lambda: not its & set(container.processes()), "nothing of it is left")
    gone_s = time.monotonic() - killed_s
    wait_until(lambda: camera.connections == 2 and camera.clients == 1, "the capture goes on")
    print(f"nothing left after {gone_s:.1f} s, the capture went on after {time.monotonic() - killed_s:.1f} s")
    assert container.process_id("gunicorn") == website
    assert "the supervisor was killed, status 137: starting it again in 0 s." in container.log


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


def test_a_website_that_cannot_start_takes_the_supervisor_down(stand_in: Container) -> None:
    """Its port is taken while the database is prepared; one that is taken before that is told at once."""
    go = stand_in.data / "go"
    (stand_in.app / "manage.py").write_text(SLOW_TO_PREPARE.format(go=str(go)))
    stand_in.start()
    wait_until(lambda: "preparing" in stand_in.log, "prepare runs")
    with socket.create_server(("127.0.0.1", stand_in.port)):
        go.touch()
        assert stand_in.end() not in (0, None)
    assert "ready" in stand_in.log
    assert "the website ended by itself" in stand_in.log
    assert "still there" not in stand_in.log
    assert stand_in.processes() == {}


@pytest.mark.parametrize("name", ["DATA_DIR", "MEDIA_ROOT"])
def test_a_folder_that_cannot_be_written_is_told_in_one_sentence(container: Container, name: str) -> None:
    folder = container.root / "mounted"
    folder.mkdir(mode=0o555)
    container.settings[name] = str(folder / "inside")
    container.start()
    assert container.end() == 1
    (line,) = container.log.splitlines()
    assert f"{name} {folder / 'inside'} is not writable for uid {UID}" in line
    assert f"chown {UID}" in line


def test_a_folder_without_the_checkout_is_told_in_one_sentence(container: Container) -> None:
    container.settings["APP_DIR"] = str(container.data)
    container.start()
    assert container.end() == 1
    (line,) = container.log.splitlines()
    assert f"cannot read {container.data}/manage.py" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_before_it_is_up_is_a_wanted_stop_too(stand_in: Container, number: signal.Signals) -> None:
    (stand_in.app / "manage.py").write_text(f"import time\n{READY}time.sleep(60)\n")
    stand_in.start()
    wait_until(lambda: "ready" in stand_in.log, "prepare runs")
    assert stand_in.end(number) == 0, stand_in.log
    assert stand_in.processes() == {}


def test_serve_substitutes_no_command_while_it_can_be_stopped() -> None:
    """bash 5.2 loses a signal that comes as a `$( )` ends, too seldom for a test that sends one."""
    _, until_stopped = (ROOT / "scripts" / "serve.sh").read_text().split("\ntrap ", 1)
    functions = until_stopped.split('\nif [ -n "$stopping" ]; then', 1)[0]
    assert "wait -n" in functions
    assert re.findall(r"\$\((?!\()|`", re.sub(r"(?m)#.*$", "", functions)) == []


def test_a_failed_preparation_ends_it(stand_in: Container) -> None:
    (stand_in.app / "manage.py").write_text("raise SystemExit('no database')\n")
    stand_in.start()
    assert stand_in.end() == 1
    assert "no database" in stand_in.log
    assert "could not prepare" in stand_in.log


def test_a_supervisor_that_ends_without_a_wish_is_a_failure_even_with_status_0(stand_in: Container) -> None:
    supervise_with(stand_in, f"{READY}time.sleep(2)\n")
    stand_in.start()
    assert stand_in.end() == 1
    assert stand_in.processes() == {}


def test_what_a_killed_supervisor_left_in_another_session_is_ended_before_the_next_one(stand_in: Container) -> None:
    """It ignores all that can be ignored."""
    stand_in.settings["SERVE_STOP_WITHIN_S"] = "0"
    script = "trap : TERM HUP; while :; do sleep 300; done"
    orphan = f"subprocess.Popen(['bash', '-c', '{script}'], start_new_session=True)\n"
    supervise_with(stand_in, f"{orphan}{READY}time.sleep(300)\n")
    start_stand_in(stand_in)
    wait_until(lambda: stand_in.runs("sleep 300"), "the orphan-to-be runs")
    before = {pid for pid, line in stand_in.processes().items() if "sleep 300" in line}
    os.kill(stand_in.process_id("manage.py supervise"), signal.SIGKILL)
    wait_until(lambda: stand_in.log.count("ready") == 2, "the next supervisor")
    assert not before & set(stand_in.processes())
    stand_in.end(signal.SIGTERM)
    assert stand_in.processes() == {}


def test_one_that_is_killed_again_and_again_is_started_after_longer_and_longer_pauses(stand_in: Container) -> None:
    supervise_with(stand_in, f"{READY}import os\nos.kill(os.getpid(), signal.SIGKILL)\n")
    stand_in.start()
    wait_until(lambda: "again in 2 s" in stand_in.log, "a pause that grew")
    pauses = re.findall(r"supervisor was killed, status 137: starting it again in (\d+) s", stand_in.log)
    assert pauses == ["0", "1", "2"]
    stand_in.wait_until_healthy()
    assert stand_in.end(signal.SIGTERM) == 0, "a stop ends a pause too"
    assert stand_in.processes() == {}


def test_any_other_word_is_a_command_of_manage_py(container: Container) -> None:
    container.settings["PYTHON"] = sys.executable  # which may stand where the shell does not look
    container.role = ("migrate", "--plan")
    container.start()
    assert container.end() == 0, container.log
    assert "streams.0001_initial" in container.log
    assert "serve:" not in container.log, "nothing else is done"
    container.role = ("no-such-command",)
    container.start()
    assert container.end() == 1
    assert "Unknown command: 'no-such-command'" in container.log


def test_a_supervisor_that_does_not_leave_is_killed(stand_in: Container) -> None:
    stand_in.settings["SERVE_STOP_WITHIN_S"] = "2"
    supervise_with(stand_in, f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{READY}time.sleep(300)\n")
    start_stand_in(stand_in)
    assert stand_in.end(signal.SIGTERM) == 1
    assert "still there 2 s after the stop" in stand_in.log
    assert stand_in.processes() == {}


def test_the_two_end_when_serve_itself_is_killed(stand_in: Container) -> None:
    supervise_with(stand_in, f"{READY}time.sleep(300)\n")
    start_stand_in(stand_in)
    stand_in.end(signal.SIGKILL)
    wait_until(lambda: not stand_in.processes(), "all gone", 20)


def test_the_image_is_built_by_scripts_alone() -> None:
    (step,) = arguments("RUN")
    command, *files = step.removeprefix("PIP_NO_CACHE_DIR=1 bash ").split()
    assert command == "/opt/exercise/image-install.sh"
    assert files == ["/opt/exercise/requirements.txt", "/opt/exercise/requirements-s3.txt"]
    for line in arguments("COPY"):
        *sources, target = line.split()
        assert all((ROOT / source).exists() for source in sources)
        assert target in ("/opt/exercise/", "/app")


def test_the_image_runs_as_nobody_and_keeps_data_in_one_volume() -> None:
    assert arguments("USER") == ["10001:10001"]
    assert arguments("VOLUME") == ["/data"]
    environment = image_environment()
    assert environment["DATA_DIR"] == "/data"
    assert environment["MEDIA_ROOT"].startswith("/data/")
    assert environment["HOST"] == "0.0.0.0"
    assert arguments("EXPOSE") == [environment["PORT"]]


def test_a_checkout_mounted_over_app_hides_nothing_that_the_image_needs() -> None:
    assert [line for line in arguments("COPY") if line.endswith(" /app")] == [". /app"]
    assert "/app" not in (ROOT / "scripts/image-install.sh").read_text().replace("outside /app", "")
    (entry,) = arguments("ENTRYPOINT")
    (health,) = arguments("HEALTHCHECK")
    assert entry == '["bash", "/opt/exercise/serve.sh"]'
    assert health.endswith('CMD ["python3", "/opt/exercise/healthcheck"]')


def test_the_scripts_and_the_volume_are_meant_for_the_same_user() -> None:
    installed = (ROOT / "scripts/image-install.sh").read_text()
    assert set(re.findall(r"--(?:uid|owner|group) (\d+)", installed)) == {"10001"}
