"""POST /stop: the page with the grid, and what is answered where there is none."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection
from django.test import Client
from pytest_django import DjangoCaptureOnCommitCallbacks

from streams import outcomes, services
from streams.engine import sheet
from streams.models import Capture, Stream
from tests.streams.builders import (
    API,
    BROWSER,
    CURL,
    SITE,
    URL,
    jobs,
    make_capture,
    make_claim,
    make_finished,
    record,
    rows,
    start,
    stop,
)
from tests.streams.html import Page, read

pytestmark = pytest.mark.django_db
GAP, CELL = sheet.GAP_PX, (24, 32)


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody finishes a capture: long enough for one look at it."""
    monkeypatch.setattr(outcomes, "STOP_WAIT_S", 0.01)


def grid_of(page: Page) -> sheet.Picture:
    """(height, width, 3) uint8 BGR."""
    (source,) = page.values("img", "src")
    head, _, data = source.partition(",")
    assert head == "data:image/jpeg;base64"
    return sheet.decode_jpeg(base64.b64decode(data, validate=True))


# --- the page -------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [CURL, "", BROWSER], ids=["curl", "nothing said", "browser"])
def test_nine_frames_are_a_page_with_their_grid(client: Client, accept: str) -> None:
    make_finished(frames=9)
    response = stop(client, accept=accept)
    assert (response.status_code, response["Content-Type"]) == (200, "text/html; charset=utf-8")
    page = read(response.content.decode())
    assert page.faults == []
    assert grid_of(page).shape == (3 * CELL[0] + 4 * GAP, 3 * CELL[1] + 4 * GAP, 3)
    assert "The 9 brightest of 9 samples" in page.text


def test_the_grid_is_best_first_left_to_right_top_to_bottom(client: Client) -> None:
    make_finished(frames=9)
    grid = grid_of(read(stop(client).content.decode()))
    levels = [
        grid[GAP + row * (CELL[0] + GAP) + 12, GAP + column * (CELL[1] + GAP) + 16].mean()
        for row in range(3)
        for column in range(3)
    ]
    assert levels == pytest.approx([109, 108, 107, 106, 105, 104, 103, 102, 101], abs=1)


