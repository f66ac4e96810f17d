"""What a recorder and its supervisor say to each other over their socket: JSON and JPEG, never a pickle.

The recorder parses what cameras send, so nothing it says may run code in the supervisor, and half a
message may not block it: bytes are collected and a message comes out when it is whole.
"""

import json
import re
import struct
from dataclasses import asdict, dataclass
from typing import Any

from .notices import Notice
from .quirks import MAX_LENGTH, Quirks
from .report import Counters, Picture, Report, State, Status, Video
from .sizes import is_too_large, jpeg_size
from .timeline import Timeline

_LENGTHS = struct.Struct("!II")  # bytes of JSON, bytes of pictures
MAX_HEAD_BYTES = 1 << 19  # a timeline of 200 kB, quoted, and a hundred frames of 150 bytes
MAX_PICTURES_BYTES = 1 << 28  # of one message: a hundred frames of 2.5 MB
MAX_PICTURE_BYTES = 1 << 23  # 8K at the usual quality has 4 to 8 MB
MAX_PLACES = 1000
MAX_TEXT_LENGTH = 500
_NAME = re.compile(r"[a-z0-9_]{0,32}")
MAX_WHOLE = 1 << 31  # what every database's integers hold
MAX_REAL = 1e11  # seconds since 1970 that a datetime holds


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


