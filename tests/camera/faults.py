"""What a camera can do wrong: a table. A new fault is one entry; FIELD.md's rows say who met it.

`FAULTS["stall_after"]` has an amount, which `parse_fault("stall_after:3")` sets.
"""

import enum
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from tests.camera.clip import TICKS_PER_S, Scene
from tests.camera.message import Exchange
from tests.camera.rtp import Packet
from tests.camera.sdp import Media
from tests.camera.timeline import Moment

Moments = Iterator[Moment]


class Door(enum.Enum):
    """What happens to whoever connects."""

    RTSP = enum.auto()
    REFUSES = enum.auto()
    SILENT = enum.auto()
    HTTP = enum.auto()


class End(enum.Enum):
    """What happens when there is nothing more to send."""

    BYE = enum.auto()  # RTCP BYE, and the connection stays
    STALL = enum.auto()
    CLOSE = enum.auto()
    RESET = enum.auto()


def _all(moments: Moments, amount: float) -> Moments:
    return moments


def _same_packet(packet: Packet, amount: float) -> Packet | None:
    return packet


def _same_sdp(sdp: str) -> str:
    return sdp


def _same_picture(packets: list[Packet]) -> Iterable[Packet]:
    return packets


def _same_bytes(data: bytes) -> bytes:
    return data


def _none_refused(exchange: Exchange) -> int | None:
    return None


def _same_answer(exchange: Exchange, said: bytes) -> bytes | None:
    return said


@dataclass(frozen=True, slots=True)
class Fault:
    """`does` is one line in which {amount} and {location} are filled in; `rows` are FIELD.md's.

    Times count from PLAY, or from the moment at which a running camera was given the fault.
    """

    does: str
    rows: tuple[int, ...] = ()
    amount: float = 0.0
    door: Door = Door.RTSP
    refused_method: str = ""
    refusal_status: int | None = None  # None: the amount; a status of 0 is no answer at all
    refused_transport: Literal["tcp", "udp", ""] = ""
    silent_transport: Literal["tcp", "udp", ""] = ""  # is agreed to, and nothing comes
    location: str = ""  # of a redirect
    refuses: Callable[[Exchange], int | None] = _none_refused  # the status; None: not by this; 0: no answer at all
    edit_answer: Callable[[Exchange, bytes], bytes | None] = _same_answer  # None: it is not sent
    paths: tuple[str, ...] = ()  # served beside the camera's own
    answers_late: bool = False  # each answer by the amount, in seconds
    late_s: Mapping[str, float] = field(default_factory=dict)  # answers to these methods
    has_session_timeout: bool = False  # the amount, in seconds; announced and kept
    media: tuple[Media, ...] = ("video",)
    has_sound: bool = False  # an announced audio track is also sent
    edit_sdp: Callable[[str], str] = _same_sdp
    has_rtp_info: bool = True
    has_no_control: bool = False  # the only track has the address of the whole
    next_scene: Callable[[Scene], Scene] | None = None  # from the key frame at or after second {amount}
    edit_moments: Callable[[Moments, float], Moments] = _all
    edit_packet: Callable[[Packet, float], Packet | None] = _same_packet
    edit_picture: Callable[[list[Packet]], Iterable[Packet]] = _same_picture  # all packets of one, undamaged
    edit_wire: Callable[[bytes], bytes] = _same_bytes  # an RTP packet with its header
    rtcp: bytes = b""  # sent before each picture
    has_one_channel: bool = False  # RTCP comes where RTP does (RFC 5761)
    needs_all_tracks: bool = False  # sends nothing until all are set up
    needs_report_within_s: float = 0.0  # sends nothing more after so long without a receiver report
    channel_offset: int = 0  # between the interleaved channels that were asked for and those that are used
    udp_host: str = ""  # where datagrams come from
    closes_rtsp_after_s: float = 0.0  # datagrams go on after it; 0: never
    end: End = End.BYE

    def __str__(self) -> str:
        return self.does.format(amount=f"{self.amount:g}", location=self.location)

    def status(self, exchange: Exchange) -> int | None:
        if exchange.request.method != self.refused_method:
            return self.refuses(exchange)
        return int(self.amount) if self.refusal_status is None else self.refusal_status


def parse_fault(text: str) -> Fault:
    """ "name" or "name:amount" ("redirect:rtsp://..."). Raises ValueError with the names that there are."""
    name, _, argument = text.partition(":")
    if name not in FAULTS:
        raise ValueError(f"no fault {name!r}; there are {', '.join(FAULTS)}")
    fault = FAULTS[name]
    if not argument:
        return fault
    return replace(fault, location=argument) if fault.location else replace(fault, amount=float(argument))


def _none(moments: Moments, amount: float) -> Moments:
    return iter(())


def _until(moments: Moments, amount: float) -> Moments:
    began_s = None
    for moment in moments:
        began_s = moment.at_s if began_s is None else began_s
        if moment.at_s - began_s >= amount - 1e-6:
            return
        yield moment


