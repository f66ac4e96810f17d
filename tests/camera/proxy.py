"""A bad line: a TCP proxy in front of an RTSP server that cuts, stalls, delays, drops and damages.

with GstServer(films) as server, Proxy(server.port) as proxy:
    av.open(proxy.url("demo"), options={"rtsp_transport": "tcp"})
    proxy.trouble = Trouble(damages_each=1000)
"""

import asyncio
import random
import re
import socket
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.camera.faults import Door, End
from tests.camera.line import Line

_T = TypeVar("_T")
_CALL_S = 30.0  # nothing that is asked of the loop takes long; a machine may be loaded
_UNITS_MAX = 256  # that wait for their time; then the server has to wait, as on any slow line
_HEADER_BYTES = 12  # of RTP, RFC 3550 section 5.1
_FRAMING_BYTES = 4  # "$", channel, size: RFC 2326 section 10.12
_RTCP_TYPES = range(192, 224)  # RFC 5761 section 4
_LENGTH = re.compile(rb"^content-length:\s*(\d+)", re.IGNORECASE | re.MULTILINE)
_HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong on the way from the server to a client; the way back is always in order.

    Units are whole RTSP answers and whole interleaved packets. RTP packets are counted for each connection since
    it began or since it was given the trouble, from `phase` + 1: `damages_each` 1000 flips bits of one byte in the
    payload of every thousandth. The `end` comes in place of the first RTP packet after `after_packets` of them
    (which may go out half: `splits_packet`), or once `after_bytes` have gone out, wherever that is. A line that
    stalls takes from the server and passes nothing on, until the trouble is over. `door` is for new connections.
    """

    door: Door = Door.RTSP
    end: End | None = None
    after_packets: int = 0
    after_bytes: int | None = None
    splits_packet: bool = False
    drops_each: int = 0
    damages_each: int = 0
    damages_headers: bool = False  # any byte of the RTP packet, not only its payload
    seed: int = 0
    phase: int = 0
    delay_s: float = 0.0
    jitter_s: float = 0.0  # on top of the delay, evenly spread; nothing overtakes
    bytes_per_s: float = 0.0  # 0: as fast as it goes
    segment_bytes: int = 0  # 0: whole units; else each piece is a TCP segment of its own


NO_TROUBLE = Trouble()


class Proxy:
    """Any number of connections to one port of this machine. `trouble` can be set at any time, None ends it."""

    def __init__(self, server_port: int, trouble: Trouble | None = None) -> None:
        self.server_port = server_port
        self.connections = 0
        """All that were accepted."""
        self.dropped = 0
        self.damaged = 0
        self.current = trouble or NO_TROUBLE
        self._open: dict[asyncio.Task[None], _Connection] = {}
        self._listening: asyncio.Task[None] | None = None
        self._event_loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._claim = _bound(0)
        self.port: int = self._claim.getsockname()[1]

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen_or_not())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._end())
        self._event_loop.call_soon_threadsafe(self._event_loop.stop)
        self._thread.join(_CALL_S)
        self._claim.close()

    def url(self, name: str) -> str:
        return f"rtsp://127.0.0.1:{self.port}/{name}"

    @property
    def clients(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    @property
    def trouble(self) -> Trouble | None:
        return None if self.current is NO_TROUBLE else self.current

    @trouble.setter
    def trouble(self, trouble: Trouble | None) -> None:
        self._call(self._change(trouble or NO_TROUBLE))

    def cut(self, *, with_reset: bool = False) -> None:
        """Every connection, at once. The port stays as it is."""
        self._call(self._cut_all(with_reset))

    def _run(self) -> None:
        asyncio.set_event_loop(self._event_loop)
        self._event_loop.run_forever()
        self._event_loop.close()

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._event_loop).result(_CALL_S)

    async def _change(self, trouble: Trouble) -> None:
        self.current = trouble
        await self._listen_or_not()

    async def _end(self) -> None:
        self.current = Trouble(door=Door.REFUSES)
        await self._listen_or_not()
        await self._cut_all(with_reset=False)

    async def _cut_all(self, with_reset: bool) -> None:
        for task, connection in self._open.items():
            connection.ends_by_reset = with_reset
            task.cancel()
        if self._open:
            await asyncio.wait(list(self._open))

    async def _listen_or_not(self) -> None:
        is_open = self.current.door is not Door.REFUSES
        if is_open and self._listening is None:
            listener = _bound(self.port)
            listener.listen(256)
            self._listening = asyncio.create_task(self._listen(listener))
        elif not is_open and self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
            self._listening = None

    async def _listen(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        with listener:
            while True:
                client, _ = await self._event_loop.sock_accept(listener)
                self.connections += 1
                connection = _Connection(self, client, self.connections)
                task = asyncio.create_task(connection.hold())
                self._open[task] = connection
                task.add_done_callback(self._open.pop)


class _Ended(Exception):
    """The trouble says that the connection ends here."""


class _Connection:
    """One client and its own connection to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket, number: int) -> None:
        self.ends_by_reset = False
        self._proxy = proxy
        self._client = _prompt(client)
        self._to_client = Line(client)
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue(_UNITS_MAX)
        self._trouble = NO_TROUBLE
        self._packets = 0
        self._sent_bytes = 0
        self._is_stalled = False
        self._rest = b""
        self._random = random.Random()

    async def hold(self) -> None:
        """Until one side closes or the trouble says so. Never raises but on cancelling."""
        try:
            if self._proxy.current.door is Door.HTTP:
                await self._answer_http()
            elif self._proxy.current.door is Door.SILENT:
                await self._swallow()
            else:
                await self._connect()
        except (_Ended, OSError):
            pass
        finally:
            self._to_client.close(with_reset=self.ends_by_reset)

    async def _answer_http(self) -> None:
        await self._loop.sock_recv(self._client, 65_536)
        await self._to_client.send(_HTTP)

    async def _swallow(self) -> None:
        while await self._loop.sock_recv(self._client, 65_536):
            pass

    async def _connect(self) -> None:
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.setblocking(False)
        try:
            await self._loop.sock_connect(server, ("127.0.0.1", self._proxy.server_port))
            from_server = Line(_prompt(server))
            await _first_of(self._pass_up(from_server), self._pass_down(from_server), self._deliver())
        finally:
            server.close()

    async def _pass_up(self, server: Line) -> None:
        while data := await self._loop.sock_recv(self._client, 65_536):
            await server.send(data)

    async def _pass_down(self, server: Line) -> None:
        """What the server has sent before it closed is still delivered."""
        try:
            while True:
                unit = await _next_unit(server)
                await self._waiting.put((self._due_s(), unit))
        except OSError:
            await self._waiting.put(None)
            await asyncio.Future()

    def _due_s(self) -> float:
        trouble = self._proxy.current
        return self._loop.time() + trouble.delay_s + random.uniform(0.0, trouble.jitter_s)

    async def _deliver(self) -> None:
        while waiting := await self._waiting.get():
            due_s, unit = waiting
            await asyncio.sleep(due_s - self._loop.time())
            if self._proxy.current is not self._trouble:
                await self._begin(self._proxy.current)
            await self._pass_on(unit)

    async def _begin(self, trouble: Trouble) -> None:
        """What a stall has cut off goes out first: the client's framing stays whole."""
        self._trouble = trouble
        self._packets = self._sent_bytes = 0
        self._is_stalled = False
        self._random = random.Random(f"{trouble.seed} {self._number}")
        rest, self._rest = self._rest, b""
        await self._send(rest)

    async def _pass_on(self, unit: bytes) -> None:
        is_rtp = _is_rtp(unit)
        self._packets += is_rtp
        passed_bytes = self._passed_bytes(unit, is_rtp)
        if passed_bytes is None:
            await self._send(self._spoilt(unit) if is_rtp else unit)
        elif not self._is_stalled:
            await self._send(unit[:passed_bytes])
            await self._end(unit[passed_bytes:])

    def _passed_bytes(self, unit: bytes, is_rtp: bool) -> int | None:
        """How much of this unit still goes out before the end; None where it has not come yet."""
        trouble = self._trouble
        if trouble.end is None:
            return None
        if trouble.after_bytes is not None:
            left_bytes = trouble.after_bytes - self._sent_bytes
            return left_bytes if left_bytes < len(unit) else None
        if self._is_stalled or (is_rtp and self._packets > trouble.after_packets):
            return len(unit) // 2 if trouble.splits_packet else 0
        return None

    async def _end(self, rest: bytes) -> None:
        if self._trouble.end is End.STALL:
            self._is_stalled, self._rest = True, rest
            return
        self.ends_by_reset = self._trouble.end is End.RESET
        raise _Ended

    def _spoilt(self, unit: bytes) -> bytes:
        """An RTP packet as it goes out: nothing of it where it is lost."""
        trouble = self._trouble
        if _is_each(trouble.phase + self._packets, trouble.drops_each):
            self._proxy.dropped += 1
            return b""
        if _is_each(trouble.phase + self._packets, trouble.damages_each):
            self._proxy.damaged += 1
            return _damaged(unit, self._random, with_header=trouble.damages_headers)
        return unit

    async def _send(self, data: bytes) -> None:
        trouble = self._trouble
        size = trouble.segment_bytes or max(1, len(data))
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            if trouble.bytes_per_s:
                await asyncio.sleep(len(piece) / trouble.bytes_per_s)
            await self._to_client.send(piece)
            self._sent_bytes += len(piece)


