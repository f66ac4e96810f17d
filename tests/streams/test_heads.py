"""HEAD as a web server sees it: no byte of a body from the application, and all else as of the GET."""

from io import BytesIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, StreamingHttpResponse
from django.test import Client, RequestFactory
from pytest_django import Settings

from streams.middleware import Head
from tests.streams.builders import SITE, make_finished

pytestmark = pytest.mark.django_db
ADDRESSES = (
    "/",
    "/streams/",
    "/streams/demo/",
    "/streams/nobody/",
    "/captures/{capture}/",
    "/captures/{capture}/grid.jpg",
    "/captures/{capture}/small.jpg",
    "/captures/{capture}/capture.zip",
    "/frames/{frame}.jpg",
    "/frames/{frame}/small.jpg",
    "/favicon.ico",
    "/livez",
    "/static/streams/site.css",
    "/admin/login/",
    "/admin/streams/capture/",
    "/api/",
    "/api/docs",
    "/api/openapi.json",
    "/api/streams",
    "/api/streams/nobody",
    "/start",
)
CHANGING = {"Set-Cookie", "Expires", "ETag", "Content-Length"}


def over_wsgi(method: str, path: str, **headers: str) -> tuple[str, dict[str, str], bytes]:
    """Status, headers and every byte that the application hands to the server."""
    told: list[tuple[str, dict[str, str]]] = []
    asked = {"REQUEST_METHOD": method, "HTTP_HOST": SITE, "wsgi.input": BytesIO(), **headers}
    website: Any = WSGIHandler()
    environ = RequestFactory().get(path).environ | asked
    answer = website(environ, lambda status, found: told.append((status, dict(found))))
    body = b"".join(answer)
    answer.close()
    return *told[0], body


def test_a_head_is_the_get_without_its_body(settings: Settings) -> None:
    settings.ALLOWED_HOSTS = [SITE]
    capture = make_finished()
    frame = capture.frames.order_by("id")[0]
    signed_in = Client(headers={"host": SITE})
    signed_in.force_login(User.objects.create_superuser("operator"))
    cookie = signed_in.cookies.output(header="", sep=";").strip()
    for address in ADDRESSES:
        path = address.format(capture=capture.pk, frame=frame.pk)
        got_status, got, _ = over_wsgi("GET", path, HTTP_COOKIE=cookie)
        status, headers, body = over_wsgi("HEAD", path, HTTP_COOKIE=cookie)
        assert (status, body) == (got_status, b""), path
        assert headers.keys() == got.keys(), path
        same = got.keys() - CHANGING
        assert {name: headers[name] for name in same} == {name: got[name] for name in same}, path


@pytest.mark.parametrize("path", ["/livez", "/api/streams", "/static/streams/site.css", "/captures/{}/grid.jpg"])
def test_a_head_tells_how_long_the_body_would_be(path: str) -> None:
    path = path.format(make_finished().pk)
    _, got, body = over_wsgi("GET", path)
    _, headers, _ = over_wsgi("HEAD", path)
    assert headers["Content-Length"] == got["Content-Length"] == str(len(body))


def test_what_would_be_streamed_is_closed_and_not_begun(rf: RequestFactory) -> None:
    happened: list[str] = []

    class Parts:
        def __iter__(self) -> "Parts":
            return self

        def __next__(self) -> bytes:
            happened.append("begun")
            raise StopIteration

        def close(self) -> None:
            happened.append("closed")

    def view(_: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(Parts())

    answer = Head(view)(rf.head("/"))
    assert b"".join(answer) == b""
    answer.close()
    assert happened == ["closed"]
