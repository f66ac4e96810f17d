"""What the API answers with, as OpenAPI tells it. Moments are UTC, links are whole addresses."""

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, Field
from pydantic.config import JsonDict

from ..models import MAX_COUNT, MAX_INTERVAL_S, MIN_INTERVAL_S, Ending, Status, Transport

T = TypeVar("T")


def _between(low: float, high: float) -> JsonDict:
    """Documented but not enforced: one invalid row must not make the answer about all others fail."""
    return {"minimum": low, "maximum": high}


Moment = Annotated[datetime, Field(examples=["2026-11-23T12:00:00.250Z"])]
Name = Annotated[str, Field(description="What the stream is called: /start's process_name.", examples=["demo"])]
PublicURL = Annotated[
    str,
    Field(description="The camera's address without any credential.", examples=["rtsp://camera.example:8554/demo"]),
]
Interval = Annotated[
    float,
    Field(
        description="Seconds from one sample to the next.",
        json_schema_extra=_between(MIN_INTERVAL_S, MAX_INTERVAL_S),
        examples=[1],
    ),
]
Count = Annotated[
    int, Field(description="How many frames are kept.", json_schema_extra=_between(1, MAX_COUNT), examples=[9])
]
State = Literal["in_progress", "stopping", "finished"]
Code = Literal["in_progress", "stopping", "complete", "not_enough_frames"]
Notices = Annotated[
    dict[str, str],
    Field(
        description="What is worth saying of the capture in progress: code to sentence.",
        examples=[{"frozen": "The camera sends the same picture again and again."}],
    ),
]
WaitsFor = Annotated[
    int, Field(description="How many other captures have to end before this one has a slot.", examples=[0])
]
Number = Annotated[int, Field(ge=0)]
Score = Annotated[
    float, Field(description="Brightness, 0 to 255.", json_schema_extra=_between(0, 255), examples=[182.417])
]


class Mistake(BaseModel):
    code: str = Field(examples=["invalid_interval"])
    message: str = Field(examples=["interval must be a number of seconds from 0.1 to 86400."])


class Error(BaseModel):
    """Every answer that is not what was asked for: one code, one sentence, and both again for each wrong field."""

    code: str = Field(examples=["invalid_interval"])
    message: str = Field(examples=["interval must be a number of seconds from 0.1 to 86400."])
    fields: dict[str, Mistake]


class Problem(BaseModel):
    """What went wrong last between the service and the camera."""

    code: str = Field(examples=["auth_refused"])
    message: str = Field(examples=["The camera refused the user name or the password."])


class Page(BaseModel, Generic[T]):
    """Some of what was asked for, in its order."""

    items: list[T]
    total: Number = Field(description="How many there are on all pages.")
    next: str | None = Field(description="The next page; null on the last one.")


class CaptureLinks(BaseModel):
    api: str = Field(description="The capture with its frames and its timeline, here.")
    page: str = Field(description="For people.")
    grid: str | None = Field(description="All frames in one JPEG, best first; null before the capture is finished.")
    zip: str = Field(description="Grid, frames and facts in one file.")


class Capture(BaseModel):
    """One run of a stream, from start to stop."""

    id: int = Field(examples=[12])
    stream: Name
    state: State
    code: Code = Field(description="How it stands: as /stop tells it.")
    message: str = Field(examples=["The 9 brightest of 59 samples."])
    ending: Ending | None = Field(description="Why it is over; null before.")
    error: Problem | None = Field(
        description="The last error, also if the capture went on after it. All codes but these are about the camera: "
        "`picture_unreadable` (pictures could not be read, and are not in the grid), `no_grid` (it could not be made "
        "or written) and `restored` (a restore stopped the capture)."
    )
    started_at: Moment
    stop_requested_at: Moment | None
    finished_at: Moment | None
    interval: Interval
    count: Count
    transport: Transport
    host: str | None = Field(description="Where it is or was last recorded.", examples=["north"])
    samples: Number
    missed: Number = Field(description="Due times without a sample.")
    rejected: Number = Field(description="Pictures that loss or damage made unfit to be samples.")
    repeated: Number = Field(description="Samples that were copies of another one.")
    connections: Number = Field(description="To the camera; all but the first are reconnects.")
    frame_count: Number = Field(description="Frames that it has now.")
    last_sample_at: Moment | None
    late_p50_s: float | None = Field(description="Median of the seconds from the due time to the sample.")
    late_p95_s: float | None = Field(description="95th percentile of them.")
    links: CaptureLinks


