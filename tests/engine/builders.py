"""What the engine's tests are made of, each with defaults."""

from collections.abc import Sequence

from streams.engine.address import Address, parse
from streams.engine.report import Counters, Picture, Report, Settings, State, Status, Video
from streams.engine.timeline import Timeline


def an_address(url: str = "rtsp://camera.example/demo") -> Address:
    return parse(url)


def settings(
    address: Address | None = None, *, interval_s: float = 1.0, count: int = 9, transport: str = "tcp"
) -> Settings:
    return Settings(address or an_address(), interval_s, count, transport)


def a_picture(number: int = 1, score: float = 100.0, jpeg: bytes = b"a picture") -> Picture:
    return Picture(number, score, captured_at=1_700_000_000.0, width=160, height=120, jpeg=jpeg)


def a_timeline(scores: Sequence[float] = (100.0,)) -> str:
    """As a report has it: a sample a second."""
    timeline = Timeline.of_interval(1_700_000_000.0, 1.0)
    for second, score in enumerate(scores):
        timeline.note_sample(1_700_000_000.0 + second, score)
    return timeline.encode()


def a_report(*fresh: Picture, status: Status | None = None, is_final: bool = False) -> Report:
    return Report(
        status=status or Status(State.CAPTURING, video=Video("h264", 160, 120)),
        counters=Counters(samples=len(fresh), connections=1, last_sample_at=1_700_000_000.0),
        board=tuple((picture.number, picture.score) for picture in fresh),
        fresh=fresh,
        is_final=is_final,
    )
