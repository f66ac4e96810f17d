"""Who is let in once API_TOKEN is set: each address, by each method, with and without what opens it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import connection
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.urls import resolve
from pytest_django import Settings

from streams import outcomes
from streams.access import refused
from streams.models import Capture, Stream
from tests.streams.away import database_out_of_reach
from tests.streams.builders import API, BROWSER, CURL, SECRET, SITE, URL_WITH_SECRET, make_finished, rows
from tests.streams.html import read
from tests.streams.processes import settings_with
from tests.streams.test_headers import METHODS, addresses

pytestmark = pytest.mark.django_db
TOKEN, NEXT_TOKEN = "first-token-of-32-characters-xxx", "next-token-of-32-characters-xxxx"
PUBLIC = {"/livez", "/readyz", "/favicon.ico"}
HTMX = {"hx-request": "true", "hx-current-url": f"http://{SITE}/streams/demo/?page=2"}
ELSEWHERE = "http://evil.example"


@pytest.fixture
def guarded(settings: Settings) -> None:
    settings.API_TOKENS = [TOKEN, NEXT_TOKEN]


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> Capture:
    monkeypatch.setattr(outcomes, "STOP_WAIT_S", 0.0)
    return make_finished(URL_WITH_SECRET)


def somebody(**headers: str) -> Client:
    return Client(raise_request_exception=False, headers={"host": SITE, **headers})


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def member(**what: Any) -> Client:
    """Somebody who is signed in, in a browser that says where its requests come from."""
    client = somebody(**{"sec-fetch-site": "same-origin"})
    client.force_login(User.objects.create_user("keeper", **({"is_staff": True} | what)))
    return client


# --- every address ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("guarded")
def test_nobody_gets_anything_from_any_address_by_any_method(capture: Capture) -> None:
    """Not whoever is signed in without being staff, nor who was made inactive, nor with a token that is none."""
    guest, fired = member(is_staff=False), somebody()
    fired.force_login(User.objects.create_superuser("fired"))
    User.objects.filter(username="fired").update(is_active=False)
    mistaken = somebody(**bearer("wrong-token-of-32-characters-xxx"))
    askers = [(somebody(), CURL), (somebody(), API), (guest, BROWSER), (fired, BROWSER), (mistaken, CURL)]
    before, served = (rows(), [*Stream.objects.values()], [*Capture.objects.values()]), set()
    every = [path.replace("/1", f"/{capture.pk}") for path in addresses()]
    for path in every:
        for method in ("GET", "POST") if path.startswith("/admin/") else METHODS:
            for client, accept in askers:
                answer = client.generic(method, path, headers={"accept": accept})
                body = b"".join(answer) if answer.streaming else answer.content
                for told in (b"camera.example", SECRET.encode(), b"\xff\xd8\xff", b"rtspsite_", b"openapi"):
                    assert told not in body, f"{method} {path}"
                if answer.status_code < 300:
                    served.add(path)
                elif answer.status_code == 302:
                    assert answer["Location"].startswith(("/admin/login/?next=", "/admin/"))
                elif answer.status_code == 401:
                    assert answer["WWW-Authenticate"] == "Bearer"
                    assert b"unauthorized" in body or accept == CURL or method == "HEAD"
    assert served <= PUBLIC | {"/admin/login/", "/admin/logout/", "/admin/jsi18n/"}
    assert (rows(), [*Stream.objects.values()], [*Capture.objects.values()]) == before


@pytest.mark.usefixtures("guarded")
def test_each_of_the_tokens_and_the_staff_get_what_there_is(capture: Capture, settings: Settings) -> None:
    ours = [path.replace("/1", f"/{capture.pk}") for path in addresses() if not path.startswith("/admin")]
    askers = [somebody(**bearer()), somebody(authorization=f"bEARER  {NEXT_TOKEN}"), member()]
    for path in ours:
        settings.API_TOKENS = []
        expected = somebody().get(path).status_code
        settings.API_TOKENS = [TOKEN, NEXT_TOKEN]
        assert [asker.get(path).status_code for asker in askers] == [expected] * 3, path
        for asker in askers:
            assert asker.options(path).status_code != 401
    for asker in askers:
        assert asker.patch("/api/streams/demo", {"interval": 5}, API).status_code == 200
        assert asker.post("/stop", {"process_name": "demo"}).status_code == 200


@pytest.mark.usefixtures("guarded")
def test_a_view_that_nobody_thought_of_is_closed(rf: RequestFactory) -> None:
    """Also for what another site's page has a browser send in which somebody is signed in."""

    def fresh(request: HttpRequest) -> None: ...

    def status(user: AnonymousUser | User, origin: str) -> int:
        request = rf.post("/fresh", headers={"host": SITE, "origin": origin})
        request.user = user
        answer = refused(request, fresh)
        return answer.status_code if answer else 200

    keeper = User.objects.create_superuser("keeper")
    assert status(AnonymousUser(), f"http://{SITE}") == 401
    assert [status(keeper, origin) for origin in (ELSEWHERE, "null", f"http://{SITE}")] == [403, 403, 200]


