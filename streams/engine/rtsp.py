"""One RTSP session (RFC 2326): connect, describe, set up and play; its RTP packets; the farewell."""

import math
import re
import secrets
import select
from collections import deque
from dataclasses import replace
from time import monotonic
from types import TracebackType
from typing import Self

from . import address as addresses
from . import errors, sdp
from .address import Address
from .carrier import Carrier, TCPCarrier, UDPCarrier
from .clock import Stop, Stopped
from .dialogue import Caution, Dialogue
from .reception import Reception
from .resolver import resolve
from .rtcp import has_bye, receiver_report
from .rtsp_message import Message

SOCKET_TIMEOUT_S = 5.0
"""Longest wait for each connection and each answer."""
CLOSE_S = 0.5
"""Longest farewell."""
SESSION_TIMEOUT_S = 60.0  # RFC 2326 section 12.37: where the camera names none; of a longer one no use is made
MIN_KEEPALIVE_S = 1.0
REPORT_S = 4.5
"""Every 5 s at the latest (RFC 3550 section 6.2), over TCP too: cameras stop 5 to 10 s after one (mediamtx #1403)."""
READ_S = 1.0
"""So much later than it comes something may be read (feed.py's BATCH_S)."""
HANG_UP_S = 2.0
"""A stream that ends so soon after a keep-alive ends because of it."""
MAX_KEPT = 120
"""Keep-alives that are remembered: of the longest silence (feed.py's MAX_SILENCE_S), if one is sent each second."""
ON_TIME = (0.9, 1.5)
"""The end of a session that was not kept alive, in session timeouts after PLAY: servers look at intervals."""
RESEND_S = 0.05
MAX_ADDRESSES = 4
CNAME = b"viewer"

# RFC 2326 section 7.1.1
_BY_STATUS: dict[int, type[errors.CaptureError]] = {
    401: errors.AuthRefused,
    403: errors.AuthRefused,
    404: errors.NotFound,
    453: errors.CameraFull,
    461: errors.TransportRefused,
    503: errors.CameraFull,
}
_REDIRECTS = range(300, 400)
_TIMEOUT = re.compile(r"timeout\s*=\s*\"?(\d{1,6})", re.IGNORECASE | re.ASCII)


class _Redirected(Exception):
    """`args` holds the Location."""


