"""The calls that curl makes and the pages that a browser shows."""

import base64
import logging
import math
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.admin.views.decorators import staff_member_required
from django.db import InterfaceError, OperationalError
from django.db.models.fields.files import FieldFile
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.cache import cache_control
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from . import doors, health, metrics, queries, services
from .engine.errors import AddressRefused
from .forms import StartForm, StopForm, mistakes
from .models import Capture, Frame, Status, Stream

log = logging.getLogger(__name__)
readiness = health.Readiness()

STOP_WAIT_S = 10.0
POLL_S = 0.05
RETRY_AFTER_S = 5
SAY_AGAIN_S = 60.0
# A page is one file: nothing is loaded from anywhere, no script runs.
PAGE_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'"

View = Callable[..., HttpResponse]
Mistakes = dict[str, dict[str, str]]


# --- /start and /stop -----------------------------------------------------------------------------


def call(view: View) -> View:
    """A POST from curl, a client or our own pages, with its own protection against other sites' pages."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method != "POST":
            response = _refusal(request, 405, "wrong_method", f"{request.path} takes POST only.")
            response["Allow"] = "POST"
            return response
        if doors.is_cross_site(request):
            return _refusal(request, 403, "cross_site", "A page of another site may not do this.")
        try:
            return view(request, doors.fields(request), *args, **kwargs)
        except doors.BadInput as error:
            return _mistaken(request, {error.field: {"code": error.code, "message": str(error)}})

    return csrf_exempt(guarded)


class DatabaseAway:
    """Middleware: whatever needs the database while it is away is answered with 503. The log has a line a minute."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._said_s = -math.inf

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, OperationalError | InterfaceError):
            return None
        now_s = time.monotonic()
        if now_s - self._said_s >= SAY_AGAIN_S:
            self._said_s = now_s
            log.error("%s %s failed: database away error=%s", request.method, request.path, type(error).__name__)
        words = "The database is away: try again in a moment. What is being captured goes on meanwhile."
        response = _refusal(request, 503, "database_away", words)
        response["Retry-After"] = str(RETRY_AFTER_S)
        response._has_been_logged = True  # type: ignore[attr-defined]  # Django would say it again
        return response


@call
def start(request: HttpRequest, fields: dict[str, str]) -> HttpResponse:
    """Begin to capture a stream: 201, or 200 if that runs already."""
    form = StartForm(fields)
    if not form.is_valid():
        return _mistaken(request, mistakes(form))
    try:
        started = services.start(form.wish())
    except services.StartRefused as error:
        status = 400 if error.field == "name" else 409
        return _mistaken(request, {error.field: {"code": error.code, "message": str(error)}}, status)
    except AddressRefused as error:
        return _mistaken(request, {"rtsp_url": {"code": error.code, "message": str(error)}})
    return _started(request, started)


@call
def stop(request: HttpRequest, fields: dict[str, str]) -> HttpResponse:
    """End a stream's capture and answer with its grid."""
    form = StopForm(fields)
    if not form.is_valid():
        return _mistaken(request, mistakes(form))
    stream = Stream.objects.filter(name=form.cleaned_data["process_name"]).first()
    if stream is None:
        return _refusal(request, 404, "unknown_process", "No stream has this process_name.")
    capture = services.stop(stream)
    capture = capture and _wait_until_finished(capture)
    if capture is None:
        return _refusal(
            request, 404, "no_capture", f"{stream.name} has no capture: none was made, or all were pruned."
        )
    return _result(request, capture)


def _started(request: HttpRequest, started: services.Started) -> HttpResponse:
    capture, stream = started.capture, started.capture.stream
    room = queries.room()
    ahead = room.ahead_of(capture.pk) if stream.status == Status.QUEUED else 0
    words = "Video stream started" if started.is_new else "Video stream is already running"
    answer = {
        "process_name": stream.name,
        "status": stream.status,
        "url": stream.url,
        "interval": capture.interval_s,
        "count": capture.count,
        "capture": capture.pk,
        "is_new": started.is_new,
        "has_host": room.slots is not None,
        "slots": room.slots or 0,
        "waits_for": ahead,
        "message": words,
    }
    line = f"{words}: process_name={stream.name} interval={capture.interval_s:g} count={capture.count} "
    line += f"status={stream.status}"
    if room.slots is None:
        line += "\nNo supervisor is running: capturing begins when one is (manage.py supervise)."
    elif ahead:
        line += "\n" + _why_not_yet(room, ahead)
    status = 201 if started.is_new else 200
    if _wants(request) == "json":
        return JsonResponse(answer, status=status)
    if _wants(request) == "html":
        return _page(request, "streams/message.html", {"title": words, "lines": line.splitlines()}, status)
    return HttpResponse(line + "\n", content_type="text/plain; charset=utf-8", status=status)


