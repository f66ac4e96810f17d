"""From /start to the grid, on GStreamer's server, by plain HTTP, with the service as real processes."""

import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest
import requests

from streams.engine import sheet
from tests.camera.clip import Scene, cached_mp4, encode
from tests.camera.gst import GstServer
from tests.camera.server import ScriptedCamera
from tests.e2e.page import Page, Picture, marks
from tests.e2e.scenes import FEEDS, LEVELS, SMALL, brightest, plan
from tests.e2e.service import ADMIN, Service, gunicorn, runserver, wait_for

Starter = Callable[..., Service]


@pytest.fixture(params=[runserver, gunicorn], ids=["runserver", "gunicorn"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    starter: Starter = request.param
    with starter(tmp_path) as service:
        yield service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with runserver(tmp_path) as service:
        yield service


@pytest.fixture
def small_feed(clips: Path) -> Iterator[GstServer]:
    with GstServer({"small": cached_mp4(SMALL, clips)}) as server:
        yield server


def signed_in(service: Service) -> requests.Session:
    session = requests.Session()
    login = f"{service.url}/admin/login/"
    session.get(login, timeout=30)
    fields = {"username": ADMIN[0], "password": ADMIN[1], "csrfmiddlewaretoken": session.cookies["csrftoken"]}
    assert session.post(login, data=fields, timeout=30, allow_redirects=False).status_code == 302
    return session


def test_three_feeds_at_once_give_the_nine_brightest_seconds_of_each(served: Service, clips: Path) -> None:
    files = {name: cached_mp4(scene, clips) for name, scene in FEEDS.items()}
    with GstServer(files) as server:
        captures = {name: served.begin(server.url(name)) for name in FEEDS}
        for capture in captures.values():
            served.wait_for_samples(capture, LEVELS + 1)
        for name, scene in FEEDS.items():
            answer = served.end(name)
            assert answer.status_code == 200
            assert marks(Page(answer.text).grid(), 9) == brightest(scene.plan)


def test_the_first_answer_names_the_process_that_the_second_needs(service: Service, small_feed: GstServer) -> None:
    answer = service.post("/start", rtsp_url=small_feed.url("small"))
    assert answer.status_code == 201
    assert answer.text.startswith("Video stream started: process_name=small ")
    assert service.end("small").status_code == 409


def test_stopped_after_four_samples_it_shows_and_keeps_what_there_is(service: Service, small_feed: GstServer) -> None:
    capture = service.begin(small_feed.url("small"), interval="2")
    service.wait_for_samples(capture, 4)
    answer = service.end("small")
    page = Page(answer.text)
    assert answer.status_code == 409
    said = re.search(r"Not enough frames were captured: (\d) of 9\.", page.words)
    assert said, page.words
    count = int(said[1])
    assert 4 <= count <= 6  # what came while the fourth was being told
    assert marks(page.grid(), count) == sorted(range(0, 2 * count, 2), key=lambda second: -SMALL.plan[second])
    history = signed_in(service).get(f"{service.url}/admin/streams/capture/{capture}/change/", timeout=30)
    assert f"{count} of 9" in history.text
    assert history.text.count("/frames/") == count


def test_history_keeps_grid_and_frames_for_those_who_may_see_them(service: Service, small_feed: GstServer) -> None:
    capture = service.begin(small_feed.url("small"), interval="0.2")
    service.wait_for_samples(capture, 9)
    shown = Page(service.end("small").text).grid()
    grid_url = f"{service.url}/captures/{capture}/grid.jpg"
    assert "/admin/login/" in requests.get(grid_url, timeout=30).url
    kept = sheet.decode_jpeg(signed_in(service).get(grid_url, timeout=30).content)
    assert np.array_equal(kept, shown)


def test_twenty_concurrent_starts_make_one_capture_and_twenty_stops_one_page(
    served: Service, small_feed: GstServer
) -> None:
    url = small_feed.url("small")
    with ThreadPoolExecutor(20) as pool:
        starts = list(pool.map(lambda _: served.post("/start", rtsp_url=url, interval="0.2"), range(20)))
        assert sorted(answer.status_code for answer in starts) == [200] * 19 + [201]
        assert all("process_name=small " in answer.text for answer in starts)
        wait_for(lambda: served.capture(1)["samples"] >= 9, "nine samples")
        stops = list(pool.map(lambda _: served.end("small"), range(20)))
    assert {answer.status_code for answer in stops} == {200}
    assert len({answer.text for answer in stops}) == 1
    assert requests.get(f"{served.url}/captures/2/", timeout=30).status_code == 404
    assert len(list((served.folder / "media" / "grids").iterdir())) == 1
    assert served.log.count("capture=1 queued") == 1
    assert served.log.count("capture=1 finished") == 1


def test_a_second_stop_shows_the_same_page(service: Service, small_feed: GstServer) -> None:
    capture = service.begin(small_feed.url("small"), interval="0.2")
    service.wait_for_samples(capture, 9)
    first, second = service.end("small"), service.end("small")
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.text == second.text


def test_the_page_opens_from_disk_in_a_browser_with_the_server_gone(
    service: Service, small_feed: GstServer, tmp_path: Path
) -> None:
    capture = service.begin(small_feed.url("small"), interval="0.5")
    service.wait_for_samples(capture, 12)
    html = service.end("small").text
    service.stop()
    page = Page(html)
    assert all(address.startswith("data:") for address in page.loaded)
    assert "url(" not in html
    assert "<script" not in html
    (tmp_path / "response.html").write_text(html)
    seen = screenshot(tmp_path / "response.html", tmp_path)
    assert marks(cut_out(seen, page.grid()), 9) == marks(page.grid(), 9)


def screenshot(html: Path, folder: Path) -> Picture:
    """What Chromium paints, (height, width, 3) uint8 BGR."""
    picture = folder / "screenshot.png"
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *quiet]
    where = (f"--user-data-dir={folder / 'profile'}", f"--screenshot={picture}", "--window-size=1300,1600")
    subprocess.run([*command, *where, html.as_uri()], check=True, capture_output=True, timeout=120)
    return np.asarray(cv2.imread(str(picture)), np.uint8)


def cut_out(seen: Picture, grid: Picture) -> Picture:
    """The grid as it stands in a page, found at whatever size it was painted, in its own size again."""
    height, width = grid.shape[:2]
    best, where = -1.0, (0, 0, 1.0)
    for painted_px in range(1100, 1260, 2):
        scale = painted_px / width
        small = cv2.resize(grid, None, fx=scale / 4, fy=scale / 4, interpolation=cv2.INTER_AREA)
        quarter = cv2.resize(seen, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        if small.shape[0] > quarter.shape[0] or small.shape[1] > quarter.shape[1]:
            continue
        _, score, _, (left, top) = cv2.minMaxLoc(cv2.matchTemplate(quarter, small, cv2.TM_CCOEFF_NORMED))
        if score > best:
            best, where = score, (left * 4, top * 4, scale)
    assert best > 0.9, f"the grid is not in the page: best match {best:.2f}"
    left, top, scale = where
    cut = seen[top : top + round(height * scale), left : left + round(width * scale)]
    return np.asarray(cv2.resize(cut, (width, height)), np.uint8)


def test_a_dozen_streams_run_beside_each_other(service: Service) -> None:
    clip = encode(Scene(320, 240, plan(4, levels=10, tail_s=10), fps=10))
    with ExitStack() as stack:
        cameras = {f"cam-{n}": stack.enter_context(ScriptedCamera(clip, path="cam")) for n in range(12)}
        captures = {name: service.begin(camera.url, name=name, interval="0.2") for name, camera in cameras.items()}
        for capture in captures.values():
            service.wait_for_samples(capture, 9)
        for name, camera in cameras.items():
            assert camera.clients == 1
            assert service.end(name).status_code == 200
            assert (camera.clients, camera.teardowns) == (0, 1)
