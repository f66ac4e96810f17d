"""LOG_FORMAT=json: each record is one line with one JSON object, with the events and keys of the text.

The keys come from the format string of the call (`stream=%s capture=%s queued`), their values from its arguments. No
written line is parsed, so that a stream named `x capture=7` cannot add a key.
"""

import json
import logging
import math
import re
import sys
import threading
import traceback
import warnings
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from streams.engine.masking import mask

# Only these are written with pairs of key and value in the format string.
OURS = ("streams", "rtspsite")
RESERVED = ("time", "level", "logger", "event", "traceback", "stack")
_PLACE = r"%[#0 +-]*\d*(?:\.\d+)?[a-zA-Z]"
# A placeholder with or without a key; a constant value, as in `error=no picture`, goes on up to the next key.
_PART = re.compile(
    rf"(?P<key>\b[a-z]\w*)=(?:(?P<keyed>{_PLACE}(?:\w*{_PLACE})*)|(?P<constant>[^\s%=][^%=]*?)(?=\s+\w+=|$))|(?P<bare>{_PLACE})"
)


class JSONLines(logging.Formatter):
    """Masks each value on its own: a pattern that takes the rest of a line must not take the rest of the object."""

    def format(self, record: logging.LogRecord) -> str:
        event, values = _parts(record)
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": mask(event),
        }
        for key, value in values:
            told.setdefault(f"{key}_" if key in RESERVED else key, _masked(key, value))
        if record.exc_info:
            told["traceback"] = mask(self.formatException(record.exc_info))
        elif record.exc_text:
            told["traceback"] = mask(record.exc_text)
        if record.stack_info:
            told["stack"] = mask(self.formatStack(record.stack_info))
        return _line(told)


def guard() -> None:
    """Warnings and uncaught exceptions of this process are such lines, too."""
    warnings.formatwarning = _format_warning
    sys.excepthook = _say_last_words
    threading.excepthook = _say_of_thread
    sys.unraisablehook = _say_of_unraisable


def _parts(record: logging.LogRecord) -> tuple[str, list[tuple[str, Any]]]:
    """The event, and the values with their keys."""
    is_ours = record.name.partition(".")[0] in OURS and isinstance(record.msg, str)
    try:
        if is_ours and isinstance(record.args, tuple) and record.args and not re.search(r"%[%(*]", record.msg):
            return _taken_apart(record.msg, list(record.args))
        return record.getMessage(), []
    except (IndexError, TypeError, ValueError):  # a wrong call: logging would write a traceback of its own
        return f"{record.msg} {record.args}", []


def _taken_apart(template: str, args: list[Any]) -> tuple[str, list[tuple[str, Any]]]:
    words: list[str] = []
    values: list[tuple[str, Any]] = []
    end = 0
    for part in _PART.finditer(template):
        words.append(template[end : part.start()])
        end = part.end()
        places = re.findall(_PLACE, part["keyed"] or part["bare"] or "")
        given = [args.pop(0) for _ in places]
        if part["bare"]:
            words.append(part["bare"] % given[0])
        elif part["constant"]:
            values.append((part["key"], part["constant"]))
        else:
            values.append((part["key"], _value(part["keyed"], given)))
    if args:
        raise ValueError("more arguments than placeholders")
    words.append(template[end:])
    return " ".join("".join(words).split()), values


def _value(place: str, given: list[Any]) -> Any:
    """A number as the text shows it, rounded; everything else as its text, without the quotes of %r."""
    if len(given) > 1:  # size=%sx%s
        return place % tuple(given)
    value = given[0]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        number = float(place % value) if place[-1] in "efgEFG" else value
        if isinstance(number, float):
            if not math.isfinite(number):
                return str(number)
            return int(number) if place[-1] in "gG" and number.is_integer() else number
        return int(number)
    return str(value)


def _masked(key: str, value: Any) -> Any:
    """With its key, as it stands in the text: `password=` and the like say what is a secret."""
    if value is None or isinstance(value, bool):
        return value
    before, text = f"{key}=", str(value)
    found = mask(before + text)
    masked = found[len(before) :] if found.startswith(before) else found
    return value if masked == text and not isinstance(value, str) else mask(masked)


def _line(told: dict[str, Any]) -> str:
    return json.dumps(told, ensure_ascii=True)


def say(level: str, logger: str, event: str, **values: Any) -> str:
    """A line that no record is the source of."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return _line({"time": now, "level": level, "logger": logger, "event": mask(event), **values}) + "\n"


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return say("WARNING", "py.warnings", str(message), category=category.__name__, file=f"{filename}:{lineno}")


def _say_last_words(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None, where: str = ""
) -> None:
    if sys.stderr:
        short = "".join(traceback.format_exception_only(kind, error)).strip()
        whole = mask("".join(traceback.format_exception(kind, error, trace)))
        sys.stderr.write(say("CRITICAL", "python", where + short, traceback=whole))


def _say_of_thread(given: threading.ExceptHookArgs) -> None:
    if given.exc_type is not SystemExit:
        name = given.thread.name if given.thread else "?"
        _say_last_words(given.exc_type, given.exc_value, given.exc_traceback, f"Exception in thread {name}: ")


def _say_of_unraisable(given: "sys.UnraisableHookArgs") -> None:
    where = f"{given.err_msg or 'Exception ignored'}: "
    _say_last_words(given.exc_type, given.exc_value, given.exc_traceback, where)
