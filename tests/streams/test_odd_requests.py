"""What nobody sends by clicking: names that are none, NUL, numbers without end."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.streams.builders import BROWSER, SITE, make_capture, make_finished, rows

pytestmark = pytest.mark.django_db
NUL = "a%00b"
ODD_NAMES = (
    NUL,
    "%00",
    "..",
    "%2e%2e",
    "-",
    "x" * 65,
    "x" * 3000,
    "%F0%9F%8E%A5",
    "%ED%A0%80",
    "%FF",
    "%0d%0aSet-Cookie:a=b",
    "%2F",
    "'\"><b>",
)
NAMED = [
    ("GET", "/streams/{}/"),
    ("POST", "/streams/{}/start"),
    ("POST", "/streams/{}/stop"),
    ("GET", "/api/streams/{}"),
    ("DELETE", "/api/streams/{}"),
    ("POST", "/api/streams/{}/start"),
    ("POST", "/api/streams/{}/stop"),
]
ODD_VALUES = (NUL, "%FF", "-1", "9" * 30)
FILTERS = {
    "/": ("q", "status", "page"),
    "/streams/demo/": ("page",),
    "/api/streams": ("status", "text", "after", "limit"),
    "/api/captures": ("stream", "state", "ending", "after", "limit", "started_after"),
    "/admin/streams/stream/": ("q", "p", "status__exact", "error_code"),
    "/admin/streams/capture/": ("q", "p", "ending__exact", "month", "stream__id__exact"),
    "/admin/django_q/failure/": ("name",),
}


@pytest.mark.parametrize(("method", "path"), NAMED)
def test_a_name_that_nobody_has_is_a_404(client: Client, method: str, path: str) -> None:
    make_capture()
    before = rows()
    for name in ODD_NAMES:
        answer = client.generic(method, path.format(name), headers={"accept": BROWSER})
        assert answer.status_code == 404, name
        assert "'\"><b>" not in answer.content.decode()
        assert "Set-Cookie" not in answer.headers
    assert rows() == before


@pytest.mark.parametrize("path", FILTERS)
def test_no_filter_is_a_fault_of_the_service(client: Client, path: str) -> None:
    make_finished()
    client.force_login(User.objects.create_superuser("operator"))
    for name in FILTERS[path]:
        for value in ODD_VALUES:
            assert client.get(f"{path}?{name}={value}").status_code < 500, (name, value)


def test_a_job_of_a_name_that_is_none_is_not_there(client: Client) -> None:
    client.force_login(User.objects.create_superuser("operator"))
    assert client.get(f"/admin/django_q/failure/{NUL}/change/").status_code == 404


def test_a_nul_in_a_query_is_refused_on_a_page(client: Client) -> None:
    answer = client.get(f"/?q={NUL}", headers={"accept": BROWSER, "host": SITE})
    assert (answer.status_code, "bad_request" in answer.content.decode()) == (400, True)
