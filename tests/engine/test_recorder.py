"""Real recorder processes: what they know, what they say, and how they end."""

import json
import multiprocessing.forkserver
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from streams.engine import recorder as recorder_module
from streams.engine.address import parse
from streams.engine.recorder import RecorderProcess
from streams.engine.report import Report, Seed, State
from streams.engine.sheet import decode_jpeg
from streams.engine.wire import Changed, Message
from tests.camera.clip import Scene
from tests.camera.mark import read_mark
from tests.camera.server import ScriptedCamera
from tests.camera.viewer import wait_until

from . import holding_recorder
from .builders import settings

ROOT = Path(__file__).resolve().parents[2]
SCENE = Scene(320, 240, (40, 200, 90, 120), fps=25, gop_s=0.4)
PASSWORD = "s3cr3t-w0rd"
LIMIT_S = 30.0


class Supervisor:
    """One recorder's other end: keeps all that was said."""

    def __init__(self, process: RecorderProcess) -> None:
        self.process = process
        self.heard: list[Message] = []

    def hear(self) -> None:
        if self.process.is_alive:
            select.select([self.process], [], [], 0.05)
            self.heard += self.process.receive()

    @property
    def reports(self) -> list[Report]:
        return [message for message in self.heard if isinstance(message, Report)]

    def ask(self, saved: frozenset[int] = frozenset()) -> Report:
        """Pull, and the answer."""
        before = len(self.reports)
        self.process.pull(saved)
        self.until(lambda: len(self.reports) > before or not self.process.is_alive)
        assert len(self.reports) > before, "the recorder ended"
        return self.reports[-1]

    def ask_until(self, holds: Callable[[Report], bool]) -> Report:
        wait_until(lambda: holds(self.ask()), LIMIT_S)
        return self.reports[-1]

    def leave(self, saved: frozenset[int] = frozenset()) -> Report:
        self.process.leave(saved)
        self.until(lambda: not self.process.is_alive)
        assert self.reports[-1].is_final
        return self.reports[-1]

    def until(self, holds: Callable[[], bool]) -> None:
        def hear_and_look() -> bool:
            self.hear()
            return holds()

        wait_until(hear_and_look, LIMIT_S)


@contextmanager
def recorder(
    camera: ScriptedCamera, seed: Seed | None = None, *, interval_s: float = 0.2, count: int = 9
) -> Iterator[Supervisor]:
    address = parse(camera.url_with_credentials)
    process = RecorderProcess(settings(address, interval_s=interval_s, count=count), seed or Seed())
    try:
        yield Supervisor(process)
    finally:
        process.end()


@pytest.fixture
def camera() -> Iterator[ScriptedCamera]:
    with ScriptedCamera(SCENE, username="user", password=PASSWORD) as camera:
        yield camera


