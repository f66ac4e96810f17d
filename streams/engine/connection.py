"""Sockets to a camera that never block: TCP, TLS, and a pair for UDP. Every wait also watches the stop."""

import select
import socket
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from . import errors
from .clock import Stop, Stopped
from .interleaved import MIN_RTP_BYTES

NOTHING = -1
"""What `read_into` gives when nothing is there; 0 is the end."""
RECEIVE_BUFFER_BYTES = 1 << 22  # the kernel cuts it to net.core.rmem_max
_PORT_TRIES = 100
MAX_DATAGRAM_BYTES = 1 << 16
# OpenSSL's X509_V_ERR_...: x509_vfy.h
_UNKNOWN_CA = "is signed by an authority that this host does not know"
_WRONG_CERTIFICATES = {
    9: "is not valid yet (are the clocks right?)",
    10: "has expired",
    18: "is signed by the camera itself",
    19: _UNKNOWN_CA,
    20: _UNKNOWN_CA,
    21: _UNKNOWN_CA,
    62: "is for another name than {host}",
    64: "is for another address than {host}",
}
# Where the certificate does not matter to the user, old ciphers do not either: cameras know RSA and DHE key exchange
# with short keys alone (go2rtc PR #2211 #2383: Axis firmware 6, Reolink, Kasa). None of these is without encryption.
_ANY_CIPHER = "ALL:!aNULL:!eNULL:@SECLEVEL=0"
# ssl.OP_LEGACY_SERVER_CONNECT, named from Python 3.12 on: OpenSSL 3 refuses servers older than RFC 5746.
_LEGACY_SERVER_CONNECT = 4
# Of an SSLError where TLS is spoken, but in no way that both sides know.
_OLD_TLS = "PROTOCOL"
_NO_COMMON_CIPHER = ("HANDSHAKE_FAILURE", "CIPHER", "TOO_SMALL", "LEGACY", "BAD_DH_VALUE", "INSUFFICIENT_SECURITY")
_TLS_REASON = "ALERT"
MAX_DATAGRAMS = 4096  # of one read: whoever floods the port does not hold us there


