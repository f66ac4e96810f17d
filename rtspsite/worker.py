"""Gunicorn's worker with threads, and with patience that ends: a slow client holds a socket, not one of the threads.

By itself gunicorn gives a connection to a thread with its first byte, and waits there for the rest of the request and
until the answer is taken. Measured: twenty clients that sent a byte a second, or took no answer, kept all 16 threads
for good, and the website answered nobody else.
"""

import errno
import re
import selectors
import socket
import time
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any

from gunicorn import util
from gunicorn.workers.gthread import ThreadWorker

# A thread is given to a request once all of it is there, within this time and this size.
REQUEST_WITHIN_S = 10.0
HEAD_BYTES = 32 * 1024
BODY_BYTES = 64 * 1024  # the website reads no longer one: settings.DATA_UPLOAD_MAX_MEMORY_SIZE
REQUEST_BYTES = HEAD_BYTES + BODY_BYTES
# Without a byte of the answer taken for so long nobody is there any more.
ANSWER_STALLS_S = 10.0
LINGER_S, LINGER_BYTES = 2.0, 64 * 1024  # as gunicorn has them
EVICTED = 50

_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_CHUNKS = re.compile(rb"^transfer-encoding:", re.IGNORECASE | re.MULTILINE)
_REFUSAL = (
    "HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n"
    "X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\nCache-Control: no-store\r\n\r\n{reason}\n"
)


class Worker(ThreadWorker):  # type: ignore[misc]  # it comes without types
    def init_process(self) -> None:
        util.write_error = _refuse  # gunicorn's own repeats what was sent, in a page without a policy
        super().init_process()

    # All of these but handle_request() run in the one thread that waits for all connections.

    def enqueue_req(self, conn: Any) -> None:
        """To a thread, as soon as the whole request is there."""
        conn.seen = -1
        if self._has_arrived(conn):
            self._hand_over(conn)
        else:
            self._wait(conn, REQUEST_WITHIN_S, self._on_more)

    def murder_pending(self) -> None:
        """Where there is no room for another connection, those go that have waited longest for their own request."""
        if self.nr_conns >= self.worker_connections:
            for conn in islice(self.pending_conns, EVICTED):
                conn.timeout = 0
        super().murder_pending()

    def finish_request(self, conn: Any, answered: Any) -> None:
        """A connection that is to be closed is closed once the client has, or a moment later.

        gunicorn waits for that here, two seconds each, while nobody else is attended to.
        """
        if answered.cancelled() or answered.exception() or answered.result():
            super().finish_request(conn, answered)
            return
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:  # the client is gone
            self._drop(conn)
        else:
            conn.seen = 0
            self._wait(conn, LINGER_S, self._on_lingering)

    def handle_request(self, req: Any, conn: Any) -> Any:
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

    def _on_lingering(self, conn: Any, sock: socket.socket) -> None:
        with suppress(OSError):
            data = sock.recv(4096)
            conn.seen += len(data)
            if data and conn.seen < LINGER_BYTES:
                return
        self._drop(conn)

    def _drop(self, conn: Any) -> None:
        with suppress(KeyError, ValueError):
            self.poller.unregister(conn.sock)
        with suppress(ValueError):
            self.pending_conns.remove(conn)
        self.nr_conns -= 1
        conn.close()

    def _hand_over(self, conn: Any) -> None:
        conn.data_ready = True
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        super().enqueue_req(conn)

    def _has_arrived(self, conn: Any) -> bool:
        """Whether a thread would not have to wait for the request. Looks at it, and leaves it where it is.

        From then on the poller tells of the socket only when there is more.
        """
        read_ahead: bytes = conn.parser.unreader.buf.getvalue() if conn.parser else b""
        conn.sock.setblocking(False)  # after an answer it has a time limit, which would be waited for here
        is_at_end = False
        try:
            data = conn.sock.recv(REQUEST_BYTES, socket.MSG_PEEK)
            is_at_end = len(data) <= conn.seen or not data
        except BlockingIOError:
            data = b""
        except OSError:
            return True  # gone: the thread sees it at once
        conn.seen = len(data)
        missing = _missing(read_ahead + data)
        if missing is None or is_at_end:  # nobody waits for what is not read, or does not come
            with suppress(OSError):
                conn.sock.shutdown(socket.SHUT_RD)
            return True
        if missing:
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(data) + missing)
        return not missing


def _missing(data: bytes) -> int | None:
    """How many bytes of the request are to come at the least; None if it is larger than what is read."""
    head, end, body = data.partition(b"\r\n\r\n")
    if len(head) > HEAD_BYTES:
        return None
    if not end:
        return 1
    length = max(map(int, _LENGTH.findall(head)), default=0)
    if length > BODY_BYTES or _CHUNKS.search(head):
        return None
    return max(0, length - len(body))


def _refuse(sock: socket.socket, status: int, reason: str, words: str) -> None:
    """`words`, which repeat what was sent, are in the log."""
    answer = _REFUSAL.format(status=status, reason=reason, length=len(reason) + 1)
    util.write_nonblock(sock, answer.encode("latin-1"))
