"""How RTP comes: interleaved in the RTSP connection, or as UDP datagrams beside it. Both behind one face.

Packets are slices of a buffer and valid until the next `rewind`. What else comes, RTCP and RTSP messages, is
left in the dialogue's stream for the session.
"""

import re
import select
from dataclasses import dataclass
from ipaddress import ip_address
from time import monotonic
from typing import Protocol

from . import errors
from .address import Networks, check_ip, is_literal
from .clock import Stop
from .connection import Datagrams
from .dialogue import Begun, Dialogue
from .interleaved import BASE_BYTES

MAX_DRAINED_BYTES = 1 << 24
MAX_NAP_S = 0.05  # over UDP: at 4 Mbit/s 23 packets, where Linux's default buffer holds 184
CHANNELS = (0, 1)
_RTP_PUNCH = bytes([0x80]) + bytes(11)  # an RTP packet that holds nothing
_NUMBERS = re.compile(r"(\d{1,5})(?:\s*-\s*(\d{1,5}))?", re.ASCII)

Ready = list[tuple[int, int]]
"""File descriptors and events, as poll gives them."""


@dataclass(frozen=True, slots=True)
class Transport:
    """The first transport in a SETUP answer's header; None where it does not say."""

    is_tcp: bool
    is_multicast: bool
    channels: tuple[int, int] | None
    server_ports: tuple[int, int] | None
    source: str
    """Where the packets come from; empty: where the answers come from."""


class Carrier(Protocol):
    offer: str
    """Transport of the SETUP request."""

    def agree(self, told: str, report: bytes) -> None:
        """Take what the SETUP answer says. Raises TransportRefused if it is another transport than was offered."""

    def offer_unread(self) -> str:
        """Transport of the SETUP request of one more track, whose packets are not read. Raises Unreachable."""

    def agree_unread(self, told: str) -> None:
        """Take what the answer to that says."""

    def begun(self) -> Begun:
        """Make a check whether packets have come since now, for the time before `watch`."""

    def watch(self, stop: Stop) -> None:
        """From now on `wait`."""

    def wait(self, now_s: float, until_s: float) -> Ready:
        """Until something is there or the monotonic clock says so."""

    def rewind(self) -> None:
        """Packets given before are no longer valid."""

    def read(self, ready: Ready) -> list[memoryview]:
        """The RTP packets that are there, without waiting."""

    def drain(self) -> None:
        """Take in what is there, for `drained`, and leave packets given before as they are."""

    def drained(self) -> list[memoryview]: ...

    def wake_at(self, count: int) -> None:
        """Wait until about so many bytes are there."""

    def report(self, packet: bytes) -> None:
        """Send RTCP."""

    def outlives_connection(self) -> bool:
        """The RTSP connection has ended: whether packets can come all the same."""

    @property
    def trouble(self) -> str:
        """What may be why nothing comes: one sentence, or empty."""

    def close(self) -> None: ...


