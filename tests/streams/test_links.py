"""Signed links: what they open, for whom, until when, and nothing else."""

import html
import re
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from pytest_django import Settings

from streams import links, services
from streams.models import Capture
from tests.streams.builders import API, BROWSER, SITE, Response, make_capture, make_finished, record
from tests.streams.html import read
from tests.streams.test_access import TOKEN, bearer, somebody

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("guarded")]
EMBEDDED = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
LIMITS = (links.MIN_S, links.MAX_S)


@pytest.fixture
def guarded(settings: Settings) -> None:
    settings.API_TOKENS = [TOKEN]


@pytest.fixture
def capture() -> Capture:
    return make_finished()


def ask(path: str, **fields: object) -> Response:
    return somebody(**bearer()).post("/api/links", {"path": path, **fields}, API)


def link(path: str, **fields: object) -> str:
    """Path and query."""
    answer = ask(path, **fields)
    assert answer.status_code == 201, answer.content
    assert answer.json()["path"] == path
    found = urlsplit(answer.json()["url"])
    assert (found.scheme, found.netloc) == ("http", SITE)
    return f"{found.path}?{found.query}"


def pictures(capture: Capture) -> list[str]:
    frame = capture.frames.order_by("id")[0].pk
    folder = f"/captures/{capture.pk}"
    return [f"{folder}/grid.jpg", f"{folder}/small.jpg", f"/frames/{frame}.jpg", f"/frames/{frame}/small.jpg"]


def code(answer: Response) -> tuple[int, str]:
    return answer.status_code, str(answer.json()["code"])


# --- what a link opens ------------------------------------------------------------------------------


def test_a_link_opens_its_picture_for_anybody_also_on_another_site(capture: Capture) -> None:
    for path in [*pictures(capture), "/streams/demo/best.jpg"]:
        assert somebody().get(path).status_code == 401
        address = link(path)
        for headers in ({}, EMBEDDED):
            for method in ("GET", "HEAD"):
                answer = somebody().generic(method, address, headers=headers)
                assert (answer.status_code, answer["Cross-Origin-Resource-Policy"]) == (200, "cross-origin"), path
                assert "Access-Control-Allow-Origin" not in answer
        for method in ("POST", "DELETE", "PATCH", "OPTIONS"):
            assert somebody().generic(method, address).status_code == 401
        assert somebody(**bearer()).get(path)["Cross-Origin-Resource-Policy"] == "same-origin"


def test_a_link_to_the_best_frame_shows_what_is_best_now() -> None:
    make_finished()  # one that is over counts no more
    capture = make_capture()
    address = link("/streams/demo/best.jpg")
    assert somebody().get(address).status_code == 404
    record(capture, frames=2)
    first = somebody().get(address)
    assert first.content == somebody(**bearer()).get(f"/frames/{_best(capture)}.jpg").content
    assert somebody().get(address, headers={"if-none-match": first["ETag"]}).status_code == 304


def _best(capture: Capture) -> int:
    return int(capture.frames.order_by("-score")[0].pk)


def test_a_link_shows_no_other_stream_that_has_got_the_name() -> None:
    first = make_finished()
    address = link("/streams/demo/best.jpg")
    services.delete_stream(first.stream)
    assert code(somebody(accept=API).get(address)) == (403, "link_invalid")
    make_finished("rtsp://other.example/demo")
    assert code(somebody(accept=API).get(address)) == (403, "link_invalid")
    assert somebody().get(link("/streams/demo/best.jpg")).status_code == 200


def test_a_link_to_what_was_deleted_says_so(capture: Capture) -> None:
    addresses = [link(path) for path in pictures(capture)]
    services.delete_stream(capture.stream)
    assert [somebody().get(address).status_code for address in addresses] == [404] * 4


def test_it_opens_nothing_else(capture: Capture) -> None:
    """Neither another picture, nor a page, nor a call, whatever of the address is changed."""
    other = make_finished("rtsp://other.example/other")
    path, query = link(f"/captures/{capture.pk}/grid.jpg").split("?")
    for victim in pictures(capture)[1:] + pictures(other) + ["/streams/demo/best.jpg"]:
        assert code(somebody(accept=API).get(f"{victim}?{query}")) == (403, "link_invalid"), victim
    whole = f"/captures/{capture.pk}/capture.zip"
    for page in ("/", "/streams/demo/", f"/captures/{capture.pk}/", whole, "/api/status", "/metrics", "/api/docs"):
        assert code(somebody(accept=API).get(f"{page}?{query}")) == (401, "unauthorized"), page
    until, signature = (value.split("=")[1] for value in query.split("&"))
    wrong = [
        f"until={int(until) + 1}&signature={signature}",
        f"until=0{until}&signature={signature}",
        f"until={until}&signature={signature[:-1]}",
        f"until={until}&signature={signature}x",
        f"until={until}&signature={signature.swapcase()}",
        f"until={until}&signature=",
        f"until={until}&signature=%FF:{signature}",
        f"signature={signature}",
        f"until={until} /captures/1&signature={signature}",
        f"until={until}&signature={signature}&until=9999999999",
    ]
    for changed in wrong:
        assert code(somebody(accept=API).get(f"{path}?{changed}")) == (403, "link_invalid"), changed
    assert somebody().get(f"{path}?until={until}").status_code == 401


