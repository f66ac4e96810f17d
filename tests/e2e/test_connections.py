"""How many connections to PostgreSQL each part of a host has: the figures of docs/operations.md."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import requests

from tests.e2e.prepared import ROOT
from tests.e2e.service import wait_for
from tests.e2e.site import Host, Site, Website
from tests.servers import Database

DOCS = (ROOT / "docs/operations.md").read_text()
THREADS, PROBES = 16, 3
CLIENTS = 40


def documented(part: str) -> tuple[str, str]:
    """At rest, and at most."""
    ((at_rest, at_most),) = re.findall(rf"^\| {part}[^|]*\| ([^|]+) \| ([^|]+) \|$", DOCS, re.M)
    return at_rest, at_most


def connections(database: Database, website: Website, host: Host) -> Counter[str]:
    """By part. A pid is counted as often as it has connections."""
    of = {process.pid: "website" for process in website.processes()}
    of |= {process.pid: "job cluster" for process in host.processes()} | {host.main.pid: "supervisor"}
    return Counter(of.get(pid, "somebody else") for pid in database.clients())


def test_each_part_has_the_connections_that_are_documented(tmp_path: Path, own_database: Database) -> None:
    site = Site(tmp_path, own_database.url, hosts={"north": 8})
    with site, ThreadPoolExecutor(CLIENTS) as pool:
        website, host = site.website, site.hosts["north"]
        assert host.jobs.pusher.is_running()

        def count() -> Counter[str]:
            return connections(own_database, website, host)

        def ask(path: str) -> int:
            return requests.get(website.url + path, timeout=60).status_code

        at_rest = Counter({"supervisor": 1, "job cluster": 1})
        assert [documented(part)[0] for part in ("website", "supervisor", "job cluster")] == ["0", "1", "1"]
        with psycopg.connect(own_database.url) as locker:
            locker.execute("LOCK TABLE streams_stream IN ACCESS EXCLUSIVE MODE")
            asked = [pool.submit(ask, path) for path in ["/api/streams"] * CLIENTS + ["/metrics"] * 3]
            wait_for(lambda: count()["website"] >= THREADS, "a connection of each thread", 60)
            most = count()["website"]
        assert documented("website")[1] == f"`WEB_THREADS` + {PROBES}"
        assert most <= THREADS + PROBES
        assert {it.result(60) for it in asked} <= {200, 503}
        assert ask("/readyz") == 200
        wait_for(lambda: count() == at_rest, "idle connections given back", 60)
