"""The addresses below /api/, and what holds for all of them."""

import json
from collections.abc import Callable
from functools import cached_property, wraps
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path, re_path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from django.views.generic import RedirectView
from ninja import NinjaAPI, Swagger
from ninja.openapi.schema import OpenAPISchema

from rtspsite import __version__

from .. import doors
from . import calls, errors

View = Callable[..., HttpResponse]

# Swagger UI: pictures that are inside its style sheet. Its buttons try calls of this service alone.
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SCHEME = "Needed once API_TOKEN is set. Who is signed in as staff needs none."
_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")


class Docs(Swagger):
    """Swagger UI as ninja brings it; nothing is loaded from or sent to another host.

    Ninja itself would load it from one, as it is none of the installed apps (settings.NINJA_DIR).
    """

    def render_page(self, request: HttpRequest, api: NinjaAPI, **kwargs: Any) -> HttpResponse:
        settings = json.dumps(self.settings | {"url": self.get_openapi_url(api, kwargs)}, indent=1)
        response = render(request, self.template, {"swagger_settings": settings, "api": api})
        response["Content-Security-Policy"] = DOCS_POLICY
        return response


class Api(NinjaAPI):
    """Tells of itself in OpenAPI as ninja does, but works it out once: it takes 0.15 s of a core."""

    @cached_property
    def _told(self) -> OpenAPISchema:
        told = super().get_openapi_schema()
        told["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "description": SCHEME}}
        return told

    def get_openapi_schema(self, **where: Any) -> OpenAPISchema:
        return self._told


api = Api(
    title="Stream captures",
    version=__version__,
    description="Captures frames of RTSP cameras and keeps the best. Moments are UTC in ISO 8601, intervals are "
    "seconds. Whatever is not as it should be is answered with one shape: a code, a sentence and the wrong fields.",
    docs=Docs(settings={"validatorUrl": None}),
    openapi_extra={"security": [{"token": []}, {}]},
    docs_decorator=require_safe,
    urls_namespace="api",
)
api.add_router("", calls.router)
errors.handle(api)


def guarded(view: View) -> View:
    """Let in what may come in, and answer in JSON also what is refused at the door."""

    @wraps(view)
    def guard(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method not in _SAFE and doors.is_cross_site(request):
            return errors.refusal(403, "cross_site", "A page of another site may not do this.")
        if request.method == "HEAD":  # ninja knows none
            request.method = "GET"
        response = view(request, *args, **kwargs)
        if response.status_code == 405:
            response = _wrong_method(request, response)
        response.setdefault("Cache-Control", "no-store")
        return response

    return csrf_exempt(guard)


def _wrong_method(request: HttpRequest, found: HttpResponse) -> HttpResponse:
    allowed = {method.strip() for method in found["Allow"].split(",")}
    methods = ", ".join(sorted(allowed | {"HEAD"} if "GET" in allowed else allowed))
    response = errors.refusal(405, "wrong_method", f"{request.path} takes {methods} only.")
    response["Allow"] = methods
    return response


_calls = [
    URLPattern(one.pattern, guarded(one.callback), one.default_args, one.name)
    for one in api.urls[0]
    if isinstance(one, URLPattern)
]

app_name = "api"
urlpatterns = [
    path("", RedirectView.as_view(url="/api/docs"), name="home"),
    *_calls,
    re_path("", guarded(errors.unknown_address)),
]