def test_without_a_token_in_the_settings_all_is_open(capture: Capture) -> None:
    assert somebody().get("/streams/demo/").status_code == 200
    assert somebody(**bearer("whatever-it-is-nobody-looks")).get("/metrics").status_code == 200


# --- tokens -----------------------------------------------------------------------------------------

NO_TOKENS = (
    f"Bearer {TOKEN[:-1]}",
    f"Bearer {TOKEN}x",
    f"Bearer {TOKEN.upper()}",
    f"Bearer {TOKEN},{NEXT_TOKEN}",
    "Bearer",
    "Bearer ",
    "Bearer \xff\xe9",
    f"Bearer {TOKEN}\xa0",
    TOKEN,
    f"Token {TOKEN}",
    "Basic a2VlcGVyOndvcmQ=",
)


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("header", NO_TOKENS)
def test_what_is_no_token_of_ours_is_refused(header: str) -> None:
    answer = somebody(authorization=header).get("/api/status")
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


@pytest.mark.usefixtures("guarded")
def test_a_token_in_the_query_or_the_body_is_none() -> None:
    for name in ("token", "access_token", "api_token", "authorization"):
        assert somebody().get(f"/api/status?{name}={TOKEN}").status_code == 401
        assert somebody().post("/start", {name: TOKEN}).status_code == 401


@pytest.mark.usefixtures("guarded")
def test_a_wrong_token_counts_for_more_than_a_session() -> None:
    """Another scheme is for a proxy in front."""
    client = member()
    assert client.get("/api/status", headers=bearer("wrong-token-of-32-characters-xxx")).status_code == 401
    assert client.get("/api/status", headers={"authorization": "Basic a2VlcGVyOndvcmQ="}).status_code == 200


# --- how it is refused --------------------------------------------------------------------------------


@pytest.mark.usefixtures("guarded")
def test_a_browser_is_sent_to_sign_in_and_back_again() -> None:
    for path in ("/", "/streams/demo/?page=2", "/captures/12/", "/frames/1.jpg", "/api/docs", "/api/"):
        answer = somebody(accept=BROWSER).get(path)
        assert (answer.status_code, answer["Location"].split("?next=")[0]) == (302, "/admin/login/")
        assert resolve("/admin/login/")
    User.objects.create_superuser("keeper", password="a-long-enough-word")
    client = somebody(accept=BROWSER)
    form = client.get("/streams/demo/?page=2", follow=True)
    assert form.context["next"] == "/streams/demo/?page=2"
    fields = {"username": "keeper", "password": "a-long-enough-word", "next": "/streams/demo/?page=2"}
    assert client.post("/admin/login/", fields)["Location"] == "/streams/demo/?page=2"
    for evil in (f"{ELSEWHERE}/", "//evil.example", "/\\evil.example", "javascript:alert(1)", ""):
        assert client.post("/admin/login/", {**fields, "next": evil})["Location"] == "/"


