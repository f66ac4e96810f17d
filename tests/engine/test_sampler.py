"""Samples are those that decoding everything would have given, and nothing is decoded that they do not need."""

import itertools
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from av.video.frame import VideoFrame
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from streams.engine import sampler as sampling
from streams.engine.decoder import Decoder
from streams.engine.feed import Packet
from streams.engine.sampler import NO_KEY_S, PATIENCE_S, Counts, Sampler
from tests.camera.clip import Codec, Scene

from .clip_feed import (
    FILM_FPS,
    WALL_S,
    Decoders,
    Film,
    a_packet,
    decoded,
    digest,
    filmed,
    headers,
    joined,
    later,
    packets_of,
)
from .clip_feed import shown as shown_of
from .paff import paff_pictures
from .plain_sampling import Plain, Shot, plainly
from .scripted_decoder import Script, ScriptedDecoder

FRAME_S = 1 / FILM_FPS
GOP = 8
FILM = Film(frames=72, key_every=GOP)
IN_ORDER = [
    Film(frames=24, key_every=8),
    Film(frames=15, key_every=3),
    Film(frames=12, key_every=12),
    Film(frames=30, key_every=30),
    Film(frames=6, key_every=1),
    Film(frames=10, key_every=5),
]
CLOSED = [
    Film(frames=24, b_frames=1),
    Film(frames=24, b_frames=2),
    Film(frames=24, b_frames=3, key_every=6),
    Film(frames=25, b_frames=3, pyramid=True),
    Film(frames=30, b_frames=2, key_every=30),
]
OPEN = [
    Film(frames=24, b_frames=2, open_gop=True),
    Film(frames=24, b_frames=3, pyramid=True, open_gop=True),
]
MANY = settings(deadline=None, max_examples=100)
SOME = settings(deadline=None, max_examples=40)
GRACE_PICTURES = 5  # half a second of ten a second
DEEPEST = 4  # pictures that any of these films' decoders holds back, with the one that is being decoded

intervals = st.one_of(
    st.floats(0.03, 0.5), st.floats(0.3, 3.0), st.sampled_from([0.1, 0.2, 0.3, 0.8, 1.0, 1.2]), st.floats(3.0, 60.0)
)
losses = st.dictionaries(st.integers(0, 120), st.sampled_from(["lost before", "damaged"]), max_size=5)


@dataclass(frozen=True, slots=True)
class Taken:
    """A sample: the number of its picture in order of arrival, known by the moment of its arrival."""

    number: int
    stream_s: float
    due_s: float
    digest: int


@dataclass(slots=True)
class Played:
    """`decoded`: numbers of pictures as they were decoded, with the samples in their midst as (number, due time)."""

    taken: list[Taken]
    log: list[int | tuple[int, float]]
    counts: Counts
    decodes_all: bool

    @property
    def numbers(self) -> list[int]:
        return [taken.number for taken in self.taken]

    @property
    def decoded(self) -> list[int]:
        return [entry for entry in self.log if isinstance(entry, int)]


class Recording:
    """A decoder that tells what it is given, counted from 0 as the tests do."""

    def __init__(self, decoder: Decoder, log: list[int | tuple[int, float]]) -> None:
        self._decoder, self._log = decoder, log
        self.drain, self.begin_anew = decoder.drain, decoder.begin_anew

    def decode(self, data: bytes, number: int) -> list[VideoFrame]:
        self._log.append(number - 1)
        return self._decoder.decode(data, number)


def play(packets: Sequence[Packet], interval_s: float, codec: str = "h264", counts: Counts | None = None) -> Played:
    played = Played([], [], counts or Counts(), False)
    opener = Decoders(codec)
    sampler = Sampler(interval_s, lambda: Recording(opener(), played.log), played.counts)
    arrivals = {packet.arrived_at: number for number, packet in enumerate(packets)}
    assert len(arrivals) == len(packets)
    for packet in packets:
        for sample in sampler.push(packet):
            number = arrivals[sample.arrived_at]
            played.taken.append(Taken(number, sample.stream_s, sample.due_s, digest(sample.frame)))
            played.log.append((number, sample.due_s))
    played.decodes_all = sampler.decodes_all
    return played


def ended(packets: Sequence[Packet]) -> list[Packet]:
    """With a last one that is damaged: so nothing that has come still waits for what may come."""
    last_s = max(packet.pts_s for packet in packets) + FRAME_S
    arrived_s = packets[-1].arrived_s + FRAME_S
    end = replace(packets[-1], pts_s=last_s, is_key=False, is_whole=False)
    return [*packets, replace(end, arrived_s=arrived_s, arrived_at=WALL_S + arrived_s)]


def shots_of(packets: Sequence[Packet]) -> list[Shot]:
    """As their timestamps say."""
    begin_s = packets[0].pts_s
    return [Shot(packet.pts_s - begin_s, packet.is_key, packet.is_whole, packet.follows_loss) for packet in packets]


def looks(films: Sequence[Film]) -> list[int]:
    """What each picture shows, in order of arrival."""
    return [shown_of(film)[round(packet.pts_s * FILM_FPS)] for film in films for packet in filmed(film)]


def assert_as_planned(played: Played, plain: Plain, looks: Sequence[int]) -> None:
    assert played.numbers == [choice.number for choice in plain.taken]
    assert [taken.due_s for taken in played.taken] == pytest.approx([choice.due_s for choice in plain.taken])
    assert_true(played, looks)
    assert played.counts.rejected == plain.rejected
    assert played.counts.missed == plain.missed


def assert_true(played: Played, looks: Sequence[int]) -> None:
    """Pixel for pixel what decoding everything from the begin gives."""
    assert [taken.digest for taken in played.taken] == [looks[number] for number in played.numbers]


