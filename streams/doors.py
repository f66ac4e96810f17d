"""What comes in by HTTP as plain fields, and who may send it."""

import json
import re
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.http import HttpRequest, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.utils.http import is_same_domain

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_BROKEN = re.compile("[\ufffd\ud800-\udfff]")  # what is left of bytes or escapes that are no UTF-8


class BadInput(Exception):
    """The body is not what a call takes: one sentence, and the field if it is one field's fault."""

    def __init__(self, words: str, field: str = "body", code: str = "invalid_body") -> None:
        super().__init__(words)
        self.field = field
        self.code = code


class TooLarge(BadInput):
    """The body is longer than any call takes."""


class WrongType(BadInput):
    """The body is of a type that the call does not take."""


def fields(request: HttpRequest) -> dict[str, str]:
    """The fields of a form or of a JSON object, as text. Raises BadInput."""
    _check_size(request)
    if request.content_type in _FORMS:
        found = _form(request)
    elif request.content_type == "application/json":
        found = {name: _text(name, value) for name, value in _json(request).items() if value is not None}
    elif not request.content_type and not request.headers.get("Content-Length", "0").strip("0"):
        found = {}
    else:
        raise WrongType("The body must be a form (application/x-www-form-urlencoded) or application/json.")
    for name, value in found.items():
        _check_text(name, value)
    return found


def json_fields(request: HttpRequest) -> dict[str, object]:
    """The fields of a JSON object as they are, without those that are null; none without a body. Raises BadInput."""
    _check_size(request)
    if not _length(request):
        return {}
    if request.content_type != "application/json":
        raise WrongType("The body must be JSON, with the header Content-Type: application/json.")
    found = {name: value for name, value in _json(request).items() if value is not None}
    for name, value in found.items():
        _check_text(name, value if isinstance(value, str) else "")
    return found


def shown(name: str) -> str:
    """A field's name as far as it can be repeated to whoever sent it."""
    return _BROKEN.sub("?", name[:40])


def _check_size(request: HttpRequest) -> None:
    if request.headers.get("Transfer-Encoding"):
        raise BadInput("The body must come with a Content-Length, not in chunks.")
    if _length(request) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        raise TooLarge(f"The body is too large: {settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 1024} kB is the limit.")


def _check_text(name: str, value: str) -> None:
    if _BROKEN.search(value) or _BROKEN.search(name):
        raise BadInput(f"{shown(name)} is not valid UTF-8.", field=shown(name), code="invalid_text")


def _length(request: HttpRequest) -> int:
    """What Django takes for the length of the body: 0 where none is told, or none that is a number."""
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0


def is_api(request: HttpRequest) -> bool:
    """Whether it is for the API, which answers in JSON whatever is asked for."""
    return request.path_info.startswith("/api/")


def is_cross_site(request: HttpRequest) -> bool:
    """Whether a browser says that another site's page sends this. curl and API clients say nothing."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site not in ("same-origin", "none"):
        return True
    origin = request.headers.get("Origin")
    return origin is not None and _host_of(origin) != request.get_host() and not _is_trusted(origin)


def _is_trusted(origin: str) -> bool:
    """Whether it is ours, where a proxy changes the host name: CSRF_TRUSTED_ORIGINS, with "*." for each subdomain."""
    scheme, _, host = origin.partition("://")
    trusted = (known.partition("://") for known in settings.CSRF_TRUSTED_ORIGINS)
    return any(scheme == its and is_same_domain(host, name.removeprefix("*")) for its, _, name in trusted)


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _form(request: HttpRequest) -> dict[str, str]:
    try:
        if request.content_type == _FORMS[0]:
            request.body.decode("utf-8")  # Django would read other bytes as Latin-1
        return {name: str(value) for name, value in request.POST.items()}
    except (BadRequest, SuspiciousOperation, MultiPartParserError, UnreadablePostError, ValueError, LookupError):
        raise BadInput("The form is broken, too large or not UTF-8.") from None


def _json(request: HttpRequest) -> dict[str, object]:
    try:
        data = json.loads(request.body.decode("utf-8"))
    except (SuspiciousOperation, UnreadablePostError, ValueError, RecursionError):
        raise BadInput("The body is not valid JSON in UTF-8, or too large.") from None
    if not isinstance(data, dict):
        raise BadInput("The body must be a JSON object with the call's fields.")
    return data


def _text(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise BadInput(f"{shown(name)} must be text or a number.", field=shown(name))
    return str(value)
