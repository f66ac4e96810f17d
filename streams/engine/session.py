"""One capture: connect, sample, score, keep, reconnect, until told to stop."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from . import errors
from .address import Address
from .backoff import Backoff
from .clock import Clock, SystemClock
from .errors import CaptureError, Retry
from .feed import Feed, Opener, Video, open_feed
from .leaderboard import Leaderboard
from .sampler import Counts, Sample, Sampler
from .scoring import brightness
from .sheet import encode_frame

# From the begin of a connection to its first packet: libav's own limit (feed.SOCKET_TIMEOUT_S) is for each answer.
OPEN_S = 20.0
# From one packet to the next; any packet counts as life.
PACKET_S = 12.0
# Packets come and no clean frame: two of the longest key frame distances in use (zoneminder #4182), and more.
FRAME_S = 30.0
CLOSE_S = 5.0


class State(StrEnum):
    CONNECTING = "connecting"
    CAPTURING = "capturing"
    RECONNECTING = "reconnecting"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Settings:
    """What to capture. `interval_s` seconds between samples, `count` places on the leaderboard."""

    address: Address
    interval_s: float
    count: int
    transport: str = "tcp"


@dataclass(frozen=True, slots=True)
class Seed:
    """What earlier recorders of the capture saved: (number, score) of each frame, and the last sample's number."""

    samples: int = 0
    board: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """Where the capture stands. `next_attempt_at` is wall-clock time, seconds since 1970 UTC."""

    state: State = State.CONNECTING
    error_code: str = ""
    error_text: str = ""
    attempt: int = 0
    next_attempt_at: float | None = None
    video: Video | None = None


@dataclass(frozen=True, slots=True)
class Counters:
    """Of this recorder alone, not of its forerunners. `rejected` counts frames."""

    samples: int = 0
    missed: int = 0
    rejected: int = 0
    connections: int = 0
    last_sample_at: float | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A sample on the leaderboard. `captured_at`: arrival, seconds since 1970 UTC."""

    number: int
    score: float
    captured_at: float
    width: int
    height: int
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Report:
    """All that a supervisor needs to save: `board` is the whole leaderboard, `fresh` what of it was not saved yet."""

    status: Status
    counters: Counters
    board: tuple[tuple[int, float], ...]
    fresh: tuple[Picture, ...]
    is_final: bool = False


class Session:
    """Runs in a thread of its own; `report`, `mark_saved` and `overdue` are for another one."""

    def __init__(
        self,
        settings: Settings,
        seed: Seed | None = None,
        *,
        opener: Opener = open_feed,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.stop = threading.Event()
        self._open = opener
        self._clock = clock or SystemClock()
        self._backoff = backoff or Backoff()
        self._on_change = on_change
        self._lock = threading.Lock()
        seed = seed or Seed()
        # A picture leaves memory once it is saved: nine of 1080p are 4 MB.
        self._board: Leaderboard[Picture | None] = Leaderboard(
            settings.count, ((number, score, None) for number, score in seed.board)
        )
        self._number = seed.samples
        self._status = Status()
        self._counts = Counts()
        self._samples = 0
        self._connections = 0
        self._last_sample_at: float | None = None
        self._healthy_since_s: float | None = None
        self._deadline: tuple[float, type[CaptureError]] | None = None

    def run(self) -> None:
        """Capture until `stop` is set or an error comes that is never to be retried."""
        while not self.stop.is_set():
            try:
                self._connect()
            except CaptureError as error:
                if error.retry is Retry.NEVER:
                    self._set(Status(State.FAILED, error.code, str(error)))
                    return
                self._pause(error)

    def report(self, *, is_final: bool = False) -> Report:
        """What has been captured; any thread may ask."""
        with self._lock:
            ranking = self._board.ranking()
            return Report(
                status=self._status,
                counters=self._counters(),
                board=tuple((number, score) for number, score, _ in ranking),
                fresh=tuple(picture for _, _, picture in ranking if picture),
                is_final=is_final,
            )

    def mark_saved(self, numbers: frozenset[int]) -> None:
        """These pictures lie safe elsewhere: keep their places, forget their bytes."""
        with self._lock:
            for number in numbers:
                self._board.replace(number, None)

    def overdue(self) -> CaptureError | None:
        """What is wrong if the session's thread hangs inside C code, past every limit that libav keeps itself."""
        deadline = self._deadline
        if deadline is None or self._clock.monotonic() < deadline[0]:
            return None
        return deadline[1]()

    def fail(self, error: CaptureError) -> None:
        """Say in the status why this recorder ends."""
        self._set(Status(State.RECONNECTING, error.code, str(error), self._backoff.attempt + 1))

    def _connect(self) -> None:
        """One connection, until `stop`. Raises a CaptureError when it ends otherwise."""
        self._healthy_since_s = None
        self._expect(OPEN_S, errors.ConnectTimeout)
        try:
            with self._open(self.settings.address, self.settings.transport) as feed:
                self._connections += 1
                try:
                    self._sample(feed)
                finally:
                    self._expect(CLOSE_S, errors.Closed)
        finally:
            self._deadline = None

    def _sample(self, feed: Feed) -> None:
        sampler = Sampler(self.settings.interval_s, feed, self._counts)
        clean, clean_s = self._counts.clean, self._clock.monotonic()
        for packet in feed.packets():
            if self.stop.is_set():
                return
            self._expect(PACKET_S, errors.Stalled)
            for sample in sampler.push(packet):
                self._keep(sample, feed.video.codec)
            if self._counts.clean > clean:
                clean, clean_s = self._counts.clean, self._clock.monotonic()
            elif self._clock.monotonic() - clean_s > FRAME_S:
                raise errors.Undecodable

    def _keep(self, sample: Sample, codec: str) -> None:
        frame = sample.frame
        score = brightness(frame)
        number = self._number + 1
        picture = None
        if self._board.accepts(score):
            jpeg = encode_frame(frame)
            picture = Picture(number, score, sample.arrived_at, frame.width, frame.height, jpeg)
        with self._lock:
            self._number = number
            self._samples += 1
            self._last_sample_at = sample.arrived_at
            if picture:
                self._board.offer(number, score, picture)
        if self._healthy_since_s is None:
            self._healthy_since_s = self._clock.monotonic()
            self._set(Status(State.CAPTURING, video=Video(codec, frame.width, frame.height)))

    def _pause(self, error: CaptureError) -> None:
        since_s = self._healthy_since_s
        healthy_s = 0.0 if since_s is None else self._clock.monotonic() - since_s
        wait_s = self._backoff.after(error.retry, healthy_s)
        next_at = self._clock.now() + wait_s
        self._set(Status(State.RECONNECTING, error.code, str(error), self._backoff.attempt, next_at))
        self._clock.wait(self.stop, wait_s)

    def _expect(self, within_s: float, error: type[CaptureError]) -> None:
        self._deadline = (self._clock.monotonic() + within_s, error)

    def _set(self, status: Status) -> None:
        with self._lock:
            self._status = status
        self._on_change()

    def _counters(self) -> Counters:
        return Counters(
            samples=self._samples,
            missed=self._counts.missed,
            rejected=self._counts.rejected,
            connections=self._connections,
            last_sample_at=self._last_sample_at,
        )
