"""Whether a picture is missing by the numbers that the stream gives its own pictures. Pure.

A relay that lost packets on their way from the camera sends what is left under RTP numbers of its own, without a gap.
What is missing of a picture the decoder tells; of a whole picture, or of a slice of H.265, it says nothing.

    frame_num   H.264 numbers its reference pictures (ITU-T H.264 section 7.4.3)
    slices      H.265: a picture lacks a slice that all those before it had

These are conclusions, and an encoder that has a way of its own must not be silenced by one: `Watch` has a rule stand
down that finds something missing in one group of pictures after the other. Each picture that comes is looked at, but
only the begin of its first slice is read.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from .sizes import WITH_CHROMA_FORMAT, bits_of, skip_to_h265_size

# In so many groups of pictures in a row a rule finds something missing before it stands down.
GROUPS = 5
# A group of pictures ends with the next key frame, or after so long.
GROUP_S = 2.0
# Pictures (of them key frames) that had the same slices, before one that lacks some of them is damaged; and of those
# that lack the same ones in a row, after how many the encoder has changed its mind.
ALIKE_PICTURES, ALIKE_KEYS = 4, 2
CHANGED = 3
# Each time that the slices begin elsewhere twice as many have to be alike; 8: more than half a minute's.
CHANGES_MAX = 8
# Groups of as many pictures, before the next one is due after as many; and by how much time has to pass there.
ALIKE_GROUPS = 2
WIDER = 1.1
# Of a slice's header: what tells its frame_num is in the first twenty bytes; all of it can be larger.
_BEGIN_BYTES, _HEADER_BYTES = 24, 512
_SETS_MAX = 64
_UNITS_MAX = 700  # a picture has 600 slices at most (ITU-T H.265 table A.8)
_START = b"\0\0\1"


class Rule(StrEnum):
    FRAME_NUM = "frame_num"
    SLICES = "slices"

    @property
    def is_of_picture(self) -> bool:
        """Whether something of the picture itself is missing, not of those before it."""
        return self is Rule.SLICES


class Continuity(Protocol):
    """The pictures of one connection, in the order in which they came."""

    def breach(self, data: bytes, stream_s: float, *, is_key: bool) -> Rule | None:
        """What tells that something is missing of this picture, or between it and the one before."""

    def resume(self) -> None:
        """Something is known to be missing before the next picture: what it numbers proves nothing."""


def continuity(codec: str) -> Continuity:
    """`codec`: libav's name. MPEG-4 and JPEG number nothing."""
    kinds: dict[str, Callable[[], Continuity]] = {"h264": H264Numbers, "hevc": H265Slices}
    return kinds.get(codec, Unnumbered)()


class Unnumbered:
    def breach(self, data: bytes, stream_s: float, *, is_key: bool) -> Rule | None:
        return None

    def resume(self) -> None:
        return


@dataclass(slots=True)
class Watch:
    """The rules that count for a connection.

    One stands down once it has found something missing in each of GROUPS groups of pictures, one after the other, of
    which neither RTP nor the decoder says that something is missing. A group that lasts longer than GROUP_S is more
    than one; where nothing more is found after something was it is passed over, since all waits for the key frame.
    """

    continuity: Continuity = field(default_factory=Unnumbered)
    rules_off: frozenset[Rule] = frozenset()
    _began_s: float | None = None
    _found: set[Rule] = field(default_factory=set)
    _found_since_key: set[Rule] = field(default_factory=set)
    _has_key: bool = False
    _has_loss: bool = False
    _in_a_row: Counter[Rule] = field(default_factory=Counter)

    def breach(self, data: bytes, stream_s: float, *, is_key: bool, is_lossy: bool) -> Rule | None:
        """Of the next picture. `is_lossy`: RTP says that something is missing of it or before it."""
        if self._began_s is None or is_key or stream_s - self._began_s >= GROUP_S:
            self._end_group()
            self._began_s = stream_s
        if is_key:
            self._has_key = True
            self._found_since_key.clear()
        if is_lossy:
            self.note_loss()
            self.continuity.resume()
        rule = self.continuity.breach(data, stream_s, is_key=is_key)
        if rule is None or is_lossy or rule in self.rules_off:
            return None
        if not is_key or rule.is_of_picture:  # else what is missing is before the key frame, which is not rejected
            self._found.add(rule)
        return rule

    def note_loss(self) -> None:
        """Of the group at hand RTP or the decoder says that something is missing."""
        self._has_loss = True

    def _end_group(self) -> None:
        for rule in Rule:
            if self._has_loss:
                self._in_a_row[rule] = 0
            elif rule in self._found:
                self._in_a_row[rule] += 1
            elif not self._has_key or rule not in self._found_since_key:
                self._in_a_row[rule] = 0
        self.rules_off |= {rule for rule in Rule if self._in_a_row[rule] >= GROUPS}
        self._found_since_key |= self._found
        self._found.clear()
        self._has_loss = False


