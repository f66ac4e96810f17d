"""Samples are the first clean frames at or after each due time, whatever the timestamps are."""

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType, VideoFrame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.engine.feed import Packet
from streams.engine.sampler import MAX_DRIFT_S, MAX_STEP_S, Counts, Sample, Sampler, StreamClock
from tests.camera.clip import Codec, Scene

from .clip_feed import WALL_S, ClipDecoder, a_packet, later

FPS, GOP = 10, 8
PLAN = (40, 200, 90, 120, 60, 180)
SCENE = Scene(160, 120, PLAN, fps=FPS, gop_s=GOP / FPS)
FRAMES = SCENE.frames
LONG = replace(SCENE, plan=PLAN * 8)
Edit = Callable[[list[Packet]], list[Packet]]
Mp4 = Callable[[Scene], Path]

with_clip = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True, slots=True)
class Taken:
    """What a sampler made of a clip. `frames` are the numbers of the filmed frames that were sampled."""

    frames: list[int]
    samples: list[Sample]
    counts: Counts
    decoded: int


def digest(frame: VideoFrame) -> str:
    return hashlib.sha256(np.ascontiguousarray(frame.to_ndarray()).tobytes()).hexdigest()


@functools.cache
def filmed(path: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """All of a clip, decoded by itself: the number of each frame in order of presentation."""
    with av.open(path) as container:
        digests = tuple(digest(frame) for frame in container.decode(video=0))
    return {key: number for number, key in enumerate(digests)}, digests


def take(path: Path, interval_s: float, edit: Edit = list) -> Taken:
    """A frame that is not as it was filmed has the number -1."""
    decoder = ClipDecoder(path)
    sampler = Sampler(interval_s, decoder)
    samples = [sample for packet in edit(list(decoder.read())) for sample in sampler.push(packet)]
    numbers, _ = filmed(path)
    frames = [numbers.get(digest(sample.frame), -1) for sample in samples]
    decoder.close()
    return Taken(frames, samples, sampler.counts, decoder.decoded)


def expected(times_s: Sequence[tuple[int, float]], interval_s: float) -> list[int]:
    """The plain way: times of the clean frames, with their numbers; the first is due at once."""
    chosen: list[int] = []
    first_s = min((at_s for _, at_s in times_s), default=0.0)
    due_s = -math.inf
    for number, at_s in sorted(times_s, key=lambda one: one[1]):
        if at_s >= due_s - 0.001:
            chosen.append(number)
            due_s = first_s + (math.floor((at_s - first_s + 0.001) / interval_s) + 1) * interval_s
    return chosen


def steady(first: int = 0, last: int = FRAMES, fps: int = FPS) -> list[tuple[int, float]]:
    return [(number, number / fps) for number in range(first, last)]


def test_each_frame_of_the_clip_is_another_one(mp4: Mp4) -> None:
    """Else a wrong frame could pass for the right one."""
    assert len(filmed(mp4(SCENE))[0]) == FRAMES
    assert len(filmed(mp4(replace(SCENE, b_frames=2)))[0]) == FRAMES


# --- steady timestamps ---


@pytest.mark.parametrize("interval_s", [0.05, 0.1, 0.25, 0.3, 0.8, 1.0, 1.7, 2.0, 5.0, 60.0])
def test_a_sample_is_the_first_frame_at_or_after_its_time(mp4: Mp4, interval_s: float) -> None:
    assert take(mp4(SCENE), interval_s).frames == expected(steady(), interval_s)


def test_a_second_is_ten_frames_of_a_tenth() -> None:
    """So that the expectation of all other tests is itself a fact."""
    assert expected(steady(), 1.0) == [0, 10, 20, 30, 40, 50]
    assert expected(steady(), 0.25) == [0, 3, 5, 8, 10] + [n for n in range(13, 60) if n % 10 in (0, 3, 5, 8)]


@pytest.mark.parametrize("codec", ["hevc", "mpeg4", "mjpeg"])
def test_other_codecs_are_sampled_alike(mp4: Mp4, codec: Codec) -> None:
    assert take(mp4(replace(SCENE, codec=codec)), 0.7).frames == expected(steady(), 0.7)


def test_the_first_sample_comes_at_once() -> None:
    assert expected([(4, 0.4), (5, 0.5)], 60.0) == [4]


def test_a_sample_has_its_stream_time_and_the_moment_of_its_arrival(mp4: Mp4) -> None:
    taken = take(mp4(SCENE), 1.0)
    assert [sample.stream_s for sample in taken.samples] == pytest.approx([0, 1, 2, 3, 4, 5])
    assert [sample.arrived_at - WALL_S for sample in taken.samples] == pytest.approx([0, 1, 2, 3, 4, 5])


def test_all_frames_of_a_whole_clip_are_clean(mp4: Mp4) -> None:
    counts = take(mp4(SCENE), 1.0).counts
    assert (counts.clean, counts.rejected, counts.missed) == (FRAMES, 0, 0)


@with_clip
@given(st.floats(0.03, 7.0))
def test_any_interval(mp4: Mp4, interval_s: float) -> None:
    assert take(mp4(SCENE), interval_s).frames == expected(steady(), interval_s)


# --- re-ordered frames ---


@pytest.mark.parametrize("b_frames", [1, 2, 3])
@pytest.mark.parametrize("interval_s", [0.1, 0.3, 1.0])
def test_re_ordered_frames_are_sampled_in_order_of_presentation(mp4: Mp4, b_frames: int, interval_s: float) -> None:
    taken = take(mp4(replace(SCENE, b_frames=b_frames)), interval_s)
    whole = expected(steady(), interval_s)
    missing = len(whole) - len(taken.frames)  # the decoder holds back the last ones
    assert missing * interval_s <= (b_frames + 1) / FPS + interval_s
    assert taken.frames == whole[: len(taken.frames)]
    assert taken.counts.rejected == 0


def test_a_re_ordered_sample_has_the_arrival_of_its_own_packet(mp4: Mp4) -> None:
    path = mp4(replace(SCENE, b_frames=2))
    decoder = ClipDecoder(path)
    packets = list(decoder.read())
    decoder.close()
    order = sorted(range(FRAMES), key=lambda index: packets[index].pts_s or 0.0)
    arrivals = {number: packets[index].arrived_at for number, index in enumerate(order)}
    taken = take(path, 0.3)
    assert [sample.arrived_at for sample in taken.samples] == pytest.approx([arrivals[n] for n in taken.frames])


class LowDelay(ClipDecoder):
    """Frames as of an encoder that has B-slices and no re-ordering: HEVC's low-delay B, which QSV and NVENC write."""

    def decode(self, packet: Packet, stream_us: int) -> list[VideoFrame]:
        frames = super().decode(packet, stream_us)
        for frame in frames:
            frame.pict_type = frame.pict_type if packet.is_key else PictureType.B
        return frames


def test_frames_that_are_not_re_ordered_are_sampled_as_they_come_whatever_their_slices_are(mp4: Mp4) -> None:
    """Else a whole group of pictures would be held: 250 decoded frames of 1080p are 780 MB."""
    decoder = LowDelay(mp4(SCENE))
    sampler = Sampler(0.1, decoder)
    taken = [len(list(sampler.push(packet))) for packet in decoder.read()]
    decoder.close()
    assert taken == [1] * FRAMES


# --- timestamps that lie ---


def edited(change: Callable[[int, Packet], Packet]) -> Edit:
    return lambda packets: [change(index, packet) for index, packet in enumerate(packets)]


def without_pts(packet: Packet) -> Packet:
    return replace(packet, pts_s=None)


def shifted_pts(packet: Packet, by_s: float) -> Packet:
    return replace(packet, pts_s=(packet.pts_s or 0.0) + by_s)


HARMLESS: dict[str, Edit] = {
    "all missing": edited(lambda n, packet: without_pts(packet)),
    "all missing and no durations": edited(lambda n, packet: replace(packet, pts_s=None, duration_s=0.0)),
    "the first ones missing": edited(lambda n, packet: without_pts(packet) if n < 3 else packet),
    "every third missing": edited(lambda n, packet: without_pts(packet) if n % 3 == 1 else packet),
    "begin anywhere": edited(lambda n, packet: shifted_pts(packet, 47_721.858)),
    "begin below zero": edited(lambda n, packet: shifted_pts(packet, -5000.0)),
    "an hour ahead": edited(lambda n, packet: shifted_pts(packet, 3600.0 if n >= 13 else 0.0)),
    "ten seconds back": edited(lambda n, packet: shifted_pts(packet, -10.0 if n >= 13 else 0.0)),
    "a jump each second": edited(lambda n, packet: shifted_pts(packet, -1000.0 * (n // 10))),
    "wrap around after 2^32 ticks": edited(lambda n, packet: shifted_pts(packet, 47_721.858 if n < 20 else 0.0)),
    "one that is far off": edited(lambda n, packet: shifted_pts(packet, 999.0) if n == 13 else packet),
    "missing after a jump": edited(
        lambda n, packet: without_pts(packet) if 13 <= n < 20 else shifted_pts(packet, 99.0 if n >= 20 else 0.0)
    ),
    "no durations": edited(lambda n, packet: replace(packet, duration_s=0.0)),
    "durations of a tick": edited(lambda n, packet: replace(packet, duration_s=1 / 90_000)),
}


@pytest.mark.parametrize("interval_s", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("edit", HARMLESS.values(), ids=HARMLESS)
def test_sampling_goes_on_at_the_interval_whatever_timestamps_do(mp4: Mp4, edit: Edit, interval_s: float) -> None:
    taken = take(mp4(SCENE), interval_s, edit)
    assert taken.frames == expected(steady(), interval_s)
    assert taken.counts.rejected == 0


@pytest.mark.parametrize("speed", [0.0, 0.25, 4.0, 25.0], ids="{}x".format)
def test_timestamps_at_another_speed_are_given_up_for_arrivals(mp4: Mp4, speed: float) -> None:
    """After MAX_DRIFT_S of difference; until then, samples may come too often or too seldom."""
    edit = edited(lambda n, packet: replace(packet, pts_s=(packet.pts_s or 0.0) * speed))
    taken = take(mp4(LONG), 1.0, edit)
    given_up_s = MAX_DRIFT_S / abs(speed - 1) + 2
    arrivals = [sample.arrived_at - WALL_S for sample in taken.samples]
    steady_ones = [at_s for at_s in arrivals if at_s > given_up_s]
    assert len(steady_ones) == pytest.approx(len(LONG.plan) - given_up_s, abs=2)
    assert np.diff(steady_ones) == pytest.approx(1.0, abs=0.11)
    assert -1 not in taken.frames


def test_wall_clock_times_are_those_of_arrival_even_if_stream_time_is_not(mp4: Mp4) -> None:
    edit = edited(lambda n, packet: replace(packet, pts_s=(packet.pts_s or 0.0) * 4))
    taken = take(mp4(SCENE), 1.0, edit)
    assert [round((sample.arrived_at - WALL_S) * FPS) for sample in taken.samples] == taken.frames


@with_clip
@given(
    interval_s=st.floats(0.05, 3.0),
    missing=st.sets(st.integers(0, FRAMES - 1)),
    jumps=st.dictionaries(st.integers(1, FRAMES - 1), st.floats(2.0, 1e5) | st.floats(-1e5, -2.0), max_size=5),
)
def test_any_pattern_of_missing_and_jumping_timestamps(
    mp4: Mp4, interval_s: float, missing: set[int], jumps: dict[int, float]
) -> None:
    def edit(packets: list[Packet]) -> list[Packet]:
        shifts = np.cumsum([jumps.get(n, 0.0) for n in range(FRAMES)])
        moved = [shifted_pts(packet, float(shift)) for packet, shift in zip(packets, shifts, strict=True)]
        return [without_pts(packet) if n in missing else packet for n, packet in enumerate(moved)]

    assert take(mp4(SCENE), interval_s, edit).frames == expected(steady(), interval_s)


# --- gaps ---


def with_gaps(gaps: dict[int, float]) -> tuple[Edit, list[tuple[int, float]]]:
    """Before these packets the camera pauses. The edit, and when each frame then is."""
    pauses = np.cumsum([gaps.get(n, 0.0) for n in range(FRAMES)])

    def edit(packets: list[Packet]) -> list[Packet]:
        return [later(packet, float(pause)) for packet, pause in zip(packets, pauses, strict=True)]

    return edit, [(n, n / FPS + float(pause)) for n, pause in enumerate(pauses)]


def test_after_a_gap_one_sample_is_taken_and_what_was_due_is_counted(mp4: Mp4) -> None:
    edit, times_s = with_gaps({25: 5.0})
    taken = take(mp4(SCENE), 1.0, edit)
    assert taken.frames == [0, 10, 20, 25, 30, 40, 50] == expected(times_s, 1.0)
    assert taken.counts.missed == 4  # those of seconds 3 to 6; that of second 7 is frame 25's own


@with_clip
@given(st.floats(0.05, 3.0), st.dictionaries(st.integers(1, FRAMES - 1), st.floats(0.0, 9.0), max_size=6))
def test_any_pattern_of_intervals_and_gaps(mp4: Mp4, interval_s: float, gaps: dict[int, float]) -> None:
    edit, times_s = with_gaps(gaps)
    taken = take(mp4(SCENE), interval_s, edit)
    assert taken.frames == expected(times_s, interval_s)
    due = math.floor((times_s[taken.frames[-1]][1] + 0.001) / interval_s) + 1
    assert taken.counts.missed == due - len(taken.frames)


def test_a_pause_with_a_jump_is_as_long_as_the_wait_for_the_next_packet(mp4: Mp4) -> None:
    """A camera that sets its clock while it pauses: its timestamps do not tell how long that was."""
    edit, times_s = with_gaps({25: 5.0})
    jump = edited(lambda n, packet: shifted_pts(packet, -500.0 if n >= 25 else 0.0))
    assert take(mp4(SCENE), 1.0, lambda packets: jump(edit(packets))).frames == expected(times_s, 1.0)


def test_a_burst_is_sampled_by_its_timestamps(mp4: Mp4) -> None:
    """All of two seconds comes at once, as from a relay that keeps the last group of pictures."""
    edit = edited(lambda n, packet: replace(packet, arrived_s=math.ceil((n + 1) / 20) * 2.0))
    assert take(mp4(SCENE), 1.0, edit).frames == expected(steady(), 1.0)


# --- what is not clean ---


@pytest.mark.parametrize("left_out", [1, 3, 7])
def test_nothing_is_sampled_before_the_first_key_frame(mp4: Mp4, left_out: int) -> None:
    taken = take(mp4(SCENE), 0.1, lambda packets: packets[left_out:])
    assert taken.frames == list(range(GOP, FRAMES))
    assert taken.decoded == FRAMES - GOP


@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_start_in_mid_gop_is_sampled_from_the_first_key_frame_at_the_interval(mp4: Mp4, b_frames: int) -> None:
    taken = take(mp4(replace(SCENE, b_frames=b_frames)), 1.0, lambda packets: packets[3:])
    held_back = b_frames  # by the decoder: nothing follows that would push them out
    assert taken.frames == expected(steady(GOP, FRAMES - held_back), 1.0)


@pytest.mark.parametrize("at", [1, GOP, GOP + 3, 3 * GOP - 1, 50])
def test_after_a_flagged_packet_nothing_is_sampled_until_the_next_key_frame(mp4: Mp4, at: int) -> None:
    edit = edited(lambda n, packet: replace(packet, is_damaged=True) if n == at else packet)
    taken = take(mp4(SCENE), 0.1, edit)
    clean_from = (at // GOP + 1) * GOP
    assert taken.frames == [n for n in range(FRAMES) if n < at or n >= clean_from]
    assert taken.counts.rejected == clean_from - at


def test_a_damaged_first_key_frame_is_no_beginning(mp4: Mp4) -> None:
    edit = edited(lambda n, packet: replace(packet, is_damaged=n == 0))
    assert take(mp4(SCENE), 0.1, edit).frames == list(range(GOP, FRAMES))


def broken(packet: Packet) -> Packet:
    """Half of its bytes are turned around, and nothing flags it."""
    data = bytearray(bytes(packet.data))
    for place in range(len(data) // 3, len(data), 2):
        data[place] ^= 0xFF
    return replace(packet, data=a_packet(bytes(data), is_key=packet.is_key))


@pytest.mark.parametrize("at", [GOP + 3, 2 * GOP, 50])
def test_after_a_packet_that_the_decoder_finds_broken_nothing_is_sampled_until_the_next_key_frame(
    mp4: Mp4, at: int
) -> None:
    scene = replace(SCENE, noise=6)  # so that there is something to break in each packet
    taken = take(mp4(scene), 0.1, edited(lambda n, packet: broken(packet) if n == at else packet))
    clean_from = (at // GOP + 1) * GOP
    assert taken.frames == [n for n in range(FRAMES) if n < at or n >= clean_from]


@pytest.mark.parametrize("at", range(GOP + 1, 2 * GOP + 2))
def test_no_re_ordered_frame_is_sampled_that_was_damaged(mp4: Mp4, at: int) -> None:
    scene = replace(SCENE, noise=6, b_frames=2)
    taken = take(mp4(scene), 0.1, edited(lambda n, packet: broken(packet) if n == at else packet))
    assert -1 not in taken.frames
    assert {0, 1, 2, *range(3 * GOP, FRAMES - 4)} <= set(taken.frames)


def test_the_interval_goes_on_over_what_was_damaged(mp4: Mp4) -> None:
    """Due at second 2: frame 20 is tainted, the next clean one is the key frame 24; then second 3 as ever."""
    edit = edited(lambda n, packet: replace(packet, is_damaged=True) if n == 18 else packet)
    assert take(mp4(SCENE), 1.0, edit).frames == [0, 10, 24, 30, 40, 50]


@with_clip
@given(st.floats(0.05, 2.0), st.sets(st.integers(0, FRAMES - 1), max_size=6), st.integers(0, 20))
def test_any_pattern_of_damage(mp4: Mp4, interval_s: float, damaged: set[int], left_out: int) -> None:
    edit = edited(lambda n, packet: replace(packet, is_damaged=n in damaged))
    clean, is_clean = [], False
    for n in range(left_out, FRAMES):
        is_clean = n not in damaged and (is_clean or n % GOP == 0)
        if is_clean:
            clean.append((n, n / FPS))
    taken = take(mp4(SCENE), interval_s, lambda packets: edit(packets)[left_out:])
    assert taken.frames == expected(clean, interval_s)


# --- the clock by itself ---


def ticks(*packets: tuple[float | None, float], duration_s: float = 0.1) -> list[float]:
    """Stream times of packets given as timestamp and arrival."""
    clock = StreamClock()
    template = Packet(a_packet(), None, duration_s, True, False, 0.0, 0.0)
    return [clock.at(replace(template, pts_s=pts_s, arrived_s=arrived_s)) for pts_s, arrived_s in packets]


def test_stream_time_begins_at_zero() -> None:
    assert ticks((500.0, 77.0)) == ticks((None, 77.0)) == [0.0]


def test_stream_time_takes_no_notice_of_jitter_in_arrivals() -> None:
    assert ticks((5.0, 0.0), (5.1, 0.3), (5.2, 0.31), (5.3, 0.32)) == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_without_a_timestamp_a_packet_is_as_long_as_it_says_whenever_it_came() -> None:
    assert ticks((None, 0.0), (None, 0.3), (None, 0.31), (5.0, 0.32), (5.1, 0.7)) == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.4]
    )


def test_without_timestamp_and_duration_it_is_as_long_as_the_wait() -> None:
    assert ticks((None, 0.0), (None, 0.3), (None, 0.35), duration_s=0.0) == pytest.approx([0.0, 0.3, 0.35])


def test_a_step_back_is_re_ordering() -> None:
    assert ticks((5.0, 0.0), (5.3, 0.1), (5.1, 0.2), (5.2, 0.3)) == pytest.approx([0.0, 0.3, 0.1, 0.2])


@with_clip
@given(st.lists(st.tuples(st.none() | st.floats(-1e6, 1e6), st.floats(0.0, 9.0), st.floats(0.0, 2.0)), max_size=60))
def test_stream_time_never_leaves_the_time_of_arrivals_far_behind(
    steps: list[tuple[float | None, float, float]],
) -> None:
    """Whatever is claimed: by MAX_DRIFT_S, and then by no more than the packet's own pause, duration and jitter."""
    clock, arrived_s = StreamClock(), 0.0
    for pts_s, waited_s, duration_s in steps:
        arrived_s += waited_s
        packet = Packet(a_packet(), pts_s, duration_s, True, False, 0.0, arrived_s)
        begun_s = steps[0][1]
        assert abs(clock.at(packet) - (arrived_s - begun_s)) <= MAX_DRIFT_S + 9.0 + 2.0 + MAX_STEP_S
