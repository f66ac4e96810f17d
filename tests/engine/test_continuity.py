"""What is missing by a stream's own numbers is told, no stream that is whole is suspected, and a rule stands down."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine import continuity as continuing
from streams.engine.continuity import CHANGED, GROUP_S, GROUPS, Rule, Watch, continuity
from tests.camera.clip import split_nals

from .clip_feed import Film, filmed
from .numbered import Numbering
from .paff import paff_pictures
from .rtp_film import annex_b, sliced


def breaches(pictures: Sequence[bytes], codec: str = "h264", *, keys: Sequence[int] = ()) -> list[int]:
    """The places of the pictures that tell of a loss."""
    numbers = continuity(codec)
    return [at for at, data in enumerate(pictures) if numbers.breach(data, at / 10, is_key=at in keys)]


def group(numbering: Numbering, count: int = 40) -> list[bytes]:
    return [numbering.picture(number, kind="P" if number else "IDR") for number in range(count)]


NUMBERINGS = {
    "order 2": Numbering(),
    "order 0": Numbering(order=0),
    "order 1": Numbering(order=1),
    "sixteen bits": Numbering(bits=16),
    "weighted": Numbering(is_weighted=True),
    "scaling matrices": Numbering(scaling=True),
    "may be interlaced": Numbering(is_progressive=False),
}


@pytest.mark.parametrize("numbering", NUMBERINGS.values(), ids=NUMBERINGS)
def test_each_reference_picture_that_is_missing_is_told_by_the_next_one(numbering: Numbering) -> None:
    pictures = group(numbering) * 2
    assert breaches(pictures) == []
    for lost in (1, 2, 15, 16, 17, 39, 41, 60):
        expected = [] if lost == 39 else [lost]  # the last before a key frame
        assert breaches(pictures[:lost] + pictures[lost + 1 :]) == expected, lost


def test_a_key_frame_that_is_missing_is_told() -> None:
    for length in (8, 12, 25, 30, 50):
        pictures = group(Numbering(), length) * 2
        assert breaches(pictures[:length] + pictures[length + 1 :]) == [length], length


def timed(pictures: Sequence[bytes], times_s: Sequence[float]) -> list[int]:
    numbers = continuity("h264")
    return [
        at
        for at, (data, time_s) in enumerate(zip(pictures, times_s, strict=True))
        if numbers.breach(data, time_s, is_key=False)
    ]


@pytest.mark.parametrize("length", [17, 33])
def test_a_key_frame_is_missing_that_was_due_where_the_numbers_go_on_without_it(length: int) -> None:
    """After number 0 of the group's last picture comes number 1 of the next group's second one."""
    pictures = [(data, at / 10) for at, data in enumerate(group(Numbering(), length) * 5)]
    for lost in (3 * length, 4 * length):
        left = [*pictures[:lost], *pictures[lost + 1 :]]
        assert timed(*zip(*left, strict=True)) == [lost]
    assert timed(*zip(*pictures, strict=True)) == []


def test_a_group_that_goes_on_longer_than_those_before_misses_nothing() -> None:
    """Smart codecs do so. Nor is a picture missing where a camera sends one later than it should."""
    pictures = [*group(Numbering(), 17) * 4, *group(Numbering(), 60)]
    assert timed(pictures, [at / 10 for at in range(len(pictures))]) == []
    late = [at / 10 + 0.1 * (at >= 70) for at in range(len(pictures))]
    assert timed(pictures, late) == []


def test_that_key_frame_with_pictures_that_are_shown_in_another_order() -> None:
    """Sixteen reference pictures and 31 others to a group."""
    packets = filmed(Film(frames=240, key_every=48, b_frames=2))
    keys = [at for at, packet in enumerate(packets) if packet.is_key]
    lost = keys[3]
    left = [*packets[:lost], *packets[lost + 1 :]]
    assert timed([packet.data for packet in packets], [packet.pts_s for packet in packets]) == []
    assert timed([packet.data for packet in left], [packet.pts_s for packet in left]) == [lost]


def test_pictures_that_no_other_copies_from_may_be_missing() -> None:
    """They have the number of the next reference picture, all of them."""
    numbering = Numbering(order=0)
    pictures = [numbering.picture(0, kind="IDR")]
    for number in range(1, 30):
        pictures += [numbering.picture(number, kind="P")]
        pictures += [numbering.picture(number + 1, kind="B", is_reference=False)] * 2
    assert breaches(pictures) == []
    chance = random.Random(1)
    left = [data for at, data in enumerate(pictures) if at % 3 == 1 or at == 0 or chance.random() < 0.5]
    assert len(left) < len(pictures)
    assert breaches(left) == []


def test_a_parameter_set_that_allows_gaps_is_believed() -> None:
    """As temporal layers are left out."""
    assert breaches(group(Numbering(allows_gaps=True))[::3]) == []


def test_two_fields_have_one_number() -> None:
    numbering = Numbering(is_progressive=False)
    pictures = [
        numbering.picture(number, kind="IDR" if field == "upper" and not number else "P", field=field)
        for number in range(20)
        for field in ("upper", "lower")
    ]
    assert breaches(pictures) == []
    assert breaches(pictures[:12] + pictures[14:]) == [12]
    for lost in (1, 12, 13, 36):  # the one that is left is told by what comes after it
        assert breaches(pictures[:lost] + pictures[lost + 1 :]) == [lost + (lost % 2 == 0)], lost
    together = [upper + lower for upper, lower in paff_pictures(frames=40, key_every=20)]
    assert breaches(together) == []
    assert breaches([field for fields in paff_pictures(frames=40, key_every=20) for field in fields]) == []
    assert breaches(together[:7] + together[8:]) == [7]


@pytest.mark.parametrize("kind", ["P", "B", "I"])
@pytest.mark.parametrize("numbering", NUMBERINGS.values(), ids=NUMBERINGS)
def test_a_picture_that_clears_all_references_counts_as_number_0(numbering: Numbering, kind: str) -> None:
    before = [numbering.picture(number, kind="P" if number else "IDR") for number in range(10)]
    after = [numbering.picture(number) for number in range(1, 10)]
    assert breaches([*before, numbering.picture(10, kind=kind, clears=True), *after]) == []
    assert breaches([*before, numbering.picture(10, kind=kind, clears=True), *after[2:]]) == [11]
    assert breaches([*before, numbering.picture(10, kind=kind), *after]) == [11]


def test_what_is_known_to_be_missing_proves_nothing() -> None:
    numbers, pictures = continuity("h264"), group(Numbering())
    assert not numbers.breach(pictures[0], 0.0, is_key=True)
    numbers.resume()
    assert not numbers.breach(pictures[5], 0.0, is_key=False)
    assert numbers.breach(pictures[7], 0.0, is_key=False) is Rule.FRAME_NUM


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4", "mjpeg", "vp9"])
@given(st.lists(st.binary(max_size=40).map(lambda data: b"\0\0\1" + data), max_size=4))
def test_nonsense_proves_nothing(codec: str, pictures: list[bytes]) -> None:
    assert breaches([b"", b"\0\0\1", *pictures], codec) == []


@given(st.data())
def test_what_is_cut_anywhere_raises_nothing(data: st.DataObject) -> None:
    film = filmed(Film(codec=data.draw(st.sampled_from(["h264", "hevc"])), frames=4))
    numbers = continuity(data.draw(st.sampled_from(["h264", "hevc"])))
    for packet in film:
        numbers.breach(packet.data[: data.draw(st.integers(0, 200))], 0.0, is_key=packet.is_key)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_of_millions_of_units_a_few_hundred_are_looked_at(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture may have 16 MB, and while it is looked at nobody reads the camera."""
    seen: list[int] = []
    read = continuing._unit

    def noted(data: bytes, at: int) -> bytes:
        seen.append(at)
        return read(data, at)

    monkeypatch.setattr(continuing, "_unit", noted)
    parameter_set = {"h264": b"\x67", "hevc": b"\x42"}[codec]
    assert breaches([(b"\0\0\1" + parameter_set + b"\x01") * 5000], codec) == []
    assert 64 < len(seen) < 1000


