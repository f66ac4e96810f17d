"""The places of the demo, and its bad connection."""

import itertools
import socket

import cv2
import numpy as np
import pytest

from tests.camera import demo
from tests.camera.clip import Scene
from tests.camera.scenery import HEIGHT, LOOP_S, PLACES, WIDTH, Picture, Place
from tests.camera.server import ScriptedCamera
from tests.camera.viewer import wait_until


def small(picture: Picture) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.resize(grey, (64, 36), interpolation=cv2.INTER_AREA), np.float32)


def difference(one: Picture, other: Picture) -> float:
    """Of the pictures' grey in the mean."""
    return float(np.abs(small(one) - small(other)).mean())


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_the_nine_brightest_seconds_of_a_place_show_different_moments(place: Place) -> None:
    draw = place.prepare()
    seconds = [draw(float(second)) for second in range(LOOP_S)]
    assert {picture.shape for picture in seconds} == {(HEIGHT, WIDTH, 3)}
    brightness = [float(small(picture).mean()) for picture in seconds]
    best = sorted(sorted(range(LOOP_S), key=lambda second: -brightness[second])[:9])
    apart = 1 + sum(later - earlier > 1 for earlier, later in itertools.pairwise(best))
    assert apart >= 4, f"one moment and what is around it: {best}"
    assert min(difference(seconds[a], seconds[b]) for a in best for b in best if a < b) > 1
    assert max(brightness) > 1.5 * min(brightness)
    end = draw(LOOP_S - 1 / demo.FPS)
    assert difference(end, seconds[0]) < 4, "the film jumps where it begins anew"


def test_a_film_has_a_key_frame_each_second() -> None:
    """Then each loop shows whoever samples once a second the same pictures, and none is kept twice."""
    clip = demo.film(PLACES[1], loop_s=3)
    assert [index for index, unit in enumerate(clip.units) if unit.is_key] == [0, demo.FPS, 2 * demo.FPS]
    assert len(clip.units) == 3 * demo.FPS


def test_the_bad_connection_is_lost_and_comes_back_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWAY_S", "FIRST_AWAY_AFTER_S", "AWAY_AFTER_S"):
        monkeypatch.setattr(demo, name, 0.3)
    with ScriptedCamera(Scene(64, 48, plan=(100.0,), fps=5)) as camera:

        def answers() -> bool:
            try:
                socket.create_connection((camera.host, camera.port), 5).close()
            except OSError:
                return False
            return True

        with demo._outages(camera):
            for _ in range(2):
                wait_until(lambda: not answers(), 30)
                wait_until(answers, 30)
