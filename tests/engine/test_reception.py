"""The report block about a source: RFC 3550 section 6.4.1, field by field."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from streams.engine.reception import Reception

SSRC = 0x5EED


@dataclass(frozen=True)
class Block:
    ssrc: int
    fraction: int
    lost: int
    highest: int
    jitter: int
    report: int
    delay: int


def packets(numbers: Iterable[int], ssrc: int = SSRC) -> list[memoryview]:
    return [memoryview(struct.pack(">BBHII", 0x80, 96, number & 0xFFFF, 0, ssrc)) for number in numbers]


def block_of(reception: Reception, now_s: float = 0.0) -> Block:
    ssrc, lost, *rest = struct.unpack(">IIIIII", reception.block(now_s))
    return Block(ssrc, lost >> 24, lost & 0xFFFFFF, *rest)


def test_before_the_first_packet_there_is_none() -> None:
    assert Reception().block(0.0) == b""


def test_all_that_was_sent_has_come() -> None:
    reception = Reception()
    reception.note(packets(range(100, 150)))
    reception.note(packets(range(150, 200)))
    assert block_of(reception) == Block(SSRC, 0, 0, 199, 0, 0, 0)


def test_what_was_lost_is_counted_and_the_fraction_is_that_since_the_last_report() -> None:
    reception = Reception()
    reception.note(packets([*range(50), *range(60, 100)]))
    assert block_of(reception) == Block(SSRC, 256 * 10 // 100, 10, 99, 0, 0, 0)
    reception.note(packets(range(100, 180)))
    reception.note(packets([199]))
    block = block_of(reception)
    assert (block.fraction, block.lost, block.highest) == (256 * 19 // 100, 29, 199)


def test_repeated_packets_are_no_negative_loss() -> None:
    reception = Reception()
    reception.note(packets([1, 1, 1, 1]))
    assert (block_of(reception).lost, block_of(reception).fraction) == (0, 0)


def test_a_late_packet_does_not_take_the_highest_number_back() -> None:
    reception = Reception()
    for number in (10, 12, 11):
        reception.note(packets([number]))
    assert (block_of(reception).highest, block_of(reception).lost) == (12, 0)


def test_sequence_numbers_that_wrap_count_a_cycle() -> None:
    reception = Reception()
    reception.note(packets(range(65_500, 65_536)))
    reception.note(packets(range(20)))
    assert (block_of(reception).highest, block_of(reception).lost) == (1 << 16 | 19, 0)


@pytest.mark.parametrize(("numbers", "ssrc"), [(range(30_000, 30_010), SSRC), (range(30, 40), 7)])
def test_another_sequence_is_counted_from_its_own_beginning(numbers: range, ssrc: int) -> None:
    reception = Reception()
    reception.note(packets([*range(40_000, 40_010), 40_030]))
    reception.note(packets(numbers, ssrc))
    assert block_of(reception) == Block(ssrc, 0, 0, numbers[-1], 0, 0, 0)


def a_sender_report(ssrc: int) -> bytes:
    return struct.pack(">BBHIIIIII", 0x80, 200, 6, ssrc, 0x11112222, 0x33334444, 0, 0, 0)


def test_the_senders_last_report_is_told_with_its_age() -> None:
    reception = Reception()
    reception.note(packets([1]))
    reception.note_report(a_sender_report(SSRC), 10.0)
    block = block_of(reception, 12.5)
    assert (block.report, block.delay) == (0x22223333, int(2.5 * 65_536))


@pytest.mark.parametrize(
    "compound", [a_sender_report(7), a_sender_report(SSRC)[:20], b"\x80\xc8\0\1\0\0\x5e\xed", b""]
)
def test_a_report_that_is_not_of_the_source_or_not_whole_is_not_told(compound: bytes) -> None:
    reception = Reception()
    reception.note(packets([1]))
    reception.note_report(compound, 10.0)
    assert (block_of(reception, 12.5).report, block_of(reception, 12.5).delay) == (0, 0)