class RTSPSession:
    """A session that plays. One thread uses it; leaving the context says TEARDOWN."""

    track: sdp.Track
    peer: str
    """The IP address connected to."""

    def __init__(self, address: Address, ips: list[str], stop: Stop, caution: Caution) -> None:
        """Connects; `_open` does the rest. Raises a CaptureError, or Stopped."""
        self._stop = stop
        self._dialogue = Dialogue(address, ips, stop, SOCKET_TIMEOUT_S, caution)
        self._carrier: Carrier | None = None
        self._networks, self._quirks = caution.networks, caution.quirks
        self.peer = self._dialogue.connection.peer
        self._url = replace(address, username=None, password=None).url()
        self._control = self._url
        self._is_set_up = self._is_closed = False
        self._early: list[memoryview] = []
        self._ssrc = secrets.randbits(32)
        self._reception = Reception()
        self._public = ""
        self._session_timeout_s = SESSION_TIMEOUT_S
        self._keepalive_every_s = SESSION_TIMEOUT_S / 2
        self._played_s = self._heard_s = 0.0
        self._kept_s: deque[float] = deque(maxlen=MAX_KEPT)
        self._has_ended = False
        self.is_disconnected = False
        """Whether the RTSP connection has ended and packets may come all the same: over UDP."""
        self._is_keepalive_repeated = False
        self._keepalive_at_s = self._report_at_s = self._chore_at_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def receive(self, wait_s: float) -> list[memoryview]:
        """RTP packets of the track in order of arrival, valid until the next call; [] if none came within `wait_s`.

        [] at once when `stop` is set. Raises Closed and, for what is not RTSP any more, NotRTSP or Refused.
        """
        if self._early:
            early, self._early = self._early, []
            return early
        dialogue, carrier, stop = self._dialogue, self._playing, self._stop.fileno()
        carrier.rewind()
        packets = carrier.drained()
        until_s = monotonic() + wait_s
        while True:
            if packets:
                self._reception.note(packets)
                self._heard_s = monotonic()
            self._attend()
            if packets:
                return packets
            if dialogue.failure:
                raise dialogue.failure
            now_s = monotonic()
            if now_s >= self._chore_at_s:
                self._do_chores(now_s)
            ready = carrier.wait(now_s, min(until_s, self._chore_at_s))
            if any(fileno == stop for fileno, _ in ready):
                return []
            packets = carrier.read(ready)
            if not packets and monotonic() >= until_s:
                self._attend()
                return []

    def drain(self) -> None:
        """Take in what the kernel holds, without waiting; the next `receive` gives it. 16 MiB at most.

        Packets that the last `receive` gave stay valid.
        """
        self._playing.drain()

    def wake_at(self, bytes: int) -> None:
        """Let `receive` sleep until so many bytes are there, or its time is over. 1 at first."""
        self._playing.wake_at(bytes)

    def close(self) -> None:
        """TEARDOWN, with half a second at most for it and its answer, and everything closed."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self._is_set_up and not self._dialogue.has_ended:
                self._take_leave()
        finally:
            # An error that was raised holds the frames it went through, and these the feed and its last picture.
            self._dialogue.failure = None
            self._dialogue.connection.close()
            if self._carrier:
                self._carrier.close()

    @property
    def _playing(self) -> Carrier:
        if self._carrier is None or self._is_closed:
            raise errors.Closed
        return self._carrier

    @property
    def trouble(self) -> str:
        """What may be why nothing comes: one sentence, or empty."""
        return self._playing.trouble

    # --- opening ---

    def _open(self, transport: str) -> None:
        options = self._dialogue.ask("OPTIONS", self._url)
        if options.status == 401 or options.status in _REDIRECTS:
            _check("OPTIONS", options)  # any other refusal does not matter
        self._public = options.header("public").upper()
        description = self._ask("DESCRIBE", self._url, Accept="application/sdp")
        base_url = _base_url(description, self._url)
        tracks = sdp.parse(description.body, base_url)
        if not tracks:
            raise errors.NoVideo
        self.track = next((track for track in tracks if track.encoding in sdp.KNOWN_ENCODINGS), tracks[0])
        self._control = sdp.aggregate_control(description.body, base_url)
        self._carrier = (
            UDPCarrier(self._dialogue, self._networks) if transport == "udp" else TCPCarrier(self._dialogue)
        )
        self._set_up(self._carrier)
        self._play(self._carrier)

    def _ask(self, method: str, url: str, **headers: str) -> Message:
        answer = self._dialogue.ask(method, url, **headers)
        _check(method, answer)
        return answer

    def _set_up(self, carrier: Carrier) -> None:
        answer = self._ask("SETUP", self.track.control, Transport=carrier.offer)
        self._is_set_up = True
        session, _, parameters = answer.header("session").partition(";")
        self._dialogue.session = session.strip()
        timeout = _TIMEOUT.search(parameters)
        self._session_timeout_s = (float(timeout[1]) if timeout else 0.0) or SESSION_TIMEOUT_S
        self._keepalive_every_s = max(MIN_KEEPALIVE_S, min(self._session_timeout_s, SESSION_TIMEOUT_S) / 2)
        carrier.agree(answer.header("transport"), receiver_report(self._ssrc, CNAME))

    def _play(self, carrier: Carrier) -> None:
        self._ask("PLAY", self._control, Range="npt=0.000-")
        if early := self._dialogue.take_early():
            self._reception.note(early)
            self._early = early
        now_s = self._played_s = self._heard_s = self._report_at_s = monotonic()
        self._keepalive_at_s = now_s + self._keepalive_every_s
        self._plan()
        carrier.watch(self._stop)
        self._attend()

    # --- what comes beside RTP ---

    def _attend(self) -> None:
        dialogue, stream = self._dialogue, self._dialogue.stream
        if stream.messages:
            dialogue.attend()
            for answer in dialogue.answers:
                self._hear(answer)
            dialogue.answers.clear()
            self._plan()
        if stream.reports:
            self._hear_reports()
        if dialogue.has_ended and not dialogue.failure and not self.is_disconnected:
            self.is_disconnected = self._playing.outlives_connection()
            if not self.is_disconnected:
                dialogue.failure = errors.Closed()
        if dialogue.failure or self.is_disconnected:
            self.note_end(monotonic())

    def _hear_reports(self) -> None:
        reports, ssrc = self._dialogue.stream.reports, self._reception.ssrc
        if any(has_bye(report, ssrc) for report in reports):
            self._dialogue.failure = errors.Closed("The camera ended the stream.")
        now_s = monotonic()
        for report in reports:
            self._reception.note_report(report, now_s)
        reports.clear()

    def _hear(self, answer: Message) -> None:
        """The answer to a keep-alive. A refusal, even 454, ends nothing: only a stream that stops is over.

        libav does not look at these answers. thingino's cameras say 454 to GET_PARAMETER and play on.
        """
        if answer.status == 401 and not self._is_keepalive_repeated and self._dialogue.meets(answer):
            self._is_keepalive_repeated = True
            self._keep_alive()
        elif answer.status >= 400 and self._keepalive != "OPTIONS":
            self._quirks.keepalive = "OPTIONS"

    # --- staying ---

    def _do_chores(self, now_s: float) -> None:
        if now_s >= self._keepalive_at_s and not self.is_disconnected:
            self._is_keepalive_repeated = False
            self._keep_alive()
            self._keepalive_at_s = now_s + self._keepalive_every_s
        if now_s >= self._report_at_s:
            self._playing.report(receiver_report(self._ssrc, CNAME, self._reception.block(now_s)))
            self._report_at_s = now_s + REPORT_S
        self._dialogue.flush()
        self._plan()

    def _plan(self) -> None:
        resend_at_s = monotonic() + RESEND_S if self._dialogue.has_unsent else math.inf
        keepalive_at_s = math.inf if self.is_disconnected else self._keepalive_at_s
        self._chore_at_s = min(keepalive_at_s, self._report_at_s, resend_at_s)

    @property
    def _keepalive(self) -> str:
        return self._quirks.keepalive or ("GET_PARAMETER" if "GET_PARAMETER" in self._public else "OPTIONS")

    def _keep_alive(self) -> None:
        self._kept_s.append(monotonic())
        self._dialogue.post(self._keepalive, self._control)

    def note_end(self, closed_s: float | None = None) -> None:
        """The stream ended with its last packet, or when the camera closed: see whether keep-alives were to blame.

        A camera may hang up over one (SharpRTSP #63), or not be kept by it and end the session on time (EvoStream
        wants GET_PARAMETER and does not say so, go2rtc #2409). Then the other method is used, over reconnects too.
        """
        if self._has_ended or not self._kept_s:
            return
        self._has_ended = True
        ends_s = [self._heard_s] if closed_s is None else [self._heard_s, closed_s]
        if any(map(self._is_at_keepalive, ends_s)) or any(map(self._is_on_time, ends_s)):
            self._quirks.keepalive = "GET_PARAMETER" if self._keepalive == "OPTIONS" else "OPTIONS"

    def _is_at_keepalive(self, ended_s: float) -> bool:
        return any(-READ_S <= ended_s - kept_s <= HANG_UP_S + READ_S for kept_s in self._kept_s)

    def _is_on_time(self, ended_s: float) -> bool:
        lived_s, timeout_s = ended_s - self._played_s, self._session_timeout_s
        return ON_TIME[0] * timeout_s <= lived_s <= ON_TIME[1] * timeout_s + READ_S

    # --- leaving ---

    def _take_leave(self) -> None:
        """Reads until the answer: to close with bytes unread would reset the connection, and lose the TEARDOWN."""
        dialogue = self._dialogue
        until_s = monotonic() + CLOSE_S
        dialogue.connection.wake_at(1)
        sequence = dialogue.post("TEARDOWN", self._control)
        has_repeated = False
        while not dialogue.has_ended and (left_s := until_s - monotonic()) > 0:
            for answer in self._farewells(left_s):
                if answer.status == 401 and not has_repeated and dialogue.meets(answer):
                    has_repeated = True
                    sequence = dialogue.post("TEARDOWN", self._control)
                elif answer.header("cseq") in ("", str(sequence)):
                    return

    def _farewells(self, wait_s: float) -> list[Message]:
        """What the camera answers next; the stop, which has often been set, is not watched."""
        dialogue, stream = self._dialogue, self._dialogue.stream
        poll = select.poll()
        poll.register(dialogue.connection.fileno(), select.POLLIN | (select.POLLOUT if dialogue.has_unsent else 0))
        poll.poll(wait_s * 1000)
        dialogue.flush()
        stream.rewind()
        dialogue.read()
        try:
            stream.take()
        except errors.CaptureError:
            dialogue.has_ended = True
        dialogue.attend()
        answers, dialogue.answers = dialogue.answers, []
        stream.reports.clear()
        return answers


def open_session(address: Address, transport: str, stop: Stop, caution: Caution | None = None) -> RTSPSession:
    """Connect, describe, set up and play. `transport` is tcp or udp. Raises a CaptureError; Stopped if `stop` is set.

    The host is resolved once, and all that follows goes to one of the IP addresses found. A redirect is followed
    once, and only to another path of the host and port that were asked for.
    """
    caution = caution or Caution()
    ips = resolve(address, caution.networks)[:MAX_ADDRESSES]
    if stop.is_set():
        raise Stopped
    try:
        return _opened(address, ips, transport, stop, caution)
    except _Redirected as redirect:
        there = _followed(address, ips, redirect.args[0])
    try:
        return _opened(there, ips, transport, stop, caution)
    except _Redirected:
        raise errors.AddressRefused("The camera redirects again and again.") from None


def _opened(address: Address, ips: list[str], transport: str, stop: Stop, caution: Caution) -> RTSPSession:
    session = RTSPSession(address, ips, stop, caution)
    try:
        session._open(transport)
    except BaseException:
        session.close()
        raise
    return session


def _followed(address: Address, ips: list[str], location: str) -> Address:
    """The address with the other path. A camera that is asked by name may call itself by its IP address."""
    try:
        there = addresses.parse(location)
    except errors.InvalidURL:
        raise errors.AddressRefused("The camera redirects to what is no RTSP address.") from None
    is_here = there.host == address.host or there.host in ips
    if not is_here or (there.scheme, there.port) != (address.scheme, address.port):
        # A name is the camera's own words, and could be the password.
        host = there.host if addresses.is_literal(there.host) else "a name"
        where = f"{there.scheme}, {host}, port {there.port}"
        raise errors.AddressRefused(f"The camera redirects to another address, {where}: that is not followed.")
    return replace(address, path=there.path, query=there.query)


def _check(method: str, answer: Message) -> None:
    if answer.status in _REDIRECTS:
        raise _Redirected(answer.header("location"))
    if answer.status in _BY_STATUS:
        raise _BY_STATUS[answer.status]()
    if not 200 <= answer.status < 300:
        raise errors.Refused(f"The camera refused {method} with status {answer.status}.")


def _base_url(description: Message, url: str) -> str:
    """RFC 2326 section C.1.1."""
    told = (description.header(name) for name in ("content-base", "content-location"))
    as_bytes = (text.encode("utf-8", "surrogateescape").decode("latin-1") for text in told)
    return next(filter(None, map(sdp.plain_url, as_bytes)), url)
