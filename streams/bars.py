"""Shows the progress of a long command on standard error: a bar at a terminal, else a line for each step."""

from contextlib import suppress
from typing import Never

from django.core.management.base import OutputWrapper
from tqdm import tqdm

from .terminal import mention


class Bars:
    def __init__(self, stderr: OutputWrapper) -> None:
        self._stderr = stderr
        self._bar: tqdm[Never] | None = None

    def begin(self, what: str, total: int) -> None:
        self.close()
        if self._stderr.isatty():
            self._bar = tqdm(total=total, desc=what, leave=False)
        else:
            mention(self._stderr, f"{what}: {total}")

    def advance(self, count: int = 1) -> None:
        if self._bar is not None:
            self._bar.update(count)

    def close(self) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()
            self._bar = None
