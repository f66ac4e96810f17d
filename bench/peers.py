"""What a user would otherwise take: one process per stream, each of them a loop or an ffmpeg."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from bench.measure import with_its_parent

_LOOP = str(Path(__file__).with_name("opencv_loop.py"))
_END_S = 5.0
ROLE = "peer"


def opencv(url: str, interval_s: float) -> list[str]:
    return [sys.executable, _LOOP, url, f"{interval_s:g}"]


def ffmpeg_fps(url: str, interval_s: float) -> list[str]:
    """Decodes everything, in one thread, and drops all frames but one each interval."""
    return _ffmpeg(url, ["-threads", "1"], ["-filter_threads", "1", "-vf", f"fps=1/{interval_s:g}"])


def ffmpeg_nokey(url: str, _interval_s: float) -> list[str]:
    """Decodes key frames only: one every 2 s here, whatever the interval."""
    return _ffmpeg(url, ["-threads", "1", "-skip_frame", "nokey"], [])


def ffmpeg_copy(url: str, _interval_s: float) -> list[str]:
    """Receives and decodes nothing: the floor."""
    return _ffmpeg(url, [], ["-c", "copy"])


def _ffmpeg(url: str, before: list[str], after: list[str]) -> list[str]:
    head = ["ffmpeg", "-nostdin", "-v", "fatal", "-rtsp_transport", "tcp", *before]
    return [*head, "-i", url, "-an", *after, "-f", "null", "-"]


class PeerFailed(RuntimeError):
    """One of the processes has ended, with its own last words, or does not keep up."""


class Peers:
    """Runs one command per stream until the end of the context."""

    def __init__(self, commands: Sequence[Sequence[str]], pause_s: float) -> None:
        """`pause_s` lies between two starts."""
        self._commands = commands
        self._pause_s = pause_s
        self._running: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # a start that fails ends what has begun
            stack.push(self.__exit__)
            for command in self._commands:
                self._start(list(command))
                time.sleep(self._pause_s)
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.keep(0)

    def keep(self, count: int) -> None:
        """End all but the first so many."""
        self._running, surplus = self._running[:count], self._running[count:]
        for process, _ in surplus:
            process.terminate()
        for process, said in surplus:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            said.close()

    def _start(self, command: list[str]) -> None:
        said = tempfile.TemporaryFile()  # noqa: SIM115 (keep() closes it)
        process = subprocess.Popen(
            with_its_parent(command, "KILL"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
        )
        self._running.append((process, said))

    def roles(self) -> dict[str, set[int]]:
        return {ROLE: {process.pid for process, _ in self._running}}

    def check(self) -> None:
        """Raises PeerFailed."""
        for process, said in self._running:
            if process.poll() is not None:
                said.seek(0)
                words = said.read().decode(errors="replace").strip()[-300:]
                raise PeerFailed(f"ended with {process.returncode}: {words}")
