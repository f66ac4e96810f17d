"""A camera's user name and password beside its address, at every door: taken as they are, and never told again."""

import json
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.admin.models import LogEntry
from django.test import Client
from pytest_django import Settings

from streams import services
from streams.engine.address import parse
from streams.models import Capture, Stream
from tests.streams.builders import (
    API,
    BROWSER,
    SECRET,
    URL,
    URL_WITH_SECRET,
    Response,
    make_capture,
    make_finished,
    rows,
    start,
    told,
)
from tests.streams.html import read
from tests.streams.staff import administrator

pytestmark = pytest.mark.django_db
USER, PASSWORD = "us@er:n%41me ", ' p@ss/w#rd?:%41&+é"'
APART = {"username": USER, "password": PASSWORD}


def credentials() -> tuple[str | None, str | None]:
    address = Stream.objects.get().address
    return address.username, address.password


def api(client: Client, method: str, path: str, **fields: Any) -> Response:
    return client.generic(method, f"/api{path}", json.dumps(fields), "application/json")


def make_stream(url: str = URL_WITH_SECRET) -> Stream:
    return services.create_stream(services.Wish(parse(url), 1.0, 9, "tcp"))


def codes(response: Response) -> dict[str, str]:
    return {field: mistake["code"] for field, mistake in json.loads(response.content)["fields"].items()}


# --- /start ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_json", [False, True], ids=["form", "json"])
def test_they_are_taken_as_they_are_and_never_told_again(client: Client, is_json: bool) -> None:
    fields = {"rtsp_url": URL, **APART}
    body = (json.dumps(fields), "application/json") if is_json else (fields,)
    response = client.post("/start", *body, headers={"accept": API})
    assert response.status_code == 201
    assert credentials() == (USER, PASSWORD)
    assert Stream.objects.get().url == URL
    pages = ["/", "/streams/demo/", "/captures/1/", "/api/streams", "/api/streams/demo", "/api/status", "/metrics"]
    capture = Capture.objects.get().pk
    for page in [*(page.replace("1", str(capture)) for page in pages), f"/captures/{capture}/capture.zip"]:
        assert "p@ss" not in str(client.get(page, headers={"accept": BROWSER}).getvalue())
    assert "p@ss" not in told(response)


def test_one_way_and_the_other_are_the_same_stream_with_the_same_credentials(client: Client) -> None:
    assert start(client, URL_WITH_SECRET).status_code == 201
    assert start(client, URL, username="admin", password=SECRET).status_code == 200
    assert start(client, "rtsp://admin@camera.example:8554/demo", password=SECRET).status_code == 200
    assert start(client, URL, username="admin", password=f"{SECRET} ").status_code == 409


@pytest.mark.parametrize(
    ("url", "fields", "found"),
    [
        (URL, {"username": "me"}, ("me", None)),
        (URL, {"password": "word"}, ("", "word")),
        (URL, {"username": "", "password": ""}, (None, None)),
        ("rtsp://me@camera.example/x", {"password": "word"}, ("me", "word")),
        (f"{URL}?token=t0ken", {"username": "me", "password": "word"}, ("me", "word")),
        (URL, {"username": "u" * 100, "password": "@" * 150}, ("u" * 100, "@" * 150)),
    ],
    ids=["user alone", "password alone", "empty", "user in the address", "beside a token", "as long as can be"],
)
def test_either_may_be_missing(
    client: Client, url: str, fields: dict[str, str], found: tuple[str | None, str | None]
) -> None:
    assert start(client, url, **fields).status_code == 201
    assert credentials() == found


