"""What the tests begin with: each builder has defaults for whatever a test does not care about."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from unittest.mock import patch

import numpy as np
from django.db import connection
from django.db.models.functions import Now
from django.http import HttpResponse
from django.test import Client
from django_q.models import OrmQ

from streams import claims, queries, services
from streams.claims import Candidate, Claim
from streams.engine import composer, sheet
from streams.engine.address import parse
from streams.engine.report import Counters, Picture, Report, State, Status
from streams.models import Capture, Host, Stream

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedWSGIResponse

    Response: TypeAlias = _MonkeyPatchedWSGIResponse
else:
    Response = HttpResponse

SITE = "cameras.example"
URL = "rtsp://camera.example:8554/demo"
SECRET = "s3cr3t-w0rd"
URL_WITH_SECRET = f"rtsp://admin:{SECRET}@camera.example:8554/demo"
NOON = 1_790_000_000.0  # seconds since 1970 UTC
CURL, BROWSER, API = "*/*", "text/html,application/xhtml+xml,*/*;q=0.8", "application/json"


# --- calls ----------------------------------------------------------------------------------------


def start(client: Client, url: str = URL, *, accept: str = CURL, **fields: Any) -> Response:
    return client.post("/start", {"rtsp_url": url, **fields}, headers={"accept": accept})


def stop(client: Client, name: str = "demo", *, accept: str = CURL) -> Response:
    return client.post("/stop", {"process_name": name}, headers={"accept": accept})


def told(response: Response) -> str:
    """Everything that an answer tells: its headers and its body."""
    return f"{response.headers}\n{response.content.decode()}"


# --- rows -----------------------------------------------------------------------------------------


def make_wish(url: str = URL, *, name: str = "", interval_s: float = 1.0, count: int = 9) -> services.Wish:
    return services.Wish(parse(url), interval_s, count, "tcp", name)


def make_capture(url: str = URL, *, name: str = "", interval_s: float = 1.0, count: int = 9) -> Capture:
    """In progress, claimed by nobody."""
    return services.start(make_wish(url, name=name, interval_s=interval_s, count=count)).capture


def make_host(name: str = "north", *, slots: int = 8, silent_s: float = 0.0) -> Host:
    """A host that was heard `silent_s` ago, by the database's clock."""
    host = claims.register(name, slots)
    silence(host, silent_s)
    return Host.objects.get(pk=host.pk)


def make_witness(name: str = "witness") -> Host:
    """A host that has been heard all the time, and has no slot: others that are silent lose their claims."""
    host = claims.register(name, 0)
    Host.objects.filter(pk=host.pk).update(steady_at=Now() - timedelta(seconds=2 * claims.CLAIM_S))
    return host


def silence(host: Host, silent_s: float) -> None:
    Host.objects.filter(pk=host.pk).update(heartbeat_at=Now() - timedelta(seconds=silent_s))


def make_claim(capture: Capture, host: Host | None = None) -> Claim:
    """The capture claimed by the host."""
    host = host or make_host()
    capture.refresh_from_db()
    assert claims.claim(host, [Candidate(capture.pk, capture.epoch)]) == [capture.pk]
    return Claim(capture.pk, host.pk, capture.epoch + 1)


def make_finished(url: str = URL, *, frames: int = 9, count: int = 9, name: str = "") -> Capture:
    """A capture that was started, recorded, stopped and finished."""
    capture = make_capture(url, count=count, name=name)
    record(capture, frames=frames)
    services.stop(capture.stream)
    with patch.object(composer, "compose", compose_here):
        assert services.finish(capture.pk)
    return Capture.objects.select_related("stream").get(pk=capture.pk)


def compose_here(jpegs: Sequence[bytes], count: int, meanwhile: object = None) -> composer.Composed:
    """The grid, without a process of its own: 0.2 s less for whoever only needs one to be there."""
    pictures = [sheet.fit(sheet.decode_jpeg(jpeg)) for jpeg in jpegs]
    return composer.Composed(sheet.compose(pictures, sheet.grid_columns(count)))


def record(capture: Capture, *, frames: int = 9) -> None:
    """What a host does that records so many frames and leaves: scores 101, 102, 103 ..."""
    claim = make_claim(capture)
    pictures = [make_picture(n, score=100.0 + n) for n in range(1, frames + 1)]
    services.checkpoint(claim, services.Totals.of(capture), make_report(*pictures))
    services.hand_over(claim)


# --- what recorders say ---------------------------------------------------------------------------


@cache
def make_jpeg(luma: int = 128, width: int = 32, height: int = 24) -> bytes:
    return sheet.encode_jpeg(np.full((height, width, 3), luma, np.uint8), 90)


def make_picture(number: int = 1, *, score: float = 100.0, jpeg: bytes | None = None) -> Picture:
    """A grey picture whose luma is its score."""
    return Picture(number, score, NOON + number, 32, 24, make_jpeg(round(score)) if jpeg is None else jpeg)


def make_report(
    *fresh: Picture,
    kept: tuple[tuple[int, float], ...] = (),
    status: Status | None = None,
    counters: Counters | None = None,
) -> Report:
    """`kept` are those on the leaderboard that were saved before."""
    board = sorted((*((p.number, p.score) for p in fresh), *kept), key=lambda entry: (-entry[1], entry[0]))
    samples = max([number for number, _ in board], default=0)
    return Report(
        status=status or Status(State.CAPTURING),
        counters=counters or Counters(samples=samples, connections=1),
        board=tuple(board),
        fresh=fresh,
    )


# --- many at a time ---------------------------------------------------------------------------------

T = TypeVar("T")


def at_once(times: int, work: Callable[[], T]) -> list[T]:
    """The work done by so many threads that begin together, each with a connection of its own."""
    barrier = threading.Barrier(times)

    def one(_: int) -> T:
        barrier.wait(30)
        try:
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(one, range(times)))


# --- what there is --------------------------------------------------------------------------------


def rows() -> tuple[int, int, int]:
    """Streams, captures and queued jobs."""
    return Stream.objects.count(), Capture.objects.count(), OrmQ.objects.count()


def jobs() -> list[tuple[str, Any]]:
    """The queued jobs: function and arguments."""
    return [(job.task["func"], job.task["args"]) for job in OrmQ.objects.order_by("id")]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def frames_of(capture: Capture) -> list[tuple[int, float]]:
    """Number and score of each saved frame, best first."""
    return list(queries.ranked_frames(capture).values_list("number", "score"))


def frame_files(capture: Capture) -> list[str]:
    """The files that frame rows point to."""
    return sorted(str(name) for name in capture.frames.values_list("image", flat=True))


def all_files(capture: Capture) -> list[str]:
    """The files that the capture's rows point to."""
    return sorted([str(capture.grid.name), *frame_files(capture)])
