"""Every read that is more than a get()."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import or_

from django.db.models import (
    BooleanField,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    Prefetch,
    Q,
    QuerySet,
    Subquery,
    Sum,
    TextField,
    Window,
)
from django.db.models.functions import Cast, Coalesce, RowNumber

from . import claims
from .claims import Candidate
from .engine.timeline import Timeline as EngineTimeline
from .fields import Sealed
from .models import Capture, CaptureSettings, Frame, Host, Status, Stream, Timeline

CAPTURE_STATES = {
    "in progress": Q(finished_at=None, stop_requested_at=None),
    "stopping": Q(finished_at=None, stop_requested_at__isnull=False),
    "finished": Q(finished_at__isnull=False),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A capture that a host claims, as its supervisor has to know it."""

    capture_id: int
    epoch: int
    is_stopping: bool


def wanted_of(host: Host) -> list[Wanted]:
    rows = Capture.objects.filter(claimed_by=host, finished_at=None).order_by("id")
    return [
        Wanted(capture_id, epoch, stop_requested_at is not None)
        for capture_id, epoch, stop_requested_at in rows.values_list("id", "epoch", "stop_requested_at")
    ]


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """Captures in progress that no living host claims, oldest first."""

    to_capture: list[Candidate]
    to_finish: list[Candidate]
    expired: list[int]
    """Of those to capture, the ones that a silent host still claims."""


def unclaimed() -> Unclaimed:
    rows = Capture.objects.filter(claims.is_free()).order_by("id")
    found = list(rows.values_list("id", "epoch", "stop_requested_at", "claimed_by"))
    return Unclaimed(
        to_capture=[Candidate(pk, epoch) for pk, epoch, stop, _ in found if stop is None],
        to_finish=[Candidate(pk, epoch) for pk, epoch, stop, _ in found if stop is not None],
        expired=[pk for pk, _, stop, claimed_by in found if stop is None and claimed_by is not None],
    )


def capture_to_finish(capture_id: int) -> Capture | None:
    """The capture, if it was stopped and no living host records it."""
    rows = Capture.objects.filter(claims.is_free(), pk=capture_id, stop_requested_at__isnull=False)
    return rows.select_related("stream").first()


def capture_to_record(capture_id: int) -> Capture:
    """With its stream, its saved frames and its timeline: what a recorder begins with."""
    frames = Prefetch("frames", Frame.objects.only("capture_id", "number", "score"))
    return Capture.objects.select_related("stream", "timeline").prefetch_related(frames).get(pk=capture_id)


def saved_timeline(capture: Capture) -> str:
    """As it was saved; empty if it was not."""
    row: Timeline | None = getattr(capture, "timeline", None)  # reverse one-to-one: raises where there is none
    return row.data if row else ""


def timeline_of(capture: Capture) -> EngineTimeline | None:
    """None: nothing of it was saved, or nothing that can be read."""
    row = Timeline.objects.filter(capture=capture).first()
    try:
        return EngineTimeline.decode(row.data) if row else None
    except ValueError:
        return None


def latest_capture(stream: Stream) -> Capture | None:
    return stream.captures.select_related("stream").order_by("-id").first()


def settings_of(stream: Stream) -> CaptureSettings:
    """Interval, count and transport that count now: the running capture's own, or else the stream's."""
    return stream.captures.filter(finished_at=None).first() or stream


def ranked_frames(capture: Capture) -> "QuerySet[Frame]":
    """Best first; on equal scores the earlier. Each has its `rank`, from 1."""
    return with_rank(Frame.objects.filter(capture=capture)).order_by("-score", "number")


def with_rank(frames: "QuerySet[Frame]") -> "QuerySet[Frame]":
    order = [F("score").desc(), F("number").asc()]
    return frames.annotate(rank=Window(RowNumber(), partition_by=[F("capture_id")], order_by=order))


def has_living_host() -> bool:
    return Host.objects.filter(claims.is_alive()).exists()


@dataclass(frozen=True, slots=True)
class Room:
    """Of all living hosts together: `slots`, and how many captures in progress want them, oldest first."""

    slots: int | None
    """None: no host lives."""
    wanted: tuple[tuple[int, int], ...]
    """Ids of capture and stream."""

    def ahead_of(self, capture_id: int) -> int:
        """How many have to end before this one has a slot; 0 if it need not wait for that."""
        return self._ahead(sum(other < capture_id for other, _ in self.wanted))

    def ahead_by_stream(self) -> dict[int, int]:
        return {stream_id: self._ahead(place) for place, (_, stream_id) in enumerate(self.wanted)}

    def _ahead(self, place: int) -> int:
        return 0 if self.slots is None else max(0, place - self.slots + 1)


def room() -> Room:
    slots = Host.objects.filter(claims.is_alive()).aggregate(slots=Sum("slots"))["slots"]
    rows = Capture.objects.filter(finished_at=None).order_by("id")
    return Room(slots, tuple(rows.values_list("id", "stream_id")))


def streams_with_latest() -> "QuerySet[Stream]":
    """Every stream with the id of its latest capture as `latest_id`."""
    latest = Capture.objects.filter(stream=OuterRef("pk")).order_by("-id")
    return Stream.objects.annotate(latest_id=Subquery(latest.values("pk")[:1]))