@pytest.mark.usefixtures("guarded")
def test_a_page_that_looks_again_is_sent_to_sign_in() -> None:
    answer = somebody(accept=BROWSER).get("/streams/demo/?page=2", headers=HTMX)
    assert (answer.status_code, answer["HX-Redirect"]) == (401, "/admin/login/?next=%2Fstreams%2Fdemo%2F%3Fpage%3D2")
    foreign = {**HTMX, "hx-current-url": f"{ELSEWHERE}/page"}
    assert somebody(accept=BROWSER).get("/", headers=foreign)["HX-Redirect"] == "/admin/login/?next=%2F"


@pytest.mark.usefixtures("guarded")
def test_each_client_is_told_in_its_own_way() -> None:
    asked: list[tuple[str, Callable[[Client], Any], str]] = [
        (CURL, lambda client: client.post("/start"), "text/plain; charset=utf-8"),
        (API, lambda client: client.post("/start"), "application/json"),
        (BROWSER, lambda client: client.post("/start"), "text/html; charset=utf-8"),
        (BROWSER, lambda client: client.get("/api/streams/demo"), "application/json"),
        (CURL, lambda client: client.get("/frames/1.jpg"), "text/plain; charset=utf-8"),
    ]
    for accept, ask, kind in asked:
        answer = ask(somebody(accept=accept))
        assert (answer.status_code, answer["Content-Type"], answer["Cache-Control"]) == (401, kind, "no-store")
    page = read(somebody(accept=BROWSER).post("/stop").content.decode())
    assert (page.faults, page.loaded()) == ([], ["data:,"])  # one file, as all that /stop answers
    assert "unauthorized" in page.text


@pytest.mark.usefixtures("guarded")
def test_a_post_to_what_takes_none_is_refused_in_the_clients_way() -> None:
    """Who may not come in is told that; who may, that a form's own token is missing."""
    strict = Client(enforce_csrf_checks=True, headers={"host": SITE})
    for accept in (CURL, API, BROWSER):
        answer = strict.post("/metrics", headers={"accept": accept})
        assert (answer.status_code, answer["Cache-Control"]) == (401, "no-store")
    for path in ("/metrics", "/admin/login/"):
        answer = strict.post(path, headers=bearer() | {"accept": API})
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf_failed")
        assert answer["Cache-Control"] == "no-store"
    page = read(strict.post("/admin/login/", headers={"accept": BROWSER}).content.decode())
    assert (page.faults, "csrf_failed" in page.words) == ([], True)


@pytest.mark.usefixtures("guarded")
def test_the_health_check_needs_no_token_and_says_no_name() -> None:
    assert somebody().get("/livez").status_code == 200
    assert somebody().get("/readyz").status_code == 503  # no supervisor here
    assert somebody().post("/livez").status_code == 405


@pytest.mark.usefixtures("guarded")
@pytest.mark.django_db(transaction=True)
def test_while_the_database_is_away_nobody_is_let_in(capture: Capture, tmp_path: Path) -> None:
    """Who is signed in cannot be told; a token opens, and then it is the view that needs the database."""
    client = member(is_superuser=True)
    with database_out_of_reach(tmp_path):
        _nobody_is_let_in(client, capture)


