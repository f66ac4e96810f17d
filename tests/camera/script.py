"""What all clients of one camera share: its clip, its fault of the moment, the record of what they asked."""

import asyncio
from dataclasses import dataclass, field

from tests.camera.auth import Guard
from tests.camera.clip import Clip
from tests.camera.faults import Fault


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; `at_s` is time.monotonic(). Status 0: it was not answered."""

    at_s: float
    method: str
    uri: str
    status: int
    has_authorization: bool


@dataclass(frozen=True, slots=True)
class Sent:
    """One picture as a client got it; `connection` counts from 1. For `number` see Moment.

    `width_px` and `index` (in the clip, in order of presentation) tell how it looks.
    `is_whole`: no packet of it was left out or damaged.
    """

    connection: int
    number: int
    width_px: int
    index: int
    is_key: bool
    is_whole: bool


@dataclass(frozen=True, slots=True, eq=False)
class Act:
    """A fault with the clip that it needs. Compared by identity: each setting of a fault is a new act."""

    fault: Fault
    clip: Clip
    next_clip: Clip | None

    @property
    def first_clip(self) -> Clip:
        """For those who come now."""
        return self.next_clip if self.next_clip and not self.fault.amount else self.clip


@dataclass(slots=True)
class Script:
    act: Act
    path: str
    guard: Guard
    is_guarded: bool
    is_looping: bool
    is_live: bool
    session_timeout_s: float | None
    began_at_s: float = 0.0
    requests: list[Asked] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    connections: int = 0
    teardowns: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def change(self, act: Act) -> None:
        """In the event loop's thread."""
        self.act = act
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def until_changed(self, act: Act) -> None:
        while self.act is act:
            await self._changed.wait()

    def timeout_s(self) -> float | None:
        """How long a session may be without a request; None: for ever."""
        fault = self.act.fault
        return fault.amount if fault.has_session_timeout else self.session_timeout_s
