"""What a session is given and what it reports: values alone. Whoever only reads them loads no codec."""

from dataclasses import dataclass, field
from enum import StrEnum

from .address import Address, Networks
from .notices import Notice


class State(StrEnum):
    CONNECTING = "connecting"
    CAPTURING = "capturing"
    RECONNECTING = "reconnecting"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Video:
    codec: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What to capture. `interval_s` seconds between samples, `count` places on the leaderboard."""

    address: Address
    interval_s: float
    count: int
    transport: str = "tcp"
    verify_certificate: bool = True
    """For rtsps."""
    networks: Networks = ()
    """Those that may be connected to; empty: all that are not refused anyway."""
    redirect_ports: tuple[int, ...] = ()
    """Ports of the camera's own host that it may redirect to, beside the one of its address."""
    closed: tuple[str, ...] = ()
    """Paths that the recorder must never read: no folder above or beneath one of them is opened for a link."""
    memory_bytes: int = 1 << 30
    """What the recorder may take beside what all share; a hostile camera would have it take everything."""


@dataclass(frozen=True, slots=True)
class Status:
    """Where the capture stands. `next_attempt_at` is wall-clock time, seconds since 1970 UTC."""

    state: State = State.CONNECTING
    error_code: str = ""
    error_text: str = ""
    attempt: int = 0
    next_attempt_at: float | None = None
    video: Video | None = None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class Seed:
    """What earlier recorders of the capture saved: (number, score) of each frame, and the last sample's number.

    `status`: where the last one stood. If it waited to connect again, this one waits for as long as was left.
    `timeline`: of the capture, as `Timeline.encode` has it; empty: none was saved.
    `quirks`: what was learned about the camera, as `Quirks.encode` has it; empty: nothing.
    """

    samples: int = 0
    board: tuple[tuple[int, float], ...] = ()
    status: Status = Status()
    timeline: str = ""
    quirks: str = ""


@dataclass(frozen=True, slots=True)
class Counters:
    """Of this recorder alone, not of its forerunners.

    `rejected`: pictures that loss or damage made unfit; `repeated`: samples that were copies of another one.
    `late_p50_s`, `late_p95_s`: stream time from the due time to the sample, of the latest thousand.
    """

    samples: int = 0
    missed: int = 0
    rejected: int = 0
    repeated: int = 0
    connections: int = 0
    last_sample_at: float | None = None
    late_p50_s: float | None = None
    late_p95_s: float | None = None


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
    timeline: str = ""
    """As `Timeline.encode` has it; empty: it is not due."""
    quirks: str = ""
    """All that is known of the camera now, as `Quirks.encode` has it; empty: nothing out of the ordinary."""
    replace_reason: str = ""
    """In its last report: why another recorder has to take the place of this one. Empty: it need not."""
