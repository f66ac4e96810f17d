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

from streams.models import Capture
from tests.e2e.browser import PHONE, Visit, barriers, chromium, is_too_wide
from tests.e2e.prepared import ADMIN
from tests.e2e.service import ROOT, wait_for
from tests.streams.builders import make_finished

TOKEN = "a-token-of-more-than-20-characters"
[README_LINE] = re.findall(r"^    (curl -H \"Authorization: .*)$", (ROOT / "README.md").read_text(), re.M)


def test_the_journey_of_who_has_to_sign_in(live_server: LiveServer, settings: Settings, tmp_path: Path) -> None:
    settings.MEDIA_ROOT, settings.API_TOKENS = tmp_path, [TOKEN]
    capture = make_finished()
    get_user_model().objects.create_superuser(ADMIN[0], password=ADMIN[1])
    site = str(live_server.url)
    with chromium() as browser, Visit(browser, site, has_script=False) as visit:
        tab = visit.page
        is_sent_to_sign_in_and_back(tab, site, f"/captures/{capture.pk}/")
        link = make_a_link(tab)
        looks_right_when_signed_in(browser, site, tab)
        signs_out(tab, site)
        another_site_shows_what_has_a_link(browser, site, capture, link)
        visit.forgive("401", "403")
    it_takes_the_token_as_readme_says(site)


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
        expect(visit.page.get_by_label("Link")).to_be_visible()
        assert (barriers(visit.page), is_too_wide(visit.page)) == ([], False)
        visit.page.goto("/streams/demo/?page=1")
        visit.page.context.clear_cookies()  # the session is over: the page, which looks again, goes there by itself
        visit.page.wait_for_url("**/admin/login/?next=%2Fstreams%2Fdemo%2F%3Fpage%3D1")
        visit.forgive("401")


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
