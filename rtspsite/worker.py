"""Gunicorn's worker with threads, and with patience that ends: a slow client holds a socket, not one of the threads.

By itself gunicorn gives a connection to a thread with its first byte, and waits there for the rest of the request and
until the answer is taken. Measured: twenty clients that sent a byte a second, or took no answer, kept all 16 threads
for good, and the website answered nobody else.

Here the one thread that waits for all connections reads the requests, and a thread gets one that is there as a whole;
for it the connection ends with that, so that nothing it could still wait for, however the request is read, comes. It
is for HTTP/1 without TLS, as serve.sh starts it.
"""

import errno
import fcntl
import re
import selectors
import socket
import struct
import termios
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from io import SEEK_END
from itertools import islice
from typing import Any

from gunicorn import util
from gunicorn.workers.gthread import ThreadWorker

# A thread is given to a request once all of it is there, within this time and this size.
REQUEST_WITHIN_S = 10.0
HEAD_BYTES = 32 * 1024
BODY_BYTES = 64 * 1024  # the website reads no longer one: settings.DATA_UPLOAD_MAX_MEMORY_SIZE
# Who takes less of an answer than this within this time is given up.
ANSWER_STALLS_S, ANSWER_BYTES = 10.0, 4096
LINGER_S, LINGER_BYTES = 2.0, 64 * 1024  # as gunicorn has them
EVICTED = 50

