"""Supervisors and whole hosts that are killed or told to leave: who is left, who goes on, and what is kept."""

import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from streams.supervisor import PULL_S
from tests.camera.server import ScriptedCamera
from tests.e2e.dimming import SCENE, dimming_cameras
from tests.e2e.rows import Rows, seconds_of
from tests.e2e.service import wait_for
from tests.e2e.site import Host, Site, is_running, kill, wait_until_gone
from tests.figures import Figure
from tests.servers import Database

CAMERAS = 6
COUNT = 100  # more than is sampled: the leaderboard holds whatever was saved
INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Setting:
    """`north` records all of the captures, each of which has a few samples."""

    site: Site
    rows: Rows
    cameras: list[ScriptedCamera]
    captures: list[int]

    @property
    def north(self) -> Host:
        return self.site.hosts["north"]

    def start_another_host(self) -> Host:
        south = self.site.add_host("south", CAMERAS)
        south.start()
        south.wait_until_ready()
        return south

    def wait_until_sampled(self, since: float, host: str = "") -> float:
        """All of them, by a sample of after `since`; how long after `since` it is then, in seconds."""
        wait_for(lambda: self.rows.are_sampled(self.captures, since, host), f"samples by {host or 'any host'}", 90.0)
        return time.time() - since

    def newest_s(self, at: float) -> float:
        """The age that the newest saved sample had at that moment, at the worst of the captures."""
        boards = self.rows.boards(self.captures).values()
        return at - min(max(frame.captured_at for frame in board if frame.captured_at <= at) for board in boards)

    def unkept(self) -> list[int]:
        """Captures that count more samples than they have frames, though there is a place for each."""
        return [
            pk
            for pk, samples, frames in self.rows.read(
                "SELECT c.id, c.samples - c.repeated, count(f.id) FROM streams_capture c"
                " LEFT JOIN streams_frame f ON f.capture_id = c.id GROUP BY c.id"
            )
            if samples != frames
        ]


@contextmanager
def six_captures(folder: Path, database: Database) -> Iterator[Setting]:
    with (
        dimming_cameras(CAMERAS) as cameras,
        Site(folder, database.url, hosts={"north": CAMERAS}) as site,
        Rows(database.url) as rows,
    ):
        captures = [site.website.begin(camera.url, count=COUNT, interval=INTERVAL_S) for camera in cameras]
        setting = Setting(site, rows, cameras, captures)
        for capture in captures:
            site.website.wait_for_samples(capture, 4)
        yield setting


def seconds_until_gone(processes: Iterable[psutil.Process], since_s: float) -> float:
    wait_until_gone(processes)
    return time.monotonic() - since_s


@pytest.mark.timeout(300)
def test_a_killed_supervisor_leaves_nobody_behind_and_the_next_one_goes_on(
    tmp_path: Path, own_database: Database, figure: Figure
) -> None:
    """Before that, a second machine of the same name is refused. Under runserver: test_life.py."""
    with six_captures(tmp_path, own_database) as setting:
        a_second_machine_of_the_same_name_is_refused_and_the_first_goes_on(setting)
        family, kept = setting.north.processes(), setting.rows.boards(setting.captures)
        # The supervisor, the fork server, its resource tracker, the recorders, and a job cluster of six.
        assert len(family) >= 3 + CAMERAS + len(setting.north.jobs.all)
        killed_s = time.monotonic()
        kill(setting.north.supervisor)
        figure("supervisor killed: nothing of it left", seconds_until_gone(family, killed_s), 5.0)
        restarted_at = time.time()
        setting.north.start()
        figure("supervisor killed: all six sampled after its restart", setting.wait_until_sampled(restarted_at), 10.0)
        assert all(kept[pk] <= board for pk, board in setting.rows.boards(setting.captures).items())
        assert len(setting.north.recorders) == CAMERAS


def a_second_machine_of_the_same_name_is_refused_and_the_first_goes_on(setting: Setting) -> None:
    before, first = setting.rows.captures(), setting.north.processes()
    twin = setting.site.add_host("twin", 8, CAPTURE_HOST_NAME="north")
    twin.start()
    assert twin.wait(90.0) == 1
    assert "Another machine runs a supervisor for the host name 'north'" in twin.log
    refused_at = time.time()
    setting.wait_until_sampled(refused_at)
    after = setting.rows.captures()
    assert [after[pk].epoch for pk in setting.captures] == [before[pk].epoch for pk in setting.captures]
    assert all(is_running(process) for process in first)
    assert [camera.connections for camera in setting.cameras] == [1] * CAMERAS
    assert not twin.processes()


@pytest.mark.timeout(300)
def test_another_host_goes_on_with_all_that_was_saved(tmp_path: Path, own_database: Database, figure: Figure) -> None:
    """A host is killed; it comes back; then the one that has replaced it is told to leave."""
    with six_captures(tmp_path, own_database) as setting:
        setting.start_another_host()
        a_host_that_is_killed_is_replaced_with_all_that_it_had_saved(setting, figure)
        setting.north.start()
        setting.north.wait_until_ready()
        a_host_that_leaves_hands_over_all_that_it_has(setting, figure)


def a_host_that_is_killed_is_replaced_with_all_that_it_had_saved(setting: Setting, figure: Figure) -> None:
    killed_at = time.time()
    setting.north.kill()
    kept = setting.rows.boards(setting.captures)
    newest_s = setting.newest_s(killed_at)
    figure("host killed: all six sampled by another", setting.wait_until_sampled(killed_at, "south"), 20.0)
    figure("host killed: age of the newest sample that is kept", newest_s, INTERVAL_S + PULL_S)
    assert newest_s < 10.0
    boards = setting.rows.boards(setting.captures)
    for capture in setting.captures:
        assert len(kept[capture]) >= 4
        assert kept[capture] <= boards[capture]
        in_order_of_scores(setting, capture)
    assert len(setting.site.hosts["south"].recorders) == CAMERAS


def in_order_of_scores(setting: Setting, capture: int) -> None:
    """Darker every second: what was filmed earlier is brighter, and each picture is the one that was scored."""
    board = setting.rows.boards([capture])[capture]
    seconds = seconds_of(setting.site.media, board)
    ranking = [seconds[frame.number] for frame in sorted(board, key=lambda frame: -frame.score)]
    assert ranking == sorted(ranking)


def a_host_that_leaves_hands_over_all_that_it_has(setting: Setting, figure: Figure) -> None:
    south = setting.site.hosts["south"]
    family, teardowns = south.processes(), [camera.teardowns for camera in setting.cameras]
    told_at, told_s = time.time(), time.monotonic()
    south.send(signal.SIGTERM)
    figure("host told to leave: all its processes gone", seconds_until_gone(family, told_s), 5.0)
    left_at = time.time()
    kept = setting.rows.boards(setting.captures)
    unkept = setting.unkept()
    newest_s = setting.newest_s(told_at)
    took_s = setting.wait_until_sampled(left_at, "north")
    figure("host told to leave: all six sampled by another after that", took_s, 5.0)
    # A sample is the first key frame after it fell due.
    figure("host told to leave: age of the newest sample that is kept", newest_s, INTERVAL_S + SCENE.gop_s)
    assert newest_s < 5.0
    assert unkept == []
    assert south.wait() == 0
    assert [camera.teardowns for camera in setting.cameras] == [count + 1 for count in teardowns]
    for capture, board in setting.rows.boards(setting.captures).items():
        assert kept[capture] <= board
        in_order_of_scores(setting, capture)
