"""The pictures that the service keeps, as they are, small, and all of a capture in one zip file."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import wraps
from pathlib import PurePosixPath
from typing import Any

from django.db.models.fields.files import FieldFile
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.utils.cache import get_conditional_response
from django.utils.http import content_disposition_header, http_date
from django.views.decorators.http import require_safe

from . import archive, links, pictures, queries
from .models import Capture, Frame

RETRY_AFTER_S = 5
# A browser asks whether it is still the same, which costs one query: ids begin anew with a new database, under the
# same address of the same machine. `private`: what a camera sees is for whoever asked, not for a cache on the way.
KEEP = "private, no-cache"

View = Callable[..., HttpResponseBase]


def kept(view: View) -> View:
    """All that is kept goes out through here: 404 for what is not there, 503 while the storage is away."""

    @require_safe
    @wraps(view)
    def guarded(request: HttpRequest, **known: Any) -> HttpResponseBase:
        try:
            response = view(request, **known)
        except pictures.NoPicture:
            raise Http404("There is no such picture.") from None
        except OSError:
            return _away()
        if links.is_for(request, guarded):  # the guard has looked at it: pages of other sites may show the picture
            response["Cross-Origin-Resource-Policy"] = "cross-origin"
        return response

    return guarded


def picture(view: View) -> View:
    """A JPEG, to which there can be signed links."""
    return links.open_to_links(kept(view))


@picture
def grid_image(request: HttpRequest, capture_id: int) -> HttpResponseBase:
    return _grid(request, capture_id)


@picture
def grid_small(request: HttpRequest, capture_id: int) -> HttpResponseBase:
    return _grid(request, capture_id, is_small=True)


@picture
def frame_image(request: HttpRequest, frame_id: int) -> HttpResponseBase:
    return _frame(request, frame_id)


@picture
def frame_small(request: HttpRequest, frame_id: int) -> HttpResponseBase:
    return _frame(request, frame_id, is_small=True)


@picture
def best_image(request: HttpRequest, name: str) -> HttpResponseBase:
    """The best frame of the stream's latest capture, at this moment: what an embedded picture shows lives."""
    capture = Capture.objects.filter(stream__name=name).order_by("-id").first()
    frame = queries.ranked_frames(capture).first() if capture else None
    if frame is None:
        raise pictures.NoPicture
    return _answer(request, frame.image, f"{name}-best.jpg", frame.captured_at, is_small=False)


@kept
def capture_zip(request: HttpRequest, capture_id: int) -> HttpResponseBase:
    """Of a capture in progress what there is now."""
    capture = get_object_or_404(Capture.objects.select_related("stream").defer("stream__credentials"), pk=capture_id)
    frames = list(queries.ranked_frames(capture))
    if frames:
        with suppress(pictures.NoPicture):
            pictures.read(frames[0].image)  # a storage that is away is told before the answer has begun
    known = archive.known(capture, frames, queries.timeline_of(capture))
    response = StreamingHttpResponse(archive.parts(capture, frames, known), content_type="application/zip")
    response["Content-Disposition"] = content_disposition_header(True, f"{_base_name(capture)}.zip")
    response["Cache-Control"] = "no-store"
    return response


def _grid(request: HttpRequest, capture_id: int, *, is_small: bool = False) -> HttpResponseBase:
    rows = Capture.objects.select_related("stream").only("grid", "started_at", "finished_at", "stream__name")
    capture = get_object_or_404(rows, pk=capture_id)
    name = f"{_base_name(capture)}-grid.jpg"
    return _answer(request, capture.grid, name, capture.finished_at or capture.started_at, is_small)


def _frame(request: HttpRequest, frame_id: int, *, is_small: bool = False) -> HttpResponseBase:
    rows = Frame.objects.select_related("capture__stream")
    frame = get_object_or_404(rows.only("image", "captured_at", "capture__stream__name"), pk=frame_id)
    name = f"{frame.capture.stream.name}-{frame.captured_at:%Y-%m-%d-%H%M%S}.jpg"
    return _answer(request, frame.image, name, frame.captured_at, is_small)


def _answer(
    request: HttpRequest, image: FieldFile, name: str, written_at: datetime, is_small: bool
) -> HttpResponseBase:
    if not image:
        raise pictures.NoPicture
    etag = f'"{PurePosixPath(str(image.name)).stem}{"-small" if is_small else ""}"'
    response = get_conditional_response(request, etag=etag, last_modified=int(written_at.timestamp()))
    if response is None:
        jpeg = pictures.read(image)
        response = HttpResponse(pictures.small(jpeg) if is_small else jpeg, content_type="image/jpeg")
        response["Content-Disposition"] = content_disposition_header("download" in request.GET, name) or "inline"
    response["ETag"] = etag
    response["Last-Modified"] = http_date(written_at.timestamp())
    response["Cache-Control"] = KEEP
    return response


def _base_name(capture: Capture) -> str:
    return f"{capture.stream.name}-{capture.started_at:%Y-%m-%d-%H%M}"


def _away() -> HttpResponse:
    response = HttpResponse(
        "The pictures are away: try again in a moment.\n", content_type="text/plain; charset=utf-8", status=503
    )
    response["Retry-After"] = str(RETRY_AFTER_S)
    response["Cache-Control"] = "no-store"
    return response
