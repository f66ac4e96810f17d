"""How large a picture is by its own headers, before anything is made of it. Pure.

A decoder makes room for a picture before it has seen one: 16384 x 16384 in a parameter set of 20 bytes are 400 MB,
and 17 times that with all that H.264 may keep to copy from.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

# 8K (8192 x 4320) and the panoramas of four sensors (8160 x 3616); libav takes up to two thousand million.
MAX_PIXELS = 36_000_000

# ITU-T H.264 section 7.3.2.1.1: the profiles whose parameter sets name a chroma format.
WITH_CHROMA_FORMAT = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
_SET_BYTES = 512  # what of a parameter set is looked at: the size stands in its first hundred
_H264_SPS = re.compile(rb"\x00\x00\x01[\x07\x27\x47\x67]")
_H265_SPS = re.compile(rb"\x00\x00\x01[\x42\x43]")
_MPEG2_SEQUENCE = re.compile(rb"\x00\x00\x01\xb3")  # ISO/IEC 13818-2 section 6.2.2.1
_MPEG4_LAYER = re.compile(rb"\x00\x00\x01[\x20-\x2f]")
_SOI = b"\xff\xd8"
_SOFS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # ITU-T T.81 table B.1
_SOF_BASELINE, _SOS = 0xC0, 0xDA

Size = tuple[int, int]
"""Width and height."""


@dataclass(slots=True)
class Bits:
    """A reader of a parameter set. ITU-T H.264 section 9.1 for the Exp-Golomb codes."""

    text: str
    at: int = 0

    def take(self, count: int) -> int:
        self.at += count
        return int(self.text[self.at - count : self.at] or "0", 2)

    def golomb(self) -> int:
        """Raises ValueError where there is none."""
        zeros = self.text.index("1", self.at) - self.at
        self.at += zeros
        return self.take(zeros + 1) - 1

    def skip(self, codes: int) -> None:
        for _ in range(codes):
            self.golomb()


def bits_of(data: bytes, at: int = 0) -> Bits:
    """Of a NAL unit, from a byte of it on, without the bytes that keep start codes out."""
    return Bits("".join(f"{byte:08b}" for byte in data.replace(b"\0\0\3", b"\0\0")), at * 8)


def is_too_large(size: Size) -> bool:
    return size[0] * size[1] > MAX_PIXELS


def largest(codec: str, data: bytes) -> Size:
    """Of all the sizes that a coded picture's headers name, `codec` by libav's name; (0, 0) where none is read."""
    return max(_SIZES[codec](data), key=lambda size: size[0] * size[1], default=(0, 0))


def jpeg_size(data: bytes) -> Size | None:
    """Of a baseline JPEG file, which every encoder here makes; None for any other, and for what is none."""
    kinds = list(_jpeg_frames(data))
    return kinds[0][1] if [kind for kind, _ in kinds] == [_SOF_BASELINE] else None


def skip_to_h264_size(bits: Bits) -> None:
    """From behind the header of a sequence parameter set to its width. Raises ValueError for scaling matrices, which
    hardly any camera sends, and for a set that ends before."""
    profile = bits.take(8)
    bits.take(16)  # constraints, level
    bits.golomb()  # id
    if profile in WITH_CHROMA_FORMAT:
        if bits.golomb() == 3:
            bits.take(1)
        bits.skip(2)  # bit depths
        bits.take(1)
        if bits.take(1):
            raise ValueError("scaling matrices")
    bits.golomb()  # frame numbers
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.skip(2)
        bits.skip(bits.golomb())
    bits.golomb()  # reference frames
    bits.take(1)


def _h264_size(unit: bytes) -> Size:
    """In whole macroblocks; of fields, where the set says so."""
    bits = bits_of(unit, at=1)
    skip_to_h264_size(bits)
    width, height = (bits.golomb() + 1) * 16, (bits.golomb() + 1) * 16
    return width, height * (1 if bits.take(1) else 2)


def skip_to_h265_size(bits: Bits) -> int:
    """From behind the header of a sequence parameter set to its width (ITU-T H.265 section 7.3.2.2.1); its id."""
    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 96)  # general profile, tier and level
    present = [(bits.take(1), bits.take(1)) for _ in range(8 if layers else 0)][:layers]
    for has_profile, has_level in present:
        bits.take(88 * has_profile + 8 * has_level)
    id_ = bits.golomb()
    if bits.golomb() == 3:
        bits.take(1)
    return id_


def _h265_size(unit: bytes) -> Size:
    bits = bits_of(unit, at=2)
    skip_to_h265_size(bits)
    return bits.golomb(), bits.golomb()


def _mpeg4_size(unit: bytes) -> Size:
    """ISO/IEC 14496-2 section 6.2.3, of a rectangular layer. Nothing in it is escaped."""
    bits = Bits("".join(f"{byte:08b}" for byte in unit), at=8)
    bits.take(1 + 8)  # random access, type
    version = 1
    if bits.take(1):
        version = bits.take(4)
        bits.take(3)
    if bits.take(4) == 15:  # an aspect ratio of its own
        bits.take(16)
    if bits.take(1):
        _skip_control(bits)
    shape = bits.take(2)
    if shape == 3 and version != 1:
        bits.take(4)
    bits.take(1)
    ticks = bits.take(16)
    bits.take(1)
    if bits.take(1):
        bits.take(max(1, (ticks - 1).bit_length()))
    if shape:
        raise ValueError("no rectangle")
    bits.take(1)
    width = bits.take(13)
    bits.take(1)
    return width, bits.take(13)


def _skip_control(bits: Bits) -> None:
    """Chroma format, delay, and the buffer's measures."""
    bits.take(2 + 1)
    if bits.take(1):
        bits.take(15 + 1 + 15 + 1 + 15 + 1 + 3 + 11 + 1 + 15 + 1)


