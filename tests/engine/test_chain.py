"""Frames come out of a chain in order, and only while nothing that they may copy from was damaged."""

from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.engine.chain import MAX_PENDING, Chain, Waiting

from .clip_feed import a_packet
from .scripted_decoder import Script, ScriptedDecoder, ScriptedFrame

FAULTS = st.sampled_from(["corrupt", "refused", "nothing"])
MANY = settings(deadline=None, max_examples=300)


def waiting(number: int, shown: int | None = None, fault: str = "", *, is_refresh: bool = False) -> Waiting:
    """Number 1 is the first; pictures are shown a second apart, unless told otherwise in the order of numbers."""
    shown = number if shown is None else shown
    packet = a_packet(Script(shown, fault).data, pts_s=float(shown), is_refresh=is_refresh)
    return Waiting(number, packet, float(shown), is_ahead=True)


def fed(chain: Chain, *pictures: Waiting) -> list[int]:
    """Numbers of the frames that come out on the way."""
    out: list[int] = []
    for picture in pictures:
        chain.feed(picture)
        out += numbers(chain)
    return out


def numbers(chain: Chain) -> list[int]:
    frames = list(chain.frames())
    assert [cast(ScriptedFrame, frame).shown for _, frame in frames] == [picture.stream_s for picture, _ in frames]
    return [picture.number for picture, _ in frames]


def mini_groups(count: int, b_frames: int) -> list[int]:
    """Places in the presentation in order of decoding: after the first, one and `b_frames` shown before it."""
    order = [1]
    while len(order) < count:
        top = len(order) + 1 + b_frames
        order += [top, *range(top - b_frames, top)]
    return order


def test_frames_come_out_at_once_where_nothing_is_held_back() -> None:
    assert fed(Chain(ScriptedDecoder()), *(waiting(number) for number in range(1, 5))) == [1, 2, 3, 4]


def test_frames_come_out_in_order_of_presentation() -> None:
    chain = Chain(ScriptedDecoder(delay=2))
    assert fed(chain, *(waiting(n, shown) for n, shown in enumerate([1, 4, 2, 3, 7, 5, 6], 1))) == [1, 3, 4, 2]
    chain.finish()
    assert numbers(chain) == [6, 7, 5]


def test_a_frame_waits_for_those_that_it_may_copy_from() -> None:
    """2 is decoded before 3 and 4, is shown after them, and turns out damaged: so they are."""
    chain = Chain(ScriptedDecoder(delay=1))
    assert fed(chain, waiting(1, 1), waiting(2, 4, "corrupt"), waiting(3, 2), waiting(4, 3)) == [1]
    chain.finish()
    assert numbers(chain) == []
    assert chain.damaged_from == 2


def test_a_picture_that_is_refused_spoils_what_comes_after_it() -> None:
    chain = Chain(ScriptedDecoder())
    assert fed(chain, waiting(1), waiting(2), waiting(3, fault="refused"), waiting(4)) == [1, 2]
    assert chain.damaged_from == 3


def test_a_picture_that_gives_no_frame_spoils_nothing() -> None:
    chain = Chain(ScriptedDecoder())
    assert fed(chain, waiting(1), waiting(2, fault="nothing"), waiting(3)) == [1, 3]
    assert chain.damaged_from is None


def test_a_decoder_that_ends_badly_spoils_what_it_held() -> None:
    chain = Chain(ScriptedDecoder(delay=1, drain_fails=True))
    assert fed(chain, waiting(1), waiting(2), waiting(3)) == [1, 2]
    chain.finish()
    assert (numbers(chain), chain.damaged_from) == ([], 3)


def test_a_decoder_that_ends_badly_but_held_nothing_spoils_nothing() -> None:
    chain = Chain(ScriptedDecoder(drain_fails=True))
    chain.feed(waiting(1))
    chain.finish()
    assert (numbers(chain), chain.damaged_from) == ([1], None)


def test_what_is_awaited() -> None:
    chain = Chain(ScriptedDecoder(delay=1))
    assert not chain.awaits(0.0)
    fed(chain, waiting(1), waiting(2))
    assert chain.awaits(2.0)
    assert not chain.awaits(2.1)
    fed(chain, waiting(3))
    assert not chain.awaits(3.1)
    chain.finish()
    assert chain.awaits(3.0)  # it has come out, but nobody has taken it
    assert numbers(chain) == [3]
    assert not chain.awaits(0.0)


def test_a_frame_that_is_never_given_is_not_awaited_for_ever() -> None:
    chain = Chain(ScriptedDecoder())
    fed(chain, *(waiting(number, fault="nothing") for number in range(1, 3 * MAX_PENDING)))
    chain.feed(waiting(3 * MAX_PENDING))
    assert numbers(chain) == [3 * MAX_PENDING]
    assert not chain.awaits(0.0)


