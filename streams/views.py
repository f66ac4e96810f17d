"""The calls that curl makes, and what machines ask that look after the service."""

import logging
import math
import time
from collections.abc import Callable

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from . import answers, health, metrics, outcomes, results, services
from .answers import call
from .engine.errors import AddressRefused
from .forms import StartForm, StopForm, mistakes
from .models import Stream

log = logging.getLogger(__name__)
readiness = health.Readiness()

STOP_WAIT_S = 10.0
RETRY_AFTER_S = 5
SAY_AGAIN_S = 60.0


# --- /start and /stop -----------------------------------------------------------------------------


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
        response = answers.refusal(request, 503, "database_away", words)
        response["Retry-After"] = str(RETRY_AFTER_S)
        response._has_been_logged = True  # type: ignore[attr-defined]  # Django would say it again
        return response


@call
def start(request: HttpRequest, fields: dict[str, str]) -> HttpResponse:
    """Begin to capture a stream: 201, or 200 if that runs already."""
    form = StartForm(fields)
    if not form.is_valid():
        return answers.mistaken(request, mistakes(form))
    try:
        started = services.start(form.wish())
    except services.StartRefused as error:
        status = 400 if error.field == "name" else 409
        return answers.mistaken(request, {error.field: {"code": error.code, "message": str(error)}}, status)
    except AddressRefused as error:
        return answers.mistaken(request, {"rtsp_url": {"code": error.code, "message": str(error)}})
    return _started(request, started)


@call
def stop(request: HttpRequest, fields: dict[str, str]) -> HttpResponse:
    """End a stream's capture and answer with its grid."""
    form = StopForm(fields)
    if not form.is_valid():
        return answers.mistaken(request, mistakes(form))
    stream = Stream.objects.filter(name=form.cleaned_data["process_name"]).first()
    if stream is None:
        return answers.refusal(request, 404, "unknown_process", "No stream has this process_name.")
    capture = services.stop(stream)
    capture = capture and outcomes.wait_until_finished(capture, STOP_WAIT_S)
    if capture is None:
        return answers.refusal(
            request, 404, "no_capture", f"{stream.name} has no capture: none was made, or all were pruned."
        )
    return results.answer(request, capture)


def _started(request: HttpRequest, started: services.Started) -> HttpResponse:
    capture, stream = started.capture, started.capture.stream
    data = outcomes.started_data(started)
    line = f"{data['message']}: process_name={stream.name} interval={capture.interval_s:g} count={capture.count} "
    line += f"status={stream.status}"
    if not data["has_host"]:
        line += "\nNo supervisor is running: capturing begins when one is (manage.py supervise)."
    elif data["waits_for"]:
        line += "\n" + outcomes.why_not_yet(data["slots"], data["waits_for"])
    status = 201 if started.is_new else 200
    if answers.wants(request) == "json":
        return JsonResponse(data, status=status)
    if answers.wants(request) == "html":
        context = {"title": data["message"], "lines": line.splitlines(), "stream": stream}
        return answers.page(request, "streams/message.html", context, status)
    return HttpResponse(line + "\n", content_type="text/plain; charset=utf-8", status=status)


# --- health ---------------------------------------------------------------------------------------


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
