"""The JSON API: what each call does and answers. test_api_schema.py holds all of it to its OpenAPI document."""

import json
import logging
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from streams import retention, services
from streams.engine.address import parse
from streams.engine.errors import AddressRefused, AuthRefused
from streams.engine.notices import Notice
from streams.engine.report import Counters, State, Status
from streams.engine.timeline import Timeline
from streams.models import Capture, Frame, Host, Stream
from streams.retention import YOUNG_S, prune
from streams.services import Change
from tests.streams.away import database_out_of_reach
from tests.streams.builders import (
    API,
    NOON,
    SECRET,
    SITE,
    URL,
    URL_WITH_SECRET,
    Response,
    all_files,
    at_once,
    files,
    jobs,
    make_capture,
    make_claim,
    make_finished,
    make_host,
    make_picture,
    make_report,
    make_wish,
    rows,
    start,
    stop,
    told,
)

pytestmark = pytest.mark.django_db
OTHER = "rtsp://other.example/garden"


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.outcomes.STOP_WAIT_S", 0.01)


def post(client: Client, path: str, **fields: Any) -> Response:
    return client.post(f"/api{path}", json.dumps(fields), content_type=API)


def patch(client: Client, stream: str = "demo", /, **fields: Any) -> Response:
    return client.patch(f"/api/streams/{stream}", json.dumps(fields), content_type=API)


def get(client: Client, path: str) -> Any:
    response = client.get(f"/api{path}")
    assert response.status_code == 200
    return response.json()


def refused(response: Response) -> tuple[int, str, list[str]]:
    """Status, code and fields of an answer that has the shape of all errors."""
    assert response["Content-Type"].startswith("application/json")
    answer = response.json()
    assert answer.keys() == {"code", "message", "fields"}
    assert answer["message"]
    assert all(mistake.keys() == {"code", "message"} for mistake in answer["fields"].values())
    return response.status_code, answer["code"], list(answer["fields"])


def begin(capture: Capture, *pictures: int, **counters: int) -> None:
    """Have it recorded: samples of these numbers."""
    report = make_report(*map(make_picture, pictures), counters=Counters(**counters) if counters else None)
    services.checkpoint(make_claim(capture), services.Totals(), report)


# --- streams --------------------------------------------------------------------------------------


def test_a_stream_is_created_without_being_started(client: Client) -> None:
    response = post(client, "/streams", rtsp_url=URL_WITH_SECRET, interval=2.5, count=4, transport="udp")
    assert response.status_code == 201
    stream = Stream.objects.get()
    assert (stream.name, stream.url, stream.address.password) == ("demo", URL, SECRET)
    assert (stream.interval_s, stream.count, stream.transport, stream.status) == (2.5, 4, "udp", "idle")
    assert (Capture.objects.count(), jobs()) == (0, [])
    answer = response.json()
    assert (answer["name"], answer["url"], answer["status"], answer["capture"]) == ("demo", URL, "idle", None)
    assert (answer["interval"], answer["count"], answer["transport"]) == (2.5, 4, "udp")
    assert get(client, "/streams/demo") == answer


def test_defaults_are_those_of_start(client: Client) -> None:
    answer = post(client, "/streams", rtsp_url=URL, interval=None).json()
    assert (answer["interval"], answer["count"], answer["transport"]) == (1.0, 9, "tcp")


def test_an_address_is_one_stream_and_a_name_belongs_to_one(client: Client) -> None:
    post(client, "/streams", rtsp_url=URL)
    before = rows()
    assert refused(post(client, "/streams", rtsp_url=URL_WITH_SECRET)) == (409, "address_taken", ["rtsp_url"])
    assert refused(post(client, "/streams", rtsp_url=OTHER, name="demo")) == (409, "name_taken", ["name"])
    assert rows() == before
    assert post(client, "/streams", rtsp_url="rtsp://third.example/demo").json()["name"] == "demo-2"


