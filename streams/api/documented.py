"""A call of the API with all that OpenAPI tells of it."""

from collections.abc import Callable
from typing import Any, TypeVar

from django import forms
from ninja import Router

from .. import access
from . import inputs, schemas

F = TypeVar("F", bound=Callable[..., Any])

# Status: when, and an example of its code and sentence.
_ERRORS = {
    400: (
        "Wrong input: nothing is changed.",
        "invalid_interval",
        "interval must be a number of seconds from 0.1 to 86400.",
    ),
    401: (
        "API_TOKEN is set, and the call brings none of its tokens and no staff session.",
        "unauthorized",
        access.WORDS,
    ),
    403: ("A browser sends it from a page of another site.", "cross_site", "A page of another site may not do this."),
    404: ("There is no such thing.", "unknown_stream", "No stream has this name."),
    409: (
        "It contradicts what is there: nothing is changed.",
        "in_progress",
        "demo is being captured: stop it first.",
    ),
    413: ("The body is too large.", "invalid_body", "The body is too large: 64 kB is the limit."),
    415: (
        "The body is not JSON.",
        "invalid_body",
        "The body must be JSON, with the header Content-Type: application/json.",
    ),
    503: (
        "The service cannot answer now: `database_away`, `database_busy` (another session holds a lock), "
        "`storage_full` (the database's disk is full), `database_damaged` (it needs repair) or `busy` (all requests "
        "that the website can answer wait). Try again after `Retry-After` seconds. Captures go on meanwhile.",
        "database_away",
        "The database is away: try again in a moment. What is being captured goes on meanwhile.",
    ),
}
_GOOD = {
    "ok": (200, "As asked."),
    "running": (200, "It was running already."),
    "created": (201, "It is there now."),
    "unfinished": (
        202,
        "It is not finished after 10 s, or many clients wait for a grid already: ask for the capture a little later.",
    ),
    "gone": (204, "It is gone."),
    "too_few": (409, "Fewer frames than were asked for: those that there are."),
}
_WRITE = (413, 415)
_ALWAYS = (400, 401, 403, 503)


def call(
    router: Router,
    method: str,
    path: str,
    summary: str,
    *refusals: int,
    tag: str,
    answers: dict[str, Any],
    form: type[forms.Form] | None = None,
    example: dict[str, Any] | None = None,
) -> Callable[[F], F]:
    """Routes a function. `answers` are models by the keys of _GOOD; `form` is the body's, or the query's of a GET."""
    if method != "GET":
        refusals = (*refusals, *_WRITE)
    refusals = (*refusals, *_ALWAYS)
    good = {_GOOD[key][0]: model for key, model in answers.items()}
    told: dict[str, Any] = {"responses": {_GOOD[key][0]: {"description": _GOOD[key][1]} for key in answers}}
    told["responses"] |= {status: _error(status) for status in refusals if status not in good}
    if form:
        told |= inputs.documented(method, form, example or {})

    def route(function: F) -> F:
        operation = router.api_operation(
            [method],
            path,
            response=good | {status: schemas.Error for status in refusals if status not in good},
            operation_id=function.__name__,
            summary=summary,
            url_name=function.__name__,
            tags=[tag],
            openapi_extra=told,
        )
        operation(function)
        return function

    return route


def _error(status: int) -> dict[str, Any]:
    when, code, words = _ERRORS[status]
    fields = {code.removeprefix("invalid_"): {"code": code, "message": words}} if status in (400, 413, 415) else {}
    example = {"code": code, "message": words, "fields": fields}
    return {"description": when, "content": {"application/json": {"example": example}}}
