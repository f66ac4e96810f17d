"""What contradicts what is there, and what is left out: the same answer at every door."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django import Settings

from streams import services
from streams.engine.address import parse
from streams.models import Capture, Stream
from streams.services import Change, Wish
from tests.streams.builders import (
    API,
    SECRET,
    URL,
    URL_WITH_SECRET,
    make_capture,
    make_claim,
    make_finished,
    rows,
    start,
)
from tests.streams.html import read

pytestmark = pytest.mark.django_db
OTHER = "rtsp://camera.example/other"
Fields = dict[str, Any]
Door = Callable[[Client, Fields], tuple[int, str, str]]
"""Status, code and sentence of what it answers to a start or a change with these fields."""


def plain(client: Client, fields: Fields) -> tuple[int, str, str]:
    answer = client.post("/start", fields, headers={"accept": API})
    return answer.status_code, answer.json()["code"], answer.json()["message"]


def api(method: str, path: str) -> Door:
    def door(client: Client, fields: Fields) -> tuple[int, str, str]:
        answer = client.generic(method, f"/api/{path}", json.dumps(fields), "application/json")
        return answer.status_code, answer.json()["code"], answer.json()["message"]

    return door


def page(client: Client, fields: Fields) -> tuple[int, str, str]:
    """A page has no code for a field; its sentence is beside the field that is marked."""
    answer = client.post("/streams/", fields)
    found = read(answer.content.decode())
    [field] = [id_ for id_, its in found.attributes.items() if "aria-invalid" in its]
    code = {"id_rtsp_url": "address_taken", "id_name": "name_taken"}[field]
    return answer.status_code, code, " ".join(found.texts[f"{field}_error"].split())


def command(client: Client, fields: Fields) -> tuple[int, str, str]:
    said = io.StringIO()
    rest = [f"--{name}={value}" for name, value in fields.items() if name != "rtsp_url"]
    with pytest.raises(CommandError) as ended:
        call_command("streams", "start", fields["rtsp_url"], *rest, "--json", stdout=said, stderr=io.StringIO())
    answer = json.loads(said.getvalue())
    return {7: 409}[ended.value.returncode], answer["code"], answer["message"]


STARTS = {"/start": plain, "/api/start": api("POST", "start"), "the page": page, "the command": command}
DOORS = STARTS | {"/api/streams": api("POST", "streams")}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_a_name_or_an_address_of_another_stream_is_refused_with_the_code_of_which_it_is(
    client: Client, door: Door
) -> None:
    services.create_stream(Wish(parse(URL), name="front-gate"))
    before = rows()
    words = "This address already belongs to the stream front-gate."
    assert door(client, {"rtsp_url": URL, "name": "another"}) == (409, "address_taken", words)
    words = "The name front-gate belongs to another stream."
    assert door(client, {"rtsp_url": OTHER, "name": "front-gate"}) == (409, "name_taken", words)
    assert rows() == before


def test_a_change_to_a_name_or_an_address_of_another_stream_is_refused_in_the_same_words(client: Client) -> None:
    services.create_stream(Wish(parse(URL), name="front-gate"))
    services.create_stream(Wish(parse(OTHER)))
    change = api("PATCH", "streams/other")
    assert change(client, {"rtsp_url": URL})[1:] == (
        "address_taken", "This address already belongs to the stream front-gate."
    )  # fmt: skip
    assert change(client, {"name": "front-gate"})[1:] == (
        "name_taken", "The name front-gate belongs to another stream."
    )  # fmt: skip


# --- a conflict names what differs ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"interval": 1}, "interval 10 s (you asked for 1 s): stop it first, or leave the interval out."),
        ({"count": 9}, "count 4 (you asked for 9): stop it first, or leave the count out."),
        ({"transport": "tcp"}, "transport udp (you asked for tcp): stop it first, or leave the transport out."),
        (
            {"verify_certificate": "true"},
            "certificate verification off (you asked for on): stop it first, or leave verify_certificate out.",
        ),
        (
            {"interval": 0.5, "count": 4, "transport": "tcp"},
            "interval 10 s (you asked for 0.5 s) and transport udp (you asked for tcp): "
            "stop it first, or leave the interval and the transport out.",
        ),
        (
            {"interval": 1, "count": 9, "transport": "tcp"},
            "interval 10 s (you asked for 1 s), count 4 (you asked for 9) and transport udp (you asked for tcp): "
            "stop it first, or leave the interval, the count and the transport out.",
        ),
        ({"username": "guest"}, "other credentials: stop it first, or leave the credentials out."),
        (
            {"interval": 1, "username": "admin", "password": "wr0ng"},
            "interval 10 s (you asked for 1 s) and other credentials: "
            "stop it first, or leave the interval and the credentials out.",
        ),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, dict) else "",
)
def test_a_conflict_names_exactly_what_differs_and_no_credential(client: Client, fields: Fields, says: str) -> None:
    wish = Wish(parse(URL_WITH_SECRET), 10.0, 4, "udp", "front-gate", verify_certificate=False)
    services.start(wish)
    status, code, words = plain(client, {"rtsp_url": URL, **fields})
    assert (status, code, words) == (409, "already_running", f"front-gate is already running with {says}")
    assert Stream.objects.get().address == wish.address


def test_other_secrets_of_the_query_cannot_be_left_out(client: Client) -> None:
    services.start(Wish(parse(f"{URL}?token={SECRET}")))
    words = plain(client, {"rtsp_url": f"{URL}?token=another"})[2]
    assert words == "demo is already running with other credentials: stop it first."


def test_a_page_tells_a_conflict_with_the_name_as_it_is(client: Client) -> None:
    services.start(Wish(parse(URL), 10.0, name="front-gate"))
    answer = client.post("/streams/", {"rtsp_url": URL, "interval": "1"})
    assert answer.status_code == 409
    words = " ".join(read(answer.content.decode()).texts["id_rtsp_url_error"].split())
    assert words.startswith("front-gate is already running with interval 10 s (you asked for 1 s)")


# --- what is left out stays -------------------------------------------------------------------------

BARE = {
    "/start": lambda client: client.post("/start", {"rtsp_url": URL}).status_code,
    "/start in JSON": lambda client: client.post("/start", {"rtsp_url": URL}, "application/json").status_code,
    "/api/start": lambda client: client.post("/api/start", {"rtsp_url": URL}, "application/json").status_code,
    "the page": lambda client: client.post("/streams/", untouched(client)).status_code,
    "the command": lambda client: call_command(
        "streams", "start", URL, stdout=io.StringIO(), stderr=io.StringIO()
    ),
}  # fmt: skip


def untouched(client: Client) -> Fields:
    """What a browser sends of the form in which only the address is filled in."""
    found = read(client.get("/").content.decode())
    fields = {its["name"]: its.get("value", "") for its in found.attributes.values() if "name" in its}
    assert {"interval", "count", "transport", "verify_certificate", "username", "password"} < fields.keys()
    return fields | {"rtsp_url": URL}


@pytest.mark.parametrize("ask", BARE.values(), ids=BARE)
def test_what_is_left_out_keeps_the_stored_values_and_never_conflicts(
    client: Client, ask: Callable[[Client], object]
) -> None:
    wish = Wish(parse(URL_WITH_SECRET), 10.0, 4, "udp", verify_certificate=False)
    services.start(wish)
    ask(client)
    assert Capture.objects.count() == 1
    services.stop(Stream.objects.get())
    services.finish(Capture.objects.get().pk)
    ask(client)
    capture = Capture.objects.get(finished_at=None)
    assert (capture.interval_s, capture.count, capture.transport) == (10.0, 4, "udp")
    stream = capture.stream
    assert (stream.interval_s, stream.count, stream.transport, stream.verify_certificate) == (10.0, 4, "udp", False)
    assert stream.address == wish.address


@pytest.mark.parametrize("ask", BARE.values(), ids=BARE)
def test_a_new_stream_gets_the_defaults(client: Client, ask: Callable[[Client], object]) -> None:
    ask(client)
    capture = Capture.objects.get()
    assert (capture.interval_s, capture.count, capture.transport) == (1.0, 9, "tcp")
    assert capture.stream.verify_certificate


def test_one_setting_that_is_given_changes_and_the_others_stay(client: Client) -> None:
    capture = make_finished(URL_WITH_SECRET, count=4)
    assert start(client, interval="3").status_code == 201
    capture.stream.refresh_from_db()
    assert (capture.stream.interval_s, capture.stream.count, capture.stream.address.password) == (3.0, 4, SECRET)


@pytest.mark.parametrize(
    ("stored", "given", "found"),
    [
        (f"rtsp://me:{SECRET}@cam.example/x?token=a", "rtsp://cam.example/x?token=a", None),
        (f"rtsp://me:{SECRET}@cam.example/x?token=a", "rtsp://cam.example/x?token=***", None),
        (f"rtsp://me:{SECRET}@cam.example/x?token=a", "rtsp://cam.example/x?token=b", "?token=b"),
        (f"rtsp://cam.example/user=me_password={SECRET}_x", "rtsp://cam.example/user=me_password=***_x", None),
        (f"rtsp://me:{SECRET}@cam.example/x", "rtsp://you@cam.example/x", "you@"),
    ],
    ids=["the same token", "as it is shown", "another token", "in the path", "another user"],
)
def test_the_public_address_means_the_stored_one(client: Client, stored: str, given: str, found: str | None) -> None:
    make_finished(stored)
    assert start(client, given).status_code == 201
    address = Stream.objects.get().address
    if found is None:
        assert address == parse(stored)
    else:
        assert found in address.url()
        assert (address.password == SECRET) == ("token" in found)


def test_a_stream_whose_credentials_were_taken_away_starts_without() -> None:
    """The address and the stream's own name are two ways: by name nothing is filled in again."""
    stream = make_finished(URL_WITH_SECRET).stream
    assert services.start_again(stream, Change(username="", password="")).is_new
    stream.refresh_from_db()
    assert stream.address == parse(URL)


