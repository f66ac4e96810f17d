"""The pictures of README.md, made anew from the demo's cameras: `make screenshots` keeps them in docs/."""

import io
import os
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page as Tab

from tests.camera.demo import demo_cameras
from tests.e2e.browser import Visit, chromium, is_shown
from tests.e2e.service import ROOT, wait_for
from tests.e2e.site import Site

BYTES_MAX = 400_000
COLOURS = 256
QUALITY = 90  # a palette turned a green status grey
SHOWN = re.findall(r"!\[.*\]\(docs/(\S+)\)", (ROOT / "README.md").read_text())


@pytest.mark.timeout(420)
def test_the_pictures_can_be_made_again(tmp_path: Path) -> None:
    """Of short films, unless they are to be kept."""
    kept = os.environ.get("SCREENSHOTS", "")
    folder, loop_s, samples = (Path(kept), 30, 75) if kept else (tmp_path, 4, 4)
    with (
        demo_cameras(loop_s=loop_s, has_outages=bool(kept)) as cameras,
        Site(tmp_path / "site") as site,
        chromium() as browser,
        Visit(browser, site.website.url) as visit,
    ):
        captures = [site.website.begin(camera.url, count=min(9, loop_s)) for camera in cameras.values()]
        for capture in captures:
            site.website.wait_for_samples(capture, samples, 240.0)
        keep(visit.page, "/", ".picture img", (1000, 500), folder / "start.jpg")
        keep(visit.page, "/streams/harbour-bad-wifi/", ".board img", (1000, 1120), folder / "stream.jpg")
        response = tmp_path / "response.html"
        response.write_text(site.website.end("garden").text)
        with Visit(browser, response.as_uri()) as alone:
            keep(alone.page, response.as_uri(), "img", (1000, 800), folder / "response.jpg")
    assert SHOWN
    assert {picture for picture in SHOWN if not (folder / picture).exists()} == set()


def keep(tab: Tab, address: str, pictures: str, size: tuple[int, int], file: Path) -> None:
    tab.set_viewport_size({"width": size[0], "height": size[1]})
    tab.goto(address)
    wait_for(lambda: is_shown(tab.locator(pictures)), f"the pictures of {address}")
    seen = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
    seen.save(file, quality=QUALITY, subsampling=0, optimize=True)
    assert seen.size == size
    assert len(seen.getcolors(seen.width * seen.height) or ()) > COLOURS  # more than letters on a ground
    assert file.stat().st_size < BYTES_MAX
