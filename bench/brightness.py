"""What it costs to score a 1080p sample, beside the plain way to the same number: `python -m bench.brightness`.

Milliseconds of processor time, the median of many: what else runs on the machine counts little. In a recorder memory
comes from the system for each picture and goes back to it; elsewhere glibc keeps it.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

from streams.engine import heap
from streams.engine.scoring import brightness, fingerprint

WIDTH_PX, HEIGHT_PX = 1920, 1080
TIMES = 41
MOST_MS = 1.5
PIX_FMTS = ("yuv420p", "yuvj420p", "yuv422p", "gray", "nv12", "yuv420p10le", "yuv422p10le", "yuv444p")


def picture(pix_fmt: str) -> VideoFrame:
    """Coloured slopes with grain."""
    y, x = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX]
    grain = np.random.default_rng(1).normal(0, 4, (HEIGHT_PX, WIDTH_PX, 3))
    slopes = np.stack([x / 8, y / 5, 255 - x / 16 - y / 10], axis=-1)
    made = VideoFrame.from_ndarray(np.clip(slopes + grain, 0, 255).astype(np.uint8), format="rgb24")
    frame = made.reformat(format=pix_fmt, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
    frame.colorspace = Colorspace.ITU709
    return frame


def plainly(frame: VideoFrame) -> float:
    """As one would write it: all of the picture as OpenCV has it, its grey, the mean."""
    whole = frame.reformat(format="bgr24", interpolation=Interpolation.BICUBIC, threads=1).to_ndarray()
    return float(cv2.mean(cv2.cvtColor(whole, cv2.COLOR_BGR2GRAY))[0])


def cost_ms(measure: Callable[[VideoFrame], float], frame: VideoFrame, times: int = TIMES) -> float:
    measure(frame)
    spent_s = []
    for _ in range(times):
        began_s = time.thread_time()
        measure(frame)
        spent_s.append(time.thread_time() - began_s)
    return statistics.median(spent_s) * 1000


def main() -> None:
    print(f"{WIDTH_PX}x{HEIGHT_PX}, ms of one core for each picture; asked for: at most {MOST_MS}", flush=True)
    for keeps_memory in (True, False):
        other = multiprocessing.get_context("spawn").Process(target=print_table, args=(keeps_memory,))
        other.start()
        other.join()


def print_table(keeps_memory: bool) -> None:
    """In a process of its own: what glibc has kept once it goes on using."""
    if not keeps_memory:
        heap.give_back()
    cv2.setNumThreads(1)
    av.logging.set_level(None)
    name = "memory kept" if keeps_memory else "in a recorder"
    print(f"\n{name:14}{'brightness':>12}{'plain way':>12}{'ratio':>8}{'fingerprint':>14}{'differs by':>12}")
    for pix_fmt in PIX_FMTS:
        frame = picture(pix_fmt)
        own_ms, plain_ms = cost_ms(brightness, frame), cost_ms(plainly, frame)
        differs = abs(brightness(frame) - plainly(frame))
        print(
            f"{pix_fmt:14}{own_ms:12.2f}{plain_ms:12.2f}{own_ms / plain_ms:7.2f}x"
            f"{cost_ms(fingerprint, frame):14.2f}{differs:12.3f}",
            flush=True,
        )
    frame = picture("yuv420p10le")
    frame.color_primaries, frame.color_trc = ColorPrimaries.BT2020, ColorTrc.SMPTE2084
    print(f"{'10 bits, PQ':14}{cost_ms(brightness, frame, 5):12.2f}", flush=True)


if __name__ == "__main__":
    main()
