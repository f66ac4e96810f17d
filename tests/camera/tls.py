"""TLS in front of a camera: a port that speaks it, and passes on what is said to another one that does not."""

import socket
import ssl
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

_LIMIT_S = 60.0


class TLSFront:
    """`with TLSFront(camera.port, context) as front`: rtsps://127.0.0.1:{front.port}/... `context` may be changed."""

    def __init__(self, server_port: int, context: ssl.SSLContext) -> None:
        self.context = context
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._listen)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(_LIMIT_S)

    def cut(self) -> None:
        """Every connection."""
        for end in self._sockets[:]:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._start(self._hold, client)

    def _hold(self, client: socket.socket) -> None:
        client.settimeout(_LIMIT_S)
        far = socket.socket()
        with suppress(OSError), client, self.context.wrap_socket(client, server_side=True) as near, far:
            far.connect(("127.0.0.1", self._server_port))
            self._sockets += [near, far]
            self._start(_pump, far, near)
            _pump(near, far)
        far.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
