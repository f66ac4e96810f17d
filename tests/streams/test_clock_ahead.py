"""What a clock that was ahead has left behind, and processes whose clock is ahead (libfaketime)."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from axes.models import AccessAttempt
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.utils import timezone
from django_q.models import OrmQ, Schedule

from streams import retention
from streams.broker import Orm
from streams.retention import prune
from tests import faketime
from tests.e2e.prepared import prepared_database
from tests.servers import PostgreSQL
from tests.streams.builders import make_capture
from tests.streams.processes import ROOT, environment

NEVER = datetime(2000, 1, 1, tzinfo=UTC)
DAY, YEARS = timedelta(days=1), timedelta(days=3650)


def the_schedule() -> Schedule:
    return Schedule.objects.get(name=retention.SCHEDULE)


# --- the schedule ---------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("kind", "ahead", "stays"),
    [
        (Schedule.DAILY, timedelta(hours=47), True),
        (Schedule.DAILY, timedelta(hours=49), False),
        (Schedule.DAILY, YEARS, False),
        (Schedule.HOURLY, YEARS, False),
        (Schedule.MINUTES, YEARS, False),
        (Schedule.WEEKLY, timedelta(days=7), True),
        (Schedule.WEEKLY, timedelta(days=9), False),
        (Schedule.MONTHLY, timedelta(days=27), True),
        (Schedule.MONTHLY, timedelta(days=40), False),
        (Schedule.YEARLY, timedelta(days=360), True),
        (Schedule.YEARLY, YEARS, False),
        (Schedule.ONCE, YEARS, True),
    ],
)
def test_a_schedule_that_is_further_away_than_its_period_is_put_right(
    kind: str, ahead: timedelta, stays: bool, caplog: pytest.LogCaptureFixture
) -> None:
    retention.keep_schedule()
    then = timezone.now().replace(microsecond=0) + ahead
    Schedule.objects.update(schedule_type=kind, next_run=then)
    retention.keep_schedule()
    row = the_schedule()
    assert row.schedule_type == kind
    if stays:
        assert row.next_run == then
        return
    left = row.next_run - timezone.now()
    assert timedelta() <= left <= timedelta(days=7) + timedelta(minutes=1)
    assert (row.next_run.hour, row.next_run.minute) == (then.hour, then.minute)
    if kind == Schedule.WEEKLY:
        assert row.next_run.weekday() == then.weekday()


@pytest.mark.django_db(transaction=True)
def test_a_schedule_of_2036_is_put_right_at_the_start_and_named(caplog: pytest.LogCaptureFixture) -> None:
    retention.keep_schedule()
    Schedule.objects.update(next_run=timezone.now() + YEARS)
    call_command("prepare")
    assert timedelta() <= the_schedule().next_run - timezone.now() <= DAY
    assert [bool(re.match("schedule=prune next_run=.* put right", said)) for said in caplog.messages] == [True]


# --- other rows -----------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_jobs_that_were_queued_or_taken_in_the_future_are_free_again() -> None:
    make_capture()
    OrmQ.objects.update(lock=timezone.now() + YEARS)
    taken = OrmQ.objects.create(key="rtspsite", payload="x", lock=timezone.now() + timedelta(seconds=290))
    broker = Orm(list_key="rtspsite")
    assert broker.dequeue() is None
    call_command("prepare")
    assert [pk for pk, _ in broker.dequeue()] == [OrmQ.objects.exclude(pk=taken.pk).get().pk]
    taken.refresh_from_db()
    assert taken.lock - timezone.now() > timedelta(seconds=200)  # somebody works on it


@pytest.mark.django_db
def test_sessions_and_failed_sign_ins_of_the_future_go() -> None:
    for number, ahead in enumerate((timedelta(hours=1), YEARS)):
        moment = timezone.now() + ahead
        address = {"ip_address": f"10.0.0.{number}", "failures_since_start": 5}
        row = AccessAttempt.objects.create(username="keeper", user_agent="x", **address)
        AccessAttempt.objects.filter(pk=row.pk).update(attempt_time=moment)
        # A session of today ends in two weeks.
        Session.objects.create(session_key=str(number), session_data="x", expire_date=moment + timedelta(days=14))
    assert prune(keep_days=0).sign_ins == 2
    assert AccessAttempt.objects.get().ip_address == "10.0.0.0"
    assert Session.objects.get().session_key == "0"


# --- clocks that differ ---------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_queue_goes_by_the_database_s_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The website's clock is an hour ahead, then an hour behind."""
    broker = Orm(list_key="rtspsite")
    for ahead in (timedelta(hours=1), timedelta(hours=-1)):
        now = timezone.now() + ahead
        monkeypatch.setattr("django.utils.timezone.now", lambda now=now: now)
        pk = broker.enqueue("a job")
        assert broker.queue_size() == 1
        assert broker.dequeue() == [(pk, "a job")]
        assert broker.queue_size() == 0
        broker.acknowledge(pk)
        monkeypatch.undo()


