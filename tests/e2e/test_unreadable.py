"""A picture of a running capture that cannot be read does not keep its stream from ending."""

import sqlite3
from pathlib import Path

import requests

from tests.e2e.dimming import dimming_cameras
from tests.e2e.service import wait_for
from tests.e2e.site import SQLITE, Site


def test_a_picture_that_cannot_be_read_delays_the_end_by_ten_minutes_and_no_more(tmp_path: Path) -> None:
    """The database's row is set back in place of waiting. Then the stream can be deleted."""
    with dimming_cameras(1) as (camera,), Site(tmp_path) as site:
        website = site.website
        capture = website.begin(camera.url, interval=0.5, count=100)
        website.wait_for_samples(capture, 5)
        name = website.capture(capture)["process_name"]
        spoilt = sorted((site.media / f"frames/{capture}").iterdir())[0]
        spoilt.unlink()
        spoilt.mkdir()
        assert website.stop_once(name, "application/json").json()["code"] == "stopping"
        again = website.post("/start", "application/json", rtsp_url=camera.url)
        assert (again.status_code, requests.delete(f"{website.url}/api/streams/{name}", timeout=10).status_code) == (
            409,
            409,
        )
        with sqlite3.connect(site.database_url.removeprefix(SQLITE), timeout=20) as rows:
            rows.execute("UPDATE streams_capture SET stop_requested_at = datetime('now', '-11 minutes')")
        wait_for(lambda: website.capture(capture)["status"] == "finished", "the end of the capture", 60.0)
        found = website.capture(capture)
        assert found["error"]["code"] == "picture_unreadable"
        assert requests.get(f"{website.url}/captures/{capture}/grid.jpg", timeout=10).status_code == 200
        assert f"file=frames/{capture}/{spoilt.name} unreadable error=" in site.log
        assert requests.delete(f"{website.url}/api/streams/{name}", timeout=10).status_code == 204


def test_a_file_in_the_place_of_the_folder_delays_the_end_by_ten_minutes_and_no_more(tmp_path: Path) -> None:
    """What the recorder still had is lost then, and said to be."""
    with dimming_cameras(1) as (camera,), Site(tmp_path) as site:
        website = site.website
        (site.media / "frames").mkdir(parents=True, exist_ok=True)
        (site.media / "frames/1").touch()
        capture = website.begin(camera.url, interval=0.5, count=100)
        assert capture == 1
        website.wait_for_samples(capture, 3)
        wait_for(lambda: "checkpoint failed" in site.log, "a checkpoint that failed")
        name = website.capture(capture)["process_name"]
        for _ in range(2):  # the second one waits in vain for as long as a request may
            assert website.stop_once(name, "application/json").json()["code"] == "stopping"
        with sqlite3.connect(site.database_url.removeprefix(SQLITE), timeout=20) as rows:
            rows.execute("UPDATE streams_capture SET stop_requested_at = datetime('now', '-11 minutes')")
        wait_for(lambda: website.capture(capture)["status"] == "finished", "the end of the capture", 60.0)
        assert website.capture(capture)["error"]["code"] == "picture_lost"
        assert f"capture={capture} pictures given up count=" in site.log
        assert requests.delete(f"{website.url}/api/streams/{name}", timeout=10).status_code == 204
