"""A whole run, as small as it can be: the benchmark still works with the service as it is now."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.footage import probe
from tests.camera.clip import Scene, cached_mp4
from tests.e2e.service import ROOT

SCENE = Scene(320, 240, (40, 200, 90, 150), fps=25, gop_s=1.0)


@pytest.fixture
def clip(clips: Path) -> Path:
    return cached_mp4(SCENE, clips)


def bench(film: Path, written: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "--quick", "--streams", "1", "--film", str(film)]
    return subprocess.run(
        [*command, "--json", str(written), *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(written.parent)},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def test_a_run_ends_with_tables_and_json_and_leaves_nobody_behind(clip: Path, tmp_path: Path) -> None:
    only = ["--only", "service 1 s", "--only", "opencv loop 1 s"]
    written = tmp_path / "bench.json"
    done = bench(clip, written, "--seconds", "3", "--timed", "1", *only)
    assert done.returncode == 0, done.stdout + done.stderr
    (target,) = (line for line in done.stdout.splitlines() if "interval 1 s, against the OpenCV loop" in line)
    assert "1 against 1" in target
    found = json.loads(written.read_text())
    results = {result["contender"]: result for result in found["results"]}
    assert set(results) == {"service 1 s", "opencv loop 1 s"}
    for result in results.values():
        assert result["streams"] == 1
        assert result["cpu"] > 0
        assert result["pss_mean_bytes"] > 1e6
    assert set(results["service 1 s"]["parts"]) == {"recorders", "supervisor", "jobs"}
    assert all(part > 1e6 for part in results["service 1 s"]["pss_parts_bytes"].values())
    assert results["service 1 s"]["tally"]["taken"] > 0
    assert results["opencv loop 1 s"]["feed_bits_per_s"] > 1000
    assert (len(found["times"]["first_sample_s"]), len(found["times"]["page_s"])) == (1, 1)
    assert found["film"] == {"bits_per_s": found["film"]["bits_per_s"], "fps": 25.0, "gop_s": 1.0, "duration_s": 4.0}
    assert processes_of(tmp_path) == set()


def test_a_contender_that_breaks_down_is_told_and_the_others_go_on(clip: Path, tmp_path: Path) -> None:
    written = tmp_path / "bench.json"
    nothing = tmp_path / "no checkout"
    nothing.mkdir()
    only = ["--only", "service 1 s", "--only", "ffmpeg copy"]
    done = bench(clip, written, "--seconds", "3", "--timed", "0", *only, "--service", str(nothing))
    assert done.returncode == 1
    found = json.loads(written.read_text())
    assert [result["contender"] for result in found["results"]] == ["ffmpeg copy"]
    assert any(words.startswith("service 1 s, 1 streams: ") for words in found["broken"])


def test_a_film_is_measured_before_it_is_shown(clip: Path) -> None:
    film = probe(clip)
    assert (film.fps, film.gop_s, film.duration_s) == (25.0, 1.0, 4.0)
    assert film.bits_per_s == pytest.approx(8 * clip.stat().st_size / 4.0, rel=0.2)


def processes_of(folder: Path) -> set[int]:
    """Whatever has this folder in its environment: for its temporary files, or for the service's data."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder).encode() in file.read_bytes():
                found.add(int(file.parent.name))
        except OSError:
            continue
    return found
