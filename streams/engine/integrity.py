"""Whether pictures arrived as they were sent: what a decoder takes for a picture need not be one.

A byte that changed on the way leaves an entropy decoder at another place than the slice's end, and libav looks for
that only where it runs out of bytes: of the key frames with one damaged byte it lets 2 to 4 in a hundred pass without
a word (H.264, CABAC), and 70 of H.265. Few of them look wrong, but a leaderboard chooses those that are too bright.
So what would enter the leaderboard is decoded once more, in a way that shows where each slice ended. No pixel is
judged: a light that is switched on is no damage. Figures, and what cannot be told at all: docs/engine.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import av
import numpy as np
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from .decoder import MAX_PIXELS_OPTION, is_out_of_memory, padded
from .errors import OutOfMemory
from .sizes import Bits, bits_of, skip_to_h264_size

# Of H.264, from the key frame on: 1.8 s of 1080p, during which nobody reads the camera. Smart codecs let 1200 come.
MAX_PICTURES = 300

_START = re.compile(b"\0\0\1")
_IDR, _SPS, _PPS = 5, 7, 8
# ITU-T H.265 table 7-1
_HEVC_SLICES, _HEVC_KEYS, _HEVC_SPS = range(32), range(16, 24), 33
_OUTPUT_CORRUPT = 8  # AV_CODEC_FLAG_OUTPUT_CORRUPT
# Of the end of a slice, inverted. The second for slices whose last 8 bytes only move flat grey about.
_TAILS_BYTES = (8, 16)
_AFTER = bytes(range(0x55, 0x95))


def are_whole(codec: str, pictures: Sequence[bytes]) -> bool:
    """Pictures in Annex B from a key frame to the one in question, in order of decoding; `codec` is libav's name.

    False: one of them is damaged. True: no sign of it, or these cannot be examined: H.264 that does not begin with
    an IDR picture, is interlaced, has scaling matrices or is more than MAX_PICTURES; H.265 but for a key frame alone
    (70 ms for each picture of 1080p); other codecs. 1080p: 6 ms for each picture of H.264, 125 ms for a key frame of
    H.265.
    """
    if codec == "h264":
        return len(pictures) > MAX_PICTURES or _are_whole_h264([_units(picture) for picture in pictures])
    if codec == "hevc" and len(pictures) == 1:
        return _is_whole_hevc([b"\0\0\1" + unit for unit in _units(pictures[0])])
    return True


def _units(picture: bytes) -> list[bytes]:
    """The NAL units."""
    return [part for part in (part.rstrip(b"\0") for part in _START.split(picture)[1:]) if part]


# --- H.264: the same pictures again, one row of macroblocks taller. libav's `skip_bottom` takes that row for granted,
# so the last slice of a whole picture ends just above it; of a damaged one too early (is_corrupt) or within it.


def _are_whole_h264(pictures: list[list[bytes]]) -> bool:
    pictures = [_without_strange_sets(units) for units in pictures]
    sets = {unit for units in pictures for unit in units if unit[0] & 31 == _SPS}
    if len(sets) != 1 or not any(unit[0] & 31 == _IDR for unit in pictures[0]):
        return True
    try:
        tall = _taller(*sets)
    except ValueError:
        return True
    # Parsing is what matters: without filter and transform it takes a fifth less.
    context = _context("h264", skip_bottom="1", err_detect="aggressive", skip_loop_filter="all", skip_idct="all")
    try:
        return sum(_whole_frames(context, pictures, tall)) == len(pictures)
    except FFmpegError as error:
        _check_memory(error)
        return False


def _without_strange_sets(units: list[bytes]) -> list[bytes]:
    """Without sequence parameter sets that the picture does not refer to: one whose id was damaged on its way stays
    known, and is put before each key frame from then on."""
    try:
        pps_id = next(_ids(unit, 1)[2] for unit in units if unit[0] & 31 in (1, _IDR))
        sps_id = next(_ids(unit, 1)[1] for unit in units if unit[0] & 31 == _PPS and _ids(unit, 1)[0] == pps_id)
        return [unit for unit in units if unit[0] & 31 != _SPS or _ids(unit, 4)[0] == sps_id]
    except (StopIteration, ValueError):
        return units


def _ids(unit: bytes, at_byte: int) -> list[int]:
    """The first three Exp-Golomb codes of a unit from this byte on; fewer if it ends before."""
    bits = Bits("".join(f"{byte:08b}" for byte in unit[at_byte : at_byte + 16]))
    codes: list[int] = []
    while len(codes) < 3 and "1" in bits.text[bits.at :]:
        codes.append(bits.golomb())
    return codes + [-1] * (3 - len(codes))


def _whole_frames(context: VideoCodecContext, pictures: list[list[bytes]], tall: bytes) -> Iterator[bool]:
    packets = [
        padded(b"".join(b"\0\0\1" + (tall if unit[0] & 31 == _SPS else unit) for unit in units)) for units in pictures
    ]
    for packet in [*packets, None]:
        for frame in context.decode(packet):
            yield not frame.is_corrupt and _is_untouched(frame)


def _is_untouched(frame: VideoFrame) -> bool:
    """The added row's chroma is what a fresh buffer holds: zeros, which no picture has (grey is 128)."""
    return len(frame.planes) < 3 or not _samples(frame, 2)[-3:].any()


