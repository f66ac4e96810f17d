"""What goes and what stays: old captures, files that no row knows, hosts and failed jobs of long ago."""

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import FileSystemStorage
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django_q.models import OrmQ, Schedule, Task
from pytest_django import Settings

from streams import claims, jobs, retention, services
from streams.models import Capture, Ending, Frame, Host, Stream
from streams.retention import Pruned
from tests.streams.builders import (
    URL,
    all_files,
    at_once,
    files,
    frame_files,
    make_capture,
    make_claim,
    make_finished,
    make_host,
    make_jpeg,
    make_picture,
    make_report,
    record,
    silence,
    start,
    stop,
)
from tests.streams.builders import jobs as queued

pytestmark = pytest.mark.django_db(transaction=True)

HOUR_S = 3600.0


@pytest.fixture(autouse=True)
def old_database(transactional_db: None) -> None:
    """Made long before any file of these tests."""
    MigrationRecorder.Migration.objects.update(applied=datetime.now(UTC) - timedelta(days=1000))


def prune(keep_days: float = 7, **options: Any) -> Pruned:
    return retention.prune(keep_days=keep_days, **options)


def camera(number: int) -> str:
    return f"rtsp://camera.example/{number}"


def end_ago(days: float, *captures: Capture) -> None:
    """Let them have ended so long ago."""
    ids = [capture.pk for capture in captures]
    Capture.objects.filter(pk__in=ids).update(finished_at=Now() - timedelta(days=days))


def make_old(number: int = 0, *, days: float = 8, frames: int = 2) -> Capture:
    capture = make_finished(camera(number), frames=frames, count=2)
    end_ago(days, capture)
    return capture


def put(media: Path, name: str, *, age_s: float = 2 * HOUR_S, data: bytes = b"litter") -> Path:
    path = media / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    age(path, age_s)
    return path


def age(path: Path, age_s: float = 2 * HOUR_S) -> None:
    then = time.time() - age_s
    os.utime(path, (then, then))


def age_all(media: Path) -> None:
    for path in media.rglob("*"):
        if path.is_file():
            age(path)


# --- captures -------------------------------------------------------------------------------------


def test_an_old_capture_goes_with_its_frames_and_files_and_the_stream_stays(media: Path) -> None:
    old, young = make_old(1), make_finished(camera(2), frames=2, count=2)
    size_bytes = sum((media / name).stat().st_size for name in all_files(old))
    pruned = prune()
    assert (pruned.captures, pruned.capture_files.count, pruned.capture_files.size_bytes) == (1, 3, size_bytes)
    assert (pruned.is_complete, pruned.missing, pruned.unknown_files.count) == (True, 0, 0)
    assert list(Capture.objects.values_list("id", flat=True)) == [young.pk]
    assert set(Frame.objects.values_list("capture_id", flat=True)) == {young.pk}
    assert files(media) == all_files(young)
    assert sorted(path.name for path in media.glob("*/*")) == [str(young.pk)] * 2
    assert Stream.objects.count() == 2


def test_days_have_fractions_and_are_counted_from_the_end() -> None:
    capture = make_finished()
    Capture.objects.update(started_at=Now() - timedelta(days=400))
    end_ago(0.5, capture)
    assert prune(0.51).captures == 0
    assert prune(0.49).captures == 1


def test_without_a_limit_every_capture_stays(media: Path) -> None:
    capture = make_old(days=20_000)
    assert prune(0).captures == 0
    assert files(media) == all_files(capture)


def test_a_capture_in_progress_never_goes(media: Path) -> None:
    """Queued, recorded, stopping: however long it lasts."""
    make_capture(camera(1))
    recorded = make_capture(camera(2))
    record(recorded, frames=2)
    stopping = make_capture(camera(3))
    record(stopping, frames=2)
    services.stop(stopping.stream)
    long_ago = Now() - timedelta(days=900)
    Capture.objects.update(started_at=long_ago)
    Capture.objects.filter(stop_requested_at__isnull=False).update(stop_requested_at=long_ago)
    age_all(media)
    before = files(media)
    pruned = prune(0.001)
    assert (pruned.captures, pruned.unknown_files.count) == (0, 0)
    assert Capture.objects.count() == 3
    assert (files(media), len(before)) == (before, 4)