def _jpeg_frames(data: bytes) -> Iterator[tuple[int, Size]]:
    """The frame headers before the first scan, by their markers."""
    at = 2 if data.startswith(_SOI) else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF:
            at += 1
            continue
        if kind == _SOS:
            return
        if kind in _SOFS:
            yield kind, (int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7]))
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4]))


def _found(start: re.Pattern[bytes], read: Callable[[bytes], Size]) -> Callable[[bytes], Iterator[Size]]:
    """The sizes in all the units that begin so; a unit that cannot be read has none."""

    def sizes(data: bytes) -> Iterator[Size]:
        for match in start.finditer(data):
            yield from _read(read, data[match.start() + 3 : match.start() + 3 + _SET_BYTES])

    return sizes


def _read(read: Callable[[bytes], Size], data: bytes) -> Iterator[Size]:
    """None where it cannot be read."""
    with suppress(ValueError, IndexError):
        yield read(data)


def _vp8_frames(data: bytes) -> Iterator[Size]:
    """Of a key frame: RFC 6386 section 9.1."""
    if len(data) >= 10 and not data[0] & 0x01 and data[3:6] == b"\x9d\x01\x2a":
        yield int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF


def _vp9_size(frame: bytes) -> Size:
    """Of a key frame: VP9 bitstream specification, sections 6.2 and 7.2. Raises ValueError for any other."""
    bits = Bits("".join(f"{byte:08b}" for byte in frame[:16]))
    marker, low, high = bits.take(2), bits.take(1), bits.take(1)
    profile = 2 * high + low
    if marker != 2 or bits.take(3 if profile == 3 else 2) or (bits.take(2), bits.take(24))[1] != 0x498342:
        raise ValueError("no key frame")
    bits.take(1 if profile >= 2 else 0)  # bit depth
    if bits.take(3) != 7:  # not sRGB
        bits.take(4 if profile % 2 else 1)  # range, subsampling
    else:
        bits.take(profile % 2)
    return bits.take(16) + 1, bits.take(16) + 1


_SIZES: dict[str, Callable[[bytes], Iterator[Size]]] = {
    "h264": _found(_H264_SPS, _h264_size),
    "hevc": _found(_H265_SPS, _h265_size),
    "mpeg4": _found(_MPEG4_LAYER, _mpeg4_size),
    "mjpeg": lambda data: (size for _, size in _jpeg_frames(data)),
    "vp8": _vp8_frames,
    "vp9": lambda data: _read(_vp9_size, data),
    "mpeg2video": _found(_MPEG2_SEQUENCE, lambda unit: (unit[1] << 4 | unit[2] >> 4, (unit[2] & 15) << 8 | unit[3])),
    "h263": lambda data: iter(()),  # 2048 x 1152 at most: H.263 section 5.1.5
}
