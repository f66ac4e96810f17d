"""RTSP requests and answers over one connection (RFC 2326), while RTP may come in between."""

import select
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic

from . import errors
from .address import Address, Networks
from .clock import Stop
from .connection import TLS, Connection, connect, wait
from .interleaved import Interleaved
from .pace import Pace
from .quirks import Quirks
from .rtsp_auth import Authorizer, Challenge, challenges
from .rtsp_message import Message, pack_answer, pack_request

QUIET_S = 0.3  # a description that does not say its length is over after so long a silence
MAX_UNSENT_BYTES = 1 << 16
MAX_EARLY_BYTES = 1 << 22  # of RTP before the answer to PLAY
MAX_EARLY_REPORTS = 16  # of RTCP
UNANSWERED_S = 1.0  # from the first packet to the answer to PLAY, which some servers never give (go2rtc's own)
LOOK_S = 0.1  # UDP packets are looked for this often while PLAY is not answered
USER_AGENT = "rtsp-brightest"  # some cameras want any
_ANSWERED = ("OPTIONS", "GET_PARAMETER", "SET_PARAMETER", "ANNOUNCE", "TEARDOWN", "REDIRECT")
_ENDING = ("TEARDOWN", "REDIRECT")
# An ANNOUNCE's x-notice after which nothing more will come, as libavformat/rtsp.c reads them: end and start of
# the stream reached, feed terminated, ticket expired; data, server and end-of-term errors.
_END_NOTICES = frozenset({2101, 2104, 2306, 2401, *range(4400, 5600)})

Begun = Callable[[], bool]
"""Whether packets flow."""


@dataclass(slots=True)
class Caution:
    """Of one capture, at each of its connections."""

    networks: Networks = ()
    """Those that may be connected to; empty: all that are not refused anyway."""
    verifies_certificate: bool = True
    has_met_digest: bool = False
    """The camera has taken a Digest: from then on nobody in its place gets the password as it is.

    Not among the quirks: a camera that is set to Basic would be refused until its address changes.
    """
    quirks: Quirks = field(default_factory=Quirks)
    """What is learned about the camera. It outlives the capture."""
    pace: Pace = field(default_factory=Pace)
    """How far apart its pictures come."""
    redirect_ports: tuple[int, ...] = ()
    """Ports of the camera's own host that it may redirect to, beside the one of its address."""
    is_video_alone: bool = False
    """Only the video is set up: with its other tracks the camera fails."""