def picture_bytes(count: int) -> int:
    """How large each picture of so many may be, so that a report of them all is not too large."""
    return min(MAX_PICTURE_BYTES, MAX_PICTURES_BYTES // count)


def encode(message: Message) -> bytes:
    return b"".join(parts(message))


def parts(message: Message) -> list[bytes]:
    """To be sent one after the other: a hundred pictures need not be held twice for it."""
    head, pictures = _outgoing(message)
    data = json.dumps(head).encode()
    return [_LENGTHS.pack(len(data), sum(map(len, pictures))) + data, *pictures]


def check_pictures(report: Report) -> None:
    """Whether its pictures may be kept, and opened by others: each a JPEG of the size that the report tells, of the
    simplest kind, and not larger than a camera's may be. Raises BadMessage.
    """
    for picture in report.fresh:
        size = jpeg_size(picture.jpeg)
        if size != (picture.width, picture.height) or is_too_large(size):
            raise BadMessage("a picture that is none")


class Inbox:
    """Collects bytes as they come and gives the whole messages in them."""

    def __init__(self, pictures_bytes: int = MAX_PICTURES_BYTES) -> None:
        """`pictures_bytes`: of one message, at most."""
        self._pictures_bytes = pictures_bytes
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
        if head_length > MAX_HEAD_BYTES or blob_length > self._pictures_bytes:
            raise BadMessage(f"a message of {head_length} and {blob_length} bytes")
        end = _LENGTHS.size + head_length + blob_length
        if len(self._data) < end:
            return None
        with memoryview(self._data) as data:
            message = _incoming(
                bytes(data[_LENGTHS.size : _LENGTHS.size + head_length]), data[_LENGTHS.size + head_length : end]
            )
        del self._data[:end]
        return message


def _outgoing(message: Message) -> tuple[dict[str, Any], list[bytes]]:
    match message:
        case Pull(saved=saved):
            return {"type": "pull", "saved": sorted(saved)}, []
        case Leave(saved=saved):
            return {"type": "leave", "saved": sorted(saved)}, []
        case Changed():
            return {"type": "changed"}, []
        case Report(fresh=fresh):
            head = asdict(message)
            for picture in head["fresh"]:
                picture["jpeg"] = len(picture["jpeg"])
            return {"type": "report", **head}, [picture.jpeg for picture in fresh]


def _incoming(data: bytes, blob: memoryview) -> Message:
    try:
        head = json.loads(data)
        match head.pop("type"):
            case "pull":
                return Pull(frozenset(map(_whole, head["saved"])))
            case "leave":
                return Leave(frozenset(map(_whole, head["saved"])))
            case "changed":
                return Changed()
            case "report":
                return _report(head, blob)
            case other:
                raise BadMessage(f"a message of type {str(other)[:20]!r}")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise BadMessage(f"not a message: {type(error).__name__}") from None


def _report(head: dict[str, Any], blob: memoryview) -> Report:
    if max(len(head["fresh"]), len(head["board"])) > MAX_PLACES:
        raise BadMessage("more pictures than anybody asks for")
    fresh, at = [], 0
    for fields in head["fresh"]:
        begin, at = at, at + _whole(fields["jpeg"])
        if at > len(blob):
            raise BadMessage("a picture without its bytes")
        fresh.append(_picture(fields, bytes(blob[begin:at])))
    if at < len(blob):
        raise BadMessage("bytes without a picture")
    return Report(
        status=_status(head["status"]),
        counters=_counters(head["counters"]),
        board=tuple((_whole(number), _real(score)) for number, score in head["board"]),
        fresh=tuple(fresh),
        is_final=bool(head["is_final"]),
        timeline=_timeline(head["timeline"]),
        quirks=_quirks(head["quirks"]),
        replace_reason=_text(head["replace_reason"]),
    )


def _timeline(text: Any) -> str:
    """As it came, once it is known that it can be read."""
    if text != "":
        Timeline.decode(text)
    return str(text)


def _quirks(text: Any) -> str:
    """As it came, if it says nothing that this version does not know: it is saved."""
    if type(text) is not str or len(text) > MAX_LENGTH or Quirks.decode(text).encode() != text:
        raise BadMessage("quirks that cannot be read")
    return text


def _status(fields: dict[str, Any]) -> Status:
    video, next_at = fields["video"], fields["next_attempt_at"]
    if len(fields["notices"]) > len(Notice):
        raise BadMessage("more notices than there are")
    return Status(
        state=State(fields["state"]),
        error_code=_name(fields["error_code"]),
        error_text=_text(fields["error_text"]),
        attempt=_whole(fields["attempt"]),
        next_attempt_at=_moment_or_none(next_at),
        notices=tuple(map(Notice, fields["notices"])),
        video=video and Video(_name(video["codec"]), _whole(video["width"]), _whole(video["height"])),
    )


def _counters(fields: dict[str, Any]) -> Counters:
    return Counters(
        **{name: _whole(fields[name]) for name in ("samples", "missed", "rejected", "repeated", "connections")},
        last_sample_at=_moment_or_none(fields["last_sample_at"]),
        late_p50_s=_real_or_none(fields["late_p50_s"]),
        late_p95_s=_real_or_none(fields["late_p95_s"]),
    )


def _picture(fields: dict[str, Any], jpeg: bytes) -> Picture:
    return Picture(
        number=_whole(fields["number"]),
        score=_real(fields["score"]),
        captured_at=_moment(fields["captured_at"]),
        width=_whole(fields["width"]),
        height=_whole(fields["height"]),
        jpeg=jpeg,
    )


def _name(value: Any) -> str:
    """Of an error or a codec: it goes into the log as it is."""
    if type(value) is not str or not _NAME.fullmatch(value):
        raise BadMessage("a name that is none")
    return value


def _text(value: Any) -> str:
    """What a log and every database take: not PostgreSQL alone refuses a NUL."""
    return "".join(character if character.isprintable() else "?" for character in str(value)[:MAX_TEXT_LENGTH])


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MAX_WHOLE:
        raise BadMessage("a number out of range")
    return value


def _real(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) < MAX_REAL:
        raise BadMessage("a number out of range")
    return float(value)


def _moment(value: Any) -> float:
    """Seconds since 1970: of those before it a datetime does not hold as many."""
    moment = _real(value)
    if moment < 0:
        raise BadMessage("a moment before 1970")
    return moment


def _moment_or_none(value: Any) -> float | None:
    return None if value is None else _moment(value)


def _real_or_none(value: Any) -> float | None:
    return None if value is None else _real(value)
