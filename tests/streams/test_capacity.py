"""How many requests are answered at a time, and what those that have no place are told."""

import gc
import json
import re
import threading
from collections.abc import Iterator

import pytest
from django.test import Client

from streams import capacity, outcomes
from streams.capacity import STUCK_S, Places
from tests.streams.builders import API, BROWSER, make_capture, make_finished, stop
from tests.streams.html import read


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    """One place; none is left when the test is over."""
    places = Places(1)
    monkeypatch.setattr(capacity, "PLACES", places)
    monkeypatch.setattr(capacity, "STUCK_S", 0.0)
    yield places
    gc.collect()
    assert places.taken == 0


@pytest.mark.django_db
def test_the_style_of_the_page_that_says_busy_needs_no_place(client: Client, places: Places) -> None:
    assert places.take()
    page = client.get("/", headers={"Accept": BROWSER})
    assert (page.status_code, "The website is busy" in page.content.decode()) == (503, True)
    linked = re.findall(r'(?:href|src)="(/static/streams/[^"]+)"', page.content.decode())
    assert linked
    for path in linked:
        file = client.get(path)
        assert (file.status_code, b"".join(file.streaming_content) != b"") == (200, True), path  # type: ignore[attr-defined]
        file.close()
        assert client.post(path).status_code == 503
    places.give_back()


def test_there_are_as_many_places_as_were_asked_for() -> None:
    clock = Clock()
    places = Places(2, clock)
    assert (places.take(), places.take()) == (True, True)
    clock.now_s = STUCK_S
    assert not places.take()
    places.give_back()
    assert places.take()


def test_who_waits_gets_the_place_that_becomes_free() -> None:
    places = Places(1)
    assert places.take()
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(places.take()))
    waiting.start()
    places.give_back()
    waiting.join(30)
    assert found == [True]


def test_nobody_waits_once_nothing_has_moved_for_long() -> None:
    clock = Clock()
    places = Places(1, clock)
    assert places.take()
    clock.now_s = STUCK_S + 1
    assert not places.take()


@pytest.mark.django_db
def test_without_a_place_every_answer_says_so_and_when_to_come_again(client: Client, places: Places) -> None:
    make_capture()
    assert places.take()
    for path, accept in (("/", API), ("/", BROWSER), ("/api/streams", ""), ("/static/admin/css/base.css", "")):
        answer = client.get(path, headers={"accept": accept})
        assert (answer.status_code, answer["Retry-After"]) == (503, "5"), path
        assert "busy" in answer.content.decode() or "The website is busy" in answer.content.decode()
    assert json.loads(stop(client, accept=API).content)["code"] == "busy"
    assert read(stop(client).content.decode()).faults == []
    assert [client.get(path).status_code for path in ("/livez", "/metrics")] == [200, 200]
    places.give_back()
    assert client.get("/").status_code == 200


@pytest.mark.django_db
def test_a_place_is_given_back_when_the_answer_is_sent_dropped_or_broken(
    client: Client, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = make_finished(frames=1)
    zipped = client.get(f"/captures/{capture.pk}/capture.zip")
    assert places.taken == 1
    assert b"".join(zipped.streaming_content)  # type: ignore[attr-defined]
    assert places.taken == 0
    assert client.get(f"/captures/{capture.pk}/capture.zip").streaming
    gc.collect()
    assert places.taken == 0
    assert client.get("/streams/nobody/").status_code == 404
    monkeypatch.setattr("streams.queries.room", None)
    assert client.get("/").status_code == 500


@pytest.mark.django_db
def test_where_half_of_the_threads_wait_a_stop_does_not(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    waiters = threading.BoundedSemaphore(1)
    monkeypatch.setattr(capacity, "WAITERS", waiters)
    monkeypatch.setattr(outcomes, "STOP_WAIT_S", 3600.0)
    assert waiters.acquire(blocking=False)
    make_capture()
    answer = stop(client)
    assert (answer.status_code, "being finished" in answer.content.decode()) == (202, True)
    assert client.post("/api/streams/demo/stop", content_type="application/json").status_code == 202
    waiters.release()
    make_finished("rtsp://other.example/other", frames=9)
    assert stop(client, "other").status_code == 200
    assert waiters.acquire(blocking=False), "who does not wait any more has given it back"
