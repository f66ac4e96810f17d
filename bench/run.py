"""Carries the plan out: one contender at a time, on one feed."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.feed import Feed
from bench.footage import Film
from bench.measure import Window, cores, cpu_s, watch
from bench.peers import ROLE, PeerFailed, Peers
from bench.plan import FULL_SHARE, SERVICE_10, Step, fitting
from bench.service import CAPTURING, RECORDERS, WEB, Captures, Lateness, NotReported, Tally, tally

# After the last process has begun: ffmpeg probes for up to 5 s, and a key frame comes every 2 s.
_PEERS_SETTLE_S = 8.0
# After every stream has its first sample, or some have been stopped: their grids are made and saved meanwhile.
_SETTLE_S = 4.0
# The start of an ffmpeg takes 0.4 s of a core: 32 at once would read too late for the server's patience.
_START_CPU_S = 0.5
_FULL_BOARD = 9
_START_S = 0.5  # more than one start takes, on a busy machine
MISSED_MOST = 0.005
_CAPACITY_FROM, CAPACITY_TO = 128, 512
_CAPACITY_S = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """One contender with so many streams, over one window. CPU and memory are those of one stream.

    `cpu` is a share of one core; `parts` and `pss_parts_bytes` are by role. What the web server, the feed server
    and everybody else (`others_cpu`) take is told whole. `late` is of each capture that told it.
    """

    contender: str
    streams: int
    round: int
    seconds: float
    cpu: float
    parts: dict[str, float]
    pss_mean_bytes: float
    pss_max_bytes: float
    pss_parts_bytes: dict[str, float]
    web_cpu: float
    server_cpu: float
    others_cpu: float
    machine_cpu: float
    feed_bits_per_s: float | None
    feed_late_s: float
    starved: int
    """Streams that got less than half of the feed: GStreamer's server drops a client that is seconds behind."""
    tally: Tally | None = None
    late: tuple[Lateness, ...] = ()