class Connection:
    """One TCP connection. Closed by the other side or broken: `read_into` gives 0, `write` raises OSError."""

    def __init__(self, tcp: socket.socket) -> None:
        self._socket = tcp
        self.peer: str = tcp.getpeername()[0]
        self.own: str = tcp.getsockname()[0]
        self.family = tcp.family

    def fileno(self) -> int:
        return self._socket.fileno()

    def read_into(self, room: memoryview) -> int:
        """How many bytes came; NOTHING, or 0 for the end."""
        try:
            return self._socket.recv_into(room)
        except BlockingIOError:
            return NOTHING
        except OSError:
            return 0

    @property
    def has_more(self) -> bool:
        """Whether a read would give something of which poll knows nothing."""
        return False

    def write(self, data: bytes | bytearray) -> int:
        """How many bytes were taken, perhaps 0. Raises OSError."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def wake_at(self, count: int) -> None:
        """Be readable only once so many bytes are there, or the end: poll honours it for TCP (socket(7))."""
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, max(1, count))

    def close(self) -> None:
        self._socket.close()


@dataclass(frozen=True, slots=True)
class TLS:
    """`host` is the name or IP address that the certificate has to be for, unless it is not verified."""

    host: str
    is_verified: bool = True


class TLSConnection(Connection):
    """The same through TLS, 1.2 or newer. Nothing is sent before the certificate is verified."""

    def __init__(self, tcp: socket.socket, tls: TLS, stop: Stop, until_s: float) -> None:
        """Raises CertificateRefused, NotRTSP if the other side speaks no TLS, ConnectTimeout, Closed, Stopped."""
        super().__init__(tcp)
        import ssl  # 6 ms and 0.9 MB that a plain camera does not need

        self._ssl = ssl
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.is_verified:
            context.load_default_certs()  # the system's, or those of SSL_CERT_FILE and SSL_CERT_DIR
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_ciphers(_ANY_CIPHER)
            context.options |= _LEGACY_SERVER_CONNECT
        self._tls = context.wrap_socket(tcp, server_hostname=tls.host, do_handshake_on_connect=False)
        self._socket = self._tls
        try:
            self._shake_hands(tls, stop, until_s)
        except BaseException:
            self.close()
            raise

    def read_into(self, room: memoryview) -> int:
        """As many records (16 KiB each) as there are and the room holds."""
        count = 0
        try:
            while count < len(room):
                got = self._tls.recv_into(room[count:])
                if not got:
                    break
                count += got
        except (self._ssl.SSLWantReadError, self._ssl.SSLWantWriteError):
            return count or NOTHING
        except OSError:
            return count
        return count

    @property
    def has_more(self) -> bool:
        return self._tls.pending() > 0

    def write(self, data: bytes | bytearray) -> int:
        try:
            return self._tls.send(data)
        except (self._ssl.SSLWantReadError, self._ssl.SSLWantWriteError):
            return 0

    def _shake_hands(self, tls: TLS, stop: Stop, until_s: float) -> None:
        while True:
            try:
                return self._tls.do_handshake()
            except self._ssl.SSLWantReadError:
                is_ready = wait(self.fileno(), select.POLLIN, stop, until_s)
            except self._ssl.SSLWantWriteError:
                is_ready = wait(self.fileno(), select.POLLOUT, stop, until_s)
            except (self._ssl.SSLEOFError, ConnectionError):
                raise errors.Closed from None
            except self._ssl.SSLCertVerificationError as error:
                raise _certificate_refused(tls.host, error.verify_code, error.verify_message) from None
            except self._ssl.SSLError as error:
                raise _handshake_failed(error.reason or "", is_verified=tls.is_verified) from None
            if not is_ready:
                raise errors.ConnectTimeout


def connect(ips: list[str], port: int, tls: TLS | None, stop: Stop, timeout_s: float) -> Connection:
    """To the first of these addresses that answers, each given `timeout_s`. Raises a CaptureError, or Stopped.

    Without `tls` plain TCP.
    """
    for ip in ips:
        if tcp := _connected(ip, port, stop, monotonic() + timeout_s):
            try:
                tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return TLSConnection(tcp, tls, stop, monotonic() + timeout_s) if tls else Connection(tcp)
            except OSError:  # reset already
                tcp.close()
                raise errors.Closed from None
    raise errors.Unreachable


def wait(fileno: int, events: int, stop: Stop, until_s: float) -> bool:
    """Whether the socket is ready before that moment of the monotonic clock. Raises Stopped."""
    poll = select.poll()
    poll.register(fileno, events)
    poll.register(stop.fileno(), select.POLLIN)
    found = dict(poll.poll(max(0.0, until_s - monotonic()) * 1000))
    if stop.fileno() in found:
        raise Stopped
    return fileno in found


def _certificate_refused(host: str, code: int, reason: str) -> errors.CertificateRefused:
    wrong = _WRONG_CERTIFICATES.get(code, f"cannot be verified ({reason})").format(host=host)
    return errors.CertificateRefused(f"The camera's certificate {wrong}: see verify_certificate and SSL_CERT_FILE.")


def _handshake_failed(reason: str, *, is_verified: bool) -> errors.NotRTSP:
    """`reason` is OpenSSL's name for it."""
    if _OLD_TLS in reason:
        return errors.NotRTSP("The camera speaks no TLS that is safe enough: 1.2 is the least.")
    if any(word in reason for word in _NO_COMMON_CIPHER):
        hint = " Switch verify_certificate off to accept old ciphers." if is_verified else ""
        return errors.NotRTSP(f"The camera and this service have no common cipher for TLS 1.2 or newer.{hint}")
    if _TLS_REASON in reason:
        return errors.NotRTSP(f"The camera broke off the TLS handshake: {reason.lower().replace('_', ' ')}.")
    return errors.NotRTSP()  # what came is no record


def _connected(ip: str, port: int, stop: Stop, until_s: float) -> socket.socket | None:
    """None: nobody is there."""
    tcp = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
    try:
        tcp.setblocking(False)
        with suppress(BlockingIOError):
            tcp.connect((ip, port))
        if wait(tcp.fileno(), select.POLLOUT, stop, until_s):
            tcp.getpeername()  # raises if the connection was refused
            return tcp
    except OSError:
        pass
    except Stopped:
        tcp.close()
        raise
    tcp.close()
    return None


