"""What recorder and supervisor say to each other: whole, in pieces, and as garbage."""

import json
import math
import struct
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.engine.notices import Notice
from streams.engine.report import Counters, Picture, Report, State, Status, Video
from streams.engine.timeline import MAX_SCORE
from streams.engine.wire import (
    MAX_MESSAGE_BYTES,
    MAX_REAL,
    MAX_WHOLE,
    BadMessage,
    Changed,
    Inbox,
    Leave,
    Message,
    Pull,
    encode,
)

from .builders import a_picture, a_report, a_timeline

NUMBERS = st.integers(0, MAX_WHOLE - 1)
FLOATS = st.floats(-MAX_REAL, MAX_REAL, exclude_min=True, exclude_max=True)
MOMENTS = st.floats(0.0, MAX_REAL, exclude_max=True)
SAVED = st.frozensets(NUMBERS, max_size=9)
PICTURES = st.builds(Picture, NUMBERS, FLOATS, MOMENTS, NUMBERS, NUMBERS, st.binary(max_size=40))
STATUSES = st.builds(
    Status,
    state=st.sampled_from(State),
    error_code=st.text(max_size=20),
    error_text=st.text(max_size=40),
    attempt=NUMBERS,
    next_attempt_at=st.none() | MOMENTS,
    video=st.none() | st.builds(Video, st.text(max_size=8), NUMBERS, NUMBERS),
    notices=st.lists(st.sampled_from(Notice), unique=True).map(tuple),
)
REPORTS = st.builds(
    Report,
    status=STATUSES,
    counters=st.builds(Counters, *[NUMBERS] * 5, st.none() | MOMENTS, *[st.none() | FLOATS] * 2),
    board=st.lists(st.tuples(NUMBERS, FLOATS), max_size=9).map(tuple),
    fresh=st.lists(PICTURES, max_size=4).map(tuple),
    is_final=st.booleans(),
    timeline=st.just("") | st.builds(a_timeline, st.lists(st.floats(0.0, MAX_SCORE), max_size=3)),
)
MESSAGES = st.builds(Pull, SAVED) | st.builds(Leave, SAVED) | st.just(Changed()) | REPORTS
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("forged", [None, 7, [], "x", "{}", "[" * 100_000, '{"began_at":0,"width_s":0,"buckets":[]}'])
def test_a_timeline_that_cannot_be_read_is_no_report(forged: Any) -> None:
    head, blob = report_as_json()
    with pytest.raises(BadMessage):
        said({**head, "timeline": forged}, blob)


def framed(head: bytes, blob: bytes = b"") -> bytes:
    return struct.pack("!II", len(head), len(blob)) + head + blob


def said(head: object, blob: bytes = b"") -> list[Message]:
    return Inbox().feed(framed(json.dumps(head).encode(), blob))


@given(st.lists(MESSAGES, max_size=4), st.lists(st.integers(1, 50), max_size=40))
def test_messages_come_out_whole_however_they_are_cut(messages: list[Message], sizes: list[int]) -> None:
    data, inbox, received = b"".join(map(encode, messages)), Inbox(), []
    for size in [*sizes, len(data)]:
        received += inbox.feed(data[:size])
        data = data[size:]
    assert received == messages


@given(st.lists(MESSAGES, min_size=1, max_size=3))
def test_byte_by_byte_nothing_comes_before_the_last_byte_of_a_message(messages: list[Message]) -> None:
    inbox = Inbox()
    for message in messages:
        *first, last = (bytes([byte]) for byte in encode(message))
        assert [inbox.feed(byte) for byte in first] == [[] for _ in first]
        assert inbox.feed(last) == [message]


@given(MESSAGES, st.data())
def test_half_a_message_yields_nothing(message: Message, data: st.DataObject) -> None:
    whole = encode(message)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert Inbox().feed(whole[:cut]) == []


def test_pictures_go_beside_the_json_as_they_are() -> None:
    jpegs = [bytes(range(256)), b"", b"{}" * 5]
    report = a_report(*(a_picture(number, jpeg=jpeg) for number, jpeg in enumerate(jpegs, 1)))
    data = encode(report)
    assert data.endswith(b"".join(jpegs))
    [received] = Inbox().feed(data)
    assert isinstance(received, Report)
    assert [picture.jpeg for picture in received.fresh] == jpegs


