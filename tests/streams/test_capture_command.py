"""`manage.py capture`: one camera to one picture, with no service."""

import io
import itertools
import json
import math
import os
import pty
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

import cv2
import numpy as np
import psutil
import pytest
import trustme
from django.core.management import CommandError, call_command

from streams import given_address, whole_file
from streams.engine import solo
from streams.engine.address import parse
from streams.engine.clock import Stop
from streams.engine.deadlines import FIRST_PICTURE_S, OPENING_S
from streams.engine.report import Counters, Picture, Settings, State, Status
from streams.engine.sheet import encode_jpeg
from streams.engine.solo import Solo
from streams.exits import Exit
from streams.management.commands import capture as command
from streams.progress import Silence
from tests.camera.clip import Scene, encode
from tests.camera.server import ScriptedCamera
from tests.camera.tls import TLSFront
from tests.engine import hostile
from tests.streams.processes import ROOT
from tests.streams.waiting import until

# Seconds of different brightness; the film begins anew after them.
SCENE = Scene(160, 120, plan=(40.0, 200.0, 90.0, 150.0, 60.0, 180.0), fps=10)
SECRET = "s3cr3t-w0rd"
LIMIT_S = 60


@pytest.fixture(scope="module")
def camera() -> Iterator[ScriptedCamera]:
    with ScriptedCamera(SCENE, username="admin", password=SECRET) as camera:
        yield camera


@contextmanager
def capturing(
    *arguments: str, stdout: int | IO[str] = subprocess.PIPE, stderr: int = subprocess.PIPE, **variables: str
) -> Iterator["subprocess.Popen[str]"]:
    """The command in a process of its own, whose environment no service could start with."""
    env = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "DATABASE_URL": "nonsense", **variables}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "capture", *arguments],
        env=env, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait(LIMIT_S)


def refusal(*arguments: str) -> tuple[int, str]:
    """Exit code and sentence of a command that must not begin."""
    with pytest.raises(CommandError) as caught:
        call_command("capture", *arguments)
    return caught.value.returncode, str(caught.value)


# --- a capture ------------------------------------------------------------------------------------


def test_the_brightest_samples_become_a_grid_and_one_json_object(camera: ScriptedCamera, tmp_path: Path) -> None:
    grid, frames, data = tmp_path / "grid.jpg", tmp_path / "new" / "frames", tmp_path / "data"
    grid.write_text("an old one")
    arguments = ["--interval", "1", "--duration", "4.2", "--count", "3", "--output", str(grid)]
    with capturing(
        "rtsp://admin@" + camera.url.removeprefix("rtsp://"), *arguments, "--frames-dir", str(frames), "--json",
        CAMERA_PASSWORD=SECRET, DATA_DIR=str(data), MEDIA_ROOT=str(data),
    ) as process:  # fmt: skip
        said, lines = process.communicate(timeout=LIMIT_S)
    assert process.returncode == Exit.DONE, lines
    result = json.loads(said)
    assert (result["code"], result["error"], result["ended_by"]) == ("complete", None, "duration")
    assert (result["url"], result["interval"], result["count"], result["transport"]) == (camera.url, 1.0, 3, "tcp")
    assert result["samples"] >= 4
    assert result["connections"] == 1
    scores = [frame["score"] for frame in result["frames"]]
    assert scores == pytest.approx([200, 150, 90], abs=1.5), "not the brightest of the film's first seconds"
    assert [frame["rank"] for frame in result["frames"]] == [1, 2, 3]
    assert [Path(frame["path"]).name for frame in result["frames"]] == [f"frame-0{n}.jpg" for n in (1, 2, 3)]
    for frame in result["frames"]:
        picture = cv2.imread(frame["path"])
        assert picture is not None
        assert picture.shape == (120, 160, 3)
        assert abs(cv2.mean(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY))[0] - frame["score"]) < 2
    assert cv2.imread(result["output"]) is not None
    assert result["output"] == str(grid)
    assert lines.splitlines() == ["connecting", "capturing codec=h264 size=160x120"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.jpg", "media", "new"], (
        "something else was written"
    )


