"""H.264 and H.265 payloads as cameras send them, right and wrong, and whose picture each unit is."""

import base64
import itertools
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.h26x import recovery_frames
from streams.engine.rtp import CodedPicture
from tests.camera.clip import Codec, Scene, encode, split_nals
from tests.engine.rtp_film import (
    ENCODINGS,
    TICKS,
    a_packet,
    a_reader,
    annex_b,
    decode,
    film,
    packets,
    push_all,
    read,
    reader_of,
    sliced,
)

SPS, PPS = encode(Scene(160, 120, (60.0,), fps=5)).parameter_sets
SETS = {"sprop-parameter-sets": f"{base64.b64encode(SPS).decode()},{base64.b64encode(PPS).decode()}"}
VPS5, SPS5, PPS5 = encode(Scene(160, 120, (60.0,), fps=5, codec="hevc")).parameter_sets
SETS5 = {
    f"sprop-{name}": base64.b64encode(unit).decode()
    for name, unit in zip(("vps", "sps", "pps"), (VPS5, SPS5, PPS5), strict=True)
}
AUD, SEI, END = b"\x09\xf0", b"\x06\x05\x02hi\x80", b"\x0a\x80"
IDR, IDR_REST = b"\x65\x88key", b"\x65\x48rest"
P, P_REST = b"\x41\x9aslice", b"\x41\x5arest"
B = b"\x01\x9ato be forgotten"
TRAIL, TRAIL_REST, IDR5 = b"\x02\x01\xd0slice", b"\x02\x01\x50rest", b"\x26\x01\xafkey"


def sent(*units: tuple[int, bytes], marks: Sequence[int] = ()) -> list[bytes]:
    """Each unit in a packet of its own, with the number of its picture; `marks`: numbers of packets."""
    return [
        a_packet(unit, number, picture * TICKS, is_marked=number in marks)
        for number, (picture, unit) in enumerate(units)
    ]


def closed(payloads: Sequence[bytes], *, encoding: str = "H264") -> list[CodedPicture]:
    """Payloads of one picture, and a picture after it."""
    after = P if encoding == "H264" else TRAIL
    parts = [a_packet(payload, number) for number, payload in enumerate(payloads)]
    return read([*parts, a_packet(after, len(parts), TICKS)], encoding, SETS if encoding == "H264" else SETS5)


def fragments(nal: bytes, *sizes: int, kind: int = 28, last: int = 0x40, order: bytes = b"") -> list[bytes]:
    """FU-A, or FU-B with `kind` 29 and a decoding order number."""
    cuts = [1, *sizes, len(nal)]
    parts = [nal[start:end] for start, end in itertools.pairwise(cuts)]
    flags = [0x80, *[0] * (len(parts) - 2), last]
    kinds = [kind, *[28] * (len(parts) - 1)]
    return [
        bytes([nal[0] & 0xE0 | kind, flag | nal[0] & 0x1F]) + (order if flag & 0x80 else b"") + part
        for kind, flag, part in zip(kinds, flags, parts, strict=True)
    ]


def aggregate(*units: bytes, header: bytes = b"\x78") -> bytes:
    return header + b"".join(struct.pack(">H", len(unit)) + unit for unit in units)


# Ways to send a unit.


def test_an_aggregate_holds_several_units() -> None:
    [picture] = closed([aggregate(AUD, SPS, PPS, IDR, IDR_REST)])
    assert picture.data == annex_b(AUD, SPS, PPS, IDR, IDR_REST)
    assert picture.is_key
    assert picture.is_whole


def test_an_aggregate_with_order_numbers_is_read_over_them() -> None:
    [picture] = closed([aggregate(SPS, PPS, IDR, header=b"\x79\x00\x07")])
    assert picture.data == annex_b(SPS, PPS, IDR)


@pytest.mark.parametrize("kind", [28, 29])
def test_fragments_become_a_unit(kind: int) -> None:
    order = b"\x00\x09" if kind == 29 else b""
    [picture] = closed(fragments(P, 3, 5, kind=kind, order=order))
    assert picture.data == annex_b(P)
    assert picture.is_whole


