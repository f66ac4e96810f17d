"""Hosts that are paused for longer than their claims last, and wake up: another one has their captures by then."""

import signal
import time
from collections.abc import Iterable
from pathlib import Path

import psycopg

from streams.claims import CLAIM_S
from tests.e2e.dimming import dimming_cameras
from tests.e2e.rows import Rows, Write
from tests.e2e.service import wait_for
from tests.e2e.site import Host, Site, kill
from tests.figures import Figure
from tests.servers import Database

COUNT = 60  # each sample is fresh: each checkpoint is a transaction
LIMIT_S = 90.0


def sign(host: Host) -> None:
    """Its connections say whose they are."""
    host.settings["DATABASE_URL"] += f"?application_name={host.name}"


def add(site: Site, name: str, slots: int) -> Host:
    host = site.add_host(name, slots)
    sign(host)
    host.start()
    host.wait_until_ready()
    return host


def pause(host: Host) -> None:
    """All its processes, as when a virtual machine is paused."""
    paused: set[int] = set()
    while more := {process.pid: process for process in host.processes() if process.pid not in paused}:
        for process in more.values():
            kill(process, signal.SIGSTOP)
        paused |= set(more)


def pause_with_an_answer_unread(host: Host, rows: Rows) -> None:
    """Pause the supervisor alone; when it wakes up, the first thing it finds is what a recorder has sampled.

    All recorders are asked in the same round. One of two is paused until the other one has answered twice since: so
    it was asked, and it answers once its supervisor is paused.
    """
    one, other = sorted(pk for pk, row in rows.captures().items() if row.host_name == host.name)
    recorder, saved = host.recorder_of(one), checkpoints(rows, other)
    kill(recorder, signal.SIGSTOP)
    wait_for(lambda: checkpoints(rows, other) >= saved + 2, "two answers of the other recorder")
    kill(host.supervisor, signal.SIGSTOP)
    kill(recorder, signal.SIGCONT)


def resume(host: Host) -> None:
    for process in host.processes():
        kill(process, signal.SIGCONT)


def checkpoints(rows: Rows, capture: int) -> int:
    return len({write.transaction for write in rows.history() if write.capture_id == capture})


def writers_after_takeover(history: Iterable[Write], host: str, captures: Iterable[int]) -> set[str]:
    """Who wrote about the captures once that host had begun to."""
    found: set[str] = set()
    for capture in captures:
        writers = [write.writer for write in history if write.capture_id == capture]
        found |= set(writers[writers.index(host) :])
    return found


def test_hosts_that_were_paused_write_nothing_more_and_live_on(
    tmp_path: Path, own_database: Database, figure: Figure
) -> None:
    site = Site(tmp_path, own_database.url, hosts={"north": 2, "west": 2})
    north, west = site.hosts.values()
    sign(north)
    sign(west)
    with dimming_cameras(8) as cameras, site, Rows(own_database.url) as rows:
        captures = [site.website.begin(camera.url, count=COUNT) for camera in cameras[:4]]
        for capture in captures:
            site.website.wait_for_samples(capture, 3)
        rows.keep_history()
        kept = rows.boards(captures)
        assert sorted(row.host_name for row in rows.captures().values()) == ["north", "north", "west", "west"]
        south = add(site, "south", 4)
        supervisors = (north.supervisor, west.supervisor)

        pause_with_an_answer_unread(west, rows)
        pause(north)
        paused_at = time.time()
        wait_for(lambda: rows.are_sampled(captures, paused_at, "south"), "samples of all by the other host", LIMIT_S)
        figure("two hosts paused: all sampled by another", time.time() - paused_at, 20.0)
        epochs = {pk: row.epoch for pk, row in rows.captures().items()}
        assert time.time() - paused_at > CLAIM_S - 5.0

        resumed_at = time.time()
        resume(north)
        kill(west.supervisor, signal.SIGCONT)
        wait_for(lambda: not north.recorders and not west.recorders, "the end of their recorders", LIMIT_S)
        figure("two hosts paused: their recorders gone after they woke up", time.time() - resumed_at, 5.0)
        assert [camera.clients for camera in cameras[:4]] == [1] * 4

        others = [site.website.begin(camera.url, count=COUNT) for camera in cameras[4:]]
        wait_for(lambda: rows.are_sampled([*captures, *others], resumed_at), "samples of eight captures", LIMIT_S)
        after = rows.captures()
        assert sorted(after[pk].host_name for pk in others) == ["north", "north", "west", "west"]
        assert {pk: after[pk].epoch for pk in captures} == epochs
        assert writers_after_takeover(rows.history(), "south", captures) == {"south"}
        assert all(kept[pk] <= board for pk, board in rows.boards(captures).items())
        assert (north.supervisor, west.supervisor) == supervisors
        assert len(south.recorders) == 4


def test_a_host_that_is_paused_with_a_row_locked_does_not_hold_up_the_others(
    tmp_path: Path, own_database: Database, figure: Figure
) -> None:
    site = Site(tmp_path, own_database.url, hosts={"north": 1})
    north = site.hosts["north"]
    sign(north)
    with dimming_cameras(3) as cameras, site, Rows(own_database.url) as rows:
        first = site.website.begin(cameras[0].url, count=COUNT)
        site.website.wait_for_samples(first, 3)
        rows.keep_history()
        south = add(site, "south", 2)
        second = site.website.begin(cameras[1].url, count=COUNT)
        site.website.wait_for_samples(second, 3)
        kept, before = rows.boards([first, second]), rows.captures()[second]

        paused_at = pause_within_a_checkpoint(own_database, rows, north)
        wait_for(lambda: rows.are_sampled([first], paused_at, "south"), "a sample by the other host", LIMIT_S)
        figure("host paused with a row locked: sampled by another", time.time() - paused_at, 20.0)
        kill(north.supervisor, signal.SIGCONT)
        wait_for(lambda: not north.recorders, "the end of its recorder", LIMIT_S)
        third = site.website.begin(cameras[2].url, count=COUNT)
        resumed_at = time.time()
        wait_for(lambda: rows.are_sampled([first, second, third], resumed_at), "samples of all three", LIMIT_S)
        after = rows.captures()
        assert (after[first].host_name, after[third].host_name) == ("south", "north")
        assert after[second].epoch == before.epoch  # the other host kept what it had
        assert writers_after_takeover(rows.history(), "south", [first]) == {"south"}
        assert all(kept[pk] <= board for pk, board in rows.boards([first, second]).items())
        assert len(south.recorders) == 2


def pause_within_a_checkpoint(database: Database, rows: Rows, host: Host) -> float:
    """Pause the supervisor while its transaction holds the row of its capture; when that was.

    A lock of ours makes its checkpoint wait; then it is paused, and is given the lock.
    """

    def states(state: str) -> bool:
        found = rows.read("SELECT application_name, state, wait_event_type FROM pg_stat_activity WHERE pid > 0")
        return any(name == host.name and state in words for name, *words in found)

    with psycopg.connect(database.url) as connection:
        connection.execute("SELECT id FROM streams_capture WHERE host_name = %s FOR UPDATE", [host.name])
        wait_for(lambda: states("Lock"), "a checkpoint that waits for the row")
        kill(host.supervisor, signal.SIGSTOP)
        paused_at = time.time()
        connection.rollback()
    wait_for(lambda: states("idle in transaction"), "a transaction that nobody ends", 10.0)
    return paused_at
