"""One TCP connection's bytes to RTP packets, RTCP packets and RTSP messages (RFC 2326 section 10.12). Pure.

    room = stream.room(); stream.filled(socket.recv_into(room)); packets = stream.take()

The packets are slices of the buffer, never copies: at 4 Mbit/s that is 450 a second.
"""

import re
import struct
from collections.abc import Iterable
from dataclasses import replace

from .errors import NotRTSP, Refused
from .rtsp_message import MAX_BODY_BYTES, Message, begins_message, head_length, is_start_line, parse_head

BASE_BYTES = 1 << 18  # a key frame of a 1080p camera has 50 to 200 kB
ROOM_BYTES = 1 << 16  # one read is never offered less
MAX_LINE_BYTES = 8192
MAX_MESSAGES = 16_000  # that nobody has looked at: more than fit in one read, as they may after a long decoding
MAX_REPORTS = 1000  # likewise; of more the last ones are kept, for the farewell is among them
MIN_RTP_BYTES = 12  # RFC 3550 section 5.1; shorter ones are left out

_HEAD = struct.Struct(">HH")
_DOLLAR = 0x24
_BLANKS = b"\r\n \t\0"
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1f]")  # never in a start line
_VERSION_2 = range(0x80, 0xC0)  # the first byte of each RTP and RTCP packet
_NO_CHANNEL = -1
_LONGEST_MARK = len(b"RTSP/1.")