def is_gone(pid: int) -> bool:
    """A zombie that nobody has reaped yet runs no more."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def plays(camera: ScriptedCamera) -> int:
    """Connections that came as far as to be played to."""
    return sum(request.method == "PLAY" for request in camera.requests)


# --- what it says ---


def test_it_hands_over_frames_with_their_scores(camera: ScriptedCamera) -> None:
    with recorder(camera) as supervisor:
        report = supervisor.ask_until(lambda report: len(report.fresh) >= 8)
    assert report.status.state is State.CAPTURING
    assert not report.is_final
    assert [(one.number, one.score) for one in report.fresh] == list(report.board)
    assert [one.score for one in report.fresh] == sorted((one.score for one in report.fresh), reverse=True)
    for one in report.fresh:
        assert SCENE.plan[read_mark(decode_jpeg(one.jpeg))] == pytest.approx(one.score, abs=1)


def test_it_says_unasked_that_it_captures(camera: ScriptedCamera) -> None:
    with recorder(camera) as supervisor:
        supervisor.until(lambda: bool(supervisor.heard))
        assert supervisor.heard == [Changed()]


def test_a_change_is_said_once_until_the_next_pull(camera: ScriptedCamera) -> None:
    with recorder(camera) as supervisor:
        supervisor.until(lambda: bool(supervisor.heard))
        for _ in range(2):
            before = plays(camera)
            camera.hang_up()
            wait_until(partial(lambda played: plays(camera) > played, before), LIMIT_S)
        supervisor.ask_until(lambda report: report.counters.connections >= 2)
    assert supervisor.heard[:2] == [Changed(), supervisor.reports[0]]


def test_it_forgets_the_pictures_that_are_saved_and_keeps_their_places(camera: ScriptedCamera) -> None:
    with recorder(camera, count=3) as supervisor:
        full = supervisor.ask_until(lambda report: len(report.fresh) == 3)
        saved = frozenset(one.number for one in full.fresh)
        after = supervisor.ask(saved)
    assert not saved & {one.number for one in after.fresh}
    assert {number for number, _ in after.board} == {one.number for one in after.fresh} | (
        saved & {number for number, _ in after.board}
    )
    assert len(after.board) == 3


def test_it_begins_with_what_its_forerunner_saved(camera: ScriptedCamera) -> None:
    seed = Seed(samples=40, board=((7, 254.0), (12, 0.5)))
    with recorder(camera, seed, count=3) as supervisor:
        report = supervisor.ask_until(lambda report: report.counters.samples >= 3)
    assert report.board[0] == (7, 254.0)
    assert (12, 0.5) not in report.board
    assert min(one.number for one in report.fresh) > 40


def test_it_says_why_it_does_not_capture() -> None:
    with ScriptedCamera(SCENE, fault="not_found") as camera, recorder(camera) as supervisor:
        status = supervisor.ask_until(lambda report: report.status.state is State.RECONNECTING).status
    assert (status.error_code, status.attempt) == ("not_found", status.attempt)
    assert status.next_attempt_at is not None


def test_what_can_never_work_ends_it_with_a_last_report() -> None:
    process = RecorderProcess(settings(parse("rtsp://169.254.169.254/x")), Seed())
    try:
        supervisor = Supervisor(process)
        supervisor.until(lambda: not process.is_alive)
    finally:
        process.end()
    [final] = supervisor.reports
    assert (final.is_final, final.status.state, final.status.error_code) == (True, State.FAILED, "address_refused")


def test_a_fault_of_its_own_ends_it_with_a_last_report(camera: ScriptedCamera) -> None:
    """Nothing divides by an interval of zero."""
    with recorder(camera, interval_s=0.0) as supervisor:
        supervisor.until(lambda: not supervisor.process.is_alive)
    final = supervisor.reports[-1]
    assert (final.is_final, final.status.error_code) == (True, "recorder_died")
    assert PASSWORD not in repr(supervisor.heard)


# --- how it ends ---


def test_told_to_leave_it_says_farewell_to_its_camera(camera: ScriptedCamera) -> None:
    with recorder(camera) as supervisor:
        supervisor.ask_until(lambda report: len(report.fresh) > 1)
        final = supervisor.leave()
        assert len(final.fresh) > 1
        wait_until(lambda: (camera.teardowns, camera.clients) == (1, 0), LIMIT_S)
        wait_until(lambda: is_gone(supervisor.process.pid), LIMIT_S)


def test_its_last_report_leaves_out_what_is_saved(camera: ScriptedCamera) -> None:
    with recorder(camera, count=1, seed=Seed(1, ((1, 254.9),))) as supervisor:
        supervisor.ask_until(lambda report: report.counters.samples > 1)
        assert supervisor.leave().fresh == ()
    with recorder(camera, count=9) as supervisor:
        saved = frozenset(one.number for one in supervisor.ask_until(lambda report: len(report.fresh) > 2).fresh)
        assert not saved & {one.number for one in supervisor.leave(saved).fresh}


def test_it_leaves_at_once_while_it_waits_to_reconnect() -> None:
    """The wait is of a minute and more: the limit here is half of that."""
    with ScriptedCamera(SCENE, fault="auth_refused") as camera, recorder(camera) as supervisor:
        waiting = supervisor.ask_until(lambda report: report.status.state is State.RECONNECTING)
        assert waiting.status.error_code == "auth_refused"
        assert supervisor.leave().status.error_code == "auth_refused"


@pytest.mark.parametrize("fault", ["silent", "stall_after:0.5"])
def test_it_leaves_while_its_camera_hangs(fault: str) -> None:
    with ScriptedCamera(SCENE, fault=fault) as camera, recorder(camera) as supervisor:
        wait_until(lambda: camera.clients == 1, LIMIT_S)
        supervisor.leave()
        wait_until(lambda: is_gone(supervisor.process.pid) and camera.clients == 0, LIMIT_S)


def test_killed_it_is_seen_as_dead(camera: ScriptedCamera) -> None:
    with recorder(camera) as supervisor:
        supervisor.ask()
        assert supervisor.process.is_alive
        os.kill(supervisor.process.pid, signal.SIGKILL)
        supervisor.until(lambda: not supervisor.process.is_alive)


def test_terminated_it_says_farewell_and_reports_for_the_last_time(camera: ScriptedCamera) -> None:
    """FIELD 13: whoever stops a whole group of processes stops the recorders too."""
    with recorder(camera) as supervisor:
        supervisor.ask_until(lambda report: bool(report.fresh))
        os.kill(supervisor.process.pid, signal.SIGTERM)
        supervisor.until(lambda: not supervisor.process.is_alive)
        assert supervisor.reports[-1].is_final
        wait_until(lambda: camera.teardowns == 1, LIMIT_S)


def test_an_interrupt_from_the_keyboard_is_the_supervisors_business(camera: ScriptedCamera) -> None:
    with recorder(camera) as supervisor:
        supervisor.ask_until(lambda report: bool(report.fresh))
        os.kill(supervisor.process.pid, signal.SIGINT)
        samples = supervisor.ask().counters.samples
        supervisor.ask_until(lambda report: report.counters.samples > samples)
    assert camera.connections == 1


KILLED_SUPERVISOR = """
import sys, time
from streams.engine.address import parse
from streams.engine.recorder import RecorderProcess
from streams.engine.report import Seed, Settings
recorder = RecorderProcess(Settings(parse(sys.stdin.readline().strip()), 0.2, 9), Seed())
print(recorder.pid, flush=True)
sys.stdin.read()
"""


def test_without_its_supervisor_it_leaves_and_says_farewell(camera: ScriptedCamera) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", KILLED_SUPERVISOR], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with supervisor:
        assert supervisor.stdin
        assert supervisor.stdout
        print(camera.url_with_credentials, file=supervisor.stdin, flush=True)
        pid = int(supervisor.stdout.readline())
        wait_until(lambda: plays(camera) == 1, LIMIT_S)
        supervisor.kill()
        wait_until(lambda: (camera.teardowns, camera.clients) == (1, 0), LIMIT_S)
        wait_until(lambda: is_gone(pid), LIMIT_S)


def test_one_that_was_stopped_when_its_supervisor_died_leaves_once_it_may_go_on(camera: ScriptedCamera) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", KILLED_SUPERVISOR], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with supervisor:
        assert supervisor.stdin
        assert supervisor.stdout
        print(camera.url_with_credentials, file=supervisor.stdin, flush=True)
        pid = int(supervisor.stdout.readline())
        wait_until(lambda: plays(camera) == 1, LIMIT_S)
        with stopped(pid):
            supervisor.kill()
            supervisor.wait(LIMIT_S)
            assert not is_gone(pid)
        wait_until(lambda: is_gone(pid) and camera.clients == 0, LIMIT_S)
    assert camera.connections == 1


def test_end_leaves_neither_process_nor_connection_nor_descriptor(camera: ScriptedCamera) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def once() -> int:
        with recorder(camera) as supervisor:
            wait_until(lambda: camera.clients == 1, LIMIT_S)
            pid = supervisor.process.pid
        wait_until(lambda: camera.clients == 0 and is_gone(pid), LIMIT_S)
        return descriptors()

    first = once()
    assert [once() for _ in range(4)][-1] <= first


# --- a recorder that hangs ---


def within_the_limit(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    assert not thread.is_alive(), "it blocks"


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_recorder_that_hangs_does_not_block_its_supervisor(camera: ScriptedCamera) -> None:
    with recorder(camera) as supervisor:
        supervisor.ask()
        process = supervisor.process
        with stopped(process.pid):
            heard: list[Message] = []

            def ask_and_listen() -> None:
                process.receive()
                process.pull(frozenset())
                heard.extend(message for _ in range(3) for message in process.receive())

            within_the_limit(ask_and_listen)
            assert not [message for message in heard if isinstance(message, Report)]
            assert process.is_alive
            assert process.asked_s is not None
        supervisor.until(lambda: process.asked_s is None)


def test_nor_does_one_that_is_asked_too_often(camera: ScriptedCamera) -> None:
    """And it finds no half of a question among the many when it wakes up."""
    with recorder(camera) as supervisor:
        supervisor.ask()
        process = supervisor.process
        with stopped(process.pid):

            def ask_and_ask() -> None:
                for _ in range(3000):
                    process.pull(frozenset(range(9)))

            within_the_limit(ask_and_ask)
        supervisor.until(lambda: process.asked_s is None)
        supervisor.ask_until(lambda report: report.status.state is State.CAPTURING)


def test_a_recorder_that_hangs_is_ended_all_the_same(camera: ScriptedCamera) -> None:
    with recorder(camera) as supervisor:
        supervisor.ask()
        pid = supervisor.process.pid
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: is_gone(pid) and camera.clients == 0, LIMIT_S)


def test_a_supervisor_that_hangs_does_not_stop_the_capture() -> None:
    """A report larger than the socket's buffer is on its way, and nobody reads, when the camera hangs up."""
    grainy = replace(SCENE, width=640, height=480, noise=12)
    with ScriptedCamera(grainy) as camera, recorder(camera) as supervisor:
        report = supervisor.ask_until(lambda report: len(report.fresh) == 9)
        assert sum(len(one.jpeg) for one in report.fresh) > 500_000
        supervisor.process.pull(frozenset())
        wait_until(lambda: bool(select.select([supervisor.process], [], [], 0)[0]), LIMIT_S)
        camera.hang_up()
        wait_until(lambda: plays(camera) >= 2, LIMIT_S / 2)


