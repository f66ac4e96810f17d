"""RTP packets to pictures, whatever the codec: headers, order, losses, the end of a picture."""

import functools
import itertools
import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.engine import errors
from streams.engine.encodings import ENCODINGS
from streams.engine.rtp import CodedPicture
from tests.camera.clip import Codec, split_nals
from tests.engine.rtp_film import (
    SSRC,
    TICKS,
    Film,
    Marks,
    a_packet,
    a_reader,
    decode,
    film,
    packets,
    packets_by_unit,
    push_all,
    read,
    reader_of,
    sliced,
)

FILMS: dict[str, tuple[Codec, int, bool]] = {
    "h264": ("h264", 0, False),
    "h264 with B-frames": ("h264", 2, False),
    "h264 in slices": ("h264", 0, True),
    "h264 in slices with B-frames": ("h264", 2, True),
    "hevc": ("hevc", 0, False),
    "hevc in slices": ("hevc", 0, True),
    "hevc in slices with B-frames": ("hevc", 2, True),
    "mpeg4": ("mpeg4", 0, False),
    "mpeg4 with B-frames": ("mpeg4", 2, False),
    "mjpeg": ("mjpeg", 0, False),
}
CODECS: list[Codec] = ["h264", "hevc", "mpeg4", "mjpeg"]
MARKS: list[Marks] = ["last", "each", "never"]
SLICE = b"\x41\x88slice"  # H.264: a P picture's first slice
SLICE_REST = b"\x41\x48rest"  # a slice further down
FRAGMENT_REST = b"\x5c\x41rest"  # the last fragment of a slice
IDR = b"\x65\x88key"
SETS = {"sprop-parameter-sets": "Z0LAHtkDxWhAAAADAEAAAAwDxYuS,aMuMsg=="}


def film_named(name: str) -> Film:
    codec, b_frames, is_sliced = FILMS[name]
    return sliced(codec, b_frames) if is_sliced else film(codec, b_frames)


def whole(film: Film, pictures: list[CodedPicture]) -> bool:
    """Whether these are the film's pictures, complete and in order."""
    if len(pictures) != len(film.units) or any(one.follows_loss or not one.is_whole for one in pictures):
        return False
    if film.codec == "mjpeg":
        return decode("mjpeg", [one.data for one in pictures]) == decode("mjpeg", [one.data for one in film.units])
    return [one.data for one in pictures] == [film.whole(unit) for unit in film.units]


@pytest.mark.parametrize("name", FILMS)
def test_what_was_sent_comes_out_and_decodes_to_the_same_frames(name: str) -> None:
    sent = film_named(name)
    pictures = push_all(reader_of(sent), packets(sent))
    assert whole(sent, pictures)
    frames = decode(sent.codec, [one.data for one in pictures])
    assert len(frames) == len(sent.units)
    assert frames == decode(sent.codec, [sent.whole(unit) for unit in sent.units])


@pytest.mark.parametrize("name", FILMS)
def test_key_pictures_are_those_of_the_encoder_and_decode_alone(name: str) -> None:
    sent = film_named(name)
    pictures = push_all(reader_of(sent), packets(sent))
    keys = [one for one in pictures if one.is_key]
    assert [one.is_key for one in pictures] == [unit.is_key for unit in sent.units]
    assert len(keys) >= 2
    for key in keys:
        assert len(decode(sent.codec, [key.data])) == 1


@pytest.mark.parametrize("name", [name for name in FILMS if "B-frames" in name])
def test_pictures_that_none_copies_from_may_be_left_out(name: str) -> None:
    """The rest decodes to the same frames."""
    sent = film_named(name)
    pictures = push_all(reader_of(sent), packets(sent))
    order = sorted(range(len(pictures)), key=lambda index: pictures[index].timestamp)
    left = [index for index in order if pictures[index].is_reference]
    frames = dict(zip(order, decode(sent.codec, [one.data for one in pictures]), strict=True))
    alone = decode(sent.codec, [one.data for one in pictures if one.is_reference])
    assert 0 < len(left) < len(order)
    assert alone == [frames[index] for index in left]


