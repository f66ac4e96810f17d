"""From a request to a valid form, and from a form to what OpenAPI tells of it: the forms are the only rules."""

import json
from typing import Any, TypeVar

from django import forms
from django.http import HttpRequest

from .. import doors, links
from ..answers import Mistakes
from ..engine.address import MAX_URL_LENGTH
from ..forms import ChangeForm, CredentialField, TruthField, fields_of_query, mistakes, unknown_fields
from ..models import DEFAULT_COUNT, DEFAULT_INTERVAL_S, Transport
from .errors import Mistaken
from .forms import DEFAULT_LIMIT, MomentField

F = TypeVar("F", bound=forms.Form)

_LEFT_OUT = "If left out: {} for a new stream, otherwise as stored."
_DESCRIPTIONS = {
    "rtsp_url": "rtsp:// or rtsps://, with user name and password if the camera asks for them: they are kept apart "
    "and never told again. Write %40 for an @ and %2F for a / in a password.",
    "interval": f"Seconds from one sample to the next. {_LEFT_OUT.format(f'{DEFAULT_INTERVAL_S:g}')}",
    "count": f"Frames to keep. {_LEFT_OUT.format(DEFAULT_COUNT)}",
    "name": "Name of a new stream; if left out, the last part of the address.",
    "transport": f"What the camera is asked for first. {_LEFT_OUT.format(Transport.TCP.value)}",
    "username": "For the camera, if the address has none. Taken as it is, never told again. A known "
    "stream keeps the credentials that are stored for its address if you give no user name.",
    "password": "For the camera, if the address has none. Taken as it is, never told again.",
    "verify_certificate": "By rtsps: whether the camera has to have a certificate that this host trusts. "
    f"{_LEFT_OUT.format('true')}",
    "path": "Of a picture: a path, or the whole address that the API has told. /streams/<name>/best.jpg is the best "
    "frame of the stream's latest capture, whenever it is looked at.",
    "expires_in": "Seconds for which the link is open.",
    "process_name": "The name that the start answered with.",
    "status": "Streams of this status.",
    "text": "Streams with this in their name, URL or last error.",
    "after": "Only what comes after this one in the list: the `next` of each page has it.",
    "limit": "How many at most.",
    "stream": "Captures of the stream of this name.",
    "state": "Captures that stand so.",
    "ending": "Captures that are over, and why.",
    "started_after": "Captures that were started after this moment.",
    "started_before": "Captures that were started before this moment.",
}
# PATCH has no new stream: there the call itself says what happens to a field that is left out.
_CHANGES = {
    "interval": "Seconds from one sample to the next.",
    "count": "Frames to keep.",
    "name": "Another name for the stream.",
    "transport": "What the camera is asked for first.",
    "username": "For the camera, if the address has none. Taken as it is, never told again. Null removes both.",
    "password": "For the camera, if the address has none. Taken as it is, never told again. Null removes it.",
    "verify_certificate": "By rtsps: whether the camera has to have a certificate that this host trusts.",
}
_DEFAULTS = {"limit": DEFAULT_LIMIT, "expires_in": links.DEFAULT_S}


# --- requests -------------------------------------------------------------------------------------


def body(request: HttpRequest, form_class: type[F]) -> F:
    """The JSON body as a valid form. Raises Mistaken and doors.BadInput."""
    given = doors.json_fields(request)
    fields = form_class().fields
    meant = {name: value for name, value in given.items() if value is not None}
    if issubclass(form_class, ChangeForm):
        meant |= {name: "" for name in given.keys() - meant.keys() if isinstance(fields.get(name), CredentialField)}
    texts = {name: _text(name, value, fields.get(name)) for name, value in meant.items()}
    return _valid(form_class, texts, fields_of_query(request.GET))


def query(request: HttpRequest, form_class: type[F]) -> F:
    """The query as a valid form. Raises Mistaken and doors.BadInput."""
    doors.check_single([name for name, values in request.GET.lists() for _ in values])
    return _valid(form_class, {name: str(value) for name, value in request.GET.items()})


def _valid(form_class: type[F], given: dict[str, str], misplaced: Mistakes | None = None) -> F:
    form = form_class(given)
    found = unknown_fields(form, given) | (misplaced or {}) | mistakes(form)
    well_named = (given.keys() & form.fields.keys()) - found.keys()
    found |= {name: _not_empty(form, name) for name in sorted(well_named) if _is_left_empty(form, given, name)}
    if found:
        raise Mistaken(found)
    return form


