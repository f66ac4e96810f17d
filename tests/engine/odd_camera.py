"""A camera that says whatever bytes a test wants said: for what the scripted camera cannot do."""

import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

SDP = b"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track1\r\n"
_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Request:
    """Header names in lower case; `connection` counts from 1."""

    method: str
    url: str
    headers: dict[str, str]
    connection: int


Say = Callable[[Request], bytes | Iterable[bytes] | None]
"""What to say to a request, perhaps for ever; None: close."""


def answer(request: Request, status: str = "200 OK", body: bytes = b"", **headers: str) -> bytes:
    """`headers` with underscores for hyphens."""
    lines = [f"RTSP/1.0 {status}", f"CSeq: {request.headers['cseq']}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def plain(request: Request) -> bytes | None:
    """As a good camera answers, one that plays nothing by itself."""
    if request.method == "OPTIONS":
        return answer(request, Public="OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN")
    if request.method == "DESCRIBE":
        return answer(request, body=SDP, Content_Type="application/sdp")
    if request.method == "SETUP":
        return answer(request, Session="5E55;timeout=60", Transport=request.headers["transport"])
    return answer(request, Session="5E55")


def framed(channel: int, packet: bytes) -> bytes:
    return struct.pack(">cBH", b"$", channel, len(packet)) + packet


def rtp(number: int, size: int = 20) -> bytes:
    return struct.pack(">BBHII", 0x80, 96, number & 0xFFFF, 0, 0) + bytes(size)


@dataclass
class OddCamera:
    """`on` replaces the answer to some methods; the rest is answered as `plain` does. Threads of its own."""

    on: dict[str, Say] = field(default_factory=dict)
    greeting: bytes | None = None
    """Said to whoever connects, which is then closed."""
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[Request] = []
        self.reports: list[bytes] = []
        """Interleaved packets of the client."""
        self.connections = 0
        self.open_connections = 0
        self._lines: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._listen, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for line in self._lines:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_LIMIT_S)

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"rtsp{'s' if self.tls else ''}://{self.authority}/live"

    @property
    def methods(self) -> list[str]:
        return [request.method for request in self.requests]

    def send(self, data: bytes) -> None:
        """To who connected last."""
        self._lines[-1].sendall(data)

    def hang_up(self) -> None:
        self._lines[-1].shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                line, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(line, self.connections), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, line: socket.socket, number: int) -> None:
        self.open_connections += 1
        line.settimeout(_LIMIT_S)
        with suppress(OSError, EOFError), line:
            if self.tls:
                line = self.tls.wrap_socket(line, server_side=True)
            self._lines.append(line)
            if self.greeting is not None:
                line.sendall(self.greeting)
                line.shutdown(socket.SHUT_WR)
                line.recv(65_536)
                return
            with line.makefile("rb") as file:
                while (request := self._read(file.read, file.readline, number)) is not None:
                    self.requests.append(request)
                    said = self.on.get(request.method, plain)(request)
                    if said is None:
                        _end(line)
                        break
                    for part in [said] if isinstance(said, bytes) else said:
                        line.sendall(part)
        with suppress(OSError):
            line.close()
        self.open_connections -= 1

    def _read(self, read: Callable[[int], bytes], readline: Callable[[], bytes], number: int) -> Request | None:
        """The next request; None: the client has closed. Its answers to requests of ours count as requests."""
        while (start := read(1)) == b"$":
            head = read(3)
            self.reports.append(head[:1] + read(int.from_bytes(head[1:])))
        if not start:
            return None
        words = (start + readline()).decode().split()
        headers = {}
        while line := readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Request(words[0], words[1], headers, number)


def _end(line: socket.socket) -> None:
    """Hear the client out: to close with a report of its unread would reset the connection, and take from the client
    what it has not read yet."""
    line.shutdown(socket.SHUT_WR)
    while line.recv(65_536):
        pass


def digest_fields(request: Request) -> dict[str, str]:
    text = request.headers.get("authorization", "")
    return {name: quoted or bare for name, quoted, bare in re.findall(r'(\w+)=(?:"([^"]*)"|([^", ]+))', text)}
