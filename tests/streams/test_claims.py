"""Who runs what: slots, epochs, heartbeats, and what a race leaves."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from hypothesis import given
from hypothesis import strategies as st

from streams import claims, queries, services
from streams.claims import CLAIM_S, GAP_S, HEARTBEAT_S, Candidate, Claim, HostAlive, HostTaken
from streams.models import Capture, Host, Stream
from streams.queries import Room
from tests.streams.builders import (
    at_once,
    make_capture,
    make_claim,
    make_finished,
    make_host,
    make_picture,
    make_report,
    make_witness,
    silence,
)

pytestmark = pytest.mark.django_db


def make_captures(count: int) -> list[Capture]:
    return [make_capture(f"rtsp://camera-{n}.example/demo") for n in range(count)]


def candidates(captures: list[Capture]) -> list[Candidate]:
    return [Candidate(capture.pk, capture.epoch) for capture in captures]


def claimed_by(host: Host) -> list[int]:
    return list(Capture.objects.filter(claimed_by=host).order_by("id").values_list("id", flat=True))


# --- slots ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slots", "expected"), [(0, 0), (1, 1), (3, 3), (5, 5), (9, 5)])
def test_a_host_claims_as_many_as_it_has_slots_oldest_first(slots: int, expected: int) -> None:
    captures = make_captures(5)
    host = make_host(slots=slots)
    assert claims.claim(host, candidates(captures)) == [capture.pk for capture in captures[:expected]]
    assert claimed_by(host) == [capture.pk for capture in captures[:expected]]


def test_a_full_host_claims_no_more_until_a_slot_is_free() -> None:
    first, second = make_captures(2)
    host = make_host(slots=1)
    claim = make_claim(first, host)
    assert claims.claim(host, candidates([second])) == []
    services.stop(first.stream)
    services.hand_over(claim)
    assert claims.claim(host, candidates([second])) == [second.pk]


def test_a_capture_that_is_being_stopped_holds_its_slot_until_its_recorder_has_left() -> None:
    first, second = make_captures(2)
    host = make_host(slots=1)
    make_claim(first, host)
    services.stop(first.stream)
    assert claims.claim(host, candidates([second])) == []


def test_slots_are_read_from_the_database() -> None:
    captures = make_captures(3)
    host = make_host(slots=1)
    Host.objects.update(slots=2)
    assert len(claims.claim(host, candidates(captures))) == 2


def ends_before(ids: list[int], capture_id: int, slots: int) -> int:
    """How many others end, oldest first, until this one is among the first `slots`."""
    in_progress, ended = list(ids), 0
    while capture_id not in in_progress[:slots]:
        del in_progress[0]
        ended += 1
    return ended


@given(st.sets(st.integers(1, 60), max_size=30), st.integers(1, 8))
def test_a_capture_waits_for_as_many_as_have_to_end_before_it_fits(ids: set[int], slots: int) -> None:
    ordered = sorted(ids)
    room = Room(slots, tuple((pk, 1000 + pk) for pk in ordered))
    expected = {pk: ends_before(ordered, pk, slots) for pk in ordered}
    assert {pk: room.ahead_of(pk) for pk in ordered} == expected
    assert room.ahead_by_stream() == {1000 + pk: ends for pk, ends in expected.items()}


def test_without_a_host_nothing_is_waited_for_but_a_host() -> None:
    room = Room(None, ((1, 11), (2, 12)))
    assert (room.ahead_of(2), room.ahead_by_stream()) == (0, {11: 0, 12: 0})


def test_the_room_is_that_of_all_living_hosts() -> None:
    assert queries.room() == Room(None, ())
    make_host("north", slots=2)
    make_host("south", slots=3)
    make_host("gone", slots=100, silent_s=CLAIM_S + 1)
    make_finished("rtsp://camera-9.example/demo")
    captures = make_captures(2)
    services.stop(captures[0].stream)
    make_host("north", slots=2)  # make_finished registers it with 8
    assert queries.room() == Room(5, tuple((capture.pk, capture.stream_id) for capture in captures))


def test_what_waits_is_read_oldest_first_whoever_had_it_before() -> None:
    captures = make_captures(3)
    host = make_host()
    for capture in reversed(captures):
        make_claim(capture, host)
    claims.release_all(host)
    assert [one.capture_id for one in queries.unclaimed().to_capture] == [capture.pk for capture in captures]


# --- epochs ---------------------------------------------------------------------------------------


def test_each_claim_has_another_epoch() -> None:
    capture = make_capture()
    host = make_host()
    epochs = []
    for _ in range(3):
        claim = make_claim(capture, host)
        epochs.append(claim.epoch)
        assert claims.release(claim)
    assert epochs == [1, 2, 3]


def test_a_candidate_that_was_claimed_since_it_was_read_stays_with_whoever_was_first() -> None:
    capture = make_capture()
    north, south = make_host("north"), make_host("south")
    read = candidates([capture])
    assert claims.claim(north, read) == [capture.pk]
    assert claims.claim(south, read) == []
    assert claimed_by(north) == [capture.pk]


def test_a_claim_of_an_older_epoch_holds_nothing_even_for_the_same_host() -> None:
    capture = make_capture()
    host = make_host()
    old = make_claim(capture, host)
    claims.release(old)
    new = make_claim(capture, host)
    assert not old.rows().exists()
    assert not claims.release(old)
    assert new.rows().exists()


@pytest.mark.parametrize("how", ["stopped", "finished"])
def test_what_is_over_is_not_claimed(how: str) -> None:
    capture = make_finished() if how == "finished" else make_capture()
    services.stop(capture.stream)
    assert claims.claim(make_host("south"), [Candidate(capture.pk, capture.epoch)]) == []


def test_a_finished_capture_is_nobodys() -> None:
    capture = make_capture()
    claim = make_claim(capture)
    services.fail(claim, "address_refused", "Not there.")
    assert not claim.rows().exists()
    assert not claims.release(claim)
    assert Capture.objects.get().claimed_by is None


# --- heartbeats -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("silent_s", "is_alive"), [(0.0, True), (CLAIM_S - 3, True), (CLAIM_S + 1, False), (9999.0, False)]
)
def test_a_host_lives_for_fifteen_seconds_after_its_heartbeat(silent_s: float, is_alive: bool) -> None:
    host = make_host(silent_s=silent_s)
    assert Host.objects.filter(claims.is_alive()).exists() == is_alive
    assert queries.has_living_host() == is_alive
    claims.heartbeat(host)
    assert Host.objects.filter(claims.is_alive()).exists()


def test_what_a_silent_host_claims_is_free() -> None:
    capture = make_capture()
    north, south = make_host("north"), make_host("south")
    old = make_claim(capture, north)
    assert queries.unclaimed().to_capture == []
    make_witness()
    silence(north, CLAIM_S + 1)
    free = queries.unclaimed().to_capture
    assert free == [Candidate(capture.pk, old.epoch)]
    assert claims.claim(south, free) == [capture.pk]
    assert not old.rows().exists()


def test_a_silent_host_that_wakes_up_in_time_keeps_its_claims() -> None:
    capture = make_capture()
    north, south = make_host("north"), make_host("south")
    make_witness()
    claim = make_claim(capture, north)
    silence(north, CLAIM_S + 1)
    claims.heartbeat(north)
    assert claim.rows().exists()
    assert queries.unclaimed().to_capture == []
    assert queries.wanted_of(south) == []


def test_a_stopped_capture_of_a_silent_host_is_to_be_finished() -> None:
    capture = make_capture()
    host = make_host()
    make_claim(capture, host)
    services.stop(capture.stream)
    make_witness()
    assert queries.unclaimed().to_finish == []
    silence(host, CLAIM_S + 1)
    assert [one.capture_id for one in queries.unclaimed().to_finish] == [capture.pk]
    assert queries.unclaimed().to_capture == []


def test_a_database_that_was_away_costs_nobody_a_claim() -> None:
    """All hosts are silent while it is away. Whoever comes back first is no witness of the others' silence."""
    capture = make_capture()
    north, south = make_host("north"), make_witness("south")
    claim = make_claim(capture, north)
    silence(north, 60.0)
    silence(south, 60.0)
    claims.heartbeat(south)
    assert queries.unclaimed().to_capture == []
    claims.heartbeat(north)
    assert claim.rows().exists()


