"""Starts the cameras (feed_server.py) for a run, and says how well they kept up."""

import re
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.footage import Film
from bench.measure import with_its_parent
from tests.camera.gst import gst_python

_PROGRAM = Path(__file__).with_name("feed_server.py")
_READY_S = 60.0  # a first start scans the plugins
_ANSWER_S = 10.0
_END_S = 10.0


class FeedFailed(RuntimeError):
    """The cameras did not start, or have died."""


class Feed:
    """Live cameras on one port; all show the film, at different times of it."""

    def __init__(self, film: Film, cameras: int) -> None:
        options = [f"--cameras={cameras}", f"--fps={round(film.fps)}", f"--gop-s={film.gop_s}"]
        self._command = with_its_parent([gst_python(), str(_PROGRAM), str(film.path), *options], "KILL")
        self.cameras = cameras
        self.port = 0
        self.version = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        words = self._line(_READY_S).split(maxsplit=2)
        if words[:1] != ["ready"]:
            self._end()
            raise FeedFailed("GStreamer's RTSP server did not start")
        self.port, self.version = int(words[1]), words[2].strip()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def pid(self) -> int:
        return self._process.pid

    def urls(self, count: int) -> list[str]:
        assert count <= self.cameras, f"there are {self.cameras} cameras"
        return [f"rtsp://127.0.0.1:{self.port}/cam{number}" for number in range(count)]

    def late_s(self) -> float:
        """How much too late the latest frame since the last call left the server."""
        assert self._process.stdin
        self._process.stdin.write("late?\n")
        self._process.stdin.flush()
        words = self._line(_ANSWER_S).split()
        if words[:1] != ["late"]:
            raise FeedFailed("the cameras have died")
        return float(words[1])

    def delivered_bytes(self) -> dict[str, int]:
        """What each client of now has acknowledged so far; nothing where `ss` is missing."""
        try:
            command = ["ss", "-tinH", "state", "established", f"sport = :{self.port}"]
            told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_ANSWER_S).stdout
        except (OSError, subprocess.SubprocessError):
            return {}
        return acknowledged_bytes(told)

    def _line(self, limit_s: float) -> str:
        assert self._process.stdout
        killer = threading.Timer(limit_s, self._process.kill)
        killer.start()
        try:
            return self._process.stdout.readline()
        finally:
            killer.cancel()

    def _end(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def acknowledged_bytes(told: str) -> dict[str, int]:
    """By the client's address, out of `ss -tin`: two lines for each connection, a new one has acknowledged none."""
    lines = told.splitlines()
    found = {}
    for connection, details in zip(lines[::2], lines[1::2], strict=False):
        acknowledged = re.search(r"bytes_acked:(\d+)", details)
        found[connection.split()[3]] = int(acknowledged[1]) if acknowledged else 0
    return found
