"""Ticks with a real host row, real recorder processes and a real camera; the job cluster is a stand-in."""

import errno
import itertools
import logging
import os
import select
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.fernet import Fernet
from django.core.files.storage import FileSystemStorage
from django.db import connection
from django.db.models import F
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from streams import claims, queries, services, supervisor
from streams.claims import CLAIM_S
from streams.cluster import Cluster
from streams.engine import recorder as recorder_module
from streams.engine import sheet
from streams.engine.address import parse, parse_networks
from streams.engine.errors import Retry
from streams.engine.notices import Notice
from streams.engine.report import Report
from streams.models import Capture, Frame, Host, Stream
from streams.supervisor import Supervisor
from tests.camera.clip import Scene, encode, split_nals
from tests.camera.rtp import Packet as RTPPacket
from tests.camera.rtp import payloads
from tests.camera.server import ScriptedCamera
from tests.camera.tls import TLSFront
from tests.engine import hostile, lying_recorder
from tests.engine.numbered import renumbered
from tests.engine.odd_camera import framed
from tests.engine.rtp_film import annex_b
from tests.streams.builders import (
    API,
    SECRET,
    at_once,
    files,
    frame_files,
    frames_of,
    make_capture,
    make_claim,
    make_picture,
    make_report,
    make_witness,
    record,
    silence,
    stop,
)
from tests.streams.html import read
from tests.streams.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

SCENE = Scene(160, 120, plan=(40, 200, 90, 120), fps=10, gop_s=0.2)
INTERVAL_S = 0.2


class NoCluster(Cluster):
    """Runs nothing, and remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(["false"])
        self.told: list[str] = []

    def keep_alive(self) -> None:
        self.told.append("keep alive")

    def stop(self) -> None:
        self.told.append("stop")

    def join(self) -> None:
        self.told.append("join")


@pytest.fixture(scope="module")
def camera() -> Iterator[ScriptedCamera]:
    with ScriptedCamera(SCENE) as camera:
        yield camera


@pytest.fixture(scope="module")
def other_camera() -> Iterator[ScriptedCamera]:
    with ScriptedCamera(SCENE, path="other") as camera:
        yield camera


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports come five times a second, restarts at once: what is tested is what comes, not when."""
    monkeypatch.setattr(supervisor, "PULL_S", 0.2)
    monkeypatch.setattr(supervisor, "FINISH_AFTER_S", 0.0)
    monkeypatch.setattr("streams.engine.backoff.LADDERS", dict.fromkeys(Retry, (0.1, 0.1)))


@pytest.fixture
def hire() -> Iterator[Callable[..., Supervisor]]:
    """Supervisors, each on a host of its own; whatever they started ends with the test."""
    hired: list[Supervisor] = []

    def hire(name: str = "north", slots: int = 4) -> Supervisor:
        hired.append(Supervisor(claims.register(name, slots), NoCluster()))
        return hired[-1]

    yield hire
    for one in hired:
        for recorder in one._recorders.values():
            recorder.process.end()


@pytest.fixture
def north(hire: Callable[..., Supervisor]) -> Supervisor:
    return hire()


def run(one: Supervisor, condition: Callable[[], object], within_s: float = 40.0) -> None:
    """Ticks until the condition holds."""

    def is_met() -> bool:
        one.tick()
        return bool(condition())

    until(is_met, within_s, pause=one.wait)


def pids(one: Supervisor) -> list[int]:
    return [recorder.process.pid for recorder in one._recorders.values()]


def is_gone(pid: int) -> bool:
    """Not there, not even as a zombie."""
    return not Path(f"/proc/{pid}").exists()


def status() -> str:
    return str(Stream.objects.get().status)


# --- the way it goes ------------------------------------------------------------------------------


def test_a_capture_is_claimed_recorded_and_saved(camera: ScriptedCamera, north: Supervisor, media: Path) -> None:
    capture = make_capture(camera.url, interval_s=INTERVAL_S, count=4)
    run(north, lambda: status() == "capturing" and capture.frames.count() == 4)
    capture.refresh_from_db()
    assert (capture.claimed_by, capture.host_name, capture.epoch) == (north.host, "north", 1)
    assert (capture.connections, capture.rejected) == (1, 0)
    assert capture.samples >= 4
    assert frame_files(capture) == files(media)
    for frame in capture.frames.all():
        assert sheet.decode_jpeg(frame.image.read()).shape == (120, 160, 3)


def test_a_stop_is_finished_by_ticks_alone(
    camera: ScriptedCamera, north: Supervisor, media: Path, client: Client
) -> None:
    teardowns = camera.teardowns
    capture = make_capture(camera.url, interval_s=INTERVAL_S, count=4)
    run(north, lambda: capture.frames.count() == 4)
    (pid,) = pids(north)
    services.stop(capture.stream)
    run(north, lambda: Capture.objects.get().is_finished)
    capture.refresh_from_db()
    assert (capture.ending, capture.claimed_by, status()) == ("stopped", None, "idle")
    assert (capture.frames.count(), len(files(media))) == (4, 5)
    assert pids(north) == []
    assert is_gone(pid)
    until(lambda: camera.teardowns == teardowns + 1)
    assert client.post("/stop", {"process_name": "demo"}).status_code == 200