def _taller(sps: bytes) -> bytes:
    """The sequence parameter set with one row of macroblocks more (ITU-T H.264 section 7.3.2.1.1).

    Raises ValueError for interlaced video and scaling matrices, which hardly any camera sends, and for a cut unit.
    """
    bits = bits_of(sps, at=1)
    skip_to_h264_size(bits)
    bits.golomb()  # width
    begin = bits.at
    height = bits.golomb() + 2  # it is coded minus one
    end = bits.at
    if not bits.take(1):
        raise ValueError("interlaced")
    code = f"{height:b}"
    text = bits.text[:begin] + "0" * (len(code) - 1) + code + bits.text[end:].rstrip("0")
    text += "0" * (-len(text) % 8)
    return re.sub(b"\0\0(?=[\0-\3])", b"\0\0\3", int(text, 2).to_bytes(len(text) // 8, "big"))


# --- H.265: bytes after the end of a slice must not matter, and the last ones of it must. In fresh decoders, whose
# buffers hold zeros where nothing was decoded.


def _is_whole_hevc(units: list[bytes]) -> bool:
    slices = [at for at, unit in enumerate(units) if _kind(unit) in _HEVC_SLICES]
    if not all(_kind(units[at]) in _HEVC_KEYS for at in slices) or not any(_kind(u) == _HEVC_SPS for u in units):
        return True
    plain = _pixels(units)
    if not plain or plain != _pixels([unit + _AFTER * (at in slices) for at, unit in enumerate(units)]):
        return False
    return all(any(_matters(units, at, tail, plain) for tail in _TAILS_BYTES) for at in slices)


def _kind(unit: bytes) -> int:
    return unit[3] >> 1 & 63


def _matters(units: list[bytes], at: int, tail_bytes: int, plain: bytes) -> bool:
    unit = units[at]
    cut = max(len(unit) - tail_bytes, 12)  # the slice's header is left alone
    inverted = bytes((byte ^ 255) or 1 for byte in unit[cut:])
    return plain != _pixels([*units[:at], unit[:cut] + inverted, *units[at + 1 :]])


def _pixels(units: Iterable[bytes]) -> bytes:
    """All samples of the picture; nothing if it has holes."""
    context = _context("hevc")
    context.flags |= _OUTPUT_CORRUPT
    try:
        frames = [*context.decode(padded(b"".join(units))), *context.decode(None)]
    except FFmpegError as error:
        _check_memory(error)
        return b""
    if any(_has_hole(frame) for frame in frames):
        return b""
    return b"".join(bytes(plane) for frame in frames for plane in frame.planes)


def _has_hole(frame: VideoFrame) -> bool:
    """Y, Cb and Cr all zero: nothing was decoded there. Looks at one point of every 8 x 8 block (4:2:0)."""
    if len(frame.planes) < 3:
        return False
    luma, *chroma = (_samples(frame, index) for index in range(3))
    points = [luma[::8, ::8], *(plane[::4, ::4] for plane in chroma)]
    if len({point.shape for point in points}) > 1:
        return False
    return bool(np.any(~np.bitwise_or.reduce([point.astype(bool) for point in points])))


# --- both


def _context(codec: str, **options: str) -> VideoCodecContext:
    context = cast(VideoCodecContext, av.CodecContext.create(codec, "r"))
    context.thread_type = "NONE"
    context.thread_count = 1
    context.options = MAX_PIXELS_OPTION | options
    return context


def _check_memory(error: FFmpegError) -> None:
    """A picture for which there was no room is not damaged. Raises OutOfMemory."""
    if is_out_of_memory(error):
        raise OutOfMemory from None


def _samples(frame: VideoFrame, index: int) -> NDArray[np.uint8]:
    """A plane without what lies between its rows, in bytes."""
    plane = frame.planes[index]
    width_bytes = plane.width * (1 if frame.format.components[index].bits == 8 else 2)
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, :width_bytes]
