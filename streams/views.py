"""The calls that curl makes, and what machines ask that look after the service."""

from django import forms
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from . import answers, health, metrics, outcomes, results, services
from .access import public
from .answers import call
from .engine.errors import AddressRefused
from .forms import StartForm, StopForm, fields_of_query, mistakes, unknown_fields
from .models import Stream

readiness = health.Readiness()
CSRF_FIELD = "csrfmiddlewaretoken"  # Django's own, which its templates and test clients add to a form


# --- /start and /stop -----------------------------------------------------------------------------


@call
def start(request: HttpRequest, fields: dict[str, str]) -> HttpResponse:
    """Begin to capture a stream: 201, or 200 if that runs already."""
    form = StartForm(fields)
    if found := _mistakes(request, form, fields):
        return answers.mistaken(request, found)
    try:
        started = services.start(form.wish())
    except services.StartRefused as error:
        return answers.mistaken(request, {error.field: {"code": error.code, "message": str(error)}}, 409)
    except AddressRefused as error:
        return answers.mistaken(request, {"rtsp_url": {"code": error.code, "message": str(error)}})
    return _started(request, started)


@call
def stop(request: HttpRequest, fields: dict[str, str]) -> HttpResponse:
    """End a stream's capture and answer with its grid."""
    form = StopForm(fields)
    if found := _mistakes(request, form, fields):
        return answers.mistaken(request, found)
    stream = Stream.objects.filter(name=form.cleaned_data["process_name"]).first()
    if stream is None:
        return answers.refusal(request, 404, "unknown_process", "No stream has this process_name.")
    capture = services.stop(stream)
    capture = capture and outcomes.wait_for_grid(capture)
    if capture is None:
        return answers.refusal(
            request, 404, "no_capture", f"{stream.name} has no capture: none was made, or all were pruned."
        )
    return results.answer(request, capture)


def _mistakes(request: HttpRequest, form: forms.Form, fields: dict[str, str]) -> answers.Mistakes:
    """Of the fields that the form has, and of those that it does not have; empty for a valid call."""
    unknown = unknown_fields(form, sorted(fields.keys() - {CSRF_FIELD}))
    if "?" in fields.get("rtsp_url", ""):
        for mistake in unknown.values():
            mistake["message"] += " If it belongs to the address, write %26 for the & before it."
    return unknown | fields_of_query(request.GET) | mistakes(form)


def _started(request: HttpRequest, started: services.Started) -> HttpResponse:
    capture, stream = started.capture, started.capture.stream
    data = outcomes.started_data(started)
    line = f"{data['message']}: process_name={stream.name} interval={capture.interval_s:g} count={capture.count} "
    line += f"status={stream.status}"
    if waiting := outcomes.why_not_yet(data["slots"] if data["has_host"] else None, data["waits_for"]):
        line += f"\n{waiting}"
    status = 201 if started.is_new else 200
    if answers.wants(request) == "json":
        return answers.data(data, status)
    if answers.wants(request) == "html":
        context = {"title": data["message"], "lines": line.splitlines(), "stream": stream}
        return answers.page(request, "streams/message.html", context, status)
    return answers.text(line, status)


# --- health ---------------------------------------------------------------------------------------


@public
@require_safe
@cache_control(no_store=True)
def livez(request: HttpRequest) -> HttpResponse:
    """This process answers; nothing else is asked."""
    return HttpResponse("ok\n", content_type="text/plain")


@public
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
