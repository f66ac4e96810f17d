"""Scenes whose brightest seconds are known, and no order of theirs helps a service that guesses."""

import random

from tests.camera.clip import Scene

# Seconds of different brightness, eleven levels apart; then a tail so dark that it never enters.
LEVELS = 18
TAIL_S = 42


def plan(seed: int, levels: int = LEVELS, tail_s: int = TAIL_S) -> tuple[float, ...]:
    bright = [40.0 + 11 * step for step in range(levels)]
    random.Random(seed).shuffle(bright)
    return (*bright, *(6.0 + 0.5 * (second % 20) for second in range(tail_s)))


def brightest(plan: tuple[float, ...], count: int = 9) -> list[int]:
    """The seconds of a plan, brightest first."""
    return sorted(range(len(plan)), key=lambda second: -plan[second])[:count]


SMALL = Scene(320, 240, plan(1), fps=25, gop_s=1.0)
MIDDLE = Scene(1280, 720, plan(2), fps=10, gop_s=2.0)
LARGE = Scene(1920, 1080, plan(3), fps=5, gop_s=1.0)
FEEDS = {"small": SMALL, "middle": MIDDLE, "large": LARGE}
