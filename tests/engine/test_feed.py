"""One RTSP connection, against the scripted camera over TCP: its packets, its errors, its farewell."""

import fcntl
import hashlib
import math
import struct
import termios
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice, pairwise
from typing import Any, cast
from urllib.parse import quote

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from hypothesis import given
from hypothesis import strategies as st

from streams.engine import decoder, errors, feed, rtsp
from streams.engine.address import Address, parse
from streams.engine.clock import Stop, Stopped
from streams.engine.decoder import LibavDecoder
from streams.engine.errors import CaptureError
from streams.engine.feed import RTSPFeed, open_feed
from streams.engine.pace import Pace
from streams.engine.resolver import resolve
from streams.engine.rtp import CodedPicture, depacketizer
from streams.engine.rtsp import RTSPSession
from streams.engine.sdp import Track
from tests.camera import clip
from tests.camera.clip import AccessUnit, Clip, Codec, Scene, split_nals
from tests.camera.faults import Fault
from tests.camera.server import ScriptedCamera
from tests.camera.viewer import wait_until

from . import rtp_film

SCENE = Scene(320, 240, (40, 200, 90, 120), fps=50, gop_s=0.2)
HARD = "p@s/w:r%d? ö日"
ENOUGH = 40


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket is silent for long after half a second; that is still long for a camera on the same machine."""
    monkeypatch.setattr(rtsp, "SOCKET_TIMEOUT_S", 0.5)
    monkeypatch.setattr(rtsp, "ANSWER_S", 0.5)
    monkeypatch.setattr(feed, "FIRST_PACKET_S", 0.5)
    monkeypatch.setattr(feed, "SILENCE_S", 0.5)


def address_of(camera: ScriptedCamera) -> Address:
    return parse(camera.url_with_credentials)


def watch(address: Address, transport: str = "tcp", packets: int = ENOUGH) -> list[feed.Packet]:
    with open_feed(address, transport, Stop()) as opened:
        return list(islice(opened.packets(), packets))


def failure(camera: ScriptedCamera, transport: str = "tcp") -> CaptureError:
    with pytest.raises(CaptureError) as caught:
        watch(address_of(camera), transport, packets=500)
    return caught.value


# --- each fault ---


@dataclass(frozen=True, slots=True)
class Case:
    fault: str
    error: type[CaptureError]
    transport: str = "tcp"


# What opening and receiving raise test_rtsp.py has; these are the feed's own, and one that goes through it.
CASES = [
    Case("auth_refused", errors.AuthRefused),
    Case("silent_play", errors.TransportRefused),
    Case("silent_play", errors.TransportRefused, "udp"),
    Case("stall_after:0.3", errors.Stalled),
    Case("stall_after:0.3", errors.Stalled, "udp"),
    Case("close_after:0.3", errors.Closed),
    Case("close_after:0.3", errors.Closed, "udp"),
    Case("bye_after:0.3", errors.Closed, "udp"),
    Case("unknown_codec", errors.Undecodable),
]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.fault}-{case.transport}")
def test_each_fault_is_the_right_error_tells_no_password_and_leaves_nothing_behind(case: Case) -> None:
    with ScriptedCamera(SCENE, fault=case.fault, username="user", password=HARD) as camera:
        error = failure(camera, case.transport)
        wait_until(lambda: camera.clients == 0)
    told = "".join(traceback.format_exception(error)) + repr(error)
    assert not [form for form in (HARD, quote(HARD, safe=""), quote(HARD)) if form in told]
    assert type(error) is case.error, told


@pytest.mark.parametrize("fault", ["no_sprop", "no_timestamps", "jumping_timestamps:10", "bursts:0.5"])
def test_a_camera_that_is_merely_odd_is_watched(fault: str) -> None:
    """What is odd about its answers is for test_rtsp.py."""
    with ScriptedCamera(SCENE, fault=fault) as camera:
        assert len(watch(address_of(camera))) == ENOUGH


class _Latin1(str):
    """A description in another encoding than RFC 4566 wants: UTF-8."""

    def encode(self, *_: str) -> bytes:
        return str(self).encode("latin-1")


def test_a_description_in_latin_1_is_no_error() -> None:
    fault = Fault("names itself in Latin-1", edit_sdp=lambda sdp: _Latin1(sdp.replace("Scripted", "Küchen")))
    with ScriptedCamera(SCENE, fault=fault) as camera:
        assert len(watch(address_of(camera), packets=5)) == 5


def test_what_fails_before_the_feed_is_owned_leaves_no_session_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError

    monkeypatch.setattr(feed, "RTSPFeed", fail)
    with ScriptedCamera(SCENE) as camera:
        with pytest.raises(KeyError):
            open_feed(address_of(camera), "tcp", Stop())
        wait_until(lambda: (camera.teardowns, camera.clients) == (1, 0))


# --- where to connect ---


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "224.0.0.1", "0.0.0.0", "[::ffff:169.254.1.1]"])
def test_no_connection_is_made_to_a_refused_address(host: str) -> None:
    with pytest.raises(errors.AddressRefused):
        open_feed(parse(f"rtsp://me:word@{host}/x"), "tcp", Stop())


def test_a_name_is_resolved_to_all_its_addresses_once_each() -> None:
    found = resolve(parse("rtsp://localhost/x"))
    assert set(found) <= {"127.0.0.1", "::1"}
    assert len(found) == len(set(found)) > 0


def test_a_name_that_nobody_knows_is_unreachable() -> None:
    with pytest.raises(errors.Unreachable, match=r"no-such-camera\.invalid"):
        resolve(parse("rtsp://me:word@no-such-camera.invalid/x"))


# --- the farewell ---


def test_leaving_says_teardown() -> None:
    with ScriptedCamera(SCENE) as camera:
        with open_feed(address_of(camera), "tcp", Stop()) as opened:
            next(opened.packets())
            assert camera.teardowns == 0
        wait_until(lambda: (camera.teardowns, camera.clients) == (1, 0))


def test_leaving_by_an_error_says_teardown_too() -> None:
    with ScriptedCamera(SCENE) as camera:
        with pytest.raises(ZeroDivisionError), open_feed(address_of(camera), "tcp", Stop()):
            raise ZeroDivisionError
        wait_until(lambda: (camera.teardowns, camera.clients) == (1, 0))


@pytest.mark.usefixtures("impatient")
def test_a_stalled_camera_is_told_too() -> None:
    with ScriptedCamera(SCENE, fault="stall_after:0.3") as camera:
        failure(camera)
        wait_until(lambda: (camera.teardowns, camera.clients) == (1, 0))


# --- packets ---


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4", "mjpeg"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_each_picture_comes_once_and_in_order(codec: Codec, transport: str) -> None:
    with (
        ScriptedCamera(replace(SCENE, codec=codec)) as camera,
        open_feed(address_of(camera), transport, Stop()) as opened,
    ):
        packets = list(islice(opened.packets(), ENOUGH))
    assert opened.codec == codec
    assert [packet.is_key for packet in packets[:11]] == [codec == "mjpeg" or n % 10 == 0 for n in range(11)]
    steps = [b.pts_s - a.pts_s for a, b in pairwise(packets)]
    assert steps == pytest.approx([0.02] * len(steps), abs=1e-4)
    assert all(packet.is_whole and not packet.follows_loss for packet in packets)
    assert {packet.is_reference for packet in packets} == {codec != "mjpeg"}


def test_arrivals_never_go_back_and_agree_on_both_clocks() -> None:
    with ScriptedCamera(SCENE) as camera:
        packets = watch(address_of(camera))
    assert all(a.arrived_s <= b.arrived_s for a, b in pairwise(packets))
    offsets = [packet.arrived_at - packet.arrived_s for packet in packets]
    assert max(offsets) - min(offsets) < 1


def digest(frame: VideoFrame) -> str:
    return hashlib.sha256(np.ascontiguousarray(frame.to_ndarray()).tobytes()).hexdigest()


def filmed_digests(whole: Clip) -> list[str]:
    """Of each frame, decoded by itself."""
    plain = LibavDecoder("h264")
    return [digest(frame) for unit in whole.units for frame in plain.decode(unit.data, 0)]


def decoded(opened: RTSPFeed, packets: Iterable[feed.Packet]) -> list[VideoFrame]:
    decoder = opened.open_decoder()
    return [frame for number, packet in enumerate(packets) for frame in decoder.decode(packet.data, number)]


def test_what_is_decoded_is_what_was_filmed() -> None:
    with ScriptedCamera(SCENE) as camera, open_feed(address_of(camera), "tcp", Stop()) as opened:
        frames = decoded(opened, islice(opened.packets(), ENOUGH))
    filmed = filmed_digests(clip.encode(SCENE))
    assert [digest(frame) for frame in frames] == filmed[: len(frames)]
    assert [frame.pts for frame in frames] == list(range(ENOUGH))


def sliced_clip() -> Clip:
    """Pictures of four slices, each slice with the parameter sets before it, as rtph264pay repeats them."""
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = SCENE.width, SCENE.height, "yuv420p"
    context.time_base = Fraction(1, SCENE.fps)
    context.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "x264-params": "slices=4:threads=1:keyint=10:scenecut=0",
    }
    units: list[AccessUnit] = []
    sets: list[bytes] = []
    for index in range(SCENE.frames):
        planes = np.full((SCENE.height * 3 // 2, SCENE.width), 128, np.uint8)
        planes[: SCENE.height] = clip.picture(SCENE, index)
        frame = VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts = index
        for packet in context.encode(frame):
            nals = split_nals(bytes(packet))
            sets = [nal for nal in nals if nal[0] & 31 in (7, 8)] or sets
            slices = [nal for nal in nals if nal[0] & 31 in (1, 5)]
            data = b"".join(b"\0\0\0\1" + part for one in slices for part in (*sets, one))
            units.append(AccessUnit(data, len(units) * 90_000 // SCENE.fps, packet.is_keyframe))
    return Clip(SCENE, tuple(units), tuple(sets))


def test_a_picture_that_comes_in_pieces_is_one_packet() -> None:
    pieces = sliced_clip()
    filmed = filmed_digests(pieces)
    with ScriptedCamera(pieces) as camera, open_feed(address_of(camera), "tcp", Stop()) as opened:
        packets = list(islice(opened.packets(), ENOUGH))
        frames = decoded(opened, packets)
    assert len(frames) == ENOUGH
    assert [digest(frame) for frame in frames] == filmed[:ENOUGH]
    assert [packet.is_key for packet in packets] == [n % 10 == 0 for n in range(ENOUGH)]
    assert np.diff([packet.pts_s for packet in packets]) == pytest.approx(0.02, abs=1e-4)


def test_a_picture_that_the_decoder_refuses_is_undecodable_and_the_next_one_may_follow() -> None:
    with ScriptedCamera(SCENE) as camera, open_feed(address_of(camera), "tcp", Stop()) as opened:
        packets = list(islice(opened.packets(), 12))
    decoder = opened.open_decoder()
    with pytest.raises(errors.Undecodable) as caught:
        decoder.decode(b"\0\0\1\x65" + b"\xff" * 30, 0)
    assert caught.value.__suppress_context__
    assert [frame for number, packet in enumerate(packets) for frame in decoder.decode(packet.data, number)]


# --- stop ---


@pytest.mark.parametrize("fault", ["silent", "describe_status:0", "silent_play", "stall_after:0.1", None])
def test_stop_ends_whatever_the_camera_is_waited_for(fault: str | None) -> None:
    stop = Stop()
    done = threading.Event()

    def run() -> None:
        with suppress(Stopped), open_feed(address, "tcp", stop) as opened:
            for _ in opened.packets():
                pass
        done.set()

    with ScriptedCamera(SCENE, fault=fault) as camera:
        address = address_of(camera)
        threading.Thread(target=run, daemon=True).start()
        wait_until(lambda: camera.connections == 1 and (fault == "silent" or len(camera.requests) > 0))
        assert not done.is_set()
        stop.set()
        assert done.wait(4), "it waited as long as for a camera that is silent"
        wait_until(lambda: camera.clients == 0)


def waiting_bytes(opened: RTSPFeed) -> int:
    """What the kernel holds of the connection (tcp(7), SIOCINQ)."""
    fileno = opened._session._dialogue.connection.fileno()
    return int(struct.unpack("i", fcntl.ioctl(fileno, termios.FIONREAD, bytes(4)))[0])


def test_what_had_come_when_it_was_told_to_stop_is_given() -> None:
    """Up to a second of it, which nobody has read yet."""
    stop = Stop()
    grainy = replace(SCENE, noise=4.0)
    with ScriptedCamera(grainy) as camera, open_feed(address_of(camera), "tcp", stop) as opened:
        packets = opened.packets()
        before = next(packets)
        wait_until(lambda: waiting_bytes(opened) > 60_000)
        stop.set()
        rest = list(packets)
    assert sum(len(packet.data) for packet in rest) > 40_000
    assert np.diff([before.pts_s, *(packet.pts_s for packet in rest)]) == pytest.approx(0.02, abs=1e-4)
    assert all(packet.is_whole and not packet.follows_loss for packet in rest)


# --- when pictures came that were read at once ---


def test_pictures_read_at_once_came_at_the_distances_of_their_timestamps() -> None:
    """The first is a key frame with most of the bytes: by bytes, all came at the end."""
    by_bytes = [10.9, 10.93, 10.96, 11.0]
    assert feed.spread([5.0, 5.3, 5.6, 5.9], by_bytes, 10.0) == pytest.approx([10.1, 10.4, 10.7, 11.0])


def test_re_ordered_pictures_came_in_the_order_of_their_packets() -> None:
    arrivals = feed.spread([5.0, 5.9, 5.3, 5.6], [10.2, 10.5, 10.8, 11.0], 10.0)
    assert arrivals == pytest.approx([10.1, 11.0, 11.0, 11.0])


@pytest.mark.parametrize(
    "times_s", [[5.0, 5.0, 5.0], [5.0, 9.0, 13.0], [5.0, 5.01, 5.02], [5.0, -3600.0, -3599.9]], ids=str
)
def test_timestamps_that_do_not_run_as_the_clock_does_are_not_asked(times_s: list[float]) -> None:
    assert feed.spread(times_s, [10.2, 10.5, 11.0], 10.0) == [10.2, 10.5, 11.0]


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0.0, 1.0)), min_size=1, max_size=30))
def test_none_came_before_the_last_reading_or_after_this_one_and_never_back(steps: list[tuple[float, float]]) -> None:
    arrivals_s = sorted(100.0 + share for _, share in steps)
    found = feed.spread([time_s for time_s, _ in steps], arrivals_s, 100.0)
    assert len(found) == len(steps)
    assert all(100.0 <= moment_s <= arrivals_s[-1] for moment_s in found)
    assert list(found) == sorted(found)


@dataclass
class Reading:
    """In place of a session: each reading takes a second by the test's clock."""

    readings: list[list[bytes]]
    stop: Stop
    now_s: float = 100.0
    is_disconnected: bool = False
    trouble: str = ""
    is_ended: bool = False
    is_closed_at_last: bool = False
    """Whether the camera closes after these readings; else the capture is stopped."""
    said: list[float | str] = field(default_factory=list)
    """How long it was to wait for each reading, and after how many bytes it was to wake up."""
    track: Track = field(default_factory=lambda: Track("H264", 96, 90_000, "", {}, None))

    def receive(self, wait_s: float) -> list[memoryview]:
        if not self.readings and self.is_closed_at_last:
            raise errors.Closed
        if not self.readings:
            self.stop.set()
            return []
        self.said.append(wait_s)
        self.now_s += 1.0
        return [memoryview(packet) for packet in self.readings.pop(0)]

    def wake_at(self, bytes: int) -> None:
        self.said.append(f"{bytes} bytes")

    def drain(self) -> None: ...

    def note_end(self) -> None:
        self.is_ended = True

    def close(self) -> None: ...


