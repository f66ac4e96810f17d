"""The writes: what a checkpoint saves, what a finish makes, and what is left when either goes wrong."""

import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage
from django.db import OperationalError, connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from streams import claims, queries, services
from streams.claims import Candidate, Claim, ClaimLost
from streams.engine import sheet
from streams.engine.address import parse
from streams.engine.notices import Notice
from streams.engine.report import Counters, State, Status
from streams.models import Capture, Frame, Host, Stream, Timeline
from streams.services import Totals
from tests.engine.builders import a_timeline
from tests.streams.builders import (
    NOON,
    SECRET,
    URL_WITH_SECRET,
    all_files,
    at_once,
    files,
    frame_files,
    frames_of,
    make_capture,
    make_claim,
    make_finished,
    make_host,
    make_picture,
    make_report,
    make_wish,
    make_witness,
    record,
    silence,
)

pytestmark = pytest.mark.django_db


class FullDisk(FileSystemStorage):
    """Has room for `room` files more, then for a few bytes of one."""

    def __init__(self, room: int, **options: Any) -> None:
        super().__init__(**options)
        self._room = room

    def _save(self, name: str, content: "File[bytes]") -> str:
        if self._room <= 0:
            Path(self.path(name)).parent.mkdir(parents=True, exist_ok=True)
            Path(self.path(name)).write_bytes(content.read(10))
            raise OSError(28, "No space left on device")
        self._room -= 1
        return str(super()._save(name, content))  # type: ignore[misc]


@pytest.fixture
def fill_disk(monkeypatch: pytest.MonkeyPatch, media: Path) -> Callable[..., None]:
    def fill(room: int = 0) -> None:
        disk = FullDisk(room, location=media)
        for field in (Frame._meta.get_field("image"), Capture._meta.get_field("grid")):
            monkeypatch.setattr(field, "storage", disk)

    return fill


def steal(capture_id: int) -> None:
    """Another host claims the capture."""
    Capture.objects.filter(pk=capture_id).update(epoch=F("epoch") + 1)


# --- checkpoint -----------------------------------------------------------------------------------


def test_a_checkpoint_saves_files_rows_and_counters(media: Path) -> None:
    capture = make_capture()
    claim = make_claim(capture)
    counters = Counters(samples=12, missed=3, rejected=4, connections=2, last_sample_at=NOON + 12)
    report = make_report(make_picture(5, score=7.5), make_picture(12, score=9.25), counters=counters)
    assert services.checkpoint(claim, Totals(), report) == {5, 12}
    assert frames_of(capture) == [(12, 9.25), (5, 7.5)]
    assert files(media) == frame_files(capture)
    assert len(files(media)) == 2
    frame = capture.frames.get(number=12)
    assert frame.image.read() == report.fresh[1].jpeg
    assert (frame.width, frame.height, frame.captured_at.timestamp()) == (32, 24, NOON + 12)
    capture.refresh_from_db()
    assert (capture.samples, capture.missed, capture.rejected, capture.connections) == (12, 3, 4, 2)
    assert capture.last_sample_at is not None
    assert capture.last_sample_at.timestamp() == NOON + 12


def test_counters_are_those_of_earlier_recorders_and_this_ones() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    base = Totals(samples=100, missed=10, rejected=20, connections=5)
    for samples in (1, 7, 7):
        counters = Counters(samples=samples, missed=1, rejected=2, connections=1)
        services.checkpoint(claim, base, make_report(counters=counters))
    capture.refresh_from_db()
    assert Totals.of(capture) == Totals(samples=107, missed=11, rejected=22, repeated=0, connections=6)


def test_a_report_without_a_sample_keeps_the_time_of_the_last_one() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    services.checkpoint(claim, Totals(), make_report(counters=Counters(samples=1, last_sample_at=NOON)))
    services.checkpoint(claim, Totals(1), make_report(counters=Counters(connections=1)))
    capture.refresh_from_db()
    assert capture.last_sample_at is not None
    assert capture.last_sample_at.timestamp() == NOON


def test_a_timeline_is_saved_replaced_and_given_to_the_next_recorder() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    first, second = a_timeline([1.0]), a_timeline([1.0, 2.0])
    services.checkpoint(claim, Totals(), replace(make_report(make_picture(1)), timeline=first))
    assert queries.saved_timeline(queries.capture_to_record(capture.pk)) == first
    known = make_report().status
    services.checkpoint(claim, Totals(), replace(make_report(kept=((1, 100.0),)), timeline=second), known)
    services.checkpoint(claim, Totals(), make_report(kept=((1, 100.0),)), known)
    assert queries.saved_timeline(queries.capture_to_record(capture.pk)) == second
    timeline = queries.timeline_of(capture)
    assert timeline is not None
    assert timeline.samples == 2


def test_a_capture_without_a_timeline_or_with_a_broken_one_has_none() -> None:
    capture = make_capture()
    assert queries.saved_timeline(queries.capture_to_record(capture.pk)) == ""
    assert queries.timeline_of(capture) is None
    Timeline.objects.create(capture=capture, data="{")
    assert queries.timeline_of(capture) is None