def test_a_certificate_is_verified_unless_told_not_to(camera: ScriptedCamera, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    apart = ("--username", "admin", "--json", "--duration", "0.5", "--count", "1")
    with TLSFront(camera.port, context) as front:
        url = f"rtsps://127.0.0.1:{front.port}/demo"
        with capturing(url, *apart, "--output", str(tmp_path / "1.jpg"), CAMERA_PASSWORD=SECRET) as process:
            refused = json.loads(process.communicate(timeout=LIMIT_S)[0])
        trusting = (*apart, "--no-verify-certificate", "--output", str(tmp_path / "2.jpg"))
        with capturing(url, *trusting, CAMERA_PASSWORD=SECRET) as process:
            shown = psutil.Process(process.pid)
            until(lambda: "***" in shown.cmdline())
            assert "admin" not in shown.cmdline()
            captured = json.loads(process.communicate(timeout=LIMIT_S)[0])
    assert (refused["code"], refused["error"]["code"]) == ("no_frame", "certificate_refused")
    assert (captured["code"], captured["error"]) == ("complete", None)


def test_authorities_that_are_replaced_while_it_runs_are_those_of_the_next_connection(tmp_path: Path) -> None:
    """By rename, which closes the new file to the recorder that runs: another one takes its place, and forgets
    nothing. The second certificate is of another authority, which is in the new file alone."""
    authorities, contexts = (trustme.CA(), trustme.CA()), []
    for authority in authorities:
        contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        authority.issue_cert("127.0.0.1").configure_cert(contexts[-1])
    file, beside = tmp_path / "ca.pem", tmp_path / "new.pem"
    authorities[0].cert_pem.write_to_path(file)
    arguments = ["--interval", "0.2", "--json", "--count", "3", "--output", str(tmp_path / "grid.jpg")]
    with ScriptedCamera(SCENE) as camera, TLSFront(camera.port, contexts[0]) as front:
        url = f"rtsps://127.0.0.1:{front.port}/demo"
        with capturing(url, *arguments, SSL_CERT_FILE=str(file)) as process:
            until(lambda: len(camera.sent) > 5)
            front.context = contexts[1]
            authorities[1].cert_pem.write_to_path(beside)
            beside.rename(file)
            before = len(camera.sent)
            front.cut()
            until(lambda: len(camera.sent) > before + 5)
            process.send_signal(signal.SIGTERM)
            said, lines = process.communicate(timeout=LIMIT_S)
    result = json.loads(said)
    assert (result["code"], result["connections"]) == ("complete", 2), lines
    assert f"recorder replaced reason='{file} was replaced'" in lines
    assert "certificate_refused" not in lines


def test_pictures_that_were_all_rejected_are_named_as_the_reason(tmp_path: Path) -> None:
    """A packet is missing in each of them."""
    clip = encode(Scene(320, 240, (90, 120), fps=10, gop_s=0.2, noise=6.0))
    packets = len(framed_packets(hostile.sent(clip.units[:1], clip)))

    def feed() -> Iterator[bytes]:
        for number in itertools.count():
            sent = framed_packets(hostile.sent(clip.units[:1], clip, number * 9000, number * packets))
            yield b"".join(sent[:-2] + sent[-1:])
            time.sleep(0.02)

    with (
        hostile.camera(clip, feed) as camera,
        capturing(camera.url, "--json", "--duration", "1", "--output", str(tmp_path / "grid.jpg")) as process,
    ):
        result = json.loads(process.communicate(timeout=LIMIT_S)[0])
    assert (result["code"], result["samples"], result["error"]["code"]) == ("no_frame", 0, "undecodable")
    assert result["rejected"] > 10
    assert f"{result['rejected']} were rejected" in result["message"]


def framed_packets(data: bytes) -> list[bytes]:
    """RFC 2326 section 10.12: "$", the channel, the size."""
    packets = []
    while data:
        size = 4 + int.from_bytes(data[2:4])
        packets.append(data[:size])
        data = data[size:]
    return packets


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_early_with_what_there_is(
    camera: ScriptedCamera, tmp_path: Path, number: signal.Signals
) -> None:
    """Meanwhile the camera's password is in no list of processes, and the old picture stays."""
    grid = tmp_path / "grid.jpg"
    grid.write_text("an old one")
    arguments = ["--interval", "0.1", "--count", "100", "--output", str(grid), "--json"]
    with capturing(camera.url_with_credentials, *arguments) as process:
        assert process.stderr
        assert "connecting" in process.stderr.readline()
        assert "capturing" in process.stderr.readline()
        assert SECRET not in shown_by_the_system(process.pid)
        assert grid.read_text() == "an old one"
        process.send_signal(number)
        said, error = process.communicate(timeout=LIMIT_S)
    assert process.returncode == Exit.NOT_ENOUGH_FRAMES, error
    result = json.loads(said)
    assert (result["code"], result["ended_by"]) == ("not_enough_frames", "signal")
    assert 1 <= len(result["frames"]) < 100
    assert cv2.imread(str(grid)) is not None
    assert f"{len(result['frames'])} of 100" in error
    assert SECRET not in said + error


def shown_by_the_system(pid: int) -> str:
    """The arguments of the process and of all that it started. Others that begin just now have theirs still."""
    command = psutil.Process(pid)
    family = [command, *command.children(recursive=True)]
    assert len(family) >= 3  # the fork server and a recorder
    return "\n".join(Path(f"/proc/{one.pid}/cmdline").read_bytes().decode(errors="replace") for one in family)


def test_at_a_terminal_a_bar_tells_samples_and_the_best_score(camera: ScriptedCamera, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    told: list[bytes] = []

    def listen() -> None:
        with suppress(OSError):  # the other end is closed
            while data := os.read(ours, 65_536):
                told.append(data)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    arguments = ["--interval", "0.2", "--duration", "2", "--count", "2", "--output", str(tmp_path / "grid.jpg")]
    with capturing("-", *arguments, "--password-stdin", stderr=theirs) as process:
        os.close(theirs)
        typed = f"rtsp://admin@{camera.url.removeprefix('rtsp://')}\n{SECRET}\n"
        said, _ = process.communicate(typed, timeout=LIMIT_S)
    listener.join(LIMIT_S)
    os.close(ours)
    bar = b"".join(told).decode()
    assert process.returncode == Exit.DONE, bar
    assert "capturing: " in bar
    assert "samples, best " in bar
    assert "/2 s" in bar
    assert said.startswith(f"{tmp_path / 'grid.jpg'}: The 2 brightest of ")


def test_a_camera_that_is_not_there_costs_no_picture_and_tells_why(tmp_path: Path) -> None:
    grid = tmp_path / "grid.jpg"
    grid.write_text("an old one")
    arguments = ["--duration", "0.3", "--output", str(grid), "--json"]
    with ScriptedCamera(SCENE) as camera:
        url = camera.url
    with capturing(url, *arguments) as process:
        said, lines = process.communicate(timeout=LIMIT_S)
    assert process.returncode == Exit.NO_FRAME
    result = json.loads(said)
    assert (result["code"], result["error"]["code"], result["output"]) == ("no_frame", "unreachable", None)
    assert "reconnecting error=unreachable attempt=1" in lines
    assert lines.splitlines()[-1].startswith("CommandError: Not one frame was captured.")
    assert grid.read_text() == "an old one"


def test_a_camera_that_only_takes_its_time_is_waited_for(tmp_path: Path) -> None:
    """Longer than the capture shall last, farewell included."""
    arguments = ["--duration", "0.1", "--count", "1", "--output", str(tmp_path / "grid.jpg"), "--quiet"]
    with ScriptedCamera(SCENE, fault="slow_answers:1") as camera, capturing(camera.url, *arguments) as process:
        assert process.wait(LIMIT_S) == Exit.DONE


class Slow:
    """A capture without a sample, whose clock runs on with each look. `connects_s`: when a connection is made."""

    is_over = False

    def __init__(self, connects_s: float = math.inf, error_code: str = "") -> None:
        self.passed_s = 0.0
        self.connects_s = connects_s
        self.status = Status(error_code=error_code)

    @property
    def counters(self) -> Counters:
        return Counters(connections=int(self.passed_s >= self.connects_s))

    def monotonic(self) -> float:
        return self.passed_s

    def look(self, stop: Stop, within_s: float) -> None:
        self.passed_s += within_s

    def leave(self) -> None:
        pass


@pytest.mark.parametrize(
    ("slow", "ends_s"),
    [
        (Slow(), OPENING_S),
        (Slow(connects_s=20.0), 20.0 + FIRST_PICTURE_S),
        (Slow(connects_s=70.0), 70.0 + FIRST_PICTURE_S),
        (Slow(error_code="timeout"), 5.0),
    ],
    ids=["opening", "connected", "connected late", "failed"],
)
def test_without_a_sample_it_goes_on_for_as_long_as_each_step_may_take(
    slow: Slow, ends_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first failure ends that: after it only the duration counts."""
    monkeypatch.setattr(time, "monotonic", slow.monotonic)
    assert command._run(cast(Solo, slow), Stop(), Silence(), 5.0) == "duration"
    assert slow.passed_s == pytest.approx(ends_s, abs=solo.LOOK_S)


def test_a_camera_may_redirect_to_a_port_that_the_settings_name(tmp_path: Path) -> None:
    """The recorder's sandbox lets it connect there, too."""
    arguments = ["--duration", "0.1", "--count", "1", "--output", str(tmp_path / "grid.jpg"), "--quiet"]
    with ScriptedCamera(SCENE) as other, ScriptedCamera(SCENE, fault=f"redirect:{other.url}") as camera:
        ports = f"{camera.port + 1},{other.port}"
        with capturing(camera.url, *arguments, CAPTURE_REDIRECT_PORTS=ports) as process:
            assert process.wait(LIMIT_S) == Exit.DONE


def test_the_allowed_networks_hold_without_a_service(camera: ScriptedCamera, tmp_path: Path) -> None:
    """For an address at once, for a name once it is looked up; and a network that is none is told."""
    before, name = camera.connections, camera.url.replace("127.0.0.1", "localhost")
    arguments = ["--duration", "0.2", "--json", "--quiet", "--output", str(tmp_path / "grid.jpg")]
    (tmp_path / "networks").write_text("10.0.0.0/8,\nfd00::/8\n")
    with (
        capturing(camera.url, *arguments, CAPTURE_ALLOWED_NETWORKS="10.0.0.0/8") as literal,
        capturing(name, *arguments, CAPTURE_ALLOWED_NETWORKS_FILE=str(tmp_path / "networks")) as named,
        capturing(name, *arguments, CAPTURE_ALLOWED_NETWORKS="10.0.0.1/8") as wrong,
    ):
        said = json.loads(literal.communicate(timeout=LIMIT_S)[0])
        assert (literal.returncode, said["code"]) == (Exit.USAGE, "address_refused")
        said = json.loads(named.communicate(timeout=LIMIT_S)[0])
        assert (named.returncode, said["error"]["code"]) == (Exit.NO_FRAME, "address_refused")
        assert wrong.communicate(timeout=LIMIT_S)[1].strip().endswith("is 10.0.0.0/8 meant?")
    assert wrong.returncode != 0
    assert camera.connections == before


def test_what_cannot_work_is_told_before_the_camera_is_asked(camera: ScriptedCamera, tmp_path: Path) -> None:
    before = camera.connections
    url = camera.url
    (tmp_path / "a file").touch()
    codes = {
        refusal("http://camera.example/demo")[0]: "not RTSP",
        refusal("rtsp://169.254.169.254/demo")[0]: "never connected to",
    }
    assert codes.keys() == {Exit.USAGE}
    for wrong in ("--interval=0", "--interval=nan", "--count=101", "--count=1.5", "--duration=0"):
        assert "must be" in refusal(url, wrong)[1], wrong
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere" / "grid.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    places = {
        str(tmp_path / "nowhere" / "grid.jpg"): "No such file",
        str(tmp_path / "dangling.jpg"): "No such file",
        str(tmp_path / "loop.jpg"): "loop",
        str(tmp_path / ("x" * 300)): "File name too long",
        str(tmp_path): "is a folder",
        "/dev/null": "is no regular file",
    }
    for place, words in places.items():
        code, said = refusal(url, "--output", place)
        assert code == Exit.CANNOT_WRITE
        assert words in said
    code, said = refusal(url, "--output", str(tmp_path / "x.jpg"), "--frames-dir", str(tmp_path / "a file"))
    assert code == Exit.CANNOT_WRITE
    code, said = refusal(url, "--output", str(tmp_path / "x.jpg"), "--frames-dir", "/proc")
    assert (code, "Nothing can be written into /proc" in said) == (Exit.CANNOT_WRITE, True)
    assert camera.connections == before


def test_a_refusal_is_json_where_json_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError):
        call_command("capture", f"http://admin:{SECRET}@camera.example/", "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["code"] == "invalid_url"
    assert told["fields"]["rtsp_url"]["code"] == "invalid_url"
    assert SECRET not in str(told)


def test_the_second_signal_ends_it_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with command._told_to_end() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        until(stop.is_set)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_it_outlives_its_terminal_where_nohup_says_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with command._told_to_end() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_grid_is_written_though_nobody_listens_any_more(camera: ScriptedCamera, tmp_path: Path) -> None:
    """As with `2>&1 | head -1`."""
    grid = tmp_path / "grid.jpg"
    arguments = ["--password-stdin", "--interval", "0.1", "--duration", "1", "--count", "2", "--output", str(grid)]
    with capturing(f"rtsp://admin@{camera.url.removeprefix('rtsp://')}", *arguments) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stderr.close()
        process.stdin.write(f"{SECRET}\n")
        process.stdin.close()
        assert process.wait(LIMIT_S) == Exit.DONE
    assert cv2.imread(str(grid)) is not None


def test_what_is_told_is_not_lost_without_a_word(camera: ScriptedCamera, tmp_path: Path) -> None:
    """A full disk, say: whoever reads the file finds half of it."""
    arguments = ["--interval", "0.1", "--duration", "1", "--count", "2", "--output", str(tmp_path / "grid.jpg")]
    with open("/dev/full", "w") as full, capturing(camera.url_with_credentials, *arguments, stdout=full) as process:
        _, told = process.communicate(timeout=LIMIT_S)
    assert process.returncode == Exit.CANNOT_WRITE
    assert told.splitlines()[-1] == "CommandError: Standard output cannot be written: No space left on device."


def test_closed_descriptors_are_no_fault() -> None:
    """`<&-` and `2>&-`: what is opened first would get their numbers."""
    words = [sys.executable, str(ROOT / "manage.py"), "capture", "-", "--json"]
    closing = ["sh", "-c", 'exec "$@" <&- 2>&-', "sh", *words]
    done = subprocess.run(closing, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == Exit.USAGE
    assert json.loads(done.stdout)["message"] == "Standard input has no line for this: address."


def test_a_python_that_cannot_run_it_is_told_what_to_do(tmp_path: Path) -> None:
    """An old one fails at the first of our own imports, before Django's."""
    (tmp_path / "manage.py").write_bytes((ROOT / "manage.py").read_bytes())
    (tmp_path / "streams").mkdir()
    (tmp_path / "streams" / "given_address.py").write_text("from enum import WhatOldOnesLack")
    words = [sys.executable, str(tmp_path / "manage.py"), "check"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("run `make setup` and use .venv/bin/python")


def test_no_place_for_a_recorders_socket_is_told(tmp_path: Path) -> None:
    """The fork server listens below TMPDIR, and such a name has room for 107 bytes."""
    folder = tmp_path / ("x" * 108)
    folder.mkdir()
    arguments = ["--output", str(tmp_path / "grid.jpg"), "--json"]
    with capturing("rtsp://camera.example/demo", *arguments, TMPDIR=str(folder)) as process:
        said, told = process.communicate(timeout=LIMIT_S)
    assert process.returncode == Exit.FAILED
    assert json.loads(said)["code"] == "no_recorder"
    sentence = "No recorder can be started, with its socket below TMPDIR: AF_UNIX path too long."
    assert told == f"CommandError: {sentence} (no_recorder)\n"


# --- its recorder ---------------------------------------------------------------------------------


def test_another_recorder_knows_what_the_one_before_learned() -> None:
    """The transport: a third SETUP, not a fourth."""
    stop = Stop()
    with (
        ScriptedCamera(SCENE, fault="no_tcp") as camera,
        Solo(Settings(parse(camera.url), 0.1, 3)) as capture,
    ):
        until(lambda: capture.counters.samples >= 2, LIMIT_S, lambda: capture.look(stop))
        assert capture._process
        os.kill(capture._process.pid, signal.SIGKILL)
        before = capture.counters.samples
        until(lambda: capture.counters.samples >= before + 2, LIMIT_S, lambda: capture.look(stop))
        assert [request.method for request in camera.requests].count("SETUP") == 3
        capture.leave()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_another_recorder_goes_on_where_one_ends(
    camera: ScriptedCamera, monkeypatch: pytest.MonkeyPatch, end: signal.Signals
) -> None:
    monkeypatch.setattr(solo, "SILENT_S", 1.0)
    stop = Stop()
    with Solo(Settings(parse(camera.url_with_credentials), 0.1, 3)) as capture:
        until(lambda: capture.counters.samples >= 12, LIMIT_S, lambda: capture.look(stop))
        before, best = capture.counters.samples, capture.pictures[0]
        assert capture._process
        os.kill(capture._process.pid, end)
        codes = set()

        def look() -> None:
            capture.look(stop)
            codes.add(capture.status.error_code)

        until(lambda: capture.counters.samples > before + 3 and capture.counters.connections == 2, LIMIT_S, look)
        capture.leave()
        assert "recorder_died" in codes
        assert capture.pictures[0].score >= best.score
        assert [picture.score for picture in capture.pictures] == sorted(
            (picture.score for picture in capture.pictures), reverse=True
        )
        numbers = [picture.number for picture in capture.pictures]
        assert len(set(numbers)) == 3
        assert max(numbers) <= capture.counters.samples


def test_an_error_that_is_never_retried_ends_it() -> None:
    stop = Stop()
    with Solo(Settings(parse("rtsp://169.254.169.254/demo"), 1.0, 3)) as capture:
        until(lambda: capture.is_over, LIMIT_S, lambda: capture.look(stop))
        assert (capture.status.state, capture.status.error_code) == (State.FAILED, "address_refused")
        assert capture.pictures == []


# --- the address ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        (f"rtsp://admin:{SECRET}@camera.example/demo", "rtsp://camera.example/demo"),
        (f"rtsp://camera.example/demo?token={SECRET}", "rtsp://camera.example/demo?token=***"),
        (f"RTSP://admin:{SECRET}@[broken/demo", "RTSP://***"),
        ("rtsp://CAMERA.example/demo", "rtsp://CAMERA.example/demo"),
        ("--output=grid.jpg", "--output=grid.jpg"),
    ],
)
def test_an_argument_is_shown_without_credentials(argument: str, shown: str) -> None:
    assert given_address.shown(argument) == shown


def test_arguments_are_written_over_however_the_option_is_written() -> None:
    """argparse takes the beginning of an option for the whole."""
    told = [["--username", "us3r"], ["--user", "us3r"], ["--username=us3r"], ["--u=us3r"], ["rtsp://us3r:w0rd@cam/x"]]
    program = (
        "import sys; from streams.given_address import conceal; conceal(sys.argv[1:]);"
        "print(open('/proc/self/cmdline').read().replace(chr(0), ' '))"
    )
    arguments = ["--count", "9", *(word for words in told for word in words), "--until", "now"]
    shown = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    ).stdout
    assert shown.split()[-10:] == [
        "9", "--username", "***", "--user", "***", "--username=***", "--u=***", "rtsp://cam/x", "--until", "now",
    ]  # fmt: skip


def test_address_and_password_are_lines_of_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"rtsp://admin@camera.example/demo\n{SECRET} \n"))
    address = given_address.read("-", is_password_on_stdin=True)
    assert (address.username, address.password, address.host) == ("admin", f"{SECRET} ", "camera.example")


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("-", ""),
        ("rtsp://admin@camera.example/", ""),
        ("rtsp://camera.example/", "x\n"),
        ("rtsp://a:b@c.example/", "x\n"),
    ],
)
def test_a_password_that_cannot_be_taken_is_told(monkeypatch: pytest.MonkeyPatch, text: str, typed: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    with pytest.raises(given_address.BadAddress) as caught:
        given_address.read(text, is_password_on_stdin=True)
    assert caught.value.code == "invalid_url"


def test_the_password_of_the_environment_is_for_a_user_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", SECRET)
    passwords = {
        text: given_address.read(text).password
        for text in ("rtsp://admin@camera.example/", "rtsp://admin:own@camera.example/", "rtsp://camera.example/")
    }
    assert list(passwords.values()) == [SECRET, "own", None]


# --- the grid -------------------------------------------------------------------------------------


def a_picture(jpeg: bytes) -> Picture:
    return Picture(1, 100.0, 0.0, 64, 48, jpeg)


JPEG = encode_jpeg(np.full((48, 64, 3), 100, np.uint8), 90)


@pytest.mark.parametrize(
    ("jpegs", "code", "words"),
    [
        ([JPEG, JPEG], "complete", "Two."),
        ([JPEG, b"none"], "complete", "Two. The grid is without 1 of them: no picture."),
        ([b"none", b"none"], "no_grid", "No grid can be made: not one frame is a picture."),
    ],
    ids=["good", "one is none", "all are none"],
)
def test_what_is_no_picture_is_left_out_and_said(tmp_path: Path, jpegs: list[bytes], code: str, words: str) -> None:
    result = {"code": "complete", "message": "Two.", "count": 2, "output": None}
    command._write([a_picture(jpeg) for jpeg in jpegs], result, tmp_path / "grid.jpg", None)
    assert (result["code"], result["message"]) == (code, words)
    assert (result["output"] is not None) == (tmp_path / "grid.jpg").is_file() == (code == "complete")


def test_a_picture_that_crashes_what_decodes_it_costs_the_grid_and_not_the_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grid is made in a process of its own: here in one that ends at once."""
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    result = {"code": "complete", "message": "One.", "count": 1, "output": None, "frames": [{"rank": 1}]}
    command._write([a_picture(JPEG)], result, tmp_path / "grid.jpg", tmp_path)
    assert (result["code"], result["output"]) == ("no_grid", None)
    assert command.EXITS["no_grid"] is Exit.FAILED
    assert [path.name for path in tmp_path.glob("*.jpg")] == ["frame-01.jpg"]


def test_neither_it_nor_a_job_loads_what_decodes(tmp_path: Path) -> None:
    line = "import django, sys; django.setup(); import streams.management.commands.capture; "
    line += "import streams.management.commands.jobs; print(sorted({'av', 'cv2', 'numpy'} & {*sys.modules}))"
    env = {"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "rtspsite.settings", "DATA_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", line], cwd=ROOT, env=env, text=True, capture_output=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


# --- the file -------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "grid.jpg"
    target.mkdir()
    with pytest.raises(whole_file.CannotWrite):
        whole_file.write(target, b"data")
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "latest.jpg").symlink_to(tmp_path / "grid.jpg")
    whole_file.check(tmp_path / "latest.jpg")
    whole_file.write(tmp_path / "latest.jpg", b"data")
    assert (tmp_path / "latest.jpg").is_symlink()
    assert (tmp_path / "grid.jpg").read_bytes() == b"data"


def test_the_help_has_every_exit_code() -> None:
    told = {line.split()[0] for line in command.EPILOG.partition("exit codes:")[2].splitlines() if line.strip()}
    assert {str(int(code)) for code in command.EXITS.values()} <= told