class Interleaved:
    """`messages` and `reports` (RTCP) collect what `take` finds beside RTP; whoever reads them empties them."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.reports: list[bytes] = []
        self.has_begun = False
        """Whether anything of RTSP has come; before that, other bytes are another protocol, after it junk."""
        self._data = bytearray(BASE_BYTES)
        self._view = memoryview(self._data)
        self._start = self._end = 0
        self._rtp_tag = self._rtcp_tag = _NO_CHANNEL
        self.awaits_description = False
        """Whether the next answer is that to DESCRIBE, whose body may come without type and length."""
        self._unread_tags: frozenset[int] = frozenset()
        self._marks = re.compile(rb"(?i:RTSP)/\d\.")

    def listen(self, rtp_channel: int, rtcp_channel: int, unread: Iterable[int] = ()) -> None:
        """Which channels count. Those of other tracks are `unread`; what comes on yet another is left out as well."""
        self._rtp_tag, self._rtcp_tag = _DOLLAR << 8 | rtp_channel, _DOLLAR << 8 | rtcp_channel
        self._unread_tags = frozenset(_DOLLAR << 8 | channel for channel in unread) - {self._rtp_tag, self._rtcp_tag}
        known = (tag & 0xFF for tag in (self._rtp_tag, self._rtcp_tag, *sorted(self._unread_tags)))
        channels = b"|".join(re.escape(bytes([channel])) for channel in known)
        self._marks = re.compile(rb"\$(?:" + channels + rb")|(?i:RTSP)/\d\.", re.DOTALL)

    @property
    def pending_bytes(self) -> int:
        """Not taken yet."""
        return self._end - self._start

    def rewind(self) -> None:
        """Use the buffer from its start again: packets taken before are no longer valid."""
        pending = self._end - self._start
        if len(self._data) > BASE_BYTES and pending <= BASE_BYTES - ROOM_BYTES:
            self._move(BASE_BYTES)
        elif self._start:
            self._view[:pending] = self._view[self._start : self._end]
            self._start, self._end = 0, pending

    def room(self) -> memoryview:
        """Where to read into; packets taken before stay valid."""
        if len(self._data) - self._end < ROOM_BYTES:
            self._move(max(BASE_BYTES, 2 * self.pending_bytes + ROOM_BYTES))
        return self._view[self._end :]

    def filled(self, count: int) -> None:
        """So many bytes were read into the room."""
        self._end += count

    def take(self) -> list[memoryview]:
        """The RTP packets that are whole, valid until the next rewind. Raises NotRTSP or Refused."""
        data, view, at, end, tag, unpack = (
            self._data,
            self._view,
            self._start,
            self._end,
            self._rtp_tag,
            _HEAD.unpack_from,
        )
        unread = self._unread_tags
        packets: list[memoryview] = []
        while at + 4 <= end:
            head, length = unpack(data, at)
            if head == tag:
                after = at + 4 + length
                if after > end:
                    break
                if length >= MIN_RTP_BYTES:
                    packets.append(view[at + 4 : after])
                at = after
            elif head in unread:
                after = at + 4 + length
                if after > end:
                    break
                at = after
            else:
                self._start = at
                is_taken = self._take_packet(head, length) if head >> 8 == _DOLLAR else self._take_message()
                at = self._start
                if not is_taken:
                    break
        self._start = at
        if packets:
            self.has_begun = True
        return packets

    def finish(self) -> None:
        """No more will come of the message that is not whole: take it as it is."""
        start, end = self._start, self._end
        if is_start_line(self._data[start : min(end, start + MAX_LINE_BYTES)]) and (
            length := head_length(self._data, start, end)
        ):
            body = bytes(self._view[start + length : min(end, start + length + MAX_BODY_BYTES)])
            self.messages.append(replace(parse_head(bytes(self._view[start : start + length])), body=body))
            self._start = end

    @property
    def is_endless(self) -> bool:
        """Whether a description has begun that does not say how long it is."""
        start, end = self._start, self._end
        if start == end or not is_start_line(self._data[start : min(end, start + MAX_LINE_BYTES)]):
            return False
        length = head_length(self._data, start, end)
        if not length:
            return False
        message = parse_head(bytes(self._view[start : start + length]))
        return self._is_description(message) and message.body_bytes is None

    def _take_packet(self, head: int, length: int) -> bool:
        """Not of the RTP channel. False: not whole yet."""
        start, after = self._start, self._start + 4 + length
        is_strange = head != self._rtcp_tag and self.has_begun and length and start + 4 < self._end
        if is_strange and self._data[start + 4] not in _VERSION_2:  # a dollar sign in junk
            return self._resynchronise()
        if after > self._end:
            return False
        if head == self._rtcp_tag:
            self.reports.append(bytes(self._view[start + 4 : after]))
            if len(self.reports) > 2 * MAX_REPORTS:
                del self.reports[:-MAX_REPORTS]
        self._start = after
        return True

    def _take_message(self) -> bool:
        """False: not whole yet."""
        data, start, end = self._data, self._start, self._end
        if data[start] in _BLANKS:
            self._start += 1
            return True
        if not begins_message(data[start : min(end, start + 16)]):
            return self._resynchronise()
        line_end = data.find(b"\n", start, min(end, start + MAX_LINE_BYTES))
        if line_end < 0:
            is_line = end - start < MAX_LINE_BYTES and not _CONTROL.search(data, start, end)
            return not is_line and self._resynchronise()
        if not is_start_line(data[start:line_end]):
            return self._resynchronise()
        length = head_length(data, start, end)
        return bool(length) and self._take_whole(start + length)

    def _take_whole(self, body_at: int) -> bool:
        message = parse_head(bytes(self._view[self._start : body_at]))
        length = message.body_bytes
        self.has_begun = True
        if length is None and self._is_description(message):
            if self._end - body_at > MAX_BODY_BYTES:
                raise Refused("The camera's description has no end.")
            return False
        if len(self.messages) >= MAX_MESSAGES:
            raise Refused("The camera says too much at once.")
        after = body_at + (length or 0)
        if after > self._end:
            return False
        self.messages.append(replace(message, body=bytes(self._view[body_at:after])))
        self._start = after
        return True

    def _is_description(self, message: Message) -> bool:
        return message.may_be_description if self.awaits_description else message.is_description

    def _resynchronise(self) -> bool:
        """Go on where a packet of a known channel or a response may begin. Raises NotRTSP if none ever has."""
        if not self.has_begun:
            raise NotRTSP
        data, end = self._data, self._end
        for match in self._marks.finditer(data, self._start + 1, end):
            at = match.start()
            if data[at] != _DOLLAR or at + 4 >= end or data[at + 4] in _VERSION_2:
                self._start = at
                return True
        self._start = max(self._start + 1, end - _LONGEST_MARK)
        return False

    def _move(self, size: int) -> None:
        """To a new buffer: packets in the old one stay valid."""
        data = bytearray(size)
        pending = self._end - self._start
        data[:pending] = self._view[self._start : self._end]
        self._data, self._view = data, memoryview(data)
        self._start, self._end = 0, pending