@pytest.mark.parametrize("times", [0, 1])
def test_who_lost_the_claim_saves_no_timeline(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the first one nor a later one, also if it is lost between the counters and the timeline."""
    capture = make_capture()
    claim = make_claim(capture)
    first = replace(make_report(), timeline=a_timeline([1.0]))
    for _ in range(times):
        services.checkpoint(claim, Totals(), first)
    steal(capture.pk)
    second = replace(make_report(), timeline=a_timeline([1.0, 2.0]))
    with pytest.raises(ClaimLost):
        services.checkpoint(claim, Totals(), second, second.status)
    monkeypatch.setattr(services, "_save_counters", lambda *_: None)
    with pytest.raises(ClaimLost):
        services.checkpoint(claim, Totals(), second, second.status)
    found = queries.timeline_of(capture)
    assert (found.samples if found else 0) == times


def test_a_timeline_costs_one_statement_more_and_no_transaction() -> None:
    claim = make_claim(make_capture())
    report = replace(make_report(), timeline=a_timeline())
    services.checkpoint(claim, Totals(), report, report.status)
    with CaptureQueriesContext(connection) as seen:
        services.checkpoint(claim, Totals(), report, report.status)
    assert len(seen) == 2


UDP, NOTHING = '{"transport":"udp"}', ""


def test_what_was_learned_about_a_camera_is_saved_when_it_changes() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    report = replace(make_report(), quirks=UDP)
    services.checkpoint(claim, Totals(), report, report.status)
    assert Stream.objects.get().quirks == UDP
    with CaptureQueriesContext(connection) as seen:
        services.checkpoint(claim, Totals(), report, report.status, known_quirks=UDP)
    assert len(seen) == 1, "most often there is nothing new"
    services.checkpoint(claim, Totals(), replace(report, quirks=NOTHING), report.status, known_quirks=UDP)
    assert Stream.objects.get().quirks == NOTHING
    steal(capture.pk)
    with pytest.raises(ClaimLost):
        services.checkpoint(claim, Totals(), report, report.status)
    assert Stream.objects.get().quirks == NOTHING


LEARNED = '{"transport":"udp","keepalive":"OPTIONS"}'


@pytest.mark.parametrize(
    ("change", "quirks"),
    [
        (services.Change(address=parse("rtsp://camera.example:8554/other")), NOTHING),
        (services.Change(address=parse("rtsp://camera.example/demo")), NOTHING),
        (services.Change(address=parse(URL_WITH_SECRET)), LEARNED),
        (services.Change(transport="udp"), '{"keepalive":"OPTIONS"}'),
        (services.Change(transport="tcp"), LEARNED),
        (services.Change(username="me", interval_s=5.0, name="other"), LEARNED),
    ],
    ids=["path", "port", "credentials", "transport", "the same transport", "the rest"],
)
def test_another_camera_is_known_nothing_of(change: services.Change, quirks: str) -> None:
    stream = services.create_stream(make_wish())
    Stream.objects.update(quirks=LEARNED)
    services.change_stream(stream, change)
    assert Stream.objects.get().quirks == quirks


@pytest.mark.parametrize(("transport", "quirks"), [("tcp", LEARNED), ("udp", '{"keepalive":"OPTIONS"}')])
def test_the_next_capture_begins_with_what_was_learned(transport: str, quirks: str) -> None:
    """But not with the transport, where another one is asked for now."""
    services.create_stream(make_wish())
    Stream.objects.update(quirks=LEARNED)
    services.start(replace(make_wish(), transport=transport))
    assert Stream.objects.get().quirks == quirks


def test_what_left_the_leaderboard_leaves_no_row_and_no_file(media: Path) -> None:
    capture = make_capture(count=2)
    claim = make_claim(capture)
    services.checkpoint(claim, Totals(), make_report(make_picture(1, score=10), make_picture(2, score=20)))
    report = make_report(make_picture(3, score=30), kept=((2, 20.0),))
    assert services.checkpoint(claim, Totals(), report) == {2, 3}
    assert frames_of(capture) == [(3, 30.0), (2, 20.0)]
    assert files(media) == frame_files(capture)
    assert len(files(media)) == 2


def test_a_report_that_comes_again_changes_nothing(media: Path) -> None:
    """The supervisor's answer may be lost: a recorder then reports the same pictures again."""
    capture = make_capture()
    claim = make_claim(capture)
    report = make_report(make_picture(1), make_picture(2))
    services.checkpoint(claim, Totals(), report)
    before = (files(media), list(capture.frames.values_list("pk", "image")), Totals.of(capture))
    assert services.checkpoint(claim, Totals(), report) == {1, 2}
    assert (files(media), list(capture.frames.values_list("pk", "image")), Totals.of(capture)) == before
    assert capture.frames.get(number=1).image.read() == report.fresh[0].jpeg


def test_a_report_that_comes_again_and_has_moved_on_evicts(media: Path) -> None:
    capture = make_capture(count=1)
    claim = make_claim(capture)
    services.checkpoint(claim, Totals(), make_report(make_picture(1, score=10)))
    services.checkpoint(claim, Totals(), make_report(make_picture(2, score=20)))
    assert frames_of(capture) == [(2, 20.0)]
    assert files(media) == frame_files(capture)
    assert len(files(media)) == 1


def test_captures_of_one_number_do_not_share_files(media: Path) -> None:
    captures = [make_capture(f"rtsp://{name}.example/demo") for name in ("north", "south")]
    host = make_host()
    for capture, luma in zip(captures, (50, 200), strict=True):
        services.checkpoint(make_claim(capture, host), Totals(), make_report(make_picture(1, score=luma)))
    assert len(files(media)) == 2
    assert [capture.frames.get().score for capture in captures] == [50.0, 200.0]


@pytest.mark.parametrize("how", ["another host", "released", "failed", "finished"])
def test_a_lost_claim_leaves_nothing_behind(media: Path, how: str) -> None:
    capture = make_capture()
    claim = make_claim(capture)
    services.checkpoint(claim, Totals(), make_report(make_picture(1, score=10)))
    if how == "another host":
        steal(capture.pk)
    elif how == "released":
        claims.release(claim)
    elif how == "failed":
        services.fail(claim, "address_refused", "Not there.")
    else:
        services.stop(capture.stream)
        services.hand_over(claim)
        services.finish(capture.pk)
    before = (files(media), frames_of(capture), Totals.of(Capture.objects.get()), Stream.objects.values().get())
    report = make_report(
        make_picture(2, score=20), counters=Counters(samples=99), status=Status(State.FAILED, "x", "y")
    )
    with pytest.raises(ClaimLost):
        services.checkpoint(claim, Totals(), report)
    assert before == (
        files(media),
        frames_of(capture),
        Totals.of(Capture.objects.get()),
        Stream.objects.values().get(),
    )


@pytest.mark.parametrize("room", [0, 1, 2])
def test_a_full_disk_leaves_no_row_and_no_litter(media: Path, fill_disk: Callable[..., None], room: int) -> None:
    """The supervisor tries again every two seconds: what each try leaves would fill the disk for good."""
    capture = make_capture()
    claim = make_claim(capture)
    fill_disk(room)
    report = make_report(make_picture(1), make_picture(2), make_picture(3), counters=Counters(samples=3))
    with pytest.raises(OSError, match="No space"):
        services.checkpoint(claim, Totals(), report)
    capture.refresh_from_db()
    assert (capture.frames.count(), capture.samples) == (0, 0)
    assert [name for name in files(media) if (media / name).stat().st_size > 10] == []


def test_a_checkpoint_works_again_once_the_disk_has_room(media: Path, fill_disk: Callable[..., None]) -> None:
    capture = make_capture()
    claim = make_claim(capture)
    report = make_report(make_picture(1), make_picture(2))
    fill_disk(1)
    with pytest.raises(OSError, match="No space"):
        services.checkpoint(claim, Totals(), report)
    fill_disk(100)
    assert services.checkpoint(claim, Totals(), report) == {1, 2}
    assert [frame.image.read() for frame in capture.frames.all()] == [picture.jpeg for picture in report.fresh]


def test_a_file_that_is_gone_does_not_keep_a_frame_from_being_evicted(media: Path) -> None:
    capture = make_capture(count=1)
    claim = make_claim(capture)
    services.checkpoint(claim, Totals(), make_report(make_picture(1, score=10)))
    (media / frame_files(capture)[0]).unlink()
    services.checkpoint(claim, Totals(), make_report(make_picture(2, score=20)))
    assert frames_of(capture) == [(2, 20.0)]


def test_the_stream_says_where_its_capture_stands() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    status = Status(State.RECONNECTING, "stalled", "It stopped sending.", attempt=3, next_attempt_at=NOON)
    services.checkpoint(claim, Totals(), make_report(status=status))
    stream = Stream.objects.get()
    assert (stream.status, stream.error_code, stream.attempt) == ("reconnecting", "stalled", 3)
    assert stream.next_attempt_at is not None
    assert stream.next_attempt_at.timestamp() == NOON
    services.checkpoint(claim, Totals(), make_report())
    better = Stream.objects.get()
    assert (better.status, better.error_code, better.attempt) == ("capturing", "stalled", 0)
    assert better.next_attempt_at is None
    assert Capture.objects.get().error_code == "stalled"


def test_the_stream_says_what_is_worth_saying_of_its_capture() -> None:
    claim = make_claim(make_capture())
    said = Status(State.CAPTURING, notices=(Notice.FROZEN, Notice.OTHER_TRANSPORT))
    services.checkpoint(claim, Totals(), make_report(status=said))
    stream = Stream.objects.get()
    assert stream.notices == "frozen,other_transport"
    assert stream.notice_words == [Notice.FROZEN.words, Notice.OTHER_TRANSPORT.words]
    services.checkpoint(claim, Totals(), make_report())
    assert Stream.objects.get().notice_words == []


def claim_of(stream: Stream) -> Claim:
    capture = stream.captures.get()
    assert capture.claimed_by_id
    return Claim(capture.pk, capture.claimed_by_id, capture.epoch)


@pytest.mark.parametrize("end", [services.stop, lambda stream: services.fail(claim_of(stream), "refused", "No.")])
def test_nothing_is_said_of_a_capture_that_is_over(end: Callable[[Stream], object]) -> None:
    claim = make_claim(make_capture())
    services.checkpoint(claim, Totals(), make_report(status=Status(State.CAPTURING, notices=tuple(Notice))))
    end(Stream.objects.get())
    assert Stream.objects.get().notices == ""


def test_all_notices_together_fit_into_their_field() -> None:
    assert len(",".join(Notice)) <= (Stream._meta.get_field("notices").max_length or 0)


def test_repeated_samples_and_lateness_are_saved() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    counters = Counters(samples=5, repeated=2, last_sample_at=NOON, late_p50_s=0.25, late_p95_s=1.5)
    services.checkpoint(claim, Totals(repeated=10), make_report(counters=counters))
    capture.refresh_from_db()
    assert (capture.repeated, capture.late_p50_s, capture.late_p95_s) == (12, 0.25, 1.5)
    services.checkpoint(claim, Totals(repeated=10), make_report(counters=Counters(samples=5, repeated=2)))
    capture.refresh_from_db()
    assert capture.late_p95_s == 1.5


def test_a_status_that_stays_is_not_written_again() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    services.checkpoint(claim, Totals(), make_report())
    first = Stream.objects.get().status_at
    services.checkpoint(claim, Totals(), make_report(counters=Counters(samples=5)))
    assert Stream.objects.get().status_at == first


def test_a_stream_that_is_being_stopped_goes_on_saying_so(media: Path) -> None:
    capture = make_capture()
    claim = make_claim(capture)
    services.stop(capture.stream)
    services.checkpoint(claim, Totals(), make_report(make_picture(1)))
    assert Stream.objects.get().status == "stopping"
    assert frames_of(capture) == [(1, 100.0)]


def test_an_error_is_cut_to_what_a_row_holds() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    services.checkpoint(claim, Totals(), make_report(status=Status(State.RECONNECTING, "closed", "x" * 1000)))
    assert len(Stream.objects.get().error_text) == len(Capture.objects.get().error_text) == 300


def statements(queries: CaptureQueriesContext) -> list[str]:
    return [query["sql"] for query in queries.captured_queries]


def test_a_quiet_report_costs_one_statement_and_no_transaction() -> None:
    claim = make_claim(make_capture())
    first = make_report(make_picture(1))
    services.checkpoint(claim, Totals(), first)
    quiet = make_report(kept=((1, 100.0),), counters=Counters(samples=5))
    with CaptureQueriesContext(connection) as queries:
        services.checkpoint(claim, Totals(), quiet, first.status)
    (statement,) = statements(queries)
    assert statement.startswith('UPDATE "streams_capture"')
    assert Capture.objects.get().samples == 5


def test_a_quiet_report_of_a_lost_claim_writes_nothing_either() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    steal(capture.pk)
    with pytest.raises(ClaimLost):
        services.checkpoint(claim, Totals(), make_report(counters=Counters(samples=5)), make_report().status)
    assert Capture.objects.get().samples == 0


def test_a_status_that_is_known_to_be_saved_is_not_looked_at() -> None:
    claim = make_claim(make_capture())
    known = make_report().status
    services.checkpoint(claim, Totals(), make_report())
    with CaptureQueriesContext(connection) as queries:
        services.checkpoint(claim, Totals(), make_report(make_picture(1)), known)
    assert not [statement for statement in statements(queries) if '"streams_stream"' in statement]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("holds", [True, False], ids=["it held", "it did not"])
def test_a_commit_whose_answer_is_lost_leaves_no_row_without_its_file(
    media: Path, monkeypatch: pytest.MonkeyPatch, holds: bool
) -> None:
    """The server is gone between the commit and its answer: the rows may be there."""
    capture = make_capture()
    claim = make_claim(capture)
    commit = connection._commit  # type: ignore[attr-defined]

    def commit_and_lose_the_answer() -> None:
        if holds:
            commit()
        raise OperationalError("server closed the connection unexpectedly")

    report = make_report(make_picture(1), make_picture(2))
    with monkeypatch.context() as patch:
        patch.setattr(connection, "_commit", commit_and_lose_the_answer)
        with pytest.raises(OperationalError):
            services.checkpoint(claim, Totals(), report)
    assert capture.frames.count() == (2 if holds else 0)
    assert set(frame_files(capture)) <= set(files(media))
    services.checkpoint(claim, Totals(), report)
    services.stop(capture.stream)
    services.hand_over(claim)
    assert services.finish(capture.pk)
    capture.refresh_from_db()
    assert (capture.frames.count(), files(media)) == (2, all_files(capture))


# --- hand over, note a death, fail ----------------------------------------------------------------


def test_what_is_handed_over_waits_for_the_next_host() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    services.checkpoint(claim, Totals(), make_report())
    services.hand_over(claim)
    capture.refresh_from_db()
    assert (capture.claimed_by, capture.finished_at, capture.host_name) == (None, None, "north")
    assert Stream.objects.get().status == "queued"
    assert claims.claim(make_host("south"), [Candidate(capture.pk, capture.epoch)]) == [capture.pk]


def test_what_is_handed_over_and_was_stopped_can_be_finished() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    services.stop(capture.stream)
    assert not services.finish(capture.pk)
    services.hand_over(claim)
    assert Stream.objects.get().status == "stopping"
    assert services.finish(capture.pk)


def test_what_another_host_has_is_not_handed_over() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    steal(capture.pk)
    services.hand_over(claim)
    capture.refresh_from_db()
    assert capture.claimed_by is not None


def test_a_dead_recorder_is_told_and_its_capture_kept() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    services.note_death(claim)
    capture.refresh_from_db()
    assert (capture.error_code, capture.finished_at) == ("recorder_died", None)
    assert (Stream.objects.get().status, Stream.objects.get().error_code) == ("reconnecting", "recorder_died")
    assert claim.rows().exists()


WAITING = Status(State.RECONNECTING, "auth_refused", "Wrong password.", attempt=3, next_attempt_at=NOON)


def test_a_recorder_that_dies_while_it_waits_leaves_its_successor_to_wait() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    services.checkpoint(claim, Totals(), make_report(status=WAITING))
    services.note_death(claim)
    stream = Stream.objects.get()
    assert (stream.status, stream.error_code, stream.attempt) == ("reconnecting", "auth_refused", 3)
    assert services.saved_status(stream) == WAITING
    capture.refresh_from_db()
    assert capture.error_code == "recorder_died"


def test_a_host_that_leaves_leaves_the_wait_to_the_next_one() -> None:
    claim = make_claim(make_capture())
    services.checkpoint(claim, Totals(), make_report(status=WAITING))
    services.hand_over(claim)
    assert Stream.objects.get().status == "queued"
    assert services.saved_status(Stream.objects.get()) == WAITING


@pytest.mark.parametrize(
    "status",
    [
        Status(State.CAPTURING),
        Status(State.CONNECTING),
        Status(State.RECONNECTING, "stalled", "It hangs.", attempt=1),
    ],
    ids=["capturing", "connecting", "ended by its recorder"],
)
def test_who_did_not_wait_has_nothing_to_go_on_with(status: Status) -> None:
    services.checkpoint(make_claim(make_capture()), Totals(), make_report(status=status))
    assert services.saved_status(Stream.objects.get()) == Status()


def test_a_person_who_stops_and_starts_waits_for_nothing() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    services.checkpoint(claim, Totals(), make_report(status=WAITING))
    services.stop(capture.stream)
    assert services.saved_status(Stream.objects.get()) == Status()
    services.hand_over(claim)
    assert services.finish(capture.pk)
    services.start(make_wish())
    assert services.saved_status(Stream.objects.get()) == Status()


def test_the_death_of_a_recorder_whose_capture_is_anothers_is_not_told() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    steal(capture.pk)
    with pytest.raises(ClaimLost):
        services.note_death(claim)
    assert Stream.objects.get().status == "queued"


def test_a_capture_that_failed_keeps_what_it_has() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    services.checkpoint(claim, Totals(), make_report(make_picture(1)))
    services.fail(claim, "address_refused", "This service does not connect there.")
    capture.refresh_from_db()
    assert (capture.ending, capture.error_code) == ("failed", "address_refused")
    assert capture.finished_at is not None
    assert (capture.frames.count(), bool(capture.grid)) == (1, True)
    stream = Stream.objects.get()
    assert (stream.status, stream.error_text) == ("failed", "This service does not connect there.")


def test_a_capture_that_was_stopped_before_it_failed_was_stopped() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    services.stop(capture.stream)
    services.fail(claim, "address_refused", "Not there.")
    capture.refresh_from_db()
    assert (capture.ending, capture.is_finished, Stream.objects.get().status) == ("stopped", True, "idle")


def test_what_another_host_has_does_not_fail() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    steal(capture.pk)
    with pytest.raises(ClaimLost):
        services.fail(claim, "address_refused", "Not there.")
    capture.refresh_from_db()
    assert (capture.ending, capture.finished_at) == ("", None)


# --- finish ---------------------------------------------------------------------------------------


def test_a_finish_makes_the_grid_and_closes_the_capture(media: Path) -> None:
    capture = make_finished(frames=9)
    assert capture.finished_at is not None
    assert (capture.claimed_by, capture.ending, capture.stream.status) == (None, "stopped", "idle")
    assert sheet.decode_jpeg(capture.grid.read()).shape == (3 * 24 + 4 * 8, 3 * 32 + 4 * 8, 3)
    assert files(media) == all_files(capture)
    assert len(files(media)) == 10


def test_only_what_was_stopped_and_is_recorded_by_nobody_is_finished() -> None:
    capture = make_capture()
    assert not services.finish(capture.pk)
    host = make_host()
    make_claim(capture, host)
    assert not services.finish(capture.pk)
    services.stop(capture.stream)
    assert not services.finish(capture.pk)
    make_witness()
    silence(host, 60.0)
    assert services.finish(capture.pk)
    assert not services.finish(capture.pk)
    assert not services.finish(capture.pk + 1)


def test_a_capture_without_frames_has_no_grid(media: Path) -> None:
    capture = make_finished(frames=0)
    assert (capture.is_finished, bool(capture.grid), files(media)) == (True, False, [])


def test_a_grid_of_too_few_frames_is_made_all_the_same() -> None:
    capture = make_finished(frames=4)
    assert sheet.decode_jpeg(capture.grid.read()).shape == (2 * 24 + 3 * 8, 3 * 32 + 4 * 8, 3)


@pytest.mark.parametrize("spoilt", [None, b"", b"no picture", "half"], ids=["gone", "empty", "text", "half a JPEG"])
def test_a_frame_that_cannot_be_read_is_left_out(
    media: Path, spoilt: bytes | str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "GIVE_UP_FILES_S", -1.0)
    capture = make_capture()
    record(capture, frames=4)
    path = media / str(capture.frames.get(number=2).image.name)
    data = path.read_bytes()
    path.unlink()
    if spoilt is not None:
        path.write_bytes(data[: len(data) // 3] if isinstance(spoilt, str) else spoilt)
    services.stop(capture.stream)
    assert services.finish(capture.pk)
    capture.refresh_from_db()
    expected_rows = 2 if spoilt == "half" and _is_readable(path) else 1
    assert sheet.decode_jpeg(capture.grid.read()).shape[0] == expected_rows * 24 + (expected_rows + 1) * 8


def _is_readable(path: Path) -> bool:
    try:
        sheet.decode_jpeg(path.read_bytes())
    except sheet.UnreadablePicture:
        return False
    return True


def test_a_frame_that_claims_to_be_gigantic_is_left_out(media: Path) -> None:
    """A JPEG of 400 bytes whose header says 65,500 x 65,500: OpenCV raises its own error for that."""
    capture = make_capture()
    record(capture, frames=4)
    path = media / str(capture.frames.get(number=2).image.name)
    data = bytearray(path.read_bytes())
    size_at = data.index(b"\xff\xc0") + 5  # start of frame: length, precision, height, width (ITU T.81 B.2.2)
    data[size_at : size_at + 4] = (65_500).to_bytes(2, "big") * 2
    path.write_bytes(data)
    services.stop(capture.stream)
    assert services.finish(capture.pk)


def test_a_storage_that_is_away_for_a_moment_costs_no_grid(media: Path) -> None:
    capture = make_capture(count=4)
    record(capture, frames=4)
    services.stop(capture.stream)
    media.rename(media.with_suffix(".away"))
    with pytest.raises(OSError, match="No such file"):
        services.finish(capture.pk)
    assert not Capture.objects.get().is_finished
    media.with_suffix(".away").rename(media)
    assert services.finish(capture.pk)
    assert sheet.decode_jpeg(Capture.objects.get().grid.read()).shape[0] == 2 * 24 + 3 * 8


def test_all_frames_gone_is_a_capture_without_a_grid(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "GIVE_UP_FILES_S", -1.0)
    capture = make_capture()
    record(capture, frames=2)
    for name in files(media):
        (media / name).unlink()
    services.stop(capture.stream)
    assert services.finish(capture.pk)
    capture.refresh_from_db()
    assert (bool(capture.grid), capture.frames.count()) == (False, 2)


def test_a_grid_that_cannot_be_written_leaves_the_capture_to_be_finished_later(
    media: Path, fill_disk: Callable[..., None]
) -> None:
    capture = make_capture()
    record(capture, frames=2)
    services.stop(capture.stream)
    fill_disk(0)
    with pytest.raises(OSError, match="No space"):
        services.finish(capture.pk)
    capture.refresh_from_db()
    assert capture.finished_at is None
    assert (Stream.objects.get().status, Stream.objects.get().notices) == ("stopping", "storage_full")
    fill_disk(1)
    assert services.finish(capture.pk)
    assert (Stream.objects.get().status, Stream.objects.get().notices) == ("idle", "")


@pytest.mark.django_db(transaction=True)
def test_twenty_that_finish_at_once_keep_one_grid_and_no_stray_file(media: Path) -> None:
    capture = make_capture()
    record(capture, frames=9)
    services.stop(capture.stream)
    assert sum(at_once(20, lambda: services.finish(capture.pk))) == 1
    capture.refresh_from_db()
    assert sheet.decode_jpeg(capture.grid.read()).shape[0] > 3 * 24
    assert files(media) == all_files(capture)


def litter(media: Path, *names: str) -> None:
    for name in names:
        (media / name).parent.mkdir(parents=True, exist_ok=True)
        (media / name).write_bytes(b"half a")


def test_a_finish_sweeps_what_killed_processes_left_of_its_capture_and_of_no_other(media: Path) -> None:
    other = make_capture("rtsp://other.example/demo")
    record(other, frames=2)
    capture = make_capture()
    record(capture, frames=3)
    litter(media, f"frames/{capture.pk}/7-dead.jpg", f"grids/{capture.pk}/dead.jpg")
    others = [f"frames/{other.pk}/9-dead.jpg", f"grids/{other.pk}/dead.jpg", f"grids/{capture.pk}1/dead.jpg"]
    litter(media, *others)
    services.stop(capture.stream)
    assert services.finish(capture.pk)
    capture.refresh_from_db()
    assert files(media) == sorted([*all_files(capture), *frame_files(other), *others])
    assert len(frame_files(capture)) == 3


class Killed(BaseException):
    """Nothing that runs on the way out is run: see `dying`."""


STEPS = ("_fence", "_compose", "_write_grid", "_litter", "_set_status")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_leaves_nothing_that_the_next_finish_does_not_clean(
    media: Path, monkeypatch: pytest.MonkeyPatch, step: str, is_done: bool
) -> None:
    capture = make_capture()
    record(capture, frames=4)
    litter(media, f"frames/{capture.pk}/7-dead.jpg")
    services.stop(capture.stream)
    work = getattr(services, step)

    with monkeypatch.context() as patch:

        def dying(*arguments: Any) -> None:
            if is_done:
                work(*arguments)
            patch.setattr(services, "_delete", lambda *_: None)
            raise Killed

        patch.setattr(services, step, dying)
        with pytest.raises(Killed):
            services.finish(capture.pk)
    assert not Capture.objects.get().is_finished
    assert services.finish(capture.pk)
    capture.refresh_from_db()
    assert (capture.frames.count(), bool(capture.grid)) == (4, True)
    assert files(media) == all_files(capture)


@pytest.mark.parametrize("error", [RuntimeError("503 Slow Down"), OSError("gone")], ids=["its own", "the system's"])
def test_a_storage_that_fails_to_be_read_is_asked_again_later(
    media: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Object stores raise errors of their own; OSError is what the callers of a finish know."""
    capture = make_capture()
    record(capture, frames=2)
    services.stop(capture.stream)

    class Unreadable(FileSystemStorage):
        def _open(self, *_: Any) -> "File[bytes]":
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(Frame._meta.get_field("image"), "storage", Unreadable(location=media))
        with pytest.raises(OSError):  # noqa: PT011
            services.finish(capture.pk)
    assert services.finish(capture.pk)
    assert Capture.objects.get().grid


# --- place ----------------------------------------------------------------------------------------


def test_a_capture_is_placed_on_the_host_that_asks() -> None:
    host = make_host("north")
    capture = make_capture("rtsp://127.0.0.1:1/demo")
    assert services.place(capture.pk, "north")
    capture.refresh_from_db()
    assert (capture.claimed_by, capture.host_name, capture.epoch) == (host, "north", 1)
    assert not services.place(capture.pk, "north")


@pytest.mark.parametrize("host_name", ["nobody", "silent", "full"])
def test_a_host_that_is_unknown_silent_or_full_gets_nothing(host_name: str) -> None:
    make_host("silent", silent_s=60.0)
    make_host("full", slots=0)
    capture = make_capture("rtsp://127.0.0.1:1/demo")
    assert not services.place(capture.pk, host_name)
    capture.refresh_from_db()
    assert (capture.claimed_by, capture.epoch) == (None, 0)


def test_a_capture_is_not_placed_while_an_older_one_waits() -> None:
    make_host("north", slots=1)
    first, second = (make_capture(f"rtsp://127.0.0.1:{port}/demo") for port in (1, 2))
    assert not services.place(second.pk, "north")
    assert services.place(first.pk, "north")
    assert not services.place(second.pk, "north")  # no slot is left
    make_host("south")
    assert services.place(second.pk, "south")


def test_an_older_capture_whose_host_is_lost_goes_first() -> None:
    first, second = (make_capture(f"rtsp://127.0.0.1:{port}/demo") for port in (1, 2))
    make_claim(first, lost := make_host("lost"))
    make_host("north")
    make_witness()
    silence(lost, 60.0)
    assert not services.place(second.pk, "north")
    assert services.place(first.pk, "north")
    assert services.place(second.pk, "north")


def test_a_stopped_capture_is_not_placed() -> None:
    make_host("north")
    capture = make_capture("rtsp://127.0.0.1:1/demo")
    services.stop(capture.stream)
    assert not services.place(capture.pk, "north")


def test_nothing_is_looked_up_to_place_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorder looks up what it connects to: an answer that was checked here could be another one there."""
    make_host("north")
    capture = make_capture("rtsp://camera.example/demo")
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *names, **_: asked.append(names))
    assert services.place(capture.pk, "north")
    assert asked == []


# --- start and stop at once -----------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_twenty_that_start_one_address_start_it_once() -> None:
    wish = make_wish()
    started = at_once(20, lambda: services.start(wish))
    assert (Stream.objects.count(), Capture.objects.count()) == (1, 1)
    assert sum(one.is_new for one in started) == 1
    assert {one.capture.pk for one in started} == {Capture.objects.get().pk}


@pytest.mark.django_db(transaction=True)
def test_twenty_that_start_addresses_of_one_name_get_twenty_names() -> None:
    numbers = iter(range(20))
    started = at_once(20, lambda: services.start(make_wish(f"rtsp://camera-{next(numbers)}.example/demo")))
    names = {one.capture.stream.name for one in started}
    assert names == {"demo", *(f"demo-{n}" for n in range(2, 21))}


@pytest.mark.django_db(transaction=True)
def test_twenty_that_stop_and_finish_make_one_grid(media: Path) -> None:
    capture = make_capture()
    record(capture, frames=9)

    def stop_and_finish() -> tuple[int, bool]:
        stopped = services.stop(Stream.objects.get())
        assert stopped is not None
        return stopped.pk, services.finish(stopped.pk)

    done = at_once(20, stop_and_finish)
    assert {pk for pk, _ in done} == {capture.pk}
    assert sum(is_finished for _, is_finished in done) == 1
    assert len([name for name in files(media) if name.startswith("grids/")]) == 1


@pytest.mark.django_db(transaction=True)
def test_checkpoints_while_another_host_claims_are_whole_or_nothing(media: Path) -> None:
    """Rows and files agree, whoever came first."""
    capture = make_capture()
    host = make_host("north")
    claim = make_claim(capture, host)
    numbers = iter(range(1, 10))

    def save() -> bool:
        try:
            services.checkpoint(claim, Totals(), make_report(make_picture(n := next(numbers)), kept=board_before(n)))
        except ClaimLost:
            return False
        return True

    def board_before(number: int) -> tuple[tuple[int, float], ...]:
        return tuple((n, 100.0) for n in range(1, 10) if n != number)

    def work() -> bool:
        if threading.current_thread().name.endswith("_4"):
            steal(capture.pk)
            return False
        return save()

    at_once(9, work)
    assert files(media) == frame_files(capture)


def test_credentials_do_not_leave_the_stream() -> None:
    capture = make_finished(URL_WITH_SECRET)
    for row in (*Stream.objects.values("url", "name", "error_text"), *Capture.objects.values()):
        assert SECRET not in str(row)
    assert SECRET in capture.stream.address.url()


def test_a_host_that_wakes_up_while_the_grid_is_made_writes_nothing(
    media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent for so long that another host finishes its capture: grid and frames must be of one moment."""
    capture = make_capture()
    claim = make_claim(capture)
    services.checkpoint(claim, Totals(), make_report(make_picture(1)))
    Host.objects.update(heartbeat_at=timezone.now() - timedelta(minutes=1))
    make_witness()
    services.stop(capture.stream)
    compose = services._compose

    def compose_while_it_wakes(one: Capture, meanwhile: services.Meanwhile) -> services._Composed:
        with pytest.raises(ClaimLost):
            services.checkpoint(claim, Totals(), make_report(make_picture(1), make_picture(2)))
        return compose(one, meanwhile)

    monkeypatch.setattr(services, "_compose", compose_while_it_wakes)
    assert services.finish(capture.pk)
    capture.refresh_from_db()
    assert frames_of(capture) == [(1, make_picture(1).score)]
    assert files(media) == all_files(capture)


def test_a_picture_is_on_the_disk_before_its_row_is(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut may come after any commit."""
    settled: list[tuple[str, int]] = []

    def note(descriptor: int) -> None:
        settled.append((os.readlink(f"/proc/self/fd/{descriptor}"), Frame.objects.count()))

    monkeypatch.setattr(os, "fdatasync", note)
    capture = make_capture()
    services.checkpoint(make_claim(capture), Totals(), make_report(make_picture(1), make_picture(2)))
    assert sorted(settled) == [(str(media / name), 0) for name in frame_files(capture)]


def test_what_is_older_than_the_capture_is_no_litter_of_it(media: Path) -> None:
    """A new database, or a restored one, gives numbers out again."""
    capture = make_capture()
    record(capture, frames=2)
    old = [f"frames/{capture.pk}/1-0123abcd.jpg", f"grids/{capture.pk}/0123abcd.jpg"]
    for name in old:
        litter(media, name)
        os.utime(media / name, (1e9, 1e9))
    litter(media, f"frames/{capture.pk}/9-0123abcd.jpg")
    services.stop(capture.stream)
    assert services.finish(capture.pk)
    capture.refresh_from_db()
    assert files(media) == sorted([*all_files(capture), *old])


def test_a_grid_whose_process_is_killed_is_made_later_and_given_up_late(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system was short of memory. One that crashes by itself is given up at once."""
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    captures = [make_capture(f"rtsp://camera.example/{name}") for name in ("a", "b")]
    for capture in captures:
        record(capture)
        services.stop(capture.stream)
    with monkeypatch.context() as short:
        short.setattr(sys, "executable", str(killed))
        with pytest.raises(OSError, match="-9"):
            services.finish(captures[0].pk)
        assert Capture.objects.get(pk=captures[0].pk).finished_at is None
        short.setattr(services, "GIVE_UP_FILES_S", -1.0)
        assert services.finish(captures[1].pk)
    assert services.finish(captures[0].pk)
    assert [bool(Capture.objects.get(pk=capture.pk).grid) for capture in captures] == [True, False]


def test_frames_that_come_later_leave_their_places_to_the_best_of_those_before(media: Path) -> None:
    """A kill between two parts of a checkpoint loses nothing that could have stayed."""
    claim = make_claim(make_capture(count=3))
    first = [make_picture(n, score=100.0 + n) for n in (1, 2, 3)]
    services.checkpoint(claim, Totals(), make_report(*first))
    fresh = [make_picture(n, score=200.0 + n) for n in (6, 5, 4)]
    whole = make_report(*fresh)
    part = services.checkpoint(claim, Totals(), replace(whole, fresh=tuple(fresh[:1])), None, frozenset({4, 5}))
    capture = Capture.objects.get()
    assert part == {6}
    assert [number for number, _ in frames_of(capture)] == [6, 3, 2]
    rest = services.checkpoint(claim, Totals(), replace(whole, fresh=tuple(fresh[1:])))
    assert rest == {4, 5, 6}
    assert [number for number, _ in frames_of(capture)] == [6, 5, 4]
    assert files(media) == frame_files(capture)
