"""A clip has its scene's brightness, marks, key frames and timestamps, as a decoder sees them."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.camera.clip import (
    TICKS_PER_S,
    Codec,
    Scene,
    cached_mp4,
    encode,
    picture,
    split_nals,
    write_mp4,
)
from tests.camera.viewer import View, view

PLAN = (4, 251, 100, 30, 128.5, 200)
SCENE = Scene(320, 240, PLAN, fps=10)


def film(scene: Scene, folder: Path) -> View:
    path = folder / "film.mp4"
    write_mp4(scene, path)
    return view(str(path), frames=scene.frames)


def assert_as_planned(seen: View, scene: Scene, tolerance: float = 0.5) -> None:
    for index, glimpse in enumerate(seen.glimpses):
        assert glimpse.second == index // scene.fps
        assert glimpse.luma == pytest.approx(scene.plan[index // scene.fps], abs=tolerance)
    assert len(seen.glimpses) == scene.frames


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4", "mjpeg"])
def test_each_codec_shows_the_plan(codec: Codec, tmp_path: Path) -> None:
    scene = replace(SCENE, codec=codec)
    assert_as_planned(film(scene, tmp_path), scene)


@pytest.mark.parametrize("size", [(160, 120), (640, 360), (1920, 1080)], ids=str)
def test_each_size_shows_the_plan(size: tuple[int, int], tmp_path: Path) -> None:
    scene = replace(SCENE, width=size[0], height=size[1], fps=2)
    assert_as_planned(film(scene, tmp_path), scene)


@pytest.mark.parametrize(
    "scene",
    [
        replace(SCENE, is_full_range=True),
        replace(SCENE, b_frames=2),
        replace(SCENE, intra_refresh=True),
        replace(SCENE, chroma=(90, 160)),
        replace(SCENE, gop_s=6),
    ],
    ids=["full range", "b-frames", "intra refresh", "colour", "long gop"],
)
def test_each_kind_shows_the_plan(scene: Scene, tmp_path: Path) -> None:
    assert_as_planned(film(scene, tmp_path), scene)


def test_noise_leaves_the_mean_as_it_is(tmp_path: Path) -> None:
    scene = replace(SCENE, plan=(30, 128, 200), noise=4)
    assert_as_planned(film(scene, tmp_path), scene, tolerance=1.0)
    assert len(encode(scene).units[1].data) > 10 * len(encode(replace(scene, noise=0)).units[1].data)


def test_each_frame_differs_unless_nothing_moves(tmp_path: Path) -> None:
    moving, still = film(SCENE, tmp_path), film(replace(SCENE, has_motion=False), tmp_path)
    assert len({glimpse.digest for glimpse in moving.glimpses}) == SCENE.frames
    assert len({glimpse.digest for glimpse in still.glimpses[:10]}) == 1


@pytest.mark.parametrize(("gop_s", "keys"), [(0.5, 12), (1.0, 6), (2.0, 3), (60.0, 1)])
def test_key_frames_come_when_they_should(gop_s: float, keys: int) -> None:
    units = encode(replace(SCENE, gop_s=gop_s)).units
    places = [place for place, unit in enumerate(units) if unit.is_key]
    assert places == [round(number * gop_s * SCENE.fps) for number in range(keys)]


def test_intra_refresh_has_one_key_frame() -> None:
    assert [unit.is_key for unit in encode(replace(SCENE, intra_refresh=True)).units].count(True) == 1


def test_timestamps_are_exact() -> None:
    ticks = [unit.pts_ticks for unit in encode(SCENE).units]
    assert ticks == [number * TICKS_PER_S // SCENE.fps for number in range(SCENE.frames)]


def test_b_frames_come_in_decoding_order() -> None:
    ticks = [unit.pts_ticks for unit in encode(replace(SCENE, b_frames=2)).units]
    assert ticks != sorted(ticks)
    assert sorted(ticks) == [number * TICKS_PER_S // SCENE.fps for number in range(SCENE.frames)]


def test_parameter_sets_stand_before_each_key_frame() -> None:
    clip = encode(SCENE)
    assert [nal[0] & 31 for nal in clip.parameter_sets] == [7, 8]
    for unit in clip.units:
        kinds = [nal[0] & 31 for nal in split_nals(unit.data)]
        assert (kinds[:2] == [7, 8]) == unit.is_key


def test_the_picture_before_encoding_has_the_planned_mean() -> None:
    for second, luma in enumerate(PLAN):
        assert picture(SCENE, second * SCENE.fps).mean() == pytest.approx(16 + luma * 219 / 255, abs=0.02)


@pytest.mark.parametrize("plan", [(), (3,), (252,)])
def test_a_plan_that_no_picture_can_have_is_refused(plan: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="plan"):
        replace(SCENE, plan=plan)


def test_a_cached_film_is_made_once_for_all_processes(tmp_path: Path) -> None:
    scene = replace(SCENE, width=640, height=480)
    with ProcessPoolExecutor(4) as pool:
        paths = set(pool.map(_cached, [(scene, tmp_path)] * 8))
    assert len({path for path, _ in paths}) == 1
    assert len({inode for _, inode in paths}) == 1
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".lock", ".mp4"]
    assert cached_mp4(replace(scene, fps=5), tmp_path) not in {path for path, _ in paths}


def _cached(task: tuple[Scene, Path]) -> tuple[Path, int]:
    path = cached_mp4(*task)
    return path, path.stat().st_ino
