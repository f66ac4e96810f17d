"""What must not reach the log, whoever writes it and whichever handler takes it."""

import logging
import re
import sys
import threading
import traceback
import warnings
from types import TracebackType
from typing import Any

from streams.engine.masking import mask

from . import json_log

_FORMAT_WARNING = warnings.formatwarning


class WithoutQuery(logging.Filter):
    """Cuts the query off an access line: somebody may have put a camera's address there."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(re.sub(r"\?\S*", "?...", arg) if isinstance(arg, str) else arg for arg in record.args)
        return True


class Refused(logging.Filter):
    """What Django refuses, as for a wrong Host, is a short line, not a traceback: anybody can send it all day."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("django.security."):
            record.msg, record.args, record.exc_info = record.getMessage()[:300], None, None
        return True


class WithoutDatabaseTraceback(logging.Filter):
    """A database that is away, full or locked is one line, whatever was done with it: the place is no matter."""

    def filter(self, record: logging.LogRecord) -> bool:
        from django.db import Error  # not needed before Django is set up

        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, Error):
            words = " ".join(str(error).split())[:300]
            record.msg, record.args = f"{record.getMessage()} error={type(error).__name__} words={words!r}", None
            record.exc_info = record.exc_text = None
        return True


class Masked(logging.Formatter):
    """Masks the whole line, with its traceback and whatever else the format has."""

    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


class MaskedRecord(logging.LogRecord):
    """Masked whatever formats it: gunicorn and django-q bring handlers of their own. Its traceback is masked as it is
    kept, which every formatter does before it writes it."""

    def getMessage(self) -> str:
        return mask(super().getMessage())

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("exc_text", "stack_info") and isinstance(value, str):
            value = mask(value)
        super().__setattr__(name, value)


def guard(is_json: bool = False) -> None:
    """From here on all that this process says of itself is masked: records, warnings, the last words of a fault."""
    logging.setLogRecordFactory(MaskedRecord)
    if is_json:
        json_log.guard()
        return
    warnings.formatwarning = _format_warning
    sys.excepthook = _say_last_words
    threading.excepthook = _say_of_thread
    sys.unraisablehook = _say_of_unraisable


def _format_warning(*given: Any, **also: Any) -> str:
    return mask(_FORMAT_WARNING(*given, **also))


def _say_last_words(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None, where: str = ""
) -> None:
    if sys.stderr:
        sys.stderr.write(where + mask("".join(traceback.format_exception(kind, error, trace))))


def _say_of_thread(given: threading.ExceptHookArgs) -> None:
    if given.exc_type is not SystemExit:
        name = given.thread.name if given.thread else "?"
        _say_last_words(given.exc_type, given.exc_value, given.exc_traceback, f"Exception in thread {name}:\n")


def _say_of_unraisable(given: "sys.UnraisableHookArgs") -> None:
    where = f"{given.err_msg or 'Exception ignored'}:\n"
    _say_last_words(given.exc_type, given.exc_value, given.exc_traceback, where)
