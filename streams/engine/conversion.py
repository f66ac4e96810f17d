"""Decoded frames as pictures."""

import cv2
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from .errors import Undecodable
from .sheet import FRAME_QUALITY, Picture, encode_jpeg
from .wire import MAX_PICTURE_BYTES

EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# Numbers of ISO/IEC 23091-2. Unspecified, and three names of it:
BT601 = frozenset({2, 4, 5, 6})
# What swscale takes; cameras that fill in anything are known, and one with 3 is as good as one without.
CONVERTIBLE = BT601 | {0, Colorspace.ITU709, Colorspace.SMPTE240M, Colorspace.BT2020}
BT2020_CONSTANT = 10

# For a picture that is too large at the usual quality: nothing but noise is, or more pixels than cameras have.
LOWER_QUALITIES = (75, 50, 25, 5)


def encode_frame(frame: VideoFrame, most_bytes: int = MAX_PICTURE_BYTES) -> bytes:
    """One decoded frame as JPEG. Raises Undecodable for one that does not fit, and as to_bgr()."""
    picture = to_bgr(frame)
    for quality in (FRAME_QUALITY, *LOWER_QUALITIES):
        jpeg = encode_jpeg(picture, quality)
        if len(jpeg) <= most_bytes:
            return jpeg
    raise Undecodable("The camera's pictures are nothing but noise.")


def to_bgr(frame: VideoFrame) -> Picture:
    """(height, width, 3) uint8 BGR, by the frame's own matrix and range (BT.601 where it names none that is known);
    right within a level in the mean. Raises Undecodable for a kind of picture that is not known.

    swscale's default is 1 to 1.5 levels too dark, and its exact way takes 11 ms for 1080p: what most cameras send
    OpenCV converts as exactly in 2 ms.
    """
    is_even = frame.width % 2 == frame.height % 2 == 0
    is_usual = frame.format.name == "yuv420p" and frame.color_range != ColorRange.JPEG
    matrix = _matrix(frame)
    if is_even and is_usual and matrix in BT601:
        return np.asarray(cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2BGR_I420), np.uint8)
    named = None if matrix == frame.colorspace else matrix
    try:
        made = frame.reformat(format="bgr24", src_colorspace=named, interpolation=EXACT, threads=1)
    except FFmpegError as error:
        raise Undecodable(f"Its pictures ({frame.format.name}) cannot be converted: {error.strerror}.") from None
    return np.asarray(made.to_ndarray(), np.uint8)


def _matrix(frame: VideoFrame) -> int:
    """The frame's own, or what is nearest to one by which nobody can convert."""
    number = int(frame.colorspace)
    if number in CONVERTIBLE:
        return number
    return Colorspace.BT2020 if number == BT2020_CONSTANT else Colorspace.ITU601