def test_what_a_recorder_had_when_it_was_stopped_is_saved(
    camera: ScriptedCamera, north: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is pulled any more: all there is comes with its last words."""
    capture = make_capture(camera.url, interval_s=INTERVAL_S, count=3)
    run(north, lambda: capture.frames.count() == 3)
    monkeypatch.setattr(supervisor, "PULL_S", 3600.0)
    before = Capture.objects.get().samples
    until(lambda: camera.clients == 1)
    ticks = iter(range(10))
    run(north, lambda: next(ticks) == 9)
    services.stop(capture.stream)
    run(north, lambda: Capture.objects.get().is_finished)
    assert Capture.objects.get().samples > before


def test_a_capture_that_was_stopped_before_it_began_is_finished(north: Supervisor) -> None:
    capture = make_capture()
    make_claim(capture, north.host)
    services.stop(capture.stream)
    run(north, lambda: Capture.objects.get().is_finished)
    assert pids(north) == []
    assert status() == "idle"


def test_slots_are_kept_and_the_next_capture_takes_the_one_that_is_free(
    camera: ScriptedCamera, other_camera: ScriptedCamera, hire: Callable[..., Supervisor]
) -> None:
    one = hire(slots=1)
    first, second = make_capture(camera.url), make_capture(other_camera.url)
    run(one, lambda: Stream.objects.get(name="demo").status == "capturing")
    assert list(one._recorders) == [first.pk]
    services.stop(first.stream)
    run(one, lambda: Stream.objects.get(name="other").status == "capturing")
    assert list(one._recorders) == [second.pk]
    assert Capture.objects.get(pk=first.pk).is_finished


def test_a_tick_claims_the_oldest_that_wait(hire: Callable[..., Supervisor]) -> None:
    one = hire(slots=2)
    captures = [make_capture(f"rtsp://127.0.0.1:9/{n}") for n in range(4)]
    Capture.objects.filter(pk=captures[0].pk).update(started_at=timezone.now())  # by number, whatever a clock says
    one.tick()
    assert sorted(one._recorders) == [captures[0].pk, captures[1].pk]


def test_so_many_recorders_are_started_in_a_tick_that_the_host_is_heard_meanwhile(
    hire: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STARTS", 2)
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.0)
    one = hire(slots=5)
    for n in range(5):
        make_capture(f"rtsp://127.0.0.1:9/{n}")
    one._heartbeat()
    started, heard = [], []
    for _ in range(3):
        before = set(one._recorders)
        with CaptureQueriesContext(connection) as queries:
            one.tick()
        started.append(len(set(one._recorders) - before))
        heard.append(sum(query["sql"].startswith('UPDATE "streams_host"') for query in queries.captured_queries))
    assert started == [2, 2, 1]
    assert heard[0] == 1 + 2  # once at first, and before each start
    assert supervisor.STARTS == 2


def test_sixteen_recorders_are_started_in_a_tick_at_most() -> None:
    assert supervisor.STARTS == 16


def test_a_camera_that_refuses_is_told_and_tried_again(camera: ScriptedCamera, north: Supervisor) -> None:
    make_capture(camera.url + "/nowhere", interval_s=INTERVAL_S)
    run(north, lambda: status() == "reconnecting")
    stream = Stream.objects.get()
    assert stream.error_code == "not_found"
    assert stream.attempt >= 1
    assert stream.next_attempt_at is not None


def test_the_host_that_captures_says_which_networks_it_connects_to(
    camera: ScriptedCamera, north: Supervisor, settings: Settings
) -> None:
    """The one that took the wish may have had other settings; what is refused now may be allowed later."""
    before = camera.connections
    make_capture(camera.url, interval_s=INTERVAL_S)
    settings.CAPTURE_ALLOWED_NETWORKS = parse_networks("10.0.0.0/8, ::1")
    run(north, lambda: status() == "reconnecting")
    assert Stream.objects.get().error_code == "address_refused"
    assert "CAPTURE_ALLOWED_NETWORKS" in Stream.objects.get().error_text
    assert Capture.objects.get().finished_at is None
    assert camera.connections == before


def test_a_certificate_is_verified_unless_the_stream_says_not_to(camera: ScriptedCamera, north: Supervisor) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    with TLSFront(camera.port, tls) as front:
        make_capture(f"rtsps://127.0.0.1:{front.port}/demo", interval_s=INTERVAL_S)
        make_capture(f"rtsps://localhost:{front.port}/demo", name="any", interval_s=INTERVAL_S)
        Stream.objects.filter(name="any").update(verify_certificate=False)
        run(north, lambda: set(Stream.objects.values_list("name", "status")) == {
            ("demo", "reconnecting"), ("any", "capturing"),
        })  # fmt: skip
    assert Stream.objects.get(name="demo").error_code == "certificate_refused"


def test_what_was_learned_of_a_camera_is_known_to_the_next_recorder_and_capture(
    north: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes straight to the transport that works; the page says that it is another one."""
    caplog.set_level(logging.INFO)
    with ScriptedCamera(SCENE, fault="no_tcp") as camera:

        def set_ups() -> int:
            return [request.method for request in camera.requests].count("SETUP")

        capture = make_capture(camera.url, interval_s=INTERVAL_S)
        run(north, lambda: Stream.objects.get().quirks == '{"transport":"udp"}')
        assert set_ups() == 2, "by TCP, which is refused, and by UDP"
        assert caplog.text.count('learned quirks={"transport":"udp"}') == 1
        (pid,) = pids(north)
        os.kill(pid, signal.SIGKILL)
        run(north, lambda: pids(north) not in ([], [pid]) and set_ups() == 3)
        run(north, lambda: Stream.objects.get().notices == Notice.OTHER_TRANSPORT)
        services.stop(capture.stream)
        run(north, lambda: Capture.objects.get().is_finished)
        services.start_again(capture.stream)
        run(north, lambda: Stream.objects.get().notices == Notice.OTHER_TRANSPORT)
        assert set_ups() == 4
        assert caplog.text.count("learned quirks") == 1


def test_an_address_that_must_not_be_connected_to_fails(north: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PULL_S", 1.5)  # a recorder looks at itself once it was left alone for a second
    capture = make_capture()
    Stream.objects.update(url="rtsp://169.254.169.254/latest")  # as no door lets it in
    run(north, lambda: Capture.objects.get().is_finished)
    capture.refresh_from_db()
    assert (capture.ending, capture.error_code, status()) == ("failed", "address_refused", "failed")
    assert pids(north) == []


def test_no_credential_is_on_a_recorders_command_line_or_in_its_environment(
    camera: ScriptedCamera, north: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", SECRET)
    make_capture(camera.url.replace("rtsp://", f"rtsp://admin:{SECRET}@"))
    run(north, lambda: status() == "capturing")
    (pid,) = pids(north)
    told = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    assert SECRET.encode() not in told


# --- what dies ------------------------------------------------------------------------------------


def test_a_recorder_that_is_killed_is_told_and_replaced_and_its_leaderboard_of_the_brightest_kept(
    camera: ScriptedCamera, north: Supervisor, media: Path
) -> None:
    capture = make_capture(camera.url, interval_s=INTERVAL_S, count=3)
    run(north, lambda: [round(score, -1) for _, score in frames_of(capture)] == [200, 200, 200])
    run(north, lambda: connections_in_timeline(capture) == 1)
    board, samples, (pid,) = frames_of(capture), Capture.objects.get().samples, pids(north)
    os.kill(pid, signal.SIGKILL)
    run(north, lambda: Stream.objects.get().error_code == "recorder_died")
    run(north, lambda: pids(north) not in ([], [pid]))
    assert is_gone(pid)
    run(north, lambda: status() == "capturing" and Capture.objects.get().samples > samples + 2)
    assert Capture.objects.get().connections == 2
    assert min(score for _, score in frames_of(capture)) >= min(score for _, score in board)
    assert len(frames_of(capture)) == 3
    assert frame_files(capture) == files(media)
    run(north, lambda: connections_in_timeline(capture) == 2)


def connections_in_timeline(capture: Capture) -> int:
    return sum(bucket.connections for _, bucket in queries.timeline_of(capture) or ())


def test_a_recorder_that_hangs_is_replaced(
    camera: ScriptedCamera, north: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "SILENT_S", 1.0)
    make_capture(camera.url, interval_s=INTERVAL_S)
    run(north, lambda: status() == "capturing")
    (pid,) = pids(north)
    os.kill(pid, signal.SIGSTOP)
    run(north, lambda: pids(north) not in ([], [pid]))
    assert is_gone(pid)


def test_a_recorder_that_hangs_while_it_is_stopped_is_ended_and_the_capture_finished(
    camera: ScriptedCamera, north: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LEAVE_GRACE_S", 0.5)
    capture = make_capture(camera.url, interval_s=INTERVAL_S, count=2)
    run(north, lambda: capture.frames.count() == 2)
    (pid,) = pids(north)
    os.kill(pid, signal.SIGSTOP)
    services.stop(capture.stream)
    run(north, lambda: Capture.objects.get().is_finished)
    assert is_gone(pid)
    assert Capture.objects.get().grid


def test_the_recorders_of_a_supervisor_that_is_gone_leave_by_themselves(
    camera: ScriptedCamera, north: Supervisor
) -> None:
    make_capture(camera.url, interval_s=INTERVAL_S)
    run(north, lambda: status() == "capturing")
    (pid,) = pids(north)
    north._recorders.popitem()[1].process._link.close()
    until(lambda: is_gone(pid))


# --- what is lost ---------------------------------------------------------------------------------


def test_a_claim_that_was_taken_ends_the_recorder_and_nothing_is_written(
    camera: ScriptedCamera, north: Supervisor, media: Path
) -> None:
    capture = make_capture(camera.url, interval_s=INTERVAL_S, count=2)
    run(north, lambda: capture.frames.count() == 2)
    (pid,) = pids(north)
    south = claims.register("south", 1)
    Capture.objects.update(claimed_by=south, epoch=F("epoch") + 1)
    before = (Capture.objects.values().get(), Stream.objects.values().get(), frames_of(capture), files(media))
    run(north, lambda: pids(north) == [])
    assert is_gone(pid)
    north.tick()
    assert before == (Capture.objects.values().get(), Stream.objects.values().get(), frames_of(capture), files(media))


def test_a_claim_that_was_taken_while_the_recorder_died_is_let_go(
    camera: ScriptedCamera, north: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies without a word: no report comes that would find the claim lost first."""
    capture = make_capture(camera.url, interval_s=INTERVAL_S)
    run(north, lambda: status() == "capturing")
    monkeypatch.setattr(supervisor, "PULL_S", 3600.0)
    run(north, lambda: north._recorders[capture.pk].process.asked_s is None)
    (pid,) = pids(north)
    south = claims.register("south", 1)
    Capture.objects.update(claimed_by=south, epoch=F("epoch") + 1)
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_gone(pid))
    before = Stream.objects.values().get()
    north.tick()
    assert pids(north) == []
    assert Stream.objects.values().get() == before


def test_a_supervisor_leaves_also_when_a_claim_is_lost_and_its_recorder_dead(
    camera: ScriptedCamera, other_camera: ScriptedCamera, north: Supervisor
) -> None:
    """Whatever happens to one of them, all recorders are ended and the host gives its claims back."""
    lost = make_capture(camera.url, interval_s=INTERVAL_S)
    kept = make_capture(other_camera.url, interval_s=INTERVAL_S)
    run(north, lambda: Stream.objects.filter(status="capturing").count() == 2)
    all_pids = pids(north)
    south = claims.register("south", 1)
    Capture.objects.filter(pk=lost.pk).update(claimed_by=south, epoch=F("epoch") + 1)
    pid = north._recorders[lost.pk].process.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_gone(pid))
    north.leave()
    assert [pid for pid in all_pids if not is_gone(pid)] == []
    assert Capture.objects.get(pk=kept.pk).claimed_by is None
    assert Capture.objects.get(pk=lost.pk).claimed_by == south


def test_a_silent_hosts_capture_is_taken_over_with_what_it_had(
    camera: ScriptedCamera, hire: Callable[..., Supervisor], media: Path
) -> None:
    north, south = hire("north"), hire("south")
    capture = make_capture(camera.url, interval_s=INTERVAL_S, count=3)
    run(north, lambda: capture.frames.count() == 3)
    samples = Capture.objects.get().samples
    make_witness()
    silence(north.host, CLAIM_S + 1)
    run(south, lambda: Capture.objects.get().host_name == "south" and Capture.objects.get().samples > samples + 3)
    before = Capture.objects.get().connections
    assert before == 2
    run(north, lambda: pids(north) == [])
    assert len(pids(south)) == 1
    assert frame_files(capture) == files(media)


# --- waiting to ask a camera again ----------------------------------------------------------------


@pytest.fixture
def locked() -> Iterator[ScriptedCamera]:
    with ScriptedCamera(SCENE, fault="auth_refused") as camera:
        yield camera


def stream() -> Stream:
    return Stream.objects.get()


def kill_the_recorder(one: Supervisor, hire: Callable[..., Supervisor]) -> Supervisor:
    (pid,) = pids(one)
    os.kill(pid, signal.SIGKILL)
    run(one, lambda: pids(one) not in ([], [pid]))
    return one


def kill_the_supervisor(one: Supervisor, hire: Callable[..., Supervisor]) -> Supervisor:
    for recorder in one._recorders.values():
        recorder.process.end()
    one._recorders.clear()
    return hire("north")


def change_the_host(one: Supervisor, hire: Callable[..., Supervisor]) -> Supervisor:
    one.leave()
    return hire("south")


@pytest.mark.parametrize("change", [kill_the_recorder, kill_the_supervisor, change_the_host])
def test_whoever_comes_next_waits_on_and_the_camera_sees_no_further_try(
    locked: ScriptedCamera, hire: Callable[..., Supervisor], change: Callable[..., Supervisor]
) -> None:
    one = hire("north")
    capture = make_capture(locked.url, interval_s=INTERVAL_S)
    run(one, lambda: stream().next_attempt_at is not None)
    before = (stream().attempt, stream().next_attempt_at, locked.connections)
    assert (before[0], stream().error_code) == (1, "auth_refused")
    other = change(one, hire)
    run(other, lambda: other._recorders and other._recorders[capture.pk].last)
    asked = iter(range(8))
    run(other, lambda: next(asked) == 7)
    assert (stream().attempt, stream().next_attempt_at, locked.connections) == before
    assert (status(), stream().error_code) == ("reconnecting", "auth_refused")


def test_a_wait_that_is_over_is_not_waited_for_and_attempts_are_counted_on(
    locked: ScriptedCamera, north: Supervisor, hire: Callable[..., Supervisor]
) -> None:
    make_capture(locked.url, interval_s=INTERVAL_S)
    run(north, lambda: stream().next_attempt_at is not None)
    before = locked.connections
    Stream.objects.update(next_attempt_at=timezone.now())
    kill_the_recorder(north, hire)
    run(north, lambda: stream().attempt == 2)
    assert locked.connections > before
    wait_s = ((stream().next_attempt_at or timezone.now()) - timezone.now()).total_seconds()
    assert 60 < wait_s <= 150  # the second step of the ladder: 120 s and up to a quarter more


def test_a_person_who_stops_and_starts_is_not_made_to_wait(locked: ScriptedCamera, north: Supervisor) -> None:
    capture = make_capture(locked.url, interval_s=INTERVAL_S)
    run(north, lambda: stream().next_attempt_at is not None)
    services.stop(capture.stream)
    run(north, lambda: Capture.objects.get().is_finished)
    before = locked.connections
    make_capture(locked.url, interval_s=INTERVAL_S)
    assert (stream().attempt, stream().next_attempt_at) == (0, None)
    run(north, lambda: stream().attempt == 1 and locked.connections > before)


def test_a_path_that_was_changed_is_tried_at_once(camera: ScriptedCamera, north: Supervisor) -> None:
    capture = make_capture(camera.url + "/nowhere", interval_s=INTERVAL_S)
    run(north, lambda: stream().next_attempt_at is not None)
    wait_s = ((stream().next_attempt_at or timezone.now()) - timezone.now()).total_seconds()
    assert (stream().error_code, wait_s > 30) == ("not_found", True)
    services.stop(capture.stream)
    run(north, lambda: Capture.objects.get().is_finished)
    services.start_again(services.change_stream(stream(), services.Change(address=parse(camera.url))))
    assert (stream().attempt, stream().next_attempt_at) == (0, None)
    run(north, lambda: status() == "capturing")


# --- what is written ------------------------------------------------------------------------------


@contextmanager
def writes_to(*tables: str) -> Iterator[list[str]]:
    """Filled at the end of the block."""
    found: list[str] = []
    with CaptureQueriesContext(connection) as queries:
        yield found
    verbs = ("UPDATE", "INSERT INTO", "DELETE FROM")
    heads = tuple(f'{verb} "streams_{table}"' for verb in verbs for table in tables)
    found += [query["sql"] for query in queries.captured_queries if query["sql"].startswith(heads)]


def test_a_report_that_says_nothing_new_is_not_written(locked: ScriptedCamera, north: Supervisor) -> None:
    capture = make_capture(locked.url, interval_s=INTERVAL_S)
    run(north, lambda: stream().next_attempt_at is not None)
    (recorder,) = north._recorders.values()
    run(north, lambda: recorder.last)
    settled_s = recorder.settled_s
    with writes_to("capture", "stream", "frame") as found:
        run(north, lambda: recorder.settled_s > settled_s + 1.0)
    assert found == []
    assert capture.pk in north._recorders


def test_a_status_is_written_when_it_changes_and_only_then(camera: ScriptedCamera, north: Supervisor) -> None:
    make_capture(camera.url, interval_s=INTERVAL_S)
    with writes_to("stream") as first:
        run(north, lambda: status() == "capturing")
    assert len([sql for sql in first if "capturing" in sql]) == 1
    samples = Capture.objects.get().samples
    with writes_to("stream") as found:
        run(north, lambda: Capture.objects.get().samples > samples + 5)
    assert found == []


def test_a_recorder_that_always_has_news_is_asked_now_and_then(
    north: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was taken over says: each answer is written, and the database is everybody's."""
    monkeypatch.setattr(recorder_module, "record", lying_recorder.record)
    make_capture("rtsp://127.0.0.1:9/restless")
    begun_s = time.monotonic()
    run(north, lambda: Capture.objects.get().samples > 10)
    assert Capture.objects.get().samples <= (time.monotonic() - begun_s) / supervisor.NEWS_S + 1


def unsaved_s(one: Supervisor) -> float:
    host = Host.objects.get(pk=one.host.pk)
    return (host.heartbeat_at - host.saved_at).total_seconds()


def test_a_host_says_how_old_the_oldest_thing_is_that_is_not_saved(
    camera: ScriptedCamera, other_camera: ScriptedCamera, north: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two recorders hangs."""
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(supervisor, "SILENT_S", 60.0)
    make_capture(other_camera.url, interval_s=INTERVAL_S)
    capture = make_capture(camera.url, interval_s=INTERVAL_S)
    run(north, lambda: Stream.objects.filter(status="capturing").count() == 2 and unsaved_s(north) < 2)
    pid = north._recorders[capture.pk].process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        run(north, lambda: unsaved_s(north) > 3)
    finally:
        os.kill(pid, signal.SIGCONT)
    run(north, lambda: unsaved_s(north) < 2)


# --- leaving --------------------------------------------------------------------------------------


def test_a_supervisor_that_leaves_saves_and_gives_back(
    camera: ScriptedCamera, north: Supervisor, media: Path
) -> None:
    capture = make_capture(camera.url, interval_s=INTERVAL_S, count=4)
    run(north, lambda: capture.frames.count() == 4)
    (pid,) = pids(north)
    teardowns = camera.teardowns
    north.leave()
    assert is_gone(pid)
    assert camera.teardowns == teardowns + 1
    capture.refresh_from_db()
    assert (capture.claimed_by, capture.finished_at, status()) == (None, None, "queued")
    assert not Host.objects.filter(claims.is_alive()).exists()
    assert frame_files(capture) == files(media)
    assert isinstance(north.cluster, NoCluster)
    assert north.cluster.told[-2:] == ["stop", "join"]


def test_the_next_supervisor_goes_on_where_the_last_one_left(
    camera: ScriptedCamera, hire: Callable[..., Supervisor]
) -> None:
    north = hire("north")
    capture = make_capture(camera.url, interval_s=INTERVAL_S, count=3)
    run(north, lambda: capture.frames.count() == 3)
    north.leave()
    board, samples = frames_of(capture), Capture.objects.get().samples
    south = hire("south")
    run(south, lambda: Capture.objects.get().samples > samples)
    capture.refresh_from_db()
    assert (capture.host_name, capture.epoch, capture.connections) == ("south", 2, 2)
    assert min(score for _, score in frames_of(capture)) >= min(score for _, score in board)


def test_one_whose_name_is_taken_while_it_leaves_ends_its_recorders_all_the_same(
    camera: ScriptedCamera, north: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each heartbeat says so, also one between two rounds, when a recorder has something to say."""
    monkeypatch.setattr(supervisor, "HOST_LEAVE_S", 1.0)
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.0)
    make_capture(camera.url, interval_s=INTERVAL_S)
    run(north, lambda: status() == "capturing")
    (pid,) = pids(north)
    Host.objects.update(epoch=F("epoch") + 1)
    monkeypatch.setattr(north, "_listen", lambda wait_s: True)
    north.leave()
    assert is_gone(pid)
    assert isinstance(north.cluster, NoCluster)
    assert north.cluster.told[-2:] == ["stop", "join"]


def test_a_recorder_that_hangs_does_not_keep_a_supervisor_from_leaving(
    camera: ScriptedCamera, north: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LEAVE_GRACE_S", 0.5)
    capture = make_capture(camera.url, interval_s=INTERVAL_S)
    run(north, lambda: status() == "capturing")
    (pid,) = pids(north)
    os.kill(pid, signal.SIGSTOP)
    north.leave()
    assert is_gone(pid)
    capture.refresh_from_db()
    assert capture.claimed_by is None


# --- one fault does not hold up the others --------------------------------------------------------


class Refusing(FileSystemStorage):
    """Refuses one capture's files with an error of its own, as object stores do."""

    refused = ""
    is_full = False
    refusals = 0

    def _save(self, name: str, content: Any) -> str:
        if self.is_full:
            self.refusals += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.refused and self.refused in name:
            self.refusals += 1
            raise ConnectionResetError if "grids" in name else RuntimeError("503 Slow Down")
        return str(super()._save(name, content))  # type: ignore[misc]


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch, media: Path) -> Refusing:
    storage = Refusing(location=media)
    for field in (Frame._meta.get_field("image"), Capture._meta.get_field("grid")):
        monkeypatch.setattr(field, "storage", storage)
    return storage


def bold_run(one: Supervisor, condition: Callable[[], object]) -> None:
    """Ticks as the command does: whatever a tick raises is logged, and the next one comes."""

    def is_met() -> bool:
        try:
            one.tick()
        except Exception as error:  # noqa: BLE001, RUF100
            print(f"tick failed: {error!r}")
        return bool(condition())

    until(is_met, 10.0, pause=one.wait)


def test_a_grid_that_cannot_be_written_does_not_hold_up_other_captures(
    camera: ScriptedCamera, north: Supervisor, refusing: Refusing
) -> None:
    poison = make_capture("rtsp://127.0.0.1:9/poison")
    claim = make_claim(poison, north.host)
    services.checkpoint(claim, services.Totals(), make_report(make_picture(1)))
    services.stop(poison.stream)
    services.hand_over(claim)
    refusing.refused = "grids"
    bold_run(north, lambda: refusing.refusals)
    make_capture(camera.url, interval_s=INTERVAL_S)
    bold_run(north, lambda: Stream.objects.get(name="demo").status == "capturing")


def test_a_stream_that_cannot_be_read_does_not_hold_up_other_captures(
    camera: ScriptedCamera, north: Supervisor
) -> None:
    make_capture("rtsp://127.0.0.1:9/poison")
    Stream.objects.update(url="rtsp://an address that a later version refuses/")
    make_capture(camera.url, interval_s=INTERVAL_S)
    bold_run(north, lambda: Stream.objects.get(name="demo").status == "capturing")


def test_frames_that_cannot_be_written_do_not_hold_up_other_captures(
    camera: ScriptedCamera, other_camera: ScriptedCamera, north: Supervisor, refusing: Refusing
) -> None:
    poison = make_capture(other_camera.url, interval_s=INTERVAL_S)
    refusing.refused = f"frames/{poison.pk}/"
    capture = make_capture(camera.url, interval_s=INTERVAL_S, count=3)
    bold_run(north, lambda: capture.frames.count() == 3 and refusing.refusals)
    services.stop(capture.stream)
    bold_run(north, lambda: Capture.objects.get(pk=capture.pk).is_finished)
    assert poison.frames.count() == 0


def test_a_recorder_that_cannot_be_started_is_told_and_tried_again_later_and_later(
    camera: ScriptedCamera, north: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The socket of the fork server lies in TMPDIR: a path of more than 108 bytes is an error without a number."""
    capture = make_capture(camera.url, interval_s=INTERVAL_S)

    def refuse(*_: Any) -> None:
        raise OSError("AF_UNIX path too long")

    with monkeypatch.context() as broken:
        broken.setattr(supervisor, "RecorderProcess", refuse)
        broken.setattr("streams.engine.backoff.LADDERS", dict.fromkeys(Retry, (1e9, 1e9)))
        for _ in range(50):
            north.tick()
    lines = [message for message in caplog.messages if "not started" in message]
    once = f"capture={capture.pk} recorder not started error=AF_UNIX path too long"
    assert lines == [once] * 2  # the second at once
    north._restarts[capture.pk].at_s = 0.0
    run(north, lambda: Capture.objects.get().samples)


def test_a_tick_outlives_what_one_captures_storage_does_to_it(
    camera: ScriptedCamera, north: Supervisor, refusing: Refusing
) -> None:
    poison = make_capture(camera.url, interval_s=INTERVAL_S)
    refusing.refused = f"frames/{poison.pk}/"
    run(north, lambda: refusing.refusals)
    refusing.refused = ""
    run(north, lambda: poison.frames.count())


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """All that recorders reported and the supervisor tried to save."""
    seen: list[Report] = []
    checkpoint = services.checkpoint

    def note(claim: claims.Claim, base: services.Totals, report: Report, *more: Any) -> frozenset[int]:
        seen.append(report)
        return checkpoint(claim, base, report, *more)

    monkeypatch.setattr(services, "checkpoint", note)
    return seen


class Storage:
    """Where nothing can be written until it is repaired."""

    def __init__(self, refusing: Refusing, media: Path, is_full: bool) -> None:
        self._refusing, self._file = refusing, media / "frames"
        refusing.is_full = is_full
        if not is_full:
            self._file.write_bytes(b"")  # in place of the folder: root may write in any folder

    def repair(self) -> None:
        self._refusing.is_full = False
        if self._file.is_file():
            self._file.unlink()


@pytest.fixture(params=[True, False], ids=["full", "unwritable"])
def broken(request: pytest.FixtureRequest, refusing: Refusing, media: Path) -> Storage:
    return Storage(refusing, media, request.param)


def brightest(report: Report) -> list[float]:
    return [round(score, -1) for _, score in report.board]


def test_what_is_sampled_while_nothing_can_be_written_is_kept_told_and_saved_later(
    camera: ScriptedCamera,
    north: Supervisor,
    broken: Storage,
    reports: list[Report],
    client: Client,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    caplog.set_level(logging.INFO, "streams")
    capture = make_capture(camera.url, interval_s=INTERVAL_S, count=3)
    run(north, lambda: stream().notices and Capture.objects.get().samples > 5 and brightest(reports[-1]) == [200] * 3)
    samples = Capture.objects.get().samples
    assert (status(), stream().notices, capture.frames.count()) == ("capturing", "storage_full", 0)
    page = f"/captures/{capture.pk}/"
    assert Notice.STORAGE_FULL.words in read(client.get(page).content.decode()).text
    assert Notice.STORAGE_FULL.words in read(client.get("/").content.decode()).text
    notices = {"storage_full": Notice.STORAGE_FULL.words}
    assert client.get(page, headers={"accept": API}).json()["notices"] == notices
    (pid,) = pids(north)
    broken.repair()
    run(north, lambda: capture.frames.count() == 3 and not stream().notices)
    assert pids(north) == [pid]
    assert tuple(frames_of(capture)) == reports[-1].board
    assert min(number for number, _ in frames_of(capture)) <= samples
    said = [record.getMessage() for record in caplog.records if " checkpoint " in record.getMessage()]
    assert ["failed" in said[0], "worked again" in said[1], len(said)] == [True, True, 2]
    assert client.get(page, headers={"accept": API}).json()["notices"] == {}


def test_a_camera_that_numbers_its_pictures_in_its_own_way_is_captured_and_the_log_names_the_rule(
    north: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten pictures to a group, each with the number after the next: a gap in each group."""
    caplog.set_level(logging.INFO, "streams")
    clip = encode(Scene(320, 240, (40, 200, 90, 120), fps=25, gop_s=0.4))
    odd = [replace(unit, data=annex_b(*renumbered(split_nals(unit.data), 2))) for unit in clip.units]
    packets = sum(len(payloads("h264", unit)) for unit in odd)

    def feed() -> Iterator[bytes]:
        for number in itertools.count():
            yield hostile.sent(odd, clip, number * len(odd) * 3600, number * packets)
            time.sleep(0.1)  # 40 times as fast as it was filmed

    with hostile.camera(clip, feed) as camera:
        capture = make_capture(camera.url, interval_s=INTERVAL_S)
        run(
            north,
            lambda: "frame_num_off" in stream().notice_sentences and Capture.objects.get(pk=capture.pk).samples > 20,
        )
    said = [record.getMessage() for record in caplog.records if "stood down" in record.getMessage()]
    assert said == [f"stream={stream().name} capture={capture.pk} rule stood down rule=frame_num"]


def test_a_stop_after_pictures_that_were_all_rejected_names_the_reason(
    north: Supervisor, client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last packet but one is missing of each."""
    settings.ALLOWED_HOSTS = ["*"]
    monkeypatch.setattr("streams.outcomes.STOP_WAIT_S", 0.01)
    clip = encode(Scene(320, 240, (90, 120), fps=10, gop_s=0.2, noise=6.0))
    parts = payloads("h264", clip.units[0])

    def feed() -> Iterator[bytes]:
        for number in itertools.count():
            for at, part in enumerate(parts):
                if at != len(parts) - 2:
                    packet = RTPPacket(number * len(parts) + at, number * 9000, at == len(parts) - 1, part)
                    yield framed(0, packet.pack(96, 0x5EED))
            time.sleep(0.02)

    with hostile.camera(clip, feed) as camera:
        capture = make_capture(camera.url, interval_s=INTERVAL_S)
        run(north, lambda: Capture.objects.get(pk=capture.pk).rejected > 3)
        assert stop(client, "live").status_code == 202
        run(north, lambda: Capture.objects.get(pk=capture.pk).is_finished)
    said = client.get(f"/captures/{capture.pk}/", headers={"accept": API}).json()
    assert (said["code"], said["samples"], said["error"]["code"]) == ("not_enough_frames", 0, "undecodable")
    assert "rejected" in said["error"]["message"]


def test_a_stop_while_nothing_can_be_written_answers_later_and_loses_nothing(
    camera: ScriptedCamera,
    north: Supervisor,
    broken: Storage,
    reports: list[Report],
    client: Client,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    monkeypatch.setattr("streams.outcomes.STOP_WAIT_S", 0.01)
    monkeypatch.setattr(supervisor, "FRESH", 2)  # its last words come in parts
    capture = make_capture(camera.url, interval_s=INTERVAL_S, count=3)
    run(north, lambda: stream().notices and brightest(reports[-1]) == [200] * 3)
    assert stop(client).status_code == 202
    run(north, lambda: reports[-1].is_final and stream().notices)
    assert (status(), Capture.objects.get().is_finished, capture.frames.count()) == ("stopping", False, 0)
    again = stop(client)
    assert again.status_code == 202
    assert Notice.STORAGE_FULL.words in read(again.content.decode()).text
    broken.repair()
    run(north, lambda: Capture.objects.get().is_finished)
    assert tuple(frames_of(capture)) == reports[-1].board
    assert (stop(client).status_code, stream().notices) == (200, "")


@pytest.mark.parametrize("broken", [True], ids=["full"], indirect=True)
def test_a_host_says_how_old_the_oldest_thing_is_that_cannot_be_written(
    camera: ScriptedCamera, north: Supervisor, broken: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.1)
    make_capture(camera.url, interval_s=INTERVAL_S)
    run(north, lambda: unsaved_s(north) > 3)
    broken.repair()
    run(north, lambda: unsaved_s(north) < 2)


def test_a_capture_that_fails_while_its_grid_cannot_be_written_does_not_end_the_round(
    camera: ScriptedCamera, north: Supervisor, refusing: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its address is refused from now on, it has frames, and another host had it before."""
    capture = make_capture()
    Stream.objects.update(url="rtsp://169.254.169.254/latest")
    claim = make_claim(capture, claims.register("south", 1))
    services.checkpoint(claim, services.Totals(), make_report(make_picture(1)))
    claims.release(claim)
    refusing.is_full = True
    run(north, lambda: refusing.refusals)
    assert stream().notices == "storage_full"
    refusing.is_full = False
    run(north, lambda: Capture.objects.get().is_finished)
    assert (Capture.objects.get().ending, bool(Capture.objects.get().grid)) == ("failed", True)


def bytes_of(report: Report) -> int:
    return sum(len(picture.jpeg) for picture in report.fresh)


LARGE = Scene(640, 480, plan=(40, 200, 90, 120), fps=25, gop_s=0.4, noise=12)


def test_a_long_answer_is_heard_to_its_end_after_a_pause_of_the_supervisor(
    north: Supervisor, refusing: Refusing, reports: list[Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database was away: an answer larger than a socket's buffer was on its way for longer than is allowed."""
    monkeypatch.setattr(supervisor, "SILENT_S", 3.0)
    refusing.is_full = True  # so that all pictures come with each answer
    with ScriptedCamera(LARGE) as camera:
        capture = make_capture(camera.url, interval_s=INTERVAL_S, count=16)
        run(north, lambda: max(map(bytes_of, reports[-2:]), default=0) > 500_000)
        (recorder,) = north._recorders.values()
        process = recorder.process
        run(north, lambda: process.asked_s is not None and select.select([process], [], [], 0.0)[0])
        until(lambda: time.monotonic() > (process.asked_s or 0.0) + 3.5)
        os.kill(process.pid, signal.SIGSTOP)  # no more than what lies in the buffer comes at first
        north.tick()
        os.kill(process.pid, signal.SIGCONT)
        refusing.is_full = False
        run(north, lambda: capture.frames.count() == 16)
        assert pids(north) == [process.pid]


@contextmanager
def database_away() -> Iterator[None]:
    """Every statement about captures fails, as all do when the server is gone."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE streams_capture RENAME TO streams_capture_away")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE streams_capture_away RENAME TO streams_capture")


def test_recorders_say_farewell_also_when_the_database_is_away(camera: ScriptedCamera, north: Supervisor) -> None:
    capture = make_capture(camera.url, interval_s=INTERVAL_S)
    run(north, lambda: capture.frames.count() >= 2)
    with database_away():
        (pid,) = pids(north)
        farewells = camera.teardowns
        north.leave()
        until(lambda: is_gone(pid))
        assert camera.teardowns == farewells + 1
    assert capture.frames.count() >= 2


def test_a_capture_outlives_a_database_that_is_away(camera: ScriptedCamera, north: Supervisor) -> None:
    capture = make_capture(camera.url, interval_s=INTERVAL_S)
    run(north, lambda: capture.frames.count() >= 2)
    before = (pids(north), camera.connections)
    with database_away():
        for _ in range(3):
            north.tick()
            north.wait()
    capture.refresh_from_db()
    samples = capture.samples
    run(north, lambda: Capture.objects.get(pk=capture.pk).samples > samples)
    assert (pids(north), camera.connections) == before


# --- hosts that share the work --------------------------------------------------------------------


@pytest.mark.parametrize("hosts", [1, 2, 3])
def test_hosts_let_each_other_make_a_grid_that_takes_long(hosts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that begins voids the grid that another one is making."""
    monkeypatch.setattr(supervisor, "FINISH_AFTER_S", 0.3)
    capture = make_capture()
    record(capture)
    services.stop(capture.stream)
    compose = services._compose

    def slowly(one: Capture, meanwhile: services.Meanwhile) -> services._Composed:
        time.sleep(0.8)
        return compose(one, meanwhile)

    monkeypatch.setattr(services, "_compose", slowly)
    those = iter([claims.register(f"host-{n}", 1) for n in range(hosts)])

    def work() -> None:
        run(Supervisor(next(those), NoCluster()), lambda: Capture.objects.get().is_finished)

    at_once(hosts, work)
    assert Capture.objects.get().grid


def test_a_host_lives_while_it_makes_grids(north: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(4):
        services.stop(make_capture(f"rtsp://camera-{n}.example/demo").stream)
    beats: list[int] = []
    finished: list[int] = []
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.0)
    monkeypatch.setattr(claims, "heartbeat", lambda *_: beats.append(len(finished)))
    monkeypatch.setattr(services, "finish", lambda capture_id, _: finished.append(capture_id))
    run(north, lambda: len(finished) >= 4)
    assert set(range(4)) <= set(beats)


def test_a_silent_hosts_capture_that_nobody_has_room_for_waits_and_says_so(hire: Callable[..., Supervisor]) -> None:
    north, full = hire("north"), hire("full", slots=0)
    capture = make_capture()
    claim = make_claim(capture, north.host)
    services.checkpoint(claim, services.Totals(), make_report(make_picture(1)))
    make_witness()
    full.tick()
    assert (status(), Capture.objects.get().claimed_by) == ("capturing", north.host)
    silence(north.host, CLAIM_S + 1)
    full.tick()
    assert (status(), Capture.objects.get().claimed_by) == ("queued", None)


def test_a_host_without_the_key_of_a_password_leaves_the_camera_alone(
    camera: ScriptedCamera, north: Supervisor, settings: Settings
) -> None:
    settings.CREDENTIALS_KEYS = [Fernet.generate_key().decode()]
    capture = make_capture(camera.url.replace("rtsp://", f"rtsp://admin:{SECRET}@"))
    settings.CREDENTIALS_KEYS = [Fernet.generate_key().decode()]
    before = camera.connections
    run(north, lambda: Stream.objects.get().error_code == "credentials_sealed")
    north.tick()
    assert (pids(north), camera.connections, status()) == ([], before, "reconnecting")
    assert Capture.objects.get(pk=capture.pk).claimed_by == north.host


def test_many_pictures_are_saved_a_few_at_a_time_with_heartbeats_between(
    camera: ScriptedCamera, north: Supervisor, refusing: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FRESH", 2)
    capture = make_capture(camera.url, interval_s=INTERVAL_S, count=7)
    refusing.refused = f"frames/{capture.pk}/"
    run(north, lambda: Capture.objects.get().samples > 9)
    saved: list[int] = []
    timelines: list[int] = []
    """To how many fresh pictures the timeline came."""
    beats: list[int] = []
    checkpoint, heartbeat = services.checkpoint, claims.heartbeat

    def note(claim: claims.Claim, base: services.Totals, report: Report, *more: Any) -> frozenset[int]:
        saved.append(len(report.fresh))
        timelines.extend([len(report.fresh)] if report.timeline else [])
        return checkpoint(claim, base, report, *more)

    def beat(host: Host, unsaved_s: float) -> None:
        beats.append(len(saved))
        heartbeat(host, unsaved_s)

    monkeypatch.setattr(services, "checkpoint", note)
    monkeypatch.setattr(claims, "heartbeat", beat)
    monkeypatch.setattr(claims, "HEARTBEAT_S", 0.0)
    refusing.refused = ""
    run(north, lambda: capture.frames.count() == 7)
    assert max(saved) == 2
    run(north, lambda: timelines)
    assert set(timelines) <= {0, 1}  # with the last part
    assert set(range(1, 4)) <= set(beats)


# --- a fault of one capture -----------------------------------------------------------------------


def delays(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if " delayed " in record.getMessage()]


def test_a_capture_that_cannot_be_started_delays_itself_alone_and_is_reported_once(
    camera: ScriptedCamera, north: Supervisor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the oldest, so that each round comes to it first."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(supervisor, "DELAYS_S", (0.01,))
    bad = make_capture("rtsp://127.0.0.1:9/bad")
    Capture.objects.filter(pk=bad.pk).update(interval_s=-1.0)
    make_capture(camera.url, interval_s=INTERVAL_S)
    run(north, lambda: Stream.objects.get(name="demo").status == "capturing")
    run(north, lambda: north._delays[bad.pk].tries > 2)
    (line,) = delays(caplog)
    assert line.startswith(f"stream=bad capture={bad.pk} delayed error=ValidationError")
    assert north._recorders.keys().isdisjoint({bad.pk})
    Capture.objects.filter(pk=bad.pk).update(interval_s=1.0)
    run(north, lambda: bad.pk in north._recorders)
    assert f"stream=bad capture={bad.pk} goes on" in caplog.text


def test_a_fault_while_a_report_is_saved_keeps_the_recorder_and_what_it_has(
    camera: ScriptedCamera,
    other_camera: ScriptedCamera,
    north: Supervisor,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "DELAYS_S", (0.01,))
    bad = make_capture(camera.url, interval_s=INTERVAL_S, count=100)
    good = make_capture(other_camera.url, interval_s=INTERVAL_S)
    real = services.checkpoint

    def checkpoint(claim: claims.Claim, *given: Any) -> frozenset[int]:
        if claim.capture_id == bad.pk:
            raise RuntimeError("a fault of one")
        return real(claim, *given)

    with monkeypatch.context() as faulty:
        faulty.setattr(services, "checkpoint", checkpoint)
        run(north, lambda: bad.pk in north._recorders)
        recorder = north._recorders[bad.pk].process.pid
        run(north, lambda: Capture.objects.get(pk=good.pk).samples > 5 and north._delays[bad.pk].tries > 2)
    assert len(delays(caplog)) == 1
    assert "a fault of one" in delays(caplog)[0]
    run(north, lambda: Capture.objects.get(pk=bad.pk).samples > 5)
    assert north._recorders[bad.pk].process.pid == recorder
    bad.refresh_from_db()
    assert sorted(number for number, _ in frames_of(bad)) == list(range(1, bad.samples + 1))
    assert north._delays == {}


def test_a_fault_while_a_capture_is_finished_or_handed_over_delays_no_other(
    north: Supervisor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "DELAYS_S", (0.01,))
    captures = [make_capture(f"rtsp://127.0.0.1:9/{name}") for name in ("finish", "hand", "good")]
    make_claim(captures[1], north.host)
    for capture in captures:
        services.stop(capture.stream)
    real_finish, real_release = services.finish, claims.release

    def finish(capture_id: int, *given: Any) -> bool:
        if capture_id == captures[0].pk:
            raise RuntimeError("a fault of its grid")
        return real_finish(capture_id, *given)

    def release(claim: claims.Claim) -> bool:
        if claim.capture_id == captures[1].pk:
            raise RuntimeError("a fault of its claim")
        return real_release(claim)

    with monkeypatch.context() as faulty:
        faulty.setattr(services, "finish", finish)
        faulty.setattr(claims, "release", release)
        run(north, lambda: Capture.objects.get(pk=captures[2].pk).is_finished and len(north._delays) == 2)
        ticks = iter(range(3))
        run(north, lambda: next(ticks) == 2)
    assert len(delays(caplog)) == 2
    run(north, lambda: not Capture.objects.filter(finished_at=None).exists())


def test_credentials_that_cannot_be_read_stop_no_other_capture(
    camera: ScriptedCamera, north: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    bad = make_capture("rtsp://127.0.0.1:9/bad")
    Stream.objects.filter(pk=bad.stream_id).update(credentials='{"username": "a", "password": "b", "query": []}')
    make_capture(camera.url, interval_s=INTERVAL_S)
    run(north, lambda: Stream.objects.get(name="demo").status == "capturing")
    bad.stream.refresh_from_db()
    assert (bad.stream.status, bad.stream.error_code) == ("reconnecting", "credentials_sealed")
    assert "Traceback" not in caplog.text
