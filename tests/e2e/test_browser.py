"""The whole journey in a browser: with script, without, by keyboard alone, and while the service is away."""

import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Browser, Locator, expect
from playwright.sync_api import Page as Tab

from streams.engine import sheet
from tests.camera.clip import Scene, encode
from tests.camera.mark import read_mark
from tests.camera.server import ScriptedCamera
from tests.e2e.browser import Visit, barriers, chromium, is_shown, leads_to, press
from tests.e2e.page import Page, Picture, marks
from tests.e2e.pictures import SHOWN, keep_pages, keep_response
from tests.e2e.prepared import ADMIN
from tests.e2e.scenes import brightest, plan
from tests.e2e.service import wait_for
from tests.e2e.site import Site, Website

LEVELS = 12
SCENE = Scene(320, 240, plan(5, levels=LEVELS, tail_s=40), fps=10)
BEST = brightest(SCENE.plan)
USER, PASSWORD = "viewer", "wr0ng-to-show"
LOOKS = 3


def test_the_whole_journey(tmp_path: Path) -> None:
    """One service for all. It is known what the cameras show: pages have to show the brightest of it, best first.

    Meanwhile README's pictures are made, as of other cameras for README.
    """
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    with cameras() as (hall, yard, gate), Site(tmp_path / "site") as site, chromium() as browser:
        website = site.website
        with Visit(browser, website.url, has_script=False) as plain, Visit(browser, website.url) as visit:
            mistakes_are_told_beside_their_fields(plain.page)
            mistakes_are_told_beside_their_fields(visit.page)
            assert barriers(visit.page) == []
            start_by_form(plain.page, yard.url)
            start_by_form(visit.page, hall.url_with_credentials)
            visit.page.evaluate("window.isTheSame = true")
            all_streams_update_themselves(visit)
            by_keyboard_alone(visit.open(), gate)
            it_is_the_brightest_nine(visit.page)
            it_is_the_brightest_nine(plain.page)
            keep_pages(visit, "hall", pictures)
            plain_capture = stop_by_button(plain.page, "yard")
            the_service_goes_away_and_comes_back(visit, website)
            assert visit.page.evaluate("window.isTheSame")
            capture = stop_by_button(visit.page, "hall")
            for tab, address in ((plain.page, plain_capture), (visit.page, capture)):
                the_grid_is_shown_and_kept(tab, address)
            it_is_in_the_history_and_in_the_admin(visit.page, capture)
            for each in (plain, visit):
                each.forgive("/frames/")  # one may leave the leaderboard between the page and its picture
        the_page_of_stop_needs_no_service(browser, website, tmp_path / "response.html", pictures)
        assert {picture.name for picture in pictures.iterdir()} == SHOWN
        assert PASSWORD not in site.log


@contextmanager
def cameras() -> Iterator[tuple[ScriptedCamera, ScriptedCamera, ScriptedCamera]]:
    """The first one asks for a password. Each shows a client its film from the beginning."""
    clip = encode(SCENE)
    with ExitStack() as stack:
        hall = stack.enter_context(ScriptedCamera(clip, path="hall", username=USER, password=PASSWORD))
        yard, gate = (stack.enter_context(ScriptedCamera(clip, path=path)) for path in ("yard", "gate"))
        yield hall, yard, gate


# --- starting ---------------------------------------------------------------------------------------


def mistakes_are_told_beside_their_fields(tab: Tab) -> None:
    tab.goto("/")
    fill(tab, f"http://{USER}:{PASSWORD}@camera.example/hall", "often")
    expect(tab.get_by_role("alert")).to_contain_text("2 fields")
    for label in ("Camera address", "Interval in seconds"):
        field = tab.get_by_label(label)
        words = tab.locator(".field").filter(has=field).locator(".mistake").inner_text()
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_accessible_description(re.compile(re.escape(words)))
    expect(tab.get_by_label("Interval in seconds")).to_have_value("often")
    expect(tab.get_by_label("Camera address")).to_be_focused()
    assert PASSWORD not in tab.content()
    tab.get_by_text("More settings").click()
    tab.get_by_label("Frames to keep").fill("0")
    fill(tab, "rtsp://camera.example/hall", "2")
    expect(tab.get_by_label("Frames to keep")).to_be_focused()  # which was folded away
    expect(tab.get_by_label("Camera address")).to_have_value("rtsp://camera.example/hall")


