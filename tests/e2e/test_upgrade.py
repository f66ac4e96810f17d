"""From the previous release to this one and back while captures run: real processes of both around one database.

The previous release runs from its own source with its own pinned packages: tests/previous.py.
"""

import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
import requests

from streams.engine.notices import Notice
from tests.camera.clip import Scene, encode
from tests.camera.server import ScriptedCamera
from tests.e2e.page import Page, marks
from tests.e2e.prepared import ADMIN
from tests.e2e.rows import Rows, seconds_of
from tests.e2e.service import Calls, free_port, wait_for
from tests.e2e.site import KEYS, SQLITE, Host, Site, Website
from tests.figures import Figure
from tests.previous import THIS, Release, previous
from tests.schema import Schema, breaks, new_columns, read_postgresql, read_sqlite
from tests.servers import PostgreSQL

# Each second is brighter than the one before, so that each sample gets a place; it lasts longer than a test.
SCENE = Scene(160, 120, tuple(8.0 + second for second in range(240)), fps=5)
GAP_S = 5.0
LIMIT_S = 90.0
LONG = 600  # s: the previous release's packages are installed once for a checkout: 16 s, beside other tests more
# Pauses are the service's, not those of a machine that runs other tests: measured beside twelve busy processes on two
# cores a handover took 4.6 s without this and 3.0 s with it. Where it is not allowed the command runs as any other.
FIRST = ("nice", "-n", "-10")
# What an older version does to rows that a newer one has filled: it saves each as a whole.
OLDER_SAVES = """
import django
django.setup()
from django.apps import apps
for model in apps.get_app_config("streams").get_models():
    for row in model.objects.all():
        row.save()
"""
# What a newer supervisor may say of a capture that it records, all at once.
NEWER_SAYS = """
import sys, django
django.setup()
from streams import claims, services
from streams.engine.notices import Notice
from streams.engine.report import State, Status
from streams.models import Capture
capture = Capture.objects.get(pk=sys.argv[1])
claim = claims.Claim(capture.pk, capture.claimed_by_id, capture.epoch)
services._save_status(claim, Status(State.CAPTURING, notices=tuple(Notice)))
"""


@pytest.fixture(scope="module")
def older() -> Release:
    release = previous()
    ours, theirs = ({path.name for path in (it.root / "streams/migrations").glob("*.py")} for it in (THIS, release))
    assert theirs < ours
    return release


@pytest.fixture
def cameras() -> Iterator[list[ScriptedCamera]]:
    clip = encode(SCENE)
    with ExitStack() as stack:
        yield [stack.enter_context(ScriptedCamera(clip, path=f"cam-{n}", live=True)) for n in range(4)]


# --- a service of two releases --------------------------------------------------------------------


