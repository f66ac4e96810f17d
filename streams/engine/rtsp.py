"""One RTSP session (RFC 2326): connect, describe, set up and play; its RTP packets; the farewell."""

import re
import secrets
import select
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
from .encodings import ENCODINGS
from .resolver import resolve
from .rtcp import has_bye, receiver_report
from .rtsp_message import Message

SOCKET_TIMEOUT_S = 5.0
"""Longest wait for each connection and each answer."""
CLOSE_S = 0.5
"""Longest farewell."""
SESSION_TIMEOUT_S = 60.0  # RFC 2326 section 12.37: where the camera names none; of a longer one no use is made
MIN_KEEPALIVE_S = 1.0
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
        self.peer = self._dialogue.connection.peer
        self._url = replace(address, username=None, password=None).url()
        self._control = self._url
        self._is_set_up = self._is_closed = False
        self._early: list[memoryview] = []
        self._report_packet = receiver_report(secrets.randbits(32), CNAME)
        self._public = ""
        self._keepalive_every_s = SESSION_TIMEOUT_S / 2
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
        self.track = next((track for track in tracks if track.encoding in ENCODINGS), tracks[0])
        self._control = sdp.aggregate_control(description.body, base_url)
        self._carrier = UDPCarrier(self._dialogue) if transport == "udp" else TCPCarrier(self._dialogue)
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
        timeout_s = min(float(timeout[1]) if timeout else 0.0, SESSION_TIMEOUT_S) or SESSION_TIMEOUT_S
        self._keepalive_every_s = max(MIN_KEEPALIVE_S, timeout_s / 2)
        carrier.agree(answer.header("transport"), self._report_packet)

    def _play(self, carrier: Carrier) -> None:
        self._ask("PLAY", self._control, Range="npt=0.000-")
        self._early = self._dialogue.take_early()
        now_s = monotonic()
        self._keepalive_at_s = now_s + self._keepalive_every_s
        self._report_at_s = now_s + carrier.report_every_s
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
            if any(map(has_bye, stream.reports)):
                dialogue.failure = errors.Closed("The camera ended the stream.")
            stream.reports.clear()
        if dialogue.has_ended and not dialogue.failure:
            dialogue.failure = errors.Closed()

    def _hear(self, answer: Message) -> None:
        """The answer to a keep-alive."""
        if answer.status == 454:
            self._dialogue.failure = errors.Closed("The camera has forgotten the session.")
        elif answer.status == 401:
            if not self._is_keepalive_repeated and self._dialogue.meets(answer):
                self._is_keepalive_repeated = True
                self._keep_alive()
        elif answer.status >= 400:
            self._public = ""  # OPTIONS from now on

    # --- staying ---

    def _do_chores(self, now_s: float) -> None:
        if now_s >= self._keepalive_at_s:
            self._is_keepalive_repeated = False
            self._keep_alive()
            self._keepalive_at_s = now_s + self._keepalive_every_s
        if now_s >= self._report_at_s:
            self._playing.report(self._report_packet)
            self._report_at_s = now_s + self._playing.report_every_s
        self._dialogue.flush()
        self._plan()

    def _plan(self) -> None:
        resend_at_s = monotonic() + RESEND_S if self._dialogue.has_unsent else self._keepalive_at_s
        self._chore_at_s = min(self._keepalive_at_s, self._report_at_s, resend_at_s)

    def _keep_alive(self) -> None:
        self._dialogue.post("GET_PARAMETER" if "GET_PARAMETER" in self._public else "OPTIONS", self._control)

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
