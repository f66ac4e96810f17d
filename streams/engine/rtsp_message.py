"""RTSP 1.0 messages (RFC 2326 sections 4 to 7) as bytes and back, lenient to what cameras send. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import NotRTSP, Refused

MAX_HEAD_BYTES = 65_536
MAX_HEAD_LINES = 128
MAX_BODY_BYTES = 262_144
# Methods that a server may send: RFC 2326 section 10, and TEARDOWN, which some send to end a session.
SERVER_METHODS = (b"OPTIONS", b"ANNOUNCE", b"GET_PARAMETER", b"SET_PARAMETER", b"REDIRECT", b"TEARDOWN", b"DESCRIBE")

_PROTOCOL = b"RTSP/"
# Some write the protocol in lower case, or with a version that they do not speak: libav reads both.
_RESPONSE = re.compile(rb"RTSP/\d\.\d +(\d{3})(?!\d)", re.IGNORECASE)
_REQUEST = re.compile(rb"([A-Z_]{3,20}) +\S+ +(?i:RTSP)/\d\.\d")
_BLANK_LINE = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(r"\d{1,10}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Message:
    """A response (`status`) or a request of the server (`method`); header names in lower case, in order."""

    status: int
    method: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def header(self, name: str) -> str:
        """The first one's value, or empty."""
        return next((value for found, value in self.headers if found == name), "")

    def values(self, name: str) -> list[str]:
        return [value for found, value in self.headers if found == name]

    @property
    def body_bytes(self) -> int | None:
        """As announced; None if it is not. Raises Refused for more than anybody needs."""
        text = self.header("content-length")
        if not _LENGTH.fullmatch(text):
            return None
        if int(text) > MAX_BODY_BYTES:
            raise Refused(f"The camera announces an answer of {int(text)} bytes.")
        return int(text)

    @property
    def is_description(self) -> bool:
        return self.status == 200 and "sdp" in self.header("content-type").lower()

    @property
    def may_be_description(self) -> bool:
        """As the answer to DESCRIBE: some cameras name no type."""
        return self.is_description or (self.status == 200 and not self.header("content-type"))


def pack_request(method: str, url: str, sequence: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {url} RTSP/1.0", f"CSeq: {sequence}"]
    return _packed(lines, headers)


def pack_answer(status: int, reason: str, sequence: str, headers: Mapping[str, str]) -> bytes:
    """To a request of the server with this CSeq, which is copied only as far as it is a number."""
    number = _LENGTH.match(sequence)
    return _packed([f"RTSP/1.0 {status} {reason}", f"CSeq: {number[0] if number else 0}"], headers)


def begins_message(start: bytes | bytearray) -> bool:
    """Whether a message may begin like this; `start` may be as short as one byte."""
    if start[: len(_PROTOCOL)].upper() == _PROTOCOL[: len(start)]:
        return True
    return any(start[: len(word)] == word[: len(start)] for word in SERVER_METHODS)


def is_start_line(line: bytes | bytearray) -> bool:
    return bool(_RESPONSE.match(line) or _REQUEST.match(line))


def head_length(data: bytes | bytearray, start: int, end: int) -> int:
    """Bytes from `start` to the end of the blank line; 0 while that has not come. Raises NotRTSP if it will not."""
    match = _BLANK_LINE.search(data, start, min(end, start + MAX_HEAD_BYTES))
    if match:
        return match.end() - start
    if end - start >= MAX_HEAD_BYTES:
        raise NotRTSP("The camera's answer has a head without an end.")
    return 0


def parse_head(head: bytes) -> Message:
    """With an empty body. Raises NotRTSP."""
    text = head.decode("utf-8", "surrogateescape")  # a realm in another encoding is sent back as it came
    start, *lines = re.split(r"\r\n|\n|\r", text.rstrip())
    if len(lines) > MAX_HEAD_LINES:
        raise NotRTSP(f"The camera's answer has {len(lines)} header lines.")
    headers = _headers(lines)
    first = start.encode("utf-8", "surrogateescape")
    if response := _RESPONSE.match(first):
        return Message(int(response[1]), "", headers)
    if request := _REQUEST.match(first):
        return Message(0, request[1].decode(), headers)
    raise NotRTSP


def _headers(lines: list[str]) -> tuple[tuple[str, str], ...]:
    headers: list[tuple[str, str]] = []
    for line in lines:
        if line[:1] in (" ", "\t") and headers:  # folded: goes on with the line before
            name, value = headers[-1]
            headers[-1] = (name, f"{value} {line.strip()}")
            continue
        name, colon, value = line.partition(":")
        if colon:
            headers.append((name.strip().lower(), value.strip()))
    return tuple(headers)


def _packed(lines: list[str], headers: Mapping[str, str]) -> bytes:
    lines = [*lines, *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")
