"""How a call is let in and answered: as text, JSON, a page, or a page that is one file."""

from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.csrf import csrf_exempt

from . import doors

# Pages load from this service alone; their forms go to it alone.
PAGE_POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'"
)
# One file: nothing is loaded from anywhere, no script runs.
FILE_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'"
UNFRAMED = "; frame-ancestors 'none'"  # not for a meta element: browsers ignore it there, and say so
STYLE = Path(__file__).parent / "static" / "streams" / "site.css"

View = Callable[..., HttpResponse]
Mistakes = dict[str, dict[str, str]]


def call(view: View) -> View:
    """A POST from curl, a client or our own pages, with its own protection against other sites' pages."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method != "POST":
            response = refusal(request, 405, "wrong_method", f"{request.path} takes POST only.")
            response["Allow"] = "POST"
            return response
        if doors.is_cross_site(request):
            return refusal(request, 403, "cross_site", "A page of another site may not do this.")
        try:
            return view(request, doors.fields(request), *args, **kwargs)
        except doors.BadInput as error:
            return mistaken(request, {error.field: {"code": error.code, "message": str(error)}})

    return csrf_exempt(guarded)


def wants(request: HttpRequest) -> str:
    """What the client takes: json, html (browsers) or text (curl and all others)."""
    accept = request.headers.get("Accept", "")
    if "application/json" in accept or doors.is_api(request):
        return "json"
    return "html" if "text/html" in accept else "text"


def data(found: dict[str, Any], status: int = 200) -> HttpResponse:
    return of_the_moment(JsonResponse(found, status=status))


def text(words: str, status: int = 200) -> HttpResponse:
    return of_the_moment(HttpResponse(words + "\n", content_type="text/plain; charset=utf-8", status=status))


def page(request: HttpRequest, template: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
    return _guarded(render(request, template, context, status=status), PAGE_POLICY)


def one_file(request: HttpRequest, template: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
    """The page with its style inside: it can be saved, and opened with the server gone."""
    inside = {**context, "is_one_file": True, "policy": FILE_POLICY, "style": _style()}
    return _guarded(render(request, template, inside, status=status), FILE_POLICY)


def mistaken(request: HttpRequest, found: Mistakes, status: int = 400) -> HttpResponse:
    """Wrong input: a sentence for each field."""
    first = next(iter(found.values()))
    return refusal(request, status, first["code"], [m["message"] for m in found.values()], found)


def refusal(
    request: HttpRequest,
    status: int,
    code: str,
    words: str | list[str],
    fields: Mistakes | None = None,
    title: str = "That did not work",
) -> HttpResponse:
    """/stop, whose answer is saved as a page, answers with one in any case."""
    lines = [words] if isinstance(words, str) else words
    if wants(request) == "json":
        return data({"code": code, "message": " ".join(lines), "fields": fields or {}}, status)
    context = {"title": title, "lines": lines, "code": code}
    if request.path == reverse("stop"):
        return one_file(request, "streams/message.html", context, status)
    if wants(request) == "html":
        return page(request, "streams/message.html", context, status)
    return text("\n".join(lines), status)


def of_the_moment(response: HttpResponse) -> HttpResponse:
    """Kept by nobody; and who keeps it nevertheless takes no part for the page, and no JSON for either."""
    response["Cache-Control"] = "no-store"
    patch_vary_headers(response, ["Accept", "HX-Request"])
    return response


def _guarded(response: HttpResponse, policy: str) -> HttpResponse:
    response["Content-Security-Policy"] = policy + UNFRAMED
    return of_the_moment(response)


@cache
def _style() -> SafeString:
    return mark_safe(STYLE.read_text())  # noqa: S308  # our own file