def _why_not_yet(room: queries.Room, ahead: int) -> str:
    if room.slots == 0:
        return "No host has a slot (CAPTURE_SLOTS)."
    return f"All slots are taken ({room.slots}): capturing begins when {_ended(ahead)}."


def _ended(captures: int) -> str:
    return "another capture has ended" if captures == 1 else f"{captures} other captures have ended"


def _wait_until_finished(capture: Capture) -> Capture | None:
    """The capture as it is then; None if it was finished and pruned at once."""
    found: Capture | None = capture
    limit_s = time.monotonic() + STOP_WAIT_S
    while found and not found.is_finished and time.monotonic() < limit_s:
        time.sleep(POLL_S)
        found = Capture.objects.select_related("stream").filter(pk=capture.pk).first()
    return found


# --- what a capture has come to -------------------------------------------------------------------


@require_safe
def capture_page(request: HttpRequest, capture_id: int) -> HttpResponse:
    """The same page as /stop answers with, at an address of its own."""
    capture = get_object_or_404(Capture.objects.select_related("stream"), pk=capture_id)
    return _result(request, capture, is_answer=False)


def _result(request: HttpRequest, capture: Capture, *, is_answer: bool = True) -> HttpResponse:
    """The page of one capture. As an answer to /stop its status tells: 200, 409 too few frames, 202 not finished."""
    frames = list(queries.ranked_frames(capture))
    is_complete = len(frames) >= capture.count
    status, code = 200, ""
    if not capture.is_finished:
        status, code = 202, "stopping" if capture.stop_requested_at else "in_progress"
    elif not is_complete:
        status, code = 409, "not_enough_frames"
    if _wants(request) == "json":
        return JsonResponse(_result_data(capture, frames, code), status=status if is_answer else 200)
    room = _room_for(capture)
    waits_for = room.ahead_of(capture.pk) if room else 0
    context = {
        "capture": capture,
        "waiting": room and waits_for and _why_not_yet(room, waits_for),
        "frames": frames,
        "grid": _data_uri(capture.grid),
        "is_complete": is_complete,
        "code": code,
        "page_url": request.build_absolute_uri(reverse("capture", args=[capture.pk])),
    }
    return _page(request, "streams/capture.html", context, status if is_answer else 200)


def _room_for(capture: Capture) -> queries.Room | None:
    """If it waits for some."""
    return None if capture.is_finished or capture.stream.status != Status.QUEUED else queries.room()


def _result_data(capture: Capture, frames: list[Frame], code: str) -> dict[str, Any]:
    room = _room_for(capture)
    return {
        "process_name": capture.stream.name,
        "capture": capture.pk,
        "status": "finished" if capture.is_finished else capture.stream.status,
        "next_attempt_at": None if capture.is_finished else capture.stream.next_attempt_at,
        "waits_for": room.ahead_of(capture.pk) if room else 0,
        "notices": {} if capture.is_finished else capture.stream.notice_sentences,
        "code": code or "complete",
        "message": _sentence(capture, len(frames), code),
        "started_at": capture.started_at,
        "finished_at": capture.finished_at,
        "samples": capture.samples,
        "count": capture.count,
        "error": {"code": capture.error_code, "message": capture.error_text} if capture.error_code else None,
        "frames": [
            {
                "rank": rank,
                "score": round(frame.score, 3),
                "captured_at": frame.captured_at,
                "width": frame.width,
                "height": frame.height,
            }
            for rank, frame in enumerate(frames, 1)
        ],
        "grid": _data_uri(capture.grid),
    }


