"""What holds for every request, whoever answers it: our pages, the API, the admin or the static files."""

import logging
import math
import time
from collections.abc import Callable

from django.core.exceptions import BadRequest
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.encoding import escape_uri_path

from . import answers, doors

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5
SAY_AGAIN_S = 60.0

Answer = Callable[[HttpRequest], HttpResponseBase]


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
    """Whatever needs the database while it is away is answered with 503. The log has a line a minute."""

    def __init__(self, get_response: Answer) -> None:
        self._get_response = get_response
        self._said_s = -math.inf

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, OperationalError | InterfaceError):
            return None
        now_s = time.monotonic()
        if now_s - self._said_s >= SAY_AGAIN_S:
            self._said_s = now_s
            path = escape_uri_path(request.path)  # a line break in it would be a line of its own
            log.error("%s %s failed: database away error=%s", request.method, path, type(error).__name__)
        words = "The database is away: try again in a moment. What is being captured goes on meanwhile."
        response = answers.refusal(request, 503, "database_away", words)
        response["Retry-After"] = str(RETRY_AFTER_S)
        response._has_been_logged = True  # type: ignore[attr-defined]  # Django would say it again
        return response


def _empty(response: HttpResponseBase) -> None:
    """What would have been streamed is not begun, and closed with the response."""
    if response.streaming:
        response.streaming_content = ()  # type: ignore[attr-defined]
        return
    response.content = b""  # type: ignore[attr-defined]
