"""Looks at a camera with PyAV, and with plain sockets, and says what it saw: the tests' independent eye."""

import hashlib
import socket
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import islice, pairwise
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from tests.camera.mark import MarkUnreadable, read_mark

# fpsprobesize: without it libav reads some 28 frames before it opens, to guess the frame rate.
_OPTIONS = {"rtsp_transport": "tcp", "timeout": "10000000", "fpsprobesize": "0"}


@dataclass(frozen=True, slots=True)
class Glimpse:
    """One decoded frame. `luma` is the full-range mean; `second` is None where the mark is unreadable."""

    second: int | None
    luma: float
    pts_ticks: int | None
    is_key: bool
    is_corrupt: bool
    size_px: tuple[int, int]
    digest: str


@dataclass(frozen=True, slots=True)
class View:
    """`error` is the name of PyAV's exception; empty where the feed ended or enough was seen."""

    glimpses: tuple[Glimpse, ...]
    error: str

    @property
    def seconds(self) -> list[int | None]:
        """Each once, in the order in which they came."""
        return list(dict.fromkeys(glimpse.second for glimpse in self.glimpses))

    @property
    def steps_ticks(self) -> set[int]:
        """Differences of consecutive timestamps; libav gives the first packets of a connection none."""
        known = [glimpse.pts_ticks for glimpse in self.glimpses if glimpse.pts_ticks is not None]
        return {after - before for before, after in pairwise(known)}


def view(url: str, frames: int = 10, **options: str) -> View:
    """The first so many frames, or fewer where the feed ends or fails."""
    glimpses: list[Glimpse] = []
    try:
        for glimpse in islice(watch(url, **options), frames):
            glimpses.append(glimpse)
    except av.FFmpegError as error:
        return View(tuple(glimpses), type(error).__name__)
    return View(tuple(glimpses), "")


def watch(url: str, **options: str) -> Generator[Glimpse, None, None]:
    """Decoded frames as they come. Raises av.FFmpegError, whose text holds the URL with its password."""
    with av.open(url, options=_OPTIONS | options) as container:
        for frame in container.decode(video=0):
            yield _glimpse(frame)


def wait_until(holds: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Raises TimeoutError. The limit is for a machine that is loaded, not for the thing waited for."""
    deadline_s = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline_s:
            raise TimeoutError("what was waited for has not come")
        time.sleep(0.005)


class PlainClient:
    """RTSP by hand: what is said and heard, byte for byte."""

    def __init__(self, url: str) -> None:
        self._url = url
        host, _, port = url.removeprefix("rtsp://").partition("/")[0].partition(":")
        self._connection = socket.create_connection((host, int(port)), timeout=30)
        self._file = self._connection.makefile("rb")
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._connection.close()

    def ask(self, method: str, suffix: str = "", **headers: str) -> tuple[int, dict[str, str], str]:
        """Status, headers (names in lower case), body."""
        self._sequence += 1
        lines = [f"{method} {self._url}{suffix} RTSP/1.0", f"CSeq: {self._sequence}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        while (start := self._file.read(1)) == b"$":
            self._rest_of_packet()
        status = int((start + self._file.readline()).split()[1])
        return status, (answered := self._headers()), self._body(answered)

    def play(self) -> None:
        self.ask("OPTIONS")
        self.ask("DESCRIBE")
        self.ask("SETUP", "/track0", Transport="RTP/AVP/TCP;unicast;interleaved=0-1")
        self.ask("PLAY")

    def packet(self) -> tuple[int, bytes]:
        """The next interleaved packet and its channel. Raises EOFError, OSError."""
        if self._file.read(1) != b"$":
            raise EOFError
        return self._rest_of_packet()

    def read_all(self) -> bytes:
        """Until the camera closes."""
        return self._file.read()

    def _rest_of_packet(self) -> tuple[int, bytes]:
        channel, *size = self._file.read(3)
        return channel, self._file.read(int.from_bytes(bytes(size)))

    def _headers(self) -> dict[str, str]:
        headers = {}
        while line := self._file.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return headers

    def _body(self, headers: dict[str, str]) -> str:
        return self._file.read(int(headers.get("content-length", "0"))).decode()


def _glimpse(frame: VideoFrame) -> Glimpse:
    grey = np.asarray(frame.to_ndarray(format="gray"), np.uint8)
    try:
        second = read_mark(grey)
    except MarkUnreadable:
        second = None
    planes = frame.to_ndarray()
    codes = float(np.mean(planes[: frame.height]))
    luma = codes if frame.color_range == ColorRange.JPEG else (codes - 16) * 255 / 219
    return Glimpse(
        second,
        luma,
        frame.pts,
        bool(frame.key_frame),
        frame.is_corrupt,
        (frame.width, frame.height),
        hashlib.sha256(planes.tobytes()).hexdigest(),
    )
