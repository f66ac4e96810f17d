"""RTCP packets, by the bytes of RFC 3550 section 6."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.rtcp import has_bye, receiver_report, sender_report

SSRC = 0x5EED
BYE = struct.pack(">BBHI", 0x81, 203, 1, SSRC)
EMPTY_REPORT = struct.pack(">BBHI", 0x80, 201, 1, SSRC)


def test_a_receiver_report_has_its_block_and_a_cname() -> None:
    assert receiver_report(1, b"me") == b"\x80\xc9\0\1\0\0\0\1" + b"\x81\xca\0\3\0\0\0\1\1\2me\0\0\0\0"
    assert receiver_report(1, b"me", bytes(24)) == (
        b"\x81\xc9\0\7\0\0\0\1" + bytes(24) + b"\x81\xca\0\3\0\0\0\1\1\2me\0\0\0\0"
    )


@pytest.mark.parametrize(
    "compound",
    [
        BYE,
        EMPTY_REPORT + BYE,
        struct.pack(">BBHII", 0x82, 203, 2, 7, SSRC),
        BYE[:2] + b"\0\3" + BYE[4:] + b"\4gone\0\0\0",
    ],
    ids=["alone", "after a report", "of two sources", "with a reason"],
)
def test_a_source_leaves(compound: bytes) -> None:
    assert has_bye(compound)
    assert has_bye(compound, SSRC)


@pytest.mark.parametrize(
    "compound",
    [
        b"\x80\xcb\0\0",
        b"\x81\xcb\0\0",
        struct.pack(">BBHI", 0x82, 203, 1, SSRC),
        BYE[:6],
        BYE[:2] + b"\0\2" + BYE[4:],
        BYE[:2] + b"\0\2" + BYE[4:] + b"\4gon",
        b"\x41" + BYE[1:],
        EMPTY_REPORT[:2] + b"\xff\xff" + EMPTY_REPORT[4:] + BYE,
        b"",
    ],
    ids=[
        "of no source",
        "its source left out",
        "one of two sources left out",
        "cut short",
        "longer than it is",
        "with a reason longer than it is",
        "of another version",
        "after a report without end",
        "nothing",
    ],
)
def test_a_malformed_farewell_is_none(compound: bytes) -> None:
    """FIELD 47."""
    assert not has_bye(compound)


def test_the_farewell_of_another_source_is_not_ours() -> None:
    assert not has_bye(BYE, 7)


@given(st.binary(max_size=200))
def test_random_bytes_are_no_error(compound: bytes) -> None:
    has_bye(compound, SSRC)
    sender_report(compound, SSRC)