def test_nor_does_one_that_hangs_for_longer_than_a_recorder_that_hangs_itself_may_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A database that is away for a minute keeps a supervisor from reading: its recorders keep what they have."""
    monkeypatch.setattr(recorder_module, "record", holding_recorder.record_soon_dead)
    grainy = replace(SCENE, width=640, height=480, noise=12)
    with ScriptedCamera(grainy) as camera, recorder(camera) as supervisor:
        supervisor.ask_until(lambda report: sum(len(one.jpeg) for one in report.fresh) > 500_000)
        supervisor.process.pull(frozenset())
        wait_until(lambda: bool(select.select([supervisor.process], [], [], 0)[0]), LIMIT_S)
        end_s = time.monotonic() + 3 * holding_recorder.DEAD_S
        wait_until(lambda: is_gone(supervisor.process.pid) or time.monotonic() > end_s, LIMIT_S)
        before = len(supervisor.reports)
        supervisor.until(lambda: len(supervisor.reports) > before or not supervisor.process.is_alive)
        assert supervisor.ask().counters.samples > 9
        assert len(supervisor.leave().board) == 9


def test_one_that_holds_the_interpreter_for_ever_is_ended_by_the_kernel(
    camera: ScriptedCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answering thread cannot run: nobody in it sees that the supervisor is gone."""
    monkeypatch.setattr(recorder_module, "record", holding_recorder.record)
    with recorder(camera) as supervisor:
        pid = supervisor.process.pid
        wait_until(lambda: is_gone(pid), LIMIT_S)
        supervisor.until(lambda: not supervisor.process.is_alive)
        assert supervisor.reports == []