class Datagrams:
    """Two UDP sockets on ports in a row, the even one for RTP: RFC 3550 section 11.

    RTP counts only from the camera's address, and from one that it named as the source. The port is learned from
    the first packet: some cameras send from another one than they announced.
    """

    def __init__(self, connection: Connection, receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES) -> None:
        self._family = connection.family
        self._senders = [connection.peer]
        self.stranger = ""
        """Another address that packets came from before any of the camera's did."""
        self._rtp, self._rtcp = _pair(connection.family, connection.own)
        self._is_known = False
        self._learned_port = 0
        with suppress(OSError):
            self._rtp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.ports: tuple[int, int] = (self._rtp.getsockname()[1], self._rtcp.getsockname()[1])

    def has_any(self) -> bool:
        """Whether a datagram waits on the port of RTP."""
        poll = select.poll()
        poll.register(self._rtp.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def filenos(self) -> tuple[int, int]:
        """RTP, RTCP."""
        return self._rtp.fileno(), self._rtcp.fileno()

    def expect_from(self, ip: str) -> None:
        """Take packets of this address, too. One of the other family than the connection's cannot come here."""
        if (":" in ip) == (self._family == socket.AF_INET6) and ip not in self._senders:
            self._senders.append(ip)

    def punch(self, ports: tuple[int, int], rtp: bytes, rtcp: bytes) -> None:
        """Send both to the camera's ports, so that a NAT or firewall between lets its packets in."""
        for own, port, data in ((self._rtp, ports[0], rtp), (self._rtcp, ports[1], rtcp)):
            self._send(own, port, data)

    def report(self, port: int, rtcp: bytes) -> None:
        """To this port; 0: to the one behind that which RTP comes from."""
        if port or self._is_known:
            self._send(self._rtcp, port or self._learned_port + 1, rtcp)

    def receive(self, room: memoryview) -> list[memoryview]:
        """The RTP packets that are there, or as many as the room is sure to hold: slices of it."""
        packets: list[memoryview] = []
        try:
            if not self._is_known and not self._learn(room, packets):
                return packets
            at, last = len(packets[0]) if packets else 0, len(room) - MAX_DATAGRAM_BYTES
            read_into = self._rtp.recv_into
            for _ in range(MAX_DATAGRAMS):
                if at > last:
                    break
                after = at + read_into(room[at:])
                if after - at >= MIN_RTP_BYTES:
                    packets.append(room[at:after])
                    at = after
        except BlockingIOError:
            pass
        except OSError:  # an ICMP message: what it is about shows elsewhere
            pass
        return packets

    def reports(self) -> list[bytes]:
        """The RTCP packets from the camera that are there."""
        found: list[bytes] = []
        with suppress(OSError):
            while len(found) < 100:
                data, sender = self._rtcp.recvfrom(MAX_DATAGRAM_BYTES)
                found += [data] if sender[0] in self._senders else []
        return found

    def close(self) -> None:
        self._rtp.close()
        self._rtcp.close()

    def _learn(self, room: memoryview, packets: list[memoryview]) -> bool:
        """Whether a packet of the camera has come: from then on the kernel keeps out all others."""
        for _ in range(MAX_DATAGRAMS):
            count, sender = self._rtp.recvfrom_into(room)
            if count < MIN_RTP_BYTES:
                continue
            if sender[0] in self._senders:
                self._rtp.connect(sender)
                self._is_known, self._learned_port = True, sender[1]
                packets.append(room[:count])
                return True
            self.stranger = sender[0]
        return False

    def _send(self, own: socket.socket, port: int, data: bytes) -> None:
        for ip in self._senders:
            with suppress(OSError, OverflowError):
                own.sendto(data, (ip, port))


def _pair(family: int, own: str) -> tuple[socket.socket, socket.socket]:
    """Raises Unreachable if no two ports are free."""
    for _ in range(_PORT_TRIES):
        first, second = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_DGRAM)
        with suppress(OSError):
            first.bind((own, 0))
            port = first.getsockname()[1]
            if port % 2 == 0:
                second.bind((own, port + 1))
                first.setblocking(False)
                second.setblocking(False)
                return first, second
        first.close()
        second.close()
    raise errors.Unreachable("This host has no two UDP ports in a row free.")
