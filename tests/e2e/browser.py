"""Chromium as people have it, and what no page may do in it: ask another host, complain, shut somebody out.

with chromium() as browser, Visit(browser, site.website.url) as visit:
    visit.page.goto("/")
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Error,
    Locator,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

LIMIT_MS = 30_000
WIDE, PHONE = (1280, 900), (360, 740)
_LOADED = "Failed to load resource"
# What Chromium by itself asks its maker's hosts for.
_QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's. For a test, not for longer: while it is there, Django refuses its database to the test's thread."""
    program = shutil.which("chromium")
    assert program, "chromium is not installed: make setup-dev"
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=LIMIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*_QUIET, *sandbox])
        yield browser
        browser.close()


class Visit:
    """Somebody who looks at the site at `url`: a browser profile of its own, with one page to begin with.

    Everything that its pages ask for and complain of is noted; leaving checks it.
    """

    def __init__(
        self, browser: Browser, url: str, *, has_script: bool = True, size: tuple[int, int] = WIDE, scale: float = 1.0
    ) -> None:
        """`size`: width and height in px; `scale`: px of the screen for each of them."""
        self.asked: list[str] = []
        """Addresses, in the order in which they were asked for."""
        self.complaints: list[str] = []
        self._url = url
        self._refused: set[str] = set()
        self._context = browser.new_context(
            base_url=url, java_script_enabled=has_script, viewport={"width": size[0], "height": size[1]},
            device_scale_factor=scale, color_scheme="light", reduced_motion="reduce",
        )  # fmt: skip
        self._context.set_default_timeout(LIMIT_MS)
        self._context.on("request", self._note_request)
        self._context.on("response", self._note_response)
        self._context.on("console", self._note_words)
        self._context.on("weberror", lambda error: self.complaints.append(f"error: {error.error}"))
        self.page = self.open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.check()
        self._context.close()

    def open(self) -> Page:
        """One page more."""
        return self._context.new_page()

    def count(self, path: str) -> int:
        """How often the site's address was asked for."""
        return self.asked.count(self._url + path)

    def check(self) -> None:
        """Nobody else was asked for anything, and no page has complained."""
        ours = urlsplit(self._url)[:2]
        foreign = [url for url in self.asked if urlsplit(url)[:2] != ours and urlsplit(url).scheme != "data"]
        assert not foreign, foreign
        assert not self.complaints, "\n".join(self.complaints)

    def forgive(self, *words: str) -> None:
        """What holds one of the `words` was to be expected."""
        self.complaints[:] = [said for said in self.complaints if not any(word in said for word in words)]

    def _note_request(self, request: Request) -> None:
        self.asked.append(request.url)

    def _note_response(self, response: Response) -> None:
        """A page that comes with 400 or 404 is one to look at, and Chromium complains of it as of a lost picture."""
        if response.request.is_navigation_request() and 400 <= response.status < 500:
            self._refused.add(response.url)

    def _note_words(self, message: ConsoleMessage) -> None:
        where = message.location["url"]
        is_page = message.text.startswith(_LOADED) and where in self._refused
        if message.type in ("error", "warning", "assert") and not is_page:
            self.complaints.append(f"{message.type}: {message.text} ({where})")


def barriers(page: Page, *, with_contrast: bool = True, outside: Sequence[str] = ()) -> list[str]:
    """What axe-core finds on the page as it is painted now; not without script, where it would never answer.

    `outside`: selectors of what is not looked at.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    context = {"exclude": [[selector] for selector in outside]}
    options = {
        "preload": False,
        "resultTypes": ["violations"],
        "rules": {"color-contrast": {"enabled": with_contrast}},
    }
    found: Any = page.evaluate("given => axe.run(...given)", [context if outside else "html", options])
    return [_barrier(rule, node) for rule in found["violations"] for node in rule["nodes"]]


def _barrier(rule: dict[str, Any], node: dict[str, Any]) -> str:
    why = [check["message"] for kind in ("any", "all", "none") for check in node[kind]]
    return f"{rule['id']}: {node['html'][:200]} {json.dumps(node['target'])}: {'; '.join(why)[:300]}"


def is_too_wide(page: Page) -> bool:
    """Whether it has to be scrolled sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


def is_shown(images: Locator) -> bool:
    """Whether each of them was loaded and decoded, and there is one. Not while the page makes way for the next."""
    with suppress(Error):
        script = "images => images.length > 0 && images.every(image => image.complete && image.naturalWidth > 0)"
        return bool(images.evaluate_all(script))
    return False


def leads_to(links: Locator) -> list[str]:
    """Addresses; none while the page makes way for the next."""
    with suppress(Error):
        return [str(address) for address in links.evaluate_all("links => links.map(link => link.href)")]
    return []


def press(first: Locator, then: Locator) -> None:
    """Two steps; begun anew if the page makes way for the next in between."""
    end_s = time.monotonic() + LIMIT_MS / 1000
    while True:
        try:
            first.click()
            return then.click(timeout=2000)
        except Error:
            assert time.monotonic() < end_s, f"{first} and {then} cannot be pressed"
