"""Real footage, served by GStreamer: the nine samples are those of an independent check that decodes every frame.

The check is OpenCV alone: it reads the file, takes the frames that fall due, and ranks them by its own grey mean.
Between neighbours of the ranking lie 0.02 levels and more with these intervals (measured on both sides). With
others there are ties: swscale, which OpenCV converts by, rounds the pictures of one scene differently by 0.03 levels.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from streams.engine.report import Picture, Report, State, Status
from streams.engine.sheet import decode_jpeg
from tests.camera.gst import GstServer
from tests.footage import films

from .capturing import capturing

Image = npt.NDArray[np.uint8]

PLACES = 9
END_FRAMES = 3
TOLERANCE_S = 0.001  # of timestamps, which RTP rounds to 1/90000 s and OpenCV to floating milliseconds
# JPEG of quality 92 and OpenCV's quick conversion leave 39.4 dB and more of these pictures; the frame before and the
# one after are at least 2.2 dB less like them (measured).
PSNR_DB = 38.0


@dataclass(frozen=True, slots=True)
class Take:
    """One capture. `by_key`: key frames come at least as often as samples are due, so only they are samples."""

    film: str
    interval_s: float
    by_key: bool = False

    def __str__(self) -> str:
        return f"{self.film} every {self.interval_s:g} s"


TAKES = [
    Take("bikes", 0.5),
    Take("bikes", 0.6),
    Take("bigbuckbunny", 0.3),
    Take("vtest", 0.5),
    Take("vtest", 1.4, by_key=True),
]


@dataclass
class Checked:
    """What OpenCV sees: `at_s` and `grey` of each frame, and the pictures themselves as far as they are needed."""

    path: Path
    at_s: list[float] = field(default_factory=list)
    grey: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        for image, at_s in self.frames():
            self.at_s.append(at_s)
            self.grey.append(float(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean()))

    def frames(self) -> Iterator[tuple[Image, float]]:
        film = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        while (read := film.read())[0]:
            yield np.asarray(read[1], np.uint8), film.get(cv2.CAP_PROP_POS_MSEC) / 1000
        film.release()

    def images(self, indexes: set[int]) -> dict[int, Image]:
        """All are decoded, and only these converted."""
        film, found = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG), {}
        for index in range(max(indexes) + 1):
            if film.grab() and index in indexes:
                found[index] = np.asarray(film.retrieve()[1], np.uint8)
        film.release()
        return found

    def due(self, interval_s: float, allowed: set[int]) -> list[int]:
        """For each due time, as long as there is one, the first of the allowed frames at or after it."""
        samples: list[int] = []
        for index in sorted(allowed):
            if self.at_s[index] - self.at_s[0] >= len(samples) * interval_s - TOLERANCE_S:
                samples.append(index)
        return samples


def key_frames(path: Path) -> set[int]:
    """Indexes in order of presentation. OpenCV does not tell."""
    with av.open(path) as container:
        shown = sorted(
            (packet.pts, packet.is_keyframe) for packet in container.demux(video=0) if packet.pts is not None
        )
    return {index for index, (_, is_key) in enumerate(shown) if is_key}


def captured(url: str, interval_s: float) -> Report:
    """Until the film is over: the connection after that would see it again."""
    with capturing(url, interval_s=interval_s, count=PLACES, ends=is_over) as capture:
        return capture.until(lambda report: is_over(report.status))


def is_over(status: Status) -> bool:
    return status.state is State.RECONNECTING


def expected(take: Take, check: Checked) -> list[int]:
    allowed = key_frames(check.path) if take.by_key else set(range(len(check.at_s)))
    samples = check.due(take.interval_s, allowed)
    assert len(samples) > PLACES + 3, "the film is too short for this interval"
    assert samples[-1] < len(check.at_s) - END_FRAMES, "whether the last frames still come is the server's choice"
    return samples


@pytest.mark.timeout(900)  # it may have to fetch the footage, 100 MB
def test_the_nine_are_those_of_an_independent_check() -> None:
    """All captures at once: each film once, from its start to its end, in real time; it is checked meanwhile."""
    files = films()
    with GstServer(files) as server, ThreadPoolExecutor(len(TAKES)) as pool:
        reports = {take: pool.submit(captured, server.url(take.film), take.interval_s) for take in TAKES}
        checks = {film: Checked(path) for film, path in files.items()}
        for film, check in checks.items():
            found = [assert_as_checked(take, reports[take].result(), check) for take in TAKES if take.film == film]
            images = check.images({index + step for _, indexes in found for index in indexes for step in (-1, 0, 1)})
            for report, indexes in found:
                assert_pictures(report.fresh, indexes, images)
                assert_times(report.fresh, [check.at_s[index] for index in indexes])


def assert_as_checked(take: Take, report: Report, check: Checked) -> tuple[Report, list[int]]:
    """With the indexes of the pictures that it has to show, in order of their ranks."""
    samples = expected(take, check)
    ranking = sorted(range(len(samples)), key=lambda number: -check.grey[samples[number]])[:PLACES]
    assert (report.counters.samples, report.counters.missed, report.counters.rejected) == (len(samples), 0, 0), take
    assert [number - 1 for number, _ in report.board] == ranking
    assert [score for _, score in report.board] == pytest.approx(
        [check.grey[samples[number]] for number in ranking], abs=1.0
    )
    return report, [samples[number] for number in ranking]


def assert_pictures(pictures: tuple[Picture, ...], indexes: list[int], images: dict[int, Image]) -> None:
    """Each is its own frame within what JPEG loses, and none of the frames before and after it."""
    for picture, index in zip(pictures, indexes, strict=True):
        saved = decode_jpeg(picture.jpeg)
        likeness = {near: cv2.PSNR(saved, images[near]) for near in (index - 1, index, index + 1) if near in images}
        assert max(likeness, key=lambda near: likeness[near]) == index
        assert likeness[index] > PSNR_DB


def assert_times(pictures: tuple[Picture, ...], at_s: list[float]) -> None:
    """Wall-clock times are those of arrival: how far they are apart is the server's and the machine's affair."""
    by_arrival = sorted(range(len(pictures)), key=lambda rank: pictures[rank].captured_at)
    assert by_arrival == sorted(range(len(at_s)), key=lambda rank: at_s[rank])
