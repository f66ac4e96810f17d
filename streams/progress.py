"""What is seen of a capture while it runs: a bar at a terminal, lines in a log. On standard error."""

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Never, Protocol

from tqdm import tqdm

from .engine.report import State, Status
from .engine.solo import Solo


class Progress(Protocol):
    def show(self, capture: Solo, elapsed_s: float) -> None: ...

    def close(self) -> None: ...


class Silence:
    def show(self, capture: Solo, elapsed_s: float) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """One for each change of state, in the words of the service's log."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._last: Status | None = None
        self._replaced = 0

    def show(self, capture: Solo, elapsed_s: float) -> None:
        for reason in capture.replace_reasons[self._replaced :]:
            self._replaced += 1
            self._say(f"recorder replaced reason={reason!r}")
        if capture.status != self._last:
            self._last = capture.status
            self._say(line(capture.status))

    def close(self) -> None:
        pass


class Bar:
    """Where the capture stands, written anew in place; each failure stays above it as a line."""

    def __init__(self, duration_s: float | None) -> None:
        # tqdm counts what it is told; time passes in any case, so that is what fills the bar.
        layout = "{desc}" if duration_s is None else "{desc} |{bar}| {n:.0f}/{total:g} s"
        size = shutil.get_terminal_size()  # 80 x 24 for a terminal that does not say; tqdm would show nothing there
        self._bar: tqdm[Never] = tqdm(
            total=duration_s,
            bar_format=layout,
            file=sys.stderr,
            ncols=size.columns,
            nrows=size.lines,
            leave=False,
            mininterval=0,
        )
        self._duration_s = duration_s
        self._last: Status | None = None

    def show(self, capture: Solo, elapsed_s: float) -> None:
        status = capture.status
        if status != self._last and status.error_code:
            with suppress(OSError):  # the terminal was closed; what the bar itself writes tqdm guards
                self._bar.write(f"{status.error_code}: {printable(status.error_text)}", file=sys.stderr)
        self._last = status
        self._bar.n = elapsed_s if self._duration_s is None else min(elapsed_s, self._duration_s)
        seconds = "" if self._duration_s is not None else f"{elapsed_s:.0f} s, "
        self._bar.set_description_str(f"{_words(status)}: {seconds}{_figures(capture)}")

    def close(self) -> None:
        self._bar.close()


def line(status: Status) -> str:
    """As the supervisor logs it."""
    words = status.state.value
    if status.video:
        words += f" codec={status.video.codec} size={status.video.width}x{status.video.height}"
    if status.error_code:
        words += f" error={status.error_code} attempt={status.attempt} next_attempt_s={_wait_s(status):.1f}"
        words += f" words={status.error_text!r}"
    for notice in status.notices:
        words += f" notice={notice.value}"
    return words


def printable(text: str) -> str:
    """A camera's words may be among it: nothing of them may steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _words(status: Status) -> str:
    if status.state is not State.RECONNECTING:
        return status.state.value
    return f"reconnecting in {_wait_s(status):.0f} s (attempt {status.attempt})"


def _figures(capture: Solo) -> str:
    pictures = capture.pictures
    best = f", best {pictures[0].score:.1f}" if pictures else ""
    samples = capture.counters.samples
    return f"{samples} sample{'' if samples == 1 else 's'}{best}"


def _wait_s(status: Status) -> float:
    return max(0.0, (status.next_attempt_at or 0.0) - time.time())