def samples_of(film_s: float, interval_s: float) -> int:
    """After so many samples of a film that is shown again and again the same ones come again. Nothing enters a
    leaderboard then, as is the rule in a capture that lasts: of its n-th sample the chance is nine in n."""
    whole_s = max(1, round(film_s))
    return max(_FULL_BOARD, math.lcm(whole_s, max(1, round(interval_s))) // max(1, round(interval_s)))


@dataclass(frozen=True, slots=True)
class Times:
    """Of single captures on an otherwise idle service."""

    first_sample_s: list[float] = field(default_factory=list)
    page_s: list[float] = field(default_factory=list)


class Runner:
    def __init__(self, film: Film, feed: Feed, checkout: Path, say: Callable[[str], None]) -> None:
        self._film, self._feed, self._checkout, self._say = film, feed, checkout, say
        self._cpu_of: dict[str, float] = {}

    def run(self, step: Step) -> Iterator[Result]:
        """Numbers of streams that the machine does not carry are lowered to what it does."""
        cpu = self._cpu_of.get(step.contender.name, step.contender.cpu)
        counts = sorted({fitting(count, cpu, cores()) for count in step.streams}, reverse=True)
        run = self._run_peers if step.contender.command else self._run_service
        for result in run(step, counts):
            # What one more would cost: the supervisor and its jobs are there for the first one already.
            self._cpu_of[step.contender.name] = result.parts.get(RECORDERS, result.cpu)
            yield result

    def capacity(self) -> Iterator[Result]:
        """The service at 10 s with twice as many streams, until it misses samples or the machine is full."""
        streams = _CAPACITY_FROM
        while streams <= CAPACITY_TO and fitting(streams, self._cpu_of.get(SERVICE_10.name, 1.0), cores()) == streams:
            (result,) = self._run_service(Step(SERVICE_10, (streams,), _CAPACITY_S, 1), [streams])
            yield result
            has_missed = result.tally is not None and result.tally.missed_share > MISSED_MOST
            if has_missed or result.machine_cpu > FULL_SHARE * cores():
                return
            streams *= 2
        self._say(f"{streams} streams are not tried: at most {CAPACITY_TO}, and {FULL_SHARE:.0%} of {cores()} cores")

    def time_into(self, found: Times, runs: int) -> None:
        """From /start to the first sample, and from /stop to the page, one capture after the other."""
        with self._captures(1) as captures:
            for url in self._feed.urls(runs):
                began_s = time.monotonic()
                capture = captures.start(url, 0.2)
                captures.wait_for_samples(capture, 1)
                found.first_sample_s.append(time.monotonic() - began_s)
                captures.wait_for_samples(capture, _FULL_BOARD + 1)
                began_s = time.monotonic()
                captures.stop(capture)
                found.page_s.append(time.monotonic() - began_s)

    def _run_peers(self, step: Step, counts: list[int]) -> Iterator[Result]:
        contender = step.contender
        assert contender.command
        urls = self._feed.urls(counts[0])
        commands = [contender.command(url, contender.interval_s) for url in urls]
        with Peers(commands, _START_CPU_S / cores()) as peers:
            time.sleep(_PEERS_SETTLE_S)
            for count in counts:
                peers.keep(count)
                result = self._measured(step, count, lambda: watch(peers.roles, step.seconds, peers.check), (ROLE,))
                if result.starved:
                    raise PeerFailed(f"{result.starved} of {count} got less than half of the feed: too slow")
                yield result

    def _run_service(self, step: Step, counts: list[int]) -> Iterator[Result]:
        with self._captures(counts[0]) as captures:
            self._begin(captures, step, counts[0])
            for count in counts:
                captures.keep(count)
                time.sleep(_SETTLE_S)
                yield self._measure_service(step, count, captures)

    @contextmanager
    def _captures(self, slots: int) -> Iterator[Captures]:
        """A new instance each time, with a database of its own."""
        with (
            tempfile.TemporaryDirectory(prefix="bench-") as folder,
            Captures(self._checkout, Path(folder), slots) as captures,
        ):
            yield captures

    def _begin(self, captures: Captures, step: Step, count: int) -> None:
        for url in self._feed.urls(count):
            captures.start(url, step.contender.interval_s)
        captures.wait_for_all(1, 60.0 + count * _START_S)
        if step.is_filled:
            samples = samples_of(self._film.duration_s, step.contender.interval_s)
            fill_s = samples * step.contender.interval_s
            self._say(f"  filling the leaderboards of {count} streams: {fill_s:.0f} s")
            captures.wait_for_all(samples, 2 * fill_s + 60.0)

    def _measure_service(self, step: Step, count: int, captures: Captures) -> Result:
        before = captures.progress()
        result = self._measured(step, count, lambda: watch(captures.roles, step.seconds, captures.check), CAPTURING)
        found = tally(before, captures.progress(), step.contender.interval_s, self._film.gop_s)
        try:
            late = tuple(captures.lateness())
        except NotReported:
            late = ()
        return replace(result, tally=found, late=late)

    def _measured(self, step: Step, count: int, look: Callable[[], Window], roles: tuple[str, ...]) -> Result:
        self._feed.late_s()
        bytes_before, server_before_s = self._feed.delivered_bytes(), cpu_s(self._feed.pid)
        began_s = time.monotonic()
        window = look()
        server_cpu = (cpu_s(self._feed.pid) - server_before_s) / window.seconds
        bytes_after, took_s = self._feed.delivered_bytes(), time.monotonic() - began_s
        rates = [8 * (got - bytes_before.get(client, 0)) / took_s for client, got in bytes_after.items()]
        known = sum(window.cpu.values()) + server_cpu
        return Result(
            contender=step.contender.name,
            streams=count,
            round=step.round,
            seconds=window.seconds,
            cpu=window.cpu_of(roles) / count,
            parts={role: window.cpu_of([role]) / count for role in roles},
            pss_mean_bytes=window.pss_mean_bytes(roles) / count,
            pss_max_bytes=window.pss_max_bytes(roles) / count,
            pss_parts_bytes={role: window.pss_mean_bytes([role]) / count for role in roles},
            web_cpu=window.cpu_of([WEB]),
            server_cpu=server_cpu,
            others_cpu=max(0.0, window.machine_cpu - known),
            machine_cpu=window.machine_cpu,
            feed_bits_per_s=sum(rates) / count if rates else None,
            starved=count - sum(rate > self._film.bits_per_s / 2 for rate in rates) if rates else 0,
            feed_late_s=self._feed.late_s(),
        )
