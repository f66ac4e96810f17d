"""What makes one sample better than another. Brightness is the metric of this service."""

import zlib

import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from .conversion import plane, to_bgr, to_grey

FINGERPRINT_ROWS = 8


def brightness(frame: VideoFrame) -> float:
    """Mean of the frame's grey picture, 0.0 (black) to 255.0 (white).

    It equals what OpenCV gives for the same frame: `cv2.VideoCapture`, `cv2.cvtColor` to grey, mean. So colours are
    clipped to what a screen can show, pixel by pixel, before they are added up. 1080p takes 1.5 ms and 0.6 MB.
    """
    return sum(cv2.sumElems(band)[0] for band in to_grey(frame)) / (frame.width * frame.height)


def fingerprint(frame: VideoFrame) -> int:
    """The same for copies of one picture and, by the noise of any sensor, another one for all others.

    Of every eighth row: 0.2 ms for 1080p.
    """
    luma = luma_plane(frame)
    rows = to_bgr(frame) if luma is None else luma
    return zlib.crc32(np.ascontiguousarray(rows[::FINGERPRINT_ROWS]).data)


def luma_plane(frame: VideoFrame) -> NDArray[np.uint8] | NDArray[np.uint16] | None:
    """The Y plane as a (height, width) view: uint8, or uint16 for deeper video in the low bits; None without one."""
    name = frame.format.name
    if not name.startswith(("yuv", "nv12", "nv16", "gray")) or name.endswith(("be", "yuyv422", "uyvy422")):
        return None
    return plane(frame, 0)