@pytest.mark.parametrize(
    ("url", "fields", "found"),
    [
        (URL_WITH_SECRET, {"username": "me"}, {"username": "credentials_twice"}),
        (URL_WITH_SECRET, {"password": "word"}, {"password": "credentials_twice"}),
        (URL_WITH_SECRET, APART, {"username": "credentials_twice", "password": "credentials_twice"}),
        ("rtsp://:word@camera.example/x", {"username": "me"}, {"username": "credentials_twice"}),
        (URL, {"username": "u" * 101}, {"username": "invalid_username"}),
        (URL, {"password": "p" * 151}, {"password": "invalid_password"}),
        (URL, {"password": "a\r\nb"}, {"password": "invalid_password"}),
        (URL, {"username": "a\x7f"}, {"username": "invalid_username"}),
        (URL, {"password": "a\x00b"}, {"password": "invalid_password"}),
        (f"rtsp://{'u' * 200}@camera.example/x", {"password": "p" * 100}, {"password": "invalid_password"}),
        (URL, {"verify_certificate": "perhaps"}, {"verify_certificate": "invalid_verify_certificate"}),
    ],
)
def test_what_cannot_be_taken_is_told_with_its_field(
    client: Client, url: str, fields: dict[str, str], found: dict[str, str]
) -> None:
    response = start(client, url, accept=API, **fields)
    assert (response.status_code, codes(response)) == (400, found)
    assert rows() == (0, 0, 0)
    for secret in (SECRET, PASSWORD, "word", "p" * 100):
        assert secret not in told(response).replace("password", "")


def test_given_twice_is_told_in_one_sentence_each(client: Client) -> None:
    assert "password is in the address and apart: give it once." in told(start(client, URL_WITH_SECRET, password="x"))


# --- verify_certificate ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, True), ({"verify_certificate": True}, True), ({"verify_certificate": False}, False)],
    ids=["left out", "true", "false"],
)
@pytest.mark.parametrize("is_json", [False, True], ids=["form", "json"])
def test_certificates_are_verified_unless_it_says_not_to(
    client: Client, given: dict[str, bool], found: bool, is_json: bool
) -> None:
    fields = {"rtsp_url": "rtsps://camera.example/x", **given}
    body = (json.dumps(fields), "application/json") if is_json else (fields,)
    assert client.post("/start", *body).status_code == 201
    assert Stream.objects.get().verify_certificate is found
    assert ("not verified" in client.get("/streams/x/").content.decode()) is not found


def test_another_wish_for_it_is_another_setting(client: Client) -> None:
    assert start(client, verify_certificate="no").status_code == 201
    assert start(client, verify_certificate="off").status_code == 200
    response = start(client, verify_certificate="yes", accept=API)
    assert json.loads(response.content)["code"] == "already_running"
    assert not Stream.objects.get().verify_certificate
    services.stop(Stream.objects.get())
    services.finish(Capture.objects.get().pk)
    assert services.start_again(Stream.objects.get()).is_new
    assert not Stream.objects.get().verify_certificate


def test_in_json_it_is_a_truth_and_nothing_else_is(client: Client) -> None:
    for wrong in ("true", 1, "no"):
        response = api(client, "POST", "/streams", rtsp_url=URL, verify_certificate=wrong)
        assert codes(response) == {"verify_certificate": "invalid_verify_certificate"}
    response = client.post("/start", json.dumps({"rtsp_url": URL, "name": True}), "application/json")
    assert response.status_code == 400
    assert rows() == (0, 0, 0)


# --- the page -------------------------------------------------------------------------------------


def test_the_page_takes_them_and_shows_none_again(client: Client) -> None:
    fields: dict[str, Any] = {"rtsp_url": URL, "username": "gu3st", "password": PASSWORD, "count": "0"}
    fields |= {"verify_certificate": "true"}
    response = client.post("/streams/", fields)
    page = read(response.content.decode())
    password = page.attributes["id_password"]
    assert (password["type"], password["autocomplete"]) == ("password", "new-password")
    assert "value" not in password
    assert not page.attributes["id_username"].get("value")
    assert "type them once more" in page.words
    assert "gu3st" not in told(response)
    assert "p@ss" not in told(response)
    assert '<option value="true" selected>Verified</option>' in response.content.decode()
    assert client.post("/streams/", fields | {"count": "9"}).status_code == 303
    assert credentials() == ("gu3st", PASSWORD)


