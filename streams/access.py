"""Who is let in, once API_TOKEN is set: who sends a token, the staff that is signed in, whoever has a signed link.

Every view is closed but those marked as public, and the admin, which asks for itself.
"""

from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from typing import Any, TypeVar
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import Error as DatabaseFailed
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from django.urls import reverse

from . import answers, doors, links

SAFE = ("GET", "HEAD")
PAGES_OF_THE_API = ("openapi-view", "home")
WORDS = "Only who has a token, or is signed in as staff, may do this: send Authorization: Bearer <token> or sign in."

V = TypeVar("V", bound=Callable[..., HttpResponseBase])


def public(view: V) -> V:
    """Open to all who reach the service."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


def refused(request: HttpRequest, view: Callable[..., Any]) -> HttpResponse | None:
    """What is answered in place of the view; None: it may be asked. Raises the database's errors."""
    if links.is_for(request, view):
        return _bad_link(request)
    if doors.is_foreign_part(request):
        return answers.refusal(request, 403, "cross_site", "A page of another site may not show or load this.")
    if not settings.API_TOKENS or _is_open(request, view):
        return None
    token = doors.bearer_token(request)
    if token is not None:
        return None if _is_ours(token) else _unauthorized(request)
    if not is_staff(request):
        return _unauthorized(request)
    if request.method not in ("GET", "HEAD", "OPTIONS") and not _is_meant(request):
        words = "A page of another site may not do this; this request names none of ours as Origin or Referer."
        return answers.refusal(request, 403, "cross_site", words)
    return None


def is_staff(request: HttpRequest) -> bool:
    """Whether somebody is signed in who may use the admin."""
    user = _user(request)
    return bool(user.is_active and getattr(user, "is_staff", False))


def sign_in_url(address: str) -> str:
    """Where one signs in, to go on at this address of ours."""
    return f"{reverse('admin:login')}?{urlencode({'next': address})}"


def visitor(request: HttpRequest) -> dict[str, Any]:
    """For templates: who is signed in, and whether it matters. They ask only on whole pages."""
    return {"visitor": lambda: _name(request), "is_guarded": bool(settings.API_TOKENS)}


def _name(request: HttpRequest) -> str:
    """Empty for nobody, and while nobody can tell: it is on the page that says that the database is away, too."""
    try:
        user = _user(request)
        return user.get_username() if user.is_authenticated else ""
    except DatabaseFailed:
        return ""


def _user(request: HttpRequest) -> AbstractBaseUser | AnonymousUser:
    return getattr(request, "user", None) or AnonymousUser()  # none where an earlier middleware has refused


def _is_open(request: HttpRequest, view: Callable[..., Any]) -> bool:
    match = request.resolver_match
    return getattr(view, "is_public", False) or (match is not None and match.app_names[:1] == ["admin"])


def _is_ours(token: str) -> bool:
    """In the same time whatever is wrong with it, and whichever it is."""
    given = sha256(token.encode()).digest()
    return sum(compare_digest(given, sha256(known.encode()).digest()) for known in settings.API_TOKENS) > 0


def _bad_link(request: HttpRequest) -> HttpResponse | None:
    try:
        links.check(request)
    except links.Refused as error:
        return answers.refusal(request, error.status, error.code, str(error))
    return None


def _unauthorized(request: HttpRequest) -> HttpResponse:
    """A browser that goes to a page is sent to sign in, and so is a page that looks again."""
    if _is_page(request):
        return answers.of_the_moment(HttpResponseRedirect(sign_in_url(request.get_full_path())))
    response = answers.refusal(request, 401, "unauthorized", WORDS, title="Sign in first")
    response["WWW-Authenticate"] = "Bearer"
    htmx = getattr(request, "htmx", None)
    if htmx:
        response["HX-Redirect"] = sign_in_url(htmx.current_url_abs_path or reverse("index"))
    return response


def _is_page(request: HttpRequest) -> bool:
    accept, match = request.headers.get("Accept", ""), request.resolver_match
    is_call = doors.is_api(request) and not (match and match.url_name in PAGES_OF_THE_API)
    is_wanted = "text/html" in accept and "application/json" not in accept
    return request.method in SAFE and is_wanted and not is_call and not getattr(request, "htmx", None)


class _Token(CsrfViewMiddleware):
    """Django's own check, for views that are exempt from it."""

    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        return HttpResponse(reason, status=403)


def _is_meant(request: HttpRequest) -> bool:
    """Whether one of our pages sends what the session allows: browsers say so, old ones by their Referer alone."""
    if doors.tells_site(request):
        return not doors.is_cross_site(request)
    if doors.is_from_our_page(request):
        return True
    return _Token(lambda _: HttpResponse()).process_view(request, _nothing, (), {}) is None


def _nothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse()