def test_a_stream_tells_how_it_stands_and_what_its_capture_counts(client: Client) -> None:
    capture = make_capture(URL_WITH_SECRET)
    error = AuthRefused()
    counters = Counters(samples=12, missed=3, rejected=2, repeated=1, connections=4, last_sample_at=NOON)
    waiting = Status(State.RECONNECTING, error.code, str(error), 7, NOON + 60, notices=(Notice.FROZEN,))
    report = make_report(make_picture(1), make_picture(2), status=waiting, counters=counters)
    services.checkpoint(make_claim(capture), services.Totals(), report)
    answer = get(client, "/streams/demo")
    assert (answer["status"], answer["attempt"]) == ("reconnecting", 7)
    assert answer["error"] == {"code": "auth_refused", "message": str(error)}
    assert answer["next_attempt_at"] == "2026-09-21T14:14:20Z"
    assert answer["notices"] == {"frozen": Notice.FROZEN.words}
    found = answer["capture"]
    assert (found["id"], found["state"], found["host"]) == (capture.pk, "in_progress", "north")
    counts = [found[name] for name in ("samples", "missed", "rejected", "repeated", "connections", "frame_count")]
    assert counts == [12, 3, 2, 1, 4, 2]
    assert found["last_sample_at"] == "2026-09-21T14:13:20Z"


def test_a_queued_stream_tells_for_how_many_it_waits(client: Client) -> None:
    make_host(slots=1)
    for n in range(3):
        make_capture(f"rtsp://camera-{n}.example/demo")
    assert [stream["waits_for"] for stream in get(client, "/streams")["items"]] == [0, 1, 2]
    Stream.objects.update(status="capturing")
    assert [stream["waits_for"] for stream in get(client, "/streams")["items"]] == [0, 0, 0]


def test_a_stream_at_rest_is_changed_where_it_is_told_to(client: Client) -> None:
    post(client, "/streams", rtsp_url=URL_WITH_SECRET, count=4)
    response = patch(client, interval=0.5, transport="udp", count=None)
    assert response.status_code == 200
    answer = response.json()
    assert (answer["interval"], answer["count"], answer["transport"]) == (0.5, 4, "udp")
    assert Stream.objects.get().address.password == SECRET
    assert patch(client, name="front").status_code == 200
    assert [stream["name"] for stream in get(client, "/streams")["items"]] == ["front"]
    assert patch(client, "front", name="front").status_code == 200


def test_an_address_is_changed_with_its_credentials(client: Client) -> None:
    post(client, "/streams", rtsp_url=URL_WITH_SECRET)
    patch(client, rtsp_url=URL_WITH_SECRET.replace(SECRET, "another"))
    assert Stream.objects.get().address.password == "another"
    assert patch(client, rtsp_url=OTHER).json()["url"] == OTHER
    assert (Stream.objects.get().name, Stream.objects.get().credentials) == ("demo", "")


def test_a_change_that_contradicts_another_stream_changes_nothing(client: Client) -> None:
    post(client, "/streams", rtsp_url=URL)
    post(client, "/streams", rtsp_url=OTHER)
    before = get(client, "/streams")
    assert refused(patch(client, name="garden", count=4)) == (409, "name_taken", ["name"])
    assert refused(patch(client, rtsp_url=OTHER, count=4)) == (409, "address_taken", ["rtsp_url"])
    assert refused(patch(client, rtsp_url="rtsp://169.254.169.254/", count=4)) == (
        400,
        "address_refused",
        ["rtsp_url"],
    )
    assert refused(patch(client, rtsp_url="", count=4)) == (400, "invalid_url", ["rtsp_url"])
    assert get(client, "/streams") == before


@pytest.mark.parametrize("is_stopping", [False, True])
def test_a_stream_that_is_captured_is_neither_changed_nor_deleted(client: Client, is_stopping: bool) -> None:
    capture = make_capture()
    begin(capture, 1)
    if is_stopping:
        services.stop(capture.stream)
    before = (get(client, "/streams/demo"), frame_numbers())
    assert refused(patch(client, count=4)) == (409, "in_progress", [])
    assert refused(client.delete("/api/streams/demo")) == (409, "in_progress", [])
    assert (get(client, "/streams/demo"), frame_numbers()) == before


def frame_numbers() -> list[int]:
    return list(Frame.objects.values_list("number", flat=True))


@pytest.mark.django_db(transaction=True)
def test_a_stream_is_deleted_with_all_that_was_captured_of_it(client: Client, media: Path) -> None:
    make_finished()
    make_finished(frames=2)
    kept = make_finished(OTHER)
    response = client.delete("/api/streams/demo")
    assert (response.status_code, response.content) == (204, b"")
    assert rows()[:2] == (1, 1)
    assert files(media) == all_files(kept)
    assert sorted(path.name for path in media.glob("*/*")) == [str(kept.pk)] * 2  # no empty folders either
    assert refused(client.delete("/api/streams/demo")) == (404, "unknown_stream", [])