def _without_start(moments: Moments, amount: float) -> Moments:
    """What is left out has been sent to nobody: the rest comes at once, not after a pause."""
    first = next(moments)
    for moment in moments:
        if moment.at_s - first.at_s >= amount - 1e-6:
            yield replace(moment, at_s=moment.at_s - amount)


def _frozen(scene: Scene) -> Scene:
    return replace(scene, plan=scene.plan[:1], has_motion=False, noise=0.0, gop_s=1.0)


def _half_size(scene: Scene) -> Scene:
    return replace(scene, width=scene.width // 4 * 2, height=scene.height // 4 * 2)


def _one_key_frame(scene: Scene) -> Scene:
    return replace(scene, gop_s=float(len(scene.plan)))


def _intra_refresh(scene: Scene) -> Scene:
    return replace(scene, intra_refresh=True)


def _same_ticks(moments: Moments, amount: float) -> Moments:
    """The timestamp of the first moment `amount` s after the start is also that of all later ones."""
    began_s, stuck_ticks = None, None
    for moment in moments:
        began_s = moment.at_s if began_s is None else began_s
        if moment.at_s - began_s < amount - 1e-6:
            yield moment
            continue
        stuck_ticks = moment.ticks if stuck_ticks is None else stuck_ticks
        yield replace(moment, ticks=stuck_ticks)


def _jumping_ticks(moments: Moments, amount: float) -> Moments:
    """At the second second, and never again: a camera that set its clock."""
    first = next(moments)
    for moment in itertools.chain([first], moments):
        jump_s = amount if moment.at_s - first.at_s >= 1 - 1e-6 else 0.0
        yield replace(moment, ticks=moment.ticks + round(jump_s * TICKS_PER_S))


def _scaled_ticks(moments: Moments, amount: float) -> Moments:
    first = next(moments)
    for moment in itertools.chain([first], moments):
        yield replace(moment, ticks=first.ticks + round((moment.ticks - first.ticks) * amount))


def _bursts(moments: Moments, amount: float) -> Moments:
    first = next(moments)
    for moment in itertools.chain([first], moments):
        due_s = math.ceil((moment.at_s - first.at_s + 1e-6) / amount) * amount
        yield replace(moment, at_s=first.at_s + due_s)


def _rushed(moments: Moments, amount: float) -> Moments:
    first = next(moments)
    for moment in itertools.chain([first], moments):
        yield replace(moment, at_s=first.at_s + (moment.at_s - first.at_s) / amount)


def _without_every(packet: Packet, amount: float) -> Packet | None:
    return None if packet.sequence % int(amount) == int(amount) - 1 else packet


def _damaged_every(packet: Packet, amount: float) -> Packet | None:
    """Past the NAL unit's header one byte in eight has all its bits turned around."""
    if packet.sequence % int(amount) != int(amount) - 1:
        return packet
    payload = bytearray(packet.payload)
    for place in range(4, len(payload), 8):
        payload[place] ^= 0xFF
    return replace(packet, payload=bytes(payload))


def _without_sprop(sdp: str) -> str:
    """Also without the profile: all that is left is "a=fmtp:96 packetization-mode=1"."""
    return "".join(line.split("; profile-level-id")[0].rstrip() + "\r\n" for line in sdp.splitlines())


def _with_bare_newlines(sdp: str) -> str:
    return sdp.replace("\r\n", "\n")


def _with_junk(sdp: str) -> str:
    """Lines that RFC 4566 does not know or orders elsewhere, empty ones, letters beyond ASCII, no v=0."""
    junk = [
        "",
        "garbage",
        "x",
        "=",
        "a=",
        "a=fmtp:",
        "a=rtpmap:97",
        "b=AS:",
        "a=x-dimensions:",
        "i=K\u00fcche",
    ]
    lines = [line for line in sdp.splitlines() if line != "v=0"]
    return "\r\n".join([*lines[:1], *junk, *lines[1:], *junk]) + "\r\n"


def _sloppy(sdp: str) -> str:
    return _with_bare_newlines(_with_junk(_without_sprop(sdp)))


def _with_unknown_codec(sdp: str) -> str:
    return sdp.replace(" H264/90000", " X-VENDOR/90000").replace(" H265/90000", " X-VENDOR/90000")


NO_FAULT = Fault("plays as it should")

FAULTS: dict[str, Fault] = {
    # who is let in, and to what
    "auth_refused": Fault(
        "answers 401 to every DESCRIBE, whatever the credentials",
        (1,),
        refused_method="DESCRIBE",
        refusal_status=401,
    ),
    "forbidden": Fault("answers 403 to DESCRIBE", (1,), refused_method="DESCRIBE", refusal_status=403),
    "not_found": Fault("answers 404 to DESCRIBE", refused_method="DESCRIBE", refusal_status=404),
    "full": Fault("answers 453 to SETUP", (12,), refused_method="SETUP", refusal_status=453),
    "unavailable": Fault("answers 503 to DESCRIBE", (12,), refused_method="DESCRIBE", refusal_status=503),
    "describe_status": Fault("answers {amount} to DESCRIBE (0: nothing)", (12,), 500.0, refused_method="DESCRIBE"),
    "setup_status": Fault("answers {amount} to SETUP (0: nothing)", (12,), 500.0, refused_method="SETUP"),
    "play_status": Fault("answers {amount} to PLAY (0: nothing)", (12,), 453.0, refused_method="PLAY"),
    "no_tcp": Fault("answers 461 to a SETUP that asks for TCP", (9,), refused_transport="tcp"),
    "no_udp": Fault("answers 461 to a SETUP that asks for UDP", (9,), refused_transport="udp"),
    "redirect": Fault(
        "answers 302 to DESCRIBE, with {location}",
        (25,),
        refused_method="DESCRIBE",
        refusal_status=302,
        location="rtsp://127.0.0.2:9/elsewhere",
    ),
    # the connection
    "refuses": Fault("has its port closed", (4,), door=Door.REFUSES),
    "silent": Fault("accepts and says nothing", (5,), door=Door.SILENT),
    "not_rtsp": Fault("speaks HTTP", (5,), door=Door.HTTP),
    "slow_answers": Fault("thinks {amount} s about each answer", (5,), 2.0, answers_late=True),
    "silent_play": Fault("answers PLAY and sends nothing", (5,), edit_moments=_none, end=End.STALL),
    "stall_after": Fault("sends nothing more after {amount} s", (6,), 2.0, edit_moments=_until, end=End.STALL),
    "close_after": Fault("closes the connection after {amount} s", (4,), 2.0, edit_moments=_until, end=End.CLOSE),
    "reset_after": Fault("resets the connection after {amount} s", (4,), 2.0, edit_moments=_until, end=End.RESET),
    "bye_after": Fault("says RTCP BYE after {amount} s", (4,), 2.0, edit_moments=_until, end=End.BYE),
    "session_timeout": Fault(
        "ends a session in which {amount} s pass without a request, as announced",
        (14,),
        2.0,
        has_session_timeout=True,
    ),
    # the description
    "audio_only": Fault("has sound and no picture", (15,), media=("audio",), has_sound=True),
    "audio_too": Fault("has sound, announced first, and picture", (15,), media=("audio", "video"), has_sound=True),
    "audio_never_sent": Fault("announces sound first and never sends it", (15,), media=("audio", "video")),
    "no_media": Fault("describes neither sound nor picture", (15,), media=()),
    "unknown_codec": Fault("names a codec that nobody knows", (16,), edit_sdp=_with_unknown_codec),
    "no_sprop": Fault("has no parameter sets in the description", (20,), edit_sdp=_without_sprop),
    "bare_newlines": Fault("ends the lines of the description with \\n", (20,), edit_sdp=_with_bare_newlines),
    "junk_lines": Fault("has junk in the description", (20,), edit_sdp=_with_junk),
    "sloppy": Fault(
        "no_sprop, bare_newlines and junk_lines, and no RTP-Info", (20,), edit_sdp=_sloppy, has_rtp_info=False
    ),
    # the picture
    "mid_gop": Fault("starts {amount} s after a key frame", (10,), 0.4, edit_moments=_without_start),
    "lost_packets": Fault("loses every {amount}th RTP packet", (8,), 10.0, edit_packet=_without_every),
    "damaged": Fault("damages every {amount}th RTP packet", (8, 10, 16), 10.0, edit_packet=_damaged_every),
    "frozen": Fault("shows one and the same picture from second {amount} on", (7,), next_scene=_frozen),
    "smaller": Fault("has half the width and height from second {amount} on", (19,), 2.0, next_scene=_half_size),
    "one_key_frame": Fault("has no key frame but the clip's first", (17, 18), next_scene=_one_key_frame),
    "intra_refresh": Fault(
        "refreshes its picture a column at a time; no key frames", (18,), next_scene=_intra_refresh
    ),
    # time
    "no_timestamps": Fault("gives every packet the same timestamp", (21,), edit_moments=_same_ticks),
    "stuck_timestamps": Fault(
        "has timestamps that stand still from second {amount} on", (21,), 1.0, edit_moments=_same_ticks
    ),
    "jumping_timestamps": Fault(
        "has timestamps that jump by {amount} s in second 1", (21,), 3600.0, edit_moments=_jumping_ticks
    ),
    "backward_timestamps": Fault(
        "has timestamps that jump by {amount} s in second 1", (21,), -10.0, edit_moments=_jumping_ticks
    ),
    "fast_timestamps": Fault(
        "has timestamps that run {amount} times as fast", (21,), 4.0, edit_moments=_scaled_ticks
    ),
    "slow_timestamps": Fault(
        "has timestamps that run {amount} times as fast", (21,), 0.25, edit_moments=_scaled_ticks
    ),
    "bursts": Fault("sends {amount} s of video at a time", (22,), 2.0, edit_moments=_bursts),
    "rush": Fault("sends {amount} times as fast as it claims to", (22,), 4.0, edit_moments=_rushed),
}
