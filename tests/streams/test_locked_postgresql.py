"""What another session's lock does to claims, jobs and sessions. Collected with TEST_DATABASE=postgresql alone."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import psycopg
import pytest
from django.db import OperationalError, connection
from django.db.models.functions import Now
from django_q.models import OrmQ, Schedule
from django_q.scheduler import scheduler

from streams import claims, database, database_faults, jobs, locks, retention, services
from streams.models import Capture, Host, Stream
from tests.streams.builders import make_capture, make_claim, make_host, make_witness, silence


@contextmanager
def held(statement: bytes) -> Iterator[None]:
    """Another session that holds what this statement locks."""
    with psycopg.connect(**connection.get_connection_params()) as session:
        session.execute(statement)
        yield
        session.rollback()


@pytest.fixture
def impatient() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '50ms'")
    yield
    connection.close()


@pytest.mark.django_db(transaction=True)
def test_what_another_session_holds_is_claimed_later_and_not_waited_for(impatient: None) -> None:
    first, second = make_capture("rtsp://10.0.0.1/a"), make_capture("rtsp://10.0.0.1/b")
    host = make_host(slots=2)
    free = [claims.Candidate(first.pk, 0), claims.Candidate(second.pk, 0)]
    with held(b"SELECT 1 FROM streams_capture ORDER BY id LIMIT 1 FOR UPDATE"):
        assert claims.claim(host, free) == [second.pk]
    assert claims.claim(host, free) == [first.pk]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("table", [b"streams_capture", b"streams_stream"])
def test_a_host_leaves_and_registers_past_a_locked_row(impatient: None, table: bytes) -> None:
    captures = [make_capture(f"rtsp://10.0.0.1/{name}") for name in "ab"]
    host = make_host()
    for capture in captures:
        make_claim(capture, host)
    with held(b"SELECT 1 FROM %s ORDER BY id LIMIT 1 FOR UPDATE" % table):
        claims.retire(host)
        assert Capture.objects.filter(claimed_by=host).count() == (table == b"streams_capture")
        host = claims.register(host.name, 8)
    left = claims.Claim(captures[0].pk, host.pk, 1)
    if table == b"streams_capture":
        assert claims.renew(left).epoch == 2
    assert not left.rows().exists()


@pytest.mark.django_db(transaction=True)
def test_a_host_whose_row_is_locked_is_not_taken_for_dead(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot write its heartbeat."""
    capture, host, other = make_capture(), make_host(), make_witness()
    make_claim(capture, host)
    silence(host, claims.CLAIM_S + 1)
    Host.objects.filter(pk=other.pk).update(slots=1)
    with held(b"SELECT 1 FROM streams_host WHERE name = 'north' FOR UPDATE"):
        claims.expire([capture.pk])
        assert claims.claim(other, [claims.Candidate(capture.pk, 1)]) == []
    assert Capture.objects.get().claimed_by == host
    now_s = time.monotonic()
    monkeypatch.setitem(claims._locked_hosts, host.pk, (now_s - 20.0, now_s))
    assert claims.claim(other, [claims.Candidate(capture.pk, 1)]) == []  # its heartbeat comes in a moment
    monkeypatch.setitem(claims._locked_hosts, host.pk, (now_s - 20.0, now_s - claims.RECOVERS_S))
    assert claims.claim(other, [claims.Candidate(capture.pk, 1)]) == [capture.pk]


@pytest.mark.django_db(transaction=True)
def test_a_job_that_waits_too_long_for_a_lock_leaves_the_work_to_the_tick(
    impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    capture = make_capture()
    make_host("test-host")
    with held(b"SELECT 1 FROM streams_host FOR UPDATE"):
        assert "left to the supervisor" in jobs.place(capture.pk)
    services.stop(capture.stream)
    with held(b"SELECT 1 FROM streams_capture FOR UPDATE"):
        assert "left to the supervisor" in jobs.finish(capture.pk)
    assert "Traceback" not in caplog.text
    assert "finished" in jobs.finish(capture.pk)


@pytest.mark.django_db(transaction=True)
def test_a_prune_that_meets_a_lock_is_tried_again_in_a_minute(
    impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, however often it meets it; the daily one stays as it is."""
    retention.keep_schedule()
    daily = Schedule.objects.values().get()
    with held(b"LOCK TABLE django_session"):
        for after in (0, 7):
            assert jobs.prune(after) == f"put off: {database_faults.BUSY.words}"
    assert Schedule.objects.values().get(pk=daily["id"]) == daily
    (again,) = Schedule.objects.exclude(pk=daily["id"])
    assert (again.func, again.args, again.schedule_type) == ("streams.jobs.prune", "(7,)", Schedule.ONCE)
    assert 50.0 < (again.next_run - database.exact_now()).total_seconds() <= retention.PUT_OFF_S
    assert caplog.messages.count("prune put off again_s=60 error=database_busy") == 2
    Schedule.objects.filter(pk=again.pk).update(next_run=Now() - timedelta(seconds=1))
    scheduler()
    assert [task["func"] for task in (job.task for job in OrmQ.objects.all())] == ["streams.jobs.prune"]
    assert Schedule.objects.get().pk == daily["id"]
    assert jobs.prune(7) == "0 captures and 0 files removed"


@pytest.mark.django_db(transaction=True)
def test_an_error_says_whether_a_row_or_a_table_is_locked_and_by_whom(impatient: None) -> None:
    make_capture()
    with held(b"SELECT 1 FROM streams_stream FOR UPDATE"):
        with pytest.raises(OperationalError) as row:
            Stream.objects.update(attempt=1)
        assert locks.lock_in(row.value) == locks.Locked("streams_stream", is_row=True)
        assert "table=streams_stream session=" in str(locks.row_holder(connection, "streams_stream"))
    with held(b"LOCK TABLE streams_stream"):
        with pytest.raises(OperationalError) as table:
            Stream.objects.count()
        assert locks.lock_in(table.value) == locks.Locked()
        assert "table=streams_stream session=" in str(locks.locked_tables(connection))
    with pytest.raises(OperationalError) as other, connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = '1ms'; SELECT pg_sleep(1)")
    assert locks.lock_in(other.value) is None


@pytest.mark.django_db(transaction=True)
def test_a_session_waits_three_seconds_for_a_lock_unless_its_url_says_otherwise() -> None:
    def limit() -> str:
        connection.close()
        with connection.cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            return str(cursor.fetchone()[0])

    before = dict(connection.settings_dict)
    try:
        assert limit() == "3s"
        connection.settings_dict["OPTIONS"] = {**before["OPTIONS"], "options": "-c search_path=public"}
        assert limit() == "3s"
        connection.settings_dict["OPTIONS"] = {**before["OPTIONS"], "options": "-c lock_timeout=7s"}
        assert limit() == "7s"
        locks.wait_at_most(connection, locks.SUPERVISOR_WAIT_S)
        assert limit() == "250ms"
    finally:
        connection.settings_dict.clear()
        connection.settings_dict.update(before)
        connection.close()
