"""What a fault makes of a timeline, of packets and of a description, without a camera."""

from dataclasses import replace
from itertools import islice, pairwise

import pytest

from tests.camera.clip import Scene, encode
from tests.camera.faults import FAULTS, Fault, parse_fault
from tests.camera.oddities import ODDITIES
from tests.camera.rtp import Packet
from tests.camera.sdp import describe
from tests.camera.timeline import Moment, Reel, timeline

CLIP = encode(Scene(320, 240, (40, 200, 90), fps=10))
OTHER_CLIP = encode(Scene(160, 120, (60,), fps=10))


def moments(fault: str, count: int = 40) -> list[Moment]:
    chosen = parse_fault(fault)
    return list(islice(chosen.edit_moments(timeline(CLIP), chosen.amount), count))


def packets(fault: str, count: int = 30) -> list[Packet | None]:
    chosen = parse_fault(fault)
    sent = (Packet(number, 0, True, bytes(range(64))) for number in range(count))
    return [chosen.edit_packet(packet, chosen.amount) for packet in sent]


def test_a_timeline_goes_on_when_the_clip_begins_again() -> None:
    played = list(islice(timeline(CLIP), 65))
    assert {after.ticks - before.ticks for before, after in pairwise(played)} == {9000}
    assert played[64].at_s == pytest.approx(6.4)
    assert played[60].unit is CLIP.units[0]


def test_a_timeline_ends_with_the_clip_when_it_shall_not_loop() -> None:
    assert len(list(timeline(CLIP, is_looping=False))) == 30


def test_a_timeline_starts_in_the_middle() -> None:
    assert next(timeline(CLIP, from_s=1.23)).ticks == 13 * 9000


def test_a_reel_turns_to_another_clip_at_a_key_frame() -> None:
    reel = Reel(CLIP, from_s=0.0, is_looping=True)
    before = [next(reel) for _ in range(5)]
    reel.turn_to(OTHER_CLIP, after_s=1.0)
    after = list(islice(reel, 20))
    assert {unit.ticks for unit in after} == {9000 * number for number in range(5, 25)}
    assert [moment.unit in OTHER_CLIP.units for moment in before + after] == [False] * 20 + [True] * 5


def test_a_reel_gives_the_last_moment_again() -> None:
    reel = Reel(CLIP, from_s=0.0, is_looping=True)
    first = next(reel)
    reel.again()
    assert [next(reel), next(reel).ticks] == [first, 9000]


def test_a_fault_is_parsed_with_its_amount() -> None:
    assert parse_fault("stall_after:3.5") == replace(FAULTS["stall_after"], amount=3.5)
    assert parse_fault("redirect:rtsp://host:1/x").location == "rtsp://host:1/x"
    assert str(parse_fault("stall_after:3.5")) == "sends nothing more after 3.5 s"


@pytest.mark.parametrize("text", ["nothing_like_it", "stall_after:soon", ""])
def test_a_fault_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no fault|could not convert"):
        parse_fault(text)


@pytest.mark.parametrize("fault", [*FAULTS.values(), *ODDITIES.values()], ids=[*FAULTS, *ODDITIES])
def test_each_fault_says_what_it_does(fault: Fault) -> None:
    assert "{" not in str(fault)


def test_an_end_comes_after_its_seconds() -> None:
    assert len(moments("stall_after:1.5")) == 15
    assert moments("close_after:0") == moments("silent_play") == []


def test_the_start_can_be_in_the_middle_of_a_gop() -> None:
    started = moments("mid_gop:0.4", 2)
    assert [moment.unit for moment in started] == list(CLIP.units[4:6])
    assert started[0].at_s == pytest.approx(0)


@pytest.mark.parametrize(
    ("fault", "ticks"),
    [
        ("no_timestamps", [0, 0, 0, 0]),
        ("stuck_timestamps:0.2", [0, 9000, 18000, 18000]),
        ("jumping_timestamps:10", [0, 9000, 18000, 27000]),
        ("fast_timestamps:4", [0, 36000, 72000, 108000]),
        ("slow_timestamps:0.5", [0, 4500, 9000, 13500]),
    ],
)
def test_timestamps_are_as_the_fault_says(fault: str, ticks: list[int]) -> None:
    assert [moment.ticks for moment in moments(fault, 4)] == ticks


@pytest.mark.parametrize(("fault", "ticks"), [("jumping_timestamps:10", 990_000), ("backward_timestamps:-1", 0)])
def test_timestamps_jump_in_second_one(fault: str, ticks: int) -> None:
    assert [moment.ticks for moment in moments(fault)][9:11] == [81_000, ticks]


def test_bursts_hold_the_frames_of_their_seconds() -> None:
    assert [moment.at_s for moment in moments("bursts:2", 41)] == [2.0] * 20 + [4.0] * 20 + [6.0]


def test_a_rush_is_faster_than_its_timestamps() -> None:
    hurried = moments("rush:4", 21)[20]
    assert hurried.at_s == pytest.approx(0.5)
    assert hurried.ticks == 180_000


def test_every_nth_packet_is_lost() -> None:
    lost = [number for number, packet in enumerate(packets("lost_packets:10")) if packet is None]
    assert lost == [9, 19, 29]


def test_every_nth_packet_is_damaged_behind_its_header() -> None:
    payloads = [packet.payload for packet in packets("damaged:10") if packet]
    damaged = [number for number, payload in enumerate(payloads) if payload != bytes(range(64))]
    assert damaged == [9, 19, 29]
    assert payloads[9][:4] == bytes(range(4))


def test_a_description_can_be_sloppy() -> None:
    right = describe(CLIP, ("video",))
    sloppy = FAULTS["sloppy"].edit_sdp(right)
    assert "sprop-parameter-sets" in right
    assert right.count("\n") == right.count("\r\n")
    assert "sprop-parameter-sets" not in sloppy
    assert "\r\n" not in sloppy
    assert "garbage" in sloppy
    assert "a=control:track0" in sloppy