def test_it_is_over_when_its_time_is(capture: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    address = link(f"/captures/{capture.pk}/grid.jpg", expires_in=60)
    now = datetime.now(UTC)
    monkeypatch.setattr("streams.database.now", lambda: now + timedelta(seconds=58))
    assert somebody().get(address).status_code == 200
    monkeypatch.setattr("streams.database.now", lambda: now + timedelta(seconds=61))
    assert code(somebody(accept=API).get(address)) == (403, "link_expired")


def test_it_holds_under_a_former_secret_key_and_no_other(capture: Capture, settings: Settings) -> None:
    address = link(f"/captures/{capture.pk}/grid.jpg")
    former = settings.SECRET_KEY
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "n" * 50, [former]
    assert somebody().get(address).status_code == 200
    settings.SECRET_KEY_FALLBACKS = []
    assert code(somebody(accept=API).get(address)) == (403, "link_invalid")


def test_without_tokens_a_wrong_link_is_refused_as_well(capture: Capture, settings: Settings) -> None:
    settings.API_TOKENS = []
    path = f"/captures/{capture.pk}/grid.jpg"
    assert somebody().get(path, headers=EMBEDDED).status_code == 403
    assert somebody().get(f"{path}?until=9999999999&signature=x", headers=EMBEDDED).status_code == 403


# --- making one -------------------------------------------------------------------------------------


@pytest.mark.parametrize("expires_in", [*LIMITS, None])
def test_it_says_how_long_it_is_open(capture: Capture, expires_in: int | None) -> None:
    before = int(time.time())
    answer = ask(f"http://{SITE}/captures/{capture.pk}/grid.jpg", expires_in=expires_in)
    until = datetime.fromisoformat(answer.json()["expires_at"]).timestamp()
    asked = expires_in or links.DEFAULT_S
    assert before + asked <= until <= time.time() + asked
    assert f"until={until:.0f}&" in answer.json()["url"]


NO_PICTURES = (
    "/",
    "/streams/demo/",
    "/captures/1/",
    "/api/captures",
    "/metrics",
    "/admin/",
    "/static/streams/site.css",
    "captures/1/grid.jpg",
    "/captures/1/grid.jpg?download",
    "/captures/1/grid.jpg#x",
    "/captures/../captures/1/grid.jpg",
    "/captures/x/grid.jpg",
    "/captures/1/capture.zip",  # it says where the camera is
    "//evil.example/captures/1/grid.jpg",
    "http://evil.example/captures/1/grid.jpg",
    f"http://{SITE}:81/captures/1/grid.jpg",
    f"http://{SITE}@evil.example/captures/1/grid.jpg",
    f"ftp://{SITE}/captures/1/grid.jpg",
    "http://[/captures/1/grid.jpg",
    "/streams/%FF/best.jpg",
    "/streams/%00/best.jpg",
    "/nowhere",
)


def test_only_pictures_of_this_service_have_links() -> None:
    for path in NO_PICTURES:
        answer = ask(path)
        assert code(answer) == (400, "invalid_path"), path
        assert answer.json()["fields"].keys() == {"path"}


def test_what_is_not_there_has_no_link() -> None:
    for path in ("/captures/4711/grid.jpg", "/frames/4711.jpg", "/streams/nobody/best.jpg", f"/frames/{10**40}.jpg"):
        assert code(ask(path)) == (404, "unknown_picture"), path


@pytest.mark.parametrize("expires_in", [0, -1, 59, links.MAX_S + 1, 1.5, "soon", True, 10**30])
def test_no_other_time_is_taken(capture: Capture, expires_in: object) -> None:
    assert code(ask(f"/captures/{capture.pk}/grid.jpg", expires_in=expires_in)) == (400, "invalid_expires_in")


def test_who_is_not_let_in_makes_none(capture: Capture) -> None:
    path = f"/captures/{capture.pk}/grid.jpg"
    assert somebody().post("/api/links", {"path": path}, API).status_code == 401
    assert somebody().post("/links", {"path": path}).status_code == 401
    foreign = bearer() | {"sec-fetch-site": "cross-site"}
    assert somebody(**foreign).post("/links", {"path": path}).status_code == 403


# --- on the pages -----------------------------------------------------------------------------------


def form_of(page: str) -> str:
    found = re.search(r'action="/links".*?name="path" value="([^"]+)"', page, re.DOTALL)
    assert found
    return html.unescape(found[1])


def test_pages_offer_a_link_and_show_it_to_copy(capture: Capture) -> None:
    visitor = somebody(accept=BROWSER, **bearer())
    for page in ("/streams/demo/", f"/captures/{capture.pk}/"):
        path = form_of(visitor.get(page).content.decode())
        answer = visitor.post("/links", {"path": path, "expires_in": "3600"})
        assert answer.status_code == 201
        found = read(answer.content.decode())
        assert found.faults == []
        address = found.attributes["link-url"]["value"]
        assert address == found.attributes["link-look"]["href"]
        assert f'<a href="{page}">Back</a>' in answer.content.decode()
        assert found.attributes["link-html"]["value"] == f'<img src="{html.escape(address)}" alt="">'
        assert somebody().get(address.removeprefix(f"http://{SITE}"), headers=EMBEDDED).status_code == 200
    assert code(somebody(accept=API, **bearer()).post("/links", {"path": "/"})) == (400, "invalid_path")
    assert code(somebody(accept=API, **bearer()).post("/links")) == (400, "missing")


def test_what_stop_answers_offers_none(capture: Capture) -> None:
    answer = somebody(accept=BROWSER, **bearer()).post("/stop", {"process_name": "demo"})
    assert "/links" not in answer.content.decode()


def test_a_link_holds_with_any_name_and_escape() -> None:
    """The path is compared as it was understood, not as it was written."""
    make_finished(name="cam-1.north")
    address = link("/streams/cam-1.north/best.jpg")
    assert somebody().get(address).status_code == 200
    assert somebody().get(address.replace("cam-1", "cam%2D1")).status_code == 200
