"""The clock of PostgreSQL is set back and forward, for real (libfaketime), under hosts with cameras."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from psycopg import sql

from tests import faketime
from tests.e2e.dimming import dimming_cameras
from tests.e2e.prepared import prepared_database
from tests.e2e.rows import Rows
from tests.e2e.service import wait_for
from tests.e2e.site import Site
from tests.figures import Figure
from tests.servers import PostgreSQL

CAMERAS = 3
TAKEN_OVER_S = 35.0


class SteeredPostgreSQL(PostgreSQL):
    """Its clock is ahead by what a file says."""

    @property
    def clock(self) -> Path:
        return self.folder / "clock"

    def set_clock(self, ahead_s: float) -> None:
        faketime.steer(self.clock, ahead_s)

    def ahead_s(self) -> float:
        ((moment,),) = self.execute(sql.SQL("SELECT extract(epoch FROM statement_timestamp())::float8"))
        return float(moment) - time.time()

    def start(self) -> None:
        self.set_clock(0.0)
        super().start()

    def _command(self) -> Sequence[str]:
        variables = [f"{name}={value}" for name, value in faketime.steered(self.clock).items()]
        return ["env", *variables, *super()._command()]


@pytest.fixture
def server() -> Iterator[SteeredPostgreSQL]:
    with SteeredPostgreSQL(is_durable=False) as server:
        yield server


def epochs(rows: Rows, host: str) -> dict[int, int]:
    """Of the captures that this host claims."""
    return {pk: row.epoch for pk, row in rows.captures().items() if row.is_claimed and row.host_name == host}


def goes_on(server: SteeredPostgreSQL, ahead_s: float, rows: Rows, counted: dict[int, int]) -> bool:
    """Whether the clock is set, and each capture has some samples more than were counted."""
    is_set = abs(server.ahead_s() - ahead_s) < 5
    return is_set and all(row.samples > counted[pk] + 3 for pk, row in rows.captures().items())


@pytest.mark.timeout(300)
def test_a_clock_that_is_set_back_costs_no_living_host_a_claim_and_the_dead_are_taken_over(
    tmp_path: Path, server: SteeredPostgreSQL, figure: Figure
) -> None:
    """One of three hosts is killed as the clock is set back by an hour; later it is set forward by fourteen seconds,
    which is a second less than a claim lasts."""
    database = prepared_database(server)
    hosts = {"dead": 1, "north": CAMERAS, "south": CAMERAS}
    with (
        dimming_cameras(CAMERAS) as cameras,
        Site(tmp_path, database.url, hosts={"dead": 1}) as site,
        Rows(database.url) as rows,
    ):
        captures = [site.website.begin(cameras[0].url, interval=1)]
        wait_for(lambda: epochs(rows, "dead"), "a claim of the host that is to die")
        for name in ("north", "south"):
            site.add_host(name, hosts[name]).start()
            site.hosts[name].wait_until_ready()
        captures += [site.website.begin(camera.url, interval=1) for camera in cameras[1:]]
        wait_for(lambda: all(row.is_claimed for row in rows.captures().values()), "claims of all")
        for capture in captures:
            site.website.wait_for_samples(capture, 2)
        living = epochs(rows, "north") | epochs(rows, "south")
        assert sorted([*living, *epochs(rows, "dead")]) == captures

        site.hosts["dead"].kill()
        server.set_clock(-3600.0)
        wait_for(lambda: server.ahead_s() < -3000, "the clock of the server")
        begun_s = time.monotonic()
        wait_for(lambda: not epochs(rows, "dead"), "a takeover", 90.0)
        figure("clock an hour back: a dead host's capture taken over", time.monotonic() - begun_s, TAKEN_OVER_S)
        now = epochs(rows, "north") | epochs(rows, "south")
        assert sorted(now) == captures
        assert {pk: epoch for pk, epoch in now.items() if pk in living} == living

        for ahead_s in (-3586.0, 0.0):  # fourteen seconds forward, and all the rest of the hour
            server.set_clock(ahead_s)
            counted = {pk: row.samples for pk, row in rows.captures().items()}
            wait_for(partial(goes_on, server, ahead_s, rows, counted), "more samples of all", 60.0)
            assert epochs(rows, "north") | epochs(rows, "south") == now
    for name in ("north", "south"):
        assert "claim lost" not in site.hosts[name].log
    assert any("database clock set back" in site.hosts[name].log for name in ("north", "south"))