@pytest.mark.parametrize("codec", CODECS)
def test_all_packets_without_b_frames_are_references_but_jpeg(codec: Codec) -> None:
    pictures = push_all(reader_of(film(codec)), packets(film(codec)))
    assert {one.is_reference for one in pictures} == {codec != "mjpeg"}


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("marks", MARKS)
def test_marker_bits_need_not_be_right(name: str, marks: Marks) -> None:
    """Some cameras set them on each NAL unit, some never."""
    sent = film_named(name)
    pictures = push_all(reader_of(sent), [*packets(sent, marks=marks), after(sent)])
    assert whole(sent, pictures)


def after(sent: Film) -> bytes:
    """A packet of a picture that follows on the film's last one."""
    last = packets_by_unit(sent)[-1][-1]
    _, second, sequence, timestamp = struct.unpack_from(">BBHI", last)
    start = {"h264": SLICE, "hevc": b"\x02\x01\x80", "mpeg4": b"\0\0\1\xb6", "mjpeg": bytes(8)}[sent.codec]
    return a_packet(start, sequence + 1, timestamp + 10 * TICKS, payload_type=second & 0x7F)


@pytest.mark.parametrize("name", FILMS)
def test_a_picture_is_given_when_the_next_one_begins(name: str) -> None:
    sent = film_named(name)
    reader = reader_of(sent)
    units = packets_by_unit(sent)
    for before, unit in itertools.pairwise(units):
        assert push_all(reader, before[1:] if before is not units[0] else before, is_settled=False) == []
        assert len(push_all(reader, unit[:1], is_settled=False)) == 1


@pytest.mark.parametrize("name", FILMS)
def test_a_picture_that_has_its_marker_is_given_when_the_line_goes_quiet(name: str) -> None:
    sent = film_named(name)
    reader = reader_of(sent)
    pictures = [one for unit in packets_by_unit(sent) for one in push_all(reader, unit)]
    assert whole(sent, pictures)


@pytest.mark.parametrize("name", FILMS)
def test_a_picture_without_its_marker_waits_however_quiet_the_line(name: str) -> None:
    sent = film_named(name)
    reader = reader_of(sent)
    units = packets_by_unit(sent, marks="never")
    assert push_all(reader, units[0]) == []
    assert len(push_all(reader, units[1])) == 1


@pytest.mark.parametrize("rest", [SLICE_REST, FRAGMENT_REST])
def test_a_picture_that_settled_too_early_costs_one_and_it_happens_once(rest: bytes) -> None:
    """Markers on each NAL unit, and the line quiet within a picture."""
    reader = a_reader()
    early = push_all(reader, [a_packet(SLICE, 0, is_marked=True)])
    late = push_all(reader, [a_packet(rest, 1, is_marked=True)])
    begun = push_all(reader, [a_packet(SLICE, 2, TICKS, is_marked=True)])
    second = push_all(reader, [a_packet(SLICE_REST, 3, TICKS, is_marked=True), a_packet(SLICE, 4, 2 * TICKS)])
    assert [len(given) for given in (early, late, begun, second)] == [1, 0, 0, 1]
    assert second[0].follows_loss
    assert second[0].data == b"\0\0\0\1" + SLICE + b"\0\0\0\1" + SLICE_REST


@pytest.mark.parametrize("name", FILMS)
def test_a_film_without_a_loss_has_none(name: str) -> None:
    reader = reader_of(film_named(name))
    push_all(reader, packets(film_named(name)))
    assert reader.lost == 0


def check_losses(sent: Film, units: list[list[bytes]], lost: set[int], pictures: list[CodedPicture]) -> None:
    """`lost`: numbers of packets, counted through the film; the first is never among them."""
    indexes = {unit.pts_ticks: index for index, unit in enumerate(sent.units)}
    starts = [sum(map(len, units[:index])) for index in range(len(units))]
    complete = [not lost & set(range(start, start + len(unit))) for start, unit in zip(starts, units, strict=True)]
    base = 2**32 - 9000
    given_units = [indexes[one.timestamp - base] for one in pictures]
    assert given_units == sorted(set(given_units))
    expected = [film_data(sent, index) for index in range(len(units))]
    for before, index, one in zip([-1, *given_units], given_units, pictures, strict=False):
        if one.is_whole:
            assert slices(sent, one.data) == slices(sent, expected[index])
        if one.is_whole and not one.follows_loss:
            assert one.data == expected[index]
            assert complete[index]
        if one.is_whole and one.is_key:
            assert frames_in(sent.codec, one.data) == 1
        if before < index - 1:
            assert one.follows_loss
    for index in range(1, len(units) - 1):
        if all(complete[index - 1 : index + 2]):
            [one] = [one for number, one in zip(given_units, pictures, strict=True) if number == index]
            assert one.is_whole
            assert not one.follows_loss
            assert one.data == expected[index]


