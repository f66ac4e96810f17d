"""One RTSP connection as packets, with PyAV: the only file that opens a container."""

from __future__ import annotations

import errno
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Protocol, Self, cast

import av
import av.error
import av.logging
from av.container import InputContainer
from av.packet import Packet as AvPacket
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from . import errors
from .access_unit import continues_picture
from .address import Address
from .resolver import resolve

# Longest silence of the socket, at connecting and after. While packets are read libav takes the first time-out for
# the end of a frame and reports the second: a stalled camera is noticed after twice this.
SOCKET_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 2.0
MICROSECOND = 1_000_000
# `fpsprobesize` 0: do not count frames to guess a rate. Time to open a 25 fps feed: 1.1 s with it, 0.3 s without.
OPTIONS = {
    "timeout": str(int(SOCKET_TIMEOUT_S * MICROSECOND)),
    "allowed_media_types": "video",
    "protocol_whitelist": "rtsp,rtp,tcp,udp,tls",
    "fpsprobesize": "0",
}
_MICROSECONDS = Fraction(1, MICROSECOND)
_STATUS = re.compile(r"method (\w+) failed: (\d{3})")
# libav has an error of its own for these, and one for all the rest.
_STATUS_OF: dict[type[av.error.FFmpegError], int] = {
    av.error.HTTPBadRequestError: 400,
    av.error.HTTPUnauthorizedError: 401,
    av.error.HTTPForbiddenError: 403,
    av.error.HTTPNotFoundError: 404,
}
# RFC 2326 section 7.1.1
_BY_STATUS: dict[int, type[errors.CaptureError]] = {
    401: errors.AuthRefused,
    403: errors.AuthRefused,
    404: errors.NotFound,
    453: errors.CameraFull,
    503: errors.CameraFull,
}


@dataclass(frozen=True, slots=True)
class Packet:
    """One picture as it came: undecoded. `pts_s` counts from an arbitrary moment and may be missing or wrong."""

    data: AvPacket[VideoStream]
    pts_s: float | None
    duration_s: float
    is_key: bool
    is_damaged: bool
    arrived_at: float
    """Wall clock, seconds since 1970 UTC."""
    arrived_s: float
    """Monotonic clock, seconds."""


@dataclass(frozen=True, slots=True)
class Video:
    codec: str
    width: int
    height: int


class Decoder(Protocol):
    def decode(self, packet: Packet, stream_us: int) -> list[VideoFrame]:
        """Frames in order of presentation, each with `pts` in microseconds of stream time.

        Raises Undecodable for a packet that the decoder refuses; it may be fed the next one.
        """


class Feed(Decoder, Protocol):
    video: Video

    def packets(self) -> Iterator[Packet]:
        """Each picture once, in order of arrival. Ends by an error: Stalled or Closed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


Opener = Callable[[Address, str], Feed]


class RTSPFeed:
    """An open RTSP session. Leaving the context sends TEARDOWN."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream
        self._context = stream.codec_context
        # A recorder has one feed and no hurry: decoder threads would only hold frames.
        self._context.thread_type = "NONE"
        self._context.thread_count = 1
        self.video = Video(self._context.name, self._context.width, self._context.height)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(av.error.FFmpegError):
            self._container.close()

    def packets(self) -> Iterator[Packet]:
        """One packet a picture: what libav's parser cut apart is joined, so each is held until the next begins."""
        held: list[AvPacket[VideoStream]] = []
        arrived = (time.time(), time.monotonic())
        for packet in self._demux():
            if held and not continues_picture(self.video.codec, memoryview(packet)):
                yield self._packet(held, *arrived)
                held = []
            if not held:
                arrived = (time.time(), time.monotonic())
            held.append(packet)

    def decode(self, packet: Packet, stream_us: int) -> list[VideoFrame]:
        packet.data.time_base = _MICROSECONDS
        packet.data.pts = packet.data.dts = stream_us
        try:
            return self._context.decode(packet.data)
        except av.error.FFmpegError as error:
            raise errors.Undecodable(f"The decoder refused a packet: {error.strerror}.") from None

    def _demux(self) -> Iterator[AvPacket[VideoStream]]:
        has_begun = False
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:  # PyAV ends a stream with an empty packet
                    has_begun = True
                    yield packet
        except av.error.FFmpegError as error:
            raise _read_error(error, has_begun) from None
        raise errors.Closed

    def _packet(self, parts: list[AvPacket[VideoStream]], arrived_at: float, arrived_s: float) -> Packet:
        first, last = parts[0], parts[-1]
        data = first if len(parts) == 1 else _joined(parts)
        base = float(last.time_base) if last.time_base else 0.0
        return Packet(
            data=data,
            pts_s=None if last.pts is None else last.pts * base,
            duration_s=(last.duration or 0) * base,
            is_key=first.is_keyframe,
            is_damaged=any(part.is_corrupt for part in parts),
            arrived_at=arrived_at,
            arrived_s=arrived_s,
        )


