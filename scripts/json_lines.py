#!/usr/bin/env python3
"""Runs a command and writes each of its lines as one JSON object: serve.sh runs itself so with LOG_FORMAT=json.

json_lines.py COMMAND ...

Most lines are objects already and pass unchanged. The rest comes from programs that know no JSON: the shell, an
interpreter that starts or dies, C libraries. Signals go to the command, and its exit status is passed on. A reader of
the output that goes away does not end the command.
"""

import ctypes
import json
import math
import os
import re
import select
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime

LAST_WORDS_S = 1.0  # what the command left behind may hold its output open
TRACEBACK_S = 0.5  # lines of one traceback come together
LONGEST = 1 << 20  # a line without an end is cut here, so that it takes no more memory
PR_SET_PDEATHSIG = 1  # prctl.h
BEGIN = "Traceback (most recent call last):"
GO_ON = ("During handling of the above", "The above exception was", BEGIN)
# As sd-daemon has it: serve.sh marks its lines with a priority.
MARK = re.compile(r"<([0-7])>")
FAULT = re.compile(r"\w*Error: ")  # CommandError and the like
LEVELS = ("CRITICAL", "CRITICAL", "CRITICAL", "ERROR", "WARNING", "INFO", "INFO", "DEBUG")


class Lines:
    """One output of the command."""

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self._sink = sink
        self._rest = b""
        self._trace: list[str] = []

    def read(self) -> bool:
        """Whether more may come."""
        try:
            data = os.read(self.source, 1 << 16)
        except BlockingIOError:
            return True
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._rest) > LONGEST:
            self._take(self._rest)
            self._rest = b""
        return bool(data)

    def end(self) -> None:
        if self._rest:
            self._take(self._rest)
            self._rest = b""
        self.flush()

    def flush(self) -> None:
        """The traceback that is being read is all there is of it."""
        if self._trace:
            trace, self._trace = self._trace, []
            ends = [line for line in trace if _ends_traceback(line)]
            self._say("ERROR", "python", ends[-1] if ends else trace[0], traceback="\n".join(trace).rstrip())

    def _take(self, line: bytes) -> None:
        if _is_object(line):
            self._write(line + b"\n")
            return
        text = line.decode(errors="replace").rstrip()
        if self._trace:
            if not text or text.startswith(GO_ON) or not _ends_traceback([line for line in self._trace if line][-1]):
                self._trace.append(text)
                return
            self.flush()
        if text.startswith(BEGIN):
            self._trace = [text]
        elif text:
            mark = MARK.match(text)
            level = LEVELS[int(mark[1])] if mark else "ERROR" if FAULT.match(text) else "INFO"
            words = text[mark.end() :] if mark else text
            is_own = words.startswith("serve: ")
            self._say(level, "serve" if is_own else "output", words.removeprefix("serve: "))

    def _say(self, level: str, logger: str, event: str, **more: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "level": level, "logger": logger, "event": event, **more}
        self._write(json.dumps(line).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        with suppress(OSError):  # nobody reads it any more; the command goes on
            while data:
                data = data[os.write(self._sink, data) :]


def _ends_traceback(line: str) -> bool:
    """Whether it is the line that names the exception."""
    return bool(line) and not line[0].isspace() and not line.startswith(GO_ON)


def _is_object(line: bytes) -> bool:
    if not line.startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


class Command:
    """The command, its two outputs and its end. Zombies are reaped: in a container this is process 1."""

    def __init__(self, arguments: list[str]) -> None:
        outputs = (os.pipe(), os.pipe())
        self.pid = os.fork()
        if self.pid == 0:
            _become(arguments, outputs[0][1], outputs[1][1])
        self.status: int | None = None
        self.lines = []
        for (source, target), sink in zip(outputs, (1, 2), strict=True):
            os.close(target)
            os.set_blocking(source, False)
            self.lines.append(Lines(source, sink))

    def signal(self, number: int, _: object) -> None:
        if self.status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def reap(self) -> None:
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self.pid:
                    self.status = os.waitstatus_to_exitcode(found[1])

    def follow(self) -> int:
        open_lines = list(self.lines)
        limit_s = math.inf
        while open_lines and time.monotonic() < limit_s:
            ready, _, _ = select.select([one.source for one in open_lines], [], [], TRACEBACK_S)
            for one in list(open_lines):
                if one.source not in ready:
                    one.flush()
                elif not one.read():
                    open_lines.remove(one)
            self.reap()
            if self.status is not None:
                limit_s = min(limit_s, time.monotonic() + LAST_WORDS_S)
        for one in self.lines:
            one.end()
        while self.status is None:
            found = os.waitpid(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(found[1])
        return self.status


def _become(arguments: list[str], output: int, errors: int) -> None:
    """In the child. It is told to stop should this program be killed; Ctrl-C reaches it from here, once."""
    try:
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and so would the command
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.closerange(3, 256)
        os.execvp(arguments[0], arguments)  # noqa: S606  # no shell
    except OSError as error:
        os.write(2, f"<3>serve: cannot run {arguments[0]}: {error.strerror}\n".encode())
    os._exit(127)


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    command = Command(sys.argv[1:])
    for number in numbers:
        signal.signal(number, command.signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    status = command.follow()
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(main())
