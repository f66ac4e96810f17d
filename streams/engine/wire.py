"""What a recorder and its supervisor say to each other over their socket: JSON and JPEG, never a pickle.

The recorder parses what cameras send, so nothing it says may run code in the supervisor, and half a
message may not block it: bytes are collected and a message comes out when it is whole.
"""

import json
import struct
from dataclasses import asdict, dataclass
from typing import Any

from .feed import Video
from .session import Counters, Picture, Report, State, Status

_LENGTHS = struct.Struct("!II")  # bytes of JSON, bytes of pictures
MAX_MESSAGE_BYTES = 1 << 30


class BadMessage(Exception):
    """The other side does not keep to this protocol."""


@dataclass(frozen=True, slots=True)
class Pull:
    """Supervisor to recorder: report. The pictures of these numbers are saved."""

    saved: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Leave:
    """Supervisor to recorder: end the session, report for the last time, exit."""

    saved: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Changed:
    """Recorder to supervisor: the status is another one; said once until the next pull."""


Message = Pull | Leave | Changed | Report


def encode(message: Message) -> bytes:
    head, blob = _outgoing(message)
    data = json.dumps(head).encode()
    return _LENGTHS.pack(len(data), len(blob)) + data + blob


class Inbox:
    """Collects bytes as they come and gives the whole messages in them."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Raises BadMessage for anything that `encode` cannot have made."""
        self._data += data
        messages = []
        while (message := self._take()) is not None:
            messages.append(message)
        return messages

    def _take(self) -> Message | None:
        if len(self._data) < _LENGTHS.size:
            return None
        head_length, blob_length = _LENGTHS.unpack_from(self._data)
        end = _LENGTHS.size + head_length + blob_length
        if end > MAX_MESSAGE_BYTES:
            raise BadMessage(f"a message of {end} bytes")
        if len(self._data) < end:
            return None
        head = bytes(self._data[_LENGTHS.size : _LENGTHS.size + head_length])
        blob = bytes(self._data[_LENGTHS.size + head_length : end])
        del self._data[:end]
        return _incoming(head, blob)


def _outgoing(message: Message) -> tuple[dict[str, Any], bytes]:
    match message:
        case Pull(saved=saved):
            return {"type": "pull", "saved": sorted(saved)}, b""
        case Leave(saved=saved):
            return {"type": "leave", "saved": sorted(saved)}, b""
        case Changed():
            return {"type": "changed"}, b""
        case Report(fresh=fresh):
            head = asdict(message)
            for picture in head["fresh"]:
                picture["jpeg"] = len(picture["jpeg"])
            return {"type": "report", **head}, b"".join(picture.jpeg for picture in fresh)


def _incoming(data: bytes, blob: bytes) -> Message:
    try:
        head = json.loads(data)
        match head.pop("type"):
            case "pull":
                return Pull(frozenset(map(int, head["saved"])))
            case "leave":
                return Leave(frozenset(map(int, head["saved"])))
            case "changed":
                return Changed()
            case "report":
                return _report(head, blob)
            case other:
                raise BadMessage(f"a message of type {str(other)[:20]!r}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadMessage(f"not a message: {type(error).__name__}") from None


def _report(head: dict[str, Any], blob: bytes) -> Report:
    status = dict(head["status"])
    video = status.pop("video")
    state = State(status.pop("state"))
    fresh = []
    for fields in head["fresh"]:
        length = int(fields.pop("jpeg"))
        fresh.append(Picture(**fields, jpeg=blob[:length]))
        blob = blob[length:]
    return Report(
        status=Status(state=state, video=Video(**video) if video else None, **status),
        counters=Counters(**head["counters"]),
        board=tuple((int(number), float(score)) for number, score in head["board"]),
        fresh=tuple(fresh),
        is_final=bool(head["is_final"]),
    )
