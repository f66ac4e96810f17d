"""CAPTURE_ALLOWED_NETWORKS, asked at every door."""

import json
from collections.abc import Callable

import pytest
from django.test import Client
from pytest_django import Settings

from streams import services
from streams.engine.address import parse_networks
from streams.models import Capture, Stream
from tests.streams.builders import API, make_wish, start
from tests.streams.test_streams_command import ended

pytestmark = pytest.mark.django_db
INSIDE, OUTSIDE = "rtsp://192.168.7.9/demo", "rtsp://8.8.8.8/demo"


def call(method: str, path: str, **fields: object) -> Callable[[Client], tuple[int, str]]:
    def answered(client: Client) -> tuple[int, str]:
        response = getattr(client, method)(f"/api{path}", json.dumps(fields), content_type="application/json")
        return response.status_code, response.json()["code"]

    return answered


def started(client: Client) -> tuple[int, str]:
    response = start(client, OUTSIDE, accept=API)
    return response.status_code, response.json()["code"]


def commanded(client: Client) -> tuple[int, str]:
    _, _, said = ended("start", OUTSIDE, "--json")
    return 400, json.loads(said)["code"]


@pytest.fixture
def narrow(settings: Settings) -> Callable[[], None]:
    def set_it() -> None:
        settings.CAPTURE_ALLOWED_NETWORKS = parse_networks("192.168.0.0/16")

    return set_it


@pytest.mark.parametrize(
    "ask",
    [
        started,
        commanded,
        call("post", "/start", rtsp_url=OUTSIDE),
        call("post", "/streams", rtsp_url=OUTSIDE),
        call("patch", "/streams/kept", rtsp_url=OUTSIDE),
        call("post", "/streams/old/start"),
    ],
    ids=["start", "command", "api start", "create", "change", "start again"],
)
def test_an_address_outside_is_refused_and_nothing_is_written(
    ask: Callable[[Client], tuple[int, str]], client: Client, narrow: Callable[[], None]
) -> None:
    """An older stream, too, that was allowed once."""
    services.create_stream(make_wish(INSIDE, name="kept"))
    services.create_stream(make_wish("rtsp://8.8.4.4/demo", name="old"))
    narrow()
    assert ask(client) == (400, "address_refused")
    assert set(Stream.objects.values_list("url", flat=True)) == {INSIDE, "rtsp://8.8.4.4/demo"}
    assert Capture.objects.count() == 0


def test_it_is_told_with_the_other_mistakes(client: Client, narrow: Callable[[], None]) -> None:
    narrow()
    told = start(client, OUTSIDE, accept=API, interval="0").json()["fields"]
    assert {field: mistake["code"] for field, mistake in told.items()} == {
        "rtsp_url": "address_refused",
        "interval": "invalid_interval",
    }


def test_one_inside_and_a_name_are_taken(client: Client, narrow: Callable[[], None]) -> None:
    narrow()
    assert start(client, INSIDE).status_code == 201
    assert start(client, "rtsp://camera.example/other").status_code == 201