def streams_in_progress() -> list[Stream]:
    """Those that are captured and not being stopped."""
    running = Capture.objects.filter(CAPTURE_STATES["in progress"], stream=OuterRef("pk"))
    return list(Stream.objects.filter(Exists(running)).defer("credentials"))


# --- pages ----------------------------------------------------------------------------------------

TROUBLED = frozenset({Status.RECONNECTING, Status.FAILED})
PAGE_LENGTH = 25


@dataclass(frozen=True, slots=True)
class Card:
    """A stream with its latest capture, and the id of that one's best frame."""

    stream: Stream
    capture: Capture | None
    best_id: int | None


def is_troubled(stream: Stream) -> bool:
    """Whether somebody should look at it: it fails, or there is something to be said of it."""
    return stream.status in TROUBLED or bool(stream.notice_sentences)


def all_streams() -> list[Stream]:
    """Without their credentials: a page has no use for them."""
    return list(streams_with_latest().defer("credentials"))


def cards(streams: list[Stream]) -> list[Card]:
    """Of streams with `latest_id`, in the same order."""
    latest = {stream.pk: stream.latest_id for stream in streams}  # type: ignore[attr-defined]  # annotated
    captures = with_best(Capture.objects.all()).in_bulk([pk for pk in latest.values() if pk])
    found = []
    for stream in streams:
        capture = captures.get(latest[stream.pk])
        found.append(Card(stream, capture, capture.best_id if capture else None))  # type: ignore[attr-defined]
    return found


def with_best(captures: "QuerySet[Capture]") -> "QuerySet[Capture]":
    """Each with the id of its best frame as `best_id`."""
    best = Frame.objects.filter(capture=OuterRef("pk")).order_by("-score", "number")
    return captures.annotate(best_id=Subquery(best.values("pk")[:1]))


def history(stream: Stream) -> "QuerySet[Capture]":
    """Newest first; each with `best_id` and `frame_count`."""
    return with_best(with_frame_count(stream.captures.all())).order_by("-id")


def with_frame_count(captures: "QuerySet[Capture]") -> "QuerySet[Capture]":
    """Each with the number of its frames as `frame_count`."""
    frames = Frame.objects.filter(capture=OuterRef("pk")).order_by().values("capture")
    return captures.annotate(frame_count=Coalesce(Subquery(frames.annotate(count=Count("pk")).values("count")), 0))


def streams_with_credentials() -> "QuerySet[Stream]":
    return Stream.objects.exclude(credentials="")


def sealed_credentials(*, after: int, limit: int) -> list[tuple[int, Sealed]]:
    """Of streams that have some, by id: as they are stored, encrypted."""
    rows = streams_with_credentials().filter(pk__gt=after).order_by("pk")
    found = rows.values_list("pk", Cast("credentials", TextField()))[:limit]
    return [(pk, Sealed(token)) for pk, token in found]


def with_has_credentials(streams: "QuerySet[Stream]") -> "QuerySet[Stream]":
    """Each with `has_credentials`, and without reading them: whether there are some, also if no key opens them."""
    return streams.defer("credentials").annotate(
        has_credentials=ExpressionWrapper(~Q(credentials=""), output_field=BooleanField())
    )


# --- lists of the API -----------------------------------------------------------------------------


def streams_like(*, status: str = "", text: str = "") -> "QuerySet[Stream]":
    """By name, with `latest_id` and `has_credentials`. `text` is looked for in name, URL and last error."""
    streams = with_has_credentials(streams_with_latest()).order_by("name")
    if status:
        streams = streams.filter(status=status)
    if text:
        fields = ("name", "url", "error_code", "error_text")
        streams = streams.filter(reduce(or_, (Q(**{f"{field}__icontains": text}) for field in fields)))
    return streams


def captures_like(
    *,
    stream: str = "",
    state: str = "",
    ending: str = "",
    started_after: datetime | None = None,
    started_before: datetime | None = None,
) -> "QuerySet[Capture]":
    """Newest first. `state` is one of CAPTURE_STATES; both moments are left out themselves."""
    given = {
        "stream__name": stream or None,
        "ending": ending or None,
        "started_at__gt": started_after,
        "started_at__lt": started_before,
    }
    rows = Capture.objects.filter(**{name: value for name, value in given.items() if value is not None})
    return (rows.filter(CAPTURE_STATES[state]) if state else rows).order_by("-id")


# --- the admin ------------------------------------------------------------------------------------


def months_of_captures(limit: int) -> list[datetime]:
    """The first moment of each month from the latest start of a capture back to the first one's, `limit` at most."""
    moments = Capture.objects.order_by("started_at", "id").values_list("started_at", flat=True)
    first, last = moments.first(), moments.last()  # each a look into the index, where MIN with MAX reads all of it
    found: list[datetime] = []
    month = None if last is None else _month_of(last)
    while first and month and month >= _month_of(first) and len(found) < limit:
        found.append(month)
        month = _month_of(month - timedelta(days=1))
    return found


def month_after(month: datetime) -> datetime:
    return _month_of(month + timedelta(days=31))


def _month_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