def test_a_unit_of_a_single_fragment_is_one() -> None:
    """Against RFC 6184, but sent: gortsplib #649, retina #131."""
    whole = bytes([P[0] & 0xE0 | 28, 0xC0 | P[0] & 0x1F]) + P[1:]
    assert closed([whole])[0].data == annex_b(P)
    five = b"\x62\x01" + bytes([0xC0 | 1]) + TRAIL[2:]
    assert closed([five], encoding="H265")[0].data == annex_b(TRAIL)


def test_fragments_whose_end_bit_is_missing_end_with_the_next_unit() -> None:
    [picture] = closed([*fragments(P, 3, last=0), *fragments(P_REST, 3, last=0)])
    assert picture.data == annex_b(P, P_REST)
    assert picture.is_whole


def test_fragments_without_their_begin_are_left_out_and_known_to_be_missing() -> None:
    [picture] = closed([P, *fragments(P_REST, 3)[1:]])
    assert picture.data == annex_b(P)
    assert not picture.is_whole


@pytest.mark.parametrize("payload", [b"\x7a\x00\x01\x00\x05\x00" + P, b"\x7b\x00\x01" + P])
def test_units_of_several_times_in_a_packet_are_a_loss_and_no_error(payload: bytes) -> None:
    [first, second] = read(
        [a_packet(P), a_packet(payload, 1, TICKS), a_packet(P, 2, 2 * TICKS), a_packet(P, 3, 3 * TICKS)]
    )
    assert not first.follows_loss
    assert second.follows_loss


def test_interleaved_packets_are_named() -> None:
    reader = a_reader("H264", SETS)
    assert push_all(reader, [a_packet(P), a_packet(b"\x7a\x00\x01\x00\x05\x00" + P, 1)]) == []
    assert "interleaved" in reader.complaint


@pytest.mark.parametrize("payload", [b"\x00\x80private", b"\x74\x80", b"\x7e\x80", b"\x7f\x80", b"\x6e\x80", b"\x09"])
def test_units_that_mean_nothing_here_are_left_out(payload: bytes) -> None:
    [picture] = closed([P, payload, P_REST])
    assert picture.data == annex_b(P, P_REST)
    assert picture.is_whole


def test_an_aggregate_that_is_cut_off_is_damage() -> None:
    [picture] = closed([aggregate(P, P_REST)[:-2]])
    assert picture.data == annex_b(P)
    assert not picture.is_whole


def test_a_unit_that_its_sender_calls_damaged_is_left_out() -> None:
    [picture] = closed([P, b"\xc1\x5arest"])
    assert picture.data == annex_b(P)
    assert not picture.is_whole


def test_h265_in_an_aggregate() -> None:
    [picture] = closed([aggregate(VPS5, SPS5, PPS5, IDR5, header=b"\x60\x01")], encoding="H265")
    assert picture.data == annex_b(VPS5, SPS5, PPS5, IDR5)
    assert picture.is_key


def test_h265_with_decoding_order_numbers() -> None:
    """RFC 7798: two bytes before each unit, fragment or aggregate, one before the later ones of an aggregate."""
    order = b"\x00\x07"
    single = TRAIL[:2] + order + TRAIL[2:]
    fragment = [b"\x62\x01" + bytes([0x81]) + order + TRAIL_REST[2:4], b"\x62\x01" + bytes([0x41]) + TRAIL_REST[4:]]
    both = b"\x60\x01" + order + struct.pack(">H", len(TRAIL_REST)) + TRAIL_REST
    both += b"\x01" + struct.pack(">H", len(TRAIL_REST)) + TRAIL_REST
    parts = [a_packet(part, number) for number, part in enumerate([single, *fragment, both])]
    [picture] = read([*parts, a_packet(single, 4, TICKS)], "H265", {"sprop-max-don-diff": "2"})
    assert picture.data == annex_b(TRAIL, TRAIL_REST, TRAIL_REST, TRAIL_REST)
    assert picture.is_whole


