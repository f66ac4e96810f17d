"""A recorder over many forced reconnects: its memory, descriptors and threads stay what they were after the tenth.

`make soak` has 300 of them, a plain test run 30 (SOAK_RECONNECTS).
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from streams.engine import recorder
from streams.engine.address import parse
from streams.engine.recorder import RecorderProcess
from streams.engine.report import Seed, State
from tests.camera.clip import Scene
from tests.camera.proxy import Proxy
from tests.camera.server import ScriptedCamera

from . import quick_recorder
from .builders import settings
from .test_recorder import Supervisor

RECONNECTS = int(os.environ.get("SOAK_RECONNECTS", "30"))
SETTLED = 10  # reconnects until everything has been loaded and every buffer has had its size
GROWTH_KB_MAX = 5 * 1024
# 720p, so that one forgotten frame (1.4 MB), decoder (10 MB) or JPEG a reconnect would show at once.
SCENE = Scene(1280, 720, (40, 200, 90, 120), fps=25, gop_s=0.2, noise=2.4)


@dataclass(frozen=True, slots=True)
class Footprint:
    pss_kb: int
    anonymous_kb: int
    descriptors: tuple[str, ...]
    threads: int


def footprint(pid: int) -> Footprint:
    sizes = dict(line.split(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    folder = Path(f"/proc/{pid}/fd")
    kinds = sorted(os.readlink(one).partition(":")[0] for one in folder.iterdir())
    return Footprint(
        int(sizes["Pss"].split()[0]),
        int(sizes["Anonymous"].split()[0]),
        tuple(kinds),
        len(list(Path(f"/proc/{pid}/task").iterdir())),
    )


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with ScriptedCamera(SCENE) as camera, Proxy(camera.port) as proxy:
        yield proxy


@pytest.fixture
def supervisor(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """Of a recorder as it is in service, but that its waits are short."""
    monkeypatch.setattr(recorder, "record", quick_recorder.record)
    process = RecorderProcess(settings(parse(proxy.url("demo")), interval_s=0.2), Seed())
    try:
        yield Supervisor(process)
    finally:
        process.end()


def reconnect(supervisor: Supervisor, proxy: Proxy, number: int) -> None:
    """Cut, in one of two ways, and wait for samples of the next connection; its pictures count as saved."""
    before = supervisor.reports[-1].counters
    proxy.cut(with_reset=bool(number % 2))
    capturing = supervisor.ask_until(
        lambda report: (
            report.status.state is State.CAPTURING
            and report.counters.connections > before.connections
            and report.counters.samples > before.samples
        )
    )
    supervisor.ask(frozenset(picture.number for picture in capturing.fresh))


@pytest.mark.timeout(60 + 6 * RECONNECTS)
def test_nothing_grows_over_reconnects(supervisor: Supervisor, proxy: Proxy) -> None:
    supervisor.ask_until(lambda report: report.counters.samples > 0)
    seen: list[Footprint] = []
    for number in range(RECONNECTS):
        reconnect(supervisor, proxy, number)
        seen.append(settled(supervisor, lambda: footprint(supervisor.process.pid)))
    early, late = seen[SETTLED - 1], seen[-1]
    print(f"after {SETTLED}: {early}\nafter {RECONNECTS}: {late}")
    assert late.pss_kb - early.pss_kb < GROWTH_KB_MAX
    assert late.anonymous_kb - early.anonymous_kb < GROWTH_KB_MAX
    assert (late.descriptors, late.threads) == (early.descriptors, early.threads)
    assert supervisor.reports[-1].counters.connections == RECONNECTS + 1


def settled(supervisor: Supervisor, look: Callable[[], Footprint]) -> Footprint:
    """The smallest of some looks: a picture may be on its way to a file or to the supervisor in between."""
    looks: list[Footprint] = []
    for _ in range(3):
        supervisor.ask()
        looks.append(look())
    return min(looks, key=lambda one: one.anonymous_kb)