def start_by_form(tab: Tab, url: str) -> None:
    """To the page of the stream."""
    tab.goto("/")
    if not tab.get_by_label("Camera address").is_visible():
        tab.get_by_text("Start a stream").click()
    fill(tab, url, "1")
    tab.wait_for_url("**/streams/*/")
    assert PASSWORD not in tab.content()


def fill(tab: Tab, url: str, interval: str) -> None:
    tab.get_by_label("Camera address").fill(url)
    tab.get_by_label("Interval in seconds").fill(interval)
    tab.get_by_role("button", name="Start capturing").click()


# --- watching ---------------------------------------------------------------------------------------


def all_streams_update_themselves(visit: Visit) -> None:
    """While somebody may see them: not on a hidden tab."""
    home = visit.open()
    home.goto("/")
    home.evaluate("window.isTheSame = true")
    samples = samples_of(home, "hall")
    it_changes(samples)
    expect(home.get_by_role("img", name="Best frame of hall")).to_be_visible()
    set_hidden(home, True)
    asked, others = visit.count("/"), visit.count("/streams/hall/")
    wait_for(lambda: home.title() and visit.count("/streams/hall/") >= others + LOOKS, "looks of the other tab")
    assert visit.count("/") == asked
    set_hidden(home, False)
    it_changes(samples)
    assert home.evaluate("window.isTheSame")
    home.close()


def samples_of(home: Tab, name: str) -> Locator:
    """What the card of the stream says of its samples."""
    card = home.get_by_role("listitem").filter(has=home.get_by_role("link", name=name, exact=True))
    return card.locator("dt", has_text="Samples").locator("xpath=following-sibling::dd")


def it_changes(words: Locator) -> None:
    expect(words).not_to_have_text(words.inner_text())


