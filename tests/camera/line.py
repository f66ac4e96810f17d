"""A TCP connection whose two directions fail apart.

asyncio's streams drop what was received and not yet read when a write fails. libav sends TEARDOWN and closes
at once, with packets unread: the camera's next packet meets a reset, and the TEARDOWN would be lost at times.
"""

import asyncio
import socket
import struct

_HEAD_BYTES_MAX = 65_536


class LineEnded(ConnectionError):
    """The other side has closed, or said too much."""


class Line:
    """`connection` is connected and does not block; it is closed with the line."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._sending = asyncio.Lock()
        self.host: str = connection.getsockname()[0]
        self.client_host: str = connection.getpeername()[0]

    async def send(self, data: bytes) -> None:
        """Whole, whoever else sends; waits for a client that does not read. Raises OSError."""
        async with self._sending:
            await self._loop.sock_sendall(self._connection, data)

    async def read(self, size: int) -> bytes:
        """Raises LineEnded, OSError."""
        while len(self._received) < size:
            await self._receive()
        return self._take(size)

    async def read_until(self, end: bytes) -> bytes:
        """Including the end. Raises LineEnded, OSError."""
        while (place := self._received.find(end)) < 0:
            if len(self._received) > _HEAD_BYTES_MAX:
                raise LineEnded("a request's head is too long")
            await self._receive()
        return self._take(place + len(end))

    def close(self, *, with_reset: bool = False) -> None:
        """Nobody may be waiting in read or send."""
        if with_reset:  # with a linger of 0 s a close sends RST in place of FIN
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()

    async def _receive(self) -> None:
        data = await self._loop.sock_recv(self._connection, 65_536)
        if not data:
            raise LineEnded("closed by the client")
        self._received += data

    def _take(self, size: int) -> bytes:
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken
