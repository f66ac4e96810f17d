"""POST /start: what is started, how it is called, and how the answer reads."""

import json

import pytest
from django.test import Client
from django_q.models import OrmQ
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from streams import services
from streams.models import Capture, Stream
from tests.streams.builders import (
    API,
    BROWSER,
    CURL,
    SECRET,
    SITE,
    URL,
    URL_WITH_SECRET,
    jobs,
    make_capture,
    make_finished,
    make_host,
    record,
    rows,
    start,
    stop,
    told,
)

pytestmark = pytest.mark.django_db


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("rtsp://camera.example/demo", "demo"),
        ("rtsp://camera.example/demo/", "demo"),
        ("rtsp://camera.example/live/main?channel=1", "main"),
        ("rtsp://camera.example/Streaming/Channels/101", "101"),
        ("rtsp://camera.example/stream.sdp", "stream.sdp"),
        ("rtsp://camera.example", "camera.example"),
        ("rtsp://camera.example/", "camera.example"),
        ("rtsp://camera.example/../..", "camera.example"),
        ("rtsp://camera.example/%0d%0a%00", "camera.example"),
        ("rtsp://camera.example/front door", "front-door"),
        ("rtsp://camera.example/<b>x</b>/<i>", "i"),
        ("rtsp://camera.example/caf%C3%A9", "caf"),
        ("rtsp://camera.example/%ff%fe", "camera.example"),
        ("rtsp://camera.example/" + "a" * 200, "a" * 64),
    ],
)
def test_the_last_part_of_the_path_is_the_name(client: Client, url: str, name: str) -> None:
    response = start(client, url)
    assert response.status_code == 201
    assert f"process_name={name} " in response.content.decode()
    assert Stream.objects.get().name == name


def test_another_address_of_the_same_name_is_counted_up(client: Client) -> None:
    answers = [start(client, f"rtsp://camera-{n}.example/demo", accept=API) for n in range(4)]
    names = [json.loads(answer.content)["process_name"] for answer in answers]
    assert names == ["demo", "demo-2", "demo-3", "demo-4"]


def test_a_counted_name_fits_where_the_name_is_as_long_as_can_be(client: Client) -> None:
    for n in range(3):
        assert start(client, f"rtsp://camera-{n}.example/{'a' * 64}").status_code == 201
    names = sorted(Stream.objects.values_list("name", flat=True))
    assert len(set(names)) == 3
    assert max(map(len, names)) <= 64


def test_a_name_can_be_given(client: Client) -> None:
    assert "process_name=front.door_1-x " in start(client, name="front.door_1-x").content.decode()
    assert start(client, name="front.door_1-x").status_code == 200


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "a b", "a\nb", "<script>x</script>", "-a", ".a", "a/b", "a" * 65, "\u00e4", "a\u0661"],
)
def test_a_given_name_is_letters_digits_dots_dashes_and_underscores(client: Client, name: str) -> None:
    response = start(client, name=name)
    assert response.status_code == 400
    assert "name" in response.content.decode()
    assert rows() == (0, 0, 0)


# --- once and again -------------------------------------------------------------------------------


def test_a_first_start_makes_a_stream_and_a_capture(client: Client) -> None:
    response = start(client, interval="2.5", count="4", transport="udp")
    assert response.status_code == 201
    capture = Capture.objects.get()
    assert (capture.stream.url, capture.stream.status) == (URL, "queued")
    assert (capture.interval_s, capture.count, capture.transport) == (2.5, 4, "udp")
    assert (capture.stream.interval_s, capture.stream.count, capture.stream.transport) == (2.5, 4, "udp")


def test_defaults_are_a_second_nine_frames_and_tcp(client: Client) -> None:
    start(client)
    capture = Capture.objects.get()
    assert (capture.interval_s, capture.count, capture.transport) == (1.0, 9, "tcp")


def test_the_same_again_answers_that_it_runs_already(client: Client) -> None:
    first, second = start(client), start(client)
    assert (first.status_code, second.status_code) == (201, 200)
    assert "already running: process_name=demo " in second.content.decode()
    assert rows()[:2] == (1, 1)


@pytest.mark.parametrize(
    "url",
    [
        "RTSP://Camera.Example:8554/demo",
        "rtsp://camera.example.:8554/demo",
        " rtsp://camera.example:8554/demo ",
        "rtsp://camera.example:08554/demo",
    ],
)
def test_another_spelling_of_the_address_is_the_same_stream(client: Client, url: str) -> None:
    start(client)
    assert start(client, url).status_code == 200
    assert Stream.objects.count() == 1


@pytest.mark.parametrize(
    "fields", [{"interval": "2"}, {"count": "4"}, {"transport": "udp"}], ids=["interval", "count", "transport"]
)
def test_other_settings_while_it_runs_are_refused_and_change_nothing(client: Client, fields: dict[str, str]) -> None:
    start(client)
    response = start(client, accept=API, **fields)
    assert response.status_code == 409
    assert json.loads(response.content)["code"] == "already_running"
    capture = Capture.objects.get()
    assert (capture.interval_s, capture.count, capture.transport) == (1.0, 9, "tcp")


@pytest.mark.parametrize(
    "url",
    [URL_WITH_SECRET.replace(SECRET, "wr0ng-w0rd"), URL_WITH_SECRET.replace("admin", "guest")],
    ids=["another password", "another user"],
)
def test_other_credentials_while_it_runs_are_refused_and_change_nothing(client: Client, url: str) -> None:
    start(client, URL_WITH_SECRET)
    assert start(client, url).status_code == 409
    assert Stream.objects.get().address.password == SECRET


def test_other_secrets_in_the_query_are_other_credentials(client: Client) -> None:
    start(client, f"{URL}?token={SECRET}")
    assert start(client, f"{URL}?token={SECRET}").status_code == 200
    assert start(client, f"{URL}?token=another").status_code == 409
    assert Stream.objects.count() == 1


def test_a_stream_that_is_finished_starts_again_with_what_is_asked_now(client: Client) -> None:
    old = make_finished(URL_WITH_SECRET)
    response = start(client, URL_WITH_SECRET.replace(SECRET, "another"), interval="3", count="4", accept=API)
    assert response.status_code == 201
    new = Capture.objects.get(finished_at=None)
    assert (new.stream_id, new.interval_s, new.count) == (old.stream_id, 3.0, 4)
    assert (new.stream.address.password, new.stream.interval_s) == ("another", 3.0)
    old.refresh_from_db()
    assert (old.interval_s, old.count, old.frames.count()) == (1.0, 9, 9)


def test_a_new_start_forgets_the_last_error(client: Client) -> None:
    capture = make_finished(frames=1)
    Stream.objects.update(status="failed", error_code="unreachable", error_text="No connection.", attempt=7)
    assert start(client).status_code == 201
    capture.stream.refresh_from_db()
    assert (capture.stream.error_code, capture.stream.error_text, capture.stream.attempt) == ("", "", 0)


def test_a_start_while_it_is_being_stopped_does_not_pass_for_running(client: Client) -> None:
    """Who hears that it runs already will look for frames of a capture that ends at this moment."""
    capture = make_capture()
    services.stop(capture.stream)
    response = start(client, accept=API)
    assert response.status_code == 409
    assert "already running" not in response.content.decode()


# --- jobs -----------------------------------------------------------------------------------------


def test_a_start_queues_one_job_when_it_is_committed(
    client: Client, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks() as callbacks:
        start(client, URL_WITH_SECRET)
        start(client, URL_WITH_SECRET)
    assert (len(callbacks), OrmQ.objects.count()) == (2, 0)  # a line in the log, and the job
    for callback in callbacks:
        callback()
    assert jobs() == [("streams.jobs.place", (Capture.objects.get().pk,))]
    assert SECRET not in str(OrmQ.objects.get().task)


def test_a_start_that_is_refused_queues_no_job(
    client: Client, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    start(client)
    with django_capture_on_commit_callbacks() as callbacks:
        start(client, interval="2")
        start(client, "rtsp://other.example/x", name="demo")
    assert callbacks == []


# --- in and out -----------------------------------------------------------------------------------


def test_json_is_taken(client: Client) -> None:
    fields = {"rtsp_url": URL, "interval": 0.5, "count": 4, "transport": None}
    response = client.post("/start", json.dumps(fields), content_type="application/json; charset=utf-8")
    assert response.status_code == 201
    capture = Capture.objects.get()
    assert (capture.interval_s, capture.count, capture.transport) == (0.5, 4, "tcp")


def test_a_form_as_curl_sends_it_is_taken(client: Client) -> None:
    body = f"rtsp_url={URL_WITH_SECRET}&interval=2"
    response = client.generic("POST", "/start", body, content_type="application/x-www-form-urlencoded")
    assert response.status_code == 201
    assert Capture.objects.get().interval_s == 2.0


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (CURL, "text/plain; charset=utf-8"),
        ("", "text/plain; charset=utf-8"),
        (BROWSER, "text/html; charset=utf-8"),
        (API, "application/json"),
    ],
)
def test_the_answer_is_what_the_client_takes(client: Client, accept: str, content_type: str) -> None:
    for status in (201, 200):
        response = start(client, accept=accept)
        assert (response.status_code, response["Content-Type"]) == (status, content_type)
    refused = start(client, interval="0", accept=accept)
    assert (refused.status_code, refused["Content-Type"]) == (400, content_type)
    assert "interval" in refused.content.decode()


def test_a_json_answer_says_what_runs(client: Client) -> None:
    make_host()
    answer = json.loads(start(client, URL_WITH_SECRET, accept=API).content)
    assert answer == {
        "process_name": "demo",
        "status": "queued",
        "url": URL,
        "interval": 1.0,
        "count": 9,
        "capture": Capture.objects.get().pk,
        "is_new": True,
        "has_host": True,
        "slots": 8,
        "waits_for": 0,
        "message": "Video stream started",
    }


def test_a_json_refusal_has_a_code_and_a_sentence_for_each_field(client: Client) -> None:
    answer = json.loads(start(client, interval="0", count="0", accept=API).content)
    assert {name: field["code"] for name, field in answer["fields"].items()} == {
        "interval": "invalid_interval",
        "count": "invalid_count",
    }
    assert all(name in field["message"] for name, field in answer["fields"].items())


def test_it_says_when_nothing_will_be_captured_for_want_of_a_supervisor(client: Client) -> None:
    assert "No supervisor is running" in start(client).content.decode()
    make_host()
    assert "No supervisor" not in start(client).content.decode()


# --- who and how ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/start", "/stop"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_another_method_is_told_which_is_right(client: Client, method: str, path: str) -> None:
    response = client.generic(method, f"{path}?rtsp_url={URL}")
    assert (response.status_code, response["Allow"]) == (405, "POST")
    assert rows() == (0, 0, 0)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": f"http://{SITE}.evil.example"},
        {"Origin": f"http://{SITE}:8000"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://["},
        {"Origin": f"http://{SITE}", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
    ids=str,
)
def test_a_page_of_another_site_is_refused(client: Client, headers: dict[str, str]) -> None:
    assert client.post("/start", {"rtsp_url": URL}, headers=headers).status_code == 403
    assert rows() == (0, 0, 0)
    capture = make_capture()
    assert client.post("/stop", {"process_name": "demo"}, headers=headers).status_code == 403
    capture.refresh_from_db()
    assert capture.stop_requested_at is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "none"},
        {"Origin": f"http://{SITE}", "Sec-Fetch-Site": "same-origin"},
        {"Origin": f"https://{SITE}"},
    ],
    ids=str,
)
def test_our_own_pages_and_curl_are_let_in(client: Client, headers: dict[str, str]) -> None:
    assert client.post("/start", {"rtsp_url": URL}, headers=headers).status_code == 201


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://front.example", 201),
        ("http://front.example", 403),
        ("https://front.example.evil.example", 403),
        ("https://a.sub.example", 201),
        ("https://evilsub.example", 403),
        ("null", 403),
    ],
)
def test_where_a_proxy_changes_the_host_name_the_trusted_origins_are_ours(
    client: Client, settings: Settings, origin: str, status: int
) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://front.example", "https://*.sub.example"]
    assert client.post("/start", {"rtsp_url": URL}, headers={"origin": origin}).status_code == status