@pytest.mark.parametrize("other", [b"\x02\x09\xd0layer", b"\x03\x01\xd0layer", b"\x60\x09\xd0", b"\x76\x01\x80"])
def test_h265_layers_and_reserved_types_are_left_out(other: bytes) -> None:
    [picture] = closed([TRAIL, other[:2] + b"\xd0x" if other[0] == 0x60 else other, TRAIL_REST], encoding="H265")
    assert annex_b(TRAIL) == picture.data[: len(annex_b(TRAIL))]
    assert other not in picture.data


# Start codes where RTP has none.


@pytest.mark.parametrize("start", [b"\0\0\1", b"\0\0\0\1"])
def test_annex_b_in_a_single_packet_is_taken_apart(start: bytes) -> None:
    payload = b"".join(start + unit for unit in (SPS, PPS, IDR))
    [picture] = closed([payload])
    assert picture.data == annex_b(SPS, PPS, IDR)
    assert picture.is_key


@pytest.mark.parametrize("start", [b"\0\0\1", b"\0\0\0\1"])
def test_annex_b_behind_the_header_of_a_parameter_set_is_taken_apart(start: bytes) -> None:
    """V380: one unit said to be an SPS, with PPS and slice in it (retina #68, #71)."""
    everything = SPS + start + PPS + start + IDR + bytes(500)
    for payloads in ([everything], fragments(everything, 10, 200, 300)):
        [picture] = closed(payloads)
        assert picture.data.startswith(annex_b(SPS, PPS, IDR))
        assert picture.is_key
        assert picture.is_whole


def test_annex_b_in_fragments_with_a_start_code_of_its_own_is_taken_apart() -> None:
    payloads = fragments(IDR[:1] + annex_b(SPS, PPS, IDR), 20)
    [picture] = closed(payloads)
    assert picture.data == annex_b(SPS, PPS, IDR)
    assert picture.is_key


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_film_in_annex_b_is_the_same_film(codec: Codec) -> None:
    units = film(codec).units[:8]
    whole = [a_packet(unit.data, number, unit.pts_ticks) for number, unit in enumerate(units)]
    pictures = read(whole, ENCODINGS[codec])
    assert decode(codec, [one.data for one in pictures]) == decode(codec, [unit.data for unit in units[:-1]])


@pytest.mark.parametrize("start", [b"\0\0\1", b"\0\0\0\1"])
def test_h265_annex_b_whose_start_code_was_taken_for_the_header_is_taken_apart(start: bytes) -> None:
    """An Amatek AR-N3222F: fragments of a unit with nuh_temporal_id_plus1 of 0, in each packet (gortsplib #989)."""
    whole = b"".join(start + unit for unit in (VPS5, SPS5, PPS5, IDR5)) + start
    head, body = whole[:2], whole[2:]
    assert head == b"\0\0"
    cuts = range(0, len(body), 30)
    flow = [
        b"\x62\0" + bytes([(0x80 if at == 0 else 0x40 if at == cuts[-1] else 0)]) + body[at : at + 30] for at in cuts
    ]
    [picture] = closed(flow, encoding="H265")
    assert picture.data == annex_b(VPS5, SPS5, PPS5, IDR5)
    assert picture.is_key
    assert picture.is_whole


def test_h265_units_without_a_temporal_layer_are_left_out() -> None:
    [picture] = closed([TRAIL, b"\x02\0\xd0x", b"\x62\0\x81\xd0x", b"\x62\0\x41x", TRAIL_REST], encoding="H265")
    assert picture.data == annex_b(TRAIL, TRAIL_REST)
    assert picture.is_whole


def test_h265_annex_b_behind_the_header_of_a_parameter_set() -> None:
    [picture] = closed([VPS5 + annex_b(SPS5, PPS5, IDR5)], encoding="H265")
    assert picture.data == annex_b(VPS5, SPS5, PPS5, IDR5)


