"""The website with API_TOKEN in a browser: sent to sign in, back again, a link for another site's page, out again."""

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from django.contrib.auth import get_user_model
from playwright.sync_api import Browser, Page, expect
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from streams.models import Capture, Stream
from tests.e2e.browser import PHONE, Visit, barriers, chromium, is_shown, is_too_wide
from tests.e2e.prepared import ADMIN
from tests.e2e.service import ROOT, wait_for
from tests.streams.builders import make_finished, rows

TOKEN = "a-token-of-more-than-20-characters"
GROUND = {"light": "rgb(246, 244, 240)", "dark": "rgb(21, 20, 18)"}  # of site.css
[README_LINE] = re.findall(r"^    (curl -H \"Authorization: .*)$", (ROOT / "README.md").read_text(), re.M)


def test_the_journey_of_who_has_to_sign_in(live_server: LiveServer, settings: Settings, tmp_path: Path) -> None:
    settings.MEDIA_ROOT, settings.API_TOKENS = tmp_path, [TOKEN]
    capture = make_finished()
    get_user_model().objects.create_superuser(ADMIN[0], password=ADMIN[1])
    site, before = str(live_server.url), kept()
    with chromium() as browser, Visit(browser, site, has_script=False) as visit:
        tab = visit.page
        is_sent_to_sign_in_and_back(tab, site, f"/captures/{capture.pk}/")
        link = make_a_link(tab)
        looks_right_when_signed_in(browser, site, tab)
        other_sites_do_nothing_in_it(browser, tab, capture, settings)
        signs_out(tab, site)
        another_site_shows_what_has_a_link(browser, site, capture, link)
        visit.forgive("401", "403")
    assert kept() == before
    it_takes_the_token_as_readme_says(site)


def kept() -> object:
    """What whoever looks does not change, and no other site's page can."""
    return rows(), [*Stream.objects.values()], [*Capture.objects.values()]


def is_sent_to_sign_in_and_back(tab: Page, site: str, address: str) -> None:
    tab.goto(address)
    tab.wait_for_url("**/admin/login/?next=*")
    tab.get_by_label("Username").fill(ADMIN[0])
    tab.get_by_label("Password").fill("wrong")
    tab.get_by_role("button", name="Log in").click()
    expect(tab.locator(".errornote")).to_be_visible()
    tab.get_by_label("Password").fill(ADMIN[1])
    tab.get_by_role("button", name="Log in").click()
    tab.wait_for_url(site + address)
    expect(tab.get_by_text(f"Signed in as {ADMIN[0]}")).to_be_visible()


def make_a_link(tab: Page) -> str:
    tab.get_by_text("Embed", exact=True).click()
    tab.get_by_label("For how long").select_option("An hour")
    tab.get_by_role("button", name="Make a link").click()
    link = tab.get_by_label("Link").input_value()
    assert f'src="{link.replace("&", "&amp;")}"' in tab.get_by_label("For a page").input_value()
    return link


def looks_right_when_signed_in(browser: Browser, site: str, tab: Page) -> None:
    """The bar with a name in it, light on a desk and dark on a phone; and the page with the link."""
    cookies = tab.context.cookies()
    with Visit(browser, site, size=PHONE) as visit:
        visit.page.context.add_cookies([{"name": c["name"], "value": c["value"], "url": site} for c in cookies])
        for scheme in ("light", "dark"):
            visit.page.emulate_media(color_scheme=scheme)
            for address in ("/", "/streams/demo/"):
                visit.page.goto(address)
                assert (barriers(visit.page), is_too_wide(visit.page)) == ([], False)
        visit.page.get_by_text("Embed", exact=True).click()
        visit.page.get_by_role("button", name="Make a link").click()
        link = visit.page.get_by_label("Link")
        link.click()
        assert visit.page.evaluate("getSelection().toString()") == link.input_value()
        assert is_shown(visit.page.get_by_alt_text("The picture that the link opens"))
        assert (barriers(visit.page), is_too_wide(visit.page)) == ([], False)
        visit.page.goto("/streams/demo/?page=1")
        visit.page.context.clear_cookies()  # the session is over: the page, which looks again, goes there by itself
        visit.page.wait_for_url("**/admin/login/?next=%2Fstreams%2Fdemo%2F%3Fpage%3D1")
        for theme in ("light", "dark"):
            visit.page.emulate_media(color_scheme=theme)
            visit.page.reload()  # the admin's colours take their time to change
            expect(visit.page.locator("body")).to_have_css("background-color", GROUND[theme])
            assert (barriers(visit.page), is_too_wide(visit.page)) == ([], False)
        visit.forgive("401")


