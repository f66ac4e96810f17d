"""MPEG-4 part 2 over RTP: a picture's packets, one after the other, are its bytes (RFC 6416). Pure."""

import re
from collections.abc import Mapping, Sequence

from .coded import Assembler, CodedPicture

_START = b"\0\0\1"
_VOP = b"\0\0\1\xb6"
_LAYER = re.compile(rb"\x00\x00\x01[\x20-\x2f]")
_GROUP = b"\0\0\1\xb3"
_HEADERS_BYTES_MAX = 1 << 16  # a configuration is some fifty bytes, user data some hundred
_I_VOP, _B_VOP = 0, 2


class MPEG4(Assembler):
    """Headers without a VOP wait for the next one. A VOP holds no start code but that at its begin."""

    __slots__ = ("_config", "_headers", "_vop_at")

    def __init__(self, fmtp: Mapping[str, str]) -> None:
        super().__init__()
        self._config = _config(fmtp.get("config", ""))
        self._headers = bytearray()
        self._vop_at = 0  # where in the picture its VOP begins

    def take(self, packet: memoryview, start: int, timestamp: int, is_marked: bool) -> Sequence[CodedPicture]:
        payload = packet[start:]
        if not payload:
            return ()
        is_start = bytes(payload[:3]) == _START
        if timestamp == self._timestamp:
            self._shares_time |= self._has_picture and not is_start
        elif not is_start and self._goes_on():
            self._timestamp = timestamp
        else:
            self._turn(timestamp)
        if is_start:
            self._begin(payload)
        elif self._has_picture:
            self._continue()
            self._append(payload)
        elif self._headers:
            self._begin(payload)
        else:
            self._miss_begin()
        if self._has_picture:
            self._is_marked = is_marked
        return self._given()

    def _begin(self, payload: memoryview) -> None:
        """Headers, and VOPs if they are there: GStreamer's rtpmp4vpay puts several small ones in a packet."""
        if self._has_picture:
            self._repeats = True
            self._close()
        self._headers += payload
        data = bytes(self._headers)
        while (at := data.find(_VOP)) >= 0:
            end = data.find(_START, at + len(_VOP))
            self._open(is_first=True)
            self._append(data[:end] if end >= 0 else data)
            self._vop_at = at
            data = data[end:] if end >= 0 else b""
            if _VOP in data:
                self._repeats = True
                self._close()
        self._headers[:] = data
        if len(data) > _HEADERS_BYTES_MAX:
            self._headers.clear()
            self._is_loss = True

    def _drop_fragment(self) -> None:
        self._headers.clear()

    def _finished(self, is_whole: bool) -> CodedPicture | None:
        data = self._data()
        headers, coding = data[: self._vop_at], data[self._vop_at + 4 : self._vop_at + 5]
        if not coding:
            return None
        has_layer = _LAYER.search(headers) is not None
        if has_layer:
            self._config = headers.partition(_GROUP)[0]
        kind = coding[0] >> 6
        return CodedPicture(
            data=self._config + data if kind == _I_VOP and not has_layer else data,
            timestamp=self._started,
            is_key=kind == _I_VOP,
            is_reference=kind != _B_VOP,
            is_whole=is_whole,
            follows_loss=self._follows_loss,
        )


def _config(text: str) -> bytes:
    """Hexadecimal; empty if it is none."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
