"""Signed links: one address of a picture, open to whoever has the link, until a moment. Nothing is kept of them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import unquote, urlencode, urlsplit

from django import forms
from django.core.signing import BadSignature, Signer
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve
from django.utils.encoding import escape_uri_path

from . import database
from .forms import WholeNumberField, texts
from .models import Capture, Frame, Stream

MIN_S, MAX_S, DEFAULT_S = 60, 31 * 86_400, 86_400
MAX_PATH_LENGTH = 300
UNTIL, SIGNATURE = "until", "signature"
_MOMENT = re.compile(r"[0-9]{1,12}")
_STATUS = {"invalid_path": 400, "unknown_picture": 404, "link_invalid": 403, "link_expired": 403}
_SALT = "streams.links"

V = TypeVar("V", bound=Callable[..., HttpResponseBase])


class Refused(Exception):
    """One sentence and its code."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.status = _STATUS[code]
        self.fields = {"path": {"code": code, "message": words}} if code == "invalid_path" else {}


class LinkForm(forms.Form):
    """What a link is made of."""

    path = forms.CharField(
        max_length=MAX_PATH_LENGTH,
        error_messages=texts(f"path must be at most {MAX_PATH_LENGTH} characters.", "path is missing: of a picture."),
    )
    expires_in = WholeNumberField(
        required=False,
        min_value=MIN_S,
        max_value=MAX_S,
        error_messages=texts(f"expires_in must be a whole number of seconds from {MIN_S} to {MAX_S}."),
    )


@dataclass(frozen=True, slots=True)
class Link:
    path: str
    url: str
    expires_at: datetime


def make(request: HttpRequest, form: LinkForm) -> Link:
    """As the valid form asks for. The link begins with the address that the request was sent to. Raises Refused."""
    path, stream_id = _picture(form.cleaned_data["path"], request.get_host())
    until = int(database.now().timestamp()) + (form.cleaned_data["expires_in"] or DEFAULT_S)
    query = urlencode({UNTIL: until, SIGNATURE: _signer().signature(_signed(path, stream_id, str(until)))})
    url = request.build_absolute_uri(f"{escape_uri_path(path)}?{query}")
    return Link(path, url, datetime.fromtimestamp(until, UTC))


def _picture(address: str, host: str) -> tuple[str, int | None]:
    """The path of a picture, given as such or as a whole address of this host, and _stream_id(). Raises Refused."""
    try:
        parts = urlsplit(address)
        path = unquote(parts.path, errors="strict")
    except ValueError:
        raise _no_path() from None
    is_ours = not parts.netloc if not parts.scheme else (parts.scheme in ("http", "https") and parts.netloc == host)
    if not is_ours or parts.query or parts.fragment or "\0" in path:
        raise _no_path()
    try:
        match = resolve(path)
    except Resolver404:
        raise _no_path() from None
    if not getattr(match.func, "is_picture", False):
        raise _no_path()
    stream_id = _stream_id(match.kwargs)
    if stream_id is None and not _is_there(match.kwargs):
        raise Refused("unknown_picture", "There is no such stream, capture or frame, or not any more.")
    return path, stream_id


def _no_path() -> Refused:
    words = "path must be the address of a picture of this service: /captures/12/grid.jpg, /streams/demo/best.jpg ..."
    return Refused("invalid_path", words)


def _is_there(known: dict[str, Any]) -> bool:
    """What the address names; the picture itself may come later."""
    match known:
        case {"capture_id": pk}:
            return Capture.objects.filter(pk=pk).exists()
        case {"frame_id": pk}:
            return Frame.objects.filter(pk=pk).exists()
    return False


def _stream_id(known: dict[str, Any]) -> int | None:
    """Whose picture it is, where the address has the name of a stream: it may be another one's by then."""
    return Stream.objects.filter(name=known["name"]).values_list("pk", flat=True).first() if "name" in known else None


def open_to_links(view: V) -> V:
    """A picture's view: a link may open it."""
    view.is_picture = True  # type: ignore[attr-defined]
    return view


def is_for(request: HttpRequest, view: Callable[..., Any]) -> bool:
    """Whether the link decides: of anything else than a look at a picture its signature is not even read."""
    return request.method in ("GET", "HEAD") and getattr(view, "is_picture", False) and SIGNATURE in request.GET


def check(request: HttpRequest) -> None:
    """Raises Refused unless the link is ours and not over."""
    until, match = request.GET.get(UNTIL, ""), request.resolver_match
    stream_id = _stream_id(match.kwargs) if match else None
    signed = f"{_signed(request.path_info, stream_id, until)}:{request.GET[SIGNATURE]}"
    try:
        _signer().unsign(signed)
    except BadSignature:
        words = "This link was not made here, or something of it was changed, or its stream is gone."
        raise Refused("link_invalid", words) from None
    if not _MOMENT.fullmatch(until) or int(until) <= database.now().timestamp():
        raise Refused("link_expired", "This link is over: ask for a new one.")


def _signed(path: str, stream_id: int | None, until: str) -> str:
    return f"{until} {stream_id} {path}"


def _signer() -> Signer:
    """With SECRET_KEY; what SECRET_KEY_FALLBACKS signed holds, too. It compares in constant time."""
    return Signer(salt=_SALT)