@pytest.mark.parametrize(
    ("silent_s", "is_gap"), [(HEARTBEAT_S, False), (GAP_S - 1, False), (GAP_S + 1, True), (99.0, True)]
)
def test_a_host_is_steady_for_as_long_as_its_heartbeats_have_no_gap(silent_s: float, is_gap: bool) -> None:
    host = make_witness()
    silence(host, silent_s)
    claims.heartbeat(host)
    after = Host.objects.get(pk=host.pk)
    assert (after.steady_at == after.heartbeat_at) == is_gap


def test_a_silent_host_is_expired_once_another_has_been_steady_for_long_enough() -> None:
    capture = make_capture()
    north, south = make_host("north"), make_host("south")
    make_claim(capture, north)
    silence(north, 60.0)
    assert queries.unclaimed().to_capture == []
    Host.objects.filter(pk=south.pk).update(steady_at=Now() - timedelta(seconds=CLAIM_S + 1))
    assert [candidate.capture_id for candidate in queries.unclaimed().to_capture] == [capture.pk]


def test_a_heartbeat_says_up_to_when_all_is_saved() -> None:
    host = make_host()
    claims.heartbeat(host, unsaved_s=5.0)
    after = Host.objects.get()
    assert (after.heartbeat_at - after.saved_at).total_seconds() == pytest.approx(5.0, abs=0.01)


def test_a_name_that_another_machine_uses_is_refused_while_that_one_may_live() -> None:
    first = claims.register("north", 3, "machine-1")
    with pytest.raises(HostAlive):
        claims.register("north", 5, "machine-2")
    assert Host.objects.get().slots == 3
    silence(first, GAP_S + 1)
    second = claims.register("north", 5, "machine-2")
    assert (second.pk, second.slots, second.instance) == (first.pk, 5, "machine-2")
    with pytest.raises(HostTaken):
        claims.heartbeat(first)


