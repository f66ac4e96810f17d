"""Cameras under an attacker's control, seen by a real recorder process: it stays small and says why it ends.

The other side too: a recorder that somebody else has taken over, seen by its supervisor.
"""

import itertools
import os
import random
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from streams.engine import decoder, limits, sandbox, sizes
from streams.engine import recorder as recorder_module
from streams.engine.address import parse
from streams.engine.encodings import ENCODINGS
from streams.engine.errors import Undecodable
from streams.engine.notices import Notice
from streams.engine.recorder import RecorderProcess
from streams.engine.report import Report, Seed, Settings
from tests.camera.clip import Clip, Codec, encode
from tests.camera.mutator import Mutator
from tests.camera.sdp import describe
from tests.camera.server import ScriptedCamera

from . import digest, hostile, hurried_recorder, lying_recorder, peeping_recorder
from .builders import settings
from .hostile import SCENE, camera, packets, repeated, sent
from .odd_camera import OddCamera, Request, answer, framed

LIMIT_S = 60.0
# A recorder of a small picture has 40 MB, and 90 more of buffers under a flood.
PEAK_MB = 300
CLIP = encode(SCENE)


class Watched:
    """A recorder under a hostile camera: its last report, and the most memory that it ever had."""

    def __init__(self, process: RecorderProcess) -> None:
        self.process = process
        self.report: Report | None = None
        self.peak_mb = 0.0

    def until(self, holds: Callable[[Report], bool]) -> Report:
        """Asks all the time. Raises TimeoutError, and AssertionError if it is gone without that."""
        end_s = time.monotonic() + LIMIT_S
        while self.report is None or not holds(self.report):
            if time.monotonic() > end_s:
                raise TimeoutError(f"it has not come; the last was {self.report}")
            assert self.process.is_alive, f"the recorder ended: {self.report}"
            if self.process.asked_s is None:
                self.process.pull(frozenset())
            select.select([self.process], [], [], 0.05)
            self.peak_mb = max(self.peak_mb, peak_mb(self.process.pid))
            for message in self.process.receive():
                self.report = message if isinstance(message, Report) else self.report
        return self.report


def peak_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


@contextmanager
def watched(url: str, *, memory_bytes: int = 1 << 30, interval_s: float = 0.2) -> Iterator[Watched]:
    process = RecorderProcess(Settings(parse(url), interval_s, 9, memory_bytes=memory_bytes), Seed())
    try:
        yield Watched(process)
    finally:
        process.end()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "record", hurried_recorder.record)


Hostile = Callable[[], AbstractContextManager[OddCamera]]


def bomb(codec: Codec, width: int, height: int) -> Hostile:
    def made() -> OddCamera:
        clip = hostile.of_size(encode(replace(SCENE, codec=codec)), width, height)
        return camera(clip, lambda: [sent(clip.units, clip)] * 10)

    return made


def unread_bomb() -> OddCamera:
    """Its size stands behind what only libav reads over: that refuses it by itself."""
    clip = hostile.with_scaling_lists(hostile.of_size(CLIP, 16_384, 16_384))
    assert sizes.largest("h264", clip.units[0].data) == (0, 0)
    return camera(clip, lambda: hostile.played(clip))


def flood(data: bytes) -> Hostile:
    return lambda: camera(CLIP, lambda: repeated(data))


def storm(payload: bytes, *, is_marked: bool = False) -> Hostile:
    return lambda: camera(CLIP, lambda: packets(payload, is_marked=is_marked))


def says(method: str, head: bytes, forever: bytes) -> Hostile:
    def said(request: Request) -> Iterator[bytes]:
        yield b"RTSP/1.0 200 OK\r\nCSeq: " + request.headers["cseq"].encode() + b"\r\n" + head
        yield from repeated(forever)

    return lambda: OddCamera(on={method: said})


