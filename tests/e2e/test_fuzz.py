"""Cameras that send damaged bytes beside cameras that are well: these miss no sample, and nothing else is harmed.

`make fuzz` has ten minutes of it, a plain test run some seconds (FUZZ_S). FUZZ_SEED repeats the damage of one.
"""

import itertools
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.camera import rtp
from tests.camera.clip import Clip, Codec, Scene, encode
from tests.camera.mutator import Mutator
from tests.camera.server import ScriptedCamera
from tests.e2e.service import Service, gunicorn, wait_for
from tests.engine.hostile import camera as hostile_camera
from tests.engine.hostile import sent
from tests.engine.odd_camera import OddCamera, Request, Say
from tests.figures import Figure

FUZZ_S = float(os.environ.get("FUZZ_S", "10"))
SEED = os.environ.get("FUZZ_SEED", "")
HOSTILE = 8 if FUZZ_S > 60 else 4
GOOD = 3 if FUZZ_S > 60 else 2
SCENE = Scene(320, 240, (40, 200, 90, 120), fps=10, gop_s=0.5)
INTERVAL_S = 0.5
CODECS: tuple[Codec, ...] = ("h264", "hevc", "mpeg4", "mjpeg")
# Of answers to requests: most are as they should be, or there would be no pictures.
ANSWERS_RATE = 0.1
# Of any process of the service, whatever it is sent: a recorder of a small picture has 40 MB, the website 120.
PEAK_MB = 400
GROWTH_MB = 40


@pytest.mark.timeout(240 + 2 * FUZZ_S)
def test_damaged_bytes_harm_nobody_else(tmp_path: Path, figure: Figure) -> None:
    seed = SEED or str(random.randrange(1 << 32))
    print(f"FUZZ_SEED={seed}")
    with gunicorn(tmp_path, CAPTURE_MEMORY_MB="200") as service, cameras(seed) as (good, hostile):
        captures = [service.begin(url, interval=INTERVAL_S) for url in good]
        for capture in captures:
            service.wait_for_samples(capture, 2)
        alone = Look(service)
        fuzz = Fuzz(service, hostile)
        watch(service, fuzz)
        for capture in captures:
            check_good(fuzz.api(f"captures/{capture}"), FUZZ_S)
        fuzz.end()
        wait_for(lambda: Look(service).processes <= alone.processes, "the end of hostile recorders")
        after = Look(service)
        print(
            f"connections={fuzz.connections} starts={fuzz.starts} errors={dict(fuzz.errors)} deaths={deaths(service)}"
        )
        figure("fuzzing: longest answer of the website", fuzz.longest_s, 2.0)
        figure("fuzzing: growth of the supervisor", after.supervisor_mb - alone.supervisor_mb, GROWTH_MB, "MB")
        assert fuzz.refusals == []
        assert fuzz.connections > HOSTILE
        assert fuzz.peak_mb < PEAK_MB
        assert after.supervisor_mb - alone.supervisor_mb < GROWTH_MB
        assert after.descriptors <= alone.descriptors
        assert after.zombies == []
        assert faults(service) == []


def test_each_seed_has_its_own_damage_and_always_the_same() -> None:
    def damage(seed: str) -> list[bytes]:
        return list(Mutator(seed).spoil_all(bytes([number]) * 50 for number in range(250)))

    assert damage("1") == damage("1")
    assert damage("1") != damage("2")
    assert any(damage(str(seed))[0:1] for seed in range(3))


# --- who is there ---


@contextmanager
def cameras(seed: str) -> Iterator[tuple[list[str], list[OddCamera]]]:
    """The addresses of those that are well, and the others."""
    clips = [encode(replace(SCENE, codec=codec)) for codec in CODECS]
    with ExitStack() as stack:
        good = [
            stack.enter_context(ScriptedCamera(clip, path=f"good-{number}", live=True)).url
            for number, clip in zip(range(GOOD), itertools.cycle(clips), strict=False)
        ]
        hostile = [
            stack.enter_context(fuzzed(clip, f"{seed} {number}"))
            for number, clip in zip(range(HOSTILE), itertools.cycle(clips), strict=False)
        ]
        yield good, hostile


def fuzzed(clip: Clip, seed: str) -> OddCamera:
    """Each connection is damaged in its own way."""
    mutators: dict[int, Mutator] = {}

    def of(number: int) -> Mutator:
        return mutators.setdefault(number, Mutator(f"{seed} {number}"))

    made = hostile_camera(clip, lambda: ())
    plain = dict(made.on)

    def spoilt(say: Say, request: Request) -> Iterator[bytes]:
        said = say(request)
        assert said is not None
        for part in [said] if isinstance(said, bytes) else said:
            yield of(request.connection).maybe(part, ANSWERS_RATE)

    def played(request: Request) -> Iterator[bytes]:
        chance = random.Random(f"{seed} {request.connection}")
        yield from spoilt(plain["PLAY"], request)
        yield from itertools.islice(of(request.connection).spoil_all(units(clip)), chance.randrange(20, 500))
        raise EOFError  # and it hangs up: so that it is connected to again

    made.on = {method: partial(spoilt, say) for method, say in plain.items()} | {"PLAY": played}
    return made