@pytest.mark.usefixtures("guarded")
@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_is_asked_once_for_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not again for the header of the page that says so: each time may take five seconds."""
    client, asked = member(), []
    connect = connection.get_new_connection

    def counted(known: Any) -> Any:
        asked.append(known)
        return connect(known)

    monkeypatch.setattr(connection, "get_new_connection", counted)
    with database_out_of_reach(tmp_path):
        assert client.get("/", headers={"accept": BROWSER}).status_code == 503
    assert len(asked) == 1


def _nobody_is_let_in(client: Client, capture: Capture) -> None:
    for path in ("/streams/demo/", f"/captures/{capture.pk}/grid.jpg", "/api/streams", "/admin/"):
        for asker in (client, somebody(**bearer())):
            if path != "/admin/" or asker is client:
                answer = asker.get(path, headers={"accept": BROWSER})
                assert (answer.status_code, answer["Retry-After"]) == (503, "5"), path
                assert "database_away" in answer.content.decode()
    assert client.get("/nowhere", headers={"accept": BROWSER}).status_code == 404  # whose header has nobody's name
    assert somebody(accept=BROWSER).get("/").status_code == 302
    answer = somebody(accept=BROWSER).post("/admin/login/", {"username": "keeper", "password": "word"})
    assert answer.status_code == 503


# --- other sites ------------------------------------------------------------------------------------

PARTS = [
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "object"},
    {"sec-fetch-site": "cross-site"},
]
OPEN = [
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    {"sec-fetch-site": "same-origin", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
    {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    {},
]


@pytest.mark.parametrize("is_guarded", [True, False])
def test_no_page_of_another_site_can_load_anything(capture: Capture, settings: Settings, is_guarded: bool) -> None:
    """Nor ask whether somebody is signed in; a link that is followed works. CORS is granted to nobody."""
    settings.API_TOKENS = [TOKEN] if is_guarded else []
    client = member()
    paths = ["/", "/streams/demo/", f"/captures/{capture.pk}/grid.jpg", "/api/streams", "/metrics", "/admin/"]
    for path in paths:
        for headers in PARTS:
            answer = client.get(path, headers={"accept": CURL, "origin": ELSEWHERE} | headers)
            assert answer.status_code == 403, (path, headers)
            assert b"cross_site" in answer.content or "json" not in answer["Content-Type"]
            assert not [name for name in answer.headers if name.startswith("Access-Control")]
        for headers in OPEN:
            client.defaults.pop("HTTP_SEC_FETCH_SITE", None)
            assert client.get(path, headers=headers).status_code in (200, 302), (path, headers)


SENDERS: list[tuple[dict[str, str], int]] = [
    ({}, 403),
    ({"referer": f"{ELSEWHERE}/page"}, 403),
    ({"referer": f"http://{SITE}.evil.example/"}, 403),
    ({"referer": "about:blank"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": ELSEWHERE}, 403),
    ({"sec-fetch-site": "cross-site"}, 403),
    ({"x-csrftoken": "a" * 32, "cookie": f"csrftoken={'b' * 32}"}, 403),
    ({"referer": f"http://{SITE}/streams/demo/"}, 409),
    ({"origin": f"http://{SITE}"}, 409),
    ({"sec-fetch-site": "same-origin"}, 409),
]


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize(("headers", "status"), SENDERS)
def test_a_session_alone_changes_nothing_for_who_does_not_say_where_from(
    capture: Capture, headers: dict[str, str], status: int
) -> None:
    """409 is the call's own answer: that stream has a capture."""
    user = User.objects.create_superuser("keeper")
    client = Client(enforce_csrf_checks=True, headers={"host": SITE})
    client.force_login(user)
    cookies = headers.get("cookie", "")
    if cookies:
        client.cookies["csrftoken"] = cookies.partition("=")[2]
    sent = {name: value for name, value in headers.items() if name != "cookie"}
    change = client.patch("/api/streams/nobody", {"interval": 5}, API, headers=sent)
    assert change.status_code == (403 if status == 403 else 404)
    stop = client.post("/streams/nobody/stop", headers=sent)
    assert stop.status_code == (403 if status == 403 else 404)


@pytest.mark.usefixtures("guarded")
def test_a_page_that_came_by_plain_http_is_none_of_ours_by_https() -> None:
    """Whoever sits on the way can make one of our name. A proxy that takes HTTPS and does not say so is no matter."""
    client = Client(enforce_csrf_checks=True, headers={"host": SITE})
    client.force_login(User.objects.create_superuser("keeper"))
    for header in ("origin", "referer"):
        for scheme, is_https, status in (("http", True, 403), ("https", True, 404), ("https", False, 404)):
            sent = {header: f"{scheme}://{SITE}" + ("/page" if header == "referer" else "")}
            answer = client.post("/streams/nobody/stop", headers=sent, secure=is_https)
            assert answer.status_code == status, (sent, is_https)


