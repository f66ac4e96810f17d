"""What is measured, in which order. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from bench import peers

# The service and everything beside it get so much of the machine: over it, runs disturb themselves.
FULL_SHARE = 0.85
LOOK = 0  # in place of a round's number
_SERVER_CPU = 0.004  # of a core, for serving one stream: measured 0.16 for 64


@dataclass(frozen=True, slots=True)
class Contender:
    """`command` makes a peer's command line for one stream; the service has none.

    `cpu` of a core is what one stream is taken to cost until that has been measured.
    """

    name: str
    interval_s: float
    command: Callable[[str, float], list[str]] | None = None
    cpu: float = 0.0


SERVICE_10, SERVICE_1 = Contender("service 10 s", 10.0), Contender("service 1 s", 1.0)
OPENCV_10, OPENCV_1 = (Contender(f"opencv loop {s} s", s, peers.opencv, 0.25) for s in (10, 1))
FPS_10 = Contender("ffmpeg fps=1/10", 10.0, peers.ffmpeg_fps, 0.2)
FPS_1 = Contender("ffmpeg fps=1", 1.0, peers.ffmpeg_fps, 0.2)
NOKEY = Contender("ffmpeg skip_frame nokey", 2.0, peers.ffmpeg_nokey)
COPY = Contender("ffmpeg copy", 0.0, peers.ffmpeg_copy)
CONTENDERS = (SERVICE_10, SERVICE_1, OPENCV_10, OPENCV_1, FPS_10, FPS_1, NOKEY, COPY)


@dataclass(frozen=True, slots=True)
class Step:
    """One contender, started with the first number of streams, measured, reduced to the next, measured ...

    `is_filled`: wait first until nothing more enters the leaderboards, as it seldom does in a capture that lasts;
    until then nearly each sample is encoded and saved. A LOOK only tells how many streams the machine
    will carry.
    """

    contender: Contender
    streams: tuple[int, ...]
    seconds: float
    round: int
    is_filled: bool = False


def full_plan(rounds: int) -> list[Step]:
    """Each contender alone first; then the pairs whose ratios are asked for, in turns, round by round."""
    steps = [Step(SERVICE_10, (1,), 15, LOOK), Step(SERVICE_1, (1,), 15, LOOK)]
    steps += [Step(one, (1,), 30, 1) for one in (OPENCV_10, FPS_10, FPS_1, NOKEY, COPY)]
    for number in range(1, rounds + 1):
        is_first = number == 1
        steps += [
            Step(SERVICE_10, (64, 32, 8, 1) if is_first else (32, 1), 60, number, is_filled=True),
            Step(COPY, (32, 8) if is_first else (32,), 30, number),
            Step(OPENCV_10, (8,), 30, number),
            Step(SERVICE_1, (32, 8, 1) if is_first else (8,), 30, number, is_filled=True),
            Step(FPS_1, (8,), 30, number),
            Step(OPENCV_1, (8,), 30, number),
        ]
        if is_first:
            steps += [Step(FPS_10, (8,), 30, number), Step(NOKEY, (8,), 30, number)]
    return steps


def quick_plan() -> list[Step]:
    """A look, for development: windows too short to be quoted."""
    steps = [Step(SERVICE_10, (8, 1), 20, 1), Step(SERVICE_1, (8,), 10, 1)]
    return steps + [
        Step(peer, (4 if peer.command is peers.opencv else 8,), 10, 1) for peer in CONTENDERS if peer.command
    ]


def narrowed(
    steps: list[Step], only: list[str], streams: tuple[int, ...] | None, seconds: float | None
) -> list[Step]:
    """As the command line asks: contenders by a part of their name, other numbers of streams, another window."""
    kept = [step for step in steps if not only or any(word in step.contender.name for word in only)]
    if streams:  # one step for each contender and round is enough then, and nothing is to be found out before
        kept = list({(step.contender.name, step.round): step for step in kept if step.round != LOOK}.values())
    return [
        Step(
            step.contender,
            tuple(sorted(streams, reverse=True)) if streams else step.streams,
            seconds or step.seconds,
            step.round,
            step.is_filled,
        )
        for step in kept
    ]


def fitting(streams: int, cpu_per_stream: float, cores: int) -> int:
    """So many of them as leave the machine room, at least one. `cpu_per_stream` is a share of one core."""
    return max(1, min(streams, int(FULL_SHARE * cores / (cpu_per_stream + _SERVER_CPU))))
