"""Recorders that are killed or paused: the next one goes on, and there is never more than one."""

import signal
import time
from pathlib import Path

import psutil

from streams.supervisor import SILENT_S
from tests.camera.server import ScriptedCamera
from tests.e2e.dimming import dimming_cameras
from tests.e2e.rows import Rows
from tests.e2e.service import wait_for
from tests.e2e.site import Host, Site, is_running, kill, wait_until_gone
from tests.figures import Figure

PAUSE_S = 30.0
COUNT = 100  # more than is sampled: each sample is on the board


def test_a_recorder_that_dies_is_replaced_and_keeps_the_leaderboard(
    tmp_path: Path, either_url: str, figure: Figure
) -> None:
    """On PostgreSQL that of another capture, which has not failed yet, is then paused for half a minute."""
    with dimming_cameras(2) as (camera, other), Site(tmp_path, either_url) as site, Rows(site.database_url) as rows:
        host = site.hosts["north"]
        capture = site.website.begin(camera.url, count=COUNT)
        site.website.wait_for_samples(capture, 3)
        kept = rows.boards([capture])[capture]
        killed_at = time.time()
        kill(host.recorder_of(capture))
        wait_for(lambda: rows.are_sampled([capture], killed_at), "a sample of after the kill")
        kind = "postgresql" if either_url else "sqlite"
        figure(f"recorder killed ({kind}): sampled again", time.time() - killed_at, 3.0)

        for _ in range(5):
            kill(the_recorder(host))
        killed_at = time.time()
        wait_for(lambda: rows.are_sampled([capture], killed_at), "a sample of after the last kill")
        assert kept
        assert kept <= rows.boards([capture])[capture]
        assert [the_recorder(host)] == host.recorders
        wait_for(lambda: camera.clients == 1, "the camera's only viewer")
        site.website.end("cam-0")
        wait_for(lambda: not host.recorders, "the recorder's end")
        if either_url:
            a_paused_recorder_is_replaced_and_never_writes_again(site, rows, other, figure)


def the_recorder(host: Host) -> psutil.Process:
    """The only one, as soon as there is one."""
    return wait_for(lambda: [process for process in host.recorders if is_running(process)], "a recorder")[0]


def a_paused_recorder_is_replaced_and_never_writes_again(
    site: Site, rows: Rows, camera: ScriptedCamera, figure: Figure
) -> None:
    host = site.hosts["north"]
    capture = site.website.begin(camera.url, count=COUNT)
    site.website.wait_for_samples(capture, 3)
    before, paused = rows.captures()[capture], the_recorder(host)
    kept = rows.boards([capture])[capture]
    paused_at = time.time()
    kill(paused, signal.SIGSTOP)
    recorders, sampled_s = watch(host, rows, capture, paused_at)
    figure("recorder paused: sampled by the next one", sampled_s, SILENT_S + 5.0)
    kill(paused, signal.SIGCONT)
    wait_until_gone([paused])

    resumed_at = time.time()
    wait_for(lambda: rows.are_sampled([capture], resumed_at), "samples after it")
    after = rows.captures()[capture]
    board = rows.boards([capture])[capture]
    assert recorders == 1
    assert [the_recorder(host)] == host.recorders != [paused]
    assert (after.epoch, after.host_name) == (before.epoch, "north")
    assert kept <= board
    # Each sample is on this board: numbers without a gap, told once, in the order of their pictures.
    ordered = sorted(board, key=lambda frame: frame.number)
    assert [frame.captured_at for frame in ordered] == sorted(frame.captured_at for frame in ordered)
    assert len({frame.number for frame in board}) == len(board) <= after.samples
    wait_for(lambda: camera.clients == 1, "the camera's only viewer")


def watch(host: Host, rows: Rows, capture: int, paused_at: float) -> tuple[int, float]:
    """For as long as the pause lasts: the most recorders that there were at once, and when samples came again."""
    most, sampled_s = 0, 0.0
    while (passed_s := time.time() - paused_at) < PAUSE_S or not sampled_s:
        most = max(most, len(host.recorders))
        # What it had sampled before may be saved in the moment of the pause.
        if not sampled_s and rows.are_sampled([capture], paused_at + 1.0):
            sampled_s = passed_s
        assert passed_s < 4 * PAUSE_S, "not sampled again"
        time.sleep(0.3)  # it is a look at all processes of the machine
    return most, sampled_s