# --- slices of H.265 ---


def without(picture: bytes, lost: int) -> bytes:
    units = split_nals(picture)
    slices = [at for at, unit in enumerate(units) if unit[0] >> 1 & 63 < 32]
    return annex_b(*(unit for at, unit in enumerate(units) if at != slices[lost]))


def test_a_slice_that_all_pictures_before_had_is_missing() -> None:
    pictures = [unit.data for unit in sliced("hevc", frames=20).units]
    assert breaches(pictures, "hevc") == []
    for at in (4, 7, 8, 19):
        for lost in (1, 2, 3):
            assert breaches([*pictures[:at], without(pictures[at], lost), *pictures[at + 1 :]], "hevc") == [at]


def test_an_encoder_that_goes_on_with_fewer_slices_has_changed_its_mind() -> None:
    pictures = [unit.data for unit in sliced("hevc", frames=20).units]
    fewer = [without(data, 2) for data in pictures]
    assert breaches([*pictures, *fewer], "hevc") == [20 + number for number in range(CHANGED)]
    assert breaches([*pictures, *fewer, without(fewer[0], 2)], "hevc")[-1] == 40


def test_slices_that_are_elsewhere_in_each_picture_prove_nothing() -> None:
    pictures = [unit.data for unit in sliced("hevc", frames=20).units]
    chance = random.Random(2)
    assert breaches([without(data, 1 + chance.randrange(3)) for data in pictures], "hevc") == []


