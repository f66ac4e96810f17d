"""Clips as feeds: real packets, demuxed from a file, with times that a test has chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
from av.packet import Packet as AvPacket
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streams.engine import errors
from streams.engine.feed import MICROSECOND, Packet, Video

WALL_S = 1_700_000_000.0
"""Wall clock at monotonic 0 of all clips."""


class ClipDecoder:
    """Decodes a clip's packets, as the engine's feed does."""

    def __init__(self, path: Path) -> None:
        self._container = av.open(path)
        self._stream = self._container.streams.video[0]
        self._context = self._stream.codec_context
        self._context.thread_type = "NONE"
        self.decoded = 0

    def read(self) -> Iterator[Packet]:
        """Timestamps as filmed; each packet arrives when its turn has come, at a steady pace."""
        rate = float(self._stream.average_rate or 1)
        packets = (packet for packet in self._container.demux(self._stream) if packet.size)
        for index, packet in enumerate(packets):
            pts_s = None if packet.pts is None else float(packet.pts * packet.time_base)
            arrived_s = index / rate
            yield Packet(
                packet, pts_s, 1 / rate, packet.is_keyframe, packet.is_corrupt, WALL_S + arrived_s, arrived_s
            )

    def decode(self, packet: Packet, stream_us: int) -> list[VideoFrame]:
        packet.data.time_base = Fraction(1, MICROSECOND)
        packet.data.pts = packet.data.dts = stream_us
        self.decoded += 1
        try:
            return self._context.decode(packet.data)
        except av.error.FFmpegError:
            raise errors.Undecodable from None

    def close(self) -> None:
        self._container.close()


class ClipFeed(ClipDecoder):
    """A connection that plays a clip, or `shown` in its place, then ends by an error."""

    def __init__(self, path: Path, ends_by: errors.CaptureError | None = None) -> None:
        super().__init__(path)
        self.video = Video(self._context.name, self._context.width, self._context.height)
        self._ends_by = ends_by or errors.Closed()
        self.shown: Iterable[Packet] | None = None
        self.is_left = False

    def packets(self) -> Iterator[Packet]:
        yield from self.read() if self.shown is None else self.shown
        raise self._ends_by

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_left = True
        self.close()


def a_packet(data: bytes = b"", *, is_key: bool = False) -> AvPacket[VideoStream]:
    packet = cast("AvPacket[VideoStream]", av.Packet(data))
    packet.is_keyframe = is_key
    return packet


def later(packet: Packet, by_s: float) -> Packet:
    """The same packet, stamped and arriving so much later."""
    pts_s = None if packet.pts_s is None else packet.pts_s + by_s
    return replace(packet, pts_s=pts_s, arrived_s=packet.arrived_s + by_s, arrived_at=packet.arrived_at + by_s)