def test_the_page_is_one_file(client: Client) -> None:
    """Saved with `curl -o`, it opens with the server gone."""
    capture = make_finished(frames=9)
    page = read(stop(client).content.decode())
    assert page.loaded()
    assert [address for address in page.loaded() if not address.startswith("data:")] == []
    assert page.values("form", "action") == []
    assert page.values("a", "href") == [f"http://{SITE}/captures/{capture.pk}/"]  # found again while the server lives
    assert "url(" not in page.styles
    assert "@import" not in page.styles
    assert not {"script", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not [value for value in page.values("meta", "content") if "url=" in value]


@pytest.mark.parametrize("frames", [1, 4, 8])
def test_too_few_frames_are_a_409_that_counts_and_shows_them(client: Client, frames: int) -> None:
    capture = make_finished(frames=frames)
    response = stop(client)
    assert (response.status_code, response["Content-Type"]) == (409, "text/html; charset=utf-8")
    page = read(response.content.decode())
    assert f"Not enough frames were captured: {frames} of 9." in page.text
    assert page.text.count("32 × 24") == frames
    assert grid_of(page).shape[1] == min(frames, 3) * (CELL[1] + GAP) + GAP
    assert capture.frames.count() == frames


def test_no_frame_is_a_409_without_a_picture(client: Client) -> None:
    make_finished(frames=0)
    response = stop(client)
    page = read(response.content.decode())
    assert response.status_code == 409
    assert "Not enough frames were captured: 0 of 9." in page.text
    assert page.values("img", "src") == []


def test_the_page_says_what_went_wrong(client: Client) -> None:
    capture = make_finished(frames=2)
    Capture.objects.filter(pk=capture.pk).update(error_code="stalled", error_text="It <stopped> sending.")
    assert "The last thing that went wrong: It <stopped> sending." in read(stop(client).content.decode()).text


def test_a_capture_that_failed_is_shown_with_the_reason(client: Client) -> None:
    capture = make_capture()
    services.fail(make_claim(capture), "address_refused", "This service does not connect there.")
    response = stop(client)
    assert response.status_code == 409
    assert "This service does not connect there." in response.content.decode()


def test_as_many_frames_as_were_asked_for_are_enough(client: Client) -> None:
    make_finished(frames=4, count=4)
    response = stop(client)
    assert response.status_code == 200
    assert grid_of(read(response.content.decode())).shape[:2] == (2 * CELL[0] + 3 * GAP, 2 * CELL[1] + 3 * GAP)


def test_a_second_stop_shows_the_same_page(client: Client) -> None:
    make_finished(frames=9)
    first, second = stop(client), stop(client)
    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert Capture.objects.count() == 1


def test_a_stop_is_of_the_latest_capture(client: Client) -> None:
    make_finished(frames=9)
    make_finished(frames=2)
    assert stop(client).status_code == 409


def test_each_stream_is_stopped_alone(client: Client) -> None:
    make_finished(frames=9)
    other = make_capture("rtsp://other.example/demo")
    assert stop(client, "demo").status_code == 200
    other.refresh_from_db()
    assert other.stop_requested_at is None


# --- waiting --------------------------------------------------------------------------------------


def test_what_is_not_finished_in_time_is_a_202_that_refreshes_itself(client: Client) -> None:
    capture = make_capture()
    response = stop(client)
    assert response.status_code == 202
    page = read(response.content.decode())
    assert "being finished" in page.text
    (refresh,) = [value for value in page.values("meta", "content") if "url=" in value]
    seconds, _, url = refresh.partition("; url=")
    assert 0 < int(seconds) <= 10
    assert url == f"http://cameras.example/captures/{capture.pk}/"


def test_the_page_that_refreshes_itself_becomes_the_page_with_the_grid(client: Client) -> None:
    capture = make_capture()
    record(capture, frames=9)
    assert stop(client).status_code == 202
    url = f"/captures/{capture.pk}/"
    assert "being finished" in client.get(url).content.decode()
    services.finish(capture.pk)
    page = read(client.get(url).content.decode())
    assert f"{url}grid.jpg" in page.values("img", "src")
    assert "noscript" not in page.tags
    assert stop(client).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_a_stop_answers_as_soon_as_the_capture_is_finished(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "STOP_WAIT_S", 60.0)
    capture = make_capture()
    record(capture, frames=9)
    with a_finisher(capture.pk):
        response = stop(client)
    assert response.status_code == 200
    assert grid_of(read(response.content.decode())).shape[0] > 3 * CELL[0]


@contextmanager
def a_finisher(capture_id: int) -> Iterator[None]:
    """Somebody who finishes the capture once it is stopped, as the job cluster does."""
    is_over = threading.Event()

    def work() -> None:
        while not is_over.wait(0.02) and not services.finish(capture_id):
            pass
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    is_over.set()
    thread.join()


def test_stopping_is_a_wish_and_one_job(
    client: Client, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    capture = make_capture()
    with django_capture_on_commit_callbacks(execute=True):
        stop(client)
        stop(client)
    capture.refresh_from_db()
    assert capture.stop_requested_at is not None
    assert capture.ending == "stopped"
    assert Stream.objects.get().status == "stopping"
    assert jobs() == [("streams.jobs.finish", (capture.pk,))]


# --- JSON and refusals ----------------------------------------------------------------------------


def test_json_tells_the_frames_and_holds_the_grid(client: Client) -> None:
    capture = make_finished(frames=9)
    response = stop(client, accept=API)
    answer = json.loads(response.content)
    assert (response.status_code, answer["code"], answer["capture"]) == (200, "complete", capture.pk)
    assert [(frame["rank"], frame["score"]) for frame in answer["frames"]][:2] == [(1, 109.0), (2, 108.0)]
    assert len(answer["frames"]) == 9
    assert answer["grid"].startswith("data:image/jpeg;base64,")


def test_json_tells_that_there_are_too_few_frames(client: Client) -> None:
    make_finished(frames=4)
    response = stop(client, accept=API)
    answer = json.loads(response.content)
    assert (response.status_code, answer["code"], len(answer["frames"])) == (409, "not_enough_frames", 4)
    assert "4 of 9" in answer["message"]


def test_json_tells_that_it_takes_longer(client: Client) -> None:
    make_capture()
    response = stop(client, accept=API)
    answer = json.loads(response.content)
    assert (response.status_code, answer["code"], answer["grid"]) == (202, "stopping", "")


def test_json_is_taken(client: Client) -> None:
    make_finished(frames=9)
    response = client.post("/stop", json.dumps({"process_name": "demo"}), content_type="application/json")
    assert response.status_code == 200


@pytest.mark.parametrize("name", ["nobody", "Demo", "demo-2", "' OR 1=1 --", "a" * 5000, "1", "<b>demo</b>"])
@pytest.mark.parametrize(
    ("accept", "content_type"),
    [(CURL, "text/html; charset=utf-8"), (BROWSER, "text/html; charset=utf-8"), (API, "application/json")],
)
def test_an_unknown_name_is_a_404(client: Client, accept: str, content_type: str, name: str) -> None:
    make_capture(URL)
    before = rows()
    response = stop(client, name, accept=accept)
    assert (response.status_code, response["Content-Type"]) == (404, content_type)
    assert "unknown_process" in response.content.decode()
    assert rows() == before


def test_the_name_that_start_answers_with_is_the_one_that_stop_takes(client: Client) -> None:
    for url in (URL, "rtsp://other.example/demo", "rtsp://camera.example/_%20_"):
        name = json.loads(start(client, url, accept=API).content)["process_name"]
        assert stop(client, name).status_code == 202


def test_a_stream_whose_captures_are_all_gone_is_told_apart_from_an_unknown_one(client: Client) -> None:
    make_finished().delete()
    response = stop(client, accept=API)
    assert (response.status_code, response.json()["code"]) == (404, "no_capture")
    assert stop(client, "nobody", accept=API).json()["code"] == "unknown_process"


def test_a_capture_that_is_pruned_while_its_stop_waits_is_no_fault(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = make_capture()
    monkeypatch.setattr("streams.outcomes.time.sleep", lambda _: Capture.objects.filter(pk=capture.pk).delete())
    response = stop(client, accept=API)
    assert (response.status_code, response.json()["code"]) == (404, "no_capture")
