"""Sends one client its pictures and sounds, each when it is due."""

import asyncio
import contextlib
import math
import socket
from dataclasses import dataclass, replace
from typing import Protocol

from tests.camera import rtp
from tests.camera.clip import TICKS_PER_S
from tests.camera.faults import End, Fault
from tests.camera.line import Line
from tests.camera.script import Act, Script, Sent
from tests.camera.timeline import Moment, Reel

_REPORT_EVERY_S = 5.0  # RFC 3550's minimum
_AUDIO_S = 0.02  # the usual packet of PCMU: 160 bytes
_SILENCE = b"\xff" * 160


class Outlet(Protocol):
    """Where a track's packets go."""

    async def send_rtp(self, packet: bytes) -> None: ...

    async def send_rtcp(self, packet: bytes) -> None: ...

    def has_report(self) -> bool:
        """Whether the client has sent a receiver report since this was asked last."""
        ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Interleaved:
    """RFC 2326 10.12: in the RTSP connection, RTCP one channel above RTP. `reports` are counted by its reader."""

    line: Line
    channel: int
    reports: int = 0

    async def send_rtp(self, packet: bytes) -> None:
        await self._send(self.channel, packet)

    async def send_rtcp(self, packet: bytes) -> None:
        await self._send(self.channel + 1, packet)

    def has_report(self) -> bool:
        reports, self.reports = self.reports, 0
        return reports > 0

    def close(self) -> None:
        pass

    async def _send(self, channel: int, packet: bytes) -> None:
        await self.line.send(b"$" + bytes([channel]) + len(packet).to_bytes(2) + packet)


class Datagrams:
    """UDP: two ports in a row here, RTP on the even one, and the two that the client named."""

    def __init__(self, host: str, client_host: str, client_ports: tuple[int, int]) -> None:
        self._sockets = _pair(host)
        self._targets = [(client_host, port) for port in client_ports]
        self.ports: tuple[int, int] = (self._sockets[0].getsockname()[1], self._sockets[1].getsockname()[1])

    async def send_rtp(self, packet: bytes) -> None:
        self._send(0, packet)

    async def send_rtcp(self, packet: bytes) -> None:
        self._send(1, packet)

    def has_report(self) -> bool:
        reports = 0
        with contextlib.suppress(OSError):  # there is none any more
            while self._sockets[1].recv(2048):
                reports += 1
        return reports > 0

    def close(self) -> None:
        for socket_ in self._sockets:
            socket_.close()

    def _send(self, which: int, packet: bytes) -> None:
        with contextlib.suppress(OSError):  # the client's port may be gone, or the buffer full: it is UDP
            self._sockets[which].sendto(packet, self._targets[which])