class TCPCarrier:
    def __init__(self, dialogue: Dialogue) -> None:
        self.offer = "RTP/AVP/TCP;unicast;interleaved={}-{}".format(*CHANNELS)
        self._dialogue = dialogue
        self._channels = CHANNELS
        self._unread: list[int] = []
        self._offered = CHANNELS
        self._poll = select.poll()
        self._is_drained = False
        dialogue.stream.listen(*CHANNELS)

    def agree(self, told: str, report: bytes) -> None:
        transport = parse_transport(told)
        if told and (transport.is_multicast or not transport.is_tcp):
            raise errors.TransportRefused
        self._channels = transport.channels or CHANNELS
        self._dialogue.stream.listen(*self._channels)

    def offer_unread(self) -> str:
        taken = max(self._offered[1], self._channels[1], *self._unread, 0)
        first = (taken // 2 + 1) * 2  # in pairs from an even one on, as libav counts them
        self._offered = (first, first + 1)
        return f"RTP/AVP/TCP;unicast;interleaved={first}-{first + 1}"

    def agree_unread(self, told: str) -> None:
        self._unread += parse_transport(told).channels or self._offered
        self._dialogue.stream.listen(*self._channels, self._unread)

    def begun(self) -> Begun:
        before = self._dialogue.early
        return lambda: self._dialogue.early > before

    def watch(self, stop: Stop) -> None:
        for fileno in (stop.fileno(), self._dialogue.connection.fileno()):
            self._poll.register(fileno, select.POLLIN)

    def wait(self, now_s: float, until_s: float) -> Ready:
        wait_s = 0.0 if self._dialogue.connection.has_more else max(0.0, until_s - now_s)
        return self._poll.poll(wait_s * 1000)

    def rewind(self) -> None:
        self._dialogue.stream.rewind()

    def read(self, ready: Ready) -> list[memoryview]:
        self._dialogue.read()
        return self._dialogue.stream.take()

    def drain(self) -> None:
        self._is_drained = True
        dialogue = self._dialogue
        while dialogue.stream.pending_bytes < MAX_DRAINED_BYTES and not dialogue.has_ended and dialogue.read():
            pass

    def drained(self) -> list[memoryview]:
        if not self._is_drained:
            return []
        self._is_drained = False
        return self._dialogue.stream.take()

    def wake_at(self, count: int) -> None:
        self._dialogue.connection.wake_at(count)

    def report(self, packet: bytes) -> None:
        self._dialogue.send_interleaved(self._channels[1], packet)

    def outlives_connection(self) -> bool:
        return False

    @property
    def trouble(self) -> str:
        return ""

    def close(self) -> None:
        pass


class UDPCarrier:
    def __init__(self, dialogue: Dialogue, networks: Networks = ()) -> None:
        """`networks`: those that packets may come from, as for `check_ip`."""
        self._networks = networks
        self._refused_source = ""
        self._datagrams = Datagrams(dialogue.connection)
        self.offer = "RTP/AVP;unicast;client_port={}-{}".format(*self._datagrams.ports)
        self._dialogue = dialogue
        self._rtcp_port = 0
        self._unread: list[Datagrams] = []
        self._poll, self._calm_poll = select.poll(), select.poll()
        self._buffer = memoryview(bytearray(BASE_BYTES))
        self._room = self._buffer
        self._held: list[memoryview] = []
        self._nap_bytes = 1
        self._rate_bytes_per_s = 0.0
        self._read_at_s = 0.0

    def agree(self, told: str, report: bytes) -> None:
        transport = parse_transport(told)
        if transport.is_multicast or transport.is_tcp:
            raise errors.TransportRefused
        self._expect_from(transport.source)
        if transport.server_ports:
            self._rtcp_port = transport.server_ports[1]
            self._datagrams.punch(transport.server_ports, _RTP_PUNCH, report)

    def offer_unread(self) -> str:
        datagrams = Datagrams(self._dialogue.connection, receive_buffer_bytes=0)
        self._unread.append(datagrams)
        return "RTP/AVP;unicast;client_port={}-{}".format(*datagrams.ports)

    def agree_unread(self, told: str) -> None:
        pass  # the kernel drops what does not fit into a small buffer

    def begun(self) -> Begun:
        return self._datagrams.has_any

    def watch(self, stop: Stop) -> None:
        calm = (stop.fileno(), self._dialogue.connection.fileno())
        for fileno in calm:
            self._calm_poll.register(fileno, select.POLLIN)
        for fileno in (*calm, *self._datagrams.filenos()):
            self._poll.register(fileno, select.POLLIN)

    def wait(self, now_s: float, until_s: float) -> Ready:
        """The kernel counts no bytes for UDP: sleep first for as long as so many should take to come."""
        if self._nap_bytes > 1 and self._rate_bytes_per_s:
            nap_s = max(0.0, min(MAX_NAP_S, self._nap_bytes / self._rate_bytes_per_s, until_s - now_s))
            if found := self._calm_poll.poll(nap_s * 1000):
                return found
            now_s += nap_s
        return self._poll.poll(max(0.0, until_s - now_s) * 1000)

    def rewind(self) -> None:
        self._dialogue.stream.rewind()
        if not self._held:
            self._room = self._buffer

    def read(self, ready: Ready) -> list[memoryview]:
        rtp, rtcp = self._datagrams.filenos()
        packets: list[memoryview] = []
        for fileno, _ in ready:
            if fileno == rtp:
                packets = self._read()
                self._observe_rate(sum(map(len, packets)))
            elif fileno == rtcp:
                self._dialogue.stream.reports += self._datagrams.reports()
            else:
                self._dialogue.read()
                self._dialogue.stream.take()
        return packets

    def drain(self) -> None:
        held_bytes = sum(map(len, self._held))
        while held_bytes < MAX_DRAINED_BYTES and (packets := self._read()):
            self._held += packets
            held_bytes += sum(map(len, packets))

    def drained(self) -> list[memoryview]:
        held, self._held = self._held, []
        return held

    def wake_at(self, count: int) -> None:
        self._nap_bytes = count

    def report(self, packet: bytes) -> None:
        self._datagrams.report(self._rtcp_port, packet)

    def outlives_connection(self) -> bool:
        """The connection would be readable for ever."""
        fileno = self._dialogue.connection.fileno()
        self._poll.unregister(fileno)
        self._calm_poll.unregister(fileno)
        return True

    @property
    def trouble(self) -> str:
        if self._refused_source:
            return self._refused_source
        stranger = self._datagrams.stranger
        return f"Packets came from {stranger}, which the camera does not name as their source." if stranger else ""

    def close(self) -> None:
        for datagrams in (self._datagrams, *self._unread):
            datagrams.close()

    def _expect_from(self, source: str) -> None:
        """A recorder with two networks may send by the other one. No name is looked up; 0.0.0.0 names nothing."""
        if not is_literal(source) or ip_address(source).is_unspecified:
            return
        source = str(ip_address(source))  # as the kernel spells it
        if source == self._dialogue.connection.peer:
            return
        try:
            check_ip(source, self._networks)
        except errors.AddressRefused as error:  # behind a NAT it is the camera's own view, and no harm
            self._refused_source = f"The camera names {source} as the source of its packets. {error}"
        else:
            self._datagrams.expect_from(source)

    def _read(self) -> list[memoryview]:
        """Into what is left of the buffer; into another one if that is little, for packets in it are in use."""
        if len(self._room) < BASE_BYTES // 2:
            self._buffer = self._room = memoryview(bytearray(BASE_BYTES))
        packets = self._datagrams.receive(self._room)
        self._room = self._room[sum(map(len, packets)) :]
        return packets

    def _observe_rate(self, count: int) -> None:
        now_s = monotonic()
        self._rate_bytes_per_s = count / max(now_s - self._read_at_s, 1e-3)
        self._read_at_s = now_s


def parse_transport(value: str) -> Transport:
    """RFC 2326 section 12.39, parameters in any order and case (retina #120)."""
    kind, *parts = value.partition(",")[0].split(";")
    fields = {name.strip().lower(): text.strip() for name, _, text in (part.partition("=") for part in parts)}
    return Transport(
        is_tcp="TCP" in kind.upper() or "interleaved" in fields,
        is_multicast="multicast" in fields,
        channels=_pair(fields.get("interleaved", ""), 255),
        server_ports=_pair(fields.get("server_port", ""), 65_535),
        source=fields.get("source", "").strip("[]"),
    )


def _pair(text: str, most: int) -> tuple[int, int] | None:
    """`4-5`; `4` stands for itself and the next. None: not a pair of numbers up to `most`."""
    match = _NUMBERS.match(text)
    if not match:
        return None
    first = int(match[1])
    second = int(match[2]) if match[2] else first + 1
    return (first, second) if max(first, second) <= most else None