class FrameLinks(BaseModel):
    picture: str
    small: str = Field(description="At most 480 pixels wide.")


class Frame(BaseModel):
    """A sample on the leaderboard."""

    id: int
    rank: int = Field(description="1 is the best.", ge=1)
    number: Number = Field(description="The how-manieth sample of the capture it was.")
    score: Score
    captured_at: Moment
    width: int
    height: int
    links: FrameLinks


class Frames(BaseModel):
    items: list[Frame] = Field(description="Best first, as many as there are.")


class Bucket(BaseModel):
    """A stretch of time in which something happened."""

    at: Moment = Field(description="Its middle.")
    samples: Number
    low: Score | None = Field(description="Of the darkest sample; null without samples.")
    high: Score | None = Field(description="Of the brightest sample.")
    connections: Number = Field(description="That began in it.")
    error: str | None = Field(description="Code of the last failure in it.", examples=["stalled"])


class Timeline(BaseModel):
    """How bright the capture was over its time. Buckets without samples, connections and failures are left out."""

    began_at: Moment
    width_s: float = Field(description="Of each bucket; grows with the capture.", gt=0)
    buckets: list[Bucket]


class CaptureInFull(Capture):
    frames: list[Frame] = Field(description="Best first.")
    timeline: Timeline | None = Field(description="Null before the first sample.")


class StreamLinks(BaseModel):
    api: str = Field(description="The stream, here.")
    page: str = Field(description="For people.")
    captures: str = Field(description="All its captures, here.")


class Stream(BaseModel):
    """A feed that the user named, its settings for the next start, and how it stands now."""

    name: Name
    url: PublicURL
    interval: Interval
    count: Count
    transport: Transport
    has_credentials: bool = Field(description="Whether there are a user name, a password or secrets of the query.")
    verify_certificate: bool = Field(description="By rtsps: whether the camera's certificate is verified.")
    created_at: Moment
    status: Status
    status_at: Moment = Field(description="Since when.")
    error: Problem | None
    attempt: int = Field(description="How many attempts to connect have failed in a row.")
    next_attempt_at: Moment | None
    notices: Notices
    waits_for: WaitsFor
    capture: Capture | None = Field(description="The one in progress, or else the last one.")
    links: StreamLinks


class Live(BaseModel):
    """Everything that changes, in one answer."""

    now: Moment
    has_host: bool = Field(description="Whether a supervisor runs: without one nothing is captured.")
    slots: Number = Field(description="Captures at once that all hosts together have room for.")
    in_progress: Number = Field(description="Captures that are not finished.")
    statuses: dict[Status, int] = Field(description="How many streams have each status.")
    streams: list[Stream] = Field(description="All of them, by name.")


class Link(BaseModel):
    """A picture's address that is open to whoever has it, until then."""

    path: str = Field(examples=["/streams/demo/best.jpg"])
    url: str = Field(
        description="Pages of other sites may show it, too.",
        examples=["http://localhost:8000/streams/demo/best.jpg?until=1795521600&signature=..."],
    )
    expires_at: Moment


class Started(BaseModel):
    """As /start answers."""

    process_name: Name
    status: Status
    url: PublicURL
    interval: Interval
    count: Count
    capture: int
    is_new: bool = Field(description="False: it was running already.")
    has_host: bool
    slots: Number
    waits_for: WaitsFor
    message: str = Field(examples=["Video stream started"])


class ResultFrame(BaseModel):
    rank: int
    score: Score
    captured_at: Moment
    width: int
    height: int


class Result(BaseModel):
    """As /stop answers: what the capture has come to."""

    process_name: Name
    capture: int
    status: Status | Literal["finished"]
    next_attempt_at: Moment | None
    waits_for: WaitsFor
    notices: Notices
    code: Code
    message: str = Field(examples=["The 9 brightest of 59 samples."])
    started_at: Moment
    finished_at: Moment | None
    samples: Number
    count: Count
    error: Problem | None
    frames: list[ResultFrame] = Field(description="Best first.")
    grid: str = Field(description="The grid itself as a data: URI; empty if there is none.")
