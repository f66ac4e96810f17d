"""Decoded frames as pictures."""

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation

from .errors import Undecodable
from .sheet import FRAME_QUALITY, Picture, encode_jpeg
from .wire import MAX_PICTURE_BYTES

EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
BT601 = frozenset({2, 4, 5, 6})  # ISO/IEC 23091-2 numbers: unspecified, and three names of it


# For a picture that is too large at the usual quality: nothing but noise is, or more pixels than cameras have.
LOWER_QUALITIES = (75, 50, 25, 5)


def encode_frame(frame: VideoFrame, most_bytes: int = MAX_PICTURE_BYTES) -> bytes:
    """One decoded frame as JPEG, converted with the frame's own matrix and range (BT.601 where it names none).

    Raises Undecodable for one that does not fit.
    """
    picture = to_bgr(frame)
    for quality in (FRAME_QUALITY, *LOWER_QUALITIES):
        jpeg = encode_jpeg(picture, quality)
        if len(jpeg) <= most_bytes:
            return jpeg
    raise Undecodable("The camera's pictures are nothing but noise.")


def to_bgr(frame: VideoFrame) -> Picture:
    """(height, width, 3) uint8 BGR, by the frame's own matrix and range (BT.601 where it names none); right within a
    level in the mean. swscale's default is 1 to 1.5 levels too dark, and its exact way takes 11 ms for 1080p: what
    most cameras send OpenCV converts as exactly in 2 ms.
    """
    is_even = frame.width % 2 == frame.height % 2 == 0
    is_usual = frame.format.name == "yuv420p" and frame.color_range != ColorRange.JPEG
    if is_even and is_usual and int(frame.colorspace) in BT601:
        return np.asarray(cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2BGR_I420), np.uint8)
    return np.asarray(frame.reformat(format="bgr24", interpolation=EXACT, threads=1).to_ndarray(), np.uint8)