def _text(name: str, value: object, field: forms.Field | None) -> str:
    """As the form reads it: what is no number in JSON is none in the form either."""
    if isinstance(field, forms.IntegerField):
        is_whole = isinstance(value, float) and value.is_integer() and not isinstance(field, forms.FloatField)
        return json.dumps(int(value) if is_whole else value)  # type: ignore[call-overload]
    if isinstance(field, TruthField):
        return json.dumps(value) if isinstance(value, bool) else "?"  # text is not taken for a truth
    if field and not isinstance(value, str):
        raise doors.BadInput(f"{name} must be text.", field=name)
    return str(value)


def _is_left_empty(form: forms.Form, given: dict[str, str], name: str) -> bool:
    """A browser's form has empty fields; here what is not meant is left out. Text may be empty."""
    return not given[name] and type(form.fields[name]) not in (forms.CharField, CredentialField)


def _not_empty(form: forms.Form, name: str) -> dict[str, str]:
    return {"code": f"invalid_{name}", "message": str(form.fields[name].error_messages["invalid"])}


# --- OpenAPI --------------------------------------------------------------------------------------


def documented(method: str, form_class: type[forms.Form], example: dict[str, Any]) -> dict[str, Any]:
    """Of a GET the query, of all others the body."""
    if method == "GET":
        return {"parameters": _query(form_class)}
    return {"requestBody": _body(form_class, example)}


def _body(form_class: type[forms.Form], example: dict[str, Any]) -> dict[str, Any]:
    fields, told = form_class().fields, _documented(form_class)
    schema = {
        "type": "object",
        "title": form_class.__name__.removesuffix("Form"),
        "properties": {name: _or_null(field, told[name]) for name, field in fields.items()},
        "required": [name for name, field in fields.items() if field.required],
        "additionalProperties": False,
    }
    is_required = any(field.required for field in fields.values())
    return {"required": is_required, "content": {"application/json": {"schema": schema, "example": example}}}


def _or_null(field: forms.Field, told: dict[str, Any]) -> dict[str, Any]:
    """As if it were left out."""
    if field.required:
        return told
    enum = {"enum": [*told["enum"], None]} if "enum" in told else {}
    return told | {"type": [told["type"], "null"]} | enum


def _query(form_class: type[forms.Form]) -> list[dict[str, Any]]:
    return [_parameter(name, schema) for name, schema in _documented(form_class).items()]


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "in": "query",
        "name": name,
        "required": False,
        "description": schema.pop("description"),
        "schema": schema,
    }


def _documented(form_class: type[forms.Form]) -> dict[str, dict[str, Any]]:
    """The schema of each field."""
    descriptions = _DESCRIPTIONS | (_CHANGES if issubclass(form_class, ChangeForm) else {})
    return {
        name: {"description": descriptions[name], **_type(name, field)}
        | ({"default": _DEFAULTS[name]} if name in _DEFAULTS else {})
        for name, field in form_class().fields.items()
    }


def _type(name: str, field: forms.Field) -> dict[str, Any]:
    if isinstance(field, forms.IntegerField):
        kind = "number" if isinstance(field, forms.FloatField) else "integer"
        return {"type": kind, "minimum": field.min_value, "maximum": field.max_value}
    if isinstance(field, forms.ChoiceField):
        return {"type": "string", "enum": [value for value, _ in list(field.choices)]}  # type: ignore[arg-type]
    if isinstance(field, forms.RegexField):
        pattern = str(field.regex.pattern).replace(r"\A", "^").replace(r"\Z", "$")
        return {"type": "string", "pattern": pattern}
    if isinstance(field, MomentField):
        return {"type": "string", "format": "date-time"}
    if isinstance(field, TruthField):
        return {"type": "boolean"}
    if isinstance(field, CredentialField):
        pattern = "^[^\\x00-\\x1f\\x7f\ufffd]*$"
        told = {"type": "string", "pattern": pattern, "maxLength": field.max_length, "writeOnly": True}
        return told | ({"format": "password"} if name == "password" else {})
    if name == "path":
        return {"type": "string", "format": "picture-path", "maxLength": links.MAX_PATH_LENGTH}
    if name == "rtsp_url":
        return {"type": "string", "format": "rtsp-url", "maxLength": MAX_URL_LENGTH}
    longest = getattr(field, "max_length", None)
    pattern = "^[^\\x00\ufffd]*[^\\x00\ufffd\\s][^\\x00\ufffd]*$" if field.required else r"^[^\x00]*$"
    return {"type": "string", "pattern": pattern} | ({"maxLength": longest} if longest else {})
