"""What is answered when something is not as it should be: always the same shape."""

from typing import Any, NoReturn

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from ninja import NinjaAPI

from .. import answers, doors, links, services
from ..engine.errors import AddressRefused

_BODY_STATUS = {doors.TooLarge: 413, doors.WrongType: 415}


class Mistaken(Exception):
    """Wrong input: code and sentence of each field."""

    def __init__(self, fields: answers.Mistakes) -> None:
        super().__init__(", ".join(fields))
        self.fields = fields


class Unknown(Exception):
    """What is asked for is not there."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


def refusal(status: int, code: str, words: str, fields: answers.Mistakes | None = None) -> JsonResponse:
    return JsonResponse({"code": code, "message": words, "fields": fields or {}}, status=status)


def handle(api: NinjaAPI) -> None:
    """Have these answered in every call of the API; whatever else is raised is left to Django."""
    api.add_exception_handler(Mistaken, _wrong_fields)
    api.add_exception_handler(Unknown, _unknown)
    api.add_exception_handler(doors.BadInput, _bad_input)
    api.add_exception_handler(services.Refused, _refused)
    api.add_exception_handler(links.Refused, _link_refused)
    api.add_exception_handler(AddressRefused, _address_refused)
    api.add_exception_handler(Exception, _raise)


def _mistaken(fields: answers.Mistakes, status: int = 400) -> JsonResponse:
    words = " ".join(mistake["message"] for mistake in fields.values())
    return refusal(status, next(iter(fields.values()))["code"], words, fields)


def _wrong_fields(_: HttpRequest, error: Any) -> JsonResponse:
    return _mistaken(error.fields)


def _unknown(_: HttpRequest, error: Any) -> JsonResponse:
    return refusal(404, error.code, str(error))


def _address_refused(_: HttpRequest, error: Any) -> JsonResponse:
    return _mistaken(_field("rtsp_url", error.code, error))


def _bad_input(_: HttpRequest, error: Any) -> JsonResponse:
    return _mistaken(_field(error.field, error.code, error), _BODY_STATUS.get(type(error), 400))


def _refused(_: HttpRequest, error: Any) -> JsonResponse:
    fields = _field(error.field, error.code, error) if error.field else None
    return refusal(404 if error.code == "unknown_stream" else 409, error.code, str(error), fields)


def _link_refused(_: HttpRequest, error: Any) -> JsonResponse:
    return refusal(error.status, error.code, str(error), error.fields)


def _raise(_: HttpRequest, error: Any) -> NoReturn:
    """Not ninja's own answer: the middleware knows a database that is away, and Django the rest."""
    raise error


def _field(name: str, code: str, error: Exception) -> answers.Mistakes:
    return {name: {"code": code, "message": str(error)}}


# --- what never reaches a call --------------------------------------------------------------------


def unknown_address(request: HttpRequest) -> JsonResponse:
    return refusal(404, "unknown_address", "The API has no such address: /api/docs lists those that it has.")


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500."""
    if doors.is_api(request):
        return refusal(500, "internal_error", "A fault of the service, which is in its log.")
    response = defaults.server_error(request)
    response["Content-Security-Policy"] = answers.FILE_POLICY + answers.UNFRAMED  # its style is inside
    return response