def film_in_readings(pictures: int) -> list[list[bytes]]:
    """Of so many pictures each; two seconds in all."""
    sent = rtp_film.packets_by_unit(rtp_film.film("h264"))
    return [[packet for unit in sent[at : at + pictures] for packet in unit] for at in range(0, 24, pictures)]


def read_to_the_end(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> list[feed.Packet]:
    monkeypatch.setattr(time, "monotonic", lambda: reading.now_s)
    pictures = depacketizer(reading.track, is_ordered=True)
    return list(RTSPFeed(cast(RTSPSession, reading), pictures, reading.stop, "tcp").packets())


def test_after_five_seconds_packets_are_taken_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then somebody may wait for the first sample."""
    reading = Reading(film_in_readings(3), Stop())
    assert len(read_to_the_end(reading, monkeypatch)) >= 22
    assert reading.said == [0.25] * 6 + ["524288 bytes"] + [1.0] * 2


def test_key_frames_half_a_second_apart_are_told_so_whatever_they_weigh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small feed is read a second at a time, and key frames are most of it."""
    packets = read_to_the_end(Reading(film_in_readings(12), Stop()), monkeypatch)
    keys_s = [packet.arrived_s for packet in packets if packet.is_key]
    assert len(packets) >= 22
    assert np.diff(keys_s) == pytest.approx([0.5, 0.5, 0.5], abs=0.06)
    assert all(100.0 <= packet.arrived_s <= 102.0 for packet in packets)


def test_of_a_million_tiny_pictures_read_at_once_a_thousand_are_looked_at_at_a_time() -> None:
    """With parameter sets before each of them they would take gigabytes."""
    reading = Reading([[bytes(12)] * (10 * feed.MAX_FOUND)], Stop())

    class Tiny:
        """A picture for each packet."""

        lost = pushed = 0
        codec, complaint = "h264", ""

        def push(self, packet: memoryview) -> list[CodedPicture]:
            self.pushed += 1
            return [CodedPicture(b"", self.pushed, True, True, True, False)]

        def settle(self) -> list[CodedPicture]:
            return []

    pictures = Tiny()
    packets = RTSPFeed(cast(RTSPSession, reading), pictures, reading.stop, "tcp").packets()
    next(packets)
    assert pictures.pushed <= feed.MAX_FOUND + 1
    assert sum(1 for _ in packets) == 10 * feed.MAX_FOUND - 1


def test_a_picture_that_takes_long_to_decode_is_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packets after it are not the first for so long: nobody has asked for any."""
    reading = Reading(film_in_readings(3), Stop())
    monkeypatch.setattr(feed, "SILENCE_S", math.inf)
    monkeypatch.setattr(feed, "MAX_SILENCE_S", math.inf)
    monkeypatch.setattr(time, "monotonic", lambda: reading.now_s)
    pictures = depacketizer(reading.track, is_ordered=True)
    count = 0
    for _ in RTSPFeed(cast(RTSPSession, reading), pictures, reading.stop, "tcp").packets():
        reading.now_s += 100.0
        count += 1
    assert count >= 22


def test_packets_without_a_picture_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading([[bytes(12)]] * 20, Stop())
    monkeypatch.setattr(time, "monotonic", lambda: reading.now_s)
    pictures = depacketizer(reading.track, is_ordered=True)
    with pytest.raises(errors.Undecodable):
        list(RTSPFeed(cast(RTSPSession, reading), pictures, reading.stop, "tcp").packets())
    assert feed.NO_PICTURE_S < 20 - len(reading.readings) <= feed.NO_PICTURE_S + 2


# --- silence ---


def at_distances(*distances_s: int) -> list[list[bytes]]:
    """Readings of a second each: a picture, and another one after each of these distances."""
    sent = rtp_film.packets_by_unit(rtp_film.film("h264"))
    readings = [list(sent[0])]
    for number, distance_s in enumerate(distances_s, 1):
        readings += [[]] * (distance_s - 1) + [list(sent[number])]
    return readings


def silence_of(
    monkeypatch: pytest.MonkeyPatch, readings: list[list[bytes]], error: type[CaptureError], **more: Any
) -> float:
    """How long nothing may come after these readings, before the error."""
    reading = Reading([*readings, *([[]] * 200)], Stop())
    reading.is_disconnected = more.pop("is_disconnected", False)
    monkeypatch.setattr(time, "monotonic", lambda: reading.now_s)
    opened = RTSPFeed(
        cast(RTSPSession, reading), depacketizer(reading.track, is_ordered=True), reading.stop, "tcp", **more
    )
    with pytest.raises(error):
        list(opened.packets())
    assert reading.is_ended == (error is errors.Stalled), "the session is told that the stream has ended"
    if error is errors.Stalled:
        assert opened.patience_s >= reading.now_s - 100.0 - len(readings)
    return reading.now_s - 100.0 - len(readings) - 1


@pytest.mark.parametrize(
    ("distances_s", "silence_s"),
    [
        ((1, 1, 1, 1), 10),
        ((3, 3, 3), 10),
        ((12, 12, 12, 12, 12), 36),
        ((4, 1), 12),
        ((9, 1, 1, 1), 27),
        ((9, 1, 1, 1, 1), 10),
        ((25, 50), 120),
    ],
    ids=str,
)
def test_silence_is_measured_against_the_distances_of_the_last_pictures(
    distances_s: tuple[int, ...], silence_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FIELD 59: three times the longest of four, from 10 to 120 s."""
    assert silence_of(monkeypatch, at_distances(*distances_s), errors.Stalled) == silence_s


def test_how_slow_a_camera_is_is_learned_over_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second picture may take as long as the first; a camera that takes even longer gets three times as long."""
    pace = Pace()
    assert [silence_of(monkeypatch, at_distances(), errors.Stalled, pace=pace) for _ in "123"] == [30, 93, 93]
    assert silence_of(monkeypatch, at_distances(50), errors.Stalled, pace=pace) == 120
    assert silence_of(monkeypatch, at_distances(*[1] * 5), errors.Stalled, pace=pace) == 10


def test_what_lies_between_two_connections_is_no_distance() -> None:
    pace = Pace()
    for began_s in (0.0, 1000.0):
        pace.begin()
        pace.note(began_s)
        pace.note(began_s + 2.0)
    assert pace.longest_s == 2.0


def test_a_feed_tells_where_a_connection_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace()
    pace.note(-500.0)
    silence_of(monkeypatch, at_distances(1), errors.Stalled, pace=pace)
    assert pace.longest_s == 1.0


def test_packets_that_trickle_between_pictures_do_not_make_it_undecodable(monkeypatch: pytest.MonkeyPatch) -> None:
    first, quiet, *others = at_distances(14, 14)
    readings = [first, quiet, *(reading or [bytes(12)] for reading in others)]
    assert silence_of(monkeypatch, readings, errors.Stalled) >= 3 * 14


@pytest.mark.parametrize(("distance_s", "silence_s"), [(None, 2), (0.04, 2), (1.0, 3), (12.0, 36)])
def test_once_the_connection_has_ended_the_end_of_the_packets_is_the_end(
    distance_s: float | None, silence_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FIELD 53: nobody keeps the session, so it is not waited for 10 s."""
    pace = Pace()
    if distance_s:
        pace.note(1.0)
        pace.note(1.0 + distance_s)
    assert silence_of(monkeypatch, at_distances(), errors.Closed, is_disconnected=True, pace=pace) == silence_s


def test_why_nothing_may_come_by_udp_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading([[]] * 100, Stop(), trouble="Packets came from elsewhere.")
    monkeypatch.setattr(time, "monotonic", lambda: reading.now_s)
    pictures = depacketizer(reading.track, is_ordered=True)
    with pytest.raises(errors.TransportRefused, match=r"by UDP\. Packets came from elsewhere\.$"):
        list(RTSPFeed(cast(RTSPSession, reading), pictures, reading.stop, "udp").packets())


@pytest.mark.parametrize(
    ("pictures", "is_known", "kind"),
    [(0, False, errors.TransportRefused), (2, False, errors.Closed), (0, True, errors.Closed)],
)
def test_a_camera_that_closes_in_place_of_its_first_packet_may_like_the_other_transport(
    pictures: int, is_known: bool, kind: type[CaptureError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not one that this capture has seen pictures of."""
    pace = Pace()
    if is_known:
        pace.note(1.0)
        pace.note(2.0)
    reading = Reading(film_in_readings(2)[:pictures], Stop(), is_closed_at_last=True)
    monkeypatch.setattr(time, "monotonic", lambda: reading.now_s)
    opened = RTSPFeed(
        cast(RTSPSession, reading), depacketizer(reading.track, is_ordered=True), reading.stop, "tcp", pace
    )
    with pytest.raises(CaptureError) as caught:
        list(opened.packets())
    assert type(caught.value) is kind
    assert type(getattr(caught.value, "otherwise", caught.value)) is errors.Closed


# --- what no picture is made of ---


def test_the_reason_for_no_picture_is_told_if_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """H.264 in packetization mode 2: MTAP16."""
    slices = rtp_film.a_packet(b"\x41\x9aslice")
    packets = [rtp_film.a_packet(b"\x7a\0\0\0\1\0\0\x41", number) for number in range(1, 21)]
    reading = Reading([[slices], *([packet] for packet in packets)], Stop())
    monkeypatch.setattr(time, "monotonic", lambda: reading.now_s)
    pictures = depacketizer(reading.track, is_ordered=True)
    with pytest.raises(errors.Undecodable, match="interleaved"):
        list(RTSPFeed(cast(RTSPSession, reading), pictures, reading.stop, "tcp").packets())


def jpeg_readings(narrow: Iterable[int]) -> list[list[bytes]]:
    """A picture in each. Those of these numbers say half of their width, as if it did not fit into the field."""
    units = rtp_film.packets_by_unit(rtp_film.film("mjpeg"))
    return [
        [packet[:18] + bytes([packet[18] // 2]) + packet[19:] if number in narrow else packet for packet in unit]
        for number, unit in enumerate(units[:8])
    ]


def given_of(readings: list[list[bytes]]) -> Iterator[feed.Packet]:
    reading = Reading(readings, Stop(), track=Track("JPEG", 26, 90_000, "", {}, None))
    pictures = depacketizer(reading.track, is_ordered=True)
    return RTSPFeed(cast(RTSPSession, reading), pictures, reading.stop, "tcp").packets()


def test_jpeg_whose_size_is_not_told_is_never_given() -> None:
    """Row 57: it would be scrambled."""
    given_packets = given_of(jpeg_readings(range(8)))
    with pytest.raises(errors.Undecodable, match="wider or higher than 2040 px"):
        next(given_packets)


def test_a_jpeg_is_looked_at_once_for_each_size_and_one_of_another_size_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[bytes] = []
    monkeypatch.setattr(feed, "misfits", lambda data: looked.append(data) or decoder.misfits(data))  # type: ignore[func-returns-value]
    assert len(list(given_of(jpeg_readings([3])))) == 7
    assert len(looked) == 2
