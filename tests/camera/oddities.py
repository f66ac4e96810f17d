"""What people's cameras were reported to do beside the faults: a table. A new oddity is one entry.

Most of them play as they should for clients that are lenient; `rows` are FIELD.md's. Those without a row are of the
same kinds: other spellings of what RFC 2326, 3550, 4566, 6184, 7798 and 2435 say.
"""

import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from tests.camera.clip import TICKS_PER_S, split_nals
from tests.camera.faults import Fault, Moments
from tests.camera.message import Exchange, HangUp
from tests.camera.rtp import Packet
from tests.camera.srtp import KEY_LINE, protected

_PICTURE_TICKS = TICKS_PER_S // 10  # of a film with 10 pictures a second

Answers = Callable[[Exchange, bytes], bytes | None]


# --- the dialogue ---


def _only(method: str, edit: Callable[[bytes], bytes]) -> Answers:
    """The answers to this method."""
    return lambda exchange, said: edit(said) if exchange.request.method == method else said


def _replaced(method: str, pattern: str, by: str) -> Answers:
    """In the answers to this method; the pattern sees each line's beginning as one."""
    wanted = re.compile(pattern.encode(), re.MULTILINE | re.IGNORECASE)
    return _only(method, lambda said: wanted.sub(by.encode(), said))


def _everywhere(pattern: str, by: str) -> Answers:
    wanted = re.compile(pattern.encode(), re.MULTILINE)
    return lambda exchange, said: wanted.sub(by.encode(), said)


def _wants_tcp(exchange: Exchange) -> bool:
    return exchange.request.method == "SETUP" and "TCP" in exchange.request.headers.get("transport", "")


def _refuses_tcp(status: int) -> Callable[[Exchange], int | None]:
    return lambda exchange: status if _wants_tcp(exchange) else None


def _hangs_up_at_tcp(exchange: Exchange, said: bytes) -> bytes:
    if _wants_tcp(exchange):
        raise HangUp
    return said


def _short_timeout(exchange: Exchange, said: bytes) -> bytes:
    """Keep-alives come every 2 s."""
    return said.replace(b"timeout=60", b"timeout=4")


def _refuses_get_parameter(status: int) -> Callable[[Exchange], int | None]:
    return lambda exchange: status if exchange.request.method == "GET_PARAMETER" else None


def _hangs_up_at_get_parameter(exchange: Exchange, said: bytes) -> bytes:
    if exchange.request.method == "GET_PARAMETER":
        raise HangUp
    return _short_timeout(exchange, said)


def _refuses_range(exchange: Exchange) -> int | None:
    return 457 if exchange.request.method == "PLAY" and "range" in exchange.request.headers else None


def _another_session(exchange: Exchange, said: bytes) -> bytes:
    """From the second SETUP on."""
    is_second = exchange.request.method == "SETUP" and "SETUP" in exchange.earlier
    return re.sub(rb"Session: (\w+)", rb"Session: \g<1>2", said) if is_second else said


def _unanswered_play(exchange: Exchange, said: bytes) -> bytes | None:
    return None if exchange.request.method == "PLAY" else said


def _redirected(*hops: str) -> dict[str, object]:
    """From the camera's own path to the first hop, and on. A hop with two slashes goes to the camera's authority."""

    def name(exchange: Exchange) -> str:
        return exchange.request.uri.rstrip("/").rpartition("/")[2]

    steps = dict(zip(["demo", *(hop.rpartition("/")[2] for hop in hops)], hops, strict=False))

    def refuses(exchange: Exchange) -> int | None:
        return 302 if exchange.request.method == "DESCRIBE" and name(exchange) in steps else None

    def edit_answer(exchange: Exchange, said: bytes) -> bytes:
        authority = exchange.request.uri.split("/")[2]
        return said.replace(b"elsewhere", steps.get(name(exchange), "").format(authority=authority).encode())

    paths = tuple(hop.rpartition("/")[2] for hop in hops)
    return {"refuses": refuses, "edit_answer": edit_answer, "location": "elsewhere", "paths": paths}