# Which picture a unit belongs to.


def test_parameter_sets_before_each_slice_cut_no_picture() -> None:
    """GStreamer's rtph264pay with config-interval=-1 and an encoder of several slices."""
    pictures = read(sent((0, SPS), (0, PPS), (0, IDR), (0, SPS), (0, PPS), (0, IDR_REST), (1, P), (2, P)))
    assert [one.data for one in pictures] == [annex_b(SPS, PPS, IDR, SPS, PPS, IDR_REST), annex_b(P)]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("marks", ["last", "never"])
def test_a_film_with_parameter_sets_before_each_slice_decodes_to_the_same(codec: Codec, marks: str) -> None:
    units = sliced(codec).units
    heads = [nal for nal in split_nals(units[0].data) if is_head(codec, nal)]
    parts = [(number, nal) for number, unit in enumerate(units) for nal in split_nals(unit.data)]
    mixed = [one for part in parts for one in ([(part[0], head) for head in heads], [part])]
    flat = [one for group in mixed for one in group]
    ends = [number for number, one in enumerate(flat) if number + 1 == len(flat) or flat[number + 1][0] != one[0]]
    pictures = read(
        sent(*flat, (99, P if codec == "h264" else TRAIL), marks=ends if marks == "last" else ()), ENCODINGS[codec]
    )
    assert decode(codec, [one.data for one in pictures[: len(units)]]) == decode(codec, [unit.data for unit in units])


def is_head(codec: Codec, nal: bytes) -> bool:
    return nal[0] & 31 in (7, 8) if codec == "h264" else 32 <= nal[0] >> 1 & 63 <= 34


def test_timestamps_that_stand_still_cut_before_what_precedes_the_slice() -> None:
    pictures = read(sent((0, AUD), (0, P), (0, P_REST), (0, AUD), (0, SPS), (0, PPS), (0, IDR), (0, AUD), (0, P)))
    assert [one.data for one in pictures] == [annex_b(AUD, P, P_REST), annex_b(AUD, SPS, PPS, IDR)]
    assert [one.is_key for one in pictures] == [False, True]


def test_units_without_a_slice_go_to_the_next_picture_whatever_their_time() -> None:
    units = [(0, P), (1, SPS), (2, PPS), (3, SEI), (4, IDR), (5, P)]
    pictures = read(sent(*units, marks=range(len(units))))
    assert [one.data for one in pictures] == [annex_b(P), annex_b(SPS, PPS, SEI, IDR), annex_b(P)]
    assert [one.timestamp for one in pictures] == [0, 4 * TICKS, 5 * TICKS]
    assert not any(one.follows_loss for one in pictures)


@pytest.mark.parametrize("marks", [(0, 1, 2), (0, 1, 2, 3, 4, 5, 6)])
def test_parameter_sets_with_the_time_of_the_picture_before_belong_to_the_next(marks: tuple[int, ...]) -> None:
    """A Reolink RLC-822A, with markers on SPS and PPS or on the SPS alone (retina #13)."""
    reader = a_reader()
    units = [(0, SPS), (0, PPS), (1, IDR), (1, SPS), (1, PPS), (2, IDR), (3, P)]
    pictures = [one for packet in sent(*units, marks=marks) for one in push_all(reader, [packet])]
    assert [one.data for one in pictures[:2]] == [annex_b(SPS, PPS, IDR)] * 2
    assert all(one.is_key and one.is_whole and not one.follows_loss for one in pictures[:2])


def test_parameter_sets_alone_are_never_given() -> None:
    reader = a_reader()
    assert push_all(reader, sent(*((number, SPS) for number in range(500)), marks=range(500))) == []


def test_an_end_of_sequence_belongs_to_the_picture_before() -> None:
    assert read(sent((0, P), (0, END), (1, P)))[0].data == annex_b(P, END)


