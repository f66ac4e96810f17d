"""The grid picture, made in a process of its own: a picture that crashes what decodes it takes nobody with it.

Whoever wants a grid loads no OpenCV for it: `compose` starts this file, hands it the JPEGs and reads the grid.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

# A hundred pictures of 1080p take 4 s of a core, a start 0.2 s; a job has 60 s in all.
START_S, EACH_S = 15.0, 0.3
# Looking for the one that does harm: for each, and until when of all.
ALONE_S, UNTIL_S = 5.0, 45.0
AGAIN_S = 5.0
WAIT_S = 0.5
CPU_S = 60  # where nobody is left who would end it
# The grid of a hundred pictures takes 120 MB, one picture of 36 million pixels the same.
MEMORY_BYTES = 1 << 30
_ROOT = str(Path(__file__).resolve().parents[2])
_LENGTH = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Composed:
    grid: bytes
    """JPEG; empty where no picture can be read."""
    unreadable: tuple[int, ...] = ()
    """Indices of those that are left out."""


class ComposerDied(Exception):
    """The process that makes a grid crashed, met its limits or took too long.

    `was_killed`: by the system, which had no memory or no time, or by somebody; later it may work.
    """

    def __init__(self, words: str, *, was_killed: bool = False) -> None:
        super().__init__(words)
        self.was_killed = was_killed


def compose(jpegs: Sequence[bytes], count: int, meanwhile: Callable[[], object] = bool) -> Composed:
    """The grid of these, in their order, in the form of one for `count`. One that takes the process down is left out.

    `meanwhile` is called twice a second. Raises ComposerDied if it is not one of them alone that does so, or all.
    """
    began_s = time.monotonic()
    limit_s = START_S + EACH_S * len(jpegs)
    try:
        return _made_again(jpegs, count, limit_s, meanwhile)
    except ComposerDied:
        good = [i for i, jpeg in enumerate(jpegs) if _can_be_made(jpeg, began_s + UNTIL_S, meanwhile)]
        if len(good) in (0, len(jpegs)):
            raise
    made = _made([jpegs[index] for index in good], count, limit_s, meanwhile)
    left_out = set(range(len(jpegs))) - set(good) | {good[index] for index in made.unreadable}
    return Composed(made.grid, tuple(sorted(left_out)))


def _made_again(jpegs: Sequence[bytes], count: int, limit_s: float, meanwhile: Callable[[], object]) -> Composed:
    """A second time if the first ended soon: it may have been killed for nothing that a picture did."""
    began_s = time.monotonic()
    try:
        return _made(jpegs, count, limit_s, meanwhile)
    except ComposerDied:
        if time.monotonic() - began_s > AGAIN_S:
            raise
    return _made(jpegs, count, limit_s, meanwhile)


def _can_be_made(jpeg: bytes, until_s: float, meanwhile: Callable[[], object]) -> bool:
    if time.monotonic() > until_s:
        return False
    try:
        _made([jpeg], 1, ALONE_S, meanwhile)
    except ComposerDied:
        return False
    return True


def _made(jpegs: Sequence[bytes], count: int, limit_s: float, meanwhile: Callable[[], object]) -> Composed:
    # -P: not from the working directory, where anything may lie.
    command = [sys.executable, "-P", "-m", __name__, str(count)]
    environment = {"PYTHONPATH": _ROOT, "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        # By a thread: `communicate` forgets what it has not written yet when its time is over.
        giver = threading.Thread(target=_give, args=(process.stdin, jpegs), daemon=True)
        process.stdin = None
        giver.start()
        try:
            answer = _answer(process, time.monotonic() + limit_s, meanwhile)
        except BaseException:
            process.kill()
            raise
        finally:
            giver.join()
    if process.returncode:
        words = f"the process that makes grids ended with {process.returncode}"
        raise ComposerDied(words, was_killed=process.returncode == -signal.SIGKILL)
    try:
        head, _, grid = answer.partition(b"\n")
        return Composed(grid, tuple(json.loads(head)))
    except ValueError:
        raise ComposerDied("the process that makes grids gave none") from None


def _give(pipe: IO[bytes], jpegs: Sequence[bytes]) -> None:
    with suppress(OSError), pipe:  # it may be gone
        for jpeg in jpegs:
            pipe.write(_LENGTH.pack(len(jpeg)) + jpeg)


def _answer(process: "subprocess.Popen[bytes]", until_s: float, meanwhile: Callable[[], object]) -> bytes:
    while True:
        try:
            return process.communicate(timeout=WAIT_S)[0]
        except subprocess.TimeoutExpired:
            meanwhile()
        if time.monotonic() > until_s:
            raise ComposerDied("the process that makes grids took too long", was_killed=True)


def _main(count: int) -> None:
    import resource

    for number in (signal.SIGINT, signal.SIGTERM):  # of a terminal, of systemd: to all, and whoever waits decides
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from . import limits, sandbox, sheet

    limits.gain_nothing()
    sandbox.shut_in()
    pictures, unreadable = [], []
    for index, jpeg in enumerate(_split(sys.stdin.buffer.read())):
        try:
            pictures.append(sheet.decode_fit(jpeg))
        except sheet.UnreadablePicture:
            unreadable.append(index)
    grid = sheet.compose(pictures, sheet.grid_columns(count)) if pictures else b""
    _answer_and_leave(json.dumps(unreadable).encode() + b"\n" + grid)


def _answer_and_leave(answer: bytes) -> NoReturn:
    """At once; without a word if whoever waited was killed."""
    try:
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(1)
    os._exit(0)


def _split(data: bytes) -> list[bytes]:
    jpegs, at = [], 0
    while at < len(data):
        begin = at + _LENGTH.size
        at = begin + _LENGTH.unpack_from(data, at)[0]
        jpegs.append(data[begin:at])
    return jpegs


if __name__ == "__main__":
    _main(int(sys.argv[1]))
