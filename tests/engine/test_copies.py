"""Copies of one picture are known, and no two pictures of a sensor are taken for copies."""

from collections.abc import Sequence

import numpy as np
import pytest
from av.video.frame import VideoFrame
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.copies import FROZEN_AFTER, Copies
from streams.engine.scoring import FINGERPRINT_ROWS, fingerprint
from tests.camera.clip import Scene

from .clip_feed import decoded, packets_of

STILL = Scene(160, 120, (120, 120), fps=10, has_motion=False)


def noted(copies: Copies, *samples: tuple[float, int]) -> list[bool]:
    return [copies.note(score, print_of_it) for score, print_of_it in samples]


def test_the_same_picture_again_is_a_copy() -> None:
    assert noted(Copies(), (90.0, 1), (90.0, 1), (90.0, 1)) == [False, True, True]


@pytest.mark.parametrize("other", [(90.0, 2), (91.0, 1)])
def test_a_copy_has_the_same_score_and_the_same_print(other: tuple[float, int]) -> None:
    assert noted(Copies(), (90.0, 1), other) == [False, False]


def test_only_the_sample_before_and_the_leaderboard_are_remembered() -> None:
    copies = Copies()
    assert noted(copies, (90.0, 1), (80.0, 2), (90.0, 1)) == [False, False, False]
    copies.enter(3, 90.0, 1)
    assert noted(copies, (80.0, 2), (90.0, 1)) == [False, True]


def test_what_has_left_the_leaderboard_is_forgotten() -> None:
    copies = Copies()
    copies.enter(1, 90.0, 1)
    copies.enter(2, 80.0, 2)
    copies.keep([2, 7])
    assert noted(copies, (90.0, 1), (80.0, 2)) == [False, True]


def test_a_picture_of_another_run_is_known_by_its_score_alone() -> None:
    """The fingerprints of what was saved are gone; scores are means of a million pixels."""
    copies = Copies([(1, 90.123456)])
    assert noted(copies, (90.123456, 5), (90.123457, 6)) == [True, False]
    copies.keep([])
    assert noted(copies, (90.123456, 5)) == [False]


def test_frozen_is_said_after_some_repeats_and_no_longer_than_they_last() -> None:
    copies = Copies()
    states = []
    for print_of_it in [1] * (FROZEN_AFTER + 2) + [2, 2]:
        copies.note(90.0, print_of_it)
        states.append(copies.is_frozen)
    assert states == [False] * FROZEN_AFTER + [True] * 2 + [False] * 2


def test_copies_of_the_leaderboard_are_not_a_frozen_camera() -> None:
    """A scene that comes back is none: what counts is that nothing changes."""
    copies = Copies()
    copies.enter(1, 90.0, 1)
    for _ in range(FROZEN_AFTER):
        assert noted(copies, (90.0, 1), (80.0, 2))[0]
        assert not copies.is_frozen


@given(st.lists(st.tuples(st.sampled_from([80.0, 90.0]), st.integers(1, 2)), max_size=40))
def test_frozen_means_that_so_many_in_a_row_were_the_same(samples: list[tuple[float, int]]) -> None:
    copies = Copies()
    for count, sample in enumerate(samples, 1):
        copies.note(*sample)
        tail = samples[max(0, count - 1 - FROZEN_AFTER) : count]
        assert copies.is_frozen == (len(tail) == FROZEN_AFTER + 1 and len(set(tail)) == 1)


# --- the fingerprint ---


def test_a_camera_that_freezes_sends_one_fingerprint() -> None:
    frames = decoded([packet.data for packet in packets_of(STILL)], "h264")
    assert len({fingerprint(frame) for frame in frames[10:]}) == 1
    assert len(frames) == 20


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "nv12", "yuv420p10le", "gray", "rgb24"])
def test_copies_have_one_fingerprint_and_noise_always_another(pix_fmt: str) -> None:
    frames = [noisy_frame(seed, pix_fmt) for seed in range(200)]
    assert len({fingerprint(frame) for frame in frames}) == 200
    assert [fingerprint(frame) for frame in frames[:20]] == [fingerprint(noisy_frame(n, pix_fmt)) for n in range(20)]


def noisy_frame(seed: int, pix_fmt: str) -> VideoFrame:
    """A grey wall with the least noise a sensor has: one code up or down in a pixel of a hundred."""
    random = np.random.default_rng(seed)
    steps = random.choice([-1, 0, 1], size=(90, 160, 1), p=[0.005, 0.99, 0.005])
    picture = np.repeat(120 + 3 * steps, 3, axis=2).astype(np.uint8)
    return VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)


def test_one_pixel_of_a_row_that_is_looked_at_is_enough() -> None:
    assert fingerprint(grey(row=FINGERPRINT_ROWS)) != fingerprint(grey())
    assert fingerprint(grey(row=FINGERPRINT_ROWS + 1)) == fingerprint(grey())


def test_what_lies_between_the_rows_of_a_plane_is_not_looked_at() -> None:
    """Widths that are no multiple of the alignment: libav pads the rows with what was there before."""
    prints: set[int] = set()
    for filling in (0, 255):
        frame = VideoFrame(90, 48, "gray")
        plane = np.frombuffer(memoryview(frame.planes[0]), np.uint8).reshape(-1, frame.planes[0].line_size)
        plane[:] = filling
        plane[:, :90] = 77
        prints.add(fingerprint(frame))
    assert len(prints) == 1


def grey(row: int | None = None) -> VideoFrame:
    plane = np.full((48, 64), 100, np.uint8)
    changes: Sequence[int] = [] if row is None else [row]
    for changed in changes:
        plane[changed, 10] = 101
    return VideoFrame.from_ndarray(plane, format="gray")