def with_gaps(packets: Sequence[Packet], gaps: dict[int, float]) -> list[Packet]:
    """Before the pictures in these places of the presentation the camera pauses."""
    order = sorted(range(len(packets)), key=lambda index: packets[index].pts_s)
    pauses_s = np.cumsum([gaps.get(place, 0.0) for place in range(len(packets))])
    moved = {index: float(pauses_s[place]) for place, index in enumerate(order)}
    waited_s, ready = 0.0, []
    for index, packet in enumerate(packets):
        waited_s = max(waited_s, moved[index])
        ready.append(replace(later(packet, waited_s), pts_s=packet.pts_s + moved[index]))
    return ready


def with_losses(packets: Sequence[Packet], lost: dict[int, str]) -> list[Packet]:
    return [
        replace(packet, is_whole=lost.get(n) != "damaged", follows_loss=lost.get(n) == "lost before")
        for n, packet in enumerate(packets)
    ]


def edited(change: Callable[[int, Packet], Packet], packets: Sequence[Packet]) -> list[Packet]:
    return [change(number, packet) for number, packet in enumerate(packets)]


def ahead(packet: Packet, by_s: float) -> Packet:
    """Stamped so much later, but not sent later."""
    return replace(packet, pts_s=packet.pts_s + by_s)


# --- the plain model and the films are facts ---


def test_a_second_is_ten_frames_of_a_tenth() -> None:
    def numbers(interval_s: float) -> list[int]:
        return [choice.number for choice in plainly([Shot(n / 10, n == 0) for n in range(60)], interval_s).taken]

    assert numbers(1.0)[:-1] == [0, 10, 20, 30, 40]
    assert numbers(0.25)[:8] == [0, 3, 5, 8, 10, 13, 15, 18]


def test_the_plain_way_takes_key_frames_once_they_come_often_enough() -> None:
    shots = [Shot(n / 10, n % 8 == 0) for n in range(60)]
    assert [choice.number for choice in plainly(shots, 1.0).taken] == [0, 16, 24, 32, 40, 56]
    late = [Shot(n / 10, n % 8 == 0 and n <= 24) for n in range(60)]
    assert [choice.number for choice in plainly(late, 1.0).taken] == [0, 16, 24, 30, 40, 50]


@pytest.mark.parametrize("film", [FILM, *IN_ORDER, *CLOSED, *OPEN], ids=str)
def test_each_frame_of_a_film_is_another_one(film: Film) -> None:
    """Else a wrong frame could pass for the right one."""
    assert len(set(shown_of(film))) == film.frames == len(filmed(film))


def test_films_have_the_pictures_that_they_are_made_for() -> None:
    def kinds(film: Film) -> str:
        return "".join("K" if p.is_key else "R" if p.is_refresh else "pb"[not p.is_reference] for p in filmed(film))

    assert kinds(Film(frames=16)) == "KpppppppKppppppp"
    assert kinds(Film(frames=16, b_frames=3, pyramid=True)) == "KppbbppbKppbbppb"
    assert kinds(Film(frames=16, b_frames=2, open_gop=True)).startswith("KpbbpbbKb")
    assert kinds(Film(frames=16, refreshes=True)) == "KpppppppRppppppp"


# --- any pattern ---


@MANY
@given(st.lists(st.sampled_from(IN_ORDER), min_size=1, max_size=6), intervals, losses, st.data())
def test_any_pattern_in_order(
    films: list[Film], interval_s: float, lost: dict[int, str], data: st.DataObject
) -> None:
    """Of key frames, gaps, losses and due times: the right samples, and decoded is what they need."""
    places = st.integers(1, sum(film.frames for film in films))
    gaps = data.draw(st.dictionaries(places, st.floats(0.0, 4.0), max_size=4))
    packets = ended(with_losses(with_gaps(joined(films), gaps), lost))
    plain = plainly(shots_of(packets), interval_s)
    played = play(packets, interval_s)
    assert_as_planned(played, plain, looks(films))
    assert_decoded_in_order(played, packets, plain)


def assert_decoded_in_order(played: Played, packets: Sequence[Packet], plain: Plain) -> None:
    """From a sample's key frame to the sample, each picture once. Twice: the connection's first sample, and in groups
    that lasted longer than it could be expected when they began, which nobody can know before."""
    shots = shots_of(packets)
    groups = {number: _key_of(packets, number) for number in played.numbers}
    times = Counter(played.decoded)
    assert set(times) == {picture for number, key in groups.items() for picture in range(key, number + 1)}
    assert max(times.values(), default=0) <= 2
    for picture in (number for number, count in times.items() if count == 2):
        key = _key_of(packets, picture)
        spacing_s = plain.group_spacing_s[key]
        lasted_s = shots[_next_key(packets, key)].at_s - shots[key].at_s
        is_first = picture == played.numbers[0]
        assert is_first or (spacing_s is not None and lasted_s > spacing_s - 0.003)
    assert played.counts.decoded == len(played.decoded)
    assert played.counts.received == len(packets)


def _key_of(packets: Sequence[Packet], number: int) -> int:
    return next(n for n in range(number, -1, -1) if packets[n].is_key and packets[n].is_whole)


def _key_shown_before(packets: Sequence[Packet], number: int) -> int:
    """The one that is needed: leading pictures come after their key frame and need the one before it."""
    keys = (n for n in range(number, -1, -1) if packets[n].is_key and packets[n].is_whole)
    return next(n for n in keys if packets[n].pts_s <= packets[number].pts_s)


def _next_key(packets: Sequence[Packet], key: int) -> int:
    """Or the last picture."""
    return next((n for n in range(key + 1, len(packets)) if packets[n].is_key), len(packets) - 1)


@MANY
@given(st.lists(st.sampled_from([*IN_ORDER, *CLOSED, *OPEN]), min_size=1, max_size=6), intervals, losses, st.data())
def test_any_pattern_re_ordered(
    films: list[Film], interval_s: float, lost: dict[int, str], data: st.DataObject
) -> None:
    """Pauses within a group of pictures are short: longer ones tear B-frames away from what is sent before them."""
    begins = [sum(film.frames for film in films[:place]) for place in range(1, len(films))]
    gaps = dict.fromkeys(data.draw(st.sets(st.integers(1, 120), max_size=2)), 0.4)
    gaps |= {begin: data.draw(st.floats(0.0, 9.0)) for begin in begins[:3]}
    packets = ended(with_losses(with_gaps(joined(films), gaps), lost))
    plain = plainly(shots_of(packets), interval_s)
    assume(not plain.is_open_choice)
    played = play(packets, interval_s)
    assert_as_planned(played, plain, looks(films))
    assert_decoded_re_ordered(played, packets, extra=DEEPEST + _awaited(films))