def test_two_fields_are_two_pictures_of_one_time() -> None:
    pictures = read(sent((0, SPS), (0, PPS), (0, IDR), (0, P), (1, P), (1, P), (2, P)))
    assert [one.timestamp // TICKS for one in pictures] == [0, 0, 1, 1]


def test_a_fragment_goes_on_whatever_its_time_if_no_packet_is_missing() -> None:
    """Row 35."""
    head, middle, tail = fragments(P, 3, 5)
    flow = [a_packet(head, 0, 0), a_packet(middle, 1, 1), a_packet(tail, 2, TICKS), a_packet(P, 3, 2 * TICKS)]
    [first, second] = read([*flow, a_packet(P, 4, 3 * TICKS)])
    assert (first.data, first.is_whole, first.timestamp) == (annex_b(P), True, 0)
    assert not second.follows_loss
    [first, second] = read([flow[0], *flow[2:], a_packet(P, 4, 3 * TICKS)])
    assert not first.is_whole
    assert second.follows_loss


def test_a_slice_behind_a_marker_is_the_rest_of_a_lost_begin_where_slices_share_their_time() -> None:
    """A relay whose source lost the first slice of picture 1: its own packets are unbroken."""
    units = [(0, P), (0, P_REST), (1, P_REST), (2, P), (2, P_REST), (3, P)]
    pictures = read(sent(*units, marks=(1, 2, 4)))
    assert [(one.data, one.is_whole) for one in pictures] == [
        (annex_b(P, P_REST), True), (annex_b(P_REST), False), (annex_b(P, P_REST), True),
    ]  # fmt: skip


def test_a_slice_that_goes_on_without_a_marker_before_it_belongs_to_the_picture() -> None:
    """Timestamps by the wall clock: some parts share theirs, some do not."""
    flow = [a_packet(P), a_packet(P_REST, 1), a_packet(P_REST, 2, 90, is_marked=True), a_packet(P, 3, TICKS)]
    [picture] = read(flow)
    assert (picture.data, picture.is_whole) == (annex_b(P, P_REST, P_REST), True)


# What a picture is.


def test_sets_of_the_description_stand_before_a_key_picture_that_has_none() -> None:
    [picture] = closed([IDR])
    assert picture.data == annex_b(SPS, PPS, IDR)
    [five] = closed([IDR5], encoding="H265")
    assert five.data == annex_b(VPS5, SPS5, PPS5, IDR5)


def test_newer_sets_of_the_stream_replace_those_of_the_description() -> None:
    newer = SPS[:-1] + bytes([SPS[-1] ^ 1])
    pictures = read(sent((0, newer), (0, PPS), (0, IDR), (1, P), (2, IDR), (3, P)), "H264", SETS)
    assert pictures[0].data == annex_b(newer, PPS, IDR)
    assert pictures[2].data == annex_b(newer, PPS, IDR)


def test_sets_of_other_ids_are_kept_beside_each_other() -> None:
    other = b"\x68\x5b\x82\x80"  # pic_parameter_set_id 1
    pictures = read(sent((0, SPS), (0, PPS), (0, other), (0, IDR), (1, IDR), (2, P)))
    assert pictures[1].data == annex_b(SPS, PPS, other, IDR)


def test_sets_that_come_on_their_own_are_before_the_picture_that_needs_them() -> None:
    pictures = read(sent((0, P), (1, SPS), (1, PPS), (2, P), (3, IDR), (4, P)))
    assert pictures[1].data == annex_b(SPS, PPS, P)
    assert pictures[2].data == annex_b(SPS, PPS, IDR)


def test_a_key_picture_without_any_parameter_sets_is_none() -> None:
    assert [one.is_key for one in read(sent((0, IDR), (1, P), (2, P)))] == [False, False]
    assert [one.is_key for one in read(sent((0, IDR5), (1, TRAIL), (2, TRAIL)), "H265")] == [False, False]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_film_whose_sets_are_in_the_description_alone_decodes(codec: Codec) -> None:
    whole = film(codec)
    bare = [
        a_packet(nal, number, unit.pts_ticks)
        for number, (unit, nal) in enumerate(
            (unit, nal) for unit in whole.units for nal in split_nals(unit.data) if not is_head(codec, nal)
        )
    ]
    heads = [base64.b64encode(nal).decode() for nal in split_nals(whole.units[0].data) if is_head(codec, nal)]
    names = ("sprop-vps", "sprop-sps", "sprop-pps")
    fmtp = {"sprop-parameter-sets": ",".join(heads)} if codec == "h264" else dict(zip(names, heads, strict=True))
    pictures = read(bare, ENCODINGS[codec], fmtp)
    assert [one.is_key for one in pictures] == [unit.is_key for unit in whole.units[:-1]]
    assert decode(codec, [one.data for one in pictures]) == decode(codec, [one.data for one in whole.units[:-1]])


@pytest.mark.parametrize(
    "text",
    ["", ",", "!!!", "Z0", "====", base64.b64encode(b"\0\0\0\1").decode(), "Z\u00e9"],
)
def test_sets_that_cannot_be_read_are_left_out(text: str) -> None:
    [picture] = read(sent((0, IDR), (1, P)), "H264", {"sprop-parameter-sets": text})
    assert picture.data == annex_b(IDR)


def test_sets_with_start_codes_without_padding_or_with_zeros_behind_are_read() -> None:
    text = base64.b64encode(annex_b(SPS, PPS) + b"\0\0").decode().rstrip("=")
    [picture] = read(sent((0, IDR), (1, P)), "H264", {"sprop-parameter-sets": text})
    assert picture.data == annex_b(SPS, PPS, IDR)


def test_a_picture_that_no_other_copies_from_is_no_reference() -> None:
    assert [one.is_reference for one in read(sent((0, IDR), (1, B), (2, P), (3, P)))] == [True, False, True]


def test_h265_sub_layer_references() -> None:
    """Even types below 16 are none, but only on the highest temporal layer that was seen."""
    low, high = b"\x00\x01\xd0low", b"\x00\x02\xd0high"
    pictures = read(sent((0, TRAIL), (1, low), (2, high), (3, low), (4, b"\x02\x02\xd0x"), (5, low)), "H265")
    assert [one.is_reference for one in pictures] == [True, False, False, True, True]


def test_h265_random_access_points_are_keys() -> None:
    kinds = {kind: bytes([kind << 1, 1, 0xD0]) + b"data" for kind in (0, 1, 9, 16, 18, 19, 20, 21)}
    flow = sent(*enumerate(kinds.values()), (99, TRAIL))
    assert {kind for kind, one in zip(kinds, read(flow, "H265", SETS5), strict=True) if one.is_key} == {
        16,
        18,
        19,
        20,
        21,
    }


def recovery_point(frames: int, *before: bytes) -> bytes:
    """An SEI unit; `before`: other messages in it. The count as Exp-Golomb, then exact_match_flag and so on."""
    code = f"{frames + 1:b}"
    bits = "0" * (len(code) - 1) + code + "1000" + "1"
    body = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8))
    return b"\x06" + b"".join(before) + bytes([6, len(body)]) + body + b"\x80"