def test_credentials_that_no_key_opens_are_not_lost_by_an_address_without(client: Client, settings: Settings) -> None:
    make_finished(URL_WITH_SECRET)
    keys = settings.CREDENTIALS_KEYS
    settings.CREDENTIALS_KEYS = [Fernet.generate_key().decode()]
    assert plain(client, {"rtsp_url": URL})[:2] == (409, "credentials_sealed")
    settings.CREDENTIALS_KEYS = keys
    assert Stream.objects.get().address.password == SECRET


def test_a_running_stream_whose_credentials_no_key_opens_runs_already(client: Client, settings: Settings) -> None:
    make_capture(URL_WITH_SECRET)
    settings.CREDENTIALS_KEYS = [Fernet.generate_key().decode()]
    assert start(client).status_code == 200


def test_a_change_of_the_address_still_replaces_the_credentials() -> None:
    stream = make_finished(URL_WITH_SECRET).stream
    changed = services.change_stream(stream, Change(address=replace(parse(URL), path="/other")))
    assert changed.address == parse(OTHER.replace("camera.example", "camera.example:8554"))


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        (Change(interval_s=5.0), "failed", "address_refused"),
        (Change(name="gate"), "failed", "address_refused"),
        (Change(address=parse(OTHER)), "idle", ""),
        (Change(username="viewer", password="secret"), "idle", ""),
        (Change(transport="udp"), "idle", ""),
        (Change(verify_certificate=False), "idle", ""),
    ],
)
def test_an_error_of_a_connection_that_was_changed_needs_no_attention(change: Change, status: str, code: str) -> None:
    capture = make_capture(URL)
    services.fail(make_claim(capture), "address_refused", "Not there.")
    services.finish(capture.pk)
    services.change_stream(capture.stream, change)
    stream = Stream.objects.get()
    assert (stream.status, stream.error_code) == (status, code)
    assert Capture.objects.get().error_code == "address_refused"
