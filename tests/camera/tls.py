"""TLS in front of a camera: a port that speaks it, and passes on what is said to another one that does not."""

import select
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
                socket.socket.shutdown(end, socket.SHUT_RDWR)  # without a word of TLS, which is another thread's

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
            _pump(near, far)


def _pump(near: ssl.SSLSocket, far: socket.socket) -> None:
    """Both ways in one thread: OpenSSL bears no second one that writes while it reads. Until one of them ends."""
    while True:
        ready = [near] if near.pending() else select.select([near, far], [], [], _LIMIT_S)[0]
        if not ready:
            return
        if near in ready:
            near.settimeout(0)
            with suppress(ssl.SSLWantReadError):  # nothing that is meant for the camera
                if not (data := near.recv(65_536)):
                    return
                far.sendall(data)
        if far in ready:
            if not (data := far.recv(65_536)):
                return
            near.settimeout(_LIMIT_S)
            near.sendall(data)