def test_an_encoder_whose_slices_were_elsewhere_is_believed_less() -> None:
    """As one that cuts by bytes: a dark scene has ten pictures alike and then one that fits into fewer slices."""
    pictures = [unit.data for unit in sliced("hevc", frames=20).units]
    cut = [without(data, 1 + at % 2) for at, data in enumerate(pictures)]
    assert breaches([*cut[:4], *pictures[:10], without(pictures[10], 2)], "hevc") == []


# --- a rule stands down ---


class Told:
    """Says of each picture what its data says."""

    def __init__(self) -> None:
        self.resumed = 0

    def breach(self, data: bytes, stream_s: float, *, is_key: bool) -> Rule | None:
        return Rule(data.decode()) if data else None

    def resume(self) -> None:
        self.resumed += 1


LOST, WHOLE = b"frame_num", b""


def watched(watch: Watch, groups: Sequence[Sequence[bytes]], from_s: float = 0.0) -> list[list[bool]]:
    """Groups of pictures a tenth of a second apart: which of them are said to follow a loss."""
    said: list[list[bool]] = []
    stream_s = from_s
    for pictures in groups:
        said.append([])
        for at, data in enumerate(pictures):
            said[-1].append(bool(watch.breach(data, stream_s, is_key=at == 0, is_lossy=False)))
            stream_s += 0.1
    return said


def test_a_rule_that_finds_something_in_each_of_five_groups_stands_down() -> None:
    watch = Watch(Told())
    assert watched(watch, [[WHOLE, LOST, WHOLE, LOST]] * GROUPS) == [[False, True, False, True]] * GROUPS
    assert not watch.rules_off
    assert watched(watch, [[WHOLE, LOST, LOST]] * 2, 10.0) == [[False] * 3] * 2
    assert watch.rules_off == {Rule.FRAME_NUM}
    assert watched(watch, [[WHOLE, b"slices"]], 20.0) == [[False, True]]


def test_one_group_in_which_nothing_is_missing_is_enough_to_go_on() -> None:
    watch = Watch(Told())
    bad, good = [WHOLE, LOST], [WHOLE, WHOLE]
    watched(watch, [*[bad] * (GROUPS - 1), good, *[bad] * (GROUPS - 1), good])
    assert not watch.rules_off


def test_groups_in_which_rtp_or_the_decoder_tells_of_a_loss_do_not_count() -> None:
    for says in ("rtp", "decoder"):
        told: list[Rule | None] = []
        watch = Watch(numbers := Told())
        for number in range(4 * GROUPS):
            watch.breach(WHOLE, number, is_key=True, is_lossy=False)
            told.append(watch.breach(LOST, number + 0.1, is_key=False, is_lossy=False))
            if number % GROUPS == 0 and says == "rtp":
                assert not watch.breach(LOST, number + 0.2, is_key=False, is_lossy=True)
            elif number % GROUPS == 0:
                watch.note_loss()
        assert not watch.rules_off
        assert all(told)
        assert numbers.resumed == (4 if says == "rtp" else 0)


def test_without_key_frames_a_group_lasts_two_seconds() -> None:
    watch = Watch(Told())
    for number in range(GROUPS):
        assert watch.breach(LOST, number * GROUP_S + 1.0, is_key=False, is_lossy=False)
        assert not watch.rules_off
    assert not watch.breach(LOST, GROUPS * GROUP_S + 1.0, is_key=False, is_lossy=False)
    assert watch.rules_off == {Rule.FRAME_NUM}


def test_a_long_group_in_which_one_picture_is_missing_counts_once() -> None:
    """Four seconds: in the second half nothing more is found, since all waits for the key frame."""
    watch = Watch(Told())
    for number in range(GROUPS):
        assert watched(watch, [[WHOLE, LOST, *[WHOLE] * 38]], number * 4.0) == [[False, True, *[False] * 38]]
        assert bool(watch.rules_off) == (number == GROUPS - 1)
    assert watched(watch, [[WHOLE, LOST]], GROUPS * 4.0) == [[False, False]]


def test_pictures_that_are_shown_before_their_key_frame_are_of_its_group() -> None:
    """An open group: the two after the key frame are shown before it."""
    watch = Watch(Told())
    for number in range(GROUPS + 1):
        for data, shown_s in ((WHOLE, 0.2), (WHOLE, 0.0), (LOST, 0.1), (WHOLE, 0.3)):
            watch.breach(data, number + shown_s, is_key=shown_s == 0.2, is_lossy=False)
        assert bool(watch.rules_off) == (number == GROUPS)


def test_what_is_missing_before_a_key_frame_costs_no_picture_and_does_not_count() -> None:
    watch = Watch(Told())
    assert watched(watch, [[LOST, WHOLE]] * 3 * GROUPS) == [[True, False]] * 3 * GROUPS
    watched(watch, [[b"slices", WHOLE]] * (GROUPS + 1))  # which is of the key frame itself
    assert watch.rules_off == {Rule.SLICES}