def _awaited(films: Sequence[Film]) -> int:
    """The pictures that pass while a key frame is waited for that comes no more, since another film has begun."""
    return 0 if len(set(films)) == 1 else max(film.key_every for film in films) + GRACE_PICTURES


def assert_decoded_re_ordered(played: Played, packets: Sequence[Packet], *, extra: int) -> None:
    """What others copy from, from the sample's key frame on; of the rest only what is shown when a sample is due, and
    so many more for each sample."""
    due_s = math.inf
    for entry in reversed(played.log):
        if isinstance(entry, tuple):
            due_s = entry[1]
        elif due_s < math.inf and not packets[entry].is_reference:
            assert packets[entry].pts_s - packets[0].pts_s >= due_s - 0.002
    needed = {n for taken in played.taken for n in range(_key_shown_before(packets, taken.number), taken.number + 1)}
    assert len(set(played.decoded) - needed) <= extra * len(played.taken)
    assert max(Counter(played.decoded).values(), default=0) <= 2


@SOME
@given(
    interval_s=st.floats(0.05, 3.0),
    jumps=st.dictionaries(st.integers(1, 71), st.floats(2.0, 1e5) | st.floats(-1e5, -2.0), max_size=5),
    has_durations=st.booleans(),
)
def test_any_pattern_of_jumping_timestamps(interval_s: float, jumps: dict[int, float], has_durations: bool) -> None:
    packets = ended(joined([FILM]))
    shifts_s = np.cumsum([jumps.get(n, 0.0) for n in range(len(packets))])
    lying = [
        replace(ahead(p, float(s)), duration_s=has_durations * 0.1) for p, s in zip(packets, shifts_s, strict=True)
    ]
    played = play(lying, interval_s)
    plain = plainly(shots_of(packets), interval_s)
    assert played.numbers == [choice.number for choice in plain.taken]
    assert_true(played, looks([FILM]))


@MANY
@given(
    film=st.sampled_from([FILM, *IN_ORDER, *CLOSED, *OPEN]),
    interval_s=st.floats(0.05, 3.0),
    jumps=st.dictionaries(st.integers(1, 71), st.floats(-1.6, 2.0), min_size=1, max_size=5),
)
def test_no_step_of_a_clock_makes_a_frame_wrong(film: Film, interval_s: float, jumps: dict[int, float]) -> None:
    """Steps that look like re-ordering: the pictures after a key frame seem to be shown before it."""
    shifts_s = np.cumsum([jumps.get(n, 0.0) for n in range(film.frames)])
    packets = [ahead(p, float(s)) for p, s in zip(joined([film]), shifts_s, strict=True)]
    played = play(ended(packets), interval_s)
    assert_true(played, looks([film]))
    assert played.taken


@pytest.mark.parametrize("by_s", [-0.3, -1.0, -1.4])
@pytest.mark.parametrize("at", [GOP + 1, 2 * GOP + 1, 2 * GOP + 3])
def test_a_clock_that_is_set_back_after_a_key_frame(at: int, by_s: float) -> None:
    packets = edited(lambda n, packet: ahead(packet, by_s if n >= at else 0.0), joined([FILM]))
    played = play(ended(packets), 0.3)
    assert_true(played, looks([FILM]))
    assert len(played.taken) >= (7.2 + by_s) / 0.3 - 6


# --- the samples of a steady feed ---