# What a page has a browser send, with all cookies that the browser lets go along; its title says in the end what it
# could read. Beside it forms, which somebody may be made to press.
CALLS = ("/start", "/streams/demo/start", "/sign-out")
FORM = """<form method="post" action="%s" target="_blank"><input name="rtsp_url" value="rtsp://camera.example/attack">
<button>%s</button></form>"""
SCRIPT = """
const site = "%s", picture = "%s", target = "rtsp://camera.example/attack", read = [];
const ask = (path, sent) => fetch(site + path, {credentials: "include", ...sent})
  .then(answer => answer.type == "opaque" || read.push(path), () => 0);
const load = (name, path) => new Promise(done => {
  const part = document.createElement(name);
  Object.assign(part, {src: site + path, onload: () => done(name == "iframe" || read.push(path)), onerror: done});
  document.body.append(part);
});
(async () => {
  for (const path of ["/start", "/streams/demo/start", "/api/start", "/sign-out"]) {
    for (const body of [new URLSearchParams({rtsp_url: target}), JSON.stringify({rtsp_url: target})]) {
      await ask(path, {method: "POST", mode: "no-cors", body});
      navigator.sendBeacon(site + path, body);
    }
    await ask(path, {method: "POST", headers: {"Content-Type": "application/json"}, body: "{}"});
  }
  await ask("/api/streams/demo", {method: "DELETE"});
  for (const path of ["/", "/api/streams", picture]) await ask(path, {});
  await load("img", picture);
  await load("script", "/api/streams");
  for (const path of ["/", "/admin/"]) await load("iframe", path);
  document.title = "done " + JSON.stringify(read);
})();
"""


def other_sites_do_nothing_in_it(browser: Browser, tab: Page, capture: Capture, settings: Settings) -> None:
    """Who is signed in opens a page of another port of this host, for which all cookies are sent; and one of another
    site while no token is set, and nobody needs a cookie."""
    site = tab.url[: tab.url.index("/", 8)]
    script = SCRIPT % (site, f"/captures/{capture.pk}/grid.jpg")
    forms = "".join(FORM % (site + path, path) for path in CALLS)
    with page_elsewhere(f"<body>{forms}<script>{script}</script>") as elsewhere:
        for tokens, address in (([TOKEN], elsewhere.replace("127.0.0.1", "localhost")), ([], elsewhere)):
            settings.API_TOKENS = tokens
            context = browser.new_context(storage_state=tab.context.storage_state())
            page = context.new_page()
            page.goto(address)
            expect(page).to_have_title(re.compile("^done"))
            assert page.title() == "done []", address
            assert not [frame.url for frame in page.frames if frame.url.startswith(site)]
            for path in CALLS:
                with page.expect_popup() as answer:
                    page.get_by_role("button", name=path, exact=True).click()
                expect(answer.value.get_by_text("cross_site")).to_be_visible()
            page.goto(f"{site}/streams/demo/")
            expect(page.get_by_text(f"Signed in as {ADMIN[0]}")).to_be_visible()
            context.close()
    settings.API_TOKENS = [TOKEN]


def signs_out(tab: Page, site: str) -> None:
    tab.get_by_role("button", name="Sign out").click()
    tab.wait_for_url("**/admin/login/?next=*")
    tab.goto("/streams/demo/")
    tab.wait_for_url("**/admin/login/?next=*")


def another_site_shows_what_has_a_link(browser: Browser, site: str, capture: Capture, link: str) -> None:
    """The one with a link, and nothing else."""
    path = f"{site}/captures/{capture.pk}/grid.jpg"
    images = "".join(f'<img src="{address}">' for address in (link, path, link.replace("signature=", "signature=x")))
    with page_elsewhere(images) as elsewhere:
        context = browser.new_context()
        page = context.new_page()
        page.goto(elsewhere)
        found = page.locator("img")
        wait_for(lambda: found.evaluate_all("images => images.every(image => image.complete)"), "the pictures")
        widths = found.evaluate_all("images => images.map(image => image.naturalWidth > 0)")
        context.close()
    assert widths == [True, False, False]


@contextmanager
def page_elsewhere(body: str) -> Iterator[str]:
    """Of another site than 127.0.0.1 and localhost are to each other."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f"<!doctype html><title>Elsewhere</title>{body}".encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def it_takes_the_token_as_readme_says(site: str) -> None:
    line = README_LINE.replace("http://localhost:8000", site).replace("/demo", "/yard")
    for token, said in ((TOKEN, "process_name=yard"), ("wrong", "Only who has a token")):
        answer = subprocess.run(
            ["bash", "-c", line], env={"PATH": "/usr/bin:/bin", "API_TOKEN": token}, check=True, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip
        assert said in answer.stdout