def _sentence(capture: Capture, frames: int, code: str) -> str:
    match code:
        case "in_progress":
            return "The capture is in progress."
        case "stopping":
            return "The capture is being finished."
        case "not_enough_frames":
            return f"Not enough frames were captured: {frames} of {capture.count}."
        case _:
            return f"The {capture.count} brightest of {capture.samples} samples."


def _data_uri(image: FieldFile) -> str:
    """The picture itself, for a page that is one file; empty if there is none."""
    if not image:
        return ""
    try:
        with image.open() as file:
            return "data:image/jpeg;base64," + base64.b64encode(file.read()).decode()
    except OSError:
        return ""


@require_safe
@staff_member_required
def grid_image(request: HttpRequest, capture_id: int) -> FileResponse:
    return _image(get_object_or_404(Capture, pk=capture_id).grid)


@require_safe
@staff_member_required
def frame_image(request: HttpRequest, frame_id: int) -> FileResponse:
    return _image(get_object_or_404(Frame, pk=frame_id).image)


def _image(image: FieldFile) -> FileResponse:
    try:
        return FileResponse(image.open(), content_type="image/jpeg")
    except (OSError, ValueError):
        raise Http404("There is no such picture.") from None


# --- the first page, and health -------------------------------------------------------------------


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    room = queries.room()
    ahead = room.ahead_by_stream()
    rows = [
        (stream, _ended(ahead[stream.pk]) if stream.status == Status.QUEUED and ahead.get(stream.pk) else "")
        for stream in queries.streams_with_latest()
    ]
    context = {"streams": rows, "has_host": room.slots is not None, "slots": room.slots}
    return _page(request, "streams/index.html", context, 200)


@require_safe
@cache_control(no_store=True)
def livez(request: HttpRequest) -> HttpResponse:
    """This process answers; nothing else is asked."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
@cache_control(no_store=True)
def readyz(request: HttpRequest) -> JsonResponse:
    """What has to be there to serve: 200, or 503 if something is not; each with a sentence."""
    found = health.checks()
    answer = {name: {"ok": check.is_ok, "message": check.message} for name, check in found.items()}
    response = JsonResponse(answer, status=200 if readiness.note(found) else 503)
    response._has_been_logged = True  # type: ignore[attr-defined]  # Django would say it at each probe
    return response


@require_safe
@cache_control(no_store=True)
def metrics_page(request: HttpRequest) -> HttpResponse:
    """For Prometheus: 200 also without the database, and then a metric says so."""
    return HttpResponse(metrics.page(), content_type=metrics.CONTENT_TYPE)


# --- answers --------------------------------------------------------------------------------------


def _wants(request: HttpRequest) -> str:
    """What the client takes: json, html (browsers) or text (curl and all others)."""
    accept = request.headers.get("Accept", "")
    if "application/json" in accept:
        return "json"
    return "html" if "text/html" in accept else "text"


def _page(request: HttpRequest, template: str, context: dict[str, Any], status: int) -> HttpResponse:
    response = render(request, template, {**context, "policy": PAGE_POLICY}, status=status)
    response["Content-Security-Policy"] = f"{PAGE_POLICY}; frame-ancestors 'none'"
    response["Cache-Control"] = "no-store"
    return response


def _mistaken(request: HttpRequest, found: Mistakes, status: int = 400) -> HttpResponse:
    """Wrong input: a sentence for each field."""
    first = next(iter(found.values()))
    return _refusal(request, status, first["code"], [m["message"] for m in found.values()], found)


def _refusal(
    request: HttpRequest, status: int, code: str, words: str | list[str], fields: Mistakes | None = None
) -> HttpResponse:
    lines = [words] if isinstance(words, str) else words
    if _wants(request) == "json":
        answer = {"code": code, "message": " ".join(lines), "fields": fields or {}}
        return JsonResponse(answer, status=status)
    if _wants(request) == "html" or request.path == reverse("stop"):
        context = {"title": "That did not work", "lines": lines, "code": code}
        return _page(request, "streams/message.html", context, status)
    return HttpResponse("\n".join(lines) + "\n", content_type="text/plain; charset=utf-8", status=status)
