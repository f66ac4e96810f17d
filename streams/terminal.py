"""What commands take from a terminal and say there: numbers in bounds, lines for whoever still listens."""

import argparse
import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from django.core.management.base import CommandError, OutputWrapper

from .exits import Exit

T = TypeVar("T", int, float)
# A pipe without a reader (`| head`), a terminal that was closed.
_NOBODY_LISTENS = (errno.EPIPE, errno.EIO)


def within(least: float, most: float, kind: Callable[[str], T], words: str) -> Callable[[str], T]:
    """For argparse: a number from `least` to `most`."""

    def number(text: str) -> T:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be {words} from {least:.12g} to {most:.12g}")
        return value

    return number


def say(stream: OutputWrapper, line: str) -> None:
    """The answer. That nobody listens is no failure of what was done; a full disk is: raises CommandError."""
    try:
        _write(stream, line)
    except OSError as error:
        if error.errno not in _NOBODY_LISTENS:
            words = f"Standard output cannot be written: {error.strerror}."
            raise CommandError(words, returncode=Exit.CANNOT_WRITE) from None


def mention(stream: OutputWrapper, line: str) -> None:
    """What goes beside the answer: lost or not, the work goes on."""
    with suppress(OSError):
        _write(stream, line)


def _write(stream: OutputWrapper, line: str) -> None:
    try:
        stream.write(line, style_func=str)
        stream.flush()
    except OSError:
        _silence(stream)
        raise


def _silence(stream: OutputWrapper) -> None:
    """What waits in its buffer would fail once more when the program ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
