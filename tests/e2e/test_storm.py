"""Processes die at random while clients start and stop captures: nothing captured is lost, nothing is left over.

`make soak` has three minutes of it, a plain test run twelve seconds (STORM_S).
"""

import fcntl
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.camera.clip import Scene, encode
from tests.camera.server import ScriptedCamera
from tests.e2e.clients import STOPPED, Clients, check_answers, check_files, unexpected
from tests.e2e.rows import Rows
from tests.e2e.service import wait_for
from tests.e2e.site import Part, Site, Website, kill, wait_until_gone
from tests.figures import Figure
from tests.servers import Database

STORM_S = float(os.environ.get("STORM_S", "12"))
KILL_EVERY_S = 0.3
CAMERAS = 6
SETTLED_S = 120.0
# Who dies next is drawn from these, shuffled. A supervisor or a gunicorn takes all of its own with it, and seconds
# to be back: drawn as often as the others, nothing would ever be captured.
DECK = ("gunicorn", "website", "supervisor", "fork server", *["recorder"] * 8, *["jobs"] * 6)
# Some seconds of each brightness: the best are not always the first.
SCENE = Scene(160, 120, (120.0, 60.0, 200.0, 90.0, 160.0, 40.0, 220.0, 140.0), fps=10, gop_s=0.5)


@contextmanager
def cameras() -> Iterator[list[str]]:
    clip = encode(SCENE)
    with ExitStack() as stack:
        yield [stack.enter_context(ScriptedCamera(clip, path=f"cam-{n}", live=True)).url for n in range(CAMERAS)]


@pytest.mark.timeout(240 + 3 * STORM_S)
def test_a_storm_on_two_hosts(tmp_path: Path, own_database: Database, figure: Figure) -> None:
    site = Site(tmp_path, own_database.url, hosts={"north": 3, "south": 3})
    weather(site, figure)


@pytest.mark.timeout(240 + 3 * STORM_S)
def test_a_storm_on_one_host_with_sqlite(tmp_path: Path, figure: Figure) -> None:
    weather(Site(tmp_path, hosts={"north": 4}), figure)


def weather(site: Site, figure: Figure) -> None:
    seed = random.randrange(1 << 32)
    print(f"{seed=}")
    site.website.command += ["--workers", "2"]
    with cameras() as urls, site, Rows(site.database_url) as rows:
        with Clients(site.website, urls, seed) as clients:
            seen, kills = storm(site, random.Random(seed))
        calmed_s = time.monotonic()
        stop_all(site, urls)
        kind = "sqlite" if site.database_url.startswith("sqlite") else "postgresql"
        figure(f"storm ({kind}): every capture stopped after it", time.monotonic() - calmed_s, 30.0)
        print(f"killed: {dict(kills)}; answered: {dict(clients.tally())}")
        nothing_is_left_to_do(rows)
        assert clients.failures == []
        assert unexpected(clients.answers) == []
        assert len(clients.answers) > STORM_S / 2
        assert kills.total() > STORM_S / 2
        assert check_answers(clients.answers, rows, site.media)
        assert check_files(rows, site.media) > 0
        empty_the_queue(rows)
        check_answers(clients.answers, rows, site.media)  # jobs that ran again have changed nothing
        check_files(rows, site.media)
        leave(site, seen)
        assert unexplained_tracebacks(site.log) == []


def storm(site: Site, chance: random.Random) -> tuple[set[psutil.Process], Counter[str]]:
    """kill -9 of any process, again and again; all that were seen, and who was killed. In the end all run."""
    seen: set[psutil.Process] = set()
    kills: Counter[str] = Counter()
    deck: list[str] = []
    end_s = time.monotonic() + STORM_S
    while time.monotonic() < end_s:
        next_s = time.monotonic() + KILL_EVERY_S
        found = {process: role_of(process, part) for part in site.parts for process in family(part)}
        seen.update(found)
        deck = deck or chance.sample(DECK, len(DECK))
        role = next((role for role in deck if role in found.values()), "")  # some are on their way up
        if role:
            deck.remove(role)
            kill(chance.choice([process for process, its_role in found.items() if its_role == role]))
            kills[role] += 1
        time.sleep(max(0.0, next_s - time.monotonic()))
        start_again(site)
    for website in site.websites:
        website.wait_until_ready()
    return seen | set(site.processes()), kills


def family(part: Part) -> list[psutil.Process]:
    """Its main process and what descends from it. To look for orphans too would take too long for a storm."""
    with suppress(psutil.NoSuchProcess):
        return [part.main, *part.main.children(recursive=True)]
    return []


def role_of(process: psutil.Process, part: Part) -> str:
    """As in DECK. The standard library's resource tracker counts as a fork server, which it serves."""
    is_main = process.pid == part.main.pid
    if isinstance(part, Website):
        return "gunicorn" if is_main else "website"
    if is_main:
        return "supervisor"
    with suppress(psutil.Error):
        if "jobs" in process.cmdline():
            return "jobs"
        return "fork server" if process.ppid() == part.main.pid else "recorder"
    return ""


def start_again(site: Site) -> None:
    """What was killed, as a service manager does it: what the website leaves behind has its port, and is ended."""
    for part in site.parts:
        if not part.is_running:
            if isinstance(part, Website):
                part.kill()
            part.start()


def stop_all(site: Site, urls: Iterable[str]) -> None:
    """Also what a client has started, when it was told that it is over, and not stopped."""
    for name in (url.rpartition("/")[2] for url in urls):
        wait_for(partial(is_stopped, site, name), f"/stop of {name}", SETTLED_S)


def is_stopped(site: Site, name: str) -> bool:
    """404: nobody ever started it."""
    return site.website.stop_once(name).status_code in (*STOPPED, 404)


def nothing_is_left_to_do(rows: Rows) -> None:
    in_progress = rows.read("SELECT id FROM streams_capture WHERE finished_at IS NULL OR claimed_by_id IS NOT NULL")
    statuses = rows.read("SELECT DISTINCT status FROM streams_stream")
    assert in_progress == []
    assert statuses == [("idle",)]


def empty_the_queue(rows: Rows) -> None:
    """What killed processes had taken is given out again after `retry`, five minutes: here at once."""
    rows.read("UPDATE django_q_ormq SET lock = '2000-01-01 00:00:00' RETURNING id")
    wait_for(lambda: rows.read("SELECT count(*) FROM django_q_ormq") == [(0,)], "an empty queue", SETTLED_S)


def leave(site: Site, seen: Iterable[psutil.Process]) -> None:
    """All that was ever started is gone once the rest was told to leave, and holds no lock."""
    for part in site.parts:
        part.send(signal.SIGTERM)
    assert [part.wait() for part in site.parts] == [0] * len(site.parts)
    wait_until_gone(seen)
    wait_until_gone(site.processes())
    for path in site.folder.glob("*/*.lock"):
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def unexplained_tracebacks(log: str) -> list[str]:
    """The standard library tells one: of a recorder whose supervisor was killed before it had said what to record."""
    found = re.findall(r"^Traceback .*\n(?:[ ].*\n)*.*", log, re.MULTILINE)
    return [text for text in found if not ("forkserver.py" in text and text.endswith("EOFError: Ran out of input"))]
