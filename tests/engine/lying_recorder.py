"""A recorder's main function that somebody else has taken over: says to its supervisor what none says.

Named by the test in place of streams.engine.recorder.record; the fork server imports it by this name. The path of
its camera's address is the lie.
"""

import itertools
import json
import os
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np

from streams.engine.notices import Notice
from streams.engine.report import Seed, Settings, Status
from streams.engine.sheet import encode_jpeg
from streams.engine.wire import Changed, encode

from .builders import a_picture, a_report


def record(settings: Settings, seed: Seed, link: socket.socket) -> None:
    with suppress(OSError):
        _LIES[settings.address.path.strip("/")](link)
        signal.pause()
    os._exit(0)


def _for_ever(data: bytes) -> Callable[[socket.socket], None]:
    def say(link: socket.socket) -> None:
        while True:
            link.sendall(data * 1000)

    return say


def _once(data: bytes) -> Callable[[socket.socket], None]:
    def say(link: socket.socket) -> None:
        link.recv(65_536)  # once it is asked
        link.sendall(data)

    return say


def _without_rest(link: socket.socket) -> None:
    """Each answer is another one, and with each it has news."""
    for number in itertools.count(1):
        link.recv(65_536)
        report = a_report()
        told = replace(report, counters=replace(report.counters, samples=number))
        link.sendall(encode(told) + encode(Changed()))


def _die_of(number: int) -> Callable[[socket.socket], None]:
    return lambda _: os.kill(os.getpid(), number)


_DEEP = json.dumps({"type": "report"}).encode()[:-1] + b', "x": ' + b"[" * 100_000
_PICTURE = encode_jpeg(np.zeros((120, 160, 3), np.uint8), 90)
_LIES: dict[str, Callable[[socket.socket], None]] = {
    "huge": _once(struct.pack("!II", 1 << 31, 0)),
    "large": _once(struct.pack("!II", 100, 1 << 28)),
    "deep": _once(struct.pack("!II", len(_DEEP), 0) + _DEEP),
    "unasked": _for_ever(encode(a_report())),
    "changed": _for_ever(encode(Changed())),
    "forged": _once(encode(a_report(a_picture(jpeg=b"<script>alert(1)</script>")))),
    "crowded": _once(encode(replace(a_report(), board=tuple((number, 1.0) for number in range(1, 200))))),
    "hidden": _once(encode(replace(a_report(a_picture(jpeg=_PICTURE)), board=()))),
    "insistent": _once(encode(a_report(status=Status(notices=(Notice.FROZEN,) * 1000)))),
    "restless": _without_rest,
    "killed": _die_of(signal.SIGKILL),
    "crashed": _die_of(signal.SIGSEGV),
    "aborted": _die_of(signal.SIGABRT),
    "held": _die_of(signal.SIGALRM),
    "full": lambda _: os._exit(12),
    "gone": lambda _: os._exit(0),
    "silent": lambda _: None,
}
