"""Decoded frames as pictures."""

import threading
from collections.abc import Iterator

import cv2
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc, Interpolation, VideoReformatter
from numpy.typing import NDArray

from . import heap
from .decoder import is_out_of_memory
from .errors import OutOfMemory, Undecodable
from .sheet import FRAME_QUALITY, Picture, encode_jpeg
from .wire import MAX_PICTURE_BYTES

# Numbers of ISO/IEC 23091-2. Unspecified, and three names of it:
BT601 = frozenset({2, 4, 5, 6})
# What swscale takes; cameras that fill in anything are known, and one with 3 is as good as one without.
CONVERTIBLE = BT601 | {0, Colorspace.ITU709, Colorspace.SMPTE240M, Colorspace.BT2020}
BT2020_CONSTANT = 10

# What swscale maps to a screen's colours (BT.709), and OpenCV with it; what else is named stays as it is (measured).
# Numbers of ISO/IEC 23091-2: film, BT.2020, XYZ, P3 and EBU; PQ and HLG.
WIDE_PRIMARIES = frozenset({8, 9, 10, 11, 12, 22})
HDR_TRANSFERS = frozenset({16, 18})
# swscale refuses to map from logarithmic ones.
LOGARITHMIC_TRANSFERS = frozenset({9, 10})

# swscale converts a row of these from that row and its chroma alone, so that bands have the pixels of the picture.
# The chroma of deeper ones it interpolates from row to row.
BANDED = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray"})
# In pictures of other widths (322) the pixels of BGRA are not those of BGR.
BAND_WIDTHS = 16
# A band of 1080p has 64 rows of BGRA. libav makes room for a multiple of 32 rows.
BAND_BYTES = 512 * 1024
BAND_ROWS = 32

# For a picture that is too large at the usual quality: nothing but noise is, or more pixels than cameras have.
LOWER_QUALITIES = (75, 50, 25, 5)

_of_thread = threading.local()


def encode_frame(frame: VideoFrame, most_bytes: int = MAX_PICTURE_BYTES) -> bytes:
    """One decoded frame as JPEG. Raises Undecodable for one that does not fit, and as to_bgr()."""
    picture = to_bgr(frame)
    for quality in (FRAME_QUALITY, *LOWER_QUALITIES):
        jpeg = encode_jpeg(picture, quality)
        if len(jpeg) <= most_bytes:
            return jpeg
    raise Undecodable("The camera's pictures are nothing but noise.")


def to_bgr(frame: VideoFrame) -> Picture:
    """(height, width, 3) uint8 BGR: each pixel as `cv2.VideoCapture` gives it for the same frame, by the frame's own
    matrix and range (BT.601 where it names no matrix that is known). Raises Undecodable for a kind of picture that is
    not known.

    OpenCV converts by swscale with these flags (measured: no pixel differs). They are quick, and 0.5 to 1.5 levels
    darker than the exact way, which takes seven times as long.
    """
    if _is_mapped(frame):
        return _converted(frame, "bgr24", _mapper(), *_targets(frame))
    return _converted(frame, "bgr24", VideoReformatter())


def to_grey(frame: VideoFrame) -> Iterator[Picture]:
    """The grey picture that `cv2.cvtColor` makes of `to_bgr`, from top to bottom in bands of (rows, width) uint8.

    Raises Undecodable as `to_bgr`. Bands are BGRA, which OpenCV reads faster than BGR.
    """
    if not _has_bands(frame):
        yield np.asarray(cv2.cvtColor(to_bgr(frame), cv2.COLOR_BGR2GRAY), np.uint8)
        return
    reformatter = VideoReformatter()
    with heap.reused():
        for band in _bands(frame):
            yield np.asarray(cv2.cvtColor(_converted(band, "bgra", reformatter), cv2.COLOR_BGRA2GRAY), np.uint8)


def _converted(
    frame: VideoFrame,
    pix_fmt: str,
    reformatter: VideoReformatter,
    primaries: int | None = None,
    transfer: int | None = None,
) -> Picture:
    matrix = _matrix(frame)
    named = None if matrix == frame.colorspace else matrix
    try:
        made = reformatter.reformat(
            frame,
            format=pix_fmt,
            src_colorspace=named,
            dst_color_primaries=primaries,
            dst_color_trc=transfer,
            interpolation=Interpolation.BICUBIC,
            threads=1,
        )
    except FFmpegError as error:
        if is_out_of_memory(error):
            raise OutOfMemory from None
        raise Undecodable(f"Its pictures ({frame.format.name}) cannot be converted: {error.strerror}.") from None
    return np.asarray(made.to_ndarray(), np.uint8)


def _is_mapped(frame: VideoFrame) -> bool:
    """Whether a screen cannot show the frame's colours without being mapped to its own."""
    return frame.color_primaries in WIDE_PRIMARIES or frame.color_trc in HDR_TRANSFERS


def _targets(frame: VideoFrame) -> tuple[int, int]:
    """The primaries and the transfer function of the picture that a frame is mapped to."""
    primaries, transfer = frame.color_primaries, frame.color_trc
    if transfer in LOGARITHMIC_TRANSFERS:
        transfer = ColorTrc.UNSPECIFIED
    return (
        ColorPrimaries.BT709 if primaries in WIDE_PRIMARIES else primaries,
        ColorTrc.BT709 if transfer in HDR_TRANSFERS else transfer,
    )


def _mapper() -> VideoReformatter:
    """One for all frames of a thread: to make the table of colours takes a second."""
    if not hasattr(_of_thread, "mapper"):
        _of_thread.mapper = VideoReformatter()
    mapper: VideoReformatter = _of_thread.mapper
    return mapper


def _has_bands(frame: VideoFrame) -> bool:
    is_whole = frame.width % BAND_WIDTHS == frame.height % 2 == 0
    return is_whole and frame.format.name in BANDED and not _is_mapped(frame)


def _bands(frame: VideoFrame) -> Iterator[VideoFrame]:
    """Views of the frame, one below the other."""
    planes = [plane(frame, index) for index in range(len(frame.planes))]
    rows = max(1, BAND_BYTES // (4 * frame.width * BAND_ROWS)) * BAND_ROWS
    for top in range(0, frame.height, rows):
        bottom = min(top + rows, frame.height)
        band = VideoFrame.from_dlpack(
            [one[top * len(one) // frame.height : bottom * len(one) // frame.height] for one in planes],
            format=frame.format.name,
        )
        band.colorspace, band.color_range = frame.colorspace, frame.color_range
        yield band


def plane(frame: VideoFrame, index: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """One plane of samples as a (height, width) view: uint8, or uint16 for deeper video in the low bits."""
    one = frame.planes[index]
    rows = np.frombuffer(memoryview(one), np.uint8).reshape(-1, one.line_size)
    words = rows if frame.format.components[index].bits == 8 else rows.view(np.uint16)
    return words[: one.height, : one.width]


def _matrix(frame: VideoFrame) -> int:
    """The frame's own, or what is nearest to one by which nobody can convert."""
    number = int(frame.colorspace)
    if number in CONVERTIBLE:
        return number
    return Colorspace.BT2020 if number == BT2020_CONSTANT else Colorspace.ITU601
