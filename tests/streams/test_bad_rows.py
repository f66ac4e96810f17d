"""Rows that another version, a restore or a person left in the database: one bad row stops no page and no capture."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db.models.functions import Now
from django.test import Client

from streams import outcomes, queries
from streams.fields import Sealed
from streams.models import Capture, Frame, Stream, Timeline
from tests.streams.builders import API, BROWSER, SECRET, URL_WITH_SECRET, Response, make_capture, make_finished
from tests.streams.staff import administrator

pytestmark = pytest.mark.django_db

CREDENTIALS = {
    "the first version's": '{"username": "a", "password": "b", "query": []}',
    "no JSON": "admin:password",
    "JSON of another kind": '["admin", "password"]',
    "a number for a name": '{"username": 1, "password": "b", "query": [], "path": []}',
    "text for a list": '{"username": "a", "password": "b", "query": "abc", "path": []}',
    "deep": "[" * 100_000,
}
ROWS: dict[str, dict[str, Any]] = {
    "an unknown notice": {"notices": "frozen,of_the_next_version"},
    "an unknown status": {"status": "resting"},
    "an unknown error": {"error_code": "of_the_next", "error_text": "What the next version says."},
    "quirks that are no JSON": {"quirks": "{transport"},
    "no address": {"url": "http://camera.example/"},
    "a broken address": {"url": "rtsp://[::1/x"},
    "an empty address": {"url": ""},
    "no interval": {"interval_s": 0.0},
    "a negative interval": {"interval_s": -5.0},
    "an endless interval": {"interval_s": 1e300},
    "no places": {"count": 0},
    "too many places": {"count": 30_000},
    "an unknown transport": {"transport": "sct"},
    "a late attempt": {"attempt": 7, "next_attempt_at": datetime(9999, 12, 31, tzinfo=UTC)},
}
TIMELINES = {
    "no JSON": "{",
    "of another kind": "[]",
    "deep": "[" * 100_000,
    "endless": '{"began_at": 1e999, "width_s": 1, "buckets": []}',
}


@pytest.fixture
def bad() -> Capture:
    """Of a stream with a finished capture and one in progress: the latter."""
    return make_bad("demo")


def make_bad(name: str) -> Capture:
    url = f"rtsp://admin:{SECRET}@camera.example:8554/{name}"
    make_finished(url, frames=2, count=2)
    return make_capture(url, count=2)


def paths(streams: Sequence[Stream]) -> Iterator[str]:
    yield from ("/", "/metrics", "/api/streams", "/api/status", "/api/captures")
    yield from ("/admin/", "/admin/streams/stream/", "/admin/streams/capture/", "/admin/streams/frame/")
    for stream in streams:
        yield from (f"/streams/{stream.name}/", f"/api/streams/{stream.name}", f"/api/captures?stream={stream.name}")
        yield f"/admin/streams/stream/{stream.pk}/change/"
        for capture in stream.captures.all():
            yield from (f"/captures/{capture.pk}/", f"/api/captures/{capture.pk}")
            yield from (f"/captures/{capture.pk}/capture.zip", f"/admin/streams/capture/{capture.pk}/change/")


def check_pages(*captures: Capture) -> None:
    """Nothing answers with a fault, and each list has a good stream beside the bad ones."""
    make_capture("rtsp://camera-2.example/good")
    visitor, streams = administrator(), [capture.stream for capture in captures]
    faults = []
    for path in paths(streams):
        response = visitor.get(path, headers={"accept": BROWSER})
        faults += [path] if response.status_code >= 500 else []
        assert response.getvalue()
    assert faults == []
    assert "good" in visitor.get("/").content.decode()
    assert {one["name"] for one in visitor.get("/api/streams").json()["items"]} == {
        "good",
        *(stream.name for stream in streams),
    }
    for arguments in (["list"], ["list", "--json"], *(["show", stream.name] for stream in streams)):
        said = StringIO()
        call_command("streams", *arguments, stdout=said)
        assert streams[0].name in said.getvalue() or arguments[0] == "show"
    call_command("reencrypt", stdout=StringIO())


def call(client: Client, method: str, path: str, **fields: Any) -> Response:
    return client.generic(method, path, json.dumps(fields), "application/json", headers={"accept": API})


def test_rows_that_cannot_be_make_no_page_fail(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "STOP_WAIT_S", 0.0)
    captures = {kind: make_bad(f"bad-{number}") for number, kind in enumerate(ROWS)}
    for kind, row in ROWS.items():
        capture = captures[kind]
        Stream.objects.filter(pk=capture.stream_id).update(**row)
        if of_capture := {name: row[name] for name in ("interval_s", "count", "transport") if name in row}:
            Capture.objects.filter(stream=capture.stream_id).update(**of_capture)
    check_pages(*captures.values())
    faults = []
    for kind, capture in captures.items():
        url, name = capture.stream.url, capture.stream.name
        answers = [
            call(client, "POST", "/start", rtsp_url=url),
            call(client, "POST", f"/api/streams/{name}/stop"),
        ]
        Capture.objects.filter(pk=capture.pk).update(finished_at=Now())
        for answer in (
            *answers,
            call(client, "PATCH", f"/api/streams/{name}", interval=2),
            call(client, "PATCH", f"/api/streams/{name}", username="me", password="word"),
            call(client, "POST", f"/api/streams/{name}/start"),
            call(client, "DELETE", f"/api/streams/{name}"),
        ):
            faults += [(kind, answer.content)] if answer.status_code >= 500 else []
    assert faults == []


@pytest.mark.parametrize("data", TIMELINES.values(), ids=TIMELINES)
def test_a_timeline_that_cannot_be_read_is_left_out(bad: Capture, data: str) -> None:
    Timeline.objects.create(capture=bad, data=data)
    assert queries.timeline_of(bad) is None


def test_scores_that_cannot_be_make_no_page_fail(bad: Capture) -> None:
    Frame.objects.update(score=1e300, width=0, height=0)
    check_pages(bad)


# --- credentials ------------------------------------------------------------------------------------


@pytest.mark.parametrize("credentials", CREDENTIALS.values(), ids=CREDENTIALS)
def test_credentials_that_cannot_be_read_are_sealed(bad: Capture, credentials: str) -> None:
    Stream.objects.update(credentials=credentials)
    assert isinstance(Stream.objects.get().credentials, Sealed)
    Stream.objects.get().save()  # and stays as it is
    assert isinstance(Stream.objects.get().credentials, Sealed)


def test_they_are_credentials_sealed_at_every_door_until_they_are_given_once_more(client: Client) -> None:
    bad = make_finished(URL_WITH_SECRET)
    Stream.objects.update(credentials=CREDENTIALS["the first version's"])
    check_pages(bad)
    for answer in (
        call(client, "POST", "/api/streams/demo/start"),
        call(client, "POST", "/start", rtsp_url=bad.stream.url),
        call(client, "PATCH", "/api/streams/demo", password="another"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "credentials_sealed")
    assert call(client, "PATCH", "/api/streams/demo", interval=2).status_code == 200
    assert call(client, "PATCH", "/api/streams/demo", rtsp_url=URL_WITH_SECRET).status_code == 200
    assert Stream.objects.get(name="demo").address.password == SECRET
    assert call(client, "POST", "/api/streams/demo/start").status_code == 201
