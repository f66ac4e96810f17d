"""What recorder and supervisor say to each other: whole, in pieces, and as garbage."""

import json
import math
import struct
import time
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.engine.notices import Notice
from streams.engine.quirks import Quirks
from streams.engine.report import Counters, Picture, Report, State, Status, Video
from streams.engine.sheet import encode_jpeg
from streams.engine.timeline import MAX_SCORE
from streams.engine.wire import (
    MAX_HEAD_BYTES,
    MAX_PICTURES_BYTES,
    MAX_PLACES,
    MAX_REAL,
    MAX_TEXT_LENGTH,
    MAX_WHOLE,
    BadMessage,
    Changed,
    Inbox,
    Leave,
    Message,
    Pull,
    check_pictures,
    encode,
    picture_bytes,
)

from .builders import a_picture, a_report, a_timeline

NAMES = st.text("abcxyz_0129", max_size=20)
NUMBERS = st.integers(0, MAX_WHOLE - 1)
FLOATS = st.floats(-MAX_REAL, MAX_REAL, exclude_min=True, exclude_max=True)
MOMENTS = st.floats(0.0, MAX_REAL, exclude_max=True)
SAVED = st.frozensets(NUMBERS, max_size=9)
PICTURES = st.builds(Picture, NUMBERS, FLOATS, MOMENTS, NUMBERS, NUMBERS, st.binary(max_size=40))
STATUSES = st.builds(
    Status,
    state=st.sampled_from(State),
    error_code=NAMES,
    error_text=st.text(max_size=40).filter(str.isprintable),
    attempt=NUMBERS,
    next_attempt_at=st.none() | MOMENTS,
    video=st.none() | st.builds(Video, NAMES, NUMBERS, NUMBERS),
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
    quirks=st.builds(
        lambda *learned: Quirks(*learned).encode(),
        st.sampled_from(["", "tcp", "udp"]),
        st.sampled_from(["", "OPTIONS", "GET_PARAMETER"]),
    ),
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


@pytest.mark.parametrize(
    "forged",
    [
        *(None, 7, {}, {"transport": "udp"}),
        *("x", "{}", '{"transport": "udp"}', '{"transport":"sctp"}', '{"other":1}', "[" * 9999),
    ],
)
def test_quirks_that_this_version_would_not_write_are_no_report(forged: Any) -> None:
    head, blob = report_as_json()
    with pytest.raises(BadMessage):
        said({**head, "quirks": forged}, blob)


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
        Inbox().feed(struct.pack("!II", MAX_HEAD_BYTES + 1, 0))
    with pytest.raises(BadMessage):
        Inbox().feed(struct.pack("!II", 1, MAX_PICTURES_BYTES + 1))
    with pytest.raises(BadMessage):
        Inbox(1000).feed(struct.pack("!II", 1, 1001))
    assert Inbox(1000).feed(struct.pack("!II", MAX_HEAD_BYTES, 1000) + b"{") == []


@pytest.mark.parametrize("count", [1, 9, 100])
def test_a_full_board_of_the_largest_pictures_is_a_message(count: int) -> None:
    inbox = Inbox(count * picture_bytes(count))
    assert inbox.feed(struct.pack("!II", MAX_HEAD_BYTES, count * picture_bytes(count))) == []
    assert picture_bytes(count) >= 2_500_000


def test_more_pictures_than_anybody_asks_for_are_refused() -> None:
    """Each of no bytes: they would cost more than a message may."""
    report = a_report(*(a_picture(number, jpeg=b"") for number in range(MAX_PLACES + 1)))
    with pytest.raises(BadMessage):
        Inbox().feed(encode(report))


def test_many_small_pictures_are_told_apart_in_no_time() -> None:
    """Not by copying what is left of them for each: 200 MB a thousand times would keep the supervisor for minutes."""
    report = a_report(*(a_picture(number, jpeg=bytes(200_000)) for number in range(1000)))
    began_s = time.process_time()
    assert len(Inbox().feed(encode(report))) == 1
    assert time.process_time() - began_s < 10


def test_a_text_is_cut_off_at_what_a_page_can_show() -> None:
    status = replace(a_report().status, error_text="x" * 100_000)
    [report] = Inbox().feed(encode(a_report(status=status)))
    assert isinstance(report, Report)
    assert len(report.status.error_text) == MAX_TEXT_LENGTH


def a_jpeg(width: int = 160, height: int = 120) -> bytes:
    return encode_jpeg(np.zeros((height, width, 3), np.uint8), 90)


def renamed(jpeg: bytes, width: int, height: int) -> bytes:
    """The same data under another size."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def test_words_hold_nothing_that_a_log_or_a_database_does_not_take() -> None:
    status = replace(a_report().status, error_text="a\0b\nc\ud800é")
    [report] = Inbox().feed(encode(a_report(status=status)))
    assert isinstance(report, Report)
    assert report.status.error_text == "a?b?c?é"


def test_pictures_of_ours_may_be_kept() -> None:
    check_pictures(a_report(a_picture(jpeg=a_jpeg())))


@pytest.mark.parametrize(
    "jpeg",
    [
        b"",
        b"a picture",
        renamed(a_jpeg(), 161, 120),
        a_jpeg()[:100],
        a_jpeg().replace(b"\xff\xc0", b"\xff\xc2"),
        a_jpeg()[:2] + a_jpeg()[a_jpeg().index(b"\xff\xc0") :][:19] + a_jpeg()[2:],
    ],
    ids=["empty", "none", "another size", "cut off", "progressive", "two sizes"],
)
def test_what_is_no_picture_of_ours_may_not(jpeg: bytes) -> None:
    with pytest.raises(BadMessage):
        check_pictures(a_report(a_picture(jpeg=jpeg)))


def test_nor_one_that_is_larger_than_a_camera_may_send() -> None:
    bomb = replace(a_picture(jpeg=renamed(a_jpeg(), 65_500, 65_500)), width=65_500, height=65_500)
    with pytest.raises(BadMessage):
        check_pictures(a_report(bomb))


FORGED = [
    ("status", "state", "happy"),
    ("status", "state", None),
    ("status", "attempt", "1"),
    ("status", "error_code", "stalled\nstream=other capturing"),
    ("status", "error_code", "x" * 33),
    ("status", "error_code", None),
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