def _challenge(pattern: str, by: str) -> Answers:
    """In the value of WWW-Authenticate."""
    wanted = re.compile(pattern.encode())

    def edit(exchange: Exchange, said: bytes) -> bytes:
        head, found, rest = said.partition(b"WWW-Authenticate: ")
        value, _, left = rest.partition(b"\r\n")
        return head + found + wanted.sub(by.encode(), value) + b"\r\n" + left if found else said

    return edit


def _other_401(exchange: Exchange) -> int | None:
    """OPTIONS is refused once, without any challenge."""
    return 401 if exchange.request.method == "OPTIONS" else None


def _continued(exchange: Exchange, said: bytes) -> bytes:
    cseq = re.search(rb"CSeq: \d+", said)
    assert cseq
    return b"RTSP/1.0 100 Continue\r\n" + cseq[0] + b"\r\n\r\n" + said


def _asks_back(exchange: Exchange, said: bytes) -> bytes:
    """After PLAY the camera has requests of its own."""
    if exchange.request.method != "PLAY":
        return said
    own = b"%s rtsp://127.0.0.1/demo RTSP/1.0\r\nCSeq: %d\r\n\r\n"
    return said + own % (b"OPTIONS", 1) + own % (b"GET_PARAMETER", 2)


def _absolute_control(authority: str) -> Answers:
    """`a=control` holds a whole URL."""

    def edit(exchange: Exchange, said: bytes) -> bytes:
        uri = exchange.request.uri.rstrip("/")
        scheme, _, rest = uri.partition("://")
        own, _, path = rest.partition("/")
        base = f"{scheme}://{authority.format(authority=own)}/{path}/"
        longer = said.replace(b"a=control:track", b"a=control:" + base.encode() + b"track")
        return _measured(longer) if exchange.request.method == "DESCRIBE" else said

    return edit


def _measured(said: bytes) -> bytes:
    """With the Content-Length that its body has."""
    head, _, body = said.partition(b"\r\n\r\n")
    return re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head) + b"\r\n\r\n" + body


def _base(value: str) -> Answers:
    """Another Content-Base; {authority} and {path} are those of the request."""

    def edit(exchange: Exchange, said: bytes) -> bytes:
        authority, _, path = exchange.request.uri.partition("://")[2].partition("/")
        told = value.format(authority=authority, path=path.rstrip("/"))
        return re.sub(rb"Content-Base: [^\r]*", b"Content-Base: " + told.encode(), said)

    return edit


# --- the description ---


def _sdp(pattern: str, by: str) -> Callable[[str], str]:
    wanted = re.compile(pattern, re.MULTILINE)
    return lambda sdp: wanted.sub(by, sdp)


def _without_fields(sdp: str) -> str:
    """The least that a client can need."""
    return "".join(
        line + "\r\n" for line in sdp.splitlines() if line.startswith(("v=", "m=", "a=rtpmap", "a=control:t"))
    )


def _encrypted(sdp: str) -> str:
    return sdp.replace("RTP/AVP 96", f"RTP/SAVP 96\r\n{KEY_LINE}")


# --- packets ---


def _own_timestamps(packets: list[Packet]) -> Iterable[Packet]:
    return [replace(packet, timestamp=packet.timestamp + 90 * n) for n, packet in enumerate(packets)]


def _sequences(step: int) -> Callable[[list[Packet]], Iterable[Packet]]:
    return lambda packets: [replace(packet, sequence=step * packet.sequence) for packet in packets]


