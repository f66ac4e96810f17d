"""A decoder whose faults are in its data: how late, in which order, whether at all, with or without an error."""

import heapq
import json
from dataclasses import asdict, dataclass
from typing import cast

from av.video.frame import VideoFrame

from streams.engine.errors import Undecodable


@dataclass(frozen=True, slots=True)
class Script:
    """One picture. `shown`: its place in order of presentation. `fault`: corrupt, refused, nothing or none ("")."""

    shown: int
    fault: str = ""

    @property
    def data(self) -> bytes:
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True, slots=True)
class ScriptedFrame:
    """What of a frame the engine looks at before it scores it."""

    pts: int
    shown: int
    is_corrupt: bool
    width: int = 160
    height: int = 120


class ScriptedDecoder:
    """Holds `delay` frames for re-ordering. Refuses to do more than `steps`: so that no test runs for ever."""

    def __init__(self, delay: int = 0, steps: int = 100_000, *, drain_fails: bool = False) -> None:
        self.given: list[int] = []
        self._delay, self._steps, self._drain_fails = delay, steps, drain_fails
        self._held: list[tuple[int, int, bool]] = []

    def decode(self, data: bytes, number: int) -> list[VideoFrame]:
        self.given.append(number)
        assert len(self.given) <= self._steps, "it decodes for ever"
        script = Script(**json.loads(data))
        if script.fault == "refused":
            raise Undecodable
        if script.fault != "nothing":
            heapq.heappush(self._held, (script.shown, number, script.fault == "corrupt"))
        return [self._next() for _ in range(len(self._held) - self._delay)]

    def drain(self) -> list[VideoFrame]:
        if self._drain_fails:
            raise Undecodable
        return [self._next() for _ in range(len(self._held))]

    def begin_anew(self) -> None:
        self._held.clear()

    def _next(self) -> VideoFrame:
        shown, number, is_corrupt = heapq.heappop(self._held)
        return cast(VideoFrame, ScriptedFrame(number, shown, is_corrupt))