def dripping() -> OddCamera:
    """A byte now and then, of an answer's head that never ends: each in time for any limit between two bytes."""

    def said(request: Request) -> Iterator[bytes]:
        for byte in itertools.chain(b"RTSP/1.0 200 OK\r\n", itertools.cycle(b"X: y\r\n")):
            yield bytes([byte])
            time.sleep(0.1)

    return OddCamera(on={"OPTIONS": said})


def thousands_of_tracks(request: Request) -> bytes:
    body = b"v=0\r\n" + b"m=video 0 RTP/AVP " + b"96 97 98 " * 3000 + b"\r\n" + b"m=video 1\r\na=fmtp:96 x\r\n" * 8000
    return answer(request, body=body, Content_Type="application/sdp")


SDP = b"Content-Type: application/sdp\r\n"
BY_CODE: dict[str, dict[str, Hostile]] = {
    "picture_too_large": {
        "h264 of 16384 x 16384": bomb("h264", 16_384, 16_384),
        "hevc of 16384 x 16384": bomb("hevc", 16_384, 16_384),
        "mpeg4 of 8191 x 8191": bomb("mpeg4", 8191, 8191),
        "jpeg of 65500 x 65500": lambda: camera(encode(replace(SCENE, codec="mjpeg")), hostile.onvif_bomb),
    },
    "not_rtsp": {
        "headers without an end": says("OPTIONS", b"", b"X-More: of the same\r\n"),
        "a header without an end": says("OPTIONS", b"X: ", b"a"),
        "a header without an end, later": says("DESCRIBE", b"X: ", b"a"),
    },
    "refused": {
        "a gigabyte announced": says("DESCRIBE", SDP + b"Content-Length: 1000000000\r\n\r\n", b"a=x\r\n"),
        "a description without an end": says("DESCRIBE", SDP + b"\r\n", b"a=x\r\n"),
    },
    # Which depends on how much the system takes for the camera before it is full.
    "closed timeout": {"questions without an end": flood(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n")},
    "timeout": {
        "a head in drops": dripping,
        "empty packets": flood(framed(0, b"")),
        "rtcp of a byte": flood(framed(1, b"\x80")),
        "unknown channels": flood(framed(200, bytes(20))),
        "answers without questions": flood(b"RTSP/1.0 200 OK\r\n\r\n"),
        "junk": flood(b"\xff\xfe\xfd"),
    },
    "undecodable": {
        "h264 of 16384 x 16384 behind scaling lists": unread_bomb,
        "rtp without a payload": storm(b""),
        "units of a byte": storm(b"\x41"),
        "a fragment that never ends": storm(b"\x7c\x05" + bytes(1000)),
        "a picture that never ends": storm(b"\x61\x11" + b"\x88" * 1000),
        "fragments that all begin": storm(b"\x7c\x85" + b"\x88" * 1000),
        "key pictures of three bytes": storm(b"\x65\x88\x80", is_marked=True),
        "parameter sets and nothing else": storm(CLIP.parameter_sets[0]),
        "thousands of tracks": lambda: OddCamera(on={"DESCRIBE": thousands_of_tracks}),
    },
}
CASES = [pytest.param(made, code, id=name) for code, cases in BY_CODE.items() for name, made in cases.items()]


@pytest.mark.parametrize(("made", "code"), CASES)
def test_it_stays_small_and_says_why(hurried: None, made: Hostile, code: str) -> None:
    with made() as hostile_camera, watched(hostile_camera.url) as recorder:
        report = recorder.until(lambda report: bool(report.status.error_code))
        assert report.status.error_code in code.split()
        assert not report.is_final
        assert recorder.peak_mb < PEAK_MB


def test_a_size_that_only_libav_reads_is_refused_by_libav(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it makes room; here with a limit that a small picture is beyond."""
    data = hostile.with_scaling_lists(CLIP).units[0].data
    assert decoder.LibavDecoder("h264").decode(data, 1)
    monkeypatch.setattr(decoder, "MAX_PIXELS_OPTION", {"max_pixels": "1000"})
    with pytest.raises(Undecodable):
        decoder.LibavDecoder("h264").decode(data, 1)


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4"])
def test_at_its_memory_limit_it_ends_and_says_so(codec: Codec) -> None:
    """A picture that is not too large, for a limit that is low: and not again before a minute has passed."""
    with bomb(codec, 8000, 4000)() as eater, watched(eater.url, memory_bytes=64 << 20) as recorder:
        report = recorder.until(lambda report: report.is_final)
        assert report.status.error_code == "out_of_memory"
        assert report.status.next_attempt_at is not None
        assert report.status.next_attempt_at - time.time() > 50
        assert recorder.peak_mb < 64 + PEAK_MB / 2


def test_what_it_had_before_is_in_its_last_words() -> None:
    eater = hostile.of_size(CLIP, 8000, 4000)
    turning = camera(CLIP, lambda: hostile.one_after_the_other(CLIP, eater))
    with turning, watched(turning.url, memory_bytes=64 << 20) as recorder:
        report = recorder.until(lambda report: report.is_final)
        assert report.status.error_code == "out_of_memory"
        assert len(report.fresh) == len(report.board) > 3


@pytest.mark.parametrize("feed", [hostile.changing_sizes, hostile.odd_times])
def test_what_is_only_odd_is_captured(feed: Callable[[], Iterator[bytes]]) -> None:
    with camera(CLIP, feed) as odd, watched(odd.url) as recorder:
        report = recorder.until(lambda report: report.counters.samples > 9)
        assert (report.status.error_code, recorder.peak_mb < PEAK_MB) == ("", True)


# --- what it may do ---


def test_it_gives_up_what_it_needs_not(hurried: None) -> None:
    with ScriptedCamera(SCENE) as good, watched(good.url) as recorder:
        recorder.until(lambda report: report.counters.samples > 0)
        folder = Path(f"/proc/{recorder.process.pid}")
        lines = (line.split("  ") for line in (folder / "limits").read_text().splitlines())
        told = {words[0]: [word.strip() for word in words if word.strip()][1:3] for words in lines}
        assert told["Max core file size"] == ["0", "0"]
        assert told["Max processes"] == ["0", "0"]
        assert told["Max open files"] == [str(limits.MAX_FILES)] * 2
        assert 1 << 30 < int(told["Max data size"][1]) < 3 << 29
        assert "NoNewPrivs:\t1" in (folder / "status").read_text()
        nices = [
            int((task / "stat").read_text().rpartition(")")[2].split()[16]) for task in (folder / "task").iterdir()
        ]
        assert min(nices) >= limits.NICE > 0


def test_one_that_takes_most_of_a_core_goes_behind_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says so: a picture that is decoded for each sample, at a sample for each picture."""
    monkeypatch.setattr(recorder_module, "record", hurried_recorder.record_soon_heavy)
    clip = encode(replace(SCENE, width=640, height=480, noise=20.0))
    with camera(clip, lambda: hostile.hurled(clip)) as busy, watched(busy.url, interval_s=0.001) as recorder:
        report = recorder.until(lambda report: Notice.HEAVY in report.status.notices)
        tasks = Path(f"/proc/{recorder.process.pid}/task").iterdir()
        nices = {int((task / "stat").read_text().rpartition(")")[2].split()[16]) for task in tasks}
        assert nices == {limits.NICE, limits.NICE_OF_THE_HEAVY}
        assert report.counters.samples > 0


def test_neither_pictures_nor_keys_nor_other_processes_are_open_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has taken over a recorder is of the same user as they are: Landlock keeps it out. And no fork server is
    found, which would make it a process that is not shut in."""
    (tmp_path / "secret").write_text("a key")
    monkeypatch.setattr(recorder_module, "record", peeping_recorder.record)
    with socket.create_server(("127.0.0.1", 0)) as near, socket.create_server(("127.0.0.1", 0)) as far:
        url = f"rtsp://127.0.0.1:{near.getsockname()[1]}{tmp_path}?{far.getsockname()[1]}"
        process = RecorderProcess(settings(parse(url)), Seed())
        try:
            report = Watched(process).until(lambda report: report.is_final)
        finally:
            process.end()
    assert report.status.error_text == "closed=True import names camera"
    assert (tmp_path / "secret").read_text() == "a key"


def test_the_folder_of_the_keys_is_not_among_what_may_be_read() -> None:
    root = Path(sandbox.__file__).resolve().parents[2]
    assert not {root, *root.parents} & sandbox.readable()
    assert root / "streams" in sandbox.readable()


# --- a recorder that is not ours any more ---


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "record", lying_recorder.record)


def heard(lie: str) -> RecorderProcess:
    """Until it counts as dead, and then its end."""
    process = RecorderProcess(settings(parse(f"rtsp://127.0.0.1:9/{lie}")), Seed())
    try:
        process.pull(frozenset())
        end_s = time.monotonic() + LIMIT_S
        while process.is_alive:
            assert time.monotonic() < end_s, "it is still believed"
            select.select([process], [], [], 0.1)
            process.receive()
    finally:
        process.end()
    return process


@pytest.mark.parametrize(
    "lie", ["huge", "large", "deep", "unasked", "changed", "forged", "crowded", "hidden", "insistent"]
)
def test_who_says_what_no_recorder_says_is_ended(lying: None, lie: str) -> None:
    death = heard(lie).death
    assert death.code == "recorder_died"
    assert "said what none says" in str(death)


@pytest.mark.parametrize(
    ("lie", "code", "word"),
    [
        ("killed", "recorder_died", "killed"),
        ("crashed", "recorder_died", "SIGSEGV"),
        ("aborted", "recorder_died", "SIGABRT"),
        ("held", "recorder_died", "hung"),
        ("full", "out_of_memory", "CAPTURE_MEMORY_MB"),
        ("gone", "recorder_died", "unexpectedly"),
    ],
)
def test_of_what_it_died(lying: None, lie: str, code: str, word: str) -> None:
    death = heard(lie).death
    assert (death.code, word in str(death)) == (code, True)


def test_one_that_is_ended_since_it_does_not_answer(lying: None) -> None:
    process = RecorderProcess(settings(parse("rtsp://127.0.0.1:9/silent")), Seed())
    process.end()
    assert "did not answer" in str(process.death)


# --- no bytes whatever ---

FUZZ_S = float(os.environ.get("FUZZ_S", "20")) / 10
SEED = os.environ.get("FUZZ_SEED", "")
CODECS: tuple[Codec, ...] = ("h264", "hevc", "mpeg4", "mjpeg")


def told(clip: Clip) -> bytes:
    """The answer to DESCRIBE."""
    body = describe(clip, ("video",)).encode()
    head = f"RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def units(data: bytes) -> Iterator[bytes]:
    """The interleaved packets, one by one."""
    while data:
        size = 4 + int.from_bytes(data[2:4])
        yield data[:size]
        data = data[size:]


@pytest.mark.timeout(120 + 4 * FUZZ_S)
@pytest.mark.parametrize("codec", CODECS)
def test_whatever_comes_no_error_is_but_a_cameras(codec: Codec) -> None:
    """FUZZ_SEED repeats a run; what fails says the one seed that does it."""
    clip = encode(replace(SCENE, width=160, height=120, codec=codec))
    whole = list(units(sent(clip.units * 2, clip)))
    run, end_s = SEED or str(random.randrange(1 << 32)), time.monotonic() + FUZZ_S
    tracks = digest.description(told(clip))
    assert digest.samples(tracks[0], b"".join(whole), is_ordered=True) > 10
    for number in itertools.count():
        if time.monotonic() > end_s:
            break
        seed = f"{run} {number}"
        mutator = Mutator(seed)
        try:
            found = [track for track in digest.description(mutator.spoil(told(clip))) if track.encoding in ENCODINGS]
            track = found[0] if found else tracks[0]
            digest.samples(track, b"".join(mutator.spoil_all(whole)), is_ordered=number % 3 > 0)
        except Exception as error:
            raise AssertionError(f"{codec}: FUZZ_SEED={run}, number {number}") from error