def set_hidden(tab: Tab, is_hidden: bool) -> None:
    """As when another tab covers it; without a screen Chromium never does so by itself."""
    tab.evaluate(
        """isHidden => {
            Object.defineProperty(document, "hidden", {configurable: true, get: () => isHidden});
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        is_hidden,
    )


def it_is_the_brightest_nine(tab: Tab) -> None:
    """In the end: each full picture that the leaderboard leads to shows its second."""
    board = tab.get_by_role("region", name="The brightest so far").get_by_role("link")
    seconds: dict[str, int] = {}

    def shown() -> list[int]:
        addresses = leads_to(board)
        for address in addresses:
            if address not in seconds and (answer := tab.request.get(address)).ok:  # not if it has just left
                seconds[address] = read_mark(sheet.decode_jpeg(answer.body()))
        return [seconds[address] for address in addresses if address in seconds]

    wait_for(lambda: shown() == BEST, "the brightest nine on the leaderboard")
    tab.locator(".board li").last.scroll_into_view_if_needed()
    wait_for(lambda: is_shown(tab.locator(".board img")), "the pictures of the leaderboard")


# --- by keyboard alone ------------------------------------------------------------------------------


def by_keyboard_alone(tab: Tab, camera: ScriptedCamera) -> None:
    """Started and stopped. What has the focus keeps it, and is open, while the page updates itself."""
    tab.goto("/")
    tab.keyboard.press("Tab")
    expect(tab.get_by_role("link", name="Skip to the content")).to_be_focused()
    go_to(tab, tab.get_by_text("Start a stream"))
    tab.keyboard.press("Enter")
    go_to(tab, tab.get_by_label("Camera address"))
    tab.keyboard.type(camera.url)
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/streams/gate/")
    tab.goto("/")
    stop = tab.get_by_role("listitem").filter(has=tab.get_by_role("link", name="gate")).locator("summary")
    go_to(tab, stop)
    tab.keyboard.press("Enter")
    it_changes(samples_of(tab, "gate"))
    it_changes(samples_of(tab, "gate"))
    expect(stop).to_be_focused()
    go_to(tab, tab.get_by_role("button", name="Stop and make the grid of gate"))
    tab.keyboard.press("Space")
    tab.wait_for_url("**/captures/*/")
    few, enough = tab.get_by_text("Not enough frames were captured"), tab.get_by_text("The 9 brightest of")
    expect(few.or_(enough)).to_be_visible()  # a busy machine takes its time to press two keys
    tab.close()


def go_to(tab: Tab, wanted: Locator) -> None:
    """By the Tab key; wherever the focus is, it is to be seen."""
    for _ in range(60):
        tab.keyboard.press("Tab")
        outline = tab.evaluate("getComputedStyle(document.activeElement, null).outlineStyle")
        around = tab.evaluate("getComputedStyle(document.activeElement, '::after').outlineStyle")
        assert (outline, around) != ("none", "none"), tab.evaluate("document.activeElement.outerHTML")
        if wanted.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"the Tab key does not lead to {wanted}")


# --- stopping ---------------------------------------------------------------------------------------


def the_service_goes_away_and_comes_back(visit: Visit, website: Website) -> None:
    """The page says so, and goes on by itself. What is captured goes on meanwhile."""
    away = visit.page.get_by_text("The service does not answer")
    expect(away).to_be_hidden()
    website.stop()
    expect(away).to_be_visible()
    website.start()
    website.wait_until_ready()
    expect(away).to_be_hidden()
    it_changes(visit.page.locator("dt", has_text="Samples").first.locator("xpath=following-sibling::dd"))
    visit.forgive("net::ERR_CONNECTION_REFUSED", "net::ERR_EMPTY_RESPONSE", "Failed to fetch")


def stop_by_button(tab: Tab, name: str) -> str:
    """On the page of the stream; the address of the page that it leads to."""
    press(tab.get_by_text(f"Stop … {name}"), tab.get_by_role("button", name=f"Stop and make the grid of {name}"))
    tab.wait_for_url("**/captures/*/")
    return tab.url


def the_grid_is_shown_and_kept(tab: Tab, address: str) -> None:
    """As it is painted, as it is downloaded, and with all the rest in one file."""
    tab.goto(address)
    grid = tab.get_by_role("img", name="brightest frames of")
    expect(grid).to_be_visible()
    kept = downloaded(tab, "Download the grid")
    assert marks(sheet.decode_jpeg(kept), 9) == BEST
    assert painted(grid, sheet.decode_jpeg(kept)) == BEST
    with zipfile.ZipFile(io.BytesIO(downloaded(tab, "Download everything"))) as everything:
        assert everything.read("grid.jpg") == kept
        assert len(everything.namelist()) == 9 + 2


def downloaded(tab: Tab, words: str) -> bytes:
    with tab.expect_download() as download:
        tab.get_by_role("link", name=words).click()
    return download.value.path().read_bytes()


def painted(grid: Locator, whole: Picture) -> list[int]:
    """The seconds that a person sees in it."""
    seen = cv2.imdecode(np.frombuffer(grid.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert seen is not None
    return marks(np.asarray(cv2.resize(seen, whole.shape[1::-1]), np.uint8), 9)


def it_is_in_the_history_and_in_the_admin(tab: Tab, address: str) -> None:
    """Links lead from each to each."""
    tab.get_by_role("link", name="All captures of hall").click()
    history = tab.get_by_role("region", name="History")
    history.scroll_into_view_if_needed()
    wait_for(lambda: is_shown(tab.locator(".history img")), "the pictures of the history")
    history.get_by_role("link").first.click()
    tab.wait_for_url(address)
    tab.get_by_role("main").get_by_role("link", name="Admin").click()
    tab.get_by_label("Username").fill(ADMIN[0])
    tab.get_by_label("Password").fill(ADMIN[1])
    tab.get_by_role("button", name="Log in").click()
    expect(tab.get_by_role("img", name="Grid of hall")).to_be_visible()
    tab.get_by_role("link", name="View on site").click()
    tab.wait_for_url(address)


def the_page_of_stop_needs_no_service(browser: Browser, website: Website, file: Path, pictures: Path) -> None:
    """Saved and opened from disk it asks for nothing."""
    file.write_text(website.end("hall").text)
    website.stop()
    with Visit(browser, file.as_uri()) as visit:
        visit.page.goto(file.as_uri())
        grid = visit.page.get_by_role("img", name="brightest frames of")
        assert painted(grid, Page(file.read_text()).grid()) == BEST
        assert [url for url in visit.asked if not url.startswith("data:")] == [file.as_uri()]
        keep_response(visit.page, file.as_uri(), pictures)
