"""RTSP 1.0 (RFC 2326) with one client: reads requests, answers them, starts and ends what it plays."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable
from urllib.parse import unquote

from tests.camera.faults import Door, End
from tests.camera.line import Line
from tests.camera.message import Answer, Exchange, HangUp, Request
from tests.camera.player import Datagrams, Interleaved, Outlet, Player, play_silence
from tests.camera.script import Asked, Script
from tests.camera.sdp import Media, describe

_log = logging.getLogger(__name__)

_METHODS = ("OPTIONS", "DESCRIBE", "SETUP", "PLAY", "GET_PARAMETER", "SET_PARAMETER", "TEARDOWN")
_TIMEOUT_S = 60.0  # RFC 2326 12.37, announced where nothing else was asked for; not kept
_BODY_BYTES_MAX = 65_536
_HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nBad Request\n"


class Conversation:
    """`number` counts the camera's connections; SSRC, timestamps and session follow from it."""

    def __init__(self, script: Script, line: Line, number: int) -> None:
        self._script = script
        self._line = line
        self._number = number
        self._session = f"{0x5E550000 + number:08X}"
        self._outlets: dict[Media, Outlet] = {}
        self._player: Player | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ends_with_reset = False
        self._leaves_rtsp = False
        self._last_request_at_s = 0.0
        self._asked: list[str] = []
        self._dropped = asyncio.Event()
        self._talk = asyncio.create_task(self._hear_all())

    async def hold(self) -> None:
        """Returns when it is over, however it ended."""
        await asyncio.wait([self._talk])
        if self._leaves_rtsp:
            self._line.close()
            await self._dropped.wait()
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(self._talk, *self._tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                _log.error("conversation=%d failed", self._number, exc_info=ended)
        for outlet in self._outlets.values():
            outlet.close()
        self._line.close(with_reset=self._ends_with_reset)

    def hang_up(self, *, with_reset: bool = False) -> None:
        self._ends_with_reset = with_reset
        self._dropped.set()
        self._talk.cancel()

    async def _hear_all(self) -> None:
        with contextlib.suppress(OSError):  # the client is gone
            door = self._script.act.fault.door
            while door is Door.SILENT:
                await self._line.read(1)
            if door is Door.HTTP:
                await self._line.read_until(b"\r\n\r\n")
                await self._line.send(_HTTP)
                return
            while (request := await read_request(self._line, self._note_report)) and await self._hear(request):
                pass

    def _note_report(self, channel: int) -> None:
        for outlet in self._outlets.values():
            if isinstance(outlet, Interleaved) and channel == outlet.channel + 1:
                outlet.reports += 1

    async def _hear(self, request: Request) -> bool:
        """Whether the conversation goes on."""
        self._last_request_at_s = time.monotonic()
        exchange = Exchange(request, self._number, tuple(self._asked))
        self._asked.append(request.method)
        answer = self._answer(exchange)
        has_authorization = "authorization" in request.headers
        status = answer.status if answer else 0
        self._script.requests.append(
            Asked(self._last_request_at_s, request.method, request.uri, status, has_authorization)
        )
        if answer is None:
            return True
        fault = self._script.act.fault
        late_s = fault.amount if fault.answers_late else fault.late_s.get(request.method, 0.0)
        if late_s:
            await asyncio.sleep(late_s)
        if is_teardown := request.method == "TEARDOWN" and status == 200:
            self._script.teardowns += 1
        try:
            said = fault.edit_answer(exchange, answer.pack(request.headers.get("cseq", "0")))
        except HangUp:
            return False
        if said is not None:
            await self._line.send(said)
        if request.method == "PLAY" and status == 200 and not self._tasks:
            self._start()
        return not is_teardown

    def _answer(self, exchange: Exchange) -> Answer | None:
        """None: none at all."""
        fault, guard, request = self._script.act.fault, self._script.guard, exchange.request
        authorization = request.headers.get("authorization", "")
        status = fault.status(exchange)
        is_welcome = not self._script.is_guarded or request.method == "OPTIONS"
        if status == 401 or not (is_welcome or guard.admits(request.method, request.uri, authorization)):
            return Answer(401, {"WWW-Authenticate": guard.challenge()})
        if status == 0:
            return None
        if status is not None:
            return Answer(status, {"Location": fault.location} if fault.location else {})
        session = request.headers.get("session", self._session).partition(";")[0]
        if not session.startswith(self._session):  # a fault may lengthen it
            return Answer(454)
        return self._carry_out(request)

    def _carry_out(self, request: Request) -> Answer:
        if request.method == "OPTIONS":
            return Answer(200, {"Public": ", ".join(_METHODS)})
        track = self._track(request.uri)
        if track is None:
            return Answer(404)
        if request.method == "DESCRIBE":
            return self._describe(request)
        if request.method == "SETUP":
            return self._set_up(request, track)
        if request.method == "PLAY":
            return self._play(request)
        if request.method in _METHODS:
            return Answer(200, {"Session": self._session})
        return Answer(405, {"Allow": ", ".join(_METHODS)})

    def _track(self, uri: str) -> str | None:
        """What follows the camera's path in the URI: empty, or "track0"; None: another path."""
        path = unquote(re.sub(r"^rtsps?://[^/]*/", "", uri)).rstrip("/")
        for own in (self._script.path, *self._script.act.fault.paths):
            if path == own:
                return ""
            if path.startswith(f"{own}/"):
                return path.removeprefix(f"{own}/")
        return None

    def _describe(self, request: Request) -> Answer:
        act = self._script.act
        sdp = act.fault.edit_sdp(describe(act.first_clip, act.fault.media))
        headers = {"Content-Base": request.uri.rstrip("/") + "/", "Content-Type": "application/sdp"}
        return Answer(200, headers, sdp.encode())

    def _set_up(self, request: Request, track: str) -> Answer:
        fault = self._script.act.fault
        tracks: dict[str, Media] = {f"track{number}": kind for number, kind in enumerate(fault.media)}
        if fault.has_no_control and len(tracks) == 1:
            track = "track0"
        kind = tracks.get(track)
        if kind is None:
            return Answer(404 if track else 459)
        for offer in request.headers.get("transport", "").split(","):
            if (transport := self._connect(kind, offer)) is not None:
                session = f"{self._session};timeout={self._script.timeout_s() or _TIMEOUT_S:g}"
                return Answer(200, {"Transport": transport, "Session": session})
        return Answer(461)

    def _connect(self, kind: Media, offer: str) -> str | None:
        """The transport that is agreed on, as the header puts it."""
        refused = self._script.act.fault.refused_transport
        channels = re.search(r"RTP/S?AVP/TCP\b.*interleaved=(\d+)", offer)
        ports = re.search(r"RTP/S?AVP(?:/UDP)?;.*client_port=(\d+)-(\d+)", offer)
        if channels and refused != "tcp":
            channel = int(channels[1]) + self._script.act.fault.channel_offset
            self._outlets[kind] = Interleaved(self._line, channel)
            return f"RTP/AVP/TCP;unicast;interleaved={channel}-{channel + 1}"
        if ports and refused != "udp" and "multicast" not in offer:
            return self._connect_udp(kind, (int(ports[1]), int(ports[2])))
        return None

    def _connect_udp(self, kind: Media, ports: tuple[int, int]) -> str:
        source = self._script.act.fault.udp_host
        outlet = Datagrams(source or self._line.host, self._line.client_host, ports)
        self._outlets[kind] = outlet
        names = f"client_port={ports[0]}-{ports[1]};server_port={outlet.ports[0]}-{outlet.ports[1]}"
        names += f";source={source}" if source else ""
        return f"RTP/AVP;unicast;{names}"

    def _play(self, request: Request) -> Answer:
        if not self._outlets:
            return Answer(455)
        headers = {"Session": self._session, "Range": "npt=0.000-"}
        if "video" in self._outlets and not self._player:
            self._player = Player(self._script, self._outlets["video"], self._number)
            headers |= self._rtp_info(request.uri)
        return Answer(200, headers)

    def _rtp_info(self, uri: str) -> dict[str, str]:
        fault = self._script.act.fault
        if not self._player or not fault.has_rtp_info:
            return {}
        track = f"{uri.rstrip('/')}/track{fault.media.index('video')}"
        first = f"seq={self._player.first_sequence};rtptime={self._player.first_timestamp()}"
        return {"RTP-Info": f"url={track};{first}"}

    def _start(self) -> None:
        fault = self._script.act.fault
        tasks = [self._watch_session()]
        has_enough = len(self._outlets) == len(fault.media) or not fault.needs_all_tracks
        is_tcp = any(isinstance(outlet, Interleaved) for outlet in self._outlets.values())
        if self._player and has_enough and fault.silent_transport != ("tcp" if is_tcp else "udp"):
            tasks.append(self._run(self._player))
        if "audio" in self._outlets and fault.has_sound:
            tasks.append(play_silence(self._outlets["audio"], self._number))
        if fault.closes_rtsp_after_s:
            tasks.append(self._close_rtsp(fault.closes_rtsp_after_s))
        self._tasks = [asyncio.create_task(task) for task in tasks]

    async def _close_rtsp(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self._leaves_rtsp = True
        self._talk.cancel()

    async def _run(self, player: Player) -> None:
        try:
            end = await player.run()
        except OSError:
            return  # the client is gone, but what it said last, perhaps TEARDOWN, is still to be heard
        except Exception:
            self.hang_up()
            raise
        self.hang_up(with_reset=end is End.RESET)

    async def _watch_session(self) -> None:
        """Requests count as life, receiver reports do not: so libav's keepalive is put to the test."""
        while True:
            timeout_s = self._script.timeout_s()
            left_s = self._last_request_at_s + (timeout_s or _TIMEOUT_S) - time.monotonic()
            if timeout_s and left_s <= 0:
                self.hang_up()
                return
            await asyncio.sleep(min(max(left_s, 0.01), 0.2))  # often: the fault may change


async def read_request(line: Line, note_report: Callable[[int], None]) -> Request | None:
    """Skips the client's answers and interleaved packets, whose channels it notes. None: no RTSP. Raises OSError."""
    while True:
        first = await line.read(1)
        if first == b"$":
            head = await line.read(3)
            await line.read(int.from_bytes(head[1:]))
            note_report(head[0])
        elif first not in (b"\r", b"\n"):
            request = await _read_rest(line, first)
            if request is None or not request.method.startswith("RTSP/"):
                return request


async def _read_rest(line: Line, first: bytes) -> Request | None:
    text = (first + await line.read_until(b"\r\n\r\n")).decode(errors="surrogateescape")
    start, *fields = text.rstrip().split("\r\n")
    words = start.split(" ", 2)
    if len(words) != 3 or not (words[0].startswith("RTSP/") or words[2].startswith("RTSP/")):
        return None
    pairs = (one.partition(":") for one in fields)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    await line.read(min(int(headers.get("content-length", "0")), _BODY_BYTES_MAX))
    return Request(words[0], words[1], headers)