def units(clip: Clip) -> Iterator[bytes]:
    """Interleaved packets, each picture when it is due; three times as fast as it was filmed."""
    sequence = 0
    for index, unit in enumerate(itertools.cycle(clip.units)):
        data = sent([unit], clip, index * 9000, sequence)
        sequence += len(rtp.payloads(clip.scene.codec, unit))
        while data:
            size = 4 + int.from_bytes(data[2:4])
            yield data[:size]
            data = data[size:]
        time.sleep(1 / (3 * clip.scene.fps))


# --- what they do to the service ---


class Fuzz:
    """Starts the hostile streams, and starts them anew once they wait: so their damage has no pause of minutes."""

    def __init__(self, service: Service, hostile: Sequence[OddCamera]) -> None:
        self._service = service
        self._hostile = hostile
        self.errors: Counter[str] = Counter()
        self.refusals: list[str] = []
        """Answers of the website that nobody wants."""
        self.longest_s = self.peak_mb = 0.0
        self.starts = 0
        for number in range(len(hostile)):
            self._start(number)

    @property
    def connections(self) -> int:
        return sum(camera.connections for camera in self._hostile)

    def look(self) -> None:
        """One round."""
        streams = {one["name"]: one for one in self.api("streams?limit=100")["items"]}
        for number in range(len(self._hostile)):
            stream = streams[f"hostile-{number}"]
            if stream["status"] in ("reconnecting", "failed") and stream["error"]:
                self.errors[stream["error"]["code"]] += 1
                self._ask(partial(self._service.stop_once, f"hostile-{number}"), 200, 202, 404, 409)
                self._start(number)
        for path in ("/", "/readyz"):
            self._ask(partial(self._get, path))
        self.peak_mb = max(self.peak_mb, Look(self._service).largest_mb)

    def api(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._ask(partial(self._get, f"/api/{path}")).json()
        return answer

    def end(self) -> None:
        for number in range(len(self._hostile)):
            self._ask(partial(self._service.stop_once, f"hostile-{number}"), 200, 202, 409)

    def _start(self, number: int) -> None:
        fields = {"rtsp_url": self._hostile[number].url, "name": f"hostile-{number}", "interval": INTERVAL_S}
        self._ask(lambda: self._service.post("/start", "application/json", **fields), 200, 201, 409)
        self.starts += 1

    def _get(self, path: str) -> requests.Response:
        return requests.get(self._service.url + path, headers={"Accept": "application/json"}, timeout=60)

    def _ask(self, call: Callable[[], requests.Response], *statuses: int) -> requests.Response:
        began_s = time.monotonic()
        answer = call()
        self.longest_s = max(self.longest_s, time.monotonic() - began_s)
        if answer.status_code not in (statuses or (200,)):
            self.refusals.append(f"{answer.request.method} {answer.url} {answer.status_code} {answer.text[:200]}")
        return answer


def watch(service: Service, fuzz: Fuzz) -> None:
    end_s = time.monotonic() + FUZZ_S
    while time.monotonic() < end_s:
        fuzz.look()
        assert all(process.poll() is None for process in service.processes)
        time.sleep(0.5)


def check_good(capture: dict[str, Any], lasted_s: float) -> None:
    """Not one sample missed, by one connection and without an error: it has seen nothing of all this."""
    assert (capture["missed"], capture["connections"], capture["error"]) == (0, 1, None), capture
    assert capture["samples"] > 0.8 * lasted_s / INTERVAL_S, capture


class Look:
    """What there is of the service now."""

    def __init__(self, service: Service) -> None:
        self.processes = 0
        self.zombies: list[int] = []
        self.largest_mb = 0.0
        for pid in service.family():
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                self.largest_mb = max(self.largest_mb, process.memory_info().rss / 1e6)
                self.processes += 1
                self.zombies += [pid] if process.status() == psutil.STATUS_ZOMBIE else []
        supervisor = psutil.Process(service.processes[-1].pid)
        self.supervisor_mb = supervisor.memory_info().rss / 1e6
        self.descriptors = supervisor.num_fds()


def deaths(service: Service) -> dict[str, int]:
    return dict(Counter(re.findall(r"recorder died .*?words='([^']*)'", service.log)))


def faults(service: Service) -> list[str]:
    """What is no error of a camera's: exceptions of ours, and crashes of what decodes."""
    found = re.findall(r"^.*(?:a fault of its own|crashed \(SIG|report refused).*$", service.log, re.MULTILINE)
    return found + re.findall(r"^Traceback .*\n(?:[ ].*\n)*.*", service.log, re.MULTILINE)