def slices(sent: Film, data: bytes) -> list[bytes]:
    if sent.codec == "h264":
        return [nal for nal in split_nals(data) if nal[0] & 31 in (1, 5)]
    if sent.codec == "hevc":
        return [nal for nal in split_nals(data) if nal[0] >> 1 & 63 < 32]
    return [data]


def film_data(sent: Film, index: int) -> bytes:
    """For JPEG what a reader without losses made of it, which is tested above."""
    if sent.codec != "mjpeg":
        return sent.whole(sent.units[index])
    return jpeg_files()[index]


@functools.lru_cache
def frames_in(codec: Codec, data: bytes) -> int:
    return len(decode(codec, [data]))


@functools.cache
def jpeg_files() -> list[bytes]:
    return [one.data for one in push_all(reader_of(film("mjpeg")), packets(film("mjpeg")))]


@pytest.mark.parametrize("is_ordered", [True, False])
@pytest.mark.parametrize("name", FILMS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_no_loss_goes_unseen(name: str, is_ordered: bool, data: st.DataObject) -> None:
    sent = film_named(name)
    marks = data.draw(st.sampled_from(MARKS))
    units = packets_by_unit(sent, marks=marks)
    flat = [packet for unit in units for packet in unit]
    numbers = st.integers(1, len(flat) - 1)
    runs = data.draw(st.lists(st.tuples(numbers, st.integers(1, 12)), max_size=6))
    lost = {number for start, length in runs for number in range(start, min(start + length, len(flat)))}
    reader = reader_of(sent, is_ordered=is_ordered)
    left = [packet for number, packet in enumerate(flat) if number not in lost]
    pictures = push_all(reader, left)
    trailing = next(count for count in range(len(flat)) if len(flat) - 1 - count not in lost)
    assert reader.lost == len(lost) - trailing
    if trailing and marks == "each":
        starts = itertools.accumulate(map(len, units), initial=0)
        last = max(index for index, start in enumerate(starts) if start < len(flat) - trailing)
        if lost & set(range(len(flat))[sum(map(len, units[:last])) :][: len(units[last])]):
            # What a marker in the middle of a picture gives before its time is a test of its own.
            early = film_named(name).units[last].pts_ticks + 2**32 - 9000
            pictures = [one for one in pictures if one.timestamp != early]
    check_losses(sent, units, lost, pictures)


@pytest.mark.parametrize("name", FILMS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), reach=st.integers(1, 50))
def test_packets_that_arrive_out_of_order_and_twice_are_put_in_order(name: str, seed: int, reach: int) -> None:
    sent = film_named(name)
    flat = packets(sent)
    chance = random.Random(seed)
    places = [0.0, *(number + chance.uniform(0, reach) for number in range(1, len(flat)))]
    mixed = [flat[number] for number in sorted(range(len(flat)), key=places.__getitem__)]
    twice = [packet for packet in mixed for _ in range(chance.choice([1, 1, 1, 2, 3]))]
    reader = reader_of(sent, is_ordered=False)
    assert whole(sent, push_all(reader, twice))
    assert reader.lost == 0


def test_a_packet_that_is_late_beyond_measure_is_lost() -> None:
    reader = a_reader(is_ordered=False)
    sent = [a_packet(SLICE, number, number * TICKS) for number in range(200)]
    pictures = push_all(reader, [sent[0], *sent[2:], sent[1]], is_settled=False)
    assert reader.lost == 1
    assert [one.timestamp for one in pictures] == [number * TICKS for number in range(199) if number != 1]
    assert [one.timestamp for one in pictures if one.follows_loss] == [2 * TICKS]


def test_few_packets_are_held_back() -> None:
    """So a loss over UDP costs a fraction of a second, and what is held is bounded."""
    reader = a_reader(is_ordered=False)
    push_all(reader, [a_packet(SLICE)], is_settled=False)
    later = (a_packet(SLICE, number, number * TICKS) for number in range(2, 100))
    counts = [len(push_all(reader, [packet], is_settled=False)) for packet in later]
    assert counts.index(65) == 64
    assert sum(counts) == 98