def test_a_name_is_free_at_once_for_the_machine_that_had_it_and_after_a_farewell() -> None:
    first = claims.register("north", 3, "machine-1")
    again = claims.register("north", 3, "machine-1")
    assert again.epoch == first.epoch + 1
    claims.retire(again)
    assert claims.register("north", 3, "machine-2").instance == "machine-2"


def test_registering_frees_what_the_forerunner_claimed() -> None:
    capture = make_capture()
    old = make_claim(capture, make_host("north", slots=3))
    host = claims.register("north", 5)
    assert (Host.objects.get().pk, Host.objects.get().slots) == (host.pk, 5)
    assert not old.rows().exists()
    assert claimed_by(host) == []
    assert queries.unclaimed().to_capture == [Candidate(capture.pk, old.epoch)]


@pytest.mark.parametrize(
    "way", [lambda host: claims.register("north", 0), claims.retire], ids=["registers", "retires"]
)
def test_what_a_host_gives_back_is_queued_again_but_not_what_is_being_stopped(way: Callable[[Host], object]) -> None:
    first, second = make_captures(2)
    host = make_host()
    for capture in (first, second):
        services.checkpoint(make_claim(capture, host), services.Totals(), make_report(make_picture(1)))
    services.stop(second.stream)
    way(host)
    assert [Stream.objects.get(pk=one.stream_id).status for one in (first, second)] == ["queued", "stopping"]


def test_registering_leaves_other_hosts_and_finished_captures_alone() -> None:
    finished = make_finished("rtsp://camera-9.example/demo")
    capture = make_capture()
    claim = make_claim(capture, make_host("south"))
    claims.register("north", 3)
    assert claim.rows().exists()
    assert Capture.objects.get(pk=finished.pk).host_name == "north"


def test_a_host_that_retires_lives_no_more_and_claims_nothing() -> None:
    captures = make_captures(2)
    host = make_host()
    for capture in captures:
        make_claim(capture, host)
    claims.retire(host)
    assert not queries.has_living_host()
    assert claimed_by(host) == []
    assert [c.capture_id for c in queries.unclaimed().to_capture] == [capture.pk for capture in captures]


def test_a_supervisor_that_leaves_too_late_takes_nothing_from_the_one_that_has_its_name() -> None:
    capture = make_capture()
    late = make_host("north")
    new = claims.register("north", 3)
    claim = make_claim(capture, new)
    with pytest.raises(HostTaken):
        claims.retire(late)
    assert claim.rows().exists()
    assert queries.has_living_host()


# --- races ----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_of_many_hosts_that_want_one_capture_exactly_one_gets_it() -> None:
    capture = make_capture()
    hosts = iter([make_host(f"host-{n}") for n in range(16)])
    free = candidates([capture])
    won = at_once(16, lambda: claims.claim(next(hosts), free))
    assert sorted(won) == [[]] * 15 + [[capture.pk]]
    capture.refresh_from_db()
    assert capture.epoch == 1


@pytest.mark.django_db(transaction=True)
def test_jobs_and_ticks_that_claim_at_once_do_not_overfill_a_host() -> None:
    captures = iter(make_captures(12))
    host = make_host(slots=5)
    won = at_once(12, lambda: claims.claim(host, candidates([next(captures)])))
    assert sum(map(len, won)) == 5 == len(claimed_by(host))


@pytest.mark.django_db(transaction=True)
def test_hosts_that_pull_share_what_there_is() -> None:
    free = candidates(make_captures(12))
    hosts = [make_host(f"host-{n}", slots=3) for n in range(6)]
    pulling = iter(hosts)
    won = at_once(6, lambda: claims.claim(next(pulling), free))
    taken = [pk for ids in won for pk in ids]
    assert len(taken) == len(set(taken)) == 12
    assert all(len(claimed_by(host)) <= 3 for host in hosts)


@pytest.mark.django_db(transaction=True)
def test_of_a_stop_and_a_claim_at_once_no_capture_is_recorded_for_ever() -> None:
    """Whichever is first, the supervisor sees the wish to stop beside the claim, or never gets the claim."""
    capture = make_capture()
    host = make_host()
    free = candidates([capture])
    is_first = iter([True, False])
    at_once(2, lambda: bool(services.stop(capture.stream) if next(is_first) else claims.claim(host, free)))
    capture.refresh_from_db()
    assert capture.stop_requested_at is not None
    assert capture.claimed_by is None or queries.wanted_of(host)[0].is_stopping


def test_a_claim_knows_its_row_and_no_other() -> None:
    first, second = make_captures(2)
    host = make_host()
    claim = make_claim(first, host)
    make_claim(second, host)
    assert list(claim.rows()) == [first]
    assert not Claim(first.pk, host.pk + 1, claim.epoch).rows().exists()