@pytest.mark.parametrize(
    "host",
    [
        *("169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "0.0.0.0", "224.0.0.1", "[ff02::1]", "[::]"),
        *("2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "１６９.254.169.254"),
        *("[64:ff9b::a9fe:a9fe]", "[2002:a9fe::]"),
    ],
)
def test_an_address_where_no_camera_lives_is_refused_at_once(client: Client, host: str) -> None:
    response = start(client, f"rtsp://{host}/demo", accept=API)
    assert response.status_code == 400
    assert json.loads(response.content)["code"] == "address_refused"
    assert rows() == (0, 0, 0)


@pytest.mark.parametrize("accept", [CURL, BROWSER, API], ids=["text", "html", "json"])
def test_no_answer_tells_a_credential(client: Client, accept: str) -> None:
    url = f"{URL_WITH_SECRET}?user=operator-name&token=t0ken-v4lue"
    answers = [
        start(client, url, accept=accept),  # 201
        start(client, url, accept=accept),  # 200
        start(client, url, accept=accept, interval="2"),  # 409
        start(client, url, accept=accept, interval="x"),  # 400
        start(client, url + "#", accept=accept),  # 400: the address itself is wrong
        start(client, url, accept=accept, name="other"),  # 409
        client.get("/", headers={"accept": accept}),
    ]
    record(Capture.objects.get())
    services.stop(Stream.objects.get())
    services.finish(Capture.objects.get().pk)
    answers += [stop(client, accept=accept), client.get(f"/captures/{Capture.objects.get().pk}/")]
    assert [answer.status_code for answer in answers] == [201, 200, 409, 400, 400, 409, 200, 200, 200]
    for answer in answers:
        for secret in ("admin", SECRET, "operator-name", "t0ken-v4lue"):
            text = told(answer).replace("/admin/", "").replace("admin</a>", "")
            assert secret not in text


# --- slots ----------------------------------------------------------------------------------------


def start_many(client: Client, count: int, *, accept: str = CURL) -> list[str]:
    return [start(client, f"rtsp://camera-{n}.example/demo", accept=accept).content.decode() for n in range(count)]


def test_json_says_how_many_captures_have_to_end_first(client: Client) -> None:
    make_host("north", slots=1)
    make_host("south", slots=1)
    answers = [json.loads(text) for text in start_many(client, 5, accept=API)]
    assert [(answer["slots"], answer["waits_for"]) for answer in answers] == [(2, 0), (2, 0), (2, 1), (2, 2), (2, 3)]


def test_the_text_says_how_many_captures_have_to_end_first(client: Client) -> None:
    make_host(slots=1)
    first, second, third = start_many(client, 3)
    assert "slots" not in first
    assert second.endswith("\nAll slots are taken (1): capturing begins when another capture has ended.\n")
    assert third.endswith("\nAll slots are taken (1): capturing begins when 2 other captures have ended.\n")
    again = start(client, "rtsp://camera-2.example/demo")
    assert (again.status_code, again.content.decode().endswith("2 other captures have ended.\n")) == (200, True)


def test_a_page_says_how_many_captures_have_to_end_first(client: Client) -> None:
    make_host(slots=1)
    assert "capturing begins when another capture has ended" in start_many(client, 2, accept=BROWSER)[1]


def test_what_is_captured_waits_for_no_slot_even_if_the_slots_became_fewer(client: Client) -> None:
    make_host(slots=2)
    start_many(client, 2)
    Stream.objects.update(status="capturing")
    make_host(slots=1)
    again = json.loads(start(client, "rtsp://camera-1.example/demo", accept=API).content)
    assert (again["status"], again["waits_for"], again["slots"]) == ("capturing", 0, 1)


def test_hosts_without_a_slot_are_not_said_to_free_one(client: Client) -> None:
    make_host(slots=0)
    (text,) = start_many(client, 1)
    assert text.endswith("\nNo host has a slot (CAPTURE_SLOTS).\n")