@pytest.mark.django_db(transaction=True)
def test_what_a_killed_delete_leaves_is_removed_by_the_next_prune(
    client: Client, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream is gone by then: what fails after the commit is no fault of the request."""
    make_finished()
    with monkeypatch.context() as patched:
        patched.setattr(retention, "remove_files", lambda *_: 1 / 0)
        assert client.delete("/api/streams/demo").status_code == 204
    assert (rows()[:2], Frame.objects.count(), len(files(media))) == ((0, 0), 0, 10)
    with monkeypatch.context() as patched:
        patched.setattr(retention, "_born_at", lambda: retention._NEVER)
        for path in media.rglob("*.jpg"):
            os.utime(path, (NOON - 2 * YOUNG_S, NOON - 2 * YOUNG_S))
        prune(keep_days=0)
    assert files(media) == []


@pytest.mark.django_db(transaction=True)
def test_a_delete_does_not_make_its_caller_wait_for_a_slow_storage(
    client: Client, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_finished()
    monkeypatch.setattr(retention, "REQUEST_S", 0.0)
    assert client.delete("/api/streams/demo").status_code == 204
    assert (rows()[:2], len(files(media))) == ((0, 0), 10)


# --- lists ----------------------------------------------------------------------------------------


def names(client: Client, query: str = "") -> list[str]:
    return [stream["name"] for stream in get(client, f"/streams?{query}")["items"]]


def test_streams_are_found_by_status_and_text(client: Client) -> None:
    for name in ("gate", "garden", "yard"):
        services.create_stream(make_wish(f"rtsp://{name}.example/{name}"))
    Stream.objects.filter(name="yard").update(status="failed", error_code="not_rtsp", error_text="It is a Printer.")
    assert names(client) == ["garden", "gate", "yard"]
    assert names(client, "status=failed") == ["yard"]
    assert names(client, "text=GA") == ["garden", "gate"]
    assert names(client, "text=printer") == names(client, "text=not_rtsp") == ["yard"]
    assert names(client, "text=%25") == []
    assert names(client, "text=gate&status=failed") == []


def test_captures_are_found_by_stream_state_ending_and_time(client: Client) -> None:
    done, few = make_finished(), make_finished(OTHER, frames=1)
    lost = make_capture("rtsp://lost.example/lost")
    services.fail(make_claim(lost), "address_refused", "Not there.")
    running, ending = make_capture(), make_capture(OTHER)
    services.stop(ending.stream)

    def found(query: str = "") -> list[int]:
        return [capture["id"] for capture in get(client, f"/captures?{query}")["items"]]

    assert found() == [ending.pk, running.pk, lost.pk, few.pk, done.pk]
    assert found("stream=demo") == [running.pk, done.pk]
    assert found("state=in_progress") == [running.pk]
    assert found("state=stopping") == [ending.pk]
    assert found("state=finished") == [lost.pk, few.pk, done.pk]
    assert found("ending=failed") == [lost.pk]
    assert found("stream=garden&ending=stopped&state=finished") == [few.pk]
    assert found("stream=nobody") == []
    noon = "2026-11-23T12:00:00"
    for hours, capture in enumerate((done, few, lost)):
        Capture.objects.filter(pk=capture.pk).update(
            started_at=datetime.fromisoformat(f"{noon}+00:00") - timedelta(hours=hours)
        )
    assert found(f"started_before={noon}Z&state=finished") == [lost.pk, few.pk]
    assert found("started_after=2026-11-23T13:00:00%2B02:00&started_before=2026-11-23T14:00:01%2B02:00") == [done.pk]
    assert found("started_after=2026-11-23T10:00:00&started_before=2026-11-23T12:00:00") == [few.pk]


def test_pages_lead_to_the_next_one_and_to_everything_once(client: Client) -> None:
    made = [make_capture(f"rtsp://camera-{n}.example/demo").pk for n in range(5)]
    first = get(client, "/captures?limit=2&state=in_progress")
    assert (len(first["items"]), first["total"]) == (2, 5)
    make_capture("rtsp://late.example/demo")  # what is started meanwhile moves nothing
    second = client.get(first["next"]).json()
    third = client.get(second["next"]).json()
    ids = [capture["id"] for page in (first, second, third) for capture in page["items"]]
    assert ids == made[::-1]
    assert third["next"] is None
    walked, page = [], get(client, "/streams?limit=4")
    while True:
        walked += [stream["name"] for stream in page["items"]]
        if page["next"] is None:
            break
        page = client.get(page["next"]).json()
    assert walked == names(client)
    assert get(client, "/streams?limit=6")["next"] is get(client, "/captures?limit=6")["next"] is None


@pytest.mark.parametrize("path", ["/streams", "/captures", "/status"])
def test_lists_take_the_same_statements_for_one_row_and_for_twenty(client: Client, path: str) -> None:
    make_host()

    def statements() -> int:
        with CaptureQueriesContext(connection) as found:
            get(client, path)
        return sum(query["sql"][-21:] != "STATEMENT_TIMESTAMP()" for query in found)  # once in ten seconds

    make_finished(frames=2)
    few = statements()
    for n in range(20):
        begin(make_capture(f"rtsp://camera-{n}.example/{n}"), 1)
    assert statements() == few == {"/streams": 5, "/captures": 2, "/status": 4}[path]


# --- captures -------------------------------------------------------------------------------------


def test_a_capture_tells_how_it_ended_with_frames_and_links(client: Client) -> None:
    capture = make_finished()
    answer = get(client, f"/captures/{capture.pk}")
    assert (answer["stream"], answer["state"], answer["code"], answer["ending"]) == (
        "demo",
        "finished",
        "complete",
        "stopped",
    )
    assert answer["message"] == "The 9 brightest of 9 samples."
    assert [(frame["rank"], frame["score"]) for frame in answer["frames"]][:2] == [(1, 109.0), (2, 108.0)]
    assert answer["frames"] == get(client, f"/captures/{capture.pk}/frames")["items"]
    (listed,) = get(client, "/captures")["items"]
    assert {name: answer[name] for name in listed} == listed
    for link in (answer["links"]["grid"], answer["frames"][0]["links"]["picture"]):
        assert client.get(link).headers["Content-Type"] == "image/jpeg"
    assert client.get(answer["links"]["page"]).status_code == 200
    assert client.get(answer["links"]["zip"]).headers["Content-Type"] == "application/zip"
    assert client.get(answer["frames"][0]["links"]["small"]).headers["Content-Type"] == "image/jpeg"
    assert client.get(answer["links"]["api"]).json() == answer
    stream = get(client, "/streams/demo")
    assert client.get(stream["links"]["api"]).json() == stream
    assert client.get(stream["links"]["page"]).status_code == 200
    assert client.get(stream["links"]["captures"]).json()["items"] == [listed]


@pytest.mark.parametrize(
    ("make", "state", "code", "ending"),
    [
        (make_capture, "in_progress", "in_progress", None),
        (lambda: services.stop(make_capture().stream), "stopping", "stopping", "stopped"),
        (lambda: make_finished(frames=2), "finished", "not_enough_frames", "stopped"),
    ],
    ids=["in progress", "stopping", "too few"],
)
def test_a_capture_tells_how_it_stands(
    client: Client, make: Callable[[], Capture], state: str, code: str, ending: str | None
) -> None:
    answer = get(client, f"/captures/{make().pk}")
    assert (answer["state"], answer["code"], answer["ending"]) == (state, code, ending)
    assert (answer["links"]["grid"] is None) == (state != "finished")


def test_a_captures_timeline_is_told(client: Client) -> None:
    capture = make_capture()
    assert get(client, f"/captures/{capture.pk}")["timeline"] is None
    timeline = Timeline(NOON, 0.25)
    timeline.note_connection(NOON)
    timeline.note_sample(NOON + 1, 60.0)
    timeline.note_sample(NOON + 1.1, 80.0)
    timeline.note_error(NOON + 9, "stalled")
    services._save_timeline(make_claim(capture), timeline.encode())
    answer = get(client, f"/captures/{capture.pk}")["timeline"]
    assert (answer["began_at"], answer["width_s"]) == ("2026-09-21T14:13:20Z", 0.25)
    first, second, third = answer["buckets"]
    assert (first["samples"], first["low"], first["connections"], first["error"]) == (0, None, 1, None)
    assert (second["at"], second["samples"], second["low"], second["high"]) == (
        "2026-09-21T14:13:21.125Z",
        2,
        60.0,
        80.0,
    )
    assert third["error"] == "stalled"


# --- live -----------------------------------------------------------------------------------------


def test_one_call_tells_everything_that_changes(client: Client) -> None:
    empty = get(client, "/status")
    assert (empty["has_host"], empty["slots"], empty["in_progress"], empty["streams"]) == (False, 0, 0, [])
    make_finished(OTHER)
    begin(make_capture(), 1)
    Host.objects.update(slots=1)
    make_capture("rtsp://camera-2.example/demo")
    answer = get(client, "/status")
    assert (answer["has_host"], answer["slots"], answer["in_progress"]) == (True, 1, 2)
    assert {status: count for status, count in answer["statuses"].items() if count} == {
        "idle": 1,
        "capturing": 1,
        "queued": 1,
    }
    assert answer["streams"] == get(client, "/streams")["items"]


# --- start and stop -------------------------------------------------------------------------------


def test_start_and_stop_are_those_without_api(client: Client) -> None:
    make_host()
    begun = post(client, "/start", rtsp_url=URL_WITH_SECRET, interval=2, name="demo")
    again = start(client, URL_WITH_SECRET, interval=2, accept=API)
    assert (begun.status_code, again.status_code) == (201, 200)
    assert begun.json() == again.json() | {"is_new": True, "message": "Video stream started"}
    assert post(client, "/start", rtsp_url=URL_WITH_SECRET, interval=2).json() == again.json()
    ended = post(client, "/stop", process_name="demo")
    assert ended.status_code == 202
    assert ended.json() == stop(client, accept=API).json()


@pytest.mark.parametrize(("frames", "status"), [(9, 200), (4, 409), (0, 409)])
def test_a_stop_answers_with_the_result_as_stop_does(client: Client, frames: int, status: int) -> None:
    make_finished(frames=frames)
    by_field, by_name, plain = post(client, "/stop", process_name="demo"), post(client, "/streams/demo/stop"), None
    plain = stop(client, accept=API)
    assert (by_field.status_code, by_name.status_code, plain.status_code) == (status, status, status)
    assert by_field.json() == by_name.json() == plain.json()


def test_a_stream_is_started_by_its_name_with_its_settings(client: Client) -> None:
    post(client, "/streams", rtsp_url=URL_WITH_SECRET, interval=2.5, count=4, transport="udp")
    first, second = client.generic("POST", "/api/streams/demo/start"), post(client, "/streams/demo/start")
    assert (first.status_code, second.status_code) == (201, 200)
    capture = Capture.objects.get()
    assert (capture.interval_s, capture.count, capture.transport) == (2.5, 4, "udp")
    assert (first.json()["interval"], first.json()["capture"]) == (2.5, capture.pk)
    assert post(client, "/streams/demo/stop").status_code == 202
    assert refused(post(client, "/streams/demo/start")) == (409, "stopping", ["process_name"])


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rtsp_url": "http://camera.example/demo"},
        {"rtsp_url": "rtsp://169.254.169.254/"},
        {"rtsp_url": URL, "interval": 0},
        {"rtsp_url": URL, "interval": "x", "count": 0, "name": "a b", "transport": "tls"},
        {"rtsp_url": "rtsp://a\x00b/"},
    ],
    ids=str,
)
def test_what_is_wrong_is_told_in_the_words_of_start(client: Client, fields: dict[str, Any]) -> None:
    plain = client.post("/start", fields, headers={"accept": API})
    for path in ("/start", "/streams"):
        response = post(client, path, **fields)
        refused(response)
        assert (response.status_code, response.json()) == (400, plain.json())
    assert rows() == (0, 0, 0)


def test_what_contradicts_is_a_409_in_each_way(client: Client) -> None:
    start(client)
    assert refused(post(client, "/start", rtsp_url=URL, interval=2)) == (409, "already_running", ["process_name"])
    assert refused(post(client, "/start", rtsp_url=OTHER, name="demo")) == (409, "name_taken", ["name"])
    assert refused(post(client, "/start", rtsp_url=URL, name="new")) == (409, "address_taken", ["rtsp_url"])
    assert rows()[:2] == (1, 1)


# --- what comes in --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"interval": "2"}, "invalid_interval", "interval"),
        ({"interval": True}, "invalid_interval", "interval"),
        ({"count": [4]}, "invalid_count", "count"),
        ({"count": 4.5}, "invalid_count", "count"),
        ({"name": 5}, "invalid_body", "name"),
        ({"name": ""}, "invalid_name", "name"),
        ({"transport": ""}, "invalid_transport", "transport"),
        ({"rtsp_url": {"host": "camera.example"}}, "invalid_body", "rtsp_url"),
        ({"intervall": 2}, "unknown_field", "intervall"),
        ({"credentials": "a:b"}, "unknown_field", "credentials"),
        ({"a" * 50: ""}, "unknown_field", "a" * 40),
        ({"\ud800": 1}, "invalid_text", "?"),
        ({"name": "\ud800"}, "invalid_text", "name"),
    ],
    ids=str,
)
def test_a_field_is_what_openapi_says_or_refused(
    client: Client, fields: dict[str, Any], code: str, field: str
) -> None:
    for path in ("/streams", "/start"):
        assert refused(post(client, path, **{"rtsp_url": URL, **fields})) == (400, code, [field])
    assert rows() == (0, 0, 0)
    services.create_stream(make_wish())
    assert refused(patch(client, **fields)) == (400, code, [field])


def test_a_whole_number_may_be_written_with_a_point(client: Client) -> None:
    assert post(client, "/streams", rtsp_url=URL, count=4.0).json()["count"] == 4


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/start"),
        ("POST", "/stop"),
        ("POST", "/streams"),
        ("PATCH", "/streams/demo"),
        ("DELETE", "/streams/demo"),
        ("POST", "/streams/demo/start"),
        ("POST", "/streams/demo/stop"),
    ],
)
def test_a_write_does_not_leave_its_query_string_unused(client: Client, method: str, path: str) -> None:
    make_finished()
    before = rows()
    code, _, fields = refused(client.generic(method, f"/api{path}?count=2"))
    assert (code, "count" in fields, rows()) == (400, True, before)


@pytest.mark.parametrize("path", ["/streams/demo/start", "/streams/demo/stop"])
def test_settings_are_not_silently_left_unused(client: Client, path: str) -> None:
    make_finished()
    assert refused(post(client, path, interval=2)) == (400, "unknown_field", ["interval"])
    assert not Capture.objects.filter(finished_at=None).exists()


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("/streams?status=fine", "invalid_status"),
        ("/streams?status=", "invalid_status"),
        ("/streams?limit=0", "invalid_limit"),
        ("/streams?limit=101", "invalid_limit"),
        ("/streams?text=" + "a" * 201, "invalid_text"),
        ("/streams?text=%00", "invalid_text"),
        ("/streams?state=finished", "unknown_field"),
        ("/captures?after=0", "invalid_after"),
        ("/captures?after=99999999999999999999", "invalid_after"),
        ("/captures?started_after=yesterday", "invalid_started_after"),
        ("/captures?started_before=0001-01-01T00:00:00%2B14:00", "invalid_started_before"),
        ("/captures?ending=idle", "invalid_ending"),
        ("/captures?state=finished&state=stopping", "invalid_body"),
        ("/captures/1?limit=2", "unknown_field"),
        ("/captures/1/frames?limit=2", "unknown_field"),
        ("/status?status=idle", "unknown_field"),
        ("/streams/demo?limit=2", "unknown_field"),
    ],
)
def test_a_wrong_filter_is_refused_and_not_left_out(client: Client, query: str, code: str) -> None:
    assert refused(client.get(f"/api{query}"))[:2] == (400, code)


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"rtsp_url=rtsp://a/b", "application/x-www-form-urlencoded", 415, "invalid_body"),
        (b'{"rtsp_url": "rtsp://a/b"}', "text/plain", 415, "invalid_body"),
        (b"{", API, 400, "invalid_body"),
        (b"[]", API, 400, "invalid_body"),
        (b"null", API, 400, "invalid_body"),
        (b"\xff", API, 400, "invalid_body"),
        (b"[" * 20_000, API, 400, "invalid_body"),
        (b'{"rtsp_url": "rtsp://a/b", "count": NaN}', API, 400, "invalid_count"),
        (b'{"rtsp_url": "rtsp://a/b", "interval": 1e999}', API, 400, "invalid_interval"),
        (b"", API, 400, "missing"),
        (b" " * 65_537, API, 413, "invalid_body"),
    ],
    ids=["form", "text", "broken", "list", "null", "not UTF-8", "deep", "NaN", "infinite", "empty", "too large"],
)
def test_a_body_is_a_json_object_or_refused(
    client: Client, body: bytes, content_type: str, status: int, code: str
) -> None:
    for path in ("/api/streams", "/api/start"):
        assert refused(client.generic("POST", path, body, content_type))[:2] == (status, code)
    assert rows() == (0, 0, 0)


# --- at the door ----------------------------------------------------------------------------------

MISSING = [
    ("GET", "/streams/nobody", "unknown_stream"),
    ("PATCH", "/streams/nobody", "unknown_stream"),
    ("DELETE", "/streams/nobody", "unknown_stream"),
    ("POST", "/streams/nobody/start", "unknown_stream"),
    ("POST", "/streams/nobody/stop", "unknown_stream"),
    ("GET", "/captures/9", "unknown_capture"),
    ("GET", "/captures/99999999999999999999/frames", "unknown_capture"),
    ("GET", "/captures/x", "unknown_address"),
    ("GET", "/streams/", "unknown_address"),
    ("GET", "/nowhere", "unknown_address"),
    ("PUT", "/nowhere/at/all", "unknown_address"),
]


@pytest.mark.parametrize(("method", "path", "code"), MISSING)
def test_what_is_not_there_is_a_404_with_a_code(client: Client, method: str, path: str, code: str) -> None:
    assert refused(client.generic(method, f"/api{path}"))[:2] == (404, code)


def test_a_stop_of_nobody_and_of_nothing_is_a_404_as_in_stop(client: Client) -> None:
    services.create_stream(make_wish())
    assert refused(post(client, "/stop", process_name="nobody"))[:2] == (404, "unknown_process")
    assert refused(post(client, "/stop", process_name="demo"))[:2] == (404, "no_capture")
    assert refused(post(client, "/streams/demo/stop"))[:2] == (404, "no_capture")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/streams", "GET, HEAD, POST"),
        ("PUT", "/streams/demo", "DELETE, GET, HEAD, PATCH"),
        ("GET", "/start", "POST"),
        ("OPTIONS", "/status", "GET, HEAD"),
        ("POST", "/docs", "GET, HEAD"),
        ("POST", "/openapi.json", "GET, HEAD"),
    ],
)
def test_another_method_is_told_which_are_right(client: Client, method: str, path: str, allowed: str) -> None:
    response = client.generic(method, f"/api{path}")
    assert refused(response)[:2] == (405, "wrong_method")
    assert response["Allow"] == allowed


WRITES = [
    ("POST", "/api/streams"),
    ("PATCH", "/api/streams/demo"),
    ("DELETE", "/api/streams/demo"),
    ("POST", "/api/start"),
    ("POST", "/api/stop"),
    ("POST", "/api/streams/demo/start"),
    ("POST", "/api/streams/demo/stop"),
]


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_page_of_another_site_writes_nothing(client: Client, method: str, path: str) -> None:
    make_finished()
    before = (rows(), get(client, "/streams"))
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        response = client.generic(method, path, json.dumps({"rtsp_url": OTHER}), API, headers=headers)
        assert refused(response) == (403, "cross_site", [])
    assert (rows(), get(client, "/streams")) == before


def test_our_own_docs_page_may_write(client: Client) -> None:
    headers = {"Sec-Fetch-Site": "same-origin", "Origin": "http://cameras.example"}
    response = client.post("/api/streams", {"rtsp_url": URL}, content_type=API, headers=headers)
    assert response.status_code == 201


def test_no_answer_is_kept_by_anybody_or_guessed_at(client: Client) -> None:
    for path in ("/api/status", "/api/nowhere", "/api/docs", "/api/openapi.json"):
        response = client.get(path)
        assert (response["Cache-Control"], response["X-Content-Type-Options"]) == ("no-store", "nosniff")


def test_a_fault_of_our_own_is_a_500_of_the_same_shape(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("streams.queries.room", lambda: 1 / 0)
    with caplog.at_level(logging.ERROR):
        assert refused(client.get("/api/status")) == (500, "internal_error", [])
    assert "ZeroDivisionError" in caplog.text
    assert client.get("/").status_code == 500
    assert client.get("/")["Content-Type"].startswith("text/html")


def test_a_host_that_is_not_ours_is_a_400_of_the_same_shape() -> None:
    assert refused(Client(headers={"host": "evil.example"}).get("/api/status"))[0] == 400


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("method", "path"), [("GET", "/api/status"), ("POST", "/api/streams")])
def test_a_database_that_is_away_is_a_503_of_the_same_shape(
    client: Client, tmp_path: Path, settings: Settings, method: str, path: str
) -> None:
    settings.DEBUG = method == "POST"  # ninja would answer with a traceback
    with database_out_of_reach(tmp_path):
        response = client.generic(method, path, json.dumps({"rtsp_url": URL}) if method == "POST" else "", API)
    assert refused(response) == (503, "database_away", [])
    assert response["Retry-After"] == "5"


# --- credentials ----------------------------------------------------------------------------------


def test_no_answer_tells_a_credential(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    secrets = f"rtsp://admin:{SECRET}@camera.example:8554/demo?token={SECRET}"
    with caplog.at_level(logging.DEBUG):
        answers = [
            post(client, "/streams", rtsp_url=secrets),
            post(client, "/streams", rtsp_url=secrets),
            patch(client, rtsp_url=secrets, count=4),
            patch(client, rtsp_url=f"rtsp://admin:{SECRET}@169.254.169.254/"),
            post(client, "/start", rtsp_url=secrets, count=4),
            post(client, "/start", rtsp_url=f"http://admin:{SECRET}@camera.example"),
            post(client, "/start", rtsp_url=secrets, interval=7),
            *(client.get(f"/api{path}") for path in ("/status", "/streams", "/streams/demo", "/captures")),
            client.get(f"/api/captures/{Capture.objects.get().pk}"),
            post(client, "/streams/demo/stop"),
        ]
    assert [answer.status_code for answer in answers[:7]] == [201, 409, 200, 400, 201, 400, 409]
    assert [told(answer) for answer in answers if SECRET in told(answer)] == []
    assert SECRET not in caplog.text


# --- the services below ---------------------------------------------------------------------------


def test_a_stream_that_is_deleted_meanwhile_is_neither_started_nor_changed(client: Client) -> None:
    stream = services.create_stream(make_wish())
    Stream.objects.all().delete()
    for work in (services.start_again, services.delete_stream, lambda gone: services.change_stream(gone, Change())):
        with pytest.raises(services.Refused) as found:
            work(stream)
        assert found.value.code == "unknown_stream"
    assert rows() == (0, 0, 0)


def test_no_caller_gets_an_address_in_that_is_never_connected_to(client: Client) -> None:
    stream = services.create_stream(make_wish())
    with pytest.raises(AddressRefused):
        services.create_stream(make_wish("rtsp://169.254.169.254/"))
    with pytest.raises(AddressRefused):
        services.change_stream(stream, Change(address=parse("rtsp://169.254.169.254/")))
    assert [stream.url for stream in Stream.objects.all()] == [URL]


# --- at the same time -----------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_however_many_create_at_once_an_address_is_one_stream(client: Client) -> None:
    statuses = at_once(6, lambda: post(Client(headers={"host": SITE}), "/streams", rtsp_url=URL))
    assert sorted(response.status_code for response in statuses) == [201, 409, 409, 409, 409, 409]
    assert rows() == (1, 0, 0)


@pytest.mark.django_db(transaction=True)
def test_addresses_that_are_created_at_once_get_names_of_their_own(client: Client) -> None:
    addresses = iter([f"rtsp://camera-{n}.example/demo" for n in range(5)])
    at_once(5, lambda: post(Client(headers={"host": SITE}), "/streams", rtsp_url=next(addresses)))
    assert names(client) == ["demo", "demo-2", "demo-3", "demo-4", "demo-5"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("round_", range(3))
def test_a_start_and_a_delete_or_change_at_once_are_one_after_the_other(client: Client, round_: int) -> None:
    make_finished()
    make_finished(OTHER)
    wishes = iter(
        [
            ("POST", "/api/streams/demo/start", ""),
            ("DELETE", "/api/streams/demo", ""),
            ("POST", "/api/streams/garden/start", ""),
            ("PATCH", "/api/streams/garden", '{"count": 4}'),
        ]
    )

    def work() -> tuple[str, int]:
        method, path, body = next(wishes)
        response = Client(headers={"host": SITE}).generic(method, path, body, API)
        return f"{method} {path}", response.status_code

    done = dict(at_once(4, work))
    is_deleted = done["DELETE /api/streams/demo"] == 204
    assert done["POST /api/streams/demo/start"] == (404 if is_deleted else 201)
    assert Stream.objects.filter(name="demo").exists() != is_deleted
    assert Frame.objects.filter(capture__stream__name="demo").count() == (0 if is_deleted else 9)
    is_changed = done["PATCH /api/streams/garden"] == 200
    garden = Stream.objects.get(name="garden")
    running = Capture.objects.get(stream=garden, finished_at=None)
    assert done["POST /api/streams/garden/start"] == 201
    assert garden.count == running.count == (4 if is_changed else 9)
