"""The service seen from outside: who does what, and which samples were due."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from bench.feed import acknowledged_bytes
from bench.service import CAPTURING, Progress, Tally, role_of, seconds_of, tally


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["python", "-c", "from multiprocessing.forkserver import main; main(5, 6)"], "recorders"),
        (["python", "-c", "from multiprocessing.resource_tracker import main; main(5)"], "supervisor"),
        (["python", "manage.py", "supervise"], "supervisor"),
        (["python", "manage.py", "jobs"], "jobs"),
        (["python", "-m", "gunicorn", "rtspsite.wsgi"], "web"),
        (["bash", "/a/checkout/scripts/serve.sh"], "script"),
        (["something", "new"], "supervisor"),
    ],
)
def test_each_process_has_a_role(command: list[str], role: str) -> None:
    assert role_of(command) == role


def test_the_web_server_is_not_part_of_capturing() -> None:
    assert set(CAPTURING) == {"recorders", "supervisor", "jobs"}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock shows another time than UTC."""
    with monkeypatch.context() as change:
        change.setenv("TZ", "XYZ-5:45")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("elsewhere")
def test_a_stored_moment_is_utc() -> None:
    moment = datetime(2026, 3, 29, 2, 30, 0, 250_000, tzinfo=UTC)
    assert seconds_of("2026-03-29 02:30:00.250000") == moment.timestamp()


def progress(samples: int, last_sample_at: float, read_at: float | None = None, missed: int = 0) -> Progress:
    return Progress(samples, missed, last_sample_at, last_sample_at if read_at is None else read_at)


def test_a_capture_that_keeps_up_has_taken_what_was_due() -> None:
    # Samples come up to one key frame interval late, and are reported up to one checkpoint later.
    late, punctual = {1: progress(5, 102.0)}, {1: progress(11, 160.1, read_at=162.0)}
    assert tally(late, punctual, interval_s=10, gop_s=2) == Tally(6, 6, 0)
    punctual, late = {1: progress(5, 100.1)}, {1: progress(11, 162.0, read_at=164.0)}
    assert tally(punctual, late, interval_s=10, gop_s=2) == Tally(6, 6, 0)


def test_samples_that_were_left_out_were_due_all_the_same() -> None:
    before, after = {1: progress(5, 100.0)}, {1: progress(9, 160.0, missed=2)}
    found = tally(before, after, interval_s=10, gop_s=2)
    assert found == Tally(6, 4, 2)
    assert found.missed_share == pytest.approx(1 / 3)


def test_a_capture_that_stalls_is_behind_by_more_with_each_interval() -> None:
    before = {1: progress(5, 100.0)}
    stalled = {1: progress(6, 110.0, read_at=160.0)}
    assert tally(before, stalled, interval_s=10, gop_s=2).due == 5


def test_a_capture_between_two_samples_is_not_behind() -> None:
    waiting = {1: progress(6, 110.0, read_at=124.4)}
    assert tally({1: progress(5, 100.0)}, waiting, interval_s=10, gop_s=2) == Tally(1, 1, 0)


def test_captures_that_began_or_ended_meanwhile_do_not_count() -> None:
    before = {1: progress(5, 100.0), 2: progress(1, 100.0)}
    after = {1: progress(6, 110.0), 3: progress(9, 110.0)}
    assert tally(before, after, interval_s=10, gop_s=2) == Tally(1, 1, 0)


def test_where_nothing_was_due_nothing_was_missed() -> None:
    assert Tally(0, 0, 0).missed_share == 0.0
    assert Tally(10, 11, 0).missed_share == 0.0


def test_it_is_known_what_each_client_got() -> None:
    told = (
        "0 0 127.0.0.1:8554 127.0.0.1:4000\n\t cubic bytes_sent:990 bytes_acked:900 segs_out:5\n"
        "0 0 127.0.0.1:8554 127.0.0.1:4001\n\t cubic bytes_sent:90\n"
    )
    assert acknowledged_bytes(told) == {"127.0.0.1:4000": 900, "127.0.0.1:4001": 0}