class Dialogue:
    """`answers` holds responses that nobody asked about in `ask`: those to requests that were posted."""

    def __init__(
        self, address: Address, ips: list[str], stop: Stop, timeout_s: float, caution: Caution, until_s: float
    ) -> None:
        """Connects, within `timeout_s`. After `until_s` of the monotonic clock nothing is waited for any more.

        Raises a CaptureError, or Stopped.
        """
        self.stream = Interleaved()
        self.session = ""
        self.answers: list[Message] = []
        self.failure: errors.CaptureError | None = None
        """Why nothing more will come."""
        self.has_ended = False
        """Whether the other side has closed."""
        self._address = address
        self._ips = ips
        self._stop = stop
        self._timeout_s = timeout_s
        self._until_s = until_s
        self._caution = caution
        self._authorizer = (
            Authorizer(address.username, address.password or "") if address.username is not None else None
        )
        self._is_welcome = False
        self._may_reconnect = True
        self._sequence = 0
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._unsent = bytearray()
        self.connection = self._connect()

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def ask(self, method: str, url: str, within_s: float, is_begun: Begun | None = None, **headers: str) -> Message:
        """The answer, whatever its status; a 401 is met first, if it can be. Raises a CaptureError, or Stopped.

        Waits `within_s` at most. Once `is_begun` says that packets flow, it waits UNANSWERED_S at most, and then the
        packets are the answer.
        """
        answer = self._exchange(method, url, within_s, is_begun, headers)
        for _ in range(2):  # the nonce of the first 401 may itself be stale
            if self.meets(answer):
                answer = self._exchange(method, url, within_s, is_begun, headers)
        if self._authorizer and self._authorizer.is_meeting and answer.status != 401:
            self._is_welcome = True
            self._caution.has_met_digest |= self._authorizer.nonce is not None
        if self._is_downgrade(answer):
            raise errors.AuthRefused("The camera took the password by Digest before, and now wants it in the clear.")
        if answer.status == 401 and (unknown := self._unknown(answer)):
            raise unknown
        return answer

    @property
    def early(self) -> int:
        """How many RTP packets have come before an answer."""
        return len(self._early)

    def post(self, method: str, url: str, **headers: str) -> int:
        """Send a request without waiting for anything; gives its number. The answer will be among `answers`."""
        self._sequence += 1
        fields = {**headers, "User-Agent": USER_AGENT}
        if self.session:
            fields["Session"] = self.session
        if self._authorizer and (authorization := self._authorizer.header(method, url)):
            fields["Authorization"] = authorization
        self._send(pack_request(method, url, self._sequence, fields))
        return self._sequence

    def meets(self, answer: Message) -> bool:
        """Whether it is worth asking again: this is a 401, and there is something new to answer to it.

        A password that was refused once is not tried again: cameras lock the account. A nonce may only have
        grown stale, if the server says so or has accepted the password before.
        """
        if answer.status != 401 or self._authorizer is None:
            return False
        offered, authorizer = challenges(answer.values("www-authenticate")), self._authorizer
        has_tried, nonce = authorizer.is_meeting, authorizer.nonce
        if has_tried and not self._is_welcome and not any(challenge.is_stale for challenge in offered):
            return False
        if self._is_downgrade(answer):
            return False
        return authorizer.meet(offered) and (not has_tried or authorizer.nonce != nonce)

    def _is_downgrade(self, answer: Message) -> bool:
        """Nothing but Basic is offered where Digest has been taken: who stands in between could ask for that."""
        if answer.status != 401 or not self._caution.has_met_digest:
            return False
        offered = challenges(answer.values("www-authenticate"))
        return {challenge.scheme for challenge in offered if challenge.strength} == {"basic"}

    def _unknown(self, answer: Message) -> errors.AuthRefused | None:
        """Why the password was of no use, where the camera asks for it in a way that is unknown or rare."""
        offered = challenges(answer.values("www-authenticate"))
        if not offered or self._authorizer is None:
            return None
        if not any(challenge.strength for challenge in offered):
            ways = ", ".join(dict.fromkeys(filter(None, (self._told(challenge) for challenge in offered))))
            return errors.AuthRefused(
                "The camera asks for the password in a way that this service does not know"
                f"{f': {ways}' if ways else ''}. Set the camera to Digest with MD5 or SHA-256, or to Basic."
            )
        if self._authorizer.algorithm.startswith("sha-512-256"):
            return errors.AuthRefused(
                "The camera refused the password by Digest with SHA-512-256. Check user name and password, or set "
                "the camera to Digest with MD5 or SHA-256."
            )
        return None

    def _told(self, challenge: Challenge) -> str:
        """The camera's own words could be the password."""
        held = (self._address.username, self._address.password)
        is_secret = any(len(secret or "") > 2 and (secret or "").lower() in challenge.told.lower() for secret in held)
        return "" if is_secret else challenge.told

    def send_interleaved(self, channel: int, packet: bytes) -> None:
        self._send(b"$" + bytes([channel]) + len(packet).to_bytes(2) + packet)

    def take_early(self) -> list[memoryview]:
        """RTP packets that came before the answer to PLAY, or with it."""
        early, self._early = self._early, []
        return [memoryview(packet) for packet in early]

    def read(self) -> bool:
        """One read into the stream, without waiting. Whether anything came."""
        count = self.connection.read_into(self.stream.room())
        if count > 0:
            self.stream.filled(count)
        elif count == 0:
            self.has_ended = True
        return count > 0

    def flush(self) -> None:
        """Send what the connection takes of what could not be sent before."""
        try:
            while self._unsent and (count := self.connection.write(self._unsent)):
                del self._unsent[:count]
        except OSError:
            self._unsent.clear()  # the end shows in reading, after all that came before it

    def attend(self) -> None:
        """Answer the server's requests, and keep its responses."""
        messages = self.stream.messages[:]
        self.stream.messages.clear()
        for message in messages:
            if message.status >= 200:
                self.answers.append(message)
            elif not message.status:
                self._serve(message)

    def _exchange(
        self, method: str, url: str, within_s: float, is_begun: Begun | None, headers: Mapping[str, str]
    ) -> Message:
        """A camera that closes with its 401, or after OPTIONS, expects the next request on another connection."""
        try:
            return self._converse(method, url, within_s, is_begun, headers)
        except errors.Closed:
            is_meeting = self._authorizer is not None and self._authorizer.is_meeting
            is_expected = is_meeting or (method == "DESCRIBE" and not self.stream.pending_bytes)
            if self.session or not is_expected or not self._may_reconnect:
                raise
        self._may_reconnect = False
        self.connection.close()
        self.stream, self.has_ended, self.failure = Interleaved(), False, None
        self._unsent.clear()
        self.connection = self._connect()
        return self._converse(method, url, within_s, is_begun, headers)

    def _converse(
        self, method: str, url: str, within_s: float, is_begun: Begun | None, headers: Mapping[str, str]
    ) -> Message:
        """The next answer counts, whatever CSeq it has: some cameras send none, or another one."""
        self.answers.clear()
        self.stream.awaits_description = method == "DESCRIBE"
        self.post(method, url, **headers)
        until_s, has_begun = min(monotonic() + within_s, self._until_s), False
        while not self.answers:
            if self.failure:
                raise self.failure
            if is_begun and not has_begun and is_begun():
                has_begun, until_s = True, min(until_s, monotonic() + UNANSWERED_S)
            left_s = until_s - monotonic()
            if has_begun and left_s <= 0:
                return Message(200, "", ())
            if self.has_ended or left_s <= 0:
                self._give_up(errors.Closed() if self.has_ended else errors.ConnectTimeout())
            elif self.stream.is_endless and not self._is_ready(monotonic() + min(QUIET_S, left_s)):
                self.stream.finish()
                self.attend()
            elif self._is_ready(min(until_s, monotonic() + LOOK_S) if is_begun else until_s):
                self._read_early()
        return self.answers.pop(0)

    def _give_up(self, failure: errors.CaptureError) -> None:
        """Unless what has come of the answer will do."""
        self.stream.finish()
        self.attend()
        if not self.answers:
            self.failure = failure

    def _is_ready(self, until_s: float) -> bool:
        events = select.POLLIN | (select.POLLOUT if self._unsent else 0)
        return self.connection.has_more or wait(self.connection.fileno(), events, self._stop, until_s)

    def _read_early(self) -> None:
        self.flush()
        self.stream.rewind()
        self.read()
        for packet in self.stream.take():
            self._early_bytes += len(packet)
            if self._early_bytes <= MAX_EARLY_BYTES:
                self._early.append(bytes(packet))
        del self.stream.reports[:-MAX_EARLY_REPORTS]
        self.attend()

    def _send(self, data: bytes) -> None:
        self._unsent += data
        self.flush()
        if len(self._unsent) > MAX_UNSENT_BYTES:
            self.failure = errors.Closed("The camera takes nothing in any more.")

    def _serve(self, request: Message) -> None:
        is_known = request.method in _ANSWERED
        status, reason = (200, "OK") if is_known else (405, "Method Not Allowed")
        headers = {"Session": self.session} if self.session else {}
        self._send(pack_answer(status, reason, request.header("cseq"), headers))
        if request.method in _ENDING or _notice(request) in _END_NOTICES:
            self.failure = errors.Closed("The camera ended the session.")

    def _connect(self) -> Connection:
        address, is_verified = self._address, self._caution.verifies_certificate
        tls = TLS(address.host, is_verified) if address.scheme == "rtsps" else None
        within_s = max(0.0, min(self._timeout_s, self._until_s - monotonic()))
        return connect(self._ips, address.port, tls, self._stop, within_s)


def _notice(request: Message) -> int:
    code = (request.header("x-notice") or request.header("notice"))[:4]
    return int(code) if code.isascii() and code.isdigit() else 0
