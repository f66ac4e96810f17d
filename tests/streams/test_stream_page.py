"""The page of a stream: its leaderboard as it changes, its counts, its settings, its history; and its buttons."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from streams import queries, services
from streams.engine.report import Counters
from streams.models import Capture, Stream
from tests.streams.builders import (
    BROWSER,
    SECRET,
    URL_WITH_SECRET,
    Response,
    jobs,
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


def page_of(client: Client, path: str = "/streams/demo/") -> Page:
    response = client.get(path)
    assert response.status_code == 200
    page = read(response.content.decode())
    assert page.faults == []
    return page


def press(client: Client, button: str, name: str = "demo", **headers: str) -> Response:
    return client.post(f"/streams/{name}/{button}", headers={"accept": BROWSER, **headers})


# --- what it shows --------------------------------------------------------------------------------


def test_the_leaderboard_is_best_first_with_score_time_and_the_full_picture(client: Client) -> None:
    capture = make_capture()
    record(capture, frames=3)
    page = page_of(client)
    frames = list(queries.ranked_frames(capture))
    assert [frame.number for frame in frames] == [3, 2, 1]
    assert [href for href in page.values("a", "href") if "/frames/" in href] == [
        f"/frames/{f.pk}.jpg" for f in frames
    ]
    small = [src for src in page.values("img", "src") if "/frames/" in src]
    assert small[:3] == [f"/frames/{frame.pk}/small.jpg" for frame in frames]
    said = [" ".join(page.texts[f"frame-{frame.pk}"].split()) for frame in frames]
    assert said == [
        f"{rank} brightness {frame.score:.1f} {frame.captured_at:%H:%M:%S} UTC"
        for rank, frame in enumerate(frames, 1)
    ]
    assert "The brightest so far" in page.text


def test_the_page_changes_as_the_leaderboard_does(client: Client) -> None:
    capture = make_capture()
    record(capture, frames=1)
    first = client.get("/streams/demo/", headers=LIVE)
    record(capture, frames=4)
    second = client.get("/streams/demo/", headers={**LIVE, "HX-PTag": first["HX-PTag"]})
    assert second.status_code == 200
    assert "<html" not in second.content.decode()
    assert second.content.decode().count('<li id="frame-') == 4


def test_what_became_of_what_the_camera_sent_is_told_with_words(client: Client) -> None:
    capture = make_capture()
    counters = Counters(samples=1204, missed=3, rejected=12, repeated=1, connections=2)
    services.checkpoint(make_claim(capture), services.Totals(), make_report(make_picture(1), counters=counters))
    said = page_of(client).words
    for words in (
        "Samples 1,204 frames taken",
        "Chosen 1 of 9",
        "Repeated 1 sample:",
        "Rejected 12 pictures:",
        "Missed 3 samples",
        "Connections 2 to the camera",
    ):
        assert words in said


def test_it_shows_its_settings_without_credentials(client: Client) -> None:
    make_capture(URL_WITH_SECRET, interval_s=2.5, count=4)
    said = page_of(client).words
    assert "Camera rtsp://camera.example:8554/demo Interval 2.5 s Frames to keep 4 Transport TCP" in said
    assert SECRET not in client.get("/streams/demo/").content.decode()


def test_the_timeline_is_shown_with_the_frames_marked(client: Client) -> None:
    record(make_capture(), frames=3)
    page = page_of(client)
    assert "svg" in page.tags
    assert "Brightness over time" in page.text
    assert page.tags.count("circle") >= 3


def test_it_says_when_it_was_started_until_the_first_sample_and_then_for_how_long_it_is_up(client: Client) -> None:
    capture = make_capture()
    Capture.objects.update(started_at=timezone.now() - timedelta(minutes=6, seconds=38))
    said = page_of(client).words
    assert ("Started 6 min ago" in said, "Uptime" in said) == (True, False)
    record(capture, frames=1)
    said = page_of(client).words
    assert ("Started 6 min ago" in said, "Uptime 6 min" in said) == (False, True)


def test_it_says_why_a_queued_capture_has_not_begun(client: Client) -> None:
    make_host(slots=1)
    make_capture("rtsp://first.example/first")
    make_capture()
    assert "All slots are taken (1): capturing begins when another capture has ended." in page_of(client).words


def test_a_stream_that_was_never_captured_has_a_page(client: Client) -> None:
    Stream.objects.create(name="bare", url="rtsp://bare.example/")
    page = page_of(client, "/streams/bare/")
    assert "This stream has no capture: none was made, or all were pruned." in page.text
    assert "No capture." in page.text


def test_what_is_over_shows_the_last_capture_and_how_long_it_lasted(client: Client) -> None:
    make_finished()
    now = timezone.now()
    Capture.objects.update(started_at=now - timedelta(hours=2), finished_at=now - timedelta(minutes=50))
    page = page_of(client)
    assert "The brightest of the last capture" in page.text
    assert "Lasted 1 h 10 min" in page.words
    assert "Ended 50 min ago" in page.words
    assert "noscript" not in page.tags


@pytest.mark.parametrize("name", ["nobody", "no body", "DEMO", "%00", "a" * 500])
def test_an_unknown_name_is_a_page_that_says_so(client: Client, name: str) -> None:
    make_capture()
    response = client.get(f"/streams/{name}/", headers={"accept": BROWSER})
    assert response.status_code == 404
    page = read(response.content.decode())
    assert page.faults == []
    assert "not_found" in page.text
    assert "/" in page.values("a", "href")


# --- history --------------------------------------------------------------------------------------


def make_history(captures: int) -> Stream:
    stream = make_finished(frames=2).stream
    moment = timezone.now() - timedelta(days=1)
    Capture.objects.bulk_create(
        Capture(stream=stream, started_at=moment, finished_at=moment, ending="stopped", samples=n)
        for n in range(1, captures)
    )
    return stream


def past(page: Page) -> list[int]:
    return [int(id_.removeprefix("past-")) for id_ in page.attributes if id_.startswith("past-")]


def test_the_history_is_newest_first_25_a_page(client: Client) -> None:
    stream = make_history(60)
    newest = list(stream.captures.order_by("-id").values_list("pk", flat=True))
    assert past(page_of(client)) == newest[:25]
    assert past(page_of(client, "/streams/demo/?page=2")) == newest[25:50]
    assert past(page_of(client, "/streams/demo/?page=3")) == newest[50:]
    assert past(page_of(client, "/streams/demo/?page=99")) == newest[50:]
    assert past(page_of(client, "/streams/demo/?page=x")) == newest[:25]
    middle = page_of(client, "/streams/demo/?page=2")
    assert middle.attributes["newer"]["href"] == "?page=1#history"
    assert middle.attributes["older"]["href"] == "?page=3#history"
    assert middle.attributes["live"]["hx-get"] == "/streams/demo/?page=2"
    assert "newer" not in page_of(client).attributes


def test_each_capture_of_the_history_has_its_picture_and_how_it_ended(client: Client) -> None:
    whole = make_finished(frames=9)
    Capture.objects.filter(pk=whole.pk).update(error_code="stalled")
    running = make_capture()
    record(running, frames=2)
    page = page_of(client)
    said = {pk: " ".join(page.texts[f"capture-{pk}"].split()) for pk in (whole.pk, running.pk)}
    assert "9 samples 9 of 9 frames Stopped stalled" in said[whole.pk]
    assert "in progress 2 samples 2 of 9 frames" in said[running.pk]
    pictures = page.values("img", "src")[-2:]
    assert pictures == [
        f"/frames/{queries.ranked_frames(running)[0].pk}/small.jpg",
        f"/captures/{whole.pk}/small.jpg",
    ]


# --- buttons --------------------------------------------------------------------------------------


def test_stop_leads_to_the_page_of_the_capture_that_ends(client: Client) -> None:
    capture = make_capture()
    response = press(client, "stop")
    assert (response.status_code, response["Location"]) == (303, f"/captures/{capture.pk}/")
    assert Capture.objects.get().stop_requested_at
    assert press(client, "stop")["Location"] == f"/captures/{capture.pk}/"


def test_start_captures_again_with_the_settings_that_it_has(client: Client) -> None:
    make_finished(URL_WITH_SECRET, count=4, frames=4)
    response = press(client, "start")
    assert (response.status_code, response["Location"]) == (303, "/streams/demo/")
    assert [capture.count for capture in Capture.objects.order_by("id")] == [4, 4]
    assert Stream.objects.get().address.password == SECRET
    assert press(client, "start").status_code == 303
    assert rows()[:2] == (1, 2)


def test_what_cannot_be_started_says_why(client: Client) -> None:
    capture = make_capture()
    services.stop(capture.stream)
    response = press(client, "start")
    assert response.status_code == 409
    assert "demo is being stopped" in response.content.decode()


def test_what_was_never_captured_cannot_be_stopped(client: Client) -> None:
    Stream.objects.create(name="bare", url="rtsp://bare.example/")
    response = press(client, "stop", "bare")
    assert response.status_code == 404
    assert "no_capture" in response.content.decode()


@pytest.mark.parametrize("button", ["start", "stop"])
def test_a_button_is_for_a_known_stream_a_post_and_our_own_pages(client: Client, button: str) -> None:
    make_capture()
    before = (Stream.objects.values().get(), Capture.objects.values().get(), jobs())
    assert press(client, button, "nobody").status_code == 404
    assert client.get(f"/streams/demo/{button}").status_code == 405
    assert press(client, button, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert press(client, button, origin="http://evil.example").status_code == 403
    assert (Stream.objects.values().get(), Capture.objects.values().get(), jobs()) == before


# --- the page of a capture ------------------------------------------------------------------------


def test_a_finished_capture_offers_its_grid_its_frames_and_all_in_one(client: Client) -> None:
    capture = make_finished(frames=2)
    page = page_of(client, f"/captures/{capture.pk}/")
    base = f"/captures/{capture.pk}/"
    hrefs = page.values("a", "href")
    assert page.values("img", "src") == [f"{base}grid.jpg"]
    assert {f"{base}grid.jpg?download", f"{base}capture.zip", "/streams/demo/"} <= set(hrefs)
    assert f"/admin/streams/capture/{capture.pk}/change/" in hrefs
    assert [h for h in hrefs if "/frames/" in h] == [f"/frames/{f.pk}.jpg" for f in queries.ranked_frames(capture)]
    assert "hx-get" not in page.attributes["live"]
    assert "How it ended It was stopped." in page.words


def test_a_capture_that_failed_says_how_it_ended(client: Client) -> None:
    capture = make_capture()
    services.fail(make_claim(capture), "address_refused", "Not there.")
    assert "How it ended It failed: Not there. address_refused" in page_of(client, f"/captures/{capture.pk}/").words


def test_the_live_part_of_a_capture_ends_with_it(client: Client) -> None:
    capture = make_capture()
    record(capture, frames=2)
    path = f"/captures/{capture.pk}/"
    part = client.get(path, headers=LIVE).content.decode()
    assert 'hx-get="' in part
    assert part.count('<li id="frame-') == 2
    services.stop(capture.stream)
    services.finish(capture.pk)
    part = client.get(path, headers=LIVE).content.decode()
    assert "hx-get" not in part
    assert f"{path}grid.jpg" in part


def test_without_its_grid_a_capture_shows_its_frames(client: Client) -> None:
    capture = make_finished(frames=3)
    capture.grid.storage.delete(str(capture.grid.name))
    page = page_of(client, f"/captures/{capture.pk}/")
    assert "its file is not there any more" in page.text
    assert page.values("img", "src") == [f"/frames/{f.pk}/small.jpg" for f in queries.ranked_frames(capture)]