class Machine(Host, Calls):
    """Website and supervisor by one serve.sh."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings['PORT']}"

    def wait_until_ready(self) -> None:
        super().wait_until_ready()
        wait_for(self._answers, f"the website; its log:\n{self.log}")

    def _answers(self) -> bool:
        assert self.is_running, self.log
        try:
            return requests.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except requests.RequestException:
            return False


class Upgrade(Site):
    """Its parts are of two releases, and nothing is prepared or started by itself."""

    def __init__(self, folder: Path, database_url: str = "", redis_url: str = "") -> None:
        super().__init__(folder, database_url, redis_url=redis_url, hosts={}, websites=0)

    def _prepare(self) -> None:
        pass

    def web(self, release: Release) -> Website:
        website = self.add_website(PYTHON=release.python)
        website.command, website.root = [*release.serve, "web"], release.root
        return website

    def host(self, release: Release) -> Host:
        host = self.add_host(release.name, 8, PYTHON=release.python)
        host.command, host.root = [*FIRST, *release.serve, "supervise"], release.root
        return host

    def machine(self) -> Machine:
        """Of no release yet; its keys are made in its folder."""
        for name in KEYS:
            self.settings.pop(name)
        own = {"PORT": str(free_port()), "CAPTURE_HOST_NAME": "machine"}
        machine = Machine("machine", *self._place("machine", [], own))
        self.hosts["machine"] = machine
        return machine

    def run(self, release: Release, *command: str, name: str = "web-1") -> None:
        """A command of that release's Python in its checkout, to its end."""
        done = subprocess.run(
            [release.python, *command], cwd=release.root,
            env={**self._environment(name, {}), "DJANGO_SETTINGS_MODULE": "rtspsite.settings"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def start(*parts: Website | Host) -> None:
    for part in parts:
        part.start()
    for part in parts:
        part.wait_until_ready()


def stop(*parts: Website | Host) -> None:
    for part in parts:
        part.send(signal.SIGTERM)
    for part in parts:
        assert part.wait() == 0, part.log
        assert not part.processes()


def sampled(rows: Rows, captures: Iterable[int], host: str, *, since: float | None = None) -> None:
    """Wait for a sample of each, of after that moment, which is now unless given, and by that host."""
    captures, since = list(captures), time.time() if since is None else since
    wait_for(lambda: rows.are_sampled(captures, since, host), f"samples of {captures} by {host}", LIMIT_S)


ADMIN_PATHS = [f"/admin/{table}/" for table in ("streams/stream", "streams/capture", "streams/host", "django_q/ormq")]


def signed_in(website: Calls) -> requests.Session:
    """Cookies know no port, so that it is the same visitor at another website of this machine."""
    session, login = requests.Session(), f"{website.url}/admin/login/"
    session.get(login, timeout=60)
    fields = {"username": ADMIN[0], "password": ADMIN[1], "csrfmiddlewaretoken": session.cookies["csrftoken"]}
    assert session.post(login, data=fields, timeout=60, allow_redirects=False).status_code == 302
    return session


def show_all(visitor: requests.Session, websites: Iterable[Calls], captures: Iterable[int]) -> None:
    """Each page and file that a website has of these captures."""
    for website in websites:
        paths = ["/", "/api/streams", "/api/captures", "/metrics", "/readyz", *ADMIN_PATHS]
        for pk in captures:
            found = website.capture(pk)
            stream = found["process_name"]
            paths += [f"/streams/{stream}/", f"/streams/{stream}/best.jpg", f"/api/streams/{stream}"]
            paths += [f"/captures/{pk}/", f"/captures/{pk}/capture.zip", f"/api/captures/{pk}"]
            paths += [f"/api/captures/{pk}/frames", f"/admin/streams/capture/{pk}/change/"]
        for path in paths:
            answer = visitor.get(website.url + path, timeout=60, allow_redirects=False)
            assert answer.status_code == 200, (website.url, path, answer.status_code, answer.text[:500])


# --- what was captured ----------------------------------------------------------------------------


def pauses_s(camera: ScriptedCamera) -> float:
    """The longest time in which the camera sent no picture to anybody, between the first one and the last one."""
    numbers = sorted({sent.number for sent in camera.sent})
    return max(after - before for before, after in pairwise(numbers)) / SCENE.fps


def kept_at_starts(log: str, capture: int) -> list[int]:
    """How many frames were saved when each recorder of the capture was started."""
    return [int(kept) for kept in re.findall(rf" capture={capture} recorder started pid=\d+ frames_kept=(\d+)", log)]


def check_written_by_both(rows: Rows, capture: int, older_log: str, newer_log: str, media: Path) -> None:
    """By the older version, the newer, and the older again; no sample is lost, and each file shows its own."""
    (_, second), (first,) = kept_at_starts(older_log, capture), kept_at_starts(newer_log, capture)
    board = sorted(rows.boards([capture])[capture], key=lambda frame: frame.number)
    last = board[-1].number
    assert [frame.number for frame in board] == list(range(1 + max(0, last - 100), last + 1))
    assert 0 < first < second < last
    seconds = seconds_of(media, board)
    assert sorted(seconds.values()) == [seconds[frame.number] for frame in board]


def longest_between_samples_s(rows: Rows, capture: int) -> float:
    times = sorted(frame.captured_at for frame in rows.boards([capture])[capture])
    return max(after - before for before, after in pairwise(times))


# --- what stands in the database ------------------------------------------------------------------


def schema_of(rows: Rows, url: str) -> Schema:
    return read_sqlite(rows.read) if url.startswith(SQLITE) else read_postgresql(rows.read)


def applied(rows: Rows) -> set[tuple[str, str]]:
    return {(app, name) for app, name in rows.read("SELECT app, name FROM django_migrations")}


def check_newer_values_survive(
    site: Upgrade, older: Release, rows: Rows, old: Schema, new: Schema, name: str
) -> None:
    """Whatever is new: the newer code writes it, the older one saves the same rows, and it is still there."""
    columns = new_columns(old, new)
    assert columns, "this release has no new column: remove this check, or the release before is the wrong one"
    site.run(THIS, "-m", "tests.other_values", *(f"{table}.{column}" for table, column in columns), name=name)
    written = values_of(rows, columns)
    site.run(older, "-c", OLDER_SAVES, name=name)
    assert values_of(rows, columns) == written


def values_of(rows: Rows, columns: list[tuple[str, str]]) -> dict[tuple[str, str], list[object]]:
    found = {}
    for table, column in columns:
        statement = f'SELECT "{column}" FROM "{table}" ORDER BY 1'  # noqa: S608
        found[table, column] = rows.read(statement)
        assert found[table, column], f"{table} has no row"
    return found


# --- many hosts -----------------------------------------------------------------------------------


@pytest.mark.timeout(LONG)
def test_hosts_and_websites_of_both_releases_work_together_on_postgresql(
    tmp_path: Path, postgresql: PostgreSQL, older: Release, cameras: list[ScriptedCamera], figure: Figure
) -> None:
    database = postgresql.new_database()
    site = Upgrade(tmp_path, database.url)
    with site, Rows(database.url) as rows:
        old_web, old_host = site.web(older), site.host(older)
        start(old_web, old_host)
        old_schema, old_migrations = schema_of(rows, database.url), applied(rows)
        long = [old_web.begin(camera.url, count=count) for camera, count in zip(cameras, (100, 9), strict=False)]
        sampled(rows, long, "old")
        visitor = signed_in(old_web)

        # Mixed: the newer website migrates, and all that it wants is done by the older supervisor and its jobs.
        new_web, new_host = site.web(THIS), site.host(THIS)
        start(new_web)
        new_schema = schema_of(rows, database.url)
        assert old_migrations < applied(rows)
        assert breaks(old_schema, new_schema) == []
        one = start_and_stop(new_web, new_web, cameras[2], rows, "old")
        start(new_host)
        show_all(visitor, [old_web, new_web], [long[0], one])
        stop(old_host)
        sampled(rows, long, "new")
        other = start_and_stop(old_web, old_web, cameras[3], rows, "new")
        site.run(THIS, "-c", NEWER_SAYS, str(long[1]))
        assert set(new_web.capture(long[1])["notices"]) == set(Notice)
        show_all(visitor, [old_web, new_web], [*long, other])

        # New alone.
        stop(old_web)
        sampled(rows, long, "new")

        # Mixed, on the way back: the older version is started on the newer schema.
        start(old_web, old_host)
        stop(new_host)
        sampled(rows, long, "old")
        start_and_stop(new_web, old_web, cameras[3], rows, "old")

        # Old alone.
        stop(new_web)
        sampled(rows, long, "old")
        show_all(visitor, [old_web], long)
        assert old_web.end("cam-0").status_code == 409  # fewer than 100
        assert old_web.end("cam-1").status_code == 200
        assert requests.delete(f"{old_web.url}/api/streams/cam-3", timeout=60).status_code == 204
        stop(old_web, old_host)
        assert applied(rows) > old_migrations

        check_written_by_both(rows, long[0], old_host.log, new_host.log, site.media)
        for number, camera in enumerate(cameras[:2]):
            assert camera.connections == camera.teardowns == 3
            gap_s = pauses_s(camera)
            figure(f"upgrade and back: longest pause at camera {number}", gap_s, GAP_S)
            assert gap_s <= GAP_S
        figure("upgrade and back: longest time between two samples", longest_between_samples_s(rows, long[0]), GAP_S)
    database.drop()


def start_and_stop(starter: Calls, stopper: Calls, camera: ScriptedCamera, rows: Rows, host: str) -> int:
    """A capture that one website starts and another one stops, and that this host alone can record; its id."""
    done = jobs_done(rows)
    capture = starter.begin(camera.url, count=2, interval=0.2)
    wait_for(lambda: rows.captures()[capture].samples >= 2, f"two samples of capture {capture}", LIMIT_S)
    assert rows.captures()[capture].host_name == host
    answer = stopper.end(camera.url.rpartition("/")[2])
    assert answer.status_code == 200, answer.text
    assert len(marks(Page(answer.text).grid(), 2)) == 2
    wait_for(lambda: jobs_done(rows) >= done + Counter(place=1, finish=1), f"both jobs of capture {capture}")
    return capture


def jobs_done(rows: Rows) -> Counter[str]:
    """How many jobs of each kind the cluster of the only host has done; none of them failed."""
    found = rows.read("SELECT func, success FROM django_q_task")
    assert all(success for _, success in found), found
    return Counter(function.rpartition(".")[2] for function, _ in found)


# --- one machine ----------------------------------------------------------------------------------


@pytest.mark.timeout(LONG)
def test_one_machine_goes_forward_and_back_on_sqlite(
    tmp_path: Path, older: Release, cameras: list[ScriptedCamera], figure: Figure
) -> None:
    """As `make run` has it: the same folder, name and generated keys, and one version at a time."""
    with Upgrade(tmp_path) as site:
        machine = site.machine()
        logs: dict[str, str] = {}

        def run(release: Release) -> None:
            machine.settings["PYTHON"] = release.python
            machine.command, machine.root = [*release.serve, "serve"], release.root
            start(machine)

        def end(release: Release) -> None:
            before = sum(map(len, logs.values()))
            stop(machine)
            logs[release.name] = logs.get(release.name, "") + machine.log[before:]

        run(older)
        with Rows(site.database_url) as rows:
            old_schema, old_migrations = schema_of(rows, site.database_url), applied(rows)
            long = [machine.begin(camera.url, count=count) for camera, count in zip(cameras, (100, 9), strict=False)]
            sampled(rows, long, "machine")
            visitor = signed_in(machine)
            # The schema goes forward below the older version, as when a newer one is tried beside it.
            site.run(THIS, "manage.py", "prepare", name="machine")
            new_schema = schema_of(rows, site.database_url)
            assert old_migrations < applied(rows)
            assert breaks(old_schema, new_schema) == []
            sampled(rows, long, "machine")
            show_all(visitor, [machine], long)
            end(older)
            run(THIS)
            sampled(rows, long, "machine")
            show_all(visitor, [machine], long)
            end(THIS)
            run(older)
            sampled(rows, long, "machine")
            one = start_and_stop(machine, machine, cameras[2], rows, "machine")
            show_all(visitor, [machine], [*long, one])
            assert machine.end("cam-0").status_code == 409  # fewer than 100
            assert machine.end("cam-1").status_code == 200
            end(older)
            check_written_by_both(rows, long[0], logs["old"], logs["new"], site.media)
            for number, camera in enumerate(cameras[:2]):
                assert camera.connections == camera.teardowns == 3
                figure(f"upgrade and back, one machine: longest pause at camera {number}", pauses_s(camera), 10.0)
            check_newer_values_survive(site, older, rows, old_schema, new_schema, "machine")
