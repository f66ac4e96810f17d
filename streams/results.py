"""What a capture has come to, so far or in the end, as a page and as a page that is one file."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from . import answers, chart, database, outcomes, queries
from .models import Capture, Frame

TEMPLATE = "streams/capture.html"
_STATUS = {"complete": 200, "not_enough_frames": 409, "in_progress": 202, "stopping": 202}


def answer(request: HttpRequest, capture: Capture) -> HttpResponse:
    """To /stop: 200, 409 for too few frames, 202 if it is not finished."""
    frames = list(queries.ranked_frames(capture))
    status = _STATUS[outcomes.code_of(capture, len(frames))]
    if answers.wants(request) == "json":
        return answers.data(outcomes.result_data(capture, frames), status)
    found = context(capture, frames)
    found |= {
        "grid": outcomes.data_uri(capture.grid),
        "page_url": request.build_absolute_uri(reverse("capture", args=[capture.pk])),
    }
    return answers.one_file(request, TEMPLATE, found, status)


def context(capture: Capture, frames: list[Frame]) -> dict[str, Any]:
    """What every page of a capture shows. `frames` are all that it has, best first."""
    room = outcomes.room_for(capture)
    return {
        "capture": capture,
        "stream": capture.stream,
        "frames": frames,
        "code": outcomes.code_of(capture, len(frames)),
        "waiting": outcomes.why_not_yet(room.slots, room.ahead_of(capture.pk)) if room else "",
        "chart": chart.chart(capture, frames, queries.timeline_of(capture), database.now()),
    }