class _Header:
    """A reader of bits for what is read 25 times a second: a picture's takes 5 us, where sizes.Bits takes 20."""

    __slots__ = ("_left", "_value")

    def __init__(self, data: bytes) -> None:
        data = data.replace(b"\0\0\3", b"\0\0")
        self._value = int.from_bytes(data)
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """Raises ValueError where the data ends."""
        if count > self._left:
            raise ValueError("cut off")
        self._left -= count
        return self._value >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        """ue(v) of H.264 section 9.1. Raises ValueError where there is none."""
        rest = self._value & (1 << self._left) - 1
        size = 2 * (self._left - rest.bit_length()) + 1
        if size > min(self._left, 63):
            raise ValueError("no Exp-Golomb code")
        self._left -= size
        return (rest >> self._left) - 1

    def skip(self, codes: int) -> None:
        for _ in range(codes):
            self.golomb()


_Set = TypeVar("_Set")


class _Sets(Generic[_Set]):
    """The parameter sets of one type, by id. Each is read once: they stand before every key frame."""

    def __init__(self, read: Callable[[bytes], tuple[int, _Set]]) -> None:
        self._read = read
        self._known: dict[bytes, tuple[int, _Set] | None] = {}
        self._newest: dict[int, _Set] = {}

    def take(self, unit: bytes) -> None:
        """One that cannot be read is as if it had not come."""
        if unit not in self._known:
            if len(self._known) >= _SETS_MAX:
                self._known.clear()
            try:
                self._known[unit] = self._read(unit)
            except (ValueError, IndexError):
                self._known[unit] = None
        if found := self._known[unit]:
            self._newest[found[0]] = found[1]

    def get(self, id_: int) -> _Set:
        """Raises ValueError if there is none."""
        if id_ not in self._newest:
            raise ValueError("no such parameter set")
        return self._newest[id_]


def _units(data: bytes) -> Iterator[int]:
    """Where the first NAL units of a picture in Annex B begin; a hostile one has millions."""
    at = data.find(_START)
    for _ in range(_UNITS_MAX):
        if not 0 <= at < len(data) - 4:
            return
        yield at + 3
        at = data.find(_START, at + 3)


def _unit(data: bytes, at: int) -> bytes:
    end = data.find(_START, at)
    return (data[at:end] if end >= 0 else data[at:]).rstrip(b"\0")


# --- H.264: ITU-T H.264 sections 7.3.2.1.1, 7.3.2.2, 7.3.3 ---

_SLICE, _IDR, _SPS, _PPS = 1, 5, 7, 8
_P, _B, _I, _SP, _SI = range(5)
_FIELDS = {"upper", "lower"}
_RESET = 5  # memory_management_control_operation


@dataclass(frozen=True, slots=True)
class _Sequence:
    """What of a sequence parameter set a slice header depends on."""

    has_colour_planes: bool
    has_chroma: bool
    frame_num_bits: int
    order_type: int
    order_bits: int
    has_order_deltas: bool
    allows_gaps: bool
    is_progressive: bool


@dataclass(frozen=True, slots=True)
class _Picture:
    """The same of a picture parameter set. `references`: of either list, where the slice does not say."""

    sequence_id: int
    has_bottom_order: bool
    references: tuple[int, int]
    is_p_weighted: bool
    is_b_weighted: bool
    has_redundant: bool


@dataclass(frozen=True, slots=True)
class _Slice:
    """`head`: the first bytes of the unit, for what is read only where something seems to be missing."""

    frame_num: int
    is_idr: bool
    is_reference: bool
    field: str
    """upper, lower; empty: a whole frame."""
    head: bytes
    sequence: _Sequence
    picture: _Picture


@dataclass(slots=True)
class _Group:
    """So many pictures, and how far apart they are shown at most, each from the latest one before it."""

    pictures: int = 0
    widest_s: float = 0.0


