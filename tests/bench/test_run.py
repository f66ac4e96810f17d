"""Whole runs, as small as they can be: the benchmark still works with the service as it is now."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.footage import probe
from tests.camera.clip import Scene, cached_mp4
from tests.e2e.service import ROOT

SCENE = Scene(320, 240, (40, 200, 90, 150), fps=25, gop_s=1.0)
LIMIT_S = 170.0


@pytest.fixture(scope="module")
def clip(clips: Path) -> Path:
    return cached_mp4(SCENE, clips)


@dataclass(frozen=True, slots=True)
class Run:
    folder: Path
    returncode: int
    said: str

    @property
    def found(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "bench.json").read_text())
        return found


def bench(film: Path, folder: Path, *options: str, interrupt_at: str = "") -> Run:
    """`interrupt_at`: words of a line; once it is printed all processes hear what Ctrl-C sends."""
    command = [sys.executable, "-m", "bench", "--quick", "--streams", "1", "--film", str(film)]
    with subprocess.Popen(
        [*command, "--json", str(folder / "bench.json"), *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as program:
        limit = threading.Timer(LIMIT_S, program.kill)
        limit.start()
        assert program.stdout
        lines = []
        for line in program.stdout:
            lines.append(line)
            if interrupt_at and interrupt_at in line:
                os.killpg(program.pid, signal.SIGINT)
        limit.cancel()
    return Run(folder, program.returncode, "".join(lines))


def test_a_run_ends_with_all_that_it_found_though_it_breaks_down_or_is_interrupted(
    clip: Path, tmp_path: Path
) -> None:
    """All at once: most of a run is waiting."""

    def begun(name: str, *options: str, interrupt_at: str = "") -> Future[Run]:
        (folder := tmp_path / name).mkdir()
        return pool.submit(bench, clip, folder, *options, interrupt_at=interrupt_at)

    (nothing := tmp_path / "no checkout").mkdir()
    service, copy = ("--only", "service 1 s"), ("--only", "ffmpeg copy")
    brief = ("--seconds", "3", "--timed", "0")
    with ThreadPoolExecutor(3) as pool:
        whole = begun("whole", "--seconds", "3", "--timed", "1", *service, "--only", "opencv loop 1 s")
        broken = begun("broken", *brief, *service, *copy, "--service", str(nothing))
        interrupted = begun("interrupted", *brief, *copy, "--only", "nokey", interrupt_at="2 of 2: ")
    assert_is_whole(whole.result())
    assert_went_on(broken.result())
    assert_was_interrupted(interrupted.result())
    assert processes_of(tmp_path) == set()


def assert_is_whole(run: Run) -> None:
    assert run.returncode == 0, run.said
    (target,) = (line for line in run.said.splitlines() if "interval 1 s, against the OpenCV loop" in line)
    assert "1 against 1" in target
    found = run.found
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


def assert_went_on(run: Run) -> None:
    """After a contender that broke down."""
    assert run.returncode == 1, run.said
    assert [result["contender"] for result in run.found["results"]] == ["ffmpeg copy"]
    assert any(words.startswith("service 1 s, 1 streams: ") for words in run.found["broken"])


def assert_was_interrupted(run: Run) -> None:
    """In its second contender: the first one's figures are there."""
    assert run.returncode == 1, run.said
    (result,) = run.found["results"]
    assert run.found["broken"] == ["interrupted: the rest was not measured"]
    assert any(line.startswith(f"| {result['contender']} ") for line in run.said.splitlines())
    assert "Traceback" not in run.said


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