LONG = b"\x05" + b"\xff" * 2 + b"\x10" + b"x" * (255 * 2 + 16)


@given(st.integers(0, 65_535), st.lists(st.sampled_from([b"\x01\x02ab", LONG, b"\xff\x05\x01z"]), max_size=3))
def test_the_count_of_a_recovery_point_is_found_behind_other_messages(frames: int, before: list[bytes]) -> None:
    assert recovery_frames(recovery_point(frames, *before)) == frames


@given(st.binary(max_size=80))
def test_no_sei_is_an_error(data: bytes) -> None:
    read(sent((0, b"\x06" + data), (0, P), (1, P)))


def test_a_recovery_point_begins_decoding_at_once_or_bit_by_bit() -> None:
    flow = sent(
        (0, SPS), (0, PPS), (0, recovery_point(0)), (0, P),
        (1, recovery_point(12, LONG)), (1, P),
        (2, P), (3, P),
    )  # fmt: skip
    pictures = read(flow)
    assert [one.is_key for one in pictures] == [True, False, False]
    assert [one.refresh for one in pictures] == [None, 12, None]


def test_a_recovery_point_whose_picture_was_lost_is_not_the_next_ones() -> None:
    """A picture would be called key that copies from others."""
    flow = sent((0, SPS), (0, PPS), (0, P), (1, recovery_point(0)), (1, P), (2, P), (3, P))
    del flow[4]
    assert [one.is_key for one in read(flow)] == [False, False]


