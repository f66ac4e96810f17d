"""The pages for people and the answers for machines that look after the service."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test import Client

from streams import services
from streams.engine.notices import Notice
from streams.engine.report import Counters, State, Status
from streams.models import Capture, Host, Stream
from tests.streams.away import database_out_of_reach
from tests.streams.builders import (
    API,
    BROWSER,
    CURL,
    SECRET,
    URL_WITH_SECRET,
    Response,
    make_capture,
    make_claim,
    make_finished,
    make_host,
    make_picture,
    make_report,
    record,
    start,
    stop,
)
from tests.streams.html import read

pytestmark = pytest.mark.django_db
OUR_SCRIPTS = 3  # htmx, its polling tags, and the page's own
NASTY = "<script>alert('&amp;')</script>\"'"


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.outcomes.STOP_WAIT_S", 0.01)


# --- what holds for every page --------------------------------------------------------------------


def queued() -> Capture:
    return make_capture()


def in_progress() -> Capture:
    capture = make_capture()
    services.checkpoint(make_claim(capture), services.Totals(), make_report(make_picture(1), make_picture(2)))
    return capture


def stopping() -> Capture:
    capture = in_progress()
    services.stop(capture.stream)
    return capture


def failed() -> Capture:
    capture = make_capture()
    services.fail(make_claim(capture), "address_refused", "Not there.")
    return capture


STATES: dict[str, Callable[[], Capture]] = {
    "queued": queued,
    "in progress": in_progress,
    "stopping": stopping,
    "failed": failed,
    "too few": lambda: make_finished(frames=4),
    "complete": make_finished,
}


def page_of(state: str) -> Callable[[Client], Response]:
    return lambda client: client.get(f"/captures/{STATES[state]().pk}/")


def stream_of(state: str) -> Callable[[Client], Response]:
    return lambda client: client.get(f"/streams/{STATES[state]().stream.name}/")


def after(make: Callable[[], object], then: Callable[[Client], Response]) -> Callable[[Client], Response]:
    def both(client: Client) -> Response:
        make()
        return then(client)

    return both


PAGES: dict[str, Callable[[Client], Response]] = {
    "index, empty": lambda client: client.get("/"),
    "index": after(make_capture, lambda client: client.get("/")),
    "index, filtered": after(make_capture, lambda client: client.get("/?status=failed&q=x")),
    "form, wrong": lambda client: client.post("/streams/", {"rtsp_url": URL_WITH_SECRET, "count": "0"}),
    **{f"stream {state}": stream_of(state) for state in STATES},
    **{f"capture {state}": page_of(state) for state in STATES},
    "start": lambda client: start(client, accept=BROWSER),
    "start, wrong": lambda client: start(client, interval="x", accept=BROWSER),
    "start, method": lambda client: client.get("/start", headers={"accept": BROWSER}),
    "nothing there": lambda client: client.get("/nowhere", headers={"accept": BROWSER}),
}
FILES: dict[str, Callable[[Client], Response]] = {
    "stop, complete": after(make_finished, stop),
    "stop, too few": after(lambda: make_finished(frames=4), stop),
    "stop, not finished": after(make_capture, stop),
    "stop, unknown": stop,
    "stop, wrong": lambda client: stop(client, ""),
    "stop, another site": lambda client: client.post("/stop", headers={"origin": "http://evil.example"}),
}


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_well_formed_and_loads_from_this_service_alone(client: Client, page: str) -> None:
    response = PAGES[page](client)
    assert response["Content-Type"] == "text/html; charset=utf-8"
    read_page = read(response.content.decode())
    assert read_page.faults == []
    assert read_page.styles == ""
    assert [link for link in read_page.loaded() if not link.startswith("/") or link.startswith("//")] == []
    check_headers(response)
    assert "unsafe" not in response["Content-Security-Policy"]
    assert policy_of(response)["script-src"] == "'self'"


@pytest.mark.parametrize("page", FILES)
def test_every_page_that_is_one_file_loads_and_runs_nothing(client: Client, page: str) -> None:
    response = FILES[page](client)
    assert response["Content-Type"] == "text/html; charset=utf-8"
    read_page = read(response.content.decode())
    assert read_page.faults == []
    assert "script" not in read_page.tags
    assert [link for link in read_page.loaded() if not link.startswith("data:")] == []
    check_headers(response)
    assert "script-src" not in policy_of(response)
    assert policy_of(response)["img-src"] == "data:"
    contents = read_page.values("meta", "content")
    (inner,) = [value for value in contents if "default-src" in value]
    assert response["Content-Security-Policy"].startswith(inner)


def policy_of(response: Response) -> dict[str, str]:
    return dict(rule.split(" ", 1) for rule in response["Content-Security-Policy"].split("; "))


def check_headers(response: Response) -> None:
    policy = policy_of(response)
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["form-action"] == "'self'"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"
    assert response["Referrer-Policy"] == "same-origin"
    assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/start", "/stop", "/nowhere", "/captures/9/", "/streams/x/"])
def test_what_is_no_page_is_not_guessed_at_either(client: Client, path: str) -> None:
    assert client.get(path)["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/streams/demo/", "/captures/1/", "/livez", "/readyz"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_what_is_read_is_not_written_to(client: Client, method: str, path: str) -> None:
    assert client.generic(method, path).status_code == 405


# --- the first page -------------------------------------------------------------------------------


def test_the_first_page_says_what_to_do_when_there_is_nothing(client: Client) -> None:
    text = read(client.get("/").content.decode()).text
    assert "No stream yet" in text
    assert "No supervisor is running" in text
    assert "http://cameras.example/start" in text


def test_the_first_page_lists_streams_with_their_latest_capture(client: Client) -> None:
    make_host()
    make_finished()
    latest = make_capture()
    make_finished("rtsp://other.example/garden", frames=0)
    Stream.objects.filter(name="garden").update(error_text="No connection to the camera.")
    page = read(client.get("/").content.decode())
    assert f"stream-{latest.stream.pk}" in page.attributes
    assert "/streams/demo/" in page.values("a", "href")
    assert page.text.index("demo") < page.text.index("garden")
    assert "Queued" in page.text
    assert "No connection to the camera." in page.text
    assert "No supervisor" not in page.text


@pytest.mark.parametrize("path", ["/", "/streams/{1}/", "/captures/{0}/"])
def test_what_comes_from_outside_is_shown_as_text(client: Client, path: str) -> None:
    capture = make_finished(frames=1)
    name = NASTY.replace("/", "")  # which no stream's name has
    Stream.objects.update(name=name, url=f"rtsp://a/{NASTY}", error_text=NASTY, error_code="<b>")
    Capture.objects.update(error_text=NASTY, error_code="<i>")
    page = read(client.get(path.format(capture.pk, quote(name, safe=""))).content.decode())
    assert page.faults == []
    assert page.tags.count("script") == OUR_SCRIPTS
    assert NASTY in page.text
    assert name in page.text


@pytest.mark.parametrize("path", ["/", "/streams/demo/", "/captures/{}/"])
def test_no_page_shows_a_credential(client: Client, path: str) -> None:
    capture = make_finished(URL_WITH_SECRET)
    response = client.get(path.format(capture.pk))
    assert "rtsp://camera.example:8554/demo" in response.content.decode() or path == "/"
    assert SECRET not in response.content.decode()


# --- the page of a capture ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "says", "refreshes", "pictures"),
    [
        ("queued", "The capture is in progress, queued: 0 samples so far", True, 0),
        ("in progress", "The capture is in progress, capturing: 2 samples so far", True, 2),
        ("stopping", "The capture is being finished", True, 2),
        ("failed", "The last thing that went wrong: Not there.", False, 0),
        ("too few", "Not enough frames were captured: 4 of 9.", False, 1),
        ("complete", "The 9 brightest of 9 samples, best first.", False, 1),
    ],
)
def test_a_captures_page_says_how_it_stands(
    client: Client, state: str, says: str, refreshes: bool, pictures: int
) -> None:
    capture = STATES[state]()
    response = client.get(f"/captures/{capture.pk}/")
    page = read(response.content.decode())
    assert response.status_code == 200
    assert says in page.text
    assert ("hx-get" in page.attributes["live"]) == refreshes
    assert ("noscript" in page.tags) == refreshes
    assert len(page.values("img", "src")) == pictures


def test_one_frame_is_no_plural(client: Client) -> None:
    for door in (f"/captures/{make_finished(frames=1, count=1).pk}/", "/streams/demo/"):
        words = read(client.get(door).content.decode()).words
        assert "The brightest of 1 sample." in words or "1 of 1 frame " in words
        assert "1 brightest" not in words
    assert stop(client, accept=API).json()["message"] == "The brightest of 1 sample."


def test_too_few_frames_are_told_with_their_reason(client: Client) -> None:
    address = f"/captures/{make_finished(frames=1).pk}/"
    assert "It was stopped before more samples were due." in client.get(address).content.decode()
    Capture.objects.update(samples=500, repeated=499)
    said = client.get(address).content.decode()
    assert "499 of 500 samples were the same picture again, which is not kept twice." in said
    assert "before more samples were due" not in said


def test_a_queued_stream_says_that_nothing_will_capture_it(client: Client) -> None:
    capture = make_capture()
    for address in ("/streams/demo/", f"/captures/{capture.pk}/"):
        assert "No supervisor is running" in client.get(address).content.decode()
        make_host()
        assert "No supervisor is running" not in client.get(address).content.decode()
        Host.objects.all().delete()


def test_nobody_keeps_an_answer_or_takes_a_part_for_the_page(client: Client) -> None:
    make_finished()
    capture = make_capture("rtsp://other.example/other")
    for address in ("/", "/streams/other/", f"/captures/{capture.pk}/", "/captures/9999/"):
        for accept in (BROWSER, API, CURL):
            for live in ({}, {"HX-Request": "true"}):
                answer = client.get(address, headers={"accept": accept, **live})
                assert answer["Cache-Control"] == "no-store"
                assert {"Accept", "HX-Request"} <= set(answer["Vary"].split(", "))
    Capture.objects.update(finished_at=datetime.now(UTC) - timedelta(days=3))  # "3 d ago", for longer than the test
    live = {"accept": BROWSER, "HX-Request": "true"}
    same = client.get(
        "/streams/demo/", headers={**live, "HX-PTag": client.get("/streams/demo/", headers=live)["HX-PTag"]}
    )
    assert (same.status_code, same["Cache-Control"]) == (304, "no-store")


def test_a_line_break_in_an_address_is_none_in_the_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    def away(*_: object) -> None:
        raise OperationalError

    with connection.execute_wrapper(away):
        assert client.get("/streams/a%0aERROR%20forged/").status_code == 503
    assert "/streams/a%0AERROR%20forged/ failed: database away" in caplog.text
    assert "\nERROR forged" not in caplog.text


def test_pages_say_what_is_worth_saying_and_what_was_left_out(client: Client) -> None:
    capture = make_capture()
    report = make_report(
        make_picture(1),
        status=Status(State.CAPTURING, notices=(Notice.FROZEN,)),
        counters=Counters(samples=9, rejected=12, repeated=8),
    )
    services.checkpoint(make_claim(capture), services.Totals(), report)
    assert Notice.FROZEN.words in read(client.get("/").content.decode()).text
    page = read(client.get(f"/captures/{capture.pk}/").content.decode()).text
    assert Notice.FROZEN.words in page
    assert "12 pictures: something of them, or before them, was lost or damaged" in " ".join(page.split())
    assert "8 samples: the same picture again" in " ".join(page.split())


def test_a_captures_page_lists_its_frames_best_first(client: Client) -> None:
    capture = make_finished(frames=3, count=3)
    text = read(client.get(f"/captures/{capture.pk}/").content.decode()).text
    assert text.index("103.0") < text.index("102.0") < text.index("101.0")


def test_a_grid_whose_file_is_gone_is_said(client: Client) -> None:
    capture = make_finished()
    capture.grid.storage.delete(str(capture.grid.name))
    response = client.get(f"/captures/{capture.pk}/")
    assert response.status_code == 200
    assert "its file is not there any more" in response.content.decode()


def test_a_captures_page_is_also_json(client: Client) -> None:
    capture = make_finished()
    answer = json.loads(client.get(f"/captures/{capture.pk}/", headers={"accept": "application/json"}).content)
    assert (answer["process_name"], answer["code"], len(answer["frames"])) == ("demo", "complete", 9)


@pytest.mark.parametrize("path", ["/captures/99/", "/captures/0/", "/captures/9223372036854775808/", "/captures/x/"])
def test_an_unknown_capture_is_a_404(client: Client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(("accept", "says"), [(CURL, "There is no such page"), (BROWSER, "<h1>"), (API, "not_found")])
def test_what_is_not_there_is_said_in_the_form_that_is_asked_for(client: Client, accept: str, says: str) -> None:
    response = client.get("/nowhere", headers={"accept": accept})
    assert response.status_code == 404
    assert says in response.content.decode()


def test_an_older_capture_keeps_its_page(client: Client) -> None:
    old = make_finished(frames=9)
    make_finished(frames=1)
    assert "The 9 brightest" in client.get(f"/captures/{old.pk}/").content.decode()


def test_reading_writes_nothing(client: Client) -> None:
    capture = make_capture()
    record(capture, frames=1)
    before = (Stream.objects.values().get(), Capture.objects.values().get())
    for path in ("/", "/streams/demo/", f"/captures/{capture.pk}/", "/livez", "/readyz"):
        client.get(path)
    assert (Stream.objects.values().get(), Capture.objects.values().get()) == before


# --- waiting for a slot ---------------------------------------------------------------------------


def queue(count: int) -> list[Capture]:
    return [make_capture(f"rtsp://camera-{n}.example/demo") for n in range(count)]


def test_the_first_page_says_for_how_many_each_queued_stream_waits(client: Client) -> None:
    make_host(slots=2)
    queue(4)
    Stream.objects.filter(name="demo").update(status="capturing")
    text = read(client.get("/").content.decode()).text
    assert text.count("All slots are taken (2): capturing begins when") == 2
    assert "All slots are taken (2): capturing begins when another capture has ended." in text
    assert "All slots are taken (2): capturing begins when 2 other captures have ended." in text


def test_the_first_page_says_that_there_is_no_slot_at_all(client: Client) -> None:
    make_host(slots=0)
    queue(1)
    text = read(client.get("/").content.decode()).text
    assert "No host has a slot" in text
    assert "has ended" not in text


@pytest.mark.parametrize(
    ("slots", "says"),
    [
        (1, "All slots are taken (1): capturing begins when 2 other captures have ended."),
        (2, "All slots are taken (2): capturing begins when another capture has ended."),
        (0, "No host has a slot"),
        (3, None),
        (None, None),
    ],
)
def test_a_captures_page_says_for_how_many_it_waits(client: Client, slots: int | None, says: str | None) -> None:
    if slots is not None:
        make_host(slots=slots)
    capture = queue(3)[-1]
    text = read(client.get(f"/captures/{capture.pk}/").content.decode()).text
    assert says in text if says else "slot" not in text
    answer = json.loads(client.get(f"/captures/{capture.pk}/", headers={"accept": "application/json"}).content)
    assert answer["waits_for"] == (0 if slots is None else max(0, 3 - slots))


@pytest.mark.parametrize("status", ["capturing", "stopping", "reconnecting"])
def test_what_is_not_queued_waits_for_no_slot(client: Client, status: str) -> None:
    make_host(slots=1)
    capture = queue(2)[-1]
    Stream.objects.update(status=status)
    assert "slots" not in read(client.get(f"/captures/{capture.pk}/").content.decode()).text
    assert "slots" not in read(client.get("/").content.decode()).text
    answer = json.loads(client.get(f"/captures/{capture.pk}/", headers={"accept": "application/json"}).content)
    assert answer["waits_for"] == 0


# --- the database is away -------------------------------------------------------------------------


ASKED: dict[str, Callable[[Client, str], Response]] = {
    "index": lambda client, accept: client.get("/", headers={"accept": accept}),
    "stream": lambda client, accept: client.get("/streams/demo/", headers={"accept": accept}),
    "capture": lambda client, accept: client.get("/captures/1/", headers={"accept": accept}),
    "start": lambda client, accept: start(client, accept=accept),
    "stop": lambda client, accept: stop(client, accept=accept),
    "admin": lambda client, accept: client.get("/admin/streams/stream/", headers={"accept": accept}),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("accept", [CURL, BROWSER, API], ids=["text", "html", "json"])
@pytest.mark.parametrize("page", ASKED)
def test_without_the_database_every_answer_says_so_and_when_to_come_again(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture, page: str, accept: str
) -> None:
    client.force_login(User.objects.create_superuser("keeper"))
    with database_out_of_reach(tmp_path), caplog.at_level(logging.WARNING):
        response = ASKED[page](client, accept)
        ASKED[page](client, accept)  # of which the log says nothing more
    assert (response.status_code, response["Retry-After"]) == (503, "5")
    text = response.content.decode()
    assert "The database is away" in text
    if accept == API:
        assert json.loads(text)["code"] == "database_away"
    elif accept == BROWSER or page == "stop":
        assert read(text).faults == []
        assert "database_away" in read(text).text
    (record,) = [said for said in caplog.records if said.name == "streams.middleware"]
    assert "database away" in record.getMessage()
    assert (record.levelname, record.exc_info) == ("ERROR", None)
    assert ASKED[page](client, accept).status_code != 503


def test_a_fault_of_our_own_is_not_taken_for_the_database(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ValueError("a fault")

    monkeypatch.setattr("streams.queries.room", broken)
    response = client.get("/")
    assert response.status_code == 500
    page = read(response.content.decode())
    assert page.faults == []
    assert [link for link in page.loaded() if not link.startswith("data:")] == []
    assert "internal_error" in page.text


def test_a_host_that_is_not_ours_is_refused() -> None:
    assert Client(headers={"host": "evil.example"}).get("/").status_code == 400


def test_what_browsers_ask_for_by_themselves_is_there(client: Client) -> None:
    response = client.get("/favicon.ico")
    assert (response.status_code, response["Location"]) == (301, "/static/streams/icon.svg")
    assert (settings.BASE_DIR / "streams" / "static" / "streams" / "icon.svg").is_file()