@given(st.binary(max_size=200))
@example(b"\xff" * 8)
@example(framed(b""))
@example(framed(b'{"type": "pull"'))
@example(framed(b'{"type": "pull", "saved": [1e999]}'))
@example(framed(b'{"type": "pull", "saved": [%s]}' % (b"9" * 5000)))
@example(framed(b'{"type": "pull", "saved": ' + b"[" * 50_000))
@example(framed(b"\xff\xfe"))
def test_garbage_is_a_bad_message_and_nothing_else(data: bytes) -> None:
    for bytes_ in (data, framed(data), framed(data, data)):
        with suppress(BadMessage):
            Inbox().feed(bytes_)


@given(JSON)
@example({"type": "pull", "saved": [math.inf]})
@example({"type": {}})
@example([])
def test_so_is_json_that_is_no_message(head: Any) -> None:
    with suppress(BadMessage):
        said(head)


@pytest.mark.parametrize("kind", ["", "Pull", "pickle", None, 1, ["pull"]])
def test_an_unknown_type_is_a_bad_message(kind: object) -> None:
    with pytest.raises(BadMessage):
        said({"type": kind})


def test_a_length_beyond_measure_is_refused_before_its_bytes_come() -> None:
    with pytest.raises(BadMessage):
        Inbox().feed(struct.pack("!II", MAX_MESSAGE_BYTES - 8, 1) + b"{")
    Inbox().feed(struct.pack("!II", MAX_MESSAGE_BYTES - 8, 0) + b"{")


FORGED = [
    ("status", "state", "happy"),
    ("status", "state", None),
    ("status", "attempt", "1"),
    ("status", "attempt", 1.5),
    ("status", "next_attempt_at", "soon"),
    ("status", "next_attempt_at", math.nan),
    ("status", "video", "h264"),
    ("status", "video", {"codec": "h264", "width": "wide", "height": 1}),
    ("counters", "samples", -1),
    ("counters", "samples", "many"),
    ("counters", "missed", None),
    ("counters", "rejected", 1e300),
    ("counters", "last_sample_at", math.inf),
    ("board", 0, [1, math.nan]),
    ("board", 0, [1, 10**400]),
    ("board", 0, [math.inf, 1]),
    ("board", 0, [1]),
    ("board", 0, "12"),
    ("board", 0, [True, 1]),
    ("board", 0, [MAX_WHOLE, 1]),
    ("fresh", 0, "number", "one"),
    ("fresh", 0, "number", None),
    ("fresh", 0, "score", math.nan),
    ("fresh", 0, "score", "bright"),
    ("fresh", 0, "captured_at", math.inf),
    ("fresh", 0, "captured_at", None),
    ("fresh", 0, "width", "wide"),
    ("fresh", 0, "height", -1),
    ("fresh", 0, "jpeg", -1),
    ("fresh", 0, "jpeg", 10_000),
    ("fresh", 0, "jpeg", 3),
    ("fresh", 0, "jpeg", math.inf),
]  # fmt: skip


@pytest.mark.parametrize("forgery", FORGED, ids=str)
def test_a_report_that_encode_cannot_have_made_is_a_bad_message(forgery: tuple[Any, ...]) -> None:
    """A recorder that a camera has taken over says what it likes; its supervisor runs all other captures too."""
    *way, last, forged = forgery
    head, blob = report_as_json()
    place = head
    for step in way:
        place = place[step]
    place[last] = forged
    with pytest.raises(BadMessage):
        said(head, blob)


def test_the_report_that_is_forged_there_is_otherwise_right() -> None:
    assert said(*report_as_json()) == [a_report(a_picture())]


def report_as_json() -> tuple[Any, bytes]:
    picture = a_picture()
    head = json.loads(json.dumps({"type": "report", **asdict(a_report(picture)), "fresh": []}))
    head["fresh"] = [{**asdict(picture), "jpeg": len(picture.jpeg)}]
    return head, picture.jpeg


def test_a_moment_that_no_datetime_holds_is_no_report() -> None:
    """A recorder that says so may be in a camera's hands: its supervisor must not stumble over it."""
    whole = encode(replace(a_report(), fresh=(replace(a_picture(), captured_at=-9e10),)))
    with pytest.raises(BadMessage):
        Inbox().feed(whole)
