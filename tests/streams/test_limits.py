"""How much may come in: streams, and what each field and each place in an address takes."""

import json
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from streams import services
from streams.models import Stream
from tests.streams.builders import API, BROWSER, SITE, at_once, make_capture, make_finished, make_wish, rows, start

LIMIT = 3
URLS = [f"rtsp://camera.example/{number}" for number in range(8)]


# --- how many streams -----------------------------------------------------------------------------


@pytest.fixture
def full(settings: Settings) -> None:
    settings.CAPTURE_MAX_STREAMS = LIMIT
    for url in URLS[:LIMIT]:
        make_finished(url, frames=0)


@pytest.mark.django_db
@pytest.mark.usefixtures("full")
def test_one_stream_too_many_is_refused_at_each_door(client: Client) -> None:
    """With the same code and sentence, and nothing is written."""
    before = rows()
    new = {"rtsp_url": URLS[-1]}
    told = [
        start(client, URLS[-1], accept=API),
        client.post("/api/start", new, content_type="application/json"),
        client.post("/api/streams", new, content_type="application/json"),
    ]
    for answer in told:
        assert answer.status_code == 409
        found = answer.json()
        assert found["code"] == found["fields"]["rtsp_url"]["code"] == "too_many_streams"
        assert (
            found["message"]
            == f"There are {LIMIT} streams, which is the limit: delete one, or raise CAPTURE_MAX_STREAMS."
        )
    page = client.post("/streams/", new, headers={"accept": BROWSER}).content.decode()
    assert "which is the limit" in page
    assert 'aria-invalid="true"' in page
    assert rows() == before


@pytest.mark.django_db
@pytest.mark.usefixtures("full")
def test_a_stream_that_there_is_can_be_started_and_one_that_goes_makes_room(client: Client) -> None:
    assert start(client, URLS[0]).status_code == 201
    assert client.delete("/api/streams/1").status_code == 204
    assert start(client, URLS[-1]).status_code == 201


@pytest.mark.django_db
def test_no_limit_is_none(settings: Settings) -> None:
    settings.CAPTURE_MAX_STREAMS = 0
    make_capture(URLS[0])
    assert Stream.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_the_limit_holds_however_many_ask_at_once(settings: Settings) -> None:
    settings.CAPTURE_MAX_STREAMS = LIMIT
    left = iter(URLS)

    def begin() -> str:
        try:
            return services.start(make_wish(next(left))).capture.stream.url
        except services.StartRefused as refused:
            return refused.code

    found = at_once(len(URLS), begin)
    assert found.count("too_many_streams") == len(URLS) - LIMIT
    assert Stream.objects.count() == LIMIT


# --- how much of each -----------------------------------------------------------------------------

LONG, HUGE = "x" * 60_000, "9" * 25
SENT: list[tuple[str, str, dict[str, Any] | None, int]] = [
    ("POST", "/start", {"rtsp_url": f"rtsp://camera.example/{LONG}"}, 400),
    ("POST", "/start", {"rtsp_url": f"rtsp://{'a' * 300}.example/demo"}, 400),
    ("POST", "/start", {"rtsp_url": URLS[0], "name": "n" * 65}, 400),
    ("POST", "/start", {"rtsp_url": URLS[0], "interval": HUGE}, 400),
    ("POST", "/start", {"rtsp_url": URLS[0], "interval": f"0.{HUGE}{LONG}"}, 400),
    ("POST", "/start", {"rtsp_url": URLS[0], "count": HUGE}, 400),
    ("POST", "/start", {"rtsp_url": URLS[0], "transport": LONG}, 400),
    ("POST", "/stop", {"process_name": LONG}, 404),
    ("POST", "/api/start", {"rtsp_url": URLS[0], "count": int(HUGE)}, 400),
    ("POST", "/api/start", {"rtsp_url": URLS[0], "name": ["n"] * 10_000}, 400),
    ("POST", "/api/start", {"rtsp_url": URLS[0], LONG: 1}, 400),
    ("PATCH", "/api/streams/demo", {"name": "n" * 65}, 400),
    ("GET", f"/?q={LONG[:3000]}&page={HUGE}&status={HUGE}", None, 200),
    ("GET", f"/streams/demo/?page={HUGE}", None, 200),
    ("GET", f"/streams/{LONG[:3000]}/", None, 404),
    ("GET", f"/captures/{HUGE}/", None, 404),
    ("GET", f"/frames/{HUGE}.jpg", None, 404),
    ("GET", f"/captures/{2**63}/capture.zip", None, 404),
    ("GET", f"/api/captures/{2**63}", None, 404),
    ("GET", f"/api/captures?limit={HUGE}", None, 400),
    ("GET", "/api/captures?limit=1001", None, 400),
    ("GET", f"/api/captures?after={HUGE}", None, 400),
    ("GET", f"/api/streams?limit={HUGE}", None, 400),
    ("GET", f"/api/streams?text={LONG[:3000]}", None, 400),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("method", "path", "fields", "status"), SENT, ids=lambda given: str(given)[:40])
def test_what_is_too_long_or_too_large_is_answered_shortly(
    method: str, path: str, fields: dict[str, Any] | None, status: int
) -> None:
    """Nothing is written, and what was sent does not come back whole."""
    make_finished(name="demo")
    before = rows()
    client = Client(raise_request_exception=False, headers={"host": SITE, "accept": API})
    if path.startswith("/api/") and fields:
        answer = client.generic(method, path, json.dumps(fields), content_type="application/json")
    else:
        answer = client.generic(method, path) if fields is None else client.post(path, fields)
    assert answer.status_code == status, answer.content[:500]
    if status != 200:
        assert len(answer.content) < 2000
    assert rows() == before
