"""From /start to the grid, on GStreamer's server, by plain HTTP, with the service as real processes."""

import re
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import requests

from streams.engine import sheet
from tests.camera.clip import Scene, cached_mp4, encode
from tests.camera.gst import GstServer
from tests.camera.server import ScriptedCamera
from tests.e2e.page import Page, Picture, marks
from tests.e2e.prepared import ADMIN
from tests.e2e.rows import Rows, jobs_done
from tests.e2e.scenes import FEEDS, LEVELS, SMALL, brightest, plan
from tests.e2e.service import Service, gunicorn, runserver, wait_for


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


def test_three_feeds_at_once_give_the_nine_brightest_seconds_of_each(tmp_path: Path, clips: Path) -> None:
    """Meanwhile a fourth one is started and stopped by twenty at once."""
    files = {name: cached_mp4(scene, clips) for name, scene in FEEDS.items()}
    with runserver(tmp_path) as service, GstServer({**files, "crowded": files["small"]}) as server:
        captures = {name: service.begin(server.url(name)) for name in FEEDS}
        twenty_at_once(service, server.url("crowded"), max(captures.values()) + 1)
        for capture in captures.values():
            service.wait_for_samples(capture, LEVELS + 1)
        for name, scene in FEEDS.items():
            answer = service.end(name)
            assert answer.status_code == 200
            assert marks(Page(answer.text).grid(), 9) == brightest(scene.plan)


def twenty_at_once(service: Service, url: str, capture: int) -> None:
    """Twenty starts make one capture, the next one, and twenty stops one page."""
    name = url.rpartition("/")[2]
    grids = service.folder / "media" / "grids"
    before = len(list(grids.glob("*")))
    with ThreadPoolExecutor(20) as pool:
        starts = list(pool.map(lambda _: service.post("/start", rtsp_url=url, interval="0.2"), range(20)))
        assert sorted(answer.status_code for answer in starts) == [200] * 19 + [201]
        assert all(f"process_name={name} " in answer.text for answer in starts)
        service.wait_for_samples(capture, 9)
        stops = list(pool.map(lambda _: service.end(name), range(20)))
    assert {answer.status_code for answer in stops} == {200}
    assert len({answer.text for answer in stops}) == 1
    assert requests.get(f"{service.url}/captures/{capture + 1}/", timeout=30).status_code == 404
    assert len(list(grids.iterdir())) == before + 1
    assert service.log.count(f"capture={capture} queued") == 1
    assert service.log.count(f"capture={capture} finished") == 1


def test_what_a_client_is_told_shown_and_kept(tmp_path: Path, small_feed: GstServer) -> None:
    """By gunicorn and a supervisor that know each other only by the database."""
    url = small_feed.url("small")
    with gunicorn(tmp_path) as service:
        the_first_answer_names_the_process_that_the_second_needs(service, url)
        twenty_at_once(service, url, 2)
        stopped_after_four_samples_it_shows_and_keeps_what_there_is(service, url)
        a_dozen_streams_run_beside_each_other(service)
        capture = service.begin(url, interval="0.5")
        service.wait_for_samples(capture, 12)
        first, second = service.end("small"), service.end("small")
        assert (first.status_code, second.status_code) == (200, 200)
        assert first.text == second.text
        history_keeps_the_grid(service, capture, Page(first.text).grid())
        with Rows(f"sqlite:///{tmp_path / 'data' / 'db.sqlite3'}") as rows:
            wait_for(lambda: jobs_done(rows) == {"place": True, "finish": True}, "both kinds of jobs, done")
    the_page_holds_all_that_it_shows(first.text)


def the_first_answer_names_the_process_that_the_second_needs(service: Service, url: str) -> None:
    answer = service.post("/start", rtsp_url=url)
    assert answer.status_code == 201
    assert answer.text.startswith("Video stream started: process_name=small ")
    assert service.end("small").status_code == 409


def stopped_after_four_samples_it_shows_and_keeps_what_there_is(service: Service, url: str) -> None:
    capture = service.begin(url, interval="2")
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
    assert history.text.count("/small.jpg") == count


def a_dozen_streams_run_beside_each_other(service: Service) -> None:
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


def history_keeps_the_grid(service: Service, capture: int, shown: Picture) -> None:
    grid_url = f"{service.url}/captures/{capture}/grid.jpg"
    answer = requests.get(grid_url, timeout=30)
    assert np.array_equal(sheet.decode_jpeg(answer.content), shown)
    again = requests.get(grid_url, headers={"If-None-Match": answer.headers["ETag"]}, timeout=30)
    assert (again.status_code, again.content) == (304, b"")
    archive = requests.get(f"{service.url}/captures/{capture}/capture.zip", timeout=30)
    with zipfile.ZipFile(BytesIO(archive.content)) as kept:
        assert (kept.testzip(), len(kept.namelist())) == (None, 11)
        assert kept.read("grid.jpg") == answer.content


def the_page_holds_all_that_it_shows(html: str) -> None:
    """What a browser makes of it: test_browser.py."""
    assert all(address.startswith("data:") for address in Page(html).loaded)
    assert "url(" not in html
    assert "<script" not in html
