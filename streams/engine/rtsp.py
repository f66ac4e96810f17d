"""One RTSP session (RFC 2326): connect, describe, set up and play; its RTP packets; the farewell."""

import math
import re
import secrets
import select
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from types import TracebackType
from typing import Self

from . import address as addresses
from . import deadlines, errors, sdp
from .address import Address
from .carrier import Carrier, TCPCarrier, UDPCarrier
from .clock import Stop, Stopped
from .dialogue import Caution, Dialogue
from .encodings import ENCODINGS
from .reception import Reception
from .resolver import resolve
from .rtcp import has_bye, receiver_report
from .rtsp_message import Message

SOCKET_TIMEOUT_S, ANSWER_S, OPENING_S = deadlines.CONNECT_S, deadlines.ANSWER_S, deadlines.OPENING_S
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
MAX_REDIRECTS = 5
MAX_TRACKS = 8  # that are set up; over UDP each takes two of the recorder's descriptors (limits.py)
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
# Refusals of SETUP that another transport would not change: RFC 2326 section 11.
_NOT_OF_THE_TRANSPORT = frozenset({401, 403, 404, 453, 454, 503})
# To the header Range: Invalid Range (rtp2httpd #323), Header Field Not Valid for Resource, Parameter Not Understood,
# and what is said by a camera that does not know it at all.
_RANGE_REFUSED = (400, 451, 456, 457)
_TIMEOUT = re.compile(r"timeout\s*=\s*\"?(\d{1,6})", re.IGNORECASE | re.ASCII)


class _Redirected(Exception):
    """`args` holds the Location, made absolute."""


class _VideoAlone(Exception):
    """The camera fails with its other tracks set up: `args` holds how."""


