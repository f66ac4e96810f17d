"""H.264 or H.265: what the packets say against what the description says. FIELD.md row 38."""

import base64
from collections.abc import Mapping

import pytest

from streams.engine.codec_choice import can_be_h264, can_be_h265
from tests.camera.clip import Codec, Scene, encode
from tests.engine.rtp_film import (
    ENCODINGS,
    TICKS,
    Film,
    a_packet,
    a_reader,
    annex_b,
    film,
    packets,
    push_all,
    sliced,
)

OTHER: dict[Codec, Codec] = {"h264": "hevc", "hevc": "h264"}
FILMS = [film("h264"), film("h264", 2), film("hevc"), sliced("h264"), sliced("hevc", 2)]
SPS, PPS = encode(Scene(160, 120, (60.0,), fps=5)).parameter_sets
VPS5, SPS5, PPS5 = encode(Scene(160, 120, (60.0,), fps=5, codec="hevc")).parameter_sets
SEI, AUD = b"\x06\x05\x02hi\x80", b"\x09\xf0"
P, P5 = b"\x41\x9aslice", b"\x02\x01\xd0slice"
IDR = b"\x65\x88key"


def text(*units: bytes) -> str:
    return ",".join(base64.b64encode(unit).decode() for unit in units)


def comes_out(sent: Film, named: Codec, fmtp: Mapping[str, str] | None = None) -> bool:
    """Whether all pictures of the film do, from the first on, as the right codec."""
    reader = a_reader(ENCODINGS[named], fmtp)
    pictures = push_all(reader, packets(sent))
    assert reader.codec == sent.codec
    return [one.data for one in pictures] == [sent.whole(unit) for unit in sent.units]


@pytest.mark.parametrize("sent", FILMS, ids=lambda sent: f"{sent.codec}-{len(sent.units)}")
def test_the_stream_outweighs_the_description(sent: Film) -> None:
    assert comes_out(sent, OTHER[sent.codec])


@pytest.mark.parametrize(
    ("sent", "fmtp"),
    [
        (film("hevc"), {"sprop-parameter-sets": text(SPS, PPS)}),
        (film("h264"), {"sprop-vps": text(VPS5), "sprop-sps": text(SPS5), "sprop-pps": text(PPS5)}),
    ],
    ids=["hevc", "h264"],
)
def test_the_stream_outweighs_parameter_sets_of_the_other_codec(sent: Film, fmtp: Mapping[str, str]) -> None:
    assert comes_out(sent, sent.codec, fmtp)


def test_parameter_sets_outweigh_the_name() -> None:
    """Nothing but slices comes, and the line is quiet after each."""
    reader = a_reader("H265", {"sprop-parameter-sets": text(SPS, PPS)})
    pictures = [
        one
        for number in range(3)
        for one in push_all(reader, [a_packet(IDR, number, number * TICKS, is_marked=True)])
    ]
    assert [one.data for one in pictures] == [annex_b(SPS, PPS, IDR)] * 3
    assert reader.codec == "h264"


@pytest.mark.parametrize(("name", "units"), [("sprop-vps", (SPS, PPS)), ("sprop-parameter-sets", (VPS5, SPS5, PPS5))])
def test_parameter_sets_below_a_name_of_the_other_codec_are_known(name: str, units: tuple[bytes, ...]) -> None:
    is_h264 = len(units) == 2
    key = IDR if is_h264 else b"\x26\x01\xafkey"
    reader = a_reader("H264" if is_h264 else "H265", {name: text(*units)})
    [picture] = push_all(reader, [a_packet(key, is_marked=True)])
    assert picture.data == annex_b(*units, key)


def test_slices_alone_outweigh_the_name_once_there_are_many() -> None:
    """Neither the description nor the stream has parameter sets as yet."""
    reader = a_reader("H265")
    given = [len(push_all(reader, [a_packet(P, number, number * TICKS)], is_settled=False)) for number in range(10)]
    assert given == [0, 0, 0, 0, 0, 0, 0, 7, 1, 1]
    assert reader.codec == "h264"


@pytest.mark.parametrize("encoding", ["H264", "H265"])
def test_few_odd_packets_do_not_outweigh_the_name(encoding: str) -> None:
    """What comes first may be private, or left over from another stream."""
    odd, own = (P5, P) if encoding == "H264" else (P, P5)
    flow = [a_packet(odd, number, number * TICKS) for number in range(7)]
    flow += [a_packet(own, number, number * TICKS) for number in range(7, 12)]
    reader = a_reader(encoding)
    pictures = push_all(reader, flow, is_settled=False)
    assert [one.data for one in pictures[-3:]] == [annex_b(own)] * 3
    assert reader.codec == {"H264": "h264", "H265": "hevc"}[encoding]


def test_what_says_nothing_waits_until_the_line_is_quiet_and_then_the_name_counts() -> None:
    reader = a_reader("H264")
    both = b"\x06\x01\x01\x80"  # an SEI of H.264, or a slice of H.265
    assert push_all(reader, [a_packet(both), a_packet(both, 1)], is_settled=False) == []
    assert push_all(reader, []) == []
    [picture] = push_all(reader, [a_packet(P, 2, is_marked=True)])
    assert picture.data == annex_b(both, both, P)


def test_losses_among_packets_that_waited_are_not_forgotten() -> None:
    both = b"\x06\x01\x01\x80"
    flow = [a_packet(both, 0), a_packet(both, 1), a_packet(both, 5), a_packet(P, 6), a_packet(P, 7, TICKS)]
    assert [one.follows_loss for one in push_all(a_reader("H264"), flow, is_settled=False)] == [True]


def test_a_header_hardly_ever_makes_sense_for_both() -> None:
    """Each packet of each film says which it is but the SEI of H.264, some of which could be slices of H.265."""
    for sent in FILMS:
        for packet in packets(sent):
            said = (can_be_h264(packet[12:]), can_be_h265(packet[12:]))
            right = (sent.codec == "h264", sent.codec == "hevc")
            assert said == right or (packet[12] == 6 and said == (True, True))


@pytest.mark.parametrize(
    ("payload", "h264", "h265"),
    [
        (AUD + b"\0", True, False),
        (SEI, True, True),
        (b"\x78" + len(SPS).to_bytes(2) + SPS, True, False),
        (b"\x7c\x85\x88", True, False),
        (b"\x60\x01" + len(VPS5).to_bytes(2) + VPS5, False, True),
        (b"\x62\x01\x93\xaf", False, True),
        (b"\x62\x00\x80\x00", False, True),
        (b"\x02\x00\xd0\x00", False, False),
        (b"\x78\x00\xff" + SPS, False, False),
        (b"\x78\x00\x08\x78\x00\x04" + SPS[:4], False, False),
        (b"\x00\x00\x00\x00", False, False),
        (b"\x41", False, False),
    ],
)
def test_what_a_payload_can_be(payload: bytes, h264: bool, h265: bool) -> None:
    assert (can_be_h264(payload), can_be_h265(payload)) == (h264, h265)
