"""Each process of the job cluster killed by itself: /start and /stop go on, and no capture notices."""

import time
from pathlib import Path

import psutil
import pytest

from tests.camera.server import ScriptedCamera
from tests.e2e.dimming import dimming_cameras
from tests.e2e.page import Page, marks
from tests.e2e.rows import Rows
from tests.e2e.service import wait_for
from tests.e2e.site import Host, Site, kill, wait_until_gone
from tests.figures import Figure

# Three of one supervisor: a cluster that dies again and again is restarted later and later. Which database there is,
# the processes do not know.
ROLES = {"sqlite": ("leader", "worker 1", "monitor"), "postgresql": ("sentinel", "worker 2", "pusher")}


@pytest.mark.timeout(300)
def test_whichever_part_of_the_job_cluster_is_killed_start_and_stop_work(
    tmp_path: Path, either_url: str, figure: Figure
) -> None:
    """The whole cluster is replaced each time."""
    kind = "postgresql" if either_url else "sqlite"
    with (
        dimming_cameras(len(ROLES[kind]) + 2) as (lasting, first, *cameras),
        Site(tmp_path, either_url) as site,
        Rows(site.database_url) as rows,
    ):
        host = site.hosts["north"]
        lasts, running = (site.website.begin(camera.url, count=1) for camera in (lasting, first))
        for capture in (lasts, running):
            site.website.wait_for_samples(capture, 1)
        recorder = host.recorder_of(lasts)
        for role in ROLES[kind]:
            jobs = host.jobs
            kill(part(host, role))
            began_s = time.monotonic()
            running = start_one_and_stop_one(site, rows, cameras.pop(), running)
            took_s = time.monotonic() - began_s
            figure(f"{role} of the jobs killed ({kind}): /start sampled, /stop answered", took_s, 5.0)
            wait_until_gone(jobs.all)
        assert host.recorder_of(lasts) == recorder
        assert (lasting.connections, recorder.is_running()) == (1, True)
        assert host.jobs.all


def part(host: Host, role: str) -> psutil.Process:
    """Of a cluster that is complete: the one before it has been replaced."""
    jobs = host.jobs
    if role.startswith("worker"):
        return jobs.workers[int(role.removeprefix("worker ")) - 1]
    found: psutil.Process = getattr(jobs, role)
    return found


def start_one_and_stop_one(site: Site, rows: Rows, camera: ScriptedCamera, running: int) -> int:
    """Start a capture, stop another one; the id of the one that was started."""
    started = site.website.begin(camera.url, count=1)
    name = site.website.capture(running)["process_name"]
    answer = site.website.end(name)
    assert answer.status_code == 200, answer.text
    assert marks(Page(answer.text).grid(), 1)
    wait_for(lambda: rows.captures()[started].samples, f"a sample of capture {started}")
    return started
