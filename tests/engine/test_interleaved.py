"""One byte stream to packets and messages: however it is cut into reads, whatever lies between."""

import struct
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine import errors
from streams.engine.errors import Refused
from streams.engine.interleaved import BASE_BYTES, MAX_MESSAGES, MAX_REPORTS, ROOM_BYTES, Interleaved
from streams.engine.rtsp_message import MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_HEAD_LINES

RTP, RTCP = 4, 5
OK = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"


def framed(channel: int, packet: bytes) -> bytes:
    return struct.pack(">cBH", b"$", channel, len(packet)) + packet


def rtp(number: int, size: int = 20) -> bytes:
    return struct.pack(">BBHII", 0x80, 96, number & 0xFFFF, 0, 0) + bytes(size)


@dataclass
class Heard:
    packets: list[bytes] = field(default_factory=list)
    messages: list[tuple[int, str, bytes]] = field(default_factory=list)
    reports: list[bytes] = field(default_factory=list)


def hear(data: bytes, cuts: list[int] | None = None, stream: Interleaved | None = None) -> Heard:
    """In reads that end at the cuts."""
    stream = stream or listening()
    heard = Heard()
    places = [0, *sorted(cuts or []), len(data)]
    for start, end in pairwise(places):
        write(stream, data[start:end], heard)
    return heard


def write(stream: Interleaved, data: bytes, heard: Heard) -> None:
    while True:
        stream.rewind()
        room = stream.room()
        part, data = data[: len(room)], data[len(room) :]
        room[: len(part)] = part
        stream.filled(len(part))
        heard.packets += map(bytes, stream.take())
        heard.messages += [(message.status, message.method, message.body) for message in stream.messages]
        heard.reports += stream.reports
        stream.messages.clear()
        stream.reports.clear()
        if not data:
            return


def listening() -> Interleaved:
    stream = Interleaved()
    stream.listen(RTP, RTCP)
    return stream


def body(text: bytes) -> bytes:
    return b"RTSP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text


PIECES = st.one_of(
    st.integers(0, 2000).map(lambda size: framed(RTP, rtp(size, size))),
    st.just(framed(RTCP, b"\x80\xc9\0\1\0\0\0\0")),
    st.just(framed(9, b"\x80" + bytes(30))),
    st.just(OK),
    st.just(b"OPTIONS rtsp://c/ RTSP/1.0\r\nCSeq: 7\r\n\r\n"),
    st.binary(max_size=50).map(body),
    st.just(b"\r\n"),
)


@given(st.lists(PIECES, max_size=8), st.lists(st.integers(0, 3000), max_size=12))
def test_it_does_not_matter_how_the_bytes_are_cut(pieces: list[bytes], cuts: list[int]) -> None:
    data = OK + b"".join(pieces)
    whole = hear(data)
    assert hear(data, [cut for cut in cuts if cut < len(data)]) == whole
    assert whole.packets == [piece[4:] for piece in pieces if piece[:2] == bytes([0x24, RTP])]
    assert len(whole.messages) == 1 + sum(piece[:1] in (b"R", b"O") for piece in pieces)
    assert len(whole.reports) == sum(piece[:2] == bytes([0x24, RTCP]) for piece in pieces)


def test_byte_by_byte_is_the_same_as_at_once() -> None:
    data = OK + framed(RTP, rtp(1)) + body(b"v=0") + framed(RTCP, rtp(2)) + framed(RTP, rtp(3, 1400))
    assert hear(data, list(range(len(data)))) == hear(data)


@given(st.binary(max_size=300), st.booleans(), st.lists(st.integers(0, 300), max_size=5))
def test_no_bytes_raise_anything_but_a_capture_error(junk: bytes, has_begun: bool, cuts: list[int]) -> None:
    try:
        hear((OK if has_begun else b"") + junk, [cut for cut in cuts if cut < len(junk)])
    except errors.CaptureError:
        assert not has_begun or junk


JUNK = st.binary(min_size=1, max_size=40).filter(
    lambda junk: junk[:1] not in (b"$", b"R", b"\r", b"\n", b" ", b"\t", b"\0")
)