async def _next_unit(server: Line) -> bytes:
    """One interleaved packet or one RTSP message with its body, as it came. Raises OSError at the end."""
    start = await server.read(1)
    if start == b"$":
        head = await server.read(_FRAMING_BYTES - 1)
        return start + head + await server.read(int.from_bytes(head[1:]))
    head = start + await server.read_until(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return head + (await server.read(int(length[1])) if length else b"")


def _is_rtp(unit: bytes) -> bool:
    """Neither an RTSP message nor RTCP."""
    return unit[:1] == b"$" and len(unit) >= _FRAMING_BYTES + _HEADER_BYTES and unit[5] not in _RTCP_TYPES


def _payload_start(unit: bytes) -> int:
    """Behind contributing sources and header extension (RFC 3550 section 5.1 and 5.3.1)."""
    start = _FRAMING_BYTES + _HEADER_BYTES + 4 * (unit[4] & 0x0F)
    if unit[4] & 0x10:
        start += 4 + 4 * int.from_bytes(unit[start + 2 : start + 4])
    return start


def _damaged(unit: bytes, choice: random.Random, *, with_header: bool) -> bytes:
    start = _FRAMING_BYTES if with_header else _payload_start(unit)
    if start >= len(unit):
        return unit
    place = choice.randrange(start, len(unit))
    return unit[:place] + bytes([unit[place] ^ choice.randint(1, 255)]) + unit[place + 1 :]


def _is_each(number: int, each: int) -> bool:
    return each > 0 and number % each == 0


def _prompt(connection: socket.socket) -> socket.socket:
    """Small pieces go out at once: RFC 896 is switched off."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _bound(port: int) -> socket.socket:
    """The first such socket only holds the port; with SO_REUSEADDR on both Linux lets a second one listen."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


async def _first_of(*works: Coroutine[Any, Any, None]) -> None:
    """Until one of them ends; the others are ended with it. Raises what the first one raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