@pytest.mark.django_db
@pytest.mark.parametrize("ahead", [-7200.0, 0.0, 7200.0])
def test_a_file_of_this_moment_stays_whatever_the_storage_s_clock_says(
    media: Path, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    monkeypatch.setattr(retention, "_born_at", lambda: NEVER)
    monkeypatch.setattr(
        "django.core.files.storage.FileSystemStorage.get_modified_time",
        lambda storage, name: _modified(Path(storage.path(name))) + timedelta(seconds=ahead),
    )
    file = media / "frames/7/1-0123abcd.jpg"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    prune(keep_days=0)
    assert file.exists()
    old = timezone.now().timestamp() - 3700
    os.utime(file, (old, old))
    prune(keep_days=0)
    assert not file.exists()


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


# --- a process whose clock is ahead -----------------------------------------------------------------


HERE = """
import json, os, sys, time
import django; django.setup()
from datetime import timedelta
from pathlib import Path
from django.db.models.functions import Now
from streams import database, retention, services
from streams.claims import Candidate, Claim
from streams.models import Capture, Stream
from streams.engine.report import Counters
from streams.engine import composer
from tests.streams.builders import compose_here, make_capture, make_claim, make_picture, make_report
composer.compose = compose_here  # libfaketime takes no wait until a moment of the monotonic clock
media = Path(os.environ["MEDIA_ROOT"])
said = {"ahead_s": time.time() - database.exact_now().timestamp()}
capture = make_capture()
claim = make_claim(capture)
sampled = Counters(samples=2, connections=1, last_sample_at=time.time())
services.checkpoint(claim, services.Totals(), make_report(make_picture(1), make_picture(2), counters=sampled))
services.stop(capture.stream)
services.hand_over(claim)
picture = media / str(capture.frames.first().image.name)
aside = picture.rename(picture.with_suffix(".aside"))
try:
    said["given up"] = services.finish(capture.pk)
except OSError as error:
    said["given up"] = str(error.strerror)
aside.rename(picture)
said["finished"] = services.finish(capture.pk)
fresh = media / "frames/9999/1-0123abcd.jpg"
fresh.parent.mkdir(parents=True)
fresh.write_bytes(b"x")
retention._born_at = lambda: retention._NEVER
retention.prune(keep_days=0)
said["a fresh file stays"] = fresh.exists()
now, capture = database.exact_now(), Capture.objects.get()
times = (capture.started_at, capture.last_sample_at, capture.finished_at, capture.stream.status_at)
said["ages"] = max(abs((now - moment).total_seconds()) for moment in times)
print(json.dumps(said))
"""


@pytest.mark.parametrize("seconds", [660.0, 7200.0, -7200.0])
def test_a_process_whose_clock_is_wrong_gives_up_and_deletes_nothing_early(
    tmp_path: Path, postgresql: PostgreSQL, seconds: float
) -> None:
    """With PostgreSQL, whose clock is right."""
    database = prepared_database(postgresql)
    try:
        done = subprocess.run(
            [sys.executable, "-c", HERE], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
            env={
                **environment(tmp_path, DATABASE_URL=database.url, **faketime.ahead(seconds)),
                "DJANGO_SETTINGS_MODULE": "rtspsite.settings",
            },
        )  # fmt: skip
    finally:
        database.drop()
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said.pop("ahead_s") == pytest.approx(seconds, abs=5)
    assert said.pop("ages") < 60
    assert said == {"given up": "No such file or directory", "finished": True, "a fresh file stays": True}