@pytest.mark.parametrize(("given", "found"), [("false", False), ("true", True), ("", True)])
def test_the_form_has_a_certificate_verified_or_not(client: Client, given: str, found: bool) -> None:
    assert client.post("/streams/", {"rtsp_url": URL, "verify_certificate": given}).status_code == 303
    assert Stream.objects.get().verify_certificate is found


# --- the API --------------------------------------------------------------------------------------


def test_the_api_tells_only_whether_there_are_some(client: Client) -> None:
    created = api(client, "POST", "/streams", rtsp_url=URL, **APART)
    assert created.status_code == 201
    found = json.loads(created.content)
    assert (found["has_credentials"], found["verify_certificate"]) == (True, True)
    assert {"username", "password", "credentials"}.isdisjoint(found)
    document = client.get("/api/openapi.json").json()
    schema = document["paths"]["/api/streams"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    for name in ("username", "password"):
        assert schema["properties"][name]["writeOnly"]


CHANGES = [
    ({"password": "n3w"}, ("admin", "n3w")),
    ({"username": "guest"}, ("guest", SECRET)),
    ({"username": "guest", "password": "n3w"}, ("guest", "n3w")),
    ({"password": None}, ("admin", None)),
    ({"password": ""}, ("admin", None)),
    ({"username": None}, (None, None)),
    ({"username": None, "password": None}, (None, None)),
    ({"username": None, "password": "n3w"}, ("", "n3w")),
    ({"interval": 5}, ("admin", SECRET)),
    ({"interval": None}, ("admin", SECRET)),
    ({"rtsp_url": "rtsp://other.example/demo"}, (None, None)),
    ({"rtsp_url": URL, "username": "guest", "password": "n3w"}, ("guest", "n3w")),
    ({"rtsp_url": URL, "password": "n3w"}, ("", "n3w")),
]


@pytest.mark.parametrize(("fields", "found"), CHANGES, ids=[json.dumps(fields) for fields, _ in CHANGES])
def test_what_is_left_out_stays_and_null_takes_away(
    client: Client, fields: dict[str, Any], found: tuple[str | None, str | None]
) -> None:
    """A new address never gets the old password: it may be another camera's."""
    make_stream()
    response = api(client, "PATCH", "/streams/demo", **fields)
    assert response.status_code == 200, told(response)
    assert credentials() == found
    assert json.loads(response.content)["has_credentials"] is (found != (None, None))


def test_secrets_of_the_query_stay_when_the_password_changes(client: Client) -> None:
    make_stream(f"{URL_WITH_SECRET}?token=t0ken")
    assert api(client, "PATCH", "/streams/demo", password="n3w").status_code == 200
    assert Stream.objects.get().address == parse("rtsp://admin:n3w@camera.example:8554/demo?token=t0ken")


def test_a_certificate_is_verified_from_now_on_or_not(client: Client) -> None:
    make_stream()
    for wanted in (False, True):
        answer = json.loads(api(client, "PATCH", "/streams/demo", verify_certificate=wanted).content)
        assert (answer["verify_certificate"], Stream.objects.get().verify_certificate) == (wanted, wanted)
    assert credentials() == ("admin", SECRET)


def test_while_it_is_captured_nothing_changes(client: Client) -> None:
    make_capture(URL_WITH_SECRET)
    assert api(client, "PATCH", "/streams/demo", password="n3w").status_code == 409
    assert credentials() == ("admin", SECRET)


@pytest.mark.parametrize(
    ("url", "fields", "status"),
    [
        (URL_WITH_SECRET, {"password": "n3w"}, 409),
        (URL_WITH_SECRET, {"username": "guest", "password": "n3w"}, 200),
        (f"{URL_WITH_SECRET}?token=t0ken", {"username": "guest", "password": "n3w"}, 409),
        (URL_WITH_SECRET, {"interval": 5}, 200),
    ],
    ids=["the user is lost", "both are new", "the token is lost", "another setting"],
)
def test_what_no_key_opens_is_not_guessed(
    client: Client, settings: Settings, url: str, fields: dict[str, Any], status: int
) -> None:
    make_stream(url)
    settings.CREDENTIALS_KEYS = [Fernet.generate_key().decode()]
    response = api(client, "PATCH", "/streams/demo", **fields)
    assert response.status_code == status
    assert json.loads(response.content).get("has_credentials", True)
    assert status == 200 or json.loads(response.content)["code"] == "credentials_sealed"


def test_a_password_that_is_too_long_beside_the_user_that_stays_is_told(client: Client) -> None:
    make_stream(f"rtsp://{'u' * 200}@camera.example/demo")
    response = api(client, "PATCH", "/streams/demo", password="p" * 100)
    assert (response.status_code, codes(response)) == (409, {"password": "invalid_password"})


# --- the admin ------------------------------------------------------------------------------------


def save(client: Client, stream: Stream, **fields: Any) -> Response:
    kept = {"interval_s": "1", "count": "9", "transport": "tcp", "verify_certificate": "on"}
    return client.post(f"/admin/streams/stream/{stream.pk}/change/", kept | fields)


def test_the_admin_shows_none_and_takes_new_ones() -> None:
    admin, stream = administrator(), make_stream()
    for fields in ({}, {"username": "guest", "password": "n3w p@ss "}):
        assert save(admin, stream, **fields).status_code == 302
        shown = admin.get(f"/admin/streams/stream/{stream.pk}/change/").content.decode()
        listed = admin.get("/admin/streams/stream/").content.decode()
        history = admin.get(f"/admin/streams/stream/{stream.pk}/history/").content.decode()
        for secret in (SECRET, "n3w", "guest"):
            assert secret not in shown + listed + history + str(list(LogEntry.objects.values_list()))
        password = read(shown).attributes["id_password"]
        assert (password["type"], "value" in password) == ("password", False)
        assert 'alt="True"' in shown
    assert credentials() == ("guest", "n3w p@ss ")


def test_the_admin_takes_them_away_and_says_so() -> None:
    admin, stream = administrator(), make_stream()
    both = save(admin, stream, remove_credentials="on", password="n3w")
    assert "Either give new ones" in both.content.decode()
    assert "n3w" not in both.content.decode()
    assert credentials() == ("admin", SECRET)
    wrong = save(admin, stream, username="gu3st", password="n3w", interval_s="0").content.decode()
    assert "greater than or equal to 0.1" in wrong
    assert "gu3st" not in wrong
    assert "n3w" not in wrong
    assert save(admin, stream, remove_credentials="on").status_code == 302
    assert credentials() == (None, None)
    assert 'alt="False"' in admin.get(f"/admin/streams/stream/{stream.pk}/change/").content.decode()


def test_the_admin_changes_credentials_of_a_stream_at_rest_alone() -> None:
    admin, stream = administrator(), make_capture(URL_WITH_SECRET).stream
    response = save(admin, stream, password="n3w", interval_s="7")
    assert "demo is being captured: stop it first." in response.content.decode()
    assert credentials() == ("admin", SECRET)
    assert save(admin, stream, remove_credentials="on").status_code == 200
    assert credentials() == ("admin", SECRET)


def test_the_admin_verifies_certificates_or_not() -> None:
    admin, stream = administrator(), make_finished(URL_WITH_SECRET).stream
    kept = {"interval_s": "1", "count": "9", "transport": "tcp"}
    assert admin.post(f"/admin/streams/stream/{stream.pk}/change/", kept).status_code == 302
    stream.refresh_from_db()
    assert (stream.verify_certificate, stream.address.password) == (False, SECRET)
