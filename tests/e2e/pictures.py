"""The pictures of README.md: `python -m tests.e2e.pictures docs` makes them anew, of the demo's cameras.

test_browser.py makes them of its own.
"""

import io
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page as Tab

import tests.environment  # noqa: F401  # makes the folder that all of a run share
from tests.camera.demo import PATHS, demo_cameras
from tests.e2e.browser import Visit, chromium, is_shown
from tests.e2e.service import ROOT, wait_for
from tests.e2e.site import Site

SHOWN = set(re.findall(r"!\[.*\]\(docs/(\S+)\)", (ROOT / "README.md").read_text()))
SAMPLES = 75
BYTES_MAX = 400_000
COLOURS = 256
QUALITY = 90  # a palette turned a green status grey


def keep_pages(visit: Visit, name: str, folder: Path) -> None:
    """Of all streams, and of the one of this name."""
    tab = visit.open()
    keep(tab, "/", ".picture img", (1000, 500), folder / "start.jpg")
    keep(tab, f"/streams/{name}/", ".board img", (1000, 1120), folder / "stream.jpg")
    tab.close()


def keep_response(tab: Tab, address: str, folder: Path) -> None:
    """Of what /stop answered."""
    keep(tab, address, "img", (1000, 800), folder / "response.jpg")


def keep(tab: Tab, address: str, pictures: str, size: tuple[int, int], file: Path) -> None:
    tab.set_viewport_size({"width": size[0], "height": size[1]})
    tab.goto(address)
    wait_for(lambda: is_shown(tab.locator(pictures)), f"the pictures of {address}")
    seen = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
    seen.save(file, quality=QUALITY, subsampling=0, optimize=True)
    assert seen.size == size
    assert len(seen.getcolors(seen.width * seen.height) or ()) > COLOURS  # more than letters on a ground
    assert file.stat().st_size < BYTES_MAX


def main(folder: Path) -> None:
    with (
        TemporaryDirectory() as scratch,
        demo_cameras() as cameras,
        Site(Path(scratch) / "site") as site,
        chromium() as browser,
        Visit(browser, site.website.url) as visit,
    ):
        for capture in [site.website.begin(camera.url) for camera in cameras.values()]:
            site.website.wait_for_samples(capture, SAMPLES, 240.0)
        keep_pages(visit, PATHS["harbour"], folder)
        response = Path(scratch) / "response.html"
        response.write_text(site.website.end(PATHS["garden"]).text)
        with Visit(browser, response.as_uri()) as alone:
            keep_response(alone.page, response.as_uri(), folder)
        for picture in sorted(SHOWN):
            print(folder / picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
