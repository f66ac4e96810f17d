"""What holds for every request, whoever answers it: our pages, the API, the admin or the static files."""

import logging
import math
import time
import weakref
from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import BadRequest
from django.db import Error as DatabaseFailed
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.security import SecurityMiddleware
from django.utils.encoding import escape_uri_path

from . import access, answers, capacity, database_faults, doors

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5
SAY_AGAIN_S = 60.0

Answer = Callable[[HttpRequest], HttpResponseBase]

# What is no page loads and runs nothing. A browser shows a picture in a page of its own making, with a style in it.
NO_PAGE_POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_DEVICES = "camera display-capture geolocation microphone midi payment usb accelerometer gyroscope magnetometer"
SAFE = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{device}=()" for device in _DEVICES.split()),
    "X-Frame-Options": "DENY",
}


class SecureHeaders:
    """Sets on every answer what the view has not set: on files, redirects and refusals, too, which reach no view.

    Outermost, so that it also sees what is answered in place of an error in any middleware, as for a wrong Host.
    """

    def __init__(self, get_response: Answer) -> None:
        self._get_response = get_response
        self._security = SecurityMiddleware(get_response)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        self._security.process_response(request, response)  # type: ignore[arg-type]  # it sets headers alone
        is_page = response.get("Content-Type", "").startswith("text/html")
        response.setdefault(
            "Content-Security-Policy", (answers.PAGE_POLICY if is_page else NO_PAGE_POLICY) + answers.UNFRAMED
        )
        for name, value in SAFE.items():
            response.setdefault(name, value)
        return response


class Head:
    """Answers a HEAD as the GET but without the body, which gunicorn would cut off, and warn. The header with its
    length is written further in, by Django."""

    def __init__(self, get_response: Answer) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        is_head = request.method == "HEAD"  # before a view takes it for a GET
        response = self._get_response(request)
        if is_head:
            _empty(response)
        return response


class Capacity:
    """Refuses requests that would wait in vain for a thread, so health checks find one. Logs one line a minute."""

    def __init__(self, get_response: Answer) -> None:
        self._get_response = get_response
        self._said_s = -math.inf

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        is_file = request.path_info in capacity.FILES and request.method in ("GET", "HEAD")
        if is_file or request.path_info in capacity.PROBES:
            return self._get_response(request)
        places = capacity.PLACES
        if not places.take():
            return self._refused(request)
        try:
            response = self._get_response(request)
        except BaseException:
            places.give_back()
            raise
        # Once, when the answer is sent and closed; or when it is dropped, should nobody close it.
        give_back = weakref.finalize(response, places.give_back)
        give_back.atexit = False
        response._resource_closers.append(give_back)  # type: ignore[attr-defined]  # as Django's own parts do
        return response

    def _refused(self, request: HttpRequest) -> HttpResponse:
        now_s = time.monotonic()
        if now_s - self._said_s >= SAY_AGAIN_S:
            self._said_s = now_s
            log.warning("website busy requests=%s", capacity.PLACES.taken)
        request.user = AnonymousUser()  # the database may be what all requests wait for, so it is not queried
        words = "The website is busy: all requests that it can answer at a time wait. Try again in a moment."
        return _for_a_moment(answers.refusal(request, 503, "busy", words))


class NeedsHost:
    """Refuses HTTP/1.1 without a Host header (RFC 9112, section 3.2), which gunicorn lets through: Django would take
    the address that the website listens on for the name. A probe by HTTP/1.0 may leave it out."""

    def __init__(self, get_response: Answer) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if "HTTP_HOST" not in request.META and request.META.get("SERVER_PROTOCOL") != "HTTP/1.0":
            raise BadRequest
        return self._get_response(request)


class NoNul:
    """No text that is kept holds a NUL, and PostgreSQL takes none: an address with one is none, a query with one is
    refused. The API says itself what is wrong with a query."""

    def __init__(self, get_response: Answer) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if "\0" in request.path_info:
            raise Http404
        if "%00" in request.META.get("QUERY_STRING", "") and not doors.is_api(request):
            raise BadRequest
        return self._get_response(request)


class DatabaseAway:
    """Answers 503 with the right code if the database is away or damaged, its disk is full or another session holds a
    lock. The log has one line a minute for each code."""

    def __init__(self, get_response: Answer) -> None:
        self._get_response = get_response
        self._said_s: dict[str, float] = {}

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not database_faults.is_of_database(error):
            return None
        fault, now_s = database_faults.fault_of(error), time.monotonic()
        if now_s - self._said_s.get(fault.code, -math.inf) >= SAY_AGAIN_S:
            self._said_s[fault.code] = now_s
            path = escape_uri_path(request.path)  # a line break in it would be a line of its own
            log.error("%s %s failed: %s error=%s", request.method, path, fault.event, type(error).__name__)
        request.user = AnonymousUser()  # who else it may be would be asked of the database, for the page's header
        return _for_a_moment(answers.refusal(request, 503, fault.code, fault.words))


class Guard(DatabaseAway):
    """Lets nobody come to a view who may not. Whoever is signed in stands in the database: for what goes wrong before
    a view is called Django asks no other middleware for an answer."""

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]
    ) -> HttpResponse | None:
        try:
            return access.refused(request, view)
        except DatabaseFailed as error:
            if answer := self.process_exception(request, error):
                return answer
            raise


def _for_a_moment(response: HttpResponse) -> HttpResponse:
    """Add Retry-After to a 503, and keep Django from logging it again."""
    response["Retry-After"] = str(RETRY_AFTER_S)
    response._has_been_logged = True  # type: ignore[attr-defined]  # Django would say it again
    return response


def _empty(response: HttpResponseBase) -> None:
    """What would have been streamed is not begun, and closed with the response."""
    if response.streaming:
        response.streaming_content = ()  # type: ignore[attr-defined]
        return
    response.content = b""  # type: ignore[attr-defined]