def open_feed(address: Address, transport: str) -> RTSPFeed:
    """Connect, describe, set up and play. Raises a CaptureError; no text of one holds a credential.

    `transport` is tcp or udp.
    """
    resolve(address)
    container = _open(address, transport)
    stream = next(iter(container.streams.video), None)
    if stream is None:
        container.close()
        raise errors.NoVideo
    if not _has_decoder(stream):
        container.close()
        raise errors.Undecodable
    return RTSPFeed(container, stream)


def _has_decoder(stream: VideoStream) -> bool:
    """PyAV's stubs do not say that the context may be None."""
    return stream.codec_context is not None


def _open(address: Address, transport: str) -> InputContainer:
    options = {**OPTIONS, "rtsp_transport": transport}
    av.logging.set_skip_repeated(False)  # the same refusal twice is told twice
    av.logging.set_level(av.logging.ERROR)  # libav tells the status that a camera answered only in its log
    try:
        with av.logging.Capture() as log:
            return av.open(address.url(), format="rtsp", options=options, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise _open_error(error, _refusal(error, log), address) from None
    finally:
        av.logging.set_level(None)


def _joined(parts: list[AvPacket[VideoStream]]) -> AvPacket[VideoStream]:
    whole = cast("AvPacket[VideoStream]", av.Packet(b"".join(bytes(part) for part in parts)))
    whole.is_keyframe = parts[0].is_keyframe
    return whole


def _refusal(error: av.error.FFmpegError, log: list[tuple[int, str, str]]) -> tuple[str, int] | None:
    """The method that the camera refused and its status, "" and 0 if libav does not tell; None if nothing was."""
    if not isinstance(error, (av.error.HTTPError, av.error.HTTPClientError)):
        return None
    found = [match.groups() for _, _, message in log if (match := _STATUS.search(message))]
    return (found[-1][0], int(found[-1][1])) if found else ("", _STATUS_OF.get(type(error), 0))


def _open_error(
    error: av.error.FFmpegError, refusal: tuple[str, int] | None, address: Address
) -> errors.CaptureError:
    if refusal:
        return _refused(*refusal)
    if isinstance(error, av.error.ConnectionRefusedError):
        return errors.Unreachable()
    if error.errno == errno.EPROTONOSUPPORT:  # libav's word for 461
        return errors.Refused("The camera refuses this transport: try the other one, tcp or udp.")
    # libav's words for no answer: to DESCRIBE and SETUP, to connecting, to PLAY
    if isinstance(error, (av.error.InvalidDataError, av.error.TimeoutError, av.error.PermissionError)):
        return _diagnose(address)
    return errors.Unreachable(f"No connection to the camera: {error.strerror}.")


def _refused(method: str, status: int) -> errors.CaptureError:
    if status in _BY_STATUS:
        return _BY_STATUS[status]()
    if method == "PLAY" and status in (454, 455):  # nothing was set up, since no track is video
        return errors.NoVideo()
    return errors.Refused(f"The camera refused {method or 'the request'} with status {status}." if status else "")


def _diagnose(address: Address) -> errors.CaptureError:
    """Tell a silent camera from a port that speaks another protocol: libav calls both invalid data."""
    try:
        with socket.create_connection((address.host, address.port), PROBE_TIMEOUT_S) as probe:
            probe.sendall(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n")
            answer = probe.recv(5)
    except TimeoutError:
        return errors.ConnectTimeout()
    except OSError:
        return errors.Unreachable()
    if answer.startswith(b"RTSP/") or not answer:
        return errors.ConnectTimeout()
    return errors.NotRTSP()


def _read_error(error: av.error.FFmpegError, has_begun: bool) -> errors.CaptureError:
    if isinstance(error, av.error.TimeoutError):
        return errors.Stalled() if has_begun else errors.ConnectTimeout()
    if isinstance(error, av.error.MemoryError):
        return errors.Undecodable("The stream asks for more memory than a recorder has.")
    return errors.Closed()
