"""MPEG-4 part 2 payloads (RFC 6416): headers, VOPs, what is a key picture."""

import struct

import pytest

from streams.engine.rtp import CodedPicture
from tests.engine.rtp_film import TICKS, a_packet, a_reader, decode, film, push_all, read

LAYER = b"\0\0\1\xb0\1\0\0\1\xb5\x09\0\0\1\0\0\0\1\x20layer"
GROUP = b"\0\0\1\xb3\0\x10\x07"
I_VOP, P_VOP, B_VOP = (b"\0\0\1\xb6" + bytes([kind << 6]) + b"vop" for kind in range(3))
CONFIG = {"config": LAYER.hex().upper()}


def sent(*payloads: tuple[int, bytes]) -> list[bytes]:
    """Each with the number of its picture."""
    return [a_packet(payload, number, picture * TICKS) for number, (picture, payload) in enumerate(payloads)]


def pictures(*payloads: tuple[int, bytes], fmtp: dict[str, str] | None = None) -> list[CodedPicture]:
    return read(sent(*payloads), "MP4V-ES", fmtp)


def test_a_key_picture_begins_with_the_configuration_of_the_description() -> None:
    given = pictures((0, I_VOP), (1, P_VOP), (2, B_VOP), (3, GROUP + I_VOP), (4, P_VOP), fmtp=CONFIG)
    assert [one.data for one in given] == [LAYER + I_VOP, P_VOP, B_VOP, LAYER + GROUP + I_VOP]
    assert [one.is_key for one in given] == [True, False, False, True]
    assert [one.is_reference for one in given] == [True, True, False, True]


def test_a_newer_configuration_in_the_stream_replaces_that_of_the_description() -> None:
    newer = LAYER + b"!"
    given = pictures((0, newer + GROUP + I_VOP), (1, I_VOP), (2, P_VOP), fmtp=CONFIG)
    assert [one.data for one in given] == [newer + GROUP + I_VOP, newer + I_VOP]


def test_headers_in_packets_of_their_own_belong_to_the_vop_that_follows() -> None:
    given = pictures((0, P_VOP), (1, LAYER[:9]), (1, LAYER[9:]), (1, GROUP), (2, I_VOP), (3, P_VOP))
    assert [one.data for one in given] == [P_VOP, LAYER + GROUP + I_VOP]
    assert given[1].timestamp == 2 * TICKS


def test_a_vop_of_the_same_time_is_another_picture() -> None:
    assert [one.data for one in pictures((0, P_VOP), (0, b"more"), (0, P_VOP), (1, P_VOP))] == [
        P_VOP + b"more",
        P_VOP,
    ]


def test_the_rest_of_a_vop_whose_begin_was_lost_is_none() -> None:
    flow = sent((0, P_VOP), (1, P_VOP), (1, b"rest"), (2, P_VOP), (3, P_VOP))
    del flow[1]
    given = read(flow, "MP4V-ES")
    assert [(one.timestamp // TICKS, one.follows_loss) for one in given] == [(0, False), (2, True)]


def test_headers_before_a_loss_are_not_those_of_the_picture_after() -> None:
    flow = sent((0, P_VOP), (1, GROUP), (1, I_VOP), (2, P_VOP), (3, P_VOP))
    del flow[2]
    assert [one.data for one in read(flow, "MP4V-ES")] == [P_VOP, P_VOP]


def test_several_vops_in_a_packet_are_several_pictures() -> None:
    """GStreamer's rtpmp4vpay."""
    packed = LAYER + GROUP + I_VOP + P_VOP + GROUP + B_VOP
    given = pictures((0, packed), (0, b"rest"), (1, P_VOP + GROUP), (2, I_VOP), (3, P_VOP))
    assert [one.data for one in given] == [
        LAYER + GROUP + I_VOP, P_VOP, GROUP + B_VOP + b"rest", P_VOP, LAYER + GROUP + I_VOP,
    ]  # fmt: skip
    assert all(one.is_whole and not one.follows_loss for one in given)


def test_headers_without_end_are_bounded() -> None:
    reader = a_reader("MP4V-ES")
    push_all(reader, sent(*((number, b"\0\0\1\xb2" + bytes(1000)) for number in range(1000))))
    [one] = push_all(reader, [a_packet(P_VOP, 1000, 5), a_packet(P_VOP, 1001, 6)])
    assert len(one.data) < 1 << 17
    assert one.follows_loss


def test_a_vop_without_end_is_given_up() -> None:
    reader = a_reader("MP4V-ES")
    flow = [a_packet(P_VOP), *(a_packet(b"x" * 60_000, number) for number in range(1, 400))]
    assert push_all(reader, flow) == []
    [one] = push_all(reader, [a_packet(P_VOP, 400, 5), a_packet(P_VOP, 401, 6)])
    assert one.data == P_VOP
    assert one.follows_loss


def test_a_picture_that_settled_too_early_costs_one_and_it_happens_once() -> None:
    reader = a_reader("MP4V-ES")
    counts = [
        len(push_all(reader, [a_packet(payload, number, number // 2 * TICKS, is_marked=True)]))
        for number, payload in enumerate([P_VOP, b"rest", P_VOP, b"rest", P_VOP, b"rest"])
    ]
    assert counts == [1, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("config", ["", "0", "zz", "00 00", "\u0660"])
def test_no_configuration_is_an_error(config: str) -> None:
    assert len(pictures((0, I_VOP), (1, P_VOP), fmtp={"config": config})) == 1


def test_a_vop_that_is_cut_off_in_its_start_code_is_none() -> None:
    assert pictures((0, b"\0\0\1\xb6"), (1, P_VOP)) == []


def test_a_film_whose_configuration_is_in_the_stream_alone_decodes() -> None:
    whole = film("mpeg4")
    flow = [a_packet(whole.whole(unit), number, unit.pts_ticks) for number, unit in enumerate(whole.units)]
    after = struct.pack(">BBHII", 0x80, 96, len(flow), 2**31, 0x1234) + P_VOP
    given = read([*flow, after], "MP4V-ES")
    assert decode("mpeg4", [one.data for one in given]) == decode(
        "mpeg4", [whole.whole(unit) for unit in whole.units]
    )