class RTSPSession:
    """A session that plays. One thread uses it; leaving the context says TEARDOWN."""

    track: sdp.Track
    peer: str
    """The IP address connected to."""

    def __init__(self, address: Address, ips: list[str], stop: Stop, caution: Caution, until_s: float) -> None:
        """Connects; `_open` does the rest. Raises a CaptureError, or Stopped."""
        self._stop = stop
        self._caution = caution
        self._carrier: Carrier | None = None
        self._networks, self._quirks = caution.networks, caution.quirks
        self._url = replace(address, username=None, password=None).url()
        self._control = self._url
        self._is_set_up = self._has_others = self._is_closed = False
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
        # At last: what fails before it leaves no connection open.
        self._dialogue = Dialogue(address, ips, stop, SOCKET_TIMEOUT_S, caution, until_s)
        self.peer = self._dialogue.connection.peer

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
        self._greet()
        description = self._dialogue.ask("DESCRIBE", self._url, ANSWER_S, Accept="application/sdp")
        self._check("DESCRIBE", description)
        base_url = _base_url(description, self._url)
        self.track = _chosen(sdp.parse(description.body, base_url))
        self._control = sdp.aggregate_control(description.body, base_url)
        self._carrier = (
            UDPCarrier(self._dialogue, self._networks) if transport == "udp" else TCPCarrier(self._dialogue)
        )
        self._set_up(self._carrier)
        others = [url for url in sdp.controls(description.body, base_url) if url != self.track.control]
        if others and not self._caution.is_video_alone:
            self._set_up_others(self._carrier, others[: MAX_TRACKS - 1])
        self._play(self._carrier)

    def _greet(self) -> None:
        """Ask for OPTIONS. Only a challenge or a redirect matters: DESCRIBE shows whether the rest does."""
        try:
            options = self._dialogue.ask("OPTIONS", self._url, SOCKET_TIMEOUT_S)
        except errors.Closed:
            return
        is_challenged = options.status == 401 and options.header("www-authenticate")
        if is_challenged or options.status in _REDIRECTS:
            self._check("OPTIONS", options)
        self._public = options.header("public").upper()

    def _check(self, method: str, answer: Message) -> None:
        """Raises _Redirected or a CaptureError."""
        if answer.status in _REDIRECTS:
            raise _Redirected(sdp.resolve(self._url, _latin(answer.header("location"))))
        if answer.status in _BY_STATUS:
            raise _BY_STATUS[answer.status]()
        if not 200 <= answer.status < 300:
            raise errors.Refused(f"The camera refused {method} with status {answer.status}.")

    def _set_up(self, carrier: Carrier) -> None:
        """Raises TransportRefused where the other transport may do: cameras say that in many ways (viseron #695)."""
        try:
            answer = self._dialogue.ask("SETUP", self.track.control, ANSWER_S, Transport=carrier.offer)
        except (errors.Closed, errors.ConnectTimeout) as error:
            raise _unheard("SETUP", error) from None
        if answer.status != 461 and answer.status >= 400 and answer.status not in _NOT_OF_THE_TRANSPORT:
            refused = errors.Refused(f"The camera refused SETUP with status {answer.status}.")
            raise errors.TransportRefused(otherwise=refused)
        self._check("SETUP", answer)
        self._is_set_up = True
        session, _, parameters = answer.header("session").partition(";")
        self._dialogue.session = session.strip()
        timeout = _TIMEOUT.search(parameters)
        self._session_timeout_s = (float(timeout[1]) if timeout else 0.0) or SESSION_TIMEOUT_S
        self._keepalive_every_s = max(MIN_KEEPALIVE_S, min(self._session_timeout_s, SESSION_TIMEOUT_S) / 2)
        carrier.agree(answer.header("transport"), receiver_report(self._ssrc, CNAME))

    def _set_up_others(self, carrier: Carrier, urls: list[str]) -> None:
        """Set up the tracks that are not read, as libav does: some cameras send nothing before. Refusals are ignored.

        The session's id stays that of the video: some name another one for each track (retina PR #85).
        """
        for url in urls:
            try:
                answer = self._dialogue.ask("SETUP", url, ANSWER_S, Transport=carrier.offer_unread())
            except (errors.Closed, errors.ConnectTimeout, errors.AuthRefused) as error:
                raise _VideoAlone(error) from None
            except errors.Unreachable:  # no ports are left
                return
            if 200 <= answer.status < 300:
                self._has_others = True
                carrier.agree_unread(answer.header("transport"))

    def _play(self, carrier: Carrier) -> None:
        """Raises TransportRefused where nothing comes of it: a camera may take any SETUP, and send by UDP alone."""
        try:
            self._start(carrier)
        except (errors.Refused, errors.Closed, errors.ConnectTimeout) as error:
            if self._has_others:
                raise _VideoAlone(error) from None
            if isinstance(error, errors.Refused):
                raise
            raise _unheard("PLAY", error) from None
        if early := self._dialogue.take_early():
            self._reception.note(early)
            self._early = early
        now_s = self._played_s = self._heard_s = self._report_at_s = monotonic()
        self._keepalive_at_s = now_s + self._keepalive_every_s
        self._plan()
        carrier.watch(self._stop)
        self._attend()

    def _start(self, carrier: Carrier) -> None:
        """Send PLAY and wait for the answer, or for packets."""
        is_begun = carrier.begun()
        answer = self._dialogue.ask("PLAY", self._control, ANSWER_S, is_begun, Range="npt=0.000-")
        if answer.status in _RANGE_REFUSED:
            answer = self._dialogue.ask("PLAY", self._control, ANSWER_S, is_begun)
        self._check("PLAY", answer)

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

    The host is resolved once, and all that follows goes to one of the IP addresses found. MAX_REDIRECTS redirects are
    followed, and only to another path of the host that was asked for, on its port or one of `redirect_ports`.
    """
    caution = caution or Caution()
    ips = resolve(address, caution.networks)[: deadlines.MAX_ADDRESSES]
    if stop.is_set():
        raise Stopped
    there, until_s = address, monotonic() + OPENING_S
    for _ in range(MAX_REDIRECTS + 1):
        try:
            return _opened_with_all(there, ips, transport, stop, caution, until_s)
        except _Redirected as redirect:
            there = _followed(address, ips, redirect.args[0], caution.redirect_ports)
    raise errors.AddressRefused("The camera redirects again and again.")


def _opened_with_all(
    address: Address, ips: list[str], transport: str, stop: Stop, caution: Caution, until_s: float
) -> RTSPSession:
    """Set up all tracks; if the camera fails with them, the video alone, from then on."""
    try:
        return _opened(address, ips, transport, stop, caution, until_s)
    except _VideoAlone:
        caution.is_video_alone = True
    try:
        return _opened(address, ips, transport, stop, caution, until_s)
    except BaseException:  # it was not that
        caution.is_video_alone = False
        raise


def _opened(
    address: Address, ips: list[str], transport: str, stop: Stop, caution: Caution, until_s: float
) -> RTSPSession:
    session = RTSPSession(address, ips, stop, caution, until_s)
    try:
        session._open(transport)
    except BaseException:
        session.close()
        raise
    return session


def _followed(address: Address, ips: list[str], location: str, ports: tuple[int, ...]) -> Address:
    """The address with the other path. A camera that is asked by name may call itself by its IP address."""
    try:
        there = addresses.parse(location)
    except errors.InvalidURL:
        raise errors.AddressRefused("The camera redirects to what is no RTSP address.") from None
    is_here = there.host == address.host or there.host in ips
    if not is_here or there.scheme != address.scheme or there.port not in (address.port, *ports):
        # A name is the camera's own words, and could be the password.
        host = there.host if addresses.is_literal(there.host) else "a name"
        where = f"{there.scheme}, {host}, port {there.port}"
        raise errors.AddressRefused(f"The camera redirects to another address, {where}: that is not followed.")
    return replace(address, port=there.port, path=there.path, query=there.query)


def _chosen(tracks: Sequence[sdp.Track]) -> sdp.Track:
    """Choose the first track that can be decoded. Raises NoVideo; Undecodable where all are encrypted."""
    if not tracks:
        raise errors.NoVideo
    plain = [track for track in tracks if not track.is_encrypted]
    if not plain:
        raise errors.Undecodable(
            "The stream is encrypted (SRTP), which this service cannot read. Use the camera's address without "
            "encryption: for UniFi Protect, leave out ?enableSrtp."
        )
    return next((track for track in plain if track.encoding in ENCODINGS), plain[0])


def _unheard(method: str, error: errors.Closed | errors.ConnectTimeout) -> errors.TransportRefused:
    """What is said of the transport in which this request has got no answer."""
    if isinstance(error, errors.Closed):
        return errors.TransportRefused(otherwise=errors.Closed(f"The camera ended the connection at {method}."))
    return errors.TransportRefused(otherwise=errors.ConnectTimeout(f"The camera did not answer {method}."))


def _base_url(description: Message, url: str) -> str:
    """RFC 2326 section C.1.1."""
    told = (sdp.resolve(url, _latin(description.header(name))) for name in ("content-base", "content-location"))
    return next(filter(None, told), url)


def _latin(text: str) -> str:
    """Each character a byte that was sent, as in a description."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")
