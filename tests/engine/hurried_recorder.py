"""A recorder's main function whose patience is short: for cameras that would try it for minutes.

Named by the test in place of streams.engine.recorder.record; the fork server imports them by these names.
"""

import socket

from streams.engine import feed, recorder, recording, rtsp, session
from streams.engine.report import Seed, Settings

record_as_ever = recorder.record


def record(settings: Settings, seed: Seed, link: socket.socket) -> None:
    feed.SILENCE_S = feed.NO_PICTURE_S = feed.FIRST_PACKET_S = 1.0
    feed.PICTURE_GRACE_S = 0.0
    rtsp.SOCKET_TIMEOUT_S = rtsp.ANSWER_S = 1.0
    session.FRAME_S = session.KEY_FRAME_S = 1.0
    # The watch lets it be: on a busy machine a flood that has come is read slowly.
    session.OPEN_S = session.HANG_S = session.DECODE_S = session.CLOSE_S = 60.0
    record_as_ever(settings, seed, link)


def record_soon_heavy(settings: Settings, seed: Seed, link: socket.socket) -> None:
    """On a busy machine nobody has half a core."""
    recording.HEAVY_S, recording.HEAVY_SHARE = 2.0, 0.05
    record_as_ever(settings, seed, link)