@given(JUNK.map(lambda junk: junk.replace(b"$", b"x").replace(b"R", b"x")), st.booleans(), st.integers(0, 120))
def test_after_junk_it_goes_on_at_the_next_packet_or_answer(junk: bytes, is_packet: bool, cut: int) -> None:
    data = OK + framed(RTP, rtp(1)) + junk + (framed(RTP, rtp(2)) if is_packet else OK) + framed(RTP, rtp(3))
    heard = hear(data, [cut, cut + 1, cut + 3])
    assert heard.packets == [rtp(1), *([rtp(2)] if is_packet else []), rtp(3)]
    assert len(heard.messages) == (1 if is_packet else 2)


@pytest.mark.parametrize("channel", [RTP, RTCP, 9])
def test_a_dollar_sign_in_junk_is_not_taken_for_a_packet(channel: int) -> None:
    """What is long enough and begins as no RTP packet does; announced longer than all that comes."""
    text = b"a text that is long enough to be a packet"
    for junk in (
        b"x" + framed(channel, text),
        b"x$" + bytes([channel]) + b"\xff\xff" + text,
        b"$\x09\xff\xff" + text,
    ):
        heard = hear(OK + framed(RTP, rtp(1)) + junk + framed(RTP, rtp(2)))
        assert (heard.packets, heard.reports) == ([rtp(1), rtp(2)], [])


@given(st.integers(0, 11))
def test_what_is_too_short_for_rtp_is_left_out(size: int) -> None:
    assert hear(OK + framed(RTP, b"\x80" * size) + framed(RTP, rtp(1, 0))).packets == [rtp(1, 0)]


def test_a_packet_cut_short_costs_no_more_than_the_next() -> None:
    """Old servers of one make write half a packet when the connection is slow, and then the next one."""
    whole = [framed(RTP, rtp(number, 100)) for number in range(6)]
    heard = hear(OK + whole[0] + whole[1][:50] + b"".join(whole[2:]))
    assert heard.packets[0] == rtp(0, 100)
    assert heard.packets[-2:] == [rtp(4, 100), rtp(5, 100)]


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\0\2\2\x28",
        b"220 mail ESMTP\r\n",
        b"RTSQ",
    ],
)
def test_what_is_another_protocol_is_told_at_once(said: bytes) -> None:
    with pytest.raises(errors.NotRTSP):
        hear(said)


@pytest.mark.parametrize(
    "head",
    [
        b"RTSP/1.0 200 OK\nCSeq: 1\n\n",
        b"RTSP/1.0 200\r\nCSeq: 1\r\n\r\n",
        b"RTSP/1.0  200  OK\r\ncseq:1\r\n\r\n",
        b"RTSP/1.1 200 OK\r\n\r\n",
        b"\r\n\r\nRTSP/1.0 200 OK\r\nCSeq 1\r\n: x\r\nnonsense\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: many\r\n\r\n",
        b"RTSP/1.0 200 \xff\xfe\r\nServer: K\xfcche\r\n\r\n",
    ],
)
def test_sloppy_answers_are_answers(head: bytes) -> None:
    assert hear(head + framed(RTP, rtp(1))) == Heard([rtp(1)], [(200, "", b"")], [])


def test_a_folded_header_is_one() -> None:
    stream = listening()
    data = b"RTSP/1.0 401 No\r\nWWW-Authenticate: Digest realm=x,\r\n  nonce=y\r\n\r\n"
    stream.room()[: len(data)] = data
    stream.filled(len(data))
    stream.take()
    assert stream.messages[0].header("www-authenticate") == "Digest realm=x, nonce=y"


def test_a_carriage_return_inside_a_value_does_not_stay_there() -> None:
    """What a camera says is sent back to it, in a header of ours: it shall not begin another."""
    stream = listening()
    data = b"RTSP/1.0 401 No\r\nSession: a\rX-Evil: b\r\n\r\n"
    stream.room()[: len(data)] = data
    stream.filled(len(data))
    stream.take()
    assert stream.messages[0].header("session") == "a"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"RTSP/1.0 200 OK\r\n" + b"X: y\r\n" * (MAX_HEAD_LINES + 1) + b"\r\n", errors.NotRTSP),
        (b"RTSP/1.0 200 OK\r\nX: " + b"y" * MAX_HEAD_BYTES, errors.NotRTSP),
        (b"RTSP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), errors.Refused),
        (b"RTSP/1.0 200 OK\r\nContent-Length: 9999999999\r\n\r\n", errors.Refused),
    ],
)
def test_nobody_is_read_without_end(said: bytes, error: type[errors.CaptureError]) -> None:
    with pytest.raises(error):
        hear(said)