def test_no_more_frames_are_held_than_a_decoder_can_re_order() -> None:
    """The second picture seems to be shown long after all others, and nothing comes of it."""
    chain = Chain(ScriptedDecoder())
    later = [waiting(number) for number in range(3, 3 * MAX_PENDING)]
    out = fed(chain, waiting(1), waiting(2, 1000, "nothing"), *later)
    assert out == [1, *range(3, 3 * MAX_PENDING)]
    chain = Chain(ScriptedDecoder())
    out = fed(chain, waiting(1), waiting(2, 1000, "nothing"), *later[: MAX_PENDING - 1])
    assert out == [1]


def test_what_is_shown_before_the_key_frame_is_no_frame_and_no_damage() -> None:
    chain = Chain(ScriptedDecoder())
    leading = [waiting(2, 8, "corrupt"), waiting(3, 9, "refused"), waiting(4, 7)]
    assert fed(chain, waiting(1, 10), *leading, waiting(5, 11)) == [1, 5]
    assert chain.damaged_from is None


@pytest.mark.parametrize("fault", ["corrupt", "refused"])
def test_without_a_key_frame_complaints_count_once_the_picture_is_whole(fault: str) -> None:
    chain = Chain(ScriptedDecoder(), is_gradual=True)
    assert fed(chain, waiting(1, fault="refused"), waiting(2, fault="nothing"), waiting(3)) == [3]
    assert fed(chain, waiting(4, fault=fault), waiting(5)) == []
    assert chain.damaged_from == 4


def test_the_second_round_of_refreshing_is_waited_for() -> None:
    """Two pictures make it whole, says the decoder: so 1 to 3 may be wrong, and 9 is the first that is not."""
    chain = Chain(ScriptedDecoder(), is_gradual=True)
    begin = [waiting(1, fault="nothing", is_refresh=True), waiting(2, fault="nothing"), waiting(3)]
    assert fed(chain, *begin, *(waiting(number) for number in (4, 5, 6))) == []
    assert fed(chain, waiting(7, is_refresh=True), waiting(8)) == []
    assert fed(chain, waiting(9), waiting(10)) == [9, 10]


def test_in_the_second_round_of_refreshing_complaints_count() -> None:
    """What it copies from then is there: something was lost, and one round is too few to mend it."""
    chain = Chain(ScriptedDecoder(), is_gradual=True)
    begin = [waiting(1, fault="nothing", is_refresh=True), waiting(2, fault="nothing"), waiting(3, fault="corrupt")]
    assert fed(chain, *begin, waiting(4, fault="corrupt"), waiting(5)) == []
    assert chain.damaged_from is None
    assert fed(chain, waiting(6, is_refresh=True), waiting(7, fault="corrupt"), waiting(8), waiting(9)) == []
    assert chain.damaged_from == 7


@MANY
@given(
    b_frames=st.integers(0, 3),
    delay=st.integers(0, 3),
    faults=st.dictionaries(st.integers(2, 30), FAULTS, max_size=5),
)
def test_all_that_is_clean_comes_out_in_order_and_nothing_else(
    b_frames: int, delay: int, faults: dict[int, str]
) -> None:
    order = mini_groups(30, b_frames)
    chain = Chain(ScriptedDecoder(max(delay, min(b_frames, 1))))
    out = fed(chain, *(waiting(number, shown, faults.get(number, "")) for number, shown in enumerate(order, 1)))
    chain.finish()
    out += numbers(chain)
    damaged = min(
        (number for number, fault in faults.items() if fault != "nothing" and number <= len(order)), default=99
    )
    clean = [number for number in range(1, len(order) + 1) if number < damaged and number not in faults]
    assert out == sorted(clean, key=lambda number: order[number - 1])
    assert chain.damaged_from == (damaged if damaged < 99 else None)
    assert not chain.awaits(0.0)


@MANY
@given(
    places=st.permutations(range(1, 13)),
    delay=st.integers(0, 4),
    faults=st.dictionaries(st.integers(2, 12), FAULTS, max_size=3),
)
def test_no_order_however_odd_gives_a_frame_after_damage(
    places: list[int], delay: int, faults: dict[int, str]
) -> None:
    """Also of decoders that give frames too early, and times that lie."""
    chain = Chain(ScriptedDecoder(delay))
    out = fed(chain, *(waiting(number, place, faults.get(number, "")) for number, place in enumerate(places, 1)))
    chain.finish()
    out += numbers(chain)
    leading = {number for number, place in enumerate(places, 1) if place < places[0]}
    spoilt = {number for number, fault in faults.items() if fault != "nothing"} - leading
    assert not [number for number in out if number in leading or any(other <= number for other in spoilt)]
    assert len(out) == len(set(out))