@pytest.mark.usefixtures("guarded")
def test_a_csrf_token_is_as_good_as_an_origin() -> None:
    client = Client(enforce_csrf_checks=True, headers={"host": SITE})
    client.force_login(User.objects.create_superuser("keeper"))
    client.get("/admin/password_change/")
    token = client.cookies["csrftoken"].value
    assert client.post("/streams/nobody/stop", headers={"x-csrftoken": token}).status_code == 404


# --- names of the host ------------------------------------------------------------------------------


def test_no_address_answers_to_a_name_that_is_not_ours(capture: Capture) -> None:
    """What a page does whose name leads to this machine all of a sudden: DNS rebinding."""
    names = ("127.0.0.1.evil.example", f"{SITE}@evil.example", f"evil.example:80#{SITE}")
    for path in addresses():
        for method, host in [("GET", "evil.example"), ("POST", "evil.example"), *(("GET", name) for name in names)]:
            answer = somebody(host=host).generic(method, path)
            assert answer.status_code == 400, (method, host, path)
            assert "demo" not in answer.content.decode()


# --- the page's header --------------------------------------------------------------------------------


def test_the_header_says_who_is_signed_in_and_lets_him_leave(settings: Settings) -> None:
    client = member()
    for tokens in ([], [TOKEN]):
        settings.API_TOKENS = tokens
        page = read(client.get("/", headers={"accept": BROWSER}).content.decode())
        assert "Signed in as keeper" in page.words
        assert "/sign-out" in page.values("form", "action")
        assert page.faults == []
    answer = client.post("/sign-out")
    assert (answer.status_code, answer["Location"]) == (303, "/")
    assert client.get("/", headers={"accept": BROWSER})["Location"].startswith("/admin/login/")
    settings.API_TOKENS = []
    page = read(client.get("/", headers={"accept": BROWSER}).content.decode())
    assert ("Signed in" in page.words, "Sign in" in page.words) == (False, False)
    settings.API_TOKENS = [TOKEN]
    page = read(client.get("/nowhere", headers={"accept": BROWSER}).content.decode())
    assert "/admin/login/?next=/" in page.values("a", "href")


def test_nobody_else_can_sign_somebody_out(settings: Settings) -> None:
    settings.API_TOKENS = [TOKEN]
    client = member()
    assert client.get("/sign-out").status_code == 405
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": ELSEWHERE}):
        assert client.post("/sign-out", headers=headers).status_code == 403
    assert client.get("/").status_code == 200


# --- settings ---------------------------------------------------------------------------------------


def test_tokens_are_read_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"{TOKEN},\n{NEXT_TOKEN}\n")
    (tmp_path / "empty").write_text("\n")
    cases = [
        {},
        {"API_TOKEN": TOKEN},
        {"API_TOKEN": f"{TOKEN}, {NEXT_TOKEN}"},
        {"API_TOKEN_FILE": str(tmp_path / "tokens")},
    ]
    found = settings_with(tmp_path, "s.API_TOKENS", *cases)
    both = str([TOKEN, NEXT_TOKEN])
    assert found == [(True, "[]"), (True, str([TOKEN])), (True, both), (True, both)]


def test_a_token_that_is_none_is_told_at_the_start_but_not_shown(tmp_path: Path) -> None:
    """Also one that is empty: whoever sets it means to close the door."""
    (tmp_path / "empty").write_text("\n")
    wrong = ["", "  ", "short-s3cr3t", f"{TOKEN},short-s3cr3t", f"{TOKEN},", "s3cr3t with a space in it", "é" * 30]
    cases = [{"API_TOKEN": token} for token in wrong] + [{"API_TOKEN_FILE": str(tmp_path / "empty")}]
    for (is_taken, said), case in zip(settings_with(tmp_path, "s.API_TOKENS", *cases), cases, strict=True):
        assert (is_taken, "API_TOKEN" in said) == (False, True), case
        assert "s3cr3t" not in said
        assert TOKEN not in said