def test_a_body_of_the_full_length_is_read() -> None:
    text = bytes(range(256)) * (MAX_BODY_BYTES // 256)
    assert hear(body(text)).messages == [(200, "", text)]


def test_packets_stay_valid_until_the_rewind_though_more_is_read() -> None:
    stream = listening()
    first = framed(RTP, rtp(1, 1000))
    stream.room()[: len(first)] = first
    stream.filled(len(first))
    (packet,) = stream.take()
    for _ in range(2 * BASE_BYTES // ROOM_BYTES):
        room = stream.room()
        room[:] = b"\xff" * len(room)
        stream.filled(len(room))
    assert bytes(packet) == rtp(1, 1000)
    assert stream.pending_bytes >= 2 * BASE_BYTES


def test_the_buffer_shrinks_again() -> None:
    stream = listening()
    burst = framed(RTP, rtp(1, 60_000)) * 40
    for start in range(0, len(burst), ROOM_BYTES):
        part = burst[start : start + ROOM_BYTES]
        stream.room()[: len(part)] = part
        stream.filled(len(part))
    assert len(stream.take()) == 40
    stream.rewind()
    assert len(stream.room()) == BASE_BYTES


def test_a_description_without_a_length_is_taken_when_nothing_more_comes() -> None:
    stream = listening()
    data = b"RTSP/1.0 200 OK\r\nContent-Type: application/sdp\r\n\r\nv=0\r\nm=video"
    stream.room()[: len(data)] = data
    stream.filled(len(data))
    assert (stream.take(), stream.messages, stream.is_endless) == ([], [], True)
    stream.finish()
    assert [message.body for message in stream.messages] == [b"v=0\r\nm=video"]
    assert not stream.is_endless


def test_reports_that_nobody_reads_are_not_kept_for_ever() -> None:
    """The last ones stay: the farewell is among them."""
    stream = Interleaved()
    stream.listen(0, 1)
    count = 10 * MAX_REPORTS
    flooded(stream, b"".join(b"$\1\0\2" + (number % 65_536).to_bytes(2) for number in range(count)))
    assert len(stream.reports) <= 2 * MAX_REPORTS
    assert stream.reports[-1] == ((count - 1) % 65_536).to_bytes(2)


def test_messages_that_nobody_reads_are_not_either() -> None:
    stream = Interleaved()
    with pytest.raises(Refused):
        flooded(stream, b"RTSP/1.0 200\n\n" * (MAX_MESSAGES + 1))
    assert len(stream.messages) == MAX_MESSAGES


def test_a_description_that_does_not_say_its_length_may_not_have_any() -> None:
    stream = Interleaved()
    head = b"RTSP/1.0 200 OK\r\nContent-Type: application/sdp\r\n\r\n"
    flooded(stream, head + b"a" * MAX_BODY_BYTES)
    assert stream.is_endless
    with pytest.raises(Refused):
        flooded(stream, b"a")


@given(st.lists(st.integers(0, 200), max_size=6))
def test_unread_channels_are_left_out_whatever_they_hold(cuts: list[int]) -> None:
    """Those of the other tracks. A dollar sign on them begins no packet."""
    stream = listening()
    stream.listen(RTP, RTCP, [0, 1, RTP, RTCP])
    unread = framed(0, b"no RTP") + framed(1, framed(RTP, rtp(9)))
    data = OK + unread + framed(RTP, rtp(1)) + unread + framed(RTCP, b"\x80\xc8\0\0") + unread + framed(RTP, rtp(2))
    heard = hear(data, [min(cut, len(data)) for cut in cuts], stream)
    assert (heard.packets, heard.reports) == ([rtp(1), rtp(2)], [b"\x80\xc8\0\0"])


def flooded(stream: Interleaved, data: bytes) -> None:
    while data:
        stream.rewind()
        room = stream.room()
        size = min(len(room), len(data))
        room[:size] = data[:size]
        stream.filled(size)
        data = data[size:]
        stream.take()