class _Rhythm:
    """Whether the begin of a group is due."""

    def __init__(self) -> None:
        self._groups: deque[_Group] = deque([_Group()], maxlen=ALIKE_GROUPS + 1)
        self._ahead_s: float | None = None

    def skips(self, stream_s: float, *, is_begin: bool) -> bool:
        """Of the next picture: whether another one was due in its place, and had the time to be shown."""
        ahead_s = stream_s if self._ahead_s is None else self._ahead_s
        step_s, self._ahead_s = stream_s - ahead_s, max(stream_s, ahead_s)
        *before, group = self._groups
        is_due = len(before) == ALIKE_GROUPS and all(other.pictures == group.pictures for other in before)
        is_wide = step_s > WIDER * max(other.widest_s for other in self._groups)
        if is_begin:
            group = _Group()
            self._groups.append(group)
        group.pictures += 1
        group.widest_s = max(group.widest_s, step_s)
        return is_due and is_wide and not is_begin


class H264Numbers:
    """frame_num: one more behind each reference picture, from 0 at an IDR picture, modulo a power of two.

    Not where the parameter set allows gaps. Two fields have one number, and come one after the other. A picture that
    clears all references (memory_management_control_operation 5) has number 0 from then on.

    Where a group ends with the number 0 the next one goes on with 1, whether its IDR picture is there or not. It is
    missing if it was due, as it was twice before, and a picture's time has passed where none came.
    """

    def __init__(self) -> None:
        self._rhythm = _Rhythm()
        self._sequences = _Sets(_read_sequence)
        self._pictures = _Sets(_read_picture)
        self._reference: _Slice | None = None  # the last one
        self._half: _Slice | None = None  # the same, if it is a field whose other one comes next

    def resume(self) -> None:
        self._reference = self._half = None
        self._rhythm = _Rhythm()

    def breach(self, data: bytes, stream_s: float, *, is_key: bool) -> Rule | None:
        before = self._reference
        try:
            current = self._first_slice(data)
            fields = self._fields(data) if current.field else set()
        except ValueError:  # what cannot be read proves nothing
            self._reference = self._half = None
            return None
        half, is_paired = self._half, _are_pair(self._half, current)
        self._half = current if len(fields) == 1 and current.is_reference and not is_paired else None
        is_skipped = self._rhythm.skips(stream_s, is_begin=current.is_idr)
        if current.is_reference:
            self._reference = current
        if half and not is_paired:
            return Rule.FRAME_NUM
        if before is None or current.is_idr or current.sequence != before.sequence or current.sequence.allows_gaps:
            return None
        if is_skipped and current.is_reference and current.frame_num == 1 and not current.field:
            return Rule.FRAME_NUM
        return None if _follows(before, current) else Rule.FRAME_NUM

    def _first_slice(self, data: bytes) -> _Slice:
        """On the way there the parameter sets are taken in. Raises ValueError if there is none."""
        for at in _units(data):
            kind = data[at] & 31
            if kind in (_SLICE, _IDR):
                return self._read(data[at : at + _HEADER_BYTES])
            if kind in (_SPS, _PPS):
                (self._sequences if kind == _SPS else self._pictures).take(_unit(data, at))
        raise ValueError("no slice")

    def _fields(self, data: bytes) -> set[str]:
        """Of all slices: both may come as one picture. Raises ValueError."""
        starts = (at for at in _units(data) if data[at] & 31 in (_SLICE, _IDR))
        return {self._read(data[at : at + _BEGIN_BYTES]).field for at in starts}

    def _read(self, head: bytes) -> _Slice:
        bits = _Header(head[1:_BEGIN_BYTES])
        bits.skip(2)  # first_mb_in_slice, slice_type
        picture = self._pictures.get(bits.golomb())
        sequence = self._sequences.get(picture.sequence_id)
        bits.take(2 * sequence.has_colour_planes)
        frame_num = bits.take(sequence.frame_num_bits)
        is_field = not sequence.is_progressive and bits.take(1) == 1
        field = ("upper", "lower")[bits.take(1)] if is_field else ""
        return _Slice(frame_num, head[0] & 31 == _IDR, head[0] & 0x60 != 0, field, head, sequence, picture)


def _are_pair(first: _Slice | None, second: _Slice) -> bool:
    """Fields of one frame."""
    return first is not None and {first.field, second.field} == _FIELDS and first.frame_num == second.frame_num


def _follows(before: _Slice, current: _Slice) -> bool:
    """`before`: the last reference picture. Where the header cannot be read nothing is missing."""
    step = (current.frame_num - before.frame_num) % (1 << current.sequence.frame_num_bits)
    if step == 1:
        return True
    if step == 0 and (current.field or before.field or not current.is_reference):
        return True
    try:
        return current.frame_num <= 1 and (before.field != "" or _clears(before))
    except ValueError:
        return True


