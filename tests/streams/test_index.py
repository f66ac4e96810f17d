"""The first page: all streams as cards, what is live of them, and the form that starts one."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from streams import queries, services
from streams.engine.notices import Notice
from streams.engine.report import Counters, State, Status
from streams.models import Capture, Stream
from tests.streams.builders import (
    SECRET,
    SITE,
    URL,
    URL_WITH_SECRET,
    Response,
    make_capture,
    make_claim,
    make_finished,
    make_host,
    make_picture,
    make_report,
    record,
    rows,
)
from tests.streams.html import Page, read

pytestmark = pytest.mark.django_db
LIVE = {"HX-Request": "true"}


def index(client: Client, asked: str = "") -> Page:
    response = client.get("/" + asked)
    assert response.status_code == 200
    page = read(response.content.decode())
    assert page.faults == []
    return page


def card(client: Client, stream: Stream) -> str:
    """What its card says."""
    return " ".join(index(client).texts[f"stream-{stream.pk}"].split())


def recording(name: str = "demo", *, frames: int = 2, status: Status | None = None) -> Capture:
    capture = make_capture(f"rtsp://{name}.example/{name}")
    pictures = [make_picture(n, score=100.0 + n) for n in range(1, frames + 1)]
    report = make_report(*pictures, status=status, counters=Counters(samples=1204, connections=1))
    services.checkpoint(make_claim(capture), services.Totals(), report)
    return Capture.objects.select_related("stream").get(pk=capture.pk)


# --- cards ----------------------------------------------------------------------------------------


def test_a_card_shows_the_best_frame_the_samples_and_for_how_long_it_runs(client: Client) -> None:
    capture = recording()
    Capture.objects.update(started_at=timezone.now() - timedelta(hours=2, minutes=13))
    said = card(client, capture.stream)
    assert "Capturing" in said
    assert "Samples 1,204" in said
    assert "Uptime 2 h 13 min" in said
    best = queries.ranked_frames(capture)[0]
    page = index(client)
    assert page.values("img", "src") == [f"/frames/{best.pk}/small.jpg"]
    assert page.attributes[f"open-{capture.stream.pk}"]["href"] == "/streams/demo/"


def test_a_camera_that_never_answered_is_not_up(client: Client) -> None:
    capture = make_capture()
    Capture.objects.update(started_at=timezone.now() - timedelta(minutes=6, seconds=38))
    Stream.objects.update(status="reconnecting")
    said = card(client, capture.stream)
    assert "Started 6 min ago" in said
    assert "Uptime" not in said


def test_a_better_frame_takes_the_place_of_the_picture(client: Client) -> None:
    capture = recording()
    before = index(client).values("img", "src")
    record(capture, frames=5)
    after = index(client).values("img", "src")
    assert before != after == [f"/frames/{capture.frames.order_by('-score')[0].pk}/small.jpg"]


def test_a_card_says_what_is_wrong_and_when_the_next_attempt_is(client: Client) -> None:
    at = timezone.now() + timedelta(minutes=1)
    status = Status(State.RECONNECTING, "unreachable", "No connection to the camera.", 3, at.timestamp())
    said = card(client, recording(status=status).stream)
    assert "Reconnecting No connection to the camera. unreachable" in said
    assert f"Attempt 4 at {at:%H:%M:%S} UTC" in said


def test_an_error_that_is_over_is_not_shown_as_if_it_were_not(client: Client) -> None:
    stream = recording().stream
    Stream.objects.update(error_code="unreachable", error_text="No connection to the camera.")
    assert "No connection" not in card(client, stream)


@pytest.mark.parametrize(("frames", "is_red"), [(9, False), (8, True)], ids=["complete", "not enough frames"])
def test_after_a_capture_only_what_needs_attention_is_red(client: Client, frames: int, is_red: bool) -> None:
    """The camera closed before the stop. What went wrong stays in the history in any case."""
    capture = make_capture()
    record(capture, frames=frames)
    words = "The camera ended the stream."
    Capture.objects.update(error_code="closed", error_text=words)
    Stream.objects.update(status="reconnecting", error_code="closed", error_text=words)
    services.stop(capture.stream)
    assert words not in card(client, capture.stream)
    services.finish(capture.pk)
    assert (words in card(client, capture.stream)) is is_red
    assert (client.get("/api/streams/demo").json()["error"] is not None) is is_red
    assert Capture.objects.get().error_code == "closed"
    assert "closed" in read(client.get("/streams/demo/").content.decode()).texts[f"capture-{capture.pk}"]
    assert words in read(client.get(f"/captures/{capture.pk}/").content.decode()).words


def test_a_card_tells_of_notices(client: Client) -> None:
    stream = recording(status=Status(State.CAPTURING, notices=(Notice.FROZEN,))).stream
    assert Notice.FROZEN.words in card(client, stream)


def test_what_is_over_says_since_when_and_can_be_started_again(client: Client) -> None:
    capture = make_finished()
    Capture.objects.update(finished_at=timezone.now() - timedelta(hours=3, minutes=5))
    page = index(client)
    assert "Ended 3 h ago" in card(client, capture.stream)
    assert page.values("form", "action") == ["/streams/", "/streams/demo/start"]


def test_to_stop_takes_two_steps_and_no_script(client: Client) -> None:
    stream = recording().stream
    page = index(client)
    assert page.values("form", "action") == ["/streams/", "/streams/demo/stop"]
    assert "open" not in page.attributes[f"menu-{stream.pk}"]
    markup = client.get("/").content.decode()
    menu = markup[markup.index(f'id="menu-{stream.pk}"') : markup.index("</details>", markup.index('id="menu-'))]
    assert "<summary" in menu
    assert '<form method="post" action="/streams/demo/stop"' in menu


def test_what_is_being_stopped_has_neither_button(client: Client) -> None:
    services.stop(recording().stream)
    assert index(client).values("form", "action") == ["/streams/"]


def test_a_stream_that_was_never_captured_says_so(client: Client) -> None:
    stream = Stream.objects.create(name="bare", url="rtsp://bare.example/")
    assert "No picture" in card(client, stream)
    assert "Captures none Start bare" in card(client, stream)


# --- finding one among many -----------------------------------------------------------------------


@pytest.fixture
def many() -> None:
    make_host()
    for name, status in (
        ("a", "capturing"),
        ("b", "capturing"),
        ("c", "reconnecting"),
        ("d", "failed"),
        ("e", "idle"),
    ):
        Stream.objects.create(name=f"cam-{name}", url=f"rtsp://{name}.example/x", status=status)
    Stream.objects.filter(name="cam-b").update(notices=Notice.FROZEN)
    Stream.objects.filter(name="cam-c").update(error_code="auth_refused")


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("", "abcde"),
        ("?status=", "abcde"),
        ("?status=trouble", "bcd"),
        ("?status=capturing", "ab"),
        ("?status=idle", "e"),
        ("?status=queued", ""),
        ("?status=nonsense", "abcde"),
        ("?q=CAM-C", "c"),
        ("?q=d.example", "d"),
        ("?q=auth_refused", "c"),
        ("?q=%20%20cam-a%20", "a"),
        ("?q=nothing", ""),
        ("?q=cam&status=trouble", "bcd"),
        ("?q=cam-a&status=trouble", ""),
    ],
)
def test_streams_are_found_by_status_and_by_text(client: Client, asked: str, shown: str) -> None:
    page = index(client, asked)
    names = [text.split()[-1] for id_, text in page.texts.items() if id_.startswith("open-")]
    assert "".join(name.removeprefix("cam-") for name in names) == shown
    assert bool(shown) != ("Show all 5" in page.words)


@pytest.mark.usefixtures("many")
def test_how_many_there_are_of_each_status_is_said_first(client: Client) -> None:
    page = index(client)
    pills = {id_: " ".join(text.split()) for id_, text in page.texts.items() if id_.startswith("show-")}
    assert pills == {
        "show-all": "All 5",
        "show-trouble": "Needs attention 3",
        "show-idle": "Idle 1",
        "show-capturing": "Capturing 2",
        "show-reconnecting": "Reconnecting 1",
        "show-failed": "Failed 1",
    }
    assert page.attributes["show-all"]["aria-current"] == "true"
    assert "(3) Stream captures" in page.text
    chosen = index(client, "?status=trouble&q=cam").attributes
    assert "aria-current" not in chosen["show-all"]
    assert chosen["show-trouble"]["aria-current"] == "true"
    assert chosen["show-idle"]["href"] == "/?status=idle&q=cam"
    assert chosen["live"]["hx-get"] == "/?status=trouble&q=cam"


@pytest.mark.usefixtures("many")
def test_each_status_tells_how_many_are_behind_it_of_what_was_looked_for(client: Client) -> None:
    page = index(client, "?q=cam-a")
    assert " ".join(page.texts["show-all"].split()) == "All 1"
    assert [id_ for id_ in page.texts if id_.startswith("show-")] == ["show-all", "show-capturing"]
    assert "1 of 5 streams matches “cam-a”." in page.words


@pytest.mark.usefixtures("many")
def test_a_status_that_is_none_is_no_filter(client: Client) -> None:
    page = index(client, "?status=nonsense")
    assert page.attributes["show-all"]["aria-current"] == "true"
    assert page.attributes["live"]["hx-get"] == "/"


def test_a_stream_is_found_by_the_words_of_its_error_and_by_its_address_as_it_was_typed(client: Client) -> None:
    stream = make_capture(URL_WITH_SECRET).stream
    Stream.objects.update(error_code="stalled", error_text="The camera sends nothing.", status="reconnecting")
    for words in ("sends+NOTHING", URL_WITH_SECRET):
        page = index(client, f"?q={words}")
        assert f"stream-{stream.pk}" in page.attributes
        assert SECRET not in f"{page.text}{page.attributes}"


def test_many_streams_are_shown_a_page_at_a_time(client: Client) -> None:
    Stream.objects.bulk_create(
        Stream(name=f"cam-{n:03}", url=f"rtsp://{n}.example/", status="idle" if n % 2 else "failed")
        for n in range(150)
    )

    def shown(page: Page) -> list[str]:
        return [text.split()[-1] for id_, text in page.texts.items() if id_.startswith("open-")]

    first, last = index(client), index(client, "?page=3")
    assert shown(first) == [f"cam-{n:03}" for n in range(60)]
    assert shown(last) == [f"cam-{n:03}" for n in range(120, 150)]
    assert shown(index(client, "?page=99")) == shown(last)
    assert "1 to 60 of 150" in first.words
    assert first.attributes["page-next"]["href"] == last.attributes["page-before"]["href"] == "/?page=2"
    assert last.attributes["live"]["hx-get"] == "/?page=3"
    odd = index(client, "?status=idle")
    assert shown(odd) == [f"cam-{n:03}" for n in range(1, 121, 2)]
    assert odd.attributes["page-next"]["href"] == "/?status=idle&page=2"
    assert "Needs attention 75" in odd.words


# --- what is live ---------------------------------------------------------------------------------


def test_a_page_that_looks_again_gets_only_what_is_live(client: Client) -> None:
    recording()
    whole = client.get("/").content.decode()
    part = client.get("/", headers=LIVE)
    text = part.content.decode()
    assert part.status_code == 200
    assert "<html" not in text
    assert "<form class=" not in text
    assert text.strip() != ""
    live = text[text.index('<div id="live"') :].strip()
    seconds = re.compile(r"\b\d+ s\b")  # that have passed since: it may be one more
    assert seconds.sub("", live) in seconds.sub("", whole)
    assert read("<!doctype html>" + text).faults == []


def test_what_is_as_it_was_is_not_sent_again(client: Client) -> None:
    stream = make_finished().stream
    first = client.get("/", headers=LIVE)
    same = client.get("/", headers={**LIVE, "HX-PTag": first["HX-PTag"]})
    assert (same.status_code, same.content) == (304, b"")
    Stream.objects.filter(pk=stream.pk).update(status="failed")
    other = client.get("/", headers={**LIVE, "HX-PTag": first["HX-PTag"]})
    assert other.status_code == 200
    assert other["HX-PTag"] != first["HX-PTag"]
    assert "Failed" in other.content.decode()


def test_the_whole_page_is_never_left_out(client: Client) -> None:
    tag = client.get("/", headers=LIVE)["HX-PTag"]
    whole = client.get("/", headers={"HX-PTag": tag})
    assert whole.status_code == 200
    assert "HX-PTag" not in whole


def test_what_looks_again_also_works_without_script(client: Client) -> None:
    attributes = index(client).attributes["live"]
    assert attributes["hx-get"] == "/"
    assert attributes["hx-swap"] == "outerMorph"
    assert "Look again" in index(client).text


# --- the form -------------------------------------------------------------------------------------


def begin(client: Client, **fields: str) -> Response:
    return client.post("/streams/", {"rtsp_url": URL, **fields})


def test_the_form_starts_a_stream_and_leads_to_its_page(client: Client) -> None:
    response = begin(client, interval="2.5", count="4", name="yard", transport="udp")
    assert (response.status_code, response["Location"]) == (303, "/streams/yard/")
    stream = Stream.objects.get()
    assert (stream.name, stream.interval_s, stream.count, stream.transport) == ("yard", 2.5, 4, "udp")
    assert Capture.objects.get().stream == stream


def test_as_it_comes_the_form_tells_what_start_would_take(client: Client) -> None:
    attributes = index(client).attributes
    assert (attributes["id_interval"]["placeholder"], attributes["id_count"]["placeholder"]) == ("1", "9")
    assert begin(client).status_code == 303
    stream = Stream.objects.get()
    assert (stream.name, stream.interval_s, stream.count, stream.transport) == ("demo", 1.0, 9, "tcp")


def test_the_same_again_leads_to_the_stream_that_runs(client: Client) -> None:
    begin(client)
    assert begin(client)["Location"] == "/streams/demo/"
    assert rows()[:2] == (1, 1)


def mistakes(response: Response, field: str) -> str:
    """What is said beside the field, found as a screen reader finds it."""
    page = read(response.content.decode())
    assert page.faults == []
    attributes = page.attributes[f"id_{field}"]
    assert attributes["aria-invalid"] == "true"
    described = [page.texts[id_] for id_ in attributes["aria-describedby"].split() if id_ in page.texts]
    return " ".join(" ".join(described).split())


@pytest.mark.parametrize(
    ("field", "value", "says", "is_unfolded"),
    [
        ("rtsp_url", "", "The address of the camera is missing", False),
        ("rtsp_url", "http://camera.example/", "The address must begin with rtsp:// or rtsps://.", False),
        ("rtsp_url", "rtsp://169.254.169.254/", "This service does not connect to 169.254.169.254", False),
        ("interval", "0", "Interval must be a number of seconds from 0.1 to 86400.", False),
        ("interval", "soon", "Interval must be a number of seconds from 0.1 to 86400.", False),
        ("count", "101", "Count must be a whole number of frames from 1 to 100.", True),
        ("name", "a b", "Name must be 1 to 64 letters, digits", True),
        ("transport", "carrier pigeon", "Transport must be tcp or udp.", True),
    ],
)
def test_a_mistake_is_told_beside_its_field_and_nothing_is_started(
    client: Client, field: str, value: str, says: str, is_unfolded: bool
) -> None:
    good = {"interval": "3", "count": "7", "name": "yard"}
    response = begin(client, **{**good, field: value})
    assert response.status_code == 200
    assert says in mistakes(response, field)
    assert rows() == (0, 0, 0)
    attributes = read(response.content.decode()).attributes
    for name, kept in ({**good, field: value} | {"transport": "tcp"}).items():
        if name != "transport":
            assert attributes[f"id_{name}"].get("value", "") == kept
        assert ("aria-invalid" in attributes[f"id_{name}"]) == (name == field)
        assert ("autofocus" in attributes[f"id_{name}"]) == (name == field)
    assert "open" in attributes["start"]
    assert ("open" in attributes["start-more"]) == is_unfolded


def test_the_form_is_open_only_where_it_is_wanted(client: Client) -> None:
    assert "open" in index(client).attributes["start"]
    make_capture()
    assert "open" not in index(client).attributes["start"]


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (URL_WITH_SECRET, URL),
        (f"rtsp://admin:{SECRET}@camera.example/a?password={SECRET}", ""),
        (f"rtsp://admin:{SECRET}@camera.example/a#b", ""),
        (f"http://admin:{SECRET}@camera.example/a", "http://camera.example/a"),
        (f"rtsp://admin:{SECRET}@", "rtsp://"),
        (f"rtsp://admin:{SECRET}@camera.example:99999/a", "rtsp://camera.example:99999/a"),
        (f"admin:{SECRET}@camera.example", "camera.example"),
        (f"rtsp://admin:{SECRET}", ""),
        (f"admin:{SECRET}", ""),
        (f"rtsp://a@b:{SECRET}@camera.example:x/", ""),
        (f"rtsp://camera.example:99999/a?pwd={SECRET}", ""),
        (f"rtsp://ad\nmin:{SECRET}@camera.example/", "rtsp://camera.example/"),
    ],
)
def test_no_password_is_shown_again(client: Client, typed: str, shown: str) -> None:
    """Neither one in an address that was right nor one in an address that cannot be read."""
    response = begin(client, rtsp_url=typed, count="0")
    page = read(response.content.decode())
    assert SECRET not in response.content.decode()
    assert page.attributes["id_rtsp_url"].get("value", "") == shown
    assert "type them once more" in page.words


@pytest.mark.parametrize("field", ["name", "interval", "count", "transport"])
def test_an_address_in_a_wrong_field_is_not_shown_again(client: Client, field: str) -> None:
    response = client.post("/streams/", {"rtsp_url": URL, field: URL_WITH_SECRET})
    assert "needs another look" in response.content.decode()
    assert SECRET not in response.content.decode()


def test_an_address_without_credentials_is_shown_again_as_it_is(client: Client) -> None:
    response = begin(client, rtsp_url="rtsp://camera.example:99999/garden-2.sdp", count="0")
    page = read(response.content.decode())
    assert page.attributes["id_rtsp_url"]["value"] == "rtsp://camera.example:99999/garden-2.sdp"
    assert "once more" not in page.words


def test_a_page_of_another_site_cannot_use_the_form(client: Client) -> None:
    response = client.post("/streams/", {"rtsp_url": URL}, headers={"Sec-Fetch-Site": "cross-site"})
    assert response.status_code == 403
    assert rows() == (0, 0, 0)


def test_the_form_needs_no_cookie() -> None:
    strict = Client(enforce_csrf_checks=True, headers={"host": SITE})
    assert strict.post("/streams/", {"rtsp_url": URL}).status_code == 303
    assert strict.post("/streams/demo/stop").status_code == 303
    assert not strict.cookies


def test_a_broken_form_is_refused(client: Client) -> None:
    response = client.post("/streams/", b"rtsp_url=%ff", content_type="application/x-www-form-urlencoded")
    assert response.status_code == 400
    assert rows() == (0, 0, 0)


def test_who_reloads_a_refused_form_sees_all_streams(client: Client) -> None:
    response = client.get("/streams/")
    assert (response.status_code, response["Location"]) == (302, "/")
    assert client.put("/streams/").status_code == 405
