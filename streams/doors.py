"""What comes in by HTTP as plain fields, and who may send it."""

import json
import re

from django.conf import settings
from django.core.exceptions import BadRequest, SuspiciousOperation
from django.http import HttpRequest, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.utils.http import is_same_domain

_TRUTHS = ("verify_certificate",)  # fields that are true or false in JSON; a form has them as text
_TEXTS = (
    "rtsp_url", "interval", "count", "name", "transport", "username", "password", "process_name", "path", "expires_in"
)  # fmt: skip
_FILTERS = ("status", "text", "after", "limit", "stream", "state", "ending", "started_after", "started_before")
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_FRAMES = ("iframe", "frame", "embed", "object", "fencedframe")
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
    """The fields of a JSON object as they are; none without a body. Raises BadInput."""
    _check_size(request)
    if not _length(request):
        return {}
    if request.content_type != "application/json":
        raise WrongType("The body must be JSON, with the header Content-Type: application/json.")
    found = _json(request)
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
    return origin is not None and not _is_ours(request, origin)


def is_foreign_part(request: HttpRequest) -> bool:
    """Whether a browser says that this would be a part of another site's page: its picture, script or frame.

    Not a link that somebody follows.
    """
    if request.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none"):
        return False
    is_followed = request.headers.get("Sec-Fetch-Mode") == "navigate"
    return not is_followed or request.headers.get("Sec-Fetch-Dest") in _FRAMES


def tells_site(request: HttpRequest) -> bool:
    """Whether a browser says where this comes from."""
    return "Origin" in request.headers or "Sec-Fetch-Site" in request.headers


def is_from_our_page(request: HttpRequest) -> bool:
    """By what browsers say that are older than those headers."""
    return _is_ours(request, "/".join(request.headers.get("Referer", "").split("/")[:3]))


def bearer_token(request: HttpRequest) -> str | None:
    """What is sent as a token; None: nothing is. Other schemes are for a proxy in front."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip(" \t") if scheme.lower() == "bearer" else None


def _is_ours(request: HttpRequest, origin: str) -> bool:
    """By HTTPS no page that came by plain http is: whoever sits on the way can make one of our name."""
    names = [f"https://{request.get_host()}"] + ([] if request.is_secure() else [f"http://{request.get_host()}"])
    return origin in names or _is_trusted(origin)


def _is_trusted(origin: str) -> bool:
    """Whether it is ours, where a proxy changes the host name: CSRF_TRUSTED_ORIGINS, with "*." for each subdomain."""
    scheme, _, host = origin.partition("://")
    trusted = (known.partition("://") for known in settings.CSRF_TRUSTED_ORIGINS)
    return any(scheme == its and is_same_domain(host, name.removeprefix("*")) for its, _, name in trusted)


def _form(request: HttpRequest) -> dict[str, str]:
    try:
        if request.content_type == _FORMS[0]:
            request.body.decode("utf-8")  # Django would read other bytes as Latin-1
        lists = dict(request.POST.lists())
    except (BadRequest, SuspiciousOperation, MultiPartParserError, UnreadablePostError, ValueError, LookupError):
        raise BadInput("The form is broken, too large or not UTF-8.") from None
    check_single([name for name, values in lists.items() for _ in values])
    return {name: str(values[-1]) for name, values in lists.items()}


def _json(request: HttpRequest) -> dict[str, object]:
    try:
        data = json.loads(request.body.decode("utf-8"), object_pairs_hook=_object)
    except BadInput:
        raise
    except (SuspiciousOperation, UnreadablePostError, ValueError, RecursionError):
        raise BadInput("The body is not valid JSON in UTF-8, or too large.") from None
    if not isinstance(data, dict):
        raise BadInput("The body must be a JSON object with the call's fields.")
    return data


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    check_single([name for name, _ in pairs])
    return dict(pairs)


def check_single(names: list[str]) -> None:
    """Raises BadInput for a field that is given more than once: one of the values would be ignored."""
    for name in (*_TEXTS, *_TRUTHS, *_FILTERS):
        if names.count(name) > 1:
            raise BadInput(f"{name} is given more than once: give it once.", field=name)


def _text(name: str, value: object) -> str:
    if isinstance(value, bool) and name in _TRUTHS:
        return str(value).lower()
    if name not in _TEXTS and name not in _TRUTHS:
        return str(value)  # of a field that no call has: the call says so, whatever is in it
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise BadInput(f"{shown(name)} must be text or a number.", field=shown(name))
    return str(value)
