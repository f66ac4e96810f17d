"""The pages for people: all streams, one stream, one capture. Each address gives the page and what is live of it."""

import hashlib
import re
from collections import Counter
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth import logout
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.db.models.fields.files import FieldFile
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect
from django.templatetags.static import static
from django.urls import resolve, reverse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from . import answers, links, outcomes, queries, results, services
from .access import public
from .answers import call
from .engine.errors import AddressRefused
from .forms import StreamForm, mistakes
from .models import Capture, Status, Stream

CARDS = 60  # a page of 200 took a third of a second to render, at each look of each tab
TROUBLED = "trouble"
FILTERS = {"": "All", TROUBLED: "Needs attention", **dict(Status.choices)}
_USERINFO = re.compile(r"(?<=://).*@")  # of an address that is looked for: the one that is kept has none
# Title, code and sentence.
_ERRORS = {
    400: ("That did not work", "bad_request", "The request could not be understood."),
    403: ("Not for you", "forbidden", "This is not open to you."),
    404: ("Nothing here", "not_found", "There is no such page, stream, capture or picture, or not any more."),
}


# --- all streams ----------------------------------------------------------------------------------


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    return _index(request, StreamForm())


@csrf_exempt
def streams(request: HttpRequest) -> HttpResponse:
    """Where the form goes; whoever reloads a refused one sees all streams."""
    return redirect("index") if request.method in ("GET", "HEAD") else _begin(request)


@call
def _begin(request: HttpRequest, fields: dict[str, str]) -> HttpResponse:
    """To the stream's page; or the form again, with its mistakes (200) or with what contradicts it (409)."""
    form, status = StreamForm(fields), 200
    if form.is_valid():
        try:
            started = services.start(form.wish())
        except services.StartRefused as error:
            form.add_error("name" if error.field == "name" else "rtsp_url", str(error))
            status = 409
        except AddressRefused as error:
            form.add_error("rtsp_url", str(error))
        else:
            return _see(reverse("stream", args=[started.capture.stream.name]))
    return _index(request, form, status)


def _index(request: HttpRequest, form: StreamForm, status: int = 200) -> HttpResponse:
    words = _USERINFO.sub("", request.GET.get("q", "")).strip()[:100]
    chosen = request.GET.get("status", "")
    chosen = chosen if chosen in FILTERS else ""
    every = queries.all_streams()
    found = [stream for stream in every if _is_found(stream, words)]
    shown = [stream for stream in found if _is_chosen(stream, chosen)]
    page = Paginator(shown, CARDS).get_page(request.GET.get("page"))
    room = queries.room()
    context = {
        "cards": _cards(list(page), room),
        "page": page,
        "before_url": _address(chosen, words, page.number - 1),
        "next_url": _address(chosen, words, page.number + 1),
        "total": len(every),
        "troubled": sum(map(queries.is_troubled, every)),
        "filters": _filters(found, chosen, words),
        "words": words,
        "chosen": chosen,
        "has_host": room.slots is not None,
        "live_url": _address(chosen, words, page.number),
        "form": form,
        "site": request.build_absolute_uri("/")[:-1],
    }
    return _live(request, "streams/index.html", context, status)


def _is_chosen(stream: Stream, chosen: str) -> bool:
    if chosen == TROUBLED:
        return queries.is_troubled(stream)
    return chosen in ("", stream.status)


def _is_found(stream: Stream, words: str) -> bool:
    return words.lower() in f"{stream.name} {stream.url} {stream.error_code} {stream.error_text}".lower()


def _filters(found: list[Stream], chosen: str, words: str) -> list[dict[str, Any]]:
    """How many of the streams that were found have each status, and where those are shown."""
    counts = Counter(stream.status for stream in found)
    counts[""], counts[TROUBLED] = len(found), sum(map(queries.is_troubled, found))
    return [
        {
            "key": key,
            "label": label,
            "count": counts[key],
            "url": _address(key, words),
            "is_chosen": key == chosen,
        }
        for key, label in FILTERS.items()
        if counts[key] or key == chosen
    ]


def _address(chosen: str, words: str, number: int = 1) -> str:
    given = (("status", chosen), ("q", words), ("page", number if number > 1 else ""))
    asked = urlencode({key: value for key, value in given if value})
    return reverse("index") + (f"?{asked}" if asked else "")


def _cards(shown: list[Stream], room: queries.Room) -> list[dict[str, Any]]:
    """Each with what it waits for, if it is queued. That no host lives is said once, above them all."""
    ahead = {} if room.slots is None else room.ahead_by_stream()
    return [
        {
            "stream": card.stream,
            "capture": card.capture,
            "best_id": card.best_id,
            "is_troubled": queries.is_troubled(card.stream),
            "waiting": _waiting(room.slots or 0, ahead.get(card.stream.pk, 0), card.stream),
        }
        for card in queries.cards(shown)
    ]


def _waiting(slots: int, ahead: int, stream: Stream) -> str:
    return outcomes.why_not_yet(slots, ahead) if stream.status == Status.QUEUED else ""


