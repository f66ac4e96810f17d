"""What pages cost: statements on the database, and time with 200 streams, 10,000 captures and 90,000 frames."""

import time
from collections.abc import Callable
from statistics import median

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from streams import services
from streams.models import Host
from tests.figures import Figure
from tests.streams.builders import make_capture, make_claim, make_host, make_picture, make_report
from tests.streams.many import CAPTURES, FRAMES, STREAMS, fill

pytestmark = pytest.mark.django_db
LIVE = {"HX-Request": "true"}
LIMIT_S = 0.2
FAR = 5.0  # no machine is so much slower that something else is not wrong


def recording(name: str, host: Host) -> int:
    """A stream with a capture that is over and one in progress; the latter's id."""
    url = f"rtsp://{name}.example/{name}"
    over = make_capture(url)
    services.stop(over.stream)
    services.finish(over.pk)
    capture = make_capture(url)
    services.checkpoint(make_claim(capture, host), services.Totals(), make_report(make_picture(1), make_picture(2)))
    return capture.pk


# --- statements -----------------------------------------------------------------------------------

COSTS: dict[str, tuple[Callable[[int], str], int]] = {
    "all streams": (lambda capture: "/", 4),  # room for captures: 2, streams, their captures
    "all streams, filtered": (lambda capture: "/?status=capturing&q=cam", 4),
    "a stream": (lambda capture: "/streams/cam-0/", 6),  # stream, capture, frames, timeline, history: 2
    "a capture in progress": (lambda capture: f"/captures/{capture}/", 3),  # capture, frames, timeline
    "a capture": (lambda capture: f"/captures/{capture - 1}/", 3),
}


@pytest.mark.parametrize("page", COSTS)
def test_a_page_costs_the_same_with_one_stream_and_with_twenty(
    client: Client, django_assert_num_queries: DjangoAssertNumQueries, page: str
) -> None:
    path, cost = COSTS[page]
    host = make_host(slots=30)
    first = recording("cam-0", host)
    with django_assert_num_queries(cost):
        assert client.get(path(first)).status_code == 200
    for n in range(1, 20):
        recording(f"cam-{n}", host)
    with django_assert_num_queries(cost):
        assert client.get(path(first)).status_code == 200
    with django_assert_num_queries(cost):
        assert client.get(path(first), headers=LIVE).status_code == 200


@pytest.mark.parametrize("page", COSTS)
def test_no_page_reads_a_credential(client: Client, page: str) -> None:
    path = COSTS[page][0](recording("cam-0", make_host()))
    with CaptureQueriesContext(connection) as queries:
        assert client.get(path).status_code == 200
    assert any("streams_stream" in query["sql"] for query in queries)
    assert not [query["sql"] for query in queries if "credentials" in query["sql"]]


# --- time -----------------------------------------------------------------------------------------


def test_pages_are_quick_among_ten_thousand_captures(client: Client, figure: Figure) -> None:
    """Time of the processor: SQLite runs in the same thread, and other tests do not count."""
    make_host(slots=STREAMS)
    stream = fill()
    capture = stream.captures.latest("pk")
    older = stream.captures.order_by("pk")[0]
    pages = {
        f"/ with {STREAMS} streams": "/",
        "/streams/x/": f"/streams/{stream.name}/",
        "/captures/n/, in progress": f"/captures/{capture.pk}/",
        "/captures/n/, the oldest": f"/captures/{older.pk}/",
    }
    client.get("/")  # templates are read once
    for what, path in pages.items():
        took_s = []
        for _ in range(5):
            before_s = time.thread_time()
            response = client.get(path)
            took_s.append(time.thread_time() - before_s)
            assert response.status_code == 200
        figure(f"page {what} ({CAPTURES} captures, {FRAMES} frames)", median(took_s), LIMIT_S)
        assert median(took_s) < FAR * LIMIT_S
