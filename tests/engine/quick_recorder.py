"""A recorder's main function whose waits between connections are short: for a test of hundreds of them.

Named by the test in place of streams.engine.recorder.record; the fork server imports it by this name.
"""

import socket

from streams.engine import backoff, recorder
from streams.engine.report import Seed, Settings

WAIT_S = 0.01
record_as_ever = recorder.record


def record(settings: Settings, seed: Seed, link: socket.socket) -> None:
    backoff.LADDERS.update(dict.fromkeys(backoff.LADDERS, (WAIT_S, WAIT_S)))
    record_as_ever(settings, seed, link)
