"""The jobs on real rows: run twice, at once, late or for nothing, they leave the same."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.storage import FileSystemStorage
from django.db import OperationalError
from django_q.models import Schedule

from streams import database, jobs, retention, services
from streams.models import Capture, Host, Stream
from tests.streams.builders import (
    all_files,
    at_once,
    files,
    frames_of,
    make_capture,
    make_claim,
    make_finished,
    make_host,
    record,
)

pytestmark = pytest.mark.django_db(transaction=True)

NOBODY = 4711


@pytest.fixture
def here() -> Host:
    """The host that the jobs run on."""
    return make_host(settings.CAPTURE_HOST_NAME, slots=2)


def state(capture: Capture) -> tuple[object, ...]:
    """All that jobs may change."""
    row = Capture.objects.values_list("claimed_by", "epoch", "stop_requested_at", "finished_at", "ending", "grid")
    stream = Stream.objects.values_list("status", "error_code")
    return row.get(pk=capture.pk), stream.get(pk=capture.stream_id)


# --- place ------------------------------------------------------------------------------------------


def test_place_twice_claims_once(here: Host) -> None:
    capture = make_capture()
    assert jobs.place(capture.pk) == f"capture {capture.pk} placed here"
    placed = state(capture)
    assert jobs.place(capture.pk) == f"capture {capture.pk} not placed here"
    assert state(capture) == placed
    capture.refresh_from_db()
    assert (capture.claimed_by, capture.epoch) == (here, 1)


def test_place_many_at_once_claims_once(here: Host) -> None:
    capture = make_capture()
    told = at_once(6, lambda: jobs.place(capture.pk))
    assert sorted(told) == sorted(
        [f"capture {capture.pk} placed here", *[f"capture {capture.pk} not placed here"] * 5]
    )
    capture.refresh_from_db()
    assert (capture.claimed_by, capture.epoch) == (here, 1)


def test_place_takes_nothing_from_another_host(here: Host) -> None:
    capture = make_capture()
    make_claim(capture, make_host("south"))
    claimed = state(capture)
    assert jobs.place(capture.pk) == f"capture {capture.pk} not placed here"
    assert state(capture) == claimed


def test_place_leaves_what_no_slot_is_free_for(here: Host) -> None:
    captures = [make_capture(f"rtsp://camera.example/{n}") for n in range(3)]
    told = [jobs.place(capture.pk) for capture in captures]
    assert [" not " in words for words in told] == [False, False, True]
    assert Capture.objects.filter(claimed_by=None).get() == captures[2]


def test_place_after_a_stop_changes_nothing(here: Host) -> None:
    capture = make_capture()
    services.stop(capture.stream)
    stopped = state(capture)
    assert jobs.place(capture.pk) == f"capture {capture.pk} not placed here"
    assert state(capture) == stopped


def test_place_after_the_end_changes_nothing(here: Host, media: Path) -> None:
    capture = make_finished()
    finished, kept = state(capture), files(media)
    assert jobs.place(capture.pk) == f"capture {capture.pk} not placed here"
    assert (state(capture), files(media)) == (finished, kept)


def test_place_after_the_end_does_not_touch_the_next_capture(here: Host) -> None:
    """A job that comes late is about its own capture, though the stream runs again."""
    capture = make_finished()
    again = services.start_again(capture.stream).capture
    jobs.place(capture.pk)
    jobs.finish(capture.pk)
    again.refresh_from_db()
    assert (again.claimed_by, again.epoch, again.finished_at) == (None, 0, None)


def test_place_on_a_host_without_a_supervisor_claims_nothing() -> None:
    capture = make_capture()
    assert jobs.place(capture.pk) == f"capture {capture.pk} not placed here"
    make_host(settings.CAPTURE_HOST_NAME, silent_s=60)
    assert jobs.place(capture.pk) == f"capture {capture.pk} not placed here"
    capture.refresh_from_db()
    assert (capture.claimed_by, capture.epoch) == (None, 0)


# --- finish -----------------------------------------------------------------------------------------


def stopped_capture(*, frames: int = 9) -> Capture:
    """Recorded, handed over and stopped."""
    capture = make_capture()
    record(capture, frames=frames)
    services.stop(capture.stream)
    return capture


def test_finish_twice_makes_one_grid(media: Path) -> None:
    capture = stopped_capture()
    assert jobs.finish(capture.pk) == f"capture {capture.pk} finished"
    finished, kept = state(capture), files(media)
    assert jobs.finish(capture.pk) == f"capture {capture.pk} not ready to be finished"
    assert (state(capture), files(media)) == (finished, kept)


def test_finish_many_at_once_leaves_one_grid(media: Path) -> None:
    capture = stopped_capture()
    told = at_once(6, lambda: jobs.finish(capture.pk))
    assert told.count(f"capture {capture.pk} finished") == 1
    capture.refresh_from_db()
    assert capture.is_finished
    assert len(frames_of(capture)) == 9
    assert files(media) == all_files(capture)


def test_finish_before_the_stop_changes_nothing(media: Path) -> None:
    capture = make_capture()
    record(capture)
    running, kept = state(capture), files(media)
    assert jobs.finish(capture.pk) == f"capture {capture.pk} not ready to be finished"
    assert (state(capture), files(media)) == (running, kept)


def test_finish_while_a_host_records_changes_nothing(here: Host) -> None:
    capture = make_capture()
    make_claim(capture, here)
    services.stop(capture.stream)
    stopping = state(capture)
    assert jobs.finish(capture.pk) == f"capture {capture.pk} not ready to be finished"
    assert state(capture) == stopping


def test_finish_without_a_frame_ends_the_capture_without_a_grid(media: Path) -> None:
    capture = stopped_capture(frames=0)
    assert jobs.finish(capture.pk) == f"capture {capture.pk} finished"
    capture.refresh_from_db()
    assert (capture.is_finished, capture.grid.name, files(media)) == (True, "", [])


def test_finish_says_what_storage_is_away_and_can_be_done_again(
    media: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    capture = stopped_capture()
    kept = files(media)
    with monkeypatch.context() as patch:
        patch.setattr(FileSystemStorage, "_save", _refuse)
        assert jobs.finish(capture.pk) == f"capture {capture.pk} not finished: No space left on device"
    assert (caplog.messages.count(f"capture={capture.pk} grid failed error=No space left on device"), kept) == (
        1,
        files(media),
    )
    assert jobs.finish(capture.pk) == f"capture {capture.pk} finished"


def _refuse(*_: object) -> str:
    raise OSError(28, "No space left on device")


# --- prune ------------------------------------------------------------------------------------------


def test_a_prune_is_put_off_by_a_database_that_is_away_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is also not there yet when it is asked for the first time to note this."""
    failing = iter([OperationalError("away")] * 2)

    def fail_twice(*_: object, **__: object) -> datetime:
        for error in failing:
            raise error
        return datetime.now(UTC)

    with monkeypatch.context() as patch:
        patch.setattr(retention, "_PUT_OFF_PAUSE_S", 0.0)
        patch.setattr(retention, "_born_at", fail_twice)
        patch.setattr(database, "exact_now", fail_twice)
        assert jobs.prune(3).startswith("put off: The database is away")
    assert Schedule.objects.get(name="prune again").args == "(3,)"
    assert jobs.prune(3) == "0 captures and 0 files removed"


# --- either -----------------------------------------------------------------------------------------


def test_jobs_of_captures_that_do_not_exist_do_nothing(here: Host) -> None:
    assert jobs.place(NOBODY) == f"capture {NOBODY} not placed here"
    assert jobs.finish(NOBODY) == f"capture {NOBODY} not ready to be finished"


def test_jobs_of_a_stream_that_was_deleted_do_nothing(here: Host) -> None:
    capture = make_finished()
    capture.stream.delete()
    assert jobs.place(capture.pk) == f"capture {capture.pk} not placed here"
    assert jobs.finish(capture.pk) == f"capture {capture.pk} not ready to be finished"