# --- when the fork server is gone ---


def kill_the_fork_server() -> int:
    pid = multiprocessing.forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pid), LIMIT_S)
    return int(pid)


def test_recorders_outlive_their_fork_server_and_others_can_be_started(camera: ScriptedCamera) -> None:
    with recorder(camera) as old:
        samples = old.ask_until(lambda report: bool(report.fresh)).counters.samples
        gone = kill_the_fork_server()
        old.ask_until(lambda report: report.counters.samples > samples + 3)
        with recorder(camera) as new:
            new.ask_until(lambda report: bool(report.fresh))
            assert multiprocessing.forkserver._forkserver._forkserver_pid != gone  # type: ignore[attr-defined]
        assert old.leave().is_final
        wait_until(lambda: is_gone(old.process.pid), LIMIT_S)


@pytest.mark.parametrize("is_stopped", [False, True], ids=["running", "stopped"])
def test_a_recorder_whose_fork_server_is_gone_is_ended_all_the_same(
    camera: ScriptedCamera, is_stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not by its number, which nobody keeps for it any more: another process may have it."""
    numbers: list[int] = []
    with recorder(camera) as supervisor:
        supervisor.ask_until(lambda report: bool(report.fresh))
        pid = supervisor.process.pid
        kill_the_fork_server()
        if is_stopped:
            os.kill(pid, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(os, "kill", lambda number, _: numbers.append(number))
            within_the_limit(supervisor.process.end)
        wait_until(lambda: is_gone(pid) and camera.clients == 0, LIMIT_S)
        monkeypatch.setattr(supervisor.process, "end", lambda: None)  # once is enough
    assert numbers == []


# --- what it knows ---

LOOK = """
import json, os, socket
import django, sqlite3
os.environ["SECRET_KEY"] = os.environ["DATABASE_URL_COPY"] = "nobody shall know"
from streams.engine import recorder
from streams.engine.address import parse
from streams.engine.report import Seed, Settings
from tests.engine import spy
process = recorder.RecorderProcess(Settings(parse("rtsp://user:s3cr3t-w0rd@127.0.0.1:9/x"), 1.0, 9), Seed())
near, far = socket.socketpair()
with far, recorder._bare_environment():
    looking = recorder._CONTEXT.Process(target=spy.look, args=(far,))
    looking.start()
text = b"".join(iter(lambda: near.recv(65536), b"")).decode()
looking.join()
seen = dict(zip(("modules", "variables"), (part.split("\\n") for part in text.split("\\n\\n"))))
parents = [process.pid, int(open(f"/proc/{process.pid}/stat").read().rpartition(")")[2].split()[1])]
seen["environ"] = "".join(open(f"/proc/{pid}/environ").read() for pid in parents)
seen["cmdline"] = "".join(open(f"/proc/{pid}/cmdline").read() for pid in parents)
seen["maps"] = open(f"/proc/{process.pid}/maps").read()
seen["own"] = os.environ.get("SECRET_KEY", "")
process.end()
print("SEEN" + json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, list[str] | str]:
    """What is found in a recorder that Django's own command line has started, with manage.py as its main module."""
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", LOOK],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert "SEEN" in done.stdout, done.stderr
    found: dict[str, list[str] | str] = json.loads(done.stdout.partition("SEEN")[2])
    return found


def test_it_knows_no_django(seen: dict[str, list[str] | str]) -> None:
    strangers = {"django", "django_q", "environs", "sqlite3", "psycopg", "rtspsite", "cryptography", "pytest"}
    assert "streams.engine.recorder" in seen["modules"]
    assert not [name for name in seen["modules"] if name.partition(".")[0] in strangers]
    assert not [name for name in ("sqlite3", "psycopg", "cryptography") if name in seen["maps"]]
    assert "libavformat" in seen["maps"]


def test_it_holds_no_key(seen: dict[str, list[str] | str]) -> None:
    allowed = {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "HOME", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    allowed |= {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"}
    of_cv2 = {"LD_LIBRARY_PATH"}  # its import sets it
    assert {*seen["variables"]} - of_cv2 <= allowed
    assert "nobody shall know" not in seen["environ"]
    assert "PYTHONPATH" in seen["environ"]


def test_its_password_is_in_no_list_of_processes(seen: dict[str, list[str] | str]) -> None:
    assert "s3cr3t-w0rd" not in f"{seen['environ']} {seen['cmdline']}"
    assert "forkserver" in seen["cmdline"]


def test_the_supervisor_keeps_its_own_environment(seen: dict[str, list[str] | str]) -> None:
    assert seen["own"] == "nobody shall know"