@pytest.mark.parametrize("interval_s", [0.05, 0.1, 0.25, 0.3, 0.7])
def test_a_sample_is_the_first_frame_at_or_after_its_time(interval_s: float) -> None:
    packets = ended(joined([FILM]))
    played = play(packets, interval_s)
    assert_as_planned(played, plainly(shots_of(packets), interval_s), looks([FILM]))
    late_s = [taken.stream_s - taken.due_s for taken in played.taken]
    assert min(late_s) >= -0.001
    assert max(late_s) < FRAME_S
    needed = {picture for n in played.numbers for picture in range(n // GOP * GOP, n + 1)}
    assert sorted(played.decoded) == [0, *sorted(needed)]  # the first one alone, so that it comes at once


@pytest.mark.parametrize("interval_s", [0.8, 0.9, 1.0, 1.7, 5.0])
def test_with_key_frames_often_enough_each_sample_is_one_decode(interval_s: float) -> None:
    packets = ended(joined([FILM]))
    played = play(packets, interval_s)
    assert_as_planned(played, plainly(shots_of(packets), interval_s), looks([FILM]))
    assert played.decoded == played.numbers
    assert all(number % GOP == 0 for number in played.numbers)
    late_s = [taken.stream_s - taken.due_s for taken in played.taken]
    assert min(late_s) >= -0.001
    assert max(late_s) <= GOP * FRAME_S + 0.001


def test_a_sample_has_its_stream_time_due_time_and_arrival() -> None:
    packets = edited(lambda n, packet: replace(later(packet, 0.0), pts_s=packet.pts_s + 777.0), joined([FILM]))
    sampler = Sampler(0.25, Decoders("h264"))
    samples = [sample for packet in packets for sample in sampler.push(packet)]
    assert [sample.stream_s for sample in samples[:4]] == pytest.approx([0.0, 0.3, 0.5, 0.8])
    assert [sample.due_s for sample in samples[:4]] == pytest.approx([0.0, 0.25, 0.5, 0.75])
    assert [sample.arrived_at - WALL_S for sample in samples[:4]] == pytest.approx([0.0, 0.3, 0.5, 0.8])


def test_the_first_sample_comes_with_the_first_key_frame() -> None:
    """Whatever the decoder holds back."""
    for film in (FILM, *CLOSED, *OPEN):
        sampler = Sampler(60.0, Decoders("h264"))
        assert [digest(sample.frame) for sample in sampler.push(filmed(film)[0])] == [shown_of(film)[0]]


def test_a_sample_comes_as_soon_as_its_picture_is_there() -> None:
    sampler = Sampler(0.1, Decoders("h264"))
    assert [len(list(sampler.push(packet))) for packet in joined([FILM])] == [1] * FILM.frames


@pytest.mark.parametrize("codec", ["hevc", "mpeg4", "mjpeg"])
def test_other_codecs_are_sampled_alike(codec: Codec) -> None:
    packets = ended(packets_of(Scene(160, 120, (40, 200, 90), fps=FILM_FPS, gop_s=0.8, codec=codec, noise=4)))
    looks = [digest(frame) for frame in decoded([packet.data for packet in packets[:-1]], codec)]
    for interval_s in (0.3, 1.0):
        played = play(packets, interval_s, codec)
        assert_as_planned(played, plainly(shots_of(packets), interval_s), looks)
        assert_decoded_in_order(played, packets, plainly(shots_of(packets), interval_s))


@pytest.mark.parametrize("slower", [5, 10, 20])
def test_two_pictures_a_second_and_fewer_are_all_sampled_though_re_ordered(slower: int) -> None:
    """Row 46: 2, 1 and 0.5 pictures a second, a sample of each."""
    film = Film(frames=24, b_frames=3, pyramid=True, key_every=24)
    slow = [
        replace(later(packet, packet.arrived_s * (slower - 1)), pts_s=packet.pts_s * slower, duration_s=0.0)
        for packet in filmed(film)
    ]
    played = play(ended(slow), slower * FRAME_S)
    assert [taken.digest for taken in played.taken] == list(shown_of(film))
    assert (played.counts.missed, played.counts.rejected) == (0, 1)


@pytest.mark.parametrize(
    "film",
    [Film(codec="hevc", b_frames=2, open_gop=True), Film(codec="hevc", b_frames=2), Film(codec="mpeg4", b_frames=1)],
    ids=str,
)
@pytest.mark.parametrize("interval_s", [0.1, 0.3, 1.0])
def test_other_codecs_re_order_alike(film: Film, interval_s: float) -> None:
    films = [film, replace(film, seed=1)]
    for begin in (0, 3):
        packets = ended(joined(films)[begin:])
        plain = plainly(shots_of(packets), interval_s)
        played = play(packets, interval_s, film.codec)
        assert played.numbers == [choice.number for choice in plain.taken]
        assert_true(played, looks(films)[begin:])


# --- key frames that come later than expected, or no more ---


def test_when_key_frames_stop_each_picture_is_decoded_once_more_at_most() -> None:
    films = [Film(frames=32, key_every=8), Film(frames=120, key_every=120)]
    for interval_s in (0.3, 0.5, 0.8, 1.0):
        packets = ended(joined(films))
        plain = plainly(shots_of(packets), interval_s)
        played = play(packets, interval_s)
        assert_as_planned(played, plain, looks(films))
        assert_decoded_in_order(played, packets, plain)


def test_a_late_key_frame_is_waited_for_with_patience() -> None:
    """Usual distance 0.8 s; due at 4.0; the group begins at 3.2, and its successor comes after 1.2 s or 1.5 s."""
    assert math.isclose(PATIENCE_S, 0.5)
    for late_frames, expected in ((4, 44), (7, 40)):
        films = [Film(frames=32, key_every=8), Film(frames=8 + late_frames, key_every=60), Film(frames=16)]
        played = play(ended(joined(films)), 2.0)
        assert played.numbers[:3] == [0, 24, expected]


def test_after_a_gap_one_sample_is_taken_and_what_was_due_is_counted() -> None:
    packets = ended(with_gaps(joined([Film(frames=72, key_every=72)]), {25: 5.0}))
    played = play(packets, 1.0)
    assert played.numbers == [0, 10, 20, 25, 30, 40, 50, 60, 70]
    assert played.counts.missed == 4  # those of seconds 3 to 6; that of second 7 is frame 25's own


def test_a_pause_with_a_jump_is_as_long_as_the_wait_for_the_next_packet() -> None:
    """A camera that sets its clock while it pauses: its timestamps do not tell how long that was."""
    packets = ended(with_gaps(joined([FILM]), {25: 5.0}))
    jumped = edited(lambda n, packet: ahead(packet, -500.0 if n >= 25 else 0.0), packets)
    assert play(jumped, 0.7).numbers == [choice.number for choice in plainly(shots_of(packets), 0.7).taken]


def test_a_burst_is_sampled_by_its_timestamps() -> None:
    """All of two seconds comes at once, as from a relay that keeps the last group of pictures."""
    packets = ended(joined([FILM]))
    burst = edited(lambda n, packet: replace(packet, arrived_s=math.ceil((n + 1) / 20) * 2.0), packets)
    assert play(burst, 0.3).numbers == play(packets, 0.3).numbers


@pytest.mark.parametrize("speed", [0.0, 0.25, 4.0, 25.0], ids="{}x".format)
def test_timestamps_at_another_speed_are_given_up_for_arrivals(speed: float) -> None:
    """After MAX_DRIFT_S of difference; until then, samples may come too often or too seldom."""
    films = [replace(FILM, seed=seed) for seed in range(7)]
    packets = edited(lambda n, packet: replace(packet, pts_s=packet.pts_s * speed), joined(films))
    played = play(packets, 1.0)
    given_up_s = 15.0 / abs(speed - 1) + 2
    arrivals_s = [number * FRAME_S for number in played.numbers if number * FRAME_S > given_up_s]
    assert len(arrivals_s) == pytest.approx(len(packets) * FRAME_S - given_up_s, abs=3)
    assert np.diff(arrivals_s) == pytest.approx(1.0, abs=GOP * FRAME_S)
    assert_true(played, looks(films))


# --- what is not clean ---


@pytest.mark.parametrize("left_out", [1, 3, 7])
def test_nothing_is_sampled_before_the_first_key_frame(left_out: int) -> None:
    played = play(ended(joined([FILM])[left_out:]), 0.1)
    assert [number + left_out for number in played.numbers] == list(range(GOP, FILM.frames))
    assert min(played.decoded) + left_out == GOP
    assert_true(played, looks([FILM])[left_out:])
    assert played.counts.rejected == 1  # the end


@pytest.mark.parametrize("film", [*CLOSED, *OPEN], ids=str)
@pytest.mark.parametrize("left_out", [1, 5, 9])
def test_leading_pictures_of_the_first_key_frame_are_not_sampled(film: Film, left_out: int) -> None:
    films = [film, replace(film, seed=1)]
    packets = ended(joined(films)[left_out:])
    played = play(packets, 0.1)
    assert played.numbers == [choice.number for choice in plainly(shots_of(packets), 0.1).taken]
    assert_true(played, looks(films)[left_out:])


@pytest.mark.parametrize("kind", ["lost before", "damaged"])
@pytest.mark.parametrize("at", [1, GOP, GOP + 3, 3 * GOP - 1, 50])
def test_after_a_loss_nothing_is_sampled_until_the_next_whole_key_frame(at: int, kind: str) -> None:
    packets = ended(with_losses(joined([FILM]), {at: kind}))
    played = play(packets, 0.1)
    is_clean_key = at % GOP == 0 and kind == "lost before"
    clean_from = at if is_clean_key else (at // GOP + 1) * GOP
    assert played.numbers == [n for n in range(FILM.frames) if n < at or n >= clean_from]
    assert played.counts.rejected == clean_from - at + 1  # and the end


def test_what_was_due_before_a_loss_is_still_taken() -> None:
    """Due at 0.35 s; picture 4 might be shown after one that is still to come, but that one is lost."""
    packets = with_losses(joined([FILM])[:6], {5: "lost before"})
    assert play(packets, 0.35).numbers == [0, 4]
    assert play(packets[:5], 0.35).numbers == [0]


def test_the_interval_goes_on_over_what_was_damaged() -> None:
    played = play(ended(with_losses(joined([FILM]), {17: "damaged"})), 0.6)
    assert played.numbers[:5] == [0, 6, 12, 24, 30]
    assert played.counts.missed == 1


def broken(packet: Packet) -> Packet:
    """Its end is missing, and nothing says so."""
    return replace(packet, data=packet.data[: len(packet.data) // 2])


@pytest.mark.parametrize("at", [GOP + 3, 2 * GOP, 50])
def test_after_a_picture_that_the_decoder_finds_broken_nothing_is_sampled_until_the_next_key_frame(at: int) -> None:
    packets = joined([FILM])
    played = play(ended(edited(lambda n, packet: broken(packet) if n == at else packet, packets)), 0.1)
    clean_from = (at // GOP + 1) * GOP
    assert played.numbers == [n for n in range(FILM.frames) if n < at or n >= clean_from]
    assert_true(played, looks([FILM]))
    assert played.counts.rejected == clean_from - at + 1


@pytest.mark.parametrize("film", [*CLOSED, *OPEN], ids=str)
@pytest.mark.parametrize("at", range(GOP + 1, 2 * GOP + 2))
def test_no_re_ordered_frame_is_sampled_that_was_broken(film: Film, at: int) -> None:
    films = [film, replace(film, seed=1), replace(film, seed=2)]
    packets = edited(lambda n, packet: broken(packet) if n == at else packet, joined(films))
    played = play(ended(packets), 0.1)
    assert_true(played, looks(films))
    assert {0, *range(2 * film.frames, 3 * film.frames)} <= set(played.numbers)


# --- decoders that do as they like ---


@dataclass(slots=True)
class Faulty:
    """Opens scripted decoders."""

    delay: int = 0
    steps: int = 100_000

    def __call__(self) -> ScriptedDecoder:
        return ScriptedDecoder(self.delay, self.steps)


def scripted(faults: dict[int, str], keys: set[int], b_frames: int, frames: int = 60) -> list[Packet]:
    """Mini-groups of a picture and `b_frames` shown before it; key frames end none."""
    order: list[int] = []
    begins = sorted({0, *keys, frames})
    for begin, end in itertools.pairwise(begins):
        order.append(begin)
        for top in range(begin + 1, end, b_frames + 1):
            last = min(top + b_frames, end - 1)
            order += [last, *range(top, last)]
    return [
        a_packet(
            Script(place, faults.get(number, "")).data,
            pts_s=place * FRAME_S,
            duration_s=FRAME_S,
            is_key=place in keys or place == 0,
            arrived_s=number * FRAME_S,
        )
        for number, place in enumerate(order)
    ]


@MANY
@given(
    faults=st.dictionaries(st.integers(0, 59), st.sampled_from(["corrupt", "refused"]), max_size=5),
    keys=st.sets(st.integers(1, 59), max_size=12),
    interval_s=st.floats(0.03, 2.5),
)
def test_no_wrong_and_no_lost_sample_whatever_a_decoder_finds(
    faults: dict[int, str], keys: set[int], interval_s: float
) -> None:
    packets = ended(scripted(faults, keys, b_frames=0))
    shots = [replace(shot, is_rotten=n in faults) for n, shot in enumerate(shots_of(packets))]
    plain = plainly(shots, interval_s)
    sampler = Sampler(interval_s, Faulty(steps=3 * len(packets)))
    samples = [sample for packet in packets for sample in sampler.push(packet)]
    assert [round((sample.arrived_at - WALL_S) / FRAME_S) for sample in samples] == [c.number for c in plain.taken]
    assert sampler.counts.rejected == plain.rejected
    assert sampler.counts.missed == plain.missed


@MANY
@given(
    faults=st.dictionaries(st.integers(0, 59), st.sampled_from(["corrupt", "refused", "nothing"]), max_size=6),
    keys=st.sets(st.integers(1, 59), max_size=12),
    interval_s=st.floats(0.03, 2.5),
    b_frames=st.integers(0, 3),
    delay=st.integers(0, 3),
)
def test_no_wrong_sample_whenever_a_decoder_says_what_it_found(
    faults: dict[int, str], keys: set[int], interval_s: float, b_frames: int, delay: int
) -> None:
    packets = ended(scripted(faults, keys, b_frames))
    sampler = Sampler(interval_s, Faulty(max(delay, min(b_frames, 1)), steps=4 * len(packets)))
    samples = [sample for packet in packets for sample in sampler.push(packet)]
    numbers = [round((sample.arrived_at - WALL_S) / FRAME_S) for sample in samples]
    for number, sample in zip(numbers, samples, strict=True):
        assert sample.frame.pts == number + 1
        assert number not in faults
        assert not any(faults.get(n, "nothing") != "nothing" for n in range(_key_of(packets, number), number))
        assert sample.stream_s >= sample.due_s - 0.001
    times_s = [sample.stream_s for sample in samples]
    assert times_s == sorted(set(times_s))


@MANY
@given(
    nothing=st.sets(st.integers(0, 59), max_size=12),
    keys=st.sets(st.integers(1, 59), max_size=12),
    interval_s=st.floats(0.03, 2.5),
    delay=st.integers(0, 3),
)
def test_pictures_that_give_no_frame_are_passed_over(
    nothing: set[int], keys: set[int], interval_s: float, delay: int
) -> None:
    """Precisely: the next one that gives a frame is taken, none is lost."""
    packets = ended(scripted(dict.fromkeys(nothing, "nothing"), keys, b_frames=0))
    sampler = Sampler(interval_s, Faulty(delay, steps=4 * len(packets)))
    samples = [sample for packet in packets for sample in sampler.push(packet)]
    numbers = [round((sample.arrived_at - WALL_S) / FRAME_S) for sample in samples]
    assert not nothing & set(numbers)
    if not keys:
        shots = [shot for n, shot in enumerate(shots_of(packets)) if n not in nothing or n == 0]
        if 0 not in nothing:
            times_s = [shots[choice.number].at_s for choice in plainly(shots, interval_s).taken]
            assert [sample.stream_s for sample in samples] == pytest.approx(times_s)
    for before, sample in itertools.pairwise(samples):
        assert sample.stream_s > before.stream_s


def test_what_a_decoder_held_back_before_it_met_damage_is_taken() -> None:
    packets = ended(scripted({10: "refused"}, {20}, b_frames=0, frames=30))
    sampler = Sampler(0.1, Faulty(delay=2))
    samples = [sample for packet in packets for sample in sampler.push(packet)]
    assert [round(sample.stream_s / FRAME_S) for sample in samples] == [*range(10), *range(20, 30)]


def test_nothing_is_decoded_behind_what_is_damaged() -> None:
    """Up to picture 30, were it not for picture 5."""
    packets = scripted({5: "refused"}, set(), b_frames=0)
    sampler = Sampler(3.0, Faulty())
    assert len([sample for packet in packets for sample in sampler.push(packet)]) == 1
    assert sampler.counts.decoded == 1 + 6


def test_a_key_frame_without_a_frame_is_not_asked_twice() -> None:
    """The first picture gives nothing, alone or not: the next one that gives a frame is the first sample."""
    packets = ended(scripted({0: "nothing", 8: "nothing"}, {8, 16}, b_frames=0))
    sampler = Sampler(60.0, Faulty(steps=40))
    samples = [sample for packet in packets for sample in sampler.push(packet)]
    assert [sample.stream_s for sample in samples] == pytest.approx([0.1])


# --- bounded memory ---


class Held(bytes):
    """Bytes that tell how many of their kind are in memory."""

    live_bytes: ClassVar[int] = 0

    def __new__(cls, data: bytes) -> "Held":
        cls.live_bytes += len(data)
        return super().__new__(cls, data)

    def __del__(self) -> None:
        Held.live_bytes -= len(self)


def held(packets: Sequence[Packet]) -> Iterator[Packet]:
    """Each is made when it is asked for, and nobody here keeps it."""
    for packet in packets:
        yield replace(packet, data=Held(packet.data))


@pytest.mark.parametrize("interval_s", [1.0, 2.0, 20.0])
@pytest.mark.parametrize(
    "films",
    [[Film(frames=240, key_every=240)], [Film(frames=120, key_every=60, b_frames=2)] * 2],
    ids=["one group", "re-ordered groups"],
)
def test_what_waits_is_bounded_and_samples_stay_exact(
    films: list[Film], interval_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound_bytes, most_bytes = 8000, 0
    monkeypatch.setattr(sampling, "MAX_WAITING_BYTES", bound_bytes)
    packets = ended(joined(films))
    plain = plainly(shots_of(packets), interval_s)
    interval_is_short = interval_s < 6.0
    sampler = Sampler(interval_s, Decoders("h264"))
    samples = []
    for packet in held(packets):
        samples += [digest(sample.frame) for sample in sampler.push(packet)]
        most_bytes = max(most_bytes, Held.live_bytes)
    largest = max(len(packet.data) for packet in packets)
    # The one that is being pushed, and with B-frames what the decoder holds back.
    assert most_bytes <= bound_bytes + (1 + DEEPEST * (films[0].b_frames > 0)) * largest
    if interval_is_short or len(films) == 1:
        assert samples == [looks(films)[choice.number] for choice in plain.taken]


@pytest.mark.parametrize("interval_s", [0.5, 0.9, 60.0])
def test_nothing_before_a_key_frame_waits(interval_s: float) -> None:
    """What a sample was made of is not needed either, once the next key frame is there."""
    packets = joined([FILM])
    sampler = Sampler(interval_s, Decoders("h264"))
    for number, packet in enumerate(held(packets)):
        sum(1 for _ in sampler.push(packet))
        if number >= GOP:  # until then there may be another sample to come
            waiting = packets[number // GOP * GOP : number + 1]
            assert Held.live_bytes <= sum(len(one.data) for one in waiting), number


def test_in_key_frame_mode_a_group_that_is_too_large_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of 4 s of some 40 kB, a sample every 9 s: each is a key frame, one decode, though nothing may wait."""
    monkeypatch.setattr(sampling, "MAX_WAITING_BYTES", 8000)
    films = [Film(frames=40, key_every=40, seed=seed) for seed in range(16)]
    packets = ended(joined(films))
    played = play(packets, 9.0)
    assert played.numbers == [choice.number for choice in plainly(shots_of(packets), 9.0).taken]
    assert_true(played, looks(films))
    assert len(set(played.decoded) - set(played.numbers)) <= 40  # of the first group: nobody knew
    assert not any(n > 80 for n in set(played.decoded) - set(played.numbers))
    assert played.counts.rejected == 1  # the end


def test_a_group_that_was_forgotten_is_not_taken_up_in_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key frames every 4 s, then none for 12 s: a sample is due there, but what it needs is gone."""
    monkeypatch.setattr(sampling, "MAX_WAITING_BYTES", 8000)
    films = [
        *(Film(frames=40, key_every=40, seed=seed) for seed in range(4)),
        Film(frames=120, key_every=120),
        Film(),
    ]
    played = play(ended(joined(films)), 9.0)
    assert played.numbers == [0, 120, 280]
    assert not [n for n in played.decoded if 160 <= n < 280]
    assert played.counts.rejected == 1  # the end


@pytest.mark.parametrize(("interval_s", "are_all_free"), [(0.2, False), (3.0, True)])
def test_one_decoder_serves_all_groups_and_none_is_kept_for_single_pictures(
    interval_s: float, are_all_free: bool
) -> None:
    """Its pictures are 3 MB each. The first sample has a decoder of its own, and so has each key frame alone."""
    opener = Decoders("h264")
    alive: list[weakref.ref[Recording]] = []

    def open_decoder() -> Recording:
        recording = Recording(opener(), [])
        alive.append(weakref.ref(recording))
        return recording

    sampler = Sampler(interval_s, open_decoder)
    samples = sum(1 for packet in joined([FILM] * 2) for _ in sampler.push(packet))
    assert len(alive) == (samples if are_all_free else 2)
    assert all(ref() is None for ref in alive) is are_all_free


@pytest.mark.parametrize("rounded_s", [0.0, 0.0009])
def test_the_only_sample_of_a_group_leaves_no_decoder_behind(rounded_s: float) -> None:
    """Key frames every 0.8 s, samples every 0.7 s: pictures 0 and 7, and 56 and 63, share a group, all others are
    alone. After picture 49 the next one is due with the very next key frame, which rounded times must not hide."""
    packets = edited(lambda n, packet: ahead(packet, rounded_s * (n % (2 * GOP) == GOP)), joined([FILM]))
    opener = Decoders("h264")
    alive: list[weakref.ref[Recording]] = []

    def open_decoder() -> Recording:
        recording = Recording(opener(), [])
        alive.append(weakref.ref(recording))
        return recording

    sampler = Sampler(0.7, open_decoder)
    left = []
    for packet in packets:
        if sum(1 for _ in sampler.push(packet)):
            left.append(sum(ref() is not None for ref in alive))
    assert left == [0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0]


def test_a_group_that_was_forgotten_is_not_a_feed_without_key_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key frames every 20 s, longer than NO_KEY_S: what is forgotten is not decoded from its middle."""
    monkeypatch.setattr(sampling, "MAX_WAITING_BYTES", 4000)
    films = [Film(frames=200, key_every=200, seed=seed) for seed in range(5)]
    played = play(ended(joined(films)), 30.0)
    assert [number % 200 for number in played.numbers] == [0, 0, 0]
    assert not [n for n in played.decoded if n > 200 and n % 200]
    assert not played.decodes_all


# --- no key frames ---

REFRESH = Film(frames=300, key_every=GOP, refreshes=True)


def unmarked(packets: Sequence[Packet]) -> list[Packet]:
    return [replace(packet, is_refresh=False) for packet in packets]


@pytest.mark.parametrize("left_out", [3, GOP, GOP + 1, 30])
def test_a_picture_that_is_refreshed_by_and_by_is_sampled_once_it_is_whole(left_out: int) -> None:
    packets = ended(joined([REFRESH])[left_out:])
    played = play(packets, 0.3)
    assert_true(played, looks([REFRESH])[left_out:])
    begin = -left_out % GOP
    assert begin <= played.numbers[0] <= begin + 3 * GOP
    assert np.diff(played.numbers) == pytest.approx(3)
    assert played.decodes_all
    assert played.decoded == list(range(begin, len(packets) - 1))
    assert played.counts.missed == 0


def test_without_a_sign_of_refresh_decoding_begins_after_a_while() -> None:
    """Then the decoder's own word is all there is."""
    packets = ended(unmarked(joined([REFRESH])[10:]))
    played = play(packets, 1.0)
    assert_true(played, looks([REFRESH])[10:])
    assert NO_KEY_S <= played.numbers[0] * FRAME_S <= NO_KEY_S + 3 * GOP * FRAME_S
    assert np.diff(played.numbers) == pytest.approx(10)
    assert played.decodes_all
    assert len(played.decoded) == len(set(played.decoded))


@pytest.mark.parametrize("frames", [9, 10, 12])
def test_a_key_frame_ends_all_waiting_for_a_refresh(frames: int) -> None:
    """Picture 8 is where refreshing begins; what was decoded since is worth nothing."""
    films = [replace(REFRESH, frames=frames), FILM]
    played = play(ended(joined(films)[3:]), 0.1)
    assert played.numbers == [frames - 3 + number for number in range(FILM.frames)]
    assert_true(played, looks(films)[3:])


def test_after_a_key_frame_only_what_is_needed_is_decoded_again() -> None:
    films = [REFRESH, FILM]
    packets = ended(joined(films)[3:])
    played = play(packets, 1.0)
    assert not played.decodes_all
    assert_true(played, looks(films)[3:])
    assert any(number >= REFRESH.frames for number in played.numbers)
    assert len([n for n in played.decoded if n >= REFRESH.frames + GOP]) <= 8


@SOME
@given(lost=st.sets(st.integers(0, 200), max_size=4), left_out=st.integers(0, 20))
def test_no_loss_in_a_gradual_refresh_is_seen(lost: set[int], left_out: int) -> None:
    whole = joined([REFRESH])[left_out:]
    marked = [replace(packet, follows_loss=n - 1 in lost) for n, packet in enumerate(whole)]
    packets = ended([packet for n, packet in enumerate(marked) if n not in lost])
    left = [look for n, look in enumerate(looks([REFRESH])[left_out:]) if n not in lost]
    played = play(packets, 0.2)
    assert_true(played, left)
    assert {270, 271} & {number + left_out + len(lost) for number in played.numbers}


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4"])
def test_a_key_frame_that_comes_after_all(codec: str) -> None:
    """For 18 s there is none: whatever is tried meanwhile gives no frame, since none could be right."""
    films = [Film(frames=190, key_every=190, codec=codec), Film(frames=40, codec=codec)]
    packets = ended(joined(films)[10:])
    packets[151] = replace(packets[151], data=headers(films[0]) + packets[151].data)  # where it is tried
    played = play(packets, 1.0, codec)
    assert played.numbers[0] == 180
    assert_true(played, looks(films)[10:])
    assert not played.decodes_all


def test_a_feed_whose_key_frames_are_far_apart_is_not_one_without_them() -> None:
    """A loss right after a key frame, the next 20 s later, as those before: nothing is decoded meanwhile."""
    films = [Film(frames=200, key_every=200, seed=seed) for seed in range(3)]
    played = play(ended(with_losses(joined(films), {205: "damaged"})), 1.0)
    assert not [n for n in played.decoded if 205 <= n < 400]
    assert_true(played, looks(films))
    assert 400 in played.numbers


@pytest.mark.parametrize("interval_s", [1.0, 30.0])
def test_a_minute_without_a_key_frame_is_worth_saying(interval_s: float) -> None:
    """Key frames every 2 s, then none for 80 s."""
    last, back, end = 80, 880, 900
    packets = scripted({}, {*range(0, last + 1, 20), back}, b_frames=0, frames=end)
    sampler = Sampler(interval_s, Faulty())
    said = []
    for number, packet in enumerate(packets):
        for _ in sampler.push(packet):
            pass
        if sampler.lacks_key_frames:
            said.append(number)
    assert said == list(range(last + 600 + 1, back))


# --- pictures of other kinds ---


def test_frames_of_another_size_come_as_they_are() -> None:
    films = [Film(), Film(width=96, height=64), Film(width=32, height=32, b_frames=2), Film(seed=5)]
    for interval_s in (0.1, 0.3, 1.0):
        packets = ended(joined(films))
        played = play(packets, interval_s)
        assert_as_planned(played, plainly(shots_of(packets), interval_s), looks(films))


def test_interlaced_frames_are_whole_frames() -> None:
    films = [Film(interlaced=True), Film(), Film(interlaced=True, b_frames=2)]
    packets = ended(joined(films))
    for interval_s in (0.1, 0.3, 1.0):
        played = play(packets, interval_s)
        assert_as_planned(played, plainly(shots_of(packets), interval_s), looks(films))


@pytest.mark.parametrize("interval_s", [0.1, 0.3, 0.8, 1.0, 2.0])
@pytest.mark.parametrize("apart_s", [0.0, FRAME_S / 2])
def test_fields_may_come_as_pictures_of_their_own(interval_s: float, apart_s: float) -> None:
    """RFC 6184 leaves it open whether the two have one timestamp. Neither field is ever taken for the frame."""
    fields = paff_pictures(frames=72, key_every=GOP)
    whole = [digest(frame) for frame in decoded([upper + lower for upper, lower in fields], "h264")]
    packets = []
    for number, (upper, lower) in enumerate(fields):
        first = a_packet(upper, pts_s=number * FRAME_S, is_key=number % GOP == 0, arrived_s=number * FRAME_S)
        packets += [first, replace(later(first, FRAME_S / 2), data=lower, is_key=False, pts_s=first.pts_s + apart_s)]
    played = play(ended(packets), interval_s)
    assert_true(played, [whole[number // 2] for number in range(len(packets))])
    plain = plainly(shots_of(ended(packets[::2])), interval_s)
    assert [number // 2 for number in played.numbers] == [choice.number for choice in plain.taken]
    assert len(played.decoded) <= 4 * len(packets)


def test_a_picture_of_mpeg4_that_codes_nothing_is_passed_over() -> None:
    """ISO/IEC 14496-2 section 6.3.5, vop_coded: the frame before is shown on. A sample is due at each of them."""
    film = Film(frames=24, key_every=24, codec="mpeg4")
    empty = {4, 5, 10, 15}
    packets, looks_left = [], []
    for number, (packet, look) in enumerate(zip(joined([film]), looks([film]), strict=True)):
        packets.append(packet)
        looks_left.append(look)
        if number in empty:
            nothing = later(replace(packet, data=_not_coded(number), is_key=False), FRAME_S / 2)
            packets.append(nothing)
            looks_left.append(0)
    played = play(ended(packets), 0.05, "mpeg4")
    assert_true(played, looks_left)
    assert len(played.taken) == film.frames


def _not_coded(number: int) -> bytes:
    """A P-VOP: type 01, no whole second, time in four bits, vop_coded 0, stuffing."""
    bits = f"0101{number % 10:04b}100111111"
    return b"\0\0\1\xb6" + int(bits[:16], 2).to_bytes(2)
