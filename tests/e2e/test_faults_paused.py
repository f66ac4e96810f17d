"""Hosts that are paused for longer than their claims last, and wake up: another one has their captures by then."""

import signal
import time
from collections.abc import Iterable
from pathlib import Path

import psycopg
import pytest

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


@pytest.mark.timeout(300)
def test_hosts_that_were_paused_write_nothing_more_and_live_on(
    tmp_path: Path, own_database: Database, figure: Figure
) -> None:
    """Three at once: one as a whole, one with an answer unread, one with a row locked, which holds up nobody."""
    site = Site(tmp_path, own_database.url, hosts={"north": 2, "west": 2, "east": 1})
    paused = north, west, east = list(site.hosts.values())
    for host in paused:
        sign(host)
    with dimming_cameras(11) as cameras, site, Rows(own_database.url) as rows:
        captures = [site.website.begin(camera.url, count=COUNT) for camera in cameras[:5]]
        for capture in captures:
            site.website.wait_for_samples(capture, 3)
        rows.keep_history()
        assert hosts_of(rows, captures) == ["east", "north", "north", "west", "west"]
        south = add(site, "south", 6)
        own = site.website.begin(cameras[5].url, count=COUNT)
        site.website.wait_for_samples(own, 3)
        kept, before = rows.boards([*captures, own]), rows.captures()[own]
        supervisors = [host.supervisor for host in paused]

        pause_with_an_answer_unread(west, rows)
        locked_at = pause_within_a_checkpoint(own_database, rows, east)
        pause(north)
        paused_at = time.time()
        wait_for(lambda: rows.are_sampled(captures, paused_at, "south"), "samples of all by the other host", LIMIT_S)
        figure("three hosts paused: all sampled by another", time.time() - paused_at, 20.0)
        figure("host paused with a row locked: sampled by another", time.time() - locked_at, 20.0)
        epochs = {pk: row.epoch for pk, row in rows.captures().items()}
        assert time.time() - paused_at > CLAIM_S - 5.0
        assert epochs[own] == before.epoch  # the other host kept what it had

        resumed_at = time.time()
        resume(north)
        kill(west.supervisor, signal.SIGCONT)
        kill(east.supervisor, signal.SIGCONT)
        wait_for(lambda: not any(host.recorders for host in paused), "the end of their recorders", LIMIT_S)
        figure("three hosts paused: their recorders gone after they woke up", time.time() - resumed_at, 5.0)
        wait_for(lambda: [camera.clients for camera in cameras[:6]] == [1] * 6, "one client at each camera", LIMIT_S)

        others = [site.website.begin(camera.url, count=COUNT) for camera in cameras[6:]]
        wait_for(lambda: rows.are_sampled([*kept, *others], resumed_at), "samples of all eleven", LIMIT_S)
        assert hosts_of(rows, others) == ["east", "north", "north", "west", "west"]
        after = rows.captures()
        assert {pk: after[pk].epoch for pk in kept} == epochs
        assert writers_after_takeover(rows.history(), "south", captures) == {"south"}
        assert all(kept[pk] <= board for pk, board in rows.boards(kept).items())
        assert [host.supervisor for host in paused] == supervisors
        assert len(south.recorders) == 6


def hosts_of(rows: Rows, captures: Iterable[int]) -> list[str]:
    found = rows.captures()
    return sorted(found[pk].host_name for pk in captures)


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