# --- one stream -----------------------------------------------------------------------------------


@require_safe
def stream(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(_streams(), name=name)
    capture = found.captures.order_by("-id").first()
    if capture:
        capture.stream = found
    frames = list(queries.ranked_frames(capture)) if capture else []
    context = {
        "stream": found,
        "settings": found if capture is None or capture.is_finished else capture,
        "capture": None,
        "frames": frames,
        "history": Paginator(queries.history(found), queries.PAGE_LENGTH).get_page(request.GET.get("page")),
        "live_url": request.get_full_path(),
    }
    if capture:
        context |= results.context(capture, frames)
    return _live(request, "streams/stream.html", context)


@call
def start(request: HttpRequest, fields: dict[str, str], name: str) -> HttpResponse:
    """Capture it again with the settings that it has."""
    found = get_object_or_404(Stream, name=name)
    try:
        services.start_again(found)
    except services.StartRefused as error:
        return answers.refusal(request, 404 if error.code == "unknown_stream" else 409, error.code, str(error))
    except AddressRefused as error:
        return answers.refusal(request, 400, error.code, str(error))
    return _see(reverse("stream", args=[name]))


@call
def stop(request: HttpRequest, fields: dict[str, str], name: str) -> HttpResponse:
    """To the page of the capture that ends: it says when the grid is there."""
    capture = services.stop(get_object_or_404(_streams(), name=name))
    if capture is None:
        return answers.refusal(request, 404, "no_capture", f"{name} has no capture: there is nothing to stop.")
    return _see(reverse("capture", args=[capture.pk]))


def _streams() -> "QuerySet[Stream]":
    return Stream.objects.defer("credentials")


# --- one capture ----------------------------------------------------------------------------------


@require_safe
def capture(request: HttpRequest, capture_id: int) -> HttpResponse:
    rows = Capture.objects.select_related("stream").defer("stream__credentials")
    found = get_object_or_404(rows, pk=capture_id)
    frames = list(queries.ranked_frames(found))
    if answers.wants(request) == "json":
        return answers.data(outcomes.result_data(found, frames))
    context = results.context(found, frames)
    context |= {
        "grid": reverse("grid", args=[capture_id]) if _is_there(found.grid) else "",
        "live_url": reverse("capture", args=[capture_id]),
    }
    return _live(request, results.TEMPLATE, context)


def _is_there(image: FieldFile) -> bool:
    """A storage that is away says nothing of the picture."""
    try:
        return bool(image) and image.storage.exists(str(image.name))
    except OSError:
        return True


# --- links and sign-out ---------------------------------------------------------------------------


@call
def link(request: HttpRequest, fields: dict[str, str]) -> HttpResponse:
    """A page with a link to a picture, to copy."""
    form = links.LinkForm(fields)
    if not form.is_valid():
        return answers.mistaken(request, mistakes(form))
    try:
        made = links.make(request, form)
    except links.Refused as error:
        return answers.refusal(request, error.status, error.code, str(error), error.fields)
    return answers.page(request, "streams/link.html", {"link": made, "back": _page_of(made.path)}, 201)


def _page_of(picture: str) -> str:
    """The page that shows a picture."""
    match resolve(picture).kwargs:
        case {"name": name}:
            return reverse("stream", args=[name])
        case {"capture_id": capture_id}:
            return reverse("capture", args=[capture_id])
    return reverse("index")


@call
def sign_out(request: HttpRequest, fields: dict[str, str]) -> HttpResponse:
    logout(request)
    return _see(reverse("index"))


# --- answers --------------------------------------------------------------------------------------


def _live(request: HttpRequest, template: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
    """The whole page; to a page that looks again its live part, or 304 if that is as it was."""
    is_part = bool(request.htmx)  # type: ignore[attr-defined]  # its middleware's
    base = "part.html" if is_part else "base.html"
    response = answers.page(request, template, {**context, "base": base}, status)
    if not is_part:
        return response
    tag = hashlib.sha256(response.content).hexdigest()[:16]
    if request.htmx.ptag == tag:  # type: ignore[attr-defined]
        return answers.of_the_moment(HttpResponseNotModified())
    response["HX-PTag"] = tag
    return response


def _see(url: str) -> HttpResponse:
    """After a POST: the page to read next."""
    response = HttpResponseRedirect(url)
    response.status_code = 303
    return response


@public
@require_safe
def icon(request: HttpRequest) -> HttpResponse:
    """Browsers ask for it where a page names none: the admin's, and pictures by themselves."""
    return redirect(static("streams/icon.svg"), permanent=True)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _error(request, 400)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _error(request, 403)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _error(request, 404)


def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Of a form of the admin, or of a POST to what takes none."""
    words = "The form was too old, or came from another site, or cookies are switched off: reload it and try again."
    return answers.refusal(request, 403, "csrf_failed", words)


def _error(request: HttpRequest, status: int) -> HttpResponse:
    title, code, words = _ERRORS[status]
    return answers.refusal(request, status, code, words, title=title)
