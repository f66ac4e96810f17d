"""The benchmark: this service and what one would otherwise take, in one run on one feed. `make bench`."""

import argparse
import json
import os
import platform
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import report
from bench.feed import Feed
from bench.footage import Film, NoFootage, film, probe
from bench.measure import cores
from bench.peers import PeerFailed
from bench.plan import LOOK, Step, full_plan, narrowed, quick_plan
from bench.run import CAPACITY_TO, Result, Runner, Times

_ROOT = Path(__file__).resolve().parents[1]
_ROUNDS, _TIMED = 2, 10
_BEGAN_S = time.monotonic()


def main(words: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit("bench: ended"))
    steps = narrowed(
        quick_plan() if arguments.quick else full_plan(arguments.rounds),
        arguments.only,
        arguments.streams,
        arguments.seconds,
    )
    try:
        shown = probe(arguments.film) if arguments.film else film(say)
    except NoFootage as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    say(f"film: {shown.duration_s:.0f} s, {shown.bits_per_s / 1e6:.2f} Mbit/s, key frames every {shown.gop_s:g} s")
    with Feed(shown, max([CAPACITY_TO, *(arguments.streams or ())])) as feed:
        facts = _facts(shown, feed, arguments.service)
        runner = Runner(shown, feed, arguments.service, say)
        found = _Found(facts)
        try:
            found.take(runner, steps)
            if not arguments.only or any("service" in word for word in arguments.only):
                found.take_times(runner, arguments.timed)
            if not (arguments.quick or arguments.only or arguments.streams):
                found.take_capacity(runner)
        except KeyboardInterrupt:
            found.broken.append("interrupted: the rest was not measured")
    found.print()
    found.write(arguments.json)
    return 1 if found.broken else 0


@dataclass(slots=True)
class _Found:
    """All that a run has found so far. A contender that breaks down costs the run its own figures only."""

    facts: dict[str, Any]
    results: list[Result] = field(default_factory=list)
    times: Times = field(default_factory=Times)
    broken: list[str] = field(default_factory=list)

    def take(self, runner: Runner, steps: Sequence[Step]) -> None:
        for number, step in enumerate(steps, 1):
            what = f"{step.contender.name}, {', '.join(map(str, step.streams))} streams"
            say(f"{number} of {len(steps)}: {what}, {step.seconds:g} s, round {step.round}")
            with self._going_on(what):
                self._add(runner.run(step))

    def take_capacity(self, runner: Runner) -> None:
        say("as many streams as the machine carries")
        with self._going_on("capacity"):
            self._add(runner.capacity())

    def take_times(self, runner: Runner, runs: int) -> None:
        say(f"timing {runs} captures")
        with self._going_on("times"):
            runner.time_into(self.times, runs)

    def _add(self, coming: Iterator[Result]) -> None:
        for result in coming:
            missed = f", missed {result.tally.missed_share:.2%} of {result.tally.due}" if result.tally else ""
            memory = f"{result.pss_mean_bytes / report.MB:.1f} MB"
            say(f"  {result.streams} streams: CPU {result.cpu:.2%} of a core, PSS {memory} each{missed}")
            if result.round != LOOK:
                self.results.append(result)

    @contextmanager
    def _going_on(self, what: str) -> Iterator[None]:
        try:
            yield
        except (PeerFailed, AssertionError, OSError, sqlite3.Error) as error:
            self.broken.append(f"{what}: {error}")
            say(f"  broken off: {error}")

    def print(self) -> None:
        facts = self.facts
        machine = f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB"
        print(f"\n{facts['date']}, {machine}, code {facts['code']}")
        print(", ".join(f"{name} {text}" for name, text in facts["versions"].items()))
        print(f"{facts['command']}\n")
        print("CPU: share of one core for one stream; feed CPU, web and others: shares of one core, whole\n")
        print(report.results_table(self.results), report.times_table(self.times), sep="\n\n")
        print(f"\n{report.targets_table(report.targets(self.results))}")

    def write(self, path: Path | None) -> None:
        path = path or Path(__file__).with_name("results") / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        targets = [asdict(target) | {"is_reached": target.is_reached} for target in report.targets(self.results)]
        found = self.facts | {
            "took_s": round(time.monotonic() - _BEGAN_S),
            "results": [asdict(result) for result in self.results],
            "times": asdict(self.times),
            "targets": targets,
            "broken": self.broken,
        }
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(found, indent=1) + "\n")
        os.replace(unfinished, path)
        say(f"written: {path}")


def _facts(shown: Film, feed: Feed, checkout: Path) -> dict[str, Any]:
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": cores(),
        "memory_gb": round(memory_kb / 1e6, 1),
        "kernel": platform.release(),
        "code": _commit(checkout),
        "film": {
            "bits_per_s": round(shown.bits_per_s),
            "fps": shown.fps,
            "gop_s": shown.gop_s,
            "duration_s": shown.duration_s,
        },
        "versions": {
            "python": platform.python_version(),
            "gstreamer": feed.version,
            "ffmpeg": _first_line(["ffmpeg", "-version"]),
            "opencv": version("opencv-python-headless"),
            "av": version("av"),
        },
    }


def _commit(checkout: Path) -> str:
    git = ["git", "--no-optional-locks", "-C", str(checkout)]
    changed = " and changes" if _first_line([*git, "status", "--porcelain", "--untracked-files=no"]) else ""
    return _first_line([*git, "rev-parse", "--short", "HEAD"]) + changed


def _first_line(command: list[str]) -> str:
    try:
        told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30).stdout
    except OSError:
        return ""
    return told.partition("\n")[0].strip()


def say(words: str) -> None:
    print(f"[{time.monotonic() - _BEGAN_S:5.0f} s] {words}", flush=True)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look in a few minutes, not to be quoted")
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORD", help="contenders with it in their name"
    )
    parser.add_argument("--streams", type=_numbers, metavar="N[,N...]", help="in place of the plan's")
    parser.add_argument("--seconds", type=float, help="measure for so long, in place of the plan's")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help=f"default {_ROUNDS}")
    parser.add_argument("--timed", type=int, default=_TIMED, help=f"captures to time; default {_TIMED}")
    parser.add_argument("--service", type=Path, default=_ROOT, metavar="FOLDER", help="another checkout to measure")
    parser.add_argument("--film", type=Path, help="another mp4 file (H.264) to show")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default bench/results/TIME.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
