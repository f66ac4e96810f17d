"""The grid's own process: what crashes it costs one picture at most, and never whoever asked."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streams.engine import composer
from streams.engine.sheet import GAP_PX, compose, decode_jpeg, encode_jpeg, grid_columns

ROOT = Path(__file__).resolve().parents[2]
# Put before ours: a process of the composer that meets a picture with this mark in its bytes does what it says.
SABOTAGE = """\
import ctypes, os, signal, socket, time
import streams.engine.sheet as sheet
decode = sheet.decode_jpeg
def decode_jpeg(data, *flag):
    if b"crash" in data:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"swell" in data:
        bytearray(2 << 30)
    if b"stall" in data:
        time.sleep(600)
    if b"end" in data:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    try:
        if b"write" in data:
            open(__file__, "a")
        if b"dial" in data:
            socket.create_connection(("127.0.0.1", 9))
        if b"gain" in data and ctypes.CDLL(None).prctl(39, 0, 0, 0, 0):  # PR_GET_NO_NEW_PRIVS
            raise PermissionError
    except PermissionError:
        return decode(b"")
    return decode(data, *flag)
sheet.decode_jpeg = decode_jpeg
"""


def jpeg(level: int, mark: bytes = b"") -> bytes:
    data = encode_jpeg(np.full((48, 64, 3), level, np.uint8), 90)
    return data[:-2] + mark + data[-2:]


@pytest.fixture
def sabotaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV has no picture at hand that crashes it; this stands for one."""
    python = tmp_path / "python"
    (tmp_path / "sabotage.py").write_text(SABOTAGE)
    start = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import sabotage, runpy; "
    start += "sys.argv[:] = [sys.argv[2], *sys.argv[3:]]; runpy.run_module(sys.argv[0], run_name='__main__')"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{start}" "$2" "$3" "$4"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))


def test_it_is_the_grid_that_the_sheet_makes() -> None:
    jpegs = [jpeg(60 + 20 * index) for index in range(9)]
    assert composer.compose(jpegs, 9) == composer.Composed(
        compose([decode_jpeg(data) for data in jpegs], grid_columns(9))
    )


def test_the_form_is_that_of_all_that_were_asked_for() -> None:
    grid = decode_jpeg(composer.compose([jpeg(90), jpeg(120), jpeg(150)], 9).grid)
    assert grid.shape[:2] == (48 + 2 * GAP_PX, 3 * 64 + 4 * GAP_PX)


def test_what_is_no_picture_is_left_out_and_named() -> None:
    made = composer.compose([jpeg(90), b"no picture", jpeg(120), b""], 4)
    assert made == composer.Composed(composer.compose([jpeg(90), jpeg(120)], 4).grid, (1, 3))
    assert composer.compose([b"no picture"], 4) == composer.Composed(b"", (0,))


@pytest.mark.usefixtures("sabotaged")
@pytest.mark.parametrize("mark", [b"crash", b"swell"])
def test_a_picture_that_takes_the_process_down_is_left_out(mark: bytes) -> None:
    jpegs = [jpeg(90), jpeg(120, mark), b"no picture", jpeg(150)]
    made = composer.compose(jpegs, 4)
    assert made.unreadable == (1, 2)
    assert made.grid == compose([decode_jpeg(jpegs[0]), decode_jpeg(jpegs[3])], grid_columns(4))


@pytest.mark.usefixtures("sabotaged")
def test_a_picture_that_takes_the_process_over_finds_it_shut_in() -> None:
    """A recorder that was taken over may have made it."""
    made = composer.compose([jpeg(90, b"write"), jpeg(120, b"dial"), jpeg(150, b"gain"), jpeg(180)], 4)
    assert made.unreadable == (0, 1, 2)


@pytest.mark.usefixtures("sabotaged")
def test_what_ends_all_of_a_terminal_or_a_unit_leaves_it_to_whoever_waits() -> None:
    """Else a service that is told to end would finish a capture without its grid."""
    assert composer.compose([jpeg(90, b"end")], 1) == composer.compose([jpeg(90)], 1)


@pytest.mark.usefixtures("sabotaged")
def test_pictures_that_all_do_so_give_no_grid() -> None:
    with pytest.raises(composer.ComposerDied, match=f"ended with -{int(signal.SIGSEGV)}") as died:
        composer.compose([jpeg(90, b"crash"), jpeg(120, b"crash")], 4)
    assert not died.value.was_killed


@pytest.mark.usefixtures("sabotaged")
def test_one_that_takes_too_long_gives_no_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for it may live meanwhile: a supervisor says that it does."""
    said: list[None] = []
    for name, limit_s in (("START_S", 1.0), ("ALONE_S", 1.0)):
        monkeypatch.setattr(composer, name, limit_s)
    with pytest.raises(composer.ComposerDied, match="too long"):
        composer.compose([jpeg(90, b"stall")], 4, lambda: said.append(None))
    assert len(said) >= 2


def test_one_that_is_slow_to_begin_gets_all_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes its time for a start; a pipe holds 64 kB."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nsleep 0.3\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    jpegs = [jpeg(90 + index, bytes(100_000)) for index in range(4)]
    made = composer.compose(jpegs, 4)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(composer, "WAIT_S", 0.05)
    monkeypatch.setattr(composer, "START_S", 20.0)
    assert composer.compose(jpegs, 4) == made


def killed_at_first(folder: Path, times: int) -> Path:
    """In place of Python: as often as that it is killed, as by a system short of memory."""
    python = folder / "killed"
    count = 'n=$(ls "$0".* 2>/dev/null | wc -l)'
    python.write_text(
        f'#!/bin/sh\n{count}\nif [ $n -lt {times} ]; then : >"$0.$n"; kill -9 $$; fi\nexec "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    return python


def test_one_that_was_killed_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jpegs = [jpeg(90), jpeg(120)]
    made = composer.compose(jpegs, 4)
    monkeypatch.setattr(sys, "executable", str(killed_at_first(tmp_path, 1)))
    assert composer.compose(jpegs, 4) == made


def test_who_is_killed_again_and_again_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(killed_at_first(tmp_path, 100)))
    with pytest.raises(composer.ComposerDied) as died:
        composer.compose([jpeg(90)], 4)
    assert died.value.was_killed


def test_nothing_of_ours_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nenv > '{tmp_path}/environment'\necho '[]'\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("SECRET_KEY", "s3cr3t-w0rd")
    assert composer.compose([jpeg(90)], 1).grid == b""
    held = (tmp_path / "environment").read_text()
    assert "PYTHONPATH" in held
    assert "s3cr3t-w0rd" not in held
    assert os.environ["SECRET_KEY"] == "s3cr3t-w0rd"


def test_it_says_nothing_if_whoever_waited_was_killed() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", composer.__name__, "9"]
    given = composer._LENGTH.pack(len(jpeg(100))) + jpeg(100)
    done = subprocess.run(command, input=given, stdout=write, stderr=subprocess.PIPE, cwd=ROOT, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")