_LENGTH = re.compile(rb"^content-length:[ \t]*(\d+)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_CHUNKS = re.compile(rb"^transfer-encoding:", re.IGNORECASE | re.MULTILINE)
_ASKS_FIRST = re.compile(rb"^expect:[ \t]*100-continue[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_END = b"\r\n\r\n"
_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
_REFUSAL = (
    "HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n"
    "X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\nCache-Control: no-store\r\n\r\n{reason}\n"
)


class Worker(ThreadWorker):  # type: ignore[misc]  # it comes without types
    def init_process(self) -> None:
        util.write_error = _refuse  # gunicorn's own repeats what was sent, in a page without a policy
        util.write = _send
        super().init_process()

    # All of these but handle_request() run in the one thread that waits for all connections.

    def enqueue_req(self, conn: Any) -> None:
        """To a thread, as soon as the whole request is there."""
        if not conn.initialized:
            conn.init()
            conn.parser.unreader.chunk = _no_more
        conn.sock.setblocking(False)
        conn.is_cut = conn.has_ended = conn.is_told = False
        if self._has_arrived(conn):
            self._hand_over(conn)
        else:
            self._wait(conn, REQUEST_WITHIN_S, self._on_more)

    def murder_keepalived(self, force: bool = False) -> None:
        """Where there is no room for another connection, idle ones go first, and then those that have waited longest
        for their own request."""
        self._make_room(self.keepalived_conns)
        super().murder_keepalived(force)

    def murder_pending(self) -> None:
        self._make_room(self.pending_conns)
        super().murder_pending()

    def _make_room(self, conns: Iterable[Any]) -> None:
        if self.nr_conns >= self.worker_connections:
            for conn in islice(conns, EVICTED):
                conn.timeout = 0

    def finish_request(self, conn: Any, answered: Any) -> None:
        """A connection that is to be closed is closed once the client has, or a moment later.

        gunicorn waits for that here, two seconds each, while nobody else is attended to.
        """
        if answered.cancelled() or answered.exception() or answered.result():
            super().finish_request(conn, answered)
        else:
            self._end(conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        if conn.is_cut:
            req.force_close()  # the rest of it, which nobody reads, is no second request
        req._expected_100_continue = False  # the body is here, or not wanted
        conn.sock.settimeout(ANSWER_STALLS_S)
        try:
            return super().handle_request(req, conn)
        except TimeoutError:  # gunicorn would log a traceback for each
            raise ConnectionResetError(errno.ECONNRESET, "The client takes no answer.") from None

    def _cap_keepalive(self, deadline: float) -> None:
        """A worker that stops waits no longer for what has not begun than for what is kept alive."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def _wait(self, conn: Any, within_s: float, then: Any) -> None:
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + within_s
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(then, conn))

    def _on_more(self, conn: Any, sock: socket.socket) -> None:
        if self._has_arrived(conn):
            self.poller.unregister(sock)
            self.pending_conns.remove(conn)
            self._hand_over(conn)

    def _hand_over(self, conn: Any) -> None:
        sent = conn.parser.unreader.buf.getvalue()
        if conn.has_ended and not sent:
            self._drop(conn)
        elif conn.has_ended:  # what half a request says is not what was meant
            self._turn_away(conn, 400, "Bad Request")
        elif _END not in sent[: HEAD_BYTES + len(_END)]:
            self._turn_away(conn, 431, "Request Header Fields Too Large")
        else:
            super().enqueue_req(conn)

    def _turn_away(self, conn: Any, status: int, reason: str) -> None:
        with suppress(OSError):
            _refuse(conn.sock, status, reason, "")
        self._end(conn)

    def _end(self, conn: Any) -> None:
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:  # the client is gone
            self._drop(conn)
        else:
            conn.lingered = 0
            self._wait(conn, LINGER_S, self._on_lingering)

    def _on_lingering(self, conn: Any, sock: socket.socket) -> None:
        try:
            data = sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        conn.lingered += len(data)
        if not data or conn.lingered >= LINGER_BYTES:
            self._drop(conn)

    def _drop(self, conn: Any) -> None:
        with suppress(KeyError, ValueError):
            self.poller.unregister(conn.sock)
        with suppress(ValueError):
            self.pending_conns.remove(conn)
        self.nr_conns -= 1
        conn.close()

    def _has_arrived(self, conn: Any) -> bool:
        """Whether there is nothing more to wait for: the request is whole, or larger than what is read, or the client
        has ended it. What follows a whole one stays where it is until that is answered."""
        buffer = conn.parser.unreader.buf
        missing = _missing(buffer.getvalue())
        if missing:
            try:
                data = conn.sock.recv(HEAD_BYTES + BODY_BYTES)
            except BlockingIOError:
                data = None
            except OSError:
                data = b""  # gone
            if data == b"":
                conn.has_ended = True
                return True
            if data:
                buffer.seek(0, SEEK_END)
                buffer.write(data)
                missing = _missing(buffer.getvalue())
        conn.is_cut = missing is None
        if missing and not conn.is_told and _waits_to_be_told(buffer.getvalue()):
            conn.is_told = True
            with suppress(OSError):
                conn.sock.send(_GO_ON)
        return not missing


def _missing(data: bytes) -> int | None:
    """How many bytes of the request are to come at the least; None if it is larger than what is read."""
    head, end, body = data.partition(_END)
    if len(head) > HEAD_BYTES:
        return None
    if not end:
        return 1
    # Python takes its time for numbers of thousands of digits.
    length = max((int(digits.lstrip(b"0")[:19] or b"0") for digits in _LENGTH.findall(head)), default=0)
    if length > BODY_BYTES or _CHUNKS.search(head):
        return None
    return max(0, length - len(body))


def _waits_to_be_told(data: bytes) -> bool:
    """As curl does with a long body. Those who speak HTTP/1.0 do not know the answer."""
    head, end, _ = data.partition(_END)
    return bool(end) and head.partition(b"\r\n")[0].endswith(b" HTTP/1.1") and bool(_ASKS_FIRST.search(head))


def _no_more(size_hint: int | None = None) -> bytes:
    """In place of reading from the socket, in a thread."""
    return b""


def _send(sock: socket.socket, data: bytes, chunked: bool = False) -> None:
    """All of it, while the client takes some of what is on its way: the kernel holds megabytes, and has room for more
    only after a third of them."""
    left = memoryview(b"%X\r\n%b\r\n" % (len(data), data) if chunked else data)
    while left:
        on_its_way = _on_its_way(sock)
        try:
            left = left[sock.send(left) :]
        except TimeoutError:
            if on_its_way - _on_its_way(sock) < ANSWER_BYTES:
                raise


def _on_its_way(sock: socket.socket) -> int:
    """Bytes that the kernel holds until the client has taken them."""
    count: int = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
    return count


def _refuse(sock: socket.socket, status: int, reason: str, words: str) -> None:
    """`words`, which repeat what was sent, are in the log."""
    answer = _REFUSAL.format(status=status, reason=reason, length=len(reason) + 1)
    util.write_nonblock(sock, answer.encode("latin-1"))