class Player:
    """Plays the clip for one client, from its start or, live, from where everybody is."""

    def __init__(self, script: Script, outlet: Outlet, number: int) -> None:
        self._script = script
        self._outlet = outlet
        self._ssrc = 0x5EED0000 + number
        self._base_ticks = number * 0x9E3779B1 & 0xFFFFFFFF  # any, and the same in each run
        self._next_sequence = number * 0x3779 & 0xFFFF
        self._packets = self._payload_bytes = 0
        self._last_ticks = 0
        self._reported_at_s = -math.inf
        self._number = number
        self._heard_at_s = math.inf
        self._loop = asyncio.get_running_loop()
        from_s = self._loop.time() - script.began_at_s if script.is_live else 0.0
        self._start_s = self._loop.time() - from_s
        self._reel = Reel(script.act.first_clip, from_s=from_s, is_looping=script.is_looping)

    @property
    def first_sequence(self) -> int:
        """Before anything was sent."""
        return self._next_sequence

    def first_timestamp(self) -> int:
        moment = next(self._reel)
        self._reel.again()
        return self._base_ticks + moment.ticks & 0xFFFFFFFF

    async def run(self) -> End:
        """Until the connection is to be closed or reset. Goes on where it stood when the fault changes."""
        while True:
            act = self._script.act
            end = await self._play(act)
            if end in (End.CLOSE, End.RESET):
                return end
            if end is End.BYE:
                await self._outlet.send_rtcp(rtp.farewell(self._ssrc))
            if end:
                await self._script.until_changed(act)

    async def _play(self, act: Act) -> End | None:
        """None when the fault changed."""
        late_s = None
        self._reel.turn_to(act.next_clip or act.clip, act.fault.amount if act.next_clip else 0.0)
        for moment in act.fault.edit_moments(self._reel, act.fault.amount):
            late_s = self._lateness_s(moment, act) if late_s is None else late_s
            due = replace(moment, at_s=moment.at_s + late_s, ticks=moment.ticks + round(late_s * TICKS_PER_S))
            await asyncio.sleep(max(0.0, self._start_s + due.at_s - self._loop.time()))
            if self._script.act is not act:
                self._reel.again()
                return None
            if self._is_forgotten(act.fault.needs_report_within_s):
                return End.STALL
            await self._send(due, act)
        return act.fault.end

    def _is_forgotten(self, within_s: float) -> bool:
        """Whether the client has sent no receiver report for so long; 0: it need not send any."""
        if self._heard_at_s == math.inf or self._outlet.has_report():
            self._heard_at_s = self._loop.time()
        return 0 < within_s < self._loop.time() - self._heard_at_s

    def _lateness_s(self, moment: Moment, act: Act) -> float:
        """Whole frames by which a clip is behind after a stall: it goes on, it does not catch up."""
        fps = act.clip.scene.fps
        behind_s = self._loop.time() - self._start_s - moment.at_s
        return max(0, math.floor(behind_s * fps)) / fps

    async def _send(self, moment: Moment, act: Act) -> None:
        codec = act.clip.scene.codec
        self._last_ticks = self._base_ticks + moment.ticks
        if moment.at_s - self._reported_at_s >= _REPORT_EVERY_S:
            self._reported_at_s = moment.at_s
            await self._send_rtcp(self._report(), act.fault)
        if act.fault.rtcp:
            await self._send_rtcp(act.fault.rtcp, act.fault)
        parts = rtp.payloads(codec, moment.unit)
        whole = [self._packet(part, number == len(parts)) for number, part in enumerate(parts, 1)]
        left = [act.fault.edit_packet(packet, act.fault.amount) for packet in whole]
        for packet in act.fault.edit_picture([packet for packet in left if packet]):
            await self._send_packet(packet, rtp.payload_type(codec), act.fault)
        scene = act.clip.scene if moment.unit in act.clip.units else (act.next_clip or act.clip).scene
        index = round(moment.unit.pts_ticks * scene.fps / TICKS_PER_S)
        is_whole = left == whole
        self._script.sent.append(Sent(self._number, moment.number, scene.width, index, moment.unit.is_key, is_whole))

    async def _send_rtcp(self, packet: bytes, fault: Fault) -> None:
        await (self._outlet.send_rtp if fault.has_one_channel else self._outlet.send_rtcp)(packet)

    def _packet(self, part: bytes, is_last: bool) -> rtp.Packet:
        packet = rtp.Packet(self._next_sequence, self._last_ticks, is_last, part)
        self._next_sequence += 1
        return packet

    async def _send_packet(self, packet: rtp.Packet, payload_type: int, fault: Fault) -> None:
        self._packets += 1
        self._payload_bytes += len(packet.payload)
        await self._outlet.send_rtp(fault.edit_wire(packet.pack(payload_type, self._ssrc)))

    def _report(self) -> bytes:
        return rtp.sender_report(self._ssrc, self._last_ticks, self._packets, self._payload_bytes)


async def play_silence(outlet: Outlet, number: int) -> None:
    """The sound of a camera with sound."""
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    with contextlib.suppress(OSError):  # the client is gone
        for count in range(2**31):
            packet = rtp.Packet(count, count * len(_SILENCE), count == 0, _SILENCE)
            await outlet.send_rtp(packet.pack(rtp.AUDIO_TYPE, 0x50D00000 + number))
            await asyncio.sleep(max(0.0, start_s + (count + 1) * _AUDIO_S - loop.time()))


def _pair(host: str) -> tuple[socket.socket, socket.socket]:
    for _ in range(100):
        first = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        second = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            first.bind((host, 0))
            if first.getsockname()[1] % 2 == 0:
                second.bind((host, first.getsockname()[1] + 1))
                first.setblocking(False)
                second.setblocking(False)
                return first, second
        except OSError:
            pass  # the odd port is taken: another pair
        first.close()
        second.close()
    raise OSError("no two UDP ports in a row are free")