def test_each_batch_takes_a_handful_of_statements() -> None:
    """However many captures and frames there are in it."""

    def statements(captures: int) -> int:
        stream = Stream.objects.create(name="s", url=URL)
        then = datetime.now(UTC) - timedelta(days=9)
        rows = [Capture(stream=stream, finished_at=then, ending=Ending.STOPPED) for _ in range(captures)]
        Capture.objects.bulk_create(rows)
        numbers = {"score": 1.0, "captured_at": then, "width": 1, "height": 1}
        Frame.objects.bulk_create(
            Frame(capture=capture, number=1, image=f"frames/{capture.pk}/1-0123abcd.jpg", **numbers)
            for capture in Capture.objects.all()
        )
        with CaptureQueriesContext(connection) as found:
            assert prune().captures == captures
        stream.delete()
        return len(found)

    few, one_batch, two_batches = statements(3), statements(retention.BATCH), statements(2 * retention.BATCH)
    assert few == one_batch
    assert two_batches - one_batch <= 8  # BEGIN and COMMIT among them


def test_a_dry_run_says_the_same_and_removes_nothing(media: Path) -> None:
    for number in range(retention.BATCH // 50 + 2):
        make_old(number)
    put(media, "frames/99/1-0123abcd.jpg")
    make_host("gone", silent_s=200_000)
    before = (files(media), Capture.objects.count(), Host.objects.count())
    dry = prune(is_dry_run=True)
    assert (files(media), Capture.objects.count(), Host.objects.count()) == before
    wet = prune()
    assert (dry.captures, dry.capture_files, dry.unknown_files, dry.hosts) == (
        wet.captures,
        wet.capture_files,
        wet.unknown_files,
        wet.hosts,
    )
    assert (wet.captures, wet.unknown_files.count, wet.hosts) == (4, 1, 1)


def test_a_dry_run_looks_at_more_than_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    for number in range(5):
        make_old(number)
    assert prune(is_dry_run=True).captures == 5


# --- pages of what has gone -----------------------------------------------------------------------


def test_the_pages_of_a_capture_that_went_answer_404(client: Client, admin_client: Client) -> None:
    capture = make_old()
    frame = capture.frames.first()
    assert frame is not None
    urls = [f"/captures/{capture.pk}/", f"/captures/{capture.pk}/grid.jpg", f"/frames/{frame.pk}.jpg"]
    host = {"host": "cameras.example"}
    assert [admin_client.get(url, headers=host).status_code for url in urls] == [200, 200, 200]
    prune()
    assert [admin_client.get(url, headers=host).status_code for url in urls] == [404, 404, 404]
    assert client.get("/", headers={"accept": "text/html"}).status_code == 200
    assert stop(client, capture.stream.name).status_code == 404


def test_a_stream_whose_captures_went_starts_again(client: Client) -> None:
    capture = make_old()
    prune()
    answer = start(client, capture.stream.url, count=2)
    assert answer.status_code == 201
    assert f"process_name={capture.stream.name} " in answer.content.decode()


# --- files that no row knows ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["frames/99/1-0123abcd.jpg", "grids/99/0123abcd.jpg", "grids/99-0123abcd.jpg"])
def test_a_file_that_no_row_knows_goes_after_an_hour(media: Path, name: str) -> None:
    path = put(media, name, age_s=HOUR_S - 300)
    assert prune(0).unknown_files.count == 0
    assert path.exists()
    age(path, HOUR_S + 300)
    pruned = prune(0)
    assert (pruned.unknown_files.count, pruned.unknown_files.size_bytes) == (1, len(b"litter"))
    assert not path.exists()


def test_every_name_that_the_service_gives_is_known_for_its_own(media: Path) -> None:
    """What remains of rows that went without their files."""
    make_finished()
    age_all(media)
    Capture.objects.all().delete()
    assert len(files(media)) == 10
    assert prune(0).unknown_files.count == 10
    assert [path.name for path in media.rglob("*")] == ["frames", "grids"] or not list(media.rglob("[0-9]*"))


@pytest.mark.parametrize(
    "name",
    [
        "logo.jpg",
        "frames/readme.txt",
        "frames/1-0123abcd.jpg",
        "frames/99/notes.txt",
        "frames/99/1-0123abcd.png",
        "frames/99/1-0123ABCD.jpg",
        "frames/99/deeper/1-0123abcd.jpg",
        "frames/holiday/1-0123abcd.jpg",
        "frames/0/1-0123abcd.jpg",
        "frames/99999999999999999999/1-0123abcd.jpg",
        "frames/\u0664\u0662/1-0123abcd.jpg",
        "grids/poster.jpg",
        "grids/99/poster.jpg",
        "other/99/1-0123abcd.jpg",
    ],
)
def test_what_is_not_the_service_s_own_stays(media: Path, name: str) -> None:
    path = put(media, name)
    assert prune(0).unknown_files.count == 0
    assert path.exists()


def test_the_files_of_rows_stay_however_old_they_are(media: Path) -> None:
    done = make_finished(camera(1))
    running = make_capture(camera(2))
    record(running, frames=3)
    age_all(media)
    litter = [put(media, f"frames/{pk}/77-0123abcd.jpg") for pk in (done.pk, running.pk)]
    assert prune(0).unknown_files.count == 2
    assert not any(path.exists() for path in litter)
    assert files(media) == sorted(all_files(done) + frame_files(running))


def test_a_grid_of_the_first_versions_stays_with_its_row(media: Path) -> None:
    capture = make_finished()
    put(media, f"grids/{capture.pk}-0123abcd.jpg")
    put(media, f"grids/{capture.pk}-99999999.jpg")
    Capture.objects.update(grid=f"grids/{capture.pk}-0123abcd.jpg")
    pruned = prune(0)
    assert (pruned.unknown_files.count, pruned.missing) == (1, 0)
    assert (media / f"grids/{capture.pk}-0123abcd.jpg").exists()


def test_what_a_host_that_was_paused_is_about_to_save_stays(media: Path) -> None:
    """It wrote the file, stood still for two hours, and still has its claim: its next step is the row."""
    host = make_host()
    capture = make_capture()
    claim = make_claim(capture, host)
    path = put(media, f"frames/{capture.pk}/1-0123abcd.jpg")
    Host.objects.update(heartbeat_at=Now() - timedelta(hours=2), saved_at=Now() - timedelta(hours=2, minutes=1))
    assert prune(0).unknown_files.count == 0
    assert path.exists()
    Host.objects.update(heartbeat_at=Now(), saved_at=Now())
    assert claim.rows().exists()
    assert prune(0).unknown_files.count == 1


def test_a_grid_that_may_still_be_adopted_stays(media: Path) -> None:
    """Whoever made it was paused between file and row."""
    capture = make_capture()
    record(capture)
    services.stop(capture.stream)
    path = put(media, f"grids/{capture.pk}/0123abcd.jpg")
    assert prune(0).unknown_files.count == 0
    assert path.exists()


def test_the_files_of_another_database_stay(media: Path) -> None:
    """A new database and an old media folder, by a mistake in the settings: not all of it is litter."""
    path = put(media, "frames/99/1-0123abcd.jpg", age_s=1001 * 86_400)
    young = put(media, "frames/99/2-0123abcd.jpg", age_s=999 * 86_400)
    pruned = prune(0)
    assert (pruned.older_than_database, pruned.unknown_files.count) == (1, 1)
    assert (path.exists(), young.exists()) == (True, False)


def test_empty_folders_go_but_not_those_of_captures_in_progress(media: Path) -> None:
    running, done = make_capture(camera(1)), make_finished(camera(2))
    for name in (f"frames/{running.pk}", "frames/99", "grids/99"):
        (media / name).mkdir(parents=True)
    put(media, "frames/98/1-0123abcd.jpg")
    put(media, "frames/97/notes.txt")
    assert prune(0).folders == 3
    names = [str(path.relative_to(media)) for path in media.glob("*/*")]
    assert sorted(names) == sorted(
        [f"frames/{running.pk}", f"frames/{done.pk}", f"grids/{done.pk}", "frames/97"]
    )  # fmt: skip


def test_a_row_whose_file_is_missing_is_told_and_kept(media: Path) -> None:
    capture = make_finished()
    frame = capture.frames.order_by("number").first()
    assert frame is not None
    names = sorted([str(frame.image.name), str(capture.grid.name)])
    for name in names:
        (media / name).unlink()
    pruned = prune(0)
    assert (pruned.missing, sorted(pruned.missing_names)) == (2, names)
    assert capture.frames.count() == 9
    (media / "frames").rename(media / "gone")
    assert prune(0).missing == 10


def test_a_media_folder_that_is_not_there_costs_no_row(media: Path) -> None:
    make_finished()
    media.rename(media.with_name("unmounted"))
    pruned = prune(0)
    assert (pruned.missing, pruned.captures, len(pruned.missing_names)) == (10, 0, 10)


# --- what a storage may do ------------------------------------------------------------------------


class Stubborn(FileSystemStorage):
    """Fails as network stores do, with errors of its own, once told to."""

    refuses: set[str] = set()
    """Methods; "names": listings were made before there were files."""

    def delete(self, name: str) -> None:
        self._check("delete")
        super().delete(name)

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        self._check("listdir")
        folders, names = super().listdir(path)
        return folders, [] if "names" in self.refuses else names

    def _check(self, method: str) -> None:
        if method in self.refuses:
            raise LookupError("a secret address")


@pytest.fixture
def stubborn(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    refuses: set[str] = set()
    monkeypatch.setattr(Stubborn, "refuses", refuses)
    settings.STORAGES = settings.STORAGES | {"default": {"BACKEND": f"{__name__}.Stubborn"}}
    return refuses


def test_files_that_cannot_be_deleted_now_go_with_the_next_prune(media: Path, stubborn: set[str]) -> None:
    make_old(1)
    make_old(2)
    age_all(media)
    stubborn.add("delete")
    pruned = prune()
    assert (pruned.captures, pruned.capture_files.count, Capture.objects.count()) == (2, 0, 0)
    assert pruned.undeleted == 12  # by the rows that knew them, and once more as litter
    assert len([name for name in files(media) if "probe" not in name]) == 6
    stubborn.clear()
    assert prune().unknown_files.count == 6
    assert [name.partition("-")[0] for name in files(media)] == ["frames/probe"]
    age_all(media)
    assert prune().unknown_files.count == 1
    assert files(media) == []


def test_a_file_that_was_written_after_the_listing_is_not_missing(stubborn: set[str]) -> None:
    make_finished()
    stubborn.add("names")
    assert prune().missing == 0


def test_a_storage_that_cannot_be_listed_is_told(media: Path, stubborn: set[str]) -> None:
    make_finished()
    stubborn.add("listdir")
    with pytest.raises(OSError, match="LookupError of the storage") as caught:
        prune()
    assert "secret" not in str(caught.value)


# --- hosts and jobs -------------------------------------------------------------------------------


def test_hosts_that_are_silent_for_a_day_and_claim_nothing_go() -> None:
    make_host("alive")
    make_host("resting", silent_s=80_000)
    make_host("gone", silent_s=90_000)
    holder = make_host("holder")
    make_claim(make_capture(), holder)
    silence(holder, 90_000)
    assert prune(0).hosts == 1
    assert sorted(Host.objects.values_list("name", flat=True)) == ["alive", "holder", "resting"]


def test_the_history_of_a_host_that_went_stays() -> None:
    capture = make_finished()
    Host.objects.update(heartbeat_at=Now() - timedelta(days=2))
    assert prune(0).hosts == 1
    capture.refresh_from_db()
    assert capture.host_name == "north"


def test_a_host_that_comes_back_after_a_day_begins_anew() -> None:
    host = make_host(silent_s=90_000)
    assert prune(0).hosts == 1
    with pytest.raises(claims.HostTaken):
        claims.heartbeat(host)
    make_claim(make_capture(), claims.register("north", 3))


def test_failed_jobs_go_after_a_month_and_done_ones_stay() -> None:
    now = datetime.now(UTC)
    for name, is_success, days in [("young", False, 29), ("old", False, 31), ("done", True, 31)]:
        then = now - timedelta(days=days)
        Task.objects.create(id=name, name=name, func="f", started=then, stopped=then, success=is_success)
    assert prune(0, is_dry_run=True).failed_jobs == 1
    assert prune(0).failed_jobs == 1
    assert sorted(Task.objects.values_list("name", flat=True)) == ["done", "young"]


# --- the job --------------------------------------------------------------------------------------


class Watch:
    """A clock that moves on by so much with each look."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._now_s = 0.0

    def __call__(self) -> float:
        self._now_s += self._step_s
        return self._now_s


def test_a_run_ends_when_its_time_is_over_and_the_next_one_goes_on(
    media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    for number in range(6):
        make_old(number)
    litter = [put(media, f"frames/{pk}/1-0123abcd.jpg") for pk in (1001, 1002, 1003)]
    runs: list[Pruned] = []
    while not runs or not runs[-1].is_complete:
        age_all(media)
        after = runs[-1].swept_to if runs else 0
        runs.append(prune(limit_s=5.5, clock=Watch(1.0), after=after))
        assert len(runs) < 50
    assert len(runs) > 3
    assert sum(run.captures for run in runs) == 6
    assert not any(path.exists() for path in litter)
    assert files(media) == []


def test_a_run_without_any_time_still_gets_on(monkeypatch: pytest.MonkeyPatch, media: Path) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    for number in range(3):
        make_old(number)
    captures = [prune(limit_s=0).captures for _ in range(3)]
    assert captures[:2] == [2, 1]
    age_all(media)
    done = [make_finished(camera(number)) for number in range(10, 13)]
    first = prune(0, limit_s=0)
    assert (first.is_complete, first.swept_to < done[-1].pk) == (False, True)
    second = prune(0, limit_s=0, after=first.swept_to)
    assert second.swept_to > first.swept_to


def test_a_job_that_is_not_done_queues_the_next_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, media: Path
) -> None:
    settings.CAPTURE_KEEP_DAYS = 7.0
    monkeypatch.setattr(retention, "BATCH", 1)
    monkeypatch.setattr(retention, "JOB_S", 0.0)
    make_old(1)
    make_old(2)
    OrmQ.objects.all().delete()
    assert jobs.prune() == "1 captures and 0 files removed, more to do"
    assert queued() == [("streams.jobs.prune", (0,))]
    done = 1
    while OrmQ.objects.exists():
        job = OrmQ.objects.get()
        arguments = job.task["args"]
        job.delete()
        age_all(media)
        jobs.prune(*arguments)
        done += 1
        assert done < 20
    assert Capture.objects.count() == 0
    assert files(media) == []


def test_jobs_that_have_no_time_at_all_come_to_an_end(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.CAPTURE_KEEP_DAYS = 0.0
    monkeypatch.setattr(retention, "JOB_S", -1.0)
    make_finished()
    OrmQ.objects.all().delete()
    assert jobs.prune() == "0 captures and 0 files removed, more to do"
    [(_, (after,))] = queued()
    OrmQ.objects.all().delete()
    assert jobs.prune(after) == "0 captures and 0 files removed"
    assert queued() == []


def test_a_job_leaves_the_folders_of_captures_alone_that_ended_long_ago(media: Path, settings: Settings) -> None:
    """By hand everything is looked at."""
    settings.CAPTURE_KEEP_DAYS = 0.0
    long_ago, lately = make_finished(camera(1)), make_finished(camera(2))
    end_ago(retention.LATELY_DAYS + 1, long_ago)
    litter = [put(media, f"frames/{pk}/77-0123abcd.jpg") for pk in (long_ago.pk, lately.pk, 999)]
    jobs.prune()
    assert [path.exists() for path in litter] == [True, False, False]
    prune(0)
    assert not litter[0].exists()


# --- the schedule ---------------------------------------------------------------------------------


def the_schedule() -> Schedule:
    return Schedule.objects.get(name=retention.SCHEDULE)


def test_the_daily_job_is_scheduled_once() -> None:
    retention.keep_schedule()
    retention.keep_schedule()
    row = the_schedule()
    assert (row.func, row.schedule_type, row.repeats) == ("streams.jobs.prune", Schedule.DAILY, -1)
    assert timedelta() < row.next_run - datetime.now(UTC) <= timedelta(days=1)


def test_what_a_person_changed_of_the_schedule_stays() -> None:
    retention.keep_schedule()
    then = datetime.now(UTC) + timedelta(days=7, hours=23)
    Schedule.objects.update(next_run=then, schedule_type=Schedule.WEEKLY, repeats=0)
    retention.keep_schedule()
    row = the_schedule()
    assert (row.next_run, row.schedule_type, row.repeats) == (then, Schedule.WEEKLY, 0)


def test_a_broken_schedule_is_repaired() -> None:
    retention.keep_schedule()
    first = the_schedule()
    Schedule.objects.create(name=retention.SCHEDULE, func="streams.jobs.prune", schedule_type=Schedule.HOURLY)
    Schedule.objects.create(name="somebody's own", func="math.cos")
    Schedule.objects.filter(pk=first.pk).update(func="streams.gone.prune", next_run=None)
    retention.keep_schedule()
    row = the_schedule()
    assert (row.pk, row.func) == (first.pk, "streams.jobs.prune")
    assert row.next_run is not None
    assert Schedule.objects.filter(name="somebody's own").exists()


# --- many at a time -------------------------------------------------------------------------------


def test_prunes_that_run_at_once_share_the_work(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    for number in range(20):
        make_old(number)
    kept = make_finished(camera(99))
    for number in range(30):
        put(media, f"frames/{1000 + number}/1-0123abcd.jpg")
        put(media, f"grids/{1000 + number}/0123abcd.jpg")
    make_host("gone", silent_s=90_000)
    runs = at_once(4, prune)
    assert sum(run.captures for run in runs) == 20
    assert [run.undeleted + run.missing for run in runs] == [0] * 4
    assert files(media) == all_files(kept)
    assert list(Capture.objects.values_list("id", flat=True)) == [kept.pk]


def test_nothing_is_lost_to_a_prune_beside_all_that_happens_to_captures(
    media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started, recorded, checkpointed, evicted, stopped and finished, while two prunes go round and round, for which
    every file is old that is not of this moment."""
    monkeypatch.setattr(retention, "YOUNG_S", 0.05)  # a file's time is that of the kernel's last tick
    host = make_host(slots=100)
    is_over = threading.Event()
    faults: list[BaseException] = []

    def always(work: Callable[[], object]) -> None:
        try:
            while not is_over.is_set():
                work()
        except BaseException as error:
            faults.append(error)
        finally:
            connection.close()

    def prune_all() -> None:
        retention.prune(keep_days=1e-9)

    pruners = [threading.Thread(target=always, args=(prune_all,)) for _ in range(2)]
    for thread in pruners:
        thread.start()
    try:
        for turn in range(8):
            live(host, camera(turn))
    finally:
        is_over.set()
        for thread in pruners:
            thread.join(60)
    assert faults == []
    running = list(Capture.objects.filter(finished_at=None))
    assert len(running) == 8
    for capture in running:
        assert capture.frames.count() == 3
    retention.prune(keep_days=1e-9)
    assert files(media) == sorted(name for capture in running for name in frame_files(capture))


def live(host: Host, url: str) -> None:
    """One capture from its start to its end, and the next one up to its last checkpoint."""
    first = make_capture(url, count=3)
    save_often(host, first)
    assert first.frames.count() == 3
    services.stop(first.stream)
    claims.release_all(host)
    assert services.finish(first.pk)
    save_often(host, make_capture(url, count=3))
    claims.release_all(host)


def save_often(host: Host, capture: Capture) -> None:
    claim = make_claim(capture, host)
    kept: list[tuple[int, float]] = []
    for number in range(1, 7):
        picture = make_picture(number, score=100.0 + number)
        kept = kept[-2:]
        claims.heartbeat(host)  # all that was told before is saved
        services.checkpoint(claim, services.Totals(), make_report(picture, kept=tuple(kept)))
        kept.append((number, 100.0 + number))
        for frame in capture.frames.all():
            with frame.image.open() as file:
                assert file.read() == make_jpeg(round(frame.score))


def test_the_page_of_stop_is_no_500_when_the_capture_goes_at_once(client: Client) -> None:
    """A limit of seconds: it goes while the page is made."""
    capture = make_capture(URL)
    record(capture)
    services.stop(capture.stream)
    assert services.finish(capture.pk)
    is_over = threading.Event()

    def prune_until_over() -> None:
        try:
            while not is_over.is_set():
                retention.prune(keep_days=1e-9)
        finally:
            connection.close()

    thread = threading.Thread(target=prune_until_over)
    thread.start()
    try:
        answers = [stop(client).status_code for _ in range(10)]
    finally:
        is_over.set()
        thread.join(60)
    assert set(answers) <= {200, 404, 409}
    assert stop(client).status_code == 404