def test_a_picture_that_refreshing_begins_with_has_the_parameter_sets_before_it() -> None:
    """A decoder may begin there, and some cameras send their sets in the SDP alone."""
    flow = sent((0, P), (1, recovery_point(12)), (1, P), (2, SPS), (2, recovery_point(12)), (2, P), (3, P))
    plain, told_before, told_in_part = read(flow, fmtp=SETS)
    assert plain.data == annex_b(P)
    assert told_before.data == annex_b(SPS, PPS, recovery_point(12), P)
    assert told_in_part.data == annex_b(SPS, PPS, SPS, recovery_point(12), P)


def test_parameter_sets_survive_the_loss_of_their_picture() -> None:
    flow = sent((0, P), (1, SPS), (1, PPS), (1, IDR), (2, IDR), (3, P))
    del flow[3]
    pictures = read(flow)
    assert [one.is_key for one in pictures] == [False, True]
    assert pictures[1].data == annex_b(SPS, PPS, IDR)


def test_intra_refresh_of_an_encoder_is_told() -> None:
    clip = encode(Scene(320, 240, (60.0, 90.0, 120.0), fps=10, gop_s=1.0, intra_refresh=True))
    units = [(number, nal) for number, unit in enumerate(clip.units) for nal in split_nals(unit.data)]
    pictures = read(sent(*units))
    assert [one.is_key for one in pictures].count(True) == 1
    assert any(one.refresh for one in pictures)


# Losses in a picture.


def test_a_loss_within_a_picture_is_its_own_alone() -> None:
    """Then a picture that none copies from taints nothing."""
    flow = sent((0, IDR), (1, B), (1, b"\x01\x5am"), (1, b"\x01\x4an"), (2, P), (3, P))
    del flow[2]
    pictures = read(flow, "H264", SETS)
    assert [(one.is_whole, one.follows_loss) for one in pictures] == [(True, False), (False, False), (True, False)]


def test_where_timestamps_stand_still_a_loss_within_a_picture_may_hide_whole_ones() -> None:
    """The slices before and after it look like those of one picture."""
    flow = sent(*((0, unit) for unit in (IDR, P, P, P_REST, P, P, P_REST, P, P)))
    del flow[3:6]
    pictures = read(flow, "H264", SETS)
    assert [(one.is_whole, one.follows_loss) for one in pictures] == [
        (True, False), (True, False), (False, False), (True, True),
    ]  # fmt: skip


def test_without_proof_by_a_marker_the_end_of_a_picture_may_be_missing() -> None:
    flow = sent((0, IDR), (1, P), (2, P), (3, P), (4, P), marks=(0, 1, 2, 3, 4))
    del flow[2]
    pictures = read(flow, "H264", SETS)
    assert [(one.is_whole, one.follows_loss) for one in pictures] == [
        (True, False), (False, False), (True, True), (True, False),
    ]  # fmt: skip


def test_a_marker_that_was_seen_to_be_right_proves_the_end_of_a_picture() -> None:
    flow = sent((0, IDR), (0, IDR_REST), (1, P), (1, P_REST), (2, P), (3, P), (4, P), marks=(1, 3, 4, 5))
    del flow[4]
    pictures = read(flow, "H264", SETS)
    assert [(one.is_whole, one.follows_loss) for one in pictures] == [(True, False), (True, False), (True, True)]


