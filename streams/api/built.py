"""From rows to the API's answers."""

from typing import Any, TypeVar
from urllib.parse import urlencode

from django.db.models import QuerySet, TextChoices
from django.http import HttpRequest
from django.urls import reverse
from django.utils.encoding import escape_uri_path

from .. import database, facts, models, outcomes, queries
from . import schemas
from .errors import Unknown

C = TypeVar("C", bound=TextChoices)
T = TypeVar("T")


class Builder:
    """For one request: its links begin with the address that it was sent to."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self._site = request.build_absolute_uri("/")[:-1]  # once: everything of 200 streams has 1,400 links

    def link(self, name: str, *args: Any) -> str:
        return self._site + reverse(name, args=args)

    def next_page(self, **query: Any) -> str:
        """This address, with these changes of its query."""
        given = self._request.GET.copy()
        for name, value in query.items():
            given[name] = str(value)
        return f"{self._site}{escape_uri_path(self._request.path)}?{given.urlencode()}"

    # --- streams ---

    def stream(self, **known: Any) -> schemas.Stream:
        """The one with this `name` or `pk`. Raises Unknown: it can be deleted at any time."""
        found = self.streams(queries.streams_like().filter(**known))
        if not found:
            raise Unknown("unknown_stream", "No stream has this name.")
        return found[0]

    def streams(self, rows: "QuerySet[models.Stream]", room: queries.Room | None = None) -> list[schemas.Stream]:
        """`rows` have `latest_id` and `has_credentials`."""
        streams = list(rows)
        latest = [stream.latest_id for stream in streams]  # type: ignore[attr-defined]  # annotated
        captures = queries.with_frame_count(models.Capture.objects.select_related("stream")).in_bulk(
            [pk for pk in latest if pk]
        )
        ahead = (room or queries.room()).ahead_by_stream()
        return [
            self._stream(stream, captures.get(pk), ahead.get(stream.pk, 0))
            for stream, pk in zip(streams, latest, strict=True)
        ]

    def _stream(self, stream: models.Stream, capture: models.Capture | None, ahead: int) -> schemas.Stream:
        return schemas.Stream(
            name=stream.name,
            url=stream.url,
            interval=stream.interval_s,
            count=stream.count,
            transport=_known(models.Transport, stream.transport, models.Transport.TCP),
            has_credentials=stream.has_credentials,  # type: ignore[attr-defined]  # annotated
            verify_certificate=stream.verify_certificate,
            created_at=stream.created_at,
            status=_known(models.Status, stream.status, models.Status.FAILED),
            status_at=stream.status_at,
            error=_problem(stream),
            attempt=stream.attempt,
            next_attempt_at=stream.next_attempt_at,
            notices=stream.notice_sentences,
            waits_for=ahead if stream.status == models.Status.QUEUED else 0,
            capture=schemas.Capture(**self._capture(capture)) if capture else None,
            links=schemas.StreamLinks(
                api=self.link("api:stream", stream.name),
                page=self.link("stream", stream.name),
                captures=f"{self.link('api:captures')}?{urlencode({'stream': stream.name})}",
            ),
        )

    # --- captures ---

    def captures(self, captures: "QuerySet[models.Capture]") -> list[schemas.Capture]:
        rows = queries.with_frame_count(captures.select_related("stream"))
        return [schemas.Capture(**self._capture(capture)) for capture in rows]

    def capture_in_full(self, capture: models.Capture) -> schemas.CaptureInFull:
        """`capture` has `frame_count`."""
        return schemas.CaptureInFull(
            **self._capture(capture),
            frames=self.frames(capture),
            timeline=_timeline(capture),
        )

    def _capture(self, capture: models.Capture) -> dict[str, Any]:
        frame_count: int = capture.frame_count  # type: ignore[attr-defined]  # annotated
        code = outcomes.code_of(capture, frame_count)
        return {
            **facts.of_capture(capture),
            "transport": _known(models.Transport, capture.transport, models.Transport.TCP),
            "ending": _known(models.Ending, capture.ending, None),
            "state": "finished" if capture.is_finished else code,
            "code": code,
            "message": outcomes.sentence(capture, frame_count),
            "frame_count": frame_count,
            "links": schemas.CaptureLinks(
                api=self.link("api:capture", capture.pk),
                page=self.link("capture", capture.pk),
                grid=self.link("grid", capture.pk) if capture.grid else None,
                zip=self.link("capture_zip", capture.pk),
            ),
        }

    def frames(self, capture: models.Capture) -> list[schemas.Frame]:
        return [
            schemas.Frame(
                id=frame.pk,
                **facts.of_frame(rank, frame),
                links=schemas.FrameLinks(
                    picture=self.link("frame", frame.pk), small=self.link("frame_small", frame.pk)
                ),
            )
            for rank, frame in enumerate(queries.ranked_frames(capture), 1)
        ]

    # --- everything ---

    def live(self) -> schemas.Live:
        room = queries.room()
        streams = self.streams(queries.streams_like(), room)
        return schemas.Live(
            now=database.now(),
            has_host=room.slots is not None,
            slots=room.slots or 0,
            in_progress=len(room.wanted),
            statuses={status: sum(stream.status == status for stream in streams) for status in models.Status},
            streams=streams,
        )


def _known(choices: type[C], value: str, otherwise: T) -> C | T:
    """The choice, or `otherwise` for a value that another version wrote."""
    return choices(value) if value in choices.values else otherwise


def _problem(stream: models.Stream) -> schemas.Problem | None:
    found = facts.problem(stream.error_code, stream.error_text)
    return schemas.Problem(**found) if found else None


def _timeline(capture: models.Capture) -> schemas.Timeline | None:
    found = facts.of_timeline(queries.timeline_of(capture))
    return schemas.Timeline(**found) if found else None