def _counts_pictures(packets: list[Packet]) -> Iterable[Packet]:
    """All packets of a picture have the sequence number that its first would have."""
    return [replace(packet, sequence=packets[0].timestamp // _PICTURE_TICKS) for packet in packets]


def _restarted(packets: list[Packet]) -> Iterable[Packet]:
    """Sequence numbers and the SSRC begin anew from time to time: every 1024 packets."""
    return [
        replace(packet, sequence=packet.sequence % 1024, ssrc=0x5EED0000 + packet.sequence // 1024)
        for packet in packets
    ]


_DEAD_SSRC = 0xDEAD


def _with_dead_session(packets: list[Packet]) -> Iterable[Packet]:
    """Between the camera's own come those of a session that nobody ended: cut short, and with other numbers."""
    for packet in packets:
        yield packet
        dead = replace(packet, sequence=packet.sequence + 30_000, timestamp=packet.timestamp + 5_000_000)
        yield replace(dead, ssrc=_DEAD_SSRC, payload=packet.payload[: len(packet.payload) // 2])


def _markers(is_last: bool) -> Callable[[list[Packet]], Iterable[Packet]]:
    return lambda packets: [replace(packet, is_last=is_last) for packet in packets]


def _doubled(packets: list[Packet]) -> Iterable[Packet]:
    return itertools.chain.from_iterable((packet, packet) for packet in packets)


def _swapped(packets: list[Packet]) -> Iterable[Packet]:
    """The second and third packet of a picture change places."""
    return [packets[0], packets[2], packets[1], *packets[3:]] if len(packets) > 3 else packets


def _with_empty(packets: list[Packet]) -> Iterable[Packet]:
    """A packet without payload stands before each picture; it has a number of its own."""
    pictures = packets[0].timestamp // _PICTURE_TICKS
    yield replace(packets[0], sequence=packets[0].sequence + pictures - 1, is_last=False, payload=b"")
    for packet in packets:
        yield replace(packet, sequence=packet.sequence + pictures)


def _with_other_type(packets: list[Packet]) -> Iterable[Packet]:
    """Each picture is followed by a packet of metadata, with a payload type and numbers of its own."""
    yield from packets
    yield Packet(7, packets[0].timestamp, True, b"<metadata/>", payload_type=107, ssrc=0x3E7A)


def _of_type(payload_type: int) -> Callable[[list[Packet]], Iterable[Packet]]:
    return lambda packets: [replace(packet, payload_type=payload_type) for packet in packets]


def _aggregated(packets: list[Packet]) -> Iterable[Packet]:
    """H.264's parameter sets in one packet, STAP-A (RFC 6184 section 5.7.1)."""
    if len(packets) < 3 or packets[0].payload[0] & 31 != 7:
        return packets
    sets, rest = packets[:2], packets[2:]
    payload = b"\x78" + b"".join(len(one.payload).to_bytes(2) + one.payload for one in sets)
    return [replace(sets[1], payload=payload), *rest]


def _annexb_in_fragments(packets: list[Packet]) -> Iterable[Packet]:
    """H.265 whose encoder's start code is taken for the header of the NAL unit that is cut up (RFC 7798 4.4.3)."""
    made = []
    for packet in packets:
        head, is_fragment = packet.payload[:3], packet.payload[0] >> 1 & 63 == 49
        if not is_fragment:
            made.append(packet)
            continue
        own = bytes([head[0] & 0x81 | (head[2] & 0x3F) << 1, head[1]])
        start = b"\0\1" + own if head[2] & 0x80 else b""
        made.append(replace(packet, payload=bytes([49 << 1, 0, head[2] & 0xC0]) + start + packet.payload[3:]))
    return made


def _offsets_with_headers(packets: list[Packet]) -> Iterable[Packet]:
    """JPEG fragments (RFC 2435 section 3.1.2) whose offset counts payloads as they are sent."""
    offset, made = 0, []
    for packet in packets:
        payload = packet.payload[:1] + offset.to_bytes(3) + packet.payload[4:]
        offset += len(payload)
        made.append(replace(packet, payload=payload))
    return made


def _nals_of(packets: list[Packet]) -> list[bytes]:
    """The H.264 NAL units of a picture's packets (FU-A: RFC 6184 section 5.8)."""
    nals: list[bytes] = []
    for payload in (packet.payload for packet in packets):
        if payload[0] & 31 != 28:
            nals.append(payload)
        elif payload[1] & 0x80:
            nals.append(bytes([payload[0] & 0xE0 | payload[1] & 31]) + payload[2:])
        else:
            nals[-1] += payload[2:]
    return nals


def _cut(packets: list[Packet], nal: bytes) -> Iterable[Packet]:
    """One NAL unit in as many fragments as there are packets."""
    if len(packets) == 1:
        return [replace(packets[0], payload=nal)]
    size = -(-(len(nal) - 1) // len(packets))
    parts = [nal[1 + at : 1 + at + size] for at in range(0, size * len(packets), size)]
    marks = [0x80, *[0] * (len(packets) - 2), 0x40]
    heads = [bytes([nal[0] & 0xE0 | 28, mark | nal[0] & 31]) for mark in marks]
    return [replace(packet, payload=head + part) for packet, head, part in zip(packets, heads, parts, strict=True)]


def _merged(packets: list[Packet]) -> Iterable[Packet]:
    """All NAL units of a picture are sent as if they were one, with the start codes between them."""
    return _cut(packets, b"\0\0\0\1".join(_nals_of(packets)))


def _with_start_codes(packets: list[Packet]) -> Iterable[Packet]:
    """The encoder's start code is taken for a part of the NAL unit: each picture is sent as it was encoded."""
    return _cut(packets, b"".join(b"\0\0\0\1" + nal for nal in _nals_of(packets)))


def _with_zeros(packets: list[Packet]) -> Iterable[Packet]:
    """H.264 annex B's trailing zeros are sent as a part of the last NAL unit."""
    return [*packets[:-1], replace(packets[-1], payload=packets[-1].payload + bytes(3))]


def _padded(packet: bytes) -> bytes:
    """RFC 3550 section 5.1: the last byte counts the padding."""
    return bytes([packet[0] | 0x20]) + packet[1:] + b"\0\0\0\4"


def _extended(packet: bytes) -> bytes:
    """A header extension (RFC 3550 section 5.3.1), as ONVIF's replay has."""
    return bytes([packet[0] | 0x10]) + packet[1:12] + b"\xab\xac\0\2" + bytes(8) + packet[12:]


def _contributed(packet: bytes) -> bytes:
    return bytes([packet[0] | 0x01]) + packet[1:12] + b"\0\0\0\1" + packet[12:]


# --- pictures ---


def _units(edit: Callable[[bytes], bytes]) -> Callable[[Moments, float], Moments]:
    """The data of each access unit is changed."""

    def edited(moments: Moments, amount: float) -> Moments:
        for moment in moments:
            yield replace(moment, unit=replace(moment.unit, data=edit(moment.unit.data)))

    return edited


def _annexb(nals: Iterable[bytes]) -> bytes:
    return b"".join(b"\0\0\0\1" + nal for nal in nals)


def _trailing(data: bytes) -> bytes:
    """After the last slice: bytes that a decoder never reads."""
    return data + b"\x80\x55\xaa\x80"


def _delimited(data: bytes) -> bytes:
    """An access unit delimiter and an unregistered SEI before each picture."""
    sei = b"\x06\x05\x14" + bytes(range(1, 17)) + b"note\x80"
    return _annexb([b"\x09\xf0", sei, *split_nals(data)])


def _filled(data: bytes) -> bytes:
    """Filler data, as encoders with a constant rate send them."""
    return data + b"\0\0\0\1\x0c" + b"\xff" * 64 + b"\x80"


def _prefixed(data: bytes) -> bytes:
    """A prefix NAL unit before each slice, as of scalable video (H.264 annex G)."""
    return _annexb(
        part for nal in split_nals(data) for part in ((b"\x6e\x40\x00\x07", nal) if nal[0] & 31 < 6 else (nal,))
    )


def _without_sets(data: bytes) -> bytes:
    """Parameter sets are in the description alone."""
    return _annexb(nal for nal in split_nals(data) if nal[0] & 31 not in (7, 8))


def _later(moments: Moments, amount: float) -> Moments:
    for moment in moments:
        yield replace(moment, at_s=moment.at_s + amount)


def _in_sending_order(moments: Moments, amount: float) -> Moments:
    """Timestamps tell when a picture is to be decoded, where there are B-frames."""
    first = next(moments)
    for moment in itertools.chain([first], moments):
        yield replace(moment, ticks=first.ticks + round((moment.at_s - first.at_s) * TICKS_PER_S))


def _slower(moments: Moments, amount: float) -> Moments:
    """So many times as far apart, and their timestamps too."""
    first = next(moments)
    for moment in itertools.chain([first], moments):
        since_s = moment.at_s - first.at_s
        ticks = first.ticks + round((moment.ticks - first.ticks) * amount)
        yield replace(moment, at_s=first.at_s + since_s * amount, ticks=ticks)


_BAD_BYE = b"\x9f\xcb\x00\x01\x00\x00\x00\x07"  # names 31 sources, and holds one that is not the camera's
_APP = b"\x80\xcc\x00\x03\x00\x00\x00\x07NOTE\x00\x00\x00\x00"  # RFC 3550 section 6.7

ODDITIES: dict[str, Fault] = {
    # slow ones
    "describe_7s": Fault("answers DESCRIBE after 7 s", (28,), late_s={"DESCRIBE": 7.0}),
    "describe_12s": Fault("answers DESCRIBE after 12 s", (28,), late_s={"DESCRIBE": 12.0}),
    "setup_7s": Fault("answers SETUP after 7 s", (28,), late_s={"SETUP": 7.0}),
    "play_9s": Fault("answers PLAY after 9 s", (28,), late_s={"PLAY": 9.0}),
    "first_packet_12s": Fault("sends its first packet after 12 s", (32,), 12.0, edit_moments=_later),
    "picture_in_6s": Fault("sends a picture in 6 s", (59,), 6.0, edit_moments=_slower),
    "picture_in_12s": Fault("sends a picture in 12 s", (59,), 12.0, edit_moments=_slower),
    # transports
    "tcp_400": Fault("answers 400 to a SETUP that asks for TCP", (29,), refuses=_refuses_tcp(400)),
    "tcp_500": Fault("answers 500 to a SETUP that asks for TCP", (29,), refuses=_refuses_tcp(500)),
    "tcp_501": Fault("answers 501 to a SETUP that asks for TCP", (29,), refuses=_refuses_tcp(501)),
    "tcp_551": Fault("answers 551 to a SETUP that asks for TCP", (29,), refuses=_refuses_tcp(551)),
    "tcp_closes": Fault("closes at a SETUP that asks for TCP", (29,), edit_answer=_hangs_up_at_tcp),
    "tcp_silent": Fault("agrees to TCP and sends nothing", (29,), silent_transport="tcp"),
    "udp_silent": Fault("agrees to UDP and sends nothing", (29,), silent_transport="udp"),
    "udp_other_host": Fault("sends datagrams from another address, and says so", (52,), udp_host="127.0.0.2"),
    "udp_outlives": Fault(
        "closes the RTSP connection after 3 s, and goes on by UDP", (53,), closes_rtsp_after_s=3.25
    ),
    "other_channels": Fault("answers with other channels than those asked for", channel_offset=4),
    "transport_untold": Fault(
        "answers SETUP without naming the transport's parameters",
        edit_answer=_replaced("SETUP", r"^(Transport: [^;\r]*);[^\r]*", r"\1"),
    ),
    "transport_odd": Fault(
        "writes the transport in capitals and with blanks",
        edit_answer=_replaced("SETUP", r"^Transport: RTP/AVP(/TCP)?;unicast;", r"Transport: RTP/AVP\1; UNICAST; "),
    ),
    "ssrc_wrong": Fault(
        "tells an SSRC that is not its own",
        (36,),
        edit_answer=_replaced("SETUP", r"^(Transport: [^\r]*)", r'\1;ssrc=1234ABCD;mode="PLAY"'),
    ),
    "server_port_untold": Fault(
        "does not tell where its datagrams come from",
        (52,),
        edit_answer=_replaced("SETUP", r";server_port=[\d-]+", ""),
    ),
    "udp_other_port": Fault(
        "sends datagrams from other ports than it says",
        (52,),
        edit_answer=_replaced("SETUP", r"server_port=[\d-]+", "server_port=9998-9999"),
    ),
    "session_untold": Fault("names no session", edit_answer=_everywhere(r"^Session: [^\r]*\r\n", "")),
    "rtp_info_empty": Fault(
        "has an RTP-Info that says nothing",
        edit_answer=_replaced("PLAY", r"^RTP-Info: [^\r]*", "RTP-Info: url=;seq=;rtptime=now"),
    ),
    "rtp_info_wrong": Fault(
        "has an RTP-Info of another time",
        edit_answer=_replaced("PLAY", r"seq=\d+;rtptime=\d+", "seq=1;rtptime=5"),
    ),
    # keep-alive
    "get_parameter_454": Fault(
        "answers 454 to GET_PARAMETER", (30,), refuses=_refuses_get_parameter(454), edit_answer=_short_timeout
    ),
    "get_parameter_451": Fault(
        "answers 451 to GET_PARAMETER", (30,), refuses=_refuses_get_parameter(451), edit_answer=_short_timeout
    ),
    "get_parameter_silent": Fault(
        "does not answer GET_PARAMETER", (30,), refuses=_refuses_get_parameter(0), edit_answer=_short_timeout
    ),
    "get_parameter_closes": Fault("hangs up at GET_PARAMETER", (31,), edit_answer=_hangs_up_at_get_parameter),
    "needs_reports": Fault("stops after 7 s without a receiver report", (33,), needs_report_within_s=7.0),
    # tracks
    "all_tracks": Fault(
        "sends nothing until all tracks are set up",
        (34,),
        media=("video", "audio"),
        has_sound=True,
        needs_all_tracks=True,
    ),
    "all_tracks_mute": Fault(
        "sends nothing until all tracks are set up, and no sound",
        (34,),
        media=("audio", "video"),
        needs_all_tracks=True,
    ),
    "second_session": Fault(
        "gives each track a session of its own",
        (34,),
        media=("video", "audio"),
        has_sound=True,
        edit_answer=_another_session,
    ),
    # answers
    "play_unanswered": Fault("does not answer PLAY, and sends", (37,), edit_answer=_unanswered_play),
    "range_457": Fault("answers 457 to a PLAY with a Range", (56,), refuses=_refuses_range),
    "redirect_path": Fault("redirects to a path alone", (40,), **_redirected("/other")),  # type: ignore[arg-type]
    "redirect_same": Fault(
        "redirects to another path of its own authority",
        (40,),
        **_redirected("rtsp://{authority}/other"),  # type: ignore[arg-type]
    ),
    "redirect_twice": Fault(
        "redirects twice",
        (40,),
        **_redirected("rtsp://{authority}/one", "rtsp://{authority}/two"),  # type: ignore[arg-type]
    ),
    "options_401": Fault(
        "answers 401 to OPTIONS, without a challenge",
        (54,),
        refuses=_other_401,
        edit_answer=_replaced("OPTIONS", r"^WWW-Authenticate: [^\r]*\r\n", ""),
    ),
    "options_405": Fault("answers 405 to OPTIONS", refused_method="OPTIONS", refusal_status=405),
    "options_500": Fault("answers 500 to OPTIONS", refused_method="OPTIONS", refusal_status=500),
    "options_nothing": Fault(
        "says of no method that it knows it", edit_answer=_replaced("OPTIONS", r"^Public: [^\r]*\r\n", "")
    ),
    "basic_or_digest": Fault(
        "names two schemes without parameters", (48,), edit_answer=_challenge(r"^", "Basic Digest, ")
    ),
    "comma_after_scheme": Fault("has a comma after the scheme", (48,), edit_answer=_challenge(r"^(\w+) ", r"\1, ")),
    "schemes_alone": Fault(
        "asks by naming schemes, and nothing else", (48,), edit_answer=_challenge("^.*$", "Basic Digest")
    ),
    "bare_realm": Fault(
        "has a realm without quotes, with blanks", (48,), edit_answer=_challenge(r'realm="([^"]*)"', r"realm=\1")
    ),
    "base_without_scheme": Fault(
        "has a Content-Base without scheme", (45,), edit_answer=_base("{authority}/{path}/")
    ),
    "base_relative": Fault("has a relative Content-Base", (45,), edit_answer=_base("{path}/")),
    "base_path": Fault("has a Content-Base that is a path", (45,), edit_answer=_base("/{path}/")),
    "base_without_slash": Fault(
        "has a Content-Base without a slash", (45,), edit_answer=_base("rtsp://{authority}/{path}")
    ),
    "base_empty": Fault("has an empty Content-Base", (45,), edit_answer=_base("")),
    "base_missing": Fault(
        "has no Content-Base", (45,), edit_answer=_replaced("DESCRIBE", r"^Content-Base: [^\r]*\r\n", "")
    ),
    "no_content_type": Fault(
        "names no Content-Type", (58,), edit_answer=_replaced("DESCRIBE", r"^Content-Type: [^\r]*\r\n", "")
    ),
    "no_content_length": Fault(
        "names no Content-Length", (58,), edit_answer=_replaced("DESCRIBE", r"^Content-Length: [^\r]*\r\n", "")
    ),
    "no_content_headers": Fault(
        "names neither Content-Type nor Content-Length",
        (58,),
        edit_answer=_replaced("DESCRIBE", r"^Content-(Type|Length): [^\r]*\r\n", ""),
    ),
    "lower_case_version": Fault("says rtsp/1.0", (58,), edit_answer=_everywhere(r"\ARTSP/1\.0", "rtsp/1.0")),
    "other_version": Fault("says RTSP/2.0", (58,), edit_answer=_everywhere(r"\ARTSP/1\.0", "RTSP/2.0")),
    "no_reason": Fault("leaves the reason out", edit_answer=_everywhere(r"\A(RTSP/1\.0 \d+)[^\r]*", r"\1")),
    "no_cseq": Fault("does not repeat CSeq", edit_answer=_everywhere(r"^CSeq: \d+\r\n", "")),
    "lower_case_headers": Fault(
        "writes header names in lower case",
        edit_answer=lambda exchange, said: re.sub(
            rb"^(CSeq|Session|Transport|Content-\w+|Public):", lambda name: name[0].lower(), said, flags=re.MULTILINE
        ),
    ),
    "headers_without_blank": Fault(
        "has no blank after a header's colon", edit_answer=_everywhere(r"^([A-Z][\w-]*): ", r"\1:")
    ),
    "session_odd": Fault(
        "has blanks in Session", edit_answer=_everywhere(r"^Session: (\w+);timeout=", r"Session: \1 ; timeout = ")
    ),
    "continues": Fault("says 100 Continue before each answer", edit_answer=_continued),
    "blank_lines": Fault("sends blank lines before each answer", edit_answer=_everywhere(r"\A", "\r\n\r\n")),
    "asks_back": Fault("has requests of its own", edit_answer=_asks_back),
    "public_alone": Fault("knows no GET_PARAMETER", edit_answer=_replaced("OPTIONS", "GET_PARAMETER, ", "")),
    # the description
    "hevc_by_name": Fault("names H265 HEVC", (27,), edit_sdp=_sdp("H265/90000", "HEVC/90000")),
    "lower_case_codec": Fault("names the codec in lower case", (27,), edit_sdp=_sdp("H264/90000", "h264/90000")),
    "says_h265": Fault("says H265 and sends H.264", (38,), edit_sdp=_sdp("H264/90000", "H265/90000")),
    "hevc_no_sprop": Fault("has no parameter sets in H.265's description", edit_sdp=_sdp("^a=fmtp.*\r\n", "")),
    "sprop_of_another": Fault(
        "has another stream's parameter sets in the description",
        edit_sdp=_sdp("sprop-parameter-sets=.*\r$", "sprop-parameter-sets=Z0IAH5WoFAFuQA==,aM48gA==\r"),
    ),
    "sprop_broken": Fault(
        "has broken parameter sets in the description",
        edit_sdp=_sdp("sprop-parameter-sets=.*\r$", "sprop-parameter-sets=Z0I,,=\r"),
    ),
    "zero_ended": Fault("ends the description with a zero", edit_sdp=lambda sdp: sdp + "\0"),
    "blank_first": Fault("begins the description with a blank line", edit_sdp=lambda sdp: "\r\n" + sdp),
    "framerates": Fault(
        "has several rates, the first unusable",
        (49,),
        edit_sdp=_sdp("^a=framerate:.*$", "a=framerate:none\na=framerate:0\na=framerate:10"),
    ),
    "rtpmap_of_other_type": Fault(
        "has an rtpmap of a payload type that it does not use", (58,), edit_sdp=_sdp("rtpmap:26", "rtpmap:96")
    ),
    "static_type_sent": Fault(
        "announces JPEG as type 96 and sends type 26",
        (58,),
        edit_sdp=_sdp("(AVP |rtpmap:)26", r"\g<1>96"),
    ),
    "minimal": Fault("describes as little as can be", edit_sdp=_without_fields),
    "control_missing": Fault(
        "has no control of the track", has_no_control=True, edit_sdp=_sdp("^a=control:track.*$", "a=x")
    ),
    "control_absolute": Fault("has an absolute control", edit_answer=_absolute_control("{authority}")),
    "control_other_host": Fault("has a control with a host that is none", edit_answer=_absolute_control("0.0.0.0")),
    "two_types": Fault("has two payload types in its line", edit_sdp=_sdp("RTP/AVP 96", "RTP/AVP 96 97")),
    "fmtp_odd": Fault("has blanks in its parameters", edit_sdp=_sdp(r"; ?([\w-]+)=", r" ;  \1 = ")),
    "mode_missing": Fault("does not tell the packetization mode", edit_sdp=_sdp("packetization-mode=1; ", "")),
    "trailing_blanks": Fault("has blanks at the ends of lines", edit_sdp=_sdp("\r$", "  \r")),
    "avpf": Fault("says RTP/AVPF", edit_sdp=_sdp("RTP/AVP ", "RTP/AVPF ")),
    "port_told": Fault("tells a port", edit_sdp=_sdp("m=video 0", "m=video 5004/2")),
    # packets
    "decoding_times": Fault("stamps B-frames in the order of decoding", (46,), edit_moments=_in_sending_order),
    "decoding_times_slow": Fault("stamps B-frames so, at 5 pictures a second", (46,), edit_moments=_in_sending_order),
    "decoding_times_open_gop": Fault(
        "stamps H.265's B-frames so, of open GOPs", (46,), edit_moments=_in_sending_order
    ),
    "decoding_times_hevc": Fault("stamps H.265's B-frames so", (46,), edit_moments=_in_sending_order),
    "srtp": Fault("encrypts its packets", (41,), edit_sdp=_encrypted, edit_wire=protected),
    "own_timestamps": Fault("has a timestamp for each fragment", (35,), edit_picture=_own_timestamps),
    "dead_session": Fault("sends packets of a dead session too", (36,), edit_picture=_with_dead_session),
    "annexb_fragments": Fault("has start codes in H.265 fragments", (43,), edit_picture=_annexb_in_fragments),
    "jpeg_offsets": Fault("counts headers in JPEG's offsets", (44,), edit_picture=_offsets_with_headers),
    "bad_bye": Fault("sends a malformed BYE of another source", (47,), rtcp=_BAD_BYE),
    "one_channel": Fault("sends RTCP where RTP is", rtcp=_APP, has_one_channel=True),
    "rtcp_app": Fault("sends RTCP that nobody knows", (47,), rtcp=_APP),
    "sequence_stands": Fault("has one sequence number for all packets", (50,), edit_picture=_sequences(0)),
    "sequence_by_two": Fault("counts its packets by two", (50,), edit_picture=_sequences(2)),
    "sequence_of_pictures": Fault("counts pictures in place of packets", (50,), edit_picture=_counts_pictures),
    "restarts": Fault("begins its numbers and SSRC anew, again and again", edit_picture=_restarted),
    "no_marker": Fault("marks no packet as the last", edit_picture=_markers(False)),
    "all_markers": Fault("marks each packet as the last", edit_picture=_markers(True)),
    "doubled": Fault("sends each packet twice", edit_picture=_doubled),
    "swapped": Fault("sends packets out of order", edit_picture=_swapped),
    "empty_packets": Fault("sends packets without payload", edit_picture=_with_empty),
    "metadata": Fault("sends metadata on the same channel", edit_picture=_with_other_type),
    "other_type": Fault("sends another payload type than it said", edit_picture=_of_type(97)),
    "aggregated": Fault("sends its parameter sets in one packet", edit_picture=_aggregated),
    "merged": Fault("sends a picture's NAL units as one", (43,), edit_picture=_merged),
    "start_codes": Fault("has start codes in H.264 packets", (43,), edit_picture=_with_start_codes),
    "trailing_zeros": Fault("has zeros after its slices", (51,), edit_picture=_with_zeros),
    "padded": Fault("pads its packets", edit_wire=_padded),
    "extended": Fault("has header extensions", edit_wire=_extended),
    "contributed": Fault("names contributing sources", edit_wire=_contributed),
    # pictures
    "trailing_bytes": Fault("has bytes after the last slice", (51,), edit_moments=_units(_trailing)),
    "filled": Fault("has filler data after each picture", edit_moments=_units(_filled)),
    "prefixed": Fault("has prefix NAL units", edit_moments=_units(_prefixed)),
    "delimited": Fault("has delimiters and notes between its pictures", edit_moments=_units(_delimited)),
    "sets_in_sdp_alone": Fault("has parameter sets in the description alone", edit_moments=_units(_without_sets)),
}
