"""One connection to a camera as pictures, undecoded, with the moments of their arrival."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from . import deadlines, errors, sizes
from .address import Address
from .clock import Stop
from .decoder import Decoder, LibavDecoder, misfits
from .dialogue import Caution
from .pace import Pace
from .rtp import CodedPicture, Depacketizer, depacketizer
from .rtsp import RTSPSession, open_session

# Longest silence of a camera that plays. Any packet counts as life, not only key frames (kerberos #58).
SILENCE_S = 10.0
# A camera that sends a picture in 12 s is not silent (FIELD 59): so many times the longest of the last distances.
SILENT_DISTANCES, MAX_SILENCE_S = 3, 120.0
# FIRST_PACKET_S is the limit of the second picture as well.
FIRST_PACKET_S, NO_PICTURE_S = deadlines.FIRST_PACKET_S, deadlines.NO_PICTURE_S
# Once the RTSP connection has ended and packets come by UDP nevertheless: no session holds them any more.
DISCONNECTED_S = 2.0
# A picture is given when the next one begins, or when nothing has come for so long.
QUIET_S = 0.25
# Whoever starts a capture waits for its first sample: packets are taken as they come. After that they are taken
# many at a time, which costs a third (docs/engine.md).
EAGER_S = 5.0
BATCH_BYTES, BATCH_S = 512 << 10, 1.0
# NO_PICTURE_S once the pace of pictures is known: so much longer than silence.
PICTURE_GRACE_S = 2.0
# So many pictures of one read are given before more of it is looked at: a million may lie there, of 14 bytes each,
# and each key picture has its parameter sets put before it.
MAX_FOUND, MAX_FOUND_BYTES = 1024, 32 << 20
# While pictures are decoded the socket is emptied this often, so that no camera has to wait for it.
DRAIN_S = 0.1

# JPEG over RTP tells a size of up to 2040 px (RFC 2435 section 3.1.5). Two pictures of another size are no accident.
MAX_OVERFLOWS = 2
UNTOLD_SIZE = (
    "The camera's JPEG pictures are wider or higher than 2040 px, and it does not say how large they are."
    " Choose a smaller picture or another codec in the camera's settings."
)


@dataclass(frozen=True, slots=True)
class Packet:
    """One picture as it came: undecoded. `pts_s` counts from an arbitrary moment and may be wrong."""

    data: bytes
    pts_s: float
    duration_s: float
    """0.0: unknown."""
    is_key: bool
    """Decoding can begin here."""
    is_reference: bool
    """Other pictures may copy from it."""
    is_whole: bool
    follows_loss: bool
    """Something is missing between this picture and the one before."""
    is_refresh: bool
    """No key frame, but what follows makes the picture whole by and by."""
    arrived_at: float
    """Wall clock, seconds since 1970 UTC."""
    arrived_s: float
    """Monotonic clock, seconds."""


class Feed(Protocol):
    @property
    def codec(self) -> str:
        """libav's name; certain from the first packet on."""

    def packets(self) -> Iterator[Packet]:
        """Each picture once, in order of arrival. Ends when told to stop, or by an error: Stalled or Closed."""

    def open_decoder(self) -> Decoder:
        """A new decoder for these packets."""

    @property
    def patience_s(self) -> float:
        """After so long without a picture `packets` has raised an error, as far as it is not stuck."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


Opener = Callable[[Address, str, Stop], Feed]


class RTSPFeed:
    """A playing RTSP session. Leaving the context sends TEARDOWN."""

    def __init__(
        self, session: RTSPSession, pictures: Depacketizer, stop: Stop, transport: str, pace: Pace | None = None
    ) -> None:
        self._session = session
        self._pictures = pictures
        self._stop = stop
        self._transport = transport
        self._pace = pace or Pace()
        self._has_begun = self._has_pictured = False
        self._read_s = self._pictured_s = time.monotonic()
        self._known_size: sizes.Size | None = None
        self._overflows = 0

    @property
    def codec(self) -> str:
        return self._pictures.codec

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def packets(self) -> Iterator[Packet]:
        heard_s = self._read_s = self._pictured_s = time.monotonic()
        self._pace.begin()
        eager_until_s, wait_s = heard_s + EAGER_S, QUIET_S
        while not self._stop.is_set():
            received = self._receive(wait_s)
            before_s, self._read_s = self._read_s, time.monotonic()
            if not received:
                yield from self._stamped(self._pictures.settle(), heard_s)
                self._check_silence(heard_s)
                continue
            if not self._has_begun:
                self._pictured_s = self._read_s
            self._has_begun, heard_s = True, self._read_s
            yield from self._arrived(received, before_s)
            self._check_pictures()
            if self._read_s > eager_until_s:
                eager_until_s, wait_s = math.inf, BATCH_S
                self._session.wake_at(BATCH_BYTES)
        yield from self._last()

    def _receive(self, wait_s: float) -> Sequence[memoryview]:
        """Raises TransportRefused for a camera that ends the connection in place of the first packet of all."""
        try:
            return self._session.receive(wait_s)
        except errors.Closed as error:
            if self._has_begun or self._pace.longest_s is not None:
                raise
            raise errors.TransportRefused(otherwise=errors.Closed(str(error))) from None

    def _arrived(self, received: Sequence[memoryview], before_s: float) -> Iterator[Packet]:
        """The pictures that are complete now. One ended with the packet before the one that shows it."""
        push, done_bytes, found_bytes = self._pictures.push, 0, 0
        per_byte_s = (self._read_s - before_s) / sum(map(len, received))
        found: list[tuple[CodedPicture, float]] = []
        for packet in received:
            if pictures := push(packet):
                arrived_s = before_s + done_bytes * per_byte_s
                found += [(picture, arrived_s) for picture in pictures]
                found_bytes += sum(len(picture.data) for picture in pictures)
                if len(found) > MAX_FOUND or found_bytes > MAX_FOUND_BYTES:
                    yield from self._given(found, before_s)
                    found, found_bytes = [], 0
            done_bytes += len(packet)
        yield from self._given(found, before_s)

    def _given(self, found: Sequence[tuple[CodedPicture, float]], before_s: float) -> Iterator[Packet]:
        """With their moments of arrival."""
        times_s = [picture.timestamp / self._session.track.clock_rate for picture, _ in found]
        arrivals_s = spread(times_s, [arrived_s for _, arrived_s in found], before_s)
        for (picture, _), arrived_s in zip(found, arrivals_s, strict=True):
            yield from self._stamped([picture], arrived_s)

    def _last(self) -> Iterator[Packet]:
        """What has come and was not read yet, when the stop is set."""
        with suppress(errors.CaptureError):
            self._session.drain()
            before_s, self._read_s = self._read_s, time.monotonic()
            if received := self._session.receive(0.0):
                yield from self._arrived(received, before_s)

    def open_decoder(self) -> Decoder:
        return LibavDecoder(self.codec, self._drain)

    def _drain(self) -> None:
        if time.monotonic() - self._read_s > DRAIN_S:
            self._session.drain()

    @property
    def patience_s(self) -> float:
        return self._silence_s + PICTURE_GRACE_S

    @property
    def _silence_s(self) -> float:
        """The longest silence. As long as one picture has come and no second one, that of the first packet."""
        longest_s = self._pace.longest_s
        if longest_s is None:
            return max(SILENCE_S, FIRST_PACKET_S)
        return min(max(SILENCE_S, SILENT_DISTANCES * longest_s), MAX_SILENCE_S)

    def _check_silence(self, heard_s: float) -> None:
        silent_s = self._read_s - heard_s
        if self._session.is_disconnected:
            if silent_s > min(self._silence_s, max(DISCONNECTED_S, SILENT_DISTANCES * (self._pace.longest_s or 0.0))):
                raise errors.Closed
        elif self._has_begun and (silent_s > self._silence_s or self._unpictured_s > self.patience_s):
            self._pace.note_silence(silent_s)
            self._session.note_end()
            raise errors.Stalled
        elif not self._has_begun and silent_s > FIRST_PACKET_S:
            if self._transport == "udp":
                raise errors.TransportRefused(
                    f"Nothing comes from the camera by UDP. {self._session.trouble}".strip()
                )
            raise errors.TransportRefused("Nothing comes from the camera by TCP.", otherwise=errors.ConnectTimeout())

    def _check_pictures(self) -> None:
        """Packets come: of those of a camera that has sent no picture yet, one is expected soon."""
        is_known = self._has_pictured or self._pace.longest_s is not None
        if self._unpictured_s > (self.patience_s if is_known else NO_PICTURE_S):
            raise errors.Undecodable(self._pictures.complaint or "What the camera sends makes no picture.")

    @property
    def _unpictured_s(self) -> float:
        return self._read_s - self._pictured_s

    def _stamped(self, pictures: Sequence[CodedPicture], arrived_s: float) -> Iterator[Packet]:
        track = self._session.track
        for picture in pictures:
            self._pace.note(arrived_s)
            if picture.is_size_guessed and picture.is_whole and not self._has_its_size(picture.data):
                continue
            yield Packet(
                data=picture.data,
                pts_s=picture.timestamp / track.clock_rate,
                duration_s=1 / track.frame_rate_fps if track.frame_rate_fps else 0.0,
                is_key=picture.is_key,
                is_reference=picture.is_reference,
                is_whole=picture.is_whole,
                follows_loss=picture.follows_loss,
                is_refresh=picture.refresh is not None,
                arrived_at=time.time() - (time.monotonic() - arrived_s),
                arrived_s=arrived_s,
            )
            self._has_pictured, self._pictured_s = True, time.monotonic()  # once decoded, which may have taken long

    def _has_its_size(self, jpeg: bytes) -> bool:
        """Looked at once for each size. Raises Undecodable."""
        size = sizes.largest("mjpeg", jpeg)
        if size == self._known_size:
            return True
        if not misfits(jpeg):
            self._known_size, self._overflows = size, 0
            return True
        self._overflows += 1
        if self._overflows >= MAX_OVERFLOWS:
            raise errors.Undecodable(UNTOLD_SIZE)
        return False


def open_feed(address: Address, transport: str, stop: Stop, caution: Caution | None = None) -> RTSPFeed:
    """Connect, describe, set up and play. Raises a CaptureError, no text of which holds a credential, or Stopped.

    `transport` is tcp or udp.
    """
    caution = caution or Caution()
    session = open_session(address, transport, stop, caution)
    try:
        pictures = depacketizer(session.track, is_ordered=transport == "tcp")
        return RTSPFeed(session, pictures, stop, transport, caution.pace)
    except BaseException:
        session.close()
        raise


def spread(times_s: Sequence[float], arrivals_s: Sequence[float], from_s: float) -> Sequence[float]:
    """When pictures came that were read at once, after `from_s`.

    `arrivals_s` goes by bytes: a line has one speed. But a camera sends each picture when it is filmed, and a key
    frame has a hundred times the bytes of others: their timestamps tell it better, where these run as the clock does.
    """
    if len(times_s) < 2:
        return arrivals_s
    span_s, waited_s = max(times_s) - min(times_s), arrivals_s[-1] - from_s
    if not waited_s / 2 < span_s <= waited_s * 1.1:
        return arrivals_s
    latest_s = max(times_s)
    moments_s = [max(from_s, arrivals_s[-1] - (latest_s - time_s)) for time_s in times_s]
    return list(itertools.accumulate(moments_s, max))  # in order of arrival, which B-frames are not shown in
