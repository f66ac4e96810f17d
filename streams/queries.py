"""Every read that is more than a get()."""

from dataclasses import dataclass

from django.db.models import F, OuterRef, Prefetch, Q, QuerySet, Subquery, Sum, Window
from django.db.models.functions import RowNumber

from . import claims
from .claims import Candidate
from .engine.timeline import Timeline as EngineTimeline
from .models import Capture, Frame, Host, Stream, Timeline

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