def test_a_marker_proves_nothing_by_a_picture_that_has_a_gap() -> None:
    """Markers on the end of each NAL unit: that of the first slice is lost, so it looks as if it had none."""
    head = fragments(P, 3)[0]
    flow = sent((0, head), (0, P_REST), (0, P_REST), (1, P), (1, P_REST), (2, P), (3, P), marks=range(1, 7))
    del flow[4], flow[1]
    assert [one.is_whole for one in read(flow, "H264", SETS)] == [False, False, True, True]


def test_a_picture_that_begins_with_a_later_slice_is_not_whole() -> None:
    pictures = read(sent((0, IDR_REST), (1, P), (2, P)), "H264", SETS)
    assert [one.is_whole for one in pictures] == [False, True]


# Bounds.


@pytest.mark.parametrize("header", [P[:1], SPS[:1]])
def test_a_unit_that_never_ends_is_given_up(header: bytes) -> None:
    reader = a_reader()
    middle = bytes([header[0] & 0xE0 | 28, header[0] & 0x1F]) + b"\x55" * 60_000
    begin = fragments(header + b"\x9a" + bytes(8), 2)[0]
    flow = [a_packet(begin), *(a_packet(middle, number) for number in range(1, 700))]
    assert push_all(reader, flow) == []
    kept_bytes = len(reader._assembler._buffer) + len(reader._assembler._partial)  # type: ignore[attr-defined]
    assert kept_bytes <= 17 << 20
    pictures = push_all(reader, [a_packet(P, 700, TICKS), a_packet(P, 701, 2 * TICKS), a_packet(P, 702, 3 * TICKS)])
    assert [(one.is_whole, one.follows_loss) for one in pictures] == [(True, True), (True, False)]
    assert len(reader._assembler._buffer) < 1 << 20  # type: ignore[attr-defined]


def test_a_picture_of_endless_slices_is_given_up() -> None:
    reader = a_reader()
    flow = [a_packet(P), *(a_packet(P_REST + b"x" * 60_000, number) for number in range(1, 400))]
    assert push_all(reader, flow) == []
    assert [one.data for one in push_all(reader, [a_packet(P, 400, TICKS), a_packet(P, 401, 2 * TICKS)])] == [
        annex_b(P)
    ]


@pytest.mark.parametrize("unit", [AUD, SEI, SPS, b"\x06" + b"x" * 50_000])
def test_units_without_end_before_a_slice_are_bounded(unit: bytes) -> None:
    reader = a_reader()
    push_all(reader, sent(*((0, unit) for _ in range(2000))))
    [picture] = push_all(reader, [a_packet(P, 2000, TICKS), a_packet(P, 2001, 2 * TICKS)])
    assert len(picture.data) < 1 << 21


def test_parameter_sets_without_number_are_bounded() -> None:
    reader = a_reader()
    sets = [b"\x68" + (0x80_0000_0000 | number << 8 | 0x80).to_bytes(5) for number in range(500)]
    ids = [b"\x68" + (number + 1 << 40 - 2 * (number + 1).bit_length() + 1).to_bytes(5) for number in range(250)]
    flow = [(number, unit) for number, unit in enumerate([SPS, *sets, *ids])]
    push_all(reader, sent(*flow))
    pictures = push_all(reader, [a_packet(IDR, len(flow), 9000 * TICKS), a_packet(P, len(flow) + 1, 9001 * TICKS)])
    assert len(split_nals(pictures[-1].data)) < 200


def test_every_packet_of_a_film_may_be_the_first() -> None:
    """A connection to a relay begins in the middle."""
    whole = sliced("h264")
    flat = packets(whole)
    by_time = {unit.pts_ticks - 9000 + 2**32: unit for unit in whole.units}
    for start in range(len(flat)):
        for one in push_all(reader_of(whole), flat[start:]):
            if one.is_whole:
                own = [nal for nal in split_nals(one.data) if nal[0] & 31 in (1, 5)]
                sent_unit = by_time.get(one.timestamp) or by_time[one.timestamp + 2**32]
                assert own == [nal for nal in split_nals(sent_unit.data) if nal[0] & 31 in (1, 5)]