def _clears(slice_: _Slice) -> bool:
    """Whether it has all references forgotten. Raises ValueError if its header is cut off."""
    if slice_.is_idr or not slice_.is_reference:
        return False
    sequence, picture = slice_.sequence, slice_.picture
    bits = _Header(slice_.head[1:])
    bits.golomb()  # first_mb_in_slice
    kind = bits.golomb() % 5
    bits.golomb()
    bits.take(2 * sequence.has_colour_planes + sequence.frame_num_bits)
    if not sequence.is_progressive and bits.take(1):
        bits.take(1)
    if sequence.order_type == 0:
        bits.take(sequence.order_bits)
    if (sequence.order_type == 0 or sequence.has_order_deltas) and not slice_.field:
        bits.skip(picture.has_bottom_order)
    if sequence.has_order_deltas:
        bits.golomb()
    bits.skip(picture.has_redundant)
    references = _skip_references(bits, kind, picture.references)
    if (picture.is_p_weighted and kind in (_P, _SP)) or (picture.is_b_weighted and kind == _B):
        _skip_weights(bits, sequence.has_chroma, references)
    if not bits.take(1):  # adaptive_ref_pic_marking_mode_flag
        return False
    while operation := bits.golomb():
        if operation == _RESET:
            return True
        bits.skip(2 if operation == 3 else 1)
    return False


def _skip_references(bits: _Header, kind: int, usual: tuple[int, int]) -> tuple[int, ...]:
    """Over the reference lists: how many pictures each of them has."""
    lists = {_P: 1, _SP: 1, _B: 2}.get(kind, 0)
    if kind == _B:
        bits.take(1)
    references = usual[:lists]
    if lists and bits.take(1):
        references = tuple(bits.golomb() + 1 for _ in range(lists))
    for _ in range(lists):
        if bits.take(1):
            while bits.golomb() != 3:
                bits.golomb()
    return references


def _skip_weights(bits: _Header, has_chroma: bool, references: tuple[int, ...]) -> None:
    bits.skip(1 + has_chroma)
    for count in references:
        for _ in range(min(count, 32)):
            if bits.take(1):
                bits.skip(2)
            if has_chroma and bits.take(1):
                bits.skip(4)


def _read_sequence(unit: bytes) -> tuple[int, _Sequence]:
    bits = _Header(unit[1:])
    profile = bits.take(8)
    bits.take(16)  # constraints, level
    id_ = bits.golomb()
    chroma, has_planes = 1, False
    if profile in WITH_CHROMA_FORMAT:
        chroma = bits.golomb()
        has_planes = chroma == 3 and bits.take(1) == 1
        bits.skip(2)  # bit depths
        bits.take(1)
        if bits.take(1):
            _skip_scaling(bits, 12 if chroma == 3 else 8)
    frame_num_bits = bits.golomb() + 4
    order_type, order_bits, has_deltas = bits.golomb(), 0, False
    if order_type == 0:
        order_bits = bits.golomb() + 4
    elif order_type == 1:
        has_deltas = bits.take(1) == 0
        bits.skip(2)
        bits.skip(bits.golomb())
    bits.golomb()  # reference frames
    allows_gaps = bits.take(1) == 1
    bits.skip(2)  # width, height
    sequence = _Sequence(
        has_colour_planes=has_planes,
        has_chroma=chroma != 0 and not has_planes,
        frame_num_bits=frame_num_bits,
        order_type=order_type,
        order_bits=order_bits,
        has_order_deltas=has_deltas,
        allows_gaps=allows_gaps,
        is_progressive=bits.take(1) == 1,
    )
    return id_, sequence