def test_what_is_held_back_is_given_when_the_line_goes_quiet() -> None:
    reader = a_reader(is_ordered=False)
    sent = [a_packet(SLICE, number, number * TICKS, is_marked=True) for number in (0, 2, 4)]
    assert [one.timestamp for one in push_all(reader, sent)] == [0, 2 * TICKS, 4 * TICKS]
    assert reader.lost == 2


def test_over_tcp_a_gap_is_a_loss_at_once_and_what_comes_late_is_left_out() -> None:
    reader = a_reader()
    order = [0, 1, 3, 2, 4, 5]
    pictures = push_all(reader, [a_packet(SLICE, number, number * TICKS) for number in order], is_settled=False)
    assert [(one.timestamp // TICKS, one.follows_loss) for one in pictures] == [
        (0, False), (1, False), (3, True), (4, False),
    ]  # fmt: skip
    assert reader.lost == 1


@pytest.mark.parametrize(("ssrc", "sequence"), [(SSRC + 1, 11), (SSRC, 30_000), (SSRC, 60_000)])
@pytest.mark.parametrize("is_ordered", [True, False])
def test_another_sequence_is_taken_up_and_follows_a_loss(is_ordered: bool, ssrc: int, sequence: int) -> None:
    reader = a_reader(is_ordered=is_ordered)
    old = [a_packet(SLICE, number, number * TICKS) for number in range(10)]
    new = [a_packet(SLICE, sequence + number, (10 + number) * TICKS, ssrc=ssrc) for number in range(1, 120)]
    pictures = push_all(reader, [*old, *new], is_settled=False)
    assert [one.timestamp // TICKS for one in pictures[:10]] == list(range(10))
    assert [one.follows_loss for one in pictures].count(True) == 1
    assert pictures[10].follows_loss
    assert pictures[-1].timestamp == 128 * TICKS
    assert len(pictures) == 128, "what came before it was taken for another sequence is missing"


def test_what_was_held_back_of_a_sequence_that_ended_does_not_come_into_the_next() -> None:
    reader = a_reader(is_ordered=False)
    old = [a_packet(SLICE + b"old", number, number * TICKS) for number in (0, 1, 2, 5)]
    new = [a_packet(SLICE, number, (100 + number) * TICKS, ssrc=SSRC + 1) for number in range(-65, 20)]
    pictures = push_all(reader, [*old, *new], is_settled=False)
    assert [one.timestamp // TICKS for one in pictures] == [0, 1, 2, *range(35, 119)]


def test_packets_of_another_sender_among_ours_change_nothing() -> None:
    """A session before this one, which the camera still serves at the same port."""
    sent = film("h264")
    mixed = [
        packet
        for number, ours in enumerate(packets(sent))
        for packet in (ours, a_packet(SLICE, number + 9, number * 77, ssrc=99))
    ]
    reader = reader_of(sent, is_ordered=False)
    assert whole(sent, push_all(reader, mixed))
    assert reader.lost == 0


# Parts of a picture with timestamps of their own: row 35.


def timed(sent: Film, *, marks: Marks, by_unit: bool) -> list[bytes]:
    """Each packet a tick later than the one before; or each NAL unit, as sipsorcery #321 has it."""
    flow: list[bytes] = []
    for picture in packets_by_unit(sent, marks=marks):
        ticks = 0
        for packet in picture:
            at = struct.unpack_from(">I", packet, 4)[0] + ticks & 0xFFFFFFFF
            flow.append(packet[:4] + struct.pack(">I", at) + packet[8:])
            ticks += not by_unit or is_end_of_unit(sent.codec, packet[12:])
    return flow


def is_end_of_unit(codec: Codec, payload: bytes) -> bool:
    if codec == "h264":
        return payload[0] & 31 != 28 or payload[1] & 0x40 != 0
    return payload[0] >> 1 != 49 or payload[2] & 0x40 != 0


@pytest.mark.parametrize("marks", MARKS)
@pytest.mark.parametrize("name", FILMS)
def test_parts_with_timestamps_of_their_own_are_one_picture(name: str, marks: Marks) -> None:
    sent = film_named(name)
    pictures = push_all(reader_of(sent), [*timed(sent, marks=marks, by_unit=False), after(sent)])
    assert whole(sent, pictures)


@pytest.mark.parametrize("marks", MARKS)
@pytest.mark.parametrize("name", [name for name in FILMS if name.startswith("h")])
def test_slices_with_timestamps_of_their_own_are_one_picture(name: str, marks: Marks) -> None:
    sent = film_named(name)
    pictures = push_all(reader_of(sent), [*timed(sent, marks=marks, by_unit=True), after(sent)])
    assert whole(sent, pictures)


# Other sources on our channel: row 36.


def session_before(number: int, *, ticks: int = TICKS, count: int = 1, payload_type: int = 96) -> list[bytes]:
    """Packets of one picture of another source."""
    at = number * ticks + 77
    return [
        a_packet(SLICE + b"old", 10 * number + part, at, ssrc=99, payload_type=payload_type) for part in range(count)
    ]


@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_session_before_this_one_may_go_on_between_our_packets(is_ordered: bool) -> None:
    """A key frame of it is hundreds of packets in a row, and ours is slow: two pictures a second."""
    ours = [[a_packet(SLICE, number, number * 45_000)] for number in range(60)]
    theirs = [session_before(number, ticks=22_500, count=300 if number % 10 == 0 else 2) for number in range(120)]
    flow = [
        packet for number, one in enumerate(ours) for packet in (*one, *theirs[2 * number], *theirs[2 * number + 1])
    ]
    reader = a_reader(is_ordered=is_ordered)
    pictures = push_all(reader, flow, is_settled=False)
    assert [one.timestamp for one in pictures] == [45_000 * number for number in range(59)]
    assert {one.data for one in pictures} == {b"\0\0\0\1" + SLICE}
    assert reader.lost == 0


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("is_ordered", [True, False])
def test_of_two_sources_from_the_start_the_one_with_a_whole_key_frame_counts(codec: Codec, is_ordered: bool) -> None:
    """The other one came first: rests of pictures, of a session that ended."""
    sent = film(codec)
    kind = 26 if codec == "mjpeg" else 96
    rest = {
        "h264": FRAGMENT_REST,
        "hevc": b"\x62\x01\x01rest",
        "mpeg4": b"rest",
        "mjpeg": b"\0\0\1\0\1\xff\x28\x1erest",
    }
    mixed = [
        packet
        for number, ours in enumerate(packets(sent))
        for packet in (a_packet(rest[codec], number, number * 900, ssrc=99, payload_type=kind), ours)
    ]
    reader = reader_of(sent, is_ordered=is_ordered)
    pictures = push_all(reader, mixed)
    assert [one.data for one in pictures if one.is_whole][-len(sent.units) :] == [
        one.data for one in push_all(reader_of(sent), packets(sent))
    ]


@pytest.mark.parametrize("fps", [25, 1])
def test_a_new_source_is_taken_from_its_first_packet_on_once_ours_has_ended(fps: int) -> None:
    step = 90_000 // fps
    old = [a_packet(SLICE, number, number * step) for number in range(20)]
    new = [a_packet(SLICE, 500 + number, 7000 + number * step, ssrc=99) for number in range(40)]
    pictures = push_all(a_reader(), [*old, *new], is_settled=False)
    assert len(pictures) == 20 + 39
    assert [index for index, one in enumerate(pictures) if one.follows_loss] == [20]
    taken_after = next(count for count in range(40) if push_all(a_reader(), [*old, *new[:count]])[20:])
    assert (taken_after - 1) / fps <= max(0.6, 4 / fps)


def test_a_new_source_whose_timestamps_stand_still_is_taken_too() -> None:
    """After 8 MiB: no more of it is kept."""
    old = [a_packet(IDR, number, number * TICKS) for number in range(20)]
    new = [a_packet(SLICE + bytes(60_000), number, 7, ssrc=99) for number in range(200)]
    reader = a_reader("H264", SETS)
    given = [len(push_all(reader, [packet], is_settled=False)) for packet in (*old, *new)]
    assert sum(given) == 20 + 199
    assert 100 < given.index(max(given)) - 20 < 150


def test_new_sequences_that_last_are_losses_and_no_reason_to_mistrust_numbers() -> None:
    starts = [0, 30_000, 10_000, 50_000, 20_000, 40_000]
    numbers = [start + number for start in starts for number in range(1200)]
    reader = a_reader()
    flow = [a_packet(SLICE, number, at // 2 * TICKS) for at, number in enumerate(numbers)]
    push_all(reader, flow)
    assert reader.lost == len(starts) - 1
    push_all(reader, [a_packet(SLICE, numbers[-1] + 3, 4000 * TICKS)])
    assert reader.lost == len(starts) - 1 + 2


def test_a_source_of_another_type_that_came_first_gives_way_to_the_announced_one() -> None:
    """Sound of a session before: its type was any in the place of the announced one, which had not come yet."""
    first = [packet for number in range(3) for packet in session_before(number, payload_type=97)]
    ours = [a_packet(SLICE, number, number * TICKS) for number in range(5)]
    flow = [*first, *(packet for number in range(5) for packet in (ours[number], *session_before(3 + number)))]
    pictures = push_all(a_reader(), flow, is_settled=False)
    assert [one.timestamp for one in pictures if one.data.endswith(SLICE)] == [number * TICKS for number in range(4)]


# Sequence numbers that do not count packets: row 50.


def numbered(sent: Film, number: Callable[[int, int], int]) -> list[bytes]:
    """`number`: of the packet's place in the film and of its picture."""
    units = packets_by_unit(sent)
    flat = [(picture, packet) for picture, unit in enumerate(units) for packet in unit]
    return [
        packet[:2] + struct.pack(">H", number(place, picture) & 0xFFFF) + packet[4:]
        for place, (picture, packet) in enumerate(flat)
    ]


@pytest.mark.parametrize(
    "number",
    [
        lambda place, picture: 7,
        lambda place, picture: picture,
        lambda place, picture: 2 * place,
        lambda place, picture: -place,
        lambda place, picture: place * 7919,
    ],
    ids=["stand still", "count pictures", "step by two", "count down", "jump"],
)
@pytest.mark.parametrize("name", FILMS)
def test_over_tcp_the_order_decides_where_numbers_do_not_count_packets(
    name: str, number: Callable[[int, int], int]
) -> None:
    sent = film_named(name)
    reader = reader_of(sent)
    assert whole(sent, push_all(reader, numbered(sent, number)))
    assert reader.lost == 0


def test_numbers_that_begin_again_with_each_picture_count_for_nothing_after_some() -> None:
    sent = film("h264")
    units = packets_by_unit(sent)
    flow = [packet[:2] + struct.pack(">H", place) + packet[4:] for unit in units for place, packet in enumerate(unit)]
    pictures = push_all(reader_of(sent), flow)
    assert [one.follows_loss or not one.is_whole for one in pictures[-20:]] == [False] * 20


def test_numbers_that_count_pictures_are_known_at_the_first_picture_of_several_packets() -> None:
    """Until then they look as numbers should."""
    small = [a_packet(SLICE, number, number * TICKS) for number in range(30)]
    large = [a_packet(part, 30, 30 * TICKS) for part in (SLICE, SLICE_REST, SLICE_REST)]
    pictures = push_all(a_reader(), [*small, *large, a_packet(SLICE, 31, 31 * TICKS)])
    assert pictures[30].data == b"".join(b"\0\0\0\1" + part for part in (SLICE, SLICE_REST, SLICE_REST))
    assert not any(one.follows_loss or not one.is_whole for one in pictures)


def test_a_relays_numbers_show_a_loss_from_the_second_packet_on() -> None:
    """Pictures of one packet each, and the first of all is followed by a gap."""
    numbers = [0, 3, 4, 5, 8, 9]
    reader = a_reader()
    pictures = push_all(reader, [a_packet(SLICE, number, number * TICKS) for number in numbers], is_settled=False)
    assert [(one.timestamp // TICKS, one.follows_loss) for one in pictures] == [
        (0, False), (3, True), (4, False), (5, False), (8, True),
    ]  # fmt: skip
    assert reader.lost == 4


def test_a_packet_that_comes_twice_over_tcp_is_taken_once() -> None:
    twice = [packet for number in range(6) for packet in [a_packet(SLICE, number, number * TICKS)] * 2]
    reader = a_reader()
    pictures = push_all(reader, twice, is_settled=False)
    assert [one.timestamp // TICKS for one in pictures] == list(range(5))
    assert reader.lost == 0


def test_timestamps_grow_beyond_their_32_bits_and_may_go_back() -> None:
    times = [
        2**32 - 3 * TICKS,
        2**32 - TICKS,
        2**32 - 2 * TICKS,
        2**32 + 5,
        2**32 - 7,
        2**32 + 2**30,
        2**32 + 2**31,
        2**33 - 1,
        2**33,
    ]
    sent = [a_packet(SLICE, number, time) for number, time in enumerate(times)]
    assert [one.timestamp for one in push_all(a_reader(), sent, is_settled=False)] == times[:-1]


def test_timestamps_that_stand_still_end_no_picture_but_a_first_slice_does() -> None:
    sent = sliced("h264")
    still = [packet[:4] + bytes(4) + packet[8:] for packet in packets(sent, marks="never")]
    pictures = push_all(reader_of(sent), [*still, a_packet(SLICE, struct.unpack_from(">H", still[-1], 2)[0] + 1)])
    assert [one.data for one in pictures] == [unit.data for unit in sent.units]
    assert {one.timestamp for one in pictures} == {0}


# Headers.


def remade(packet: bytes, *, sources: int = 0, extension: bytes | None = None, padding: int = 0) -> bytes:
    """The same packet with more around its payload."""
    first = 0x80 | sources | (0x10 if extension is not None else 0) | (0x20 if padding else 0)
    head = bytes([first]) + packet[1:12] + bytes(4 * sources)
    if extension is not None:
        head += struct.pack(">HH", 0xABAC, len(extension) // 4) + extension
    return head + packet[12:] + (bytes(padding - 1) + bytes([padding]) if padding else b"")


@settings(max_examples=30, deadline=None)
@given(
    sources=st.integers(0, 15),
    extension=st.none() | st.integers(0, 5).map(lambda words: bytes(4 * words)),
    padding=st.integers(0, 255),
)
def test_sources_extension_and_padding_are_read_over(sources: int, extension: bytes | None, padding: int) -> None:
    sent = film("h264")
    around = [remade(packet, sources=sources, extension=extension, padding=padding) for packet in packets(sent)]
    assert whole(sent, push_all(reader_of(sent), around))


DAMAGED = {
    "padding longer than the packet": remade(a_packet(SLICE, 1, TICKS), padding=9)[:-1] + b"\xff",
    "an extension that does not end": bytes([0x90]) + a_packet(b"\0\0\xff\xff", 1, TICKS)[1:],
    "an extension without its header": bytes([0x90]) + a_packet(b"\0\0", 1, TICKS)[1:],
    "sources that are not there": bytes([0x8F]) + a_packet(SLICE, 1, TICKS)[1:],
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_packet_whose_header_is_wrong_counts_as_lost(is_ordered: bool, damaged: bytes) -> None:
    reader = a_reader(is_ordered=is_ordered)
    around = [a_packet(SLICE, number, number * TICKS) for number in (0, 2, 3)]
    pictures = push_all(reader, [around[0], damaged, *around[1:]], is_settled=False)
    assert [one.timestamp // TICKS for one in pictures] == [0, 2]
    assert pictures[1].follows_loss
    assert reader.lost == 1


def test_padding_of_length_nought_is_none() -> None:
    packet = bytes([0xA0]) + a_packet(SLICE + b"\0")[1:]
    assert read([packet, a_packet(SLICE, 1, TICKS)])[0].data == b"\0\0\0\1" + SLICE + b"\0"


@pytest.mark.parametrize("first", [0x00, 0x40, 0xC0])
def test_what_is_not_of_version_2_is_not_rtp(first: int) -> None:
    reader = a_reader()
    stray = bytes([first]) + a_packet(SLICE, 40, 9)[1:]
    sent = [
        a_packet(SLICE),
        stray,
        b"",
        b"\x80",
        stray[:11],
        a_packet(SLICE, 1, TICKS),
        a_packet(SLICE, 2, 2 * TICKS),
    ]
    pictures = push_all(reader, sent, is_settled=False)
    assert [one.follows_loss for one in pictures] == [False, False]
    assert reader.lost == 0


@pytest.mark.parametrize("codec", CODECS)
def test_packets_without_a_payload_only_take_their_number(codec: Codec) -> None:
    sent = film(codec)
    filled: list[bytes] = []
    for packet in packets(sent):
        for piece in (packet, remade(packet[:12], padding=8), packet[:12]):
            filled.append(piece[:2] + struct.pack(">H", len(filled)) + piece[4:])
    assert whole(sent, push_all(reader_of(sent), filled))


def test_packets_of_another_type_are_ignored() -> None:
    """Comfort noise or error correction, in the numbers of the same sender or in their own."""
    reader = a_reader()
    sent = [
        a_packet(SLICE, 0),
        a_packet(b"\x41\x88other", 1, 5, payload_type=97),
        a_packet(b"\x41\x88other", 700, 5, payload_type=98, ssrc=5),
        a_packet(SLICE, 2, TICKS),
        a_packet(SLICE, 3, 2 * TICKS),
    ]
    pictures = push_all(reader, sent, is_settled=False)
    assert [one.data for one in pictures] == [b"\0\0\0\1" + SLICE] * 2
    assert reader.lost == 0


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4"])
def test_a_camera_that_announces_one_type_and_sends_another_is_read(codec: Codec) -> None:
    sent = film(codec)
    other = [bytes([packet[0], packet[1] + 1]) + packet[2:] for packet in packets(sent)]
    assert whole(sent, push_all(reader_of(sent), other))


@pytest.mark.parametrize("kind", [24, 26, 35, 63, 127])
def test_a_static_type_in_place_of_the_announced_one_is_read(kind: int) -> None:
    """Row 58."""
    flow = [a_packet(SLICE, number, number * TICKS, payload_type=kind) for number in range(5)]
    assert len(read(flow)) == 4


@pytest.mark.parametrize("kind", [0, 8, 23, 64, 72, 95])
def test_sound_and_control_are_no_video(kind: int) -> None:
    assert read([a_packet(SLICE, number, number * TICKS, payload_type=kind) for number in range(5)]) == []


def test_the_announced_type_wins_when_it_comes() -> None:
    first = [a_packet(SLICE, number, number * TICKS, payload_type=97) for number in range(3)]
    then = [a_packet(IDR, 3 + number, (3 + number) * TICKS) for number in range(3)]
    late = a_packet(SLICE, 6, 6 * TICKS, payload_type=97)
    pictures = read([*first, *then, late], "H264", SETS)
    assert [one.is_key for one in pictures] == [False, False, False, True, True]


def test_control_packets_on_the_same_port_are_no_video() -> None:
    report = struct.pack(">BBHIIIIII", 0x80, 200, 6, SSRC, 1, 2, 3, 4, 5)
    sent = film("h264")
    flat = packets(sent)
    reader = reader_of(sent)
    assert whole(sent, push_all(reader, [report, *flat[:5], report, *flat[5:], report]))
    assert reader.lost == 0


# What nobody should send.


@pytest.mark.parametrize("encoding", ["AV1", "H261", "", "H263", "\n\x1b[31m" + "x" * 500])
def test_an_encoding_that_is_not_read_is_undecodable(encoding: str) -> None:
    with pytest.raises(errors.Undecodable) as raised:
        a_reader(encoding)
    assert len(str(raised.value)) < 120
    assert str(raised.value).isprintable()


def test_the_encoding_is_named() -> None:
    with pytest.raises(errors.Undecodable, match=r"^The stream's video is AV1: "):
        a_reader("AV1")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("is_ordered", [True, False])
@settings(max_examples=100, deadline=None)
@given(payloads=st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 3), st.integers(0, 1)), max_size=30))
def test_no_payload_is_an_error(encoding: str, is_ordered: bool, payloads: list[tuple[bytes, int, int]]) -> None:
    reader = a_reader(encoding, is_ordered=is_ordered)
    kind = 26 if encoding == "JPEG" else 96
    sent = [
        a_packet(payload, number + skip, number // 3, is_marked=bool(mark), payload_type=kind)
        for number, (payload, skip, mark) in enumerate(payloads)
    ]
    for one in push_all(reader, sent):
        assert isinstance(one.data, bytes)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=20), st.sampled_from(list(ENCODINGS)), st.booleans())
def test_no_bytes_are_an_error(sent: list[bytes], encoding: str, is_ordered: bool) -> None:
    assert isinstance(push_all(a_reader(encoding, is_ordered=is_ordered), sent), list)


@pytest.mark.parametrize("name", FILMS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_flipped_bytes_are_no_error(name: str, seed: int) -> None:
    chance = random.Random(seed)
    damaged = []
    for packet in packets(film_named(name)):
        data = bytearray(packet)
        for _ in range(chance.choice([0, 0, 1, 3])):
            data[chance.randrange(min(len(data), chance.choice([14, 24, 2000])))] = chance.randrange(256)
        damaged.append(bytes(data))
    assert isinstance(push_all(reader_of(film_named(name)), damaged), list)
