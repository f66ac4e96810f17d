"""A request and the answer to it, and what a fault may look at before it changes the answer."""

import http
from collections.abc import Mapping
from dataclasses import dataclass, field

_REASONS = {
    453: "Not Enough Bandwidth",
    454: "Session Not Found",
    451: "Parameter Not Understood",
    457: "Invalid Range",
    551: "Option Not Supported",
    455: "Method Not Valid in This State",
    459: "Aggregate Operation Not Allowed",
    461: "Unsupported Transport",
}


@dataclass(frozen=True, slots=True)
class Request:
    """Header names are in lower case."""

    method: str
    uri: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def pack(self, sequence: str) -> bytes:
        reason = _REASONS.get(self.status) or http.HTTPStatus(self.status).phrase
        headers = {"CSeq": sequence, "Server": "Scripted camera", **self.headers}
        if self.body:
            headers["Content-Length"] = str(len(self.body))
        lines = [f"RTSP/1.0 {self.status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + self.body


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, the number of its connection from 1 on, and the methods that were asked before it there."""

    request: Request
    connection: int
    earlier: tuple[str, ...] = ()


class HangUp(Exception):
    """A fault raises it in place of an answer: the camera closes the connection."""