def _skip_scaling(bits: _Header, lists: int) -> None:
    for index in range(lists):
        if not bits.take(1):
            continue
        scale = 8
        for _ in range(16 if index < 6 else 64):
            code = bits.golomb()
            scale = (scale + (code // 2 + 1 if code % 2 else -(code // 2))) % 256
            if not scale:
                break


def _read_picture(unit: bytes) -> tuple[int, _Picture]:
    """Raises ValueError where macroblocks come in groups of slices, which no camera was seen to send."""
    bits = _Header(unit[1:])
    id_, sequence_id = bits.golomb(), bits.golomb()
    bits.take(1)
    has_bottom_order = bits.take(1) == 1
    if bits.golomb():
        raise ValueError("slice groups")
    references = bits.golomb() + 1, bits.golomb() + 1
    is_p_weighted, b_weighting = bits.take(1) == 1, bits.take(2)
    bits.skip(3)
    bits.take(2)
    has_redundant = bits.take(1) == 1
    return id_, _Picture(sequence_id, has_bottom_order, references, is_p_weighted, b_weighting == 1, has_redundant)


# --- H.265: ITU-T H.265 sections 7.3.2.2, 7.3.2.3.1, 7.3.6.1 ---

_HEVC_SLICES, _HEVC_KEYS = range(32), range(16, 24)
_HEVC_SPS, _HEVC_PPS = 33, 34
_ALL = -1

_Places = tuple[int, ...]


@dataclass(slots=True)
class _Usual:
    """Where the slices of so many pictures in a row began; of how many after them that lack some; and how often that
    was given up for other places. An encoder that cuts by bytes is believed less with each time."""

    places: _Places = ()
    pictures: int = 0
    odd: _Places = ()
    odd_pictures: int = 0
    changes: int = 0

    def lacks(self, places: _Places, alike: int) -> bool:
        """Whether a picture lacks slices that all those before it had."""
        if places == self.places:
            self.pictures += 1
            self.odd_pictures = 0
            return False
        if self.pictures >= alike << self.changes and set(places) < set(self.places):
            self.odd_pictures = self.odd_pictures + 1 if places == self.odd else 1
            self.odd = places
            if self.odd_pictures < CHANGED:
                return True
        self.changes = min(self.changes + bool(self.places), CHANGES_MAX)
        self.places, self.pictures, self.odd_pictures = places, 1, 0
        return False


class H265Slices:
    """The places of a picture's slices, which most encoders choose once: by rows, or one slice for each processor.

    libav takes what a missing slice would have covered from the picture that was in the same memory before, and says
    nothing. Where sizes in bytes divide a picture no two have the same places, and nothing is found.
    """

    def __init__(self) -> None:
        self._sizes = _Sets(_read_address_bits)
        self._pictures = _Sets(_read_dependency)
        self._usual: dict[int, _Usual] = {}
        self._is_resuming = False

    def resume(self) -> None:
        self._is_resuming = True

    def breach(self, data: bytes, stream_s: float, *, is_key: bool) -> Rule | None:
        is_resuming, self._is_resuming = self._is_resuming, False
        try:
            kind, places = self._places(data)
        except ValueError:
            return None
        if is_resuming or not places:
            return None
        everywhere, of_kind = (self._usual.setdefault(which, _Usual()) for which in (_ALL, kind))
        is_as_before = everywhere.places == places
        # Both are asked: each learns of the picture.
        lacks = everywhere.lacks(places, ALIKE_PICTURES)
        lacks_kind = of_kind.lacks(places, ALIKE_KEYS if is_key else ALIKE_PICTURES)
        return Rule.SLICES if lacks or (lacks_kind and not is_as_before) else None

    def _places(self, data: bytes) -> tuple[int, _Places]:
        """The type of its slices, and where each begins. Raises ValueError."""
        kind, places = _ALL, []
        for at in _units(data):
            type_ = data[at] >> 1 & 63
            if type_ in _HEVC_SLICES:
                kind = type_
                places.append(self._place(data[at : at + _BEGIN_BYTES]))
            elif type_ in (_HEVC_SPS, _HEVC_PPS):
                (self._sizes if type_ == _HEVC_SPS else self._pictures).take(_unit(data, at))
        return kind, tuple(places)

    def _place(self, head: bytes) -> int:
        """slice_segment_address."""
        bits = _Header(head[2:])
        is_first = bits.take(1) == 1
        bits.take(head[0] >> 1 & 63 in _HEVC_KEYS)
        picture_id = bits.golomb()
        if is_first:
            return 0
        sequence_id, has_dependent = self._pictures.get(picture_id)
        bits.take(has_dependent)
        return bits.take(self._sizes.get(sequence_id))


def _read_address_bits(unit: bytes) -> tuple[int, int]:
    """Of a sequence parameter set: how many bits tell where a slice begins."""
    bits = bits_of(unit, at=2)
    id_ = skip_to_h265_size(bits)
    width, height = bits.golomb(), bits.golomb()
    if bits.take(1):
        bits.skip(4)  # conformance window
    bits.skip(2)  # bit depths
    bits.golomb()
    layers = unit[2] >> 1 & 7
    bits.skip(3 * (layers + 1 if bits.take(1) else 1))
    block = bits.golomb() + 3
    block += bits.golomb()
    blocks = -(-width >> block) * -(-height >> block)
    return id_, (blocks - 1).bit_length()


def _read_dependency(unit: bytes) -> tuple[int, tuple[int, bool]]:
    """Of a picture parameter set: its sequence's id, and dependent_slice_segments_enabled_flag."""
    bits = _Header(unit[2:])
    id_, sequence_id = bits.golomb(), bits.golomb()
    return id_, (sequence_id, bits.take(1) == 1)
