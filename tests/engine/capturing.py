"""A real session in a thread of its own, against a real server, with all that its status said on the way."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from streams.engine.address import parse
from streams.engine.backoff import Backoff
from streams.engine.clock import Clock, SystemClock
from streams.engine.report import Report, State, Status
from streams.engine.session import Session
from tests.camera.viewer import wait_until

from .builders import settings

LIMIT_S = 60.0  # for a machine that is loaded; the longest thing waited for takes 20 s
WAIT_S = 0.05  # in place of each wait between two connections


class FastClock(SystemClock):
    """Waits are real; all that is measured by it seems to take `factor` times as long."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def monotonic(self) -> float:
        return super().monotonic() * self._factor


@dataclass
class Capture:
    session: Session
    thread: threading.Thread = field(init=False)
    statuses: list[Status] = field(default_factory=list)
    ends: Callable[[Status], bool] = lambda status: False
    """Whether this status is the last one: then the session stops itself, before it connects again."""
    _told: int = 0

    def note(self) -> None:
        self.statuses.append(self.session.report().status)
        if self.ends(self.statuses[-1]):
            self.session.stop.set()

    @property
    def report(self) -> Report:
        return self.session.report()

    @property
    def samples(self) -> int:
        return self.report.counters.samples

    @property
    def codes(self) -> list[str]:
        """Of the errors, each as often as it came."""
        return [status.error_code for status in self.statuses if status.error_code]

    def until(self, holds: Callable[[Report], bool]) -> Report:
        """Raises TimeoutError, and AssertionError where the session has ended without it."""
        wait_until(lambda: holds(self.report) or not self.thread.is_alive(), LIMIT_S)
        report = self.report
        assert holds(report), f"the session has ended: {report.status}"
        return report

    def until_failed(self) -> str:
        """The code of the next error that was not told yet."""
        self.until(lambda report: len(self.codes) > self._told)
        self._told += 1
        return self.codes[self._told - 1]

    def until_it_goes_on(self) -> Report:
        """Samples again, by the same session."""
        before = self.samples
        return self.until(
            lambda report: report.status.state is State.CAPTURING and report.counters.samples > before + 1
        )


@contextmanager
def capturing(
    url: str,
    *,
    interval_s: float = 0.2,
    count: int = 9,
    verify_certificate: bool = True,
    clock: Clock | None = None,
    ends: Callable[[Status], bool] = lambda status: False,
) -> Iterator[Capture]:
    """Ends with the block; raises AssertionError where the session does not end when told to."""
    session = Session(
        replace(settings(parse(url), interval_s=interval_s, count=count), verify_certificate=verify_certificate),
        clock=clock,
        backoff=Backoff(uniform=lambda low, high: WAIT_S),
        on_change=lambda: capture.note(),
    )
    capture = Capture(session, ends=ends)
    capture.thread = threading.Thread(target=session.run, name="session", daemon=True)
    capture.thread.start()
    try:
        yield capture
    finally:
        session.stop.set()
        capture.thread.join(LIMIT_S)
        assert not capture.thread.is_alive(), "the session does not stop"
