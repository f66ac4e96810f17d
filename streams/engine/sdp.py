"""A session description, as cameras write it, to the video tracks in it. Pure.

What cameras get wrong, and is read all the same: lines that RFC 4566 requires are missing (retina #33 #52,
go2rtc #679) or stand in the wrong section (go2rtc's TestBugSDP1 and 2), `a=fmtp:96` and `m=... (null)` with
nothing to say (retina #70, rtsp-client-android #90), text that is not UTF-8.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urljoin

from .encodings import ENCODINGS, registered_name

VIDEO_CLOCK_RATE_HZ = 90_000  # RFC 3551 section 5: of all static video types, and of every codec here
_STATIC_ENCODINGS = {25: "CELB", 26: "JPEG", 28: "NV", 31: "H261", 32: "MPV", 33: "MP2T", 34: "H263"}  # RFC 3551
# A dynamic type without rtpmap is told by what its fmtp speaks of: RFC 7798, 6184 and 6416.
_TELLING = (("sprop-vps", "H265"), ("sprop-parameter-sets", "H264"), ("config", "MP4V-ES"))
_MAX_PAYLOAD_TYPE = 127
# Cameras have up to five tracks, with a dozen lines each: what is beyond is left out. For each track all are read.
_MAX_TRACKS = 16
_MAX_ATTRIBUTES = 64
_MAX_TYPES = 16
_MAX_CLOCK_RATE_HZ = 10_000_000
_MAX_FRAME_RATE_FPS = 1000.0

_RTPMAP = re.compile(r"\s*(\d{1,3})\s+([^\s/]+)\s*(?:/\s*(\d{1,9}))?")
_FMTP = re.compile(r"\s*(\d{1,3})\s+(.*)")
_MEDIA = ("video", "audio", "application", "text")
_ABSOLUTE = re.compile(r"rtsps?://", re.IGNORECASE)
_PATH = re.compile(r"://[^/?#]*(/[^?#]+)")
_OTHER_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]]+)(:\d{1,5})?(?=[/?#]|$)")
_IP = re.compile(r"\[.*\]|\d{1,3}(?:\.\d{1,3}){3}")
_UNSAFE = re.compile(r"[^\x21\x23-\x7e]")  # a quote would end the uri="..." of a Digest


@dataclass(frozen=True, slots=True)
class Track:
    """One video track. `control` is the absolute URL to SETUP; like any camera URL it may hold a secret."""

    encoding: str
    """A name of `encodings.ENCODINGS` or another one, in upper case; empty where nothing tells."""
    payload_type: int
    clock_rate: int
    """Hz."""
    control: str = field(repr=False)
    fmtp: Mapping[str, str]
    """Names in lower case, values as sent."""
    frame_rate_fps: float | None
    is_encrypted: bool = False
    """By SRTP (RFC 3711): its profile or a=crypto says so."""


@dataclass(slots=True)
class _Section:
    """One m= line, or what stands before the first, with its attributes in order."""

    media: str = ""
    profile: str = ""
    """Upper case: "RTP/AVP"."""
    payload_types: list[int] = field(default_factory=list)
    attributes: list[tuple[str, str]] = field(default_factory=list)

    def value(self, name: str) -> str:
        """Of the first such attribute that has one."""
        return next(filter(None, self.values(name)), "")

    def values(self, *names: str) -> list[str]:
        return [value for name, value in self.attributes if name in names]


def parse(text: bytes, base_url: str) -> tuple[Track, ...]:
    """The video tracks, in order, for SETUP against `base_url`; () where there is none. Never raises.

    A track marked sendonly is a backchannel as ONVIF has it, for us to send on, unless no other track is
    video: some cameras mean themselves (go2rtc #771). An inactive one is likewise the last choice.
    """
    general, *sections = _sections(text)
    base_url = _base(general, base_url)
    video = [section for section in sections if section.media == "video"]
    for_us = [section for section in video if not {"sendonly", "inactive"} & {name for name, _ in section.attributes}]
    return tuple(_track(section, [general, *sections], base_url) for section in for_us or video)


def controls(text: bytes, base_url: str) -> tuple[str, ...]:
    """The URLs to SETUP of all tracks that are for us, each once and in order: what libav sets up. Never raises.

    Some cameras send nothing until all of them are set up (retina PR #85, RTSP-Server #29).
    """
    general, *sections = _sections(text)
    base_url = _base(general, base_url)
    for_us = (each for each in sections if each.media in _MEDIA and ("sendonly", "") not in each.attributes)
    return tuple(dict.fromkeys(join(base_url, each.value("control")) for each in for_us))


def aggregate_control(text: bytes, base_url: str) -> str:
    """The URL to PLAY and TEARDOWN: RFC 2326 C.1.1."""
    general = _sections(text)[0]
    return join(_base(general, base_url), general.value("control"))


def join(base_url: str, control: str) -> str:
    """A control value made absolute. Appended, not resolved as RFC 3986 says: a base often has a query or no
    slash at its end, and servers want the track after all of it (so do libav, GStreamer and gortsplib). Only what
    begins with the path of the base is an absolute path.
    """
    control = control.strip()
    if not control or control == "*":
        return base_url
    if _ABSOLUTE.match(control):
        return plain_url(control)
    control = _UNSAFE.sub(_quoted, control)
    path = _PATH.search(base_url.removesuffix("/"))
    if path and control.startswith(f"{path[1]}/"):  # the path of the base once more, and more
        return base_url[: path.start(1)] + control
    if control.startswith("?"):
        return base_url + control
    return f"{base_url.removesuffix('/')}/{control.removeprefix('/')}"


def resolve(base_url: str, reference: str) -> str:
    """A URL that a header names, made absolute as RFC 3986 section 5 says; empty where it is none.

    A host without a scheme is one if it has a port, is an IP address, or is the base's own host: cameras write
    `10.0.0.7/live/` and `10.0.0.7:554` (go2rtc #1852, retina's anjvision, gortsplib).
    """
    reference = reference.strip()
    if _ABSOLUTE.match(reference):
        return plain_url(reference)
    if not reference or _OTHER_SCHEME.match(reference):
        return ""
    scheme, _, rest = base_url.partition("://")
    own, found = _HOST_AND_PORT.match(rest), _HOST_AND_PORT.match(reference)
    if found and own and found[1] == own[1]:
        reference = f"//{own[0] if not found[2] else found[0]}{reference[found.end() :]}"
    elif found and (found[2] or _IP.fullmatch(found[1])):
        reference = f"//{reference}"
    # urllib resolves by the schemes that it knows, and not all of its versions know rtsps.
    try:
        joined = urljoin(f"http://{rest}", _UNSAFE.sub(_quoted, reference))
    except ValueError:  # a bracket that nothing closes
        return ""
    return plain_url(f"{scheme}://{joined.removeprefix('http://')}")


def plain_url(text: str) -> str:
    """An RTSP URL as a request may hold it, empty where the text is none: no credentials, no white space.

    Some cameras name the scheme twice: `rtsp://rtsp://camera/` (go2rtc #208).
    """
    found = _ABSOLUTE.match(text.strip())
    if not found:
        return ""
    rest = text.strip()[found.end() :]
    if _ABSOLUTE.match(rest):
        return plain_url(rest)
    authority, slash, path = rest.partition("/")
    return _UNSAFE.sub(_quoted, found[0].lower() + authority.rpartition("@")[2] + slash + path)


def _base(general: _Section, base_url: str) -> str:
    """An absolute session-level control is the base of its tracks, as libav and GStreamer have it."""
    control = general.value("control")
    return join(base_url, control) if _ABSOLUTE.match(control) else base_url


def _quoted(match: re.Match[str]) -> str:
    """A description is read as Latin-1: each character is the byte that was sent."""
    return "".join(f"%{byte:02X}" for byte in match[0].encode("latin-1", "replace"))


def _sections(text: bytes) -> list[_Section]:
    """The first holds what stands before any m= line."""
    sections = [_Section()]
    for line in re.split(r"[\r\n]+", text.decode("latin-1")):
        kind, _, value = line.replace("\0", "").strip().partition("=")
        kind = kind.strip().lower()
        if kind == "m":
            if len(sections) > _MAX_TRACKS:
                break
            sections.append(_media(value))
        elif kind == "a" and len(sections[-1].attributes) < _MAX_ATTRIBUTES:
            name, _, rest = value.partition(":")
            sections[-1].attributes.append((name.strip().lower(), rest.strip()))
    return sections


def _media(value: str) -> _Section:
    """`video 0 RTP/AVP 96 97`; what is no number is left out."""
    words = value.split()
    types = [_whole(word) for word in words[3 : 3 + _MAX_TYPES]]
    return _Section(
        media=(words or [""])[0].lower(),
        profile="".join(words[2:3]).upper(),
        payload_types=[each for each in types if 0 <= each <= _MAX_PAYLOAD_TYPE],
    )


def _track(section: _Section, sections: list[_Section], base_url: str) -> Track:
    rtpmaps = _rtpmaps(section)
    types = section.payload_types or list(rtpmaps) or [0]
    formats = {each: _fmtp(each, section, sections) for each in types}
    if len(rtpmaps) == 1 and not rtpmaps.keys() & set(types):  # speaks of another type than the m= line
        [(other, rtpmap)] = rtpmaps.items()
        rtpmaps = {types[0]: rtpmap}
        formats[types[0]] = formats[types[0]] or _fmtp(other, section, sections)
    encodings = {
        each: registered_name(rtpmaps[each][0] if each in rtpmaps else _guess(each, formats[each])) for each in types
    }
    # A static type that stands beside one with an rtpmap is mostly a leftover: packets come with the other one.
    known = [each for each in types if encodings[each] in ENCODINGS]
    chosen = next((each for each in known if each in rtpmaps), (known or types)[0])
    return Track(
        encoding=encodings[chosen],
        payload_type=chosen,
        clock_rate=rtpmaps[chosen][1] if chosen in rtpmaps else VIDEO_CLOCK_RATE_HZ,
        control=join(base_url, section.value("control")),
        fmtp=_sizes(section) | formats[chosen],
        frame_rate_fps=next(filter(None, map(_frame_rate_fps, section.values("framerate", "x-framerate"))), None),
        is_encrypted="SAVP" in section.profile or bool(section.value("crypto") or sections[0].value("crypto")),
    )


def _rtpmaps(section: _Section) -> dict[int, tuple[str, int]]:
    """Encoding and clock rate in Hz of each payload type."""
    found: dict[int, tuple[str, int]] = {}
    for value in section.values("rtpmap"):
        if match := _RTPMAP.match(value):
            rate_hz = _whole(match[3] or "")
            is_rate = 0 < rate_hz <= _MAX_CLOCK_RATE_HZ
            found.setdefault(int(match[1]), (match[2].upper(), rate_hz if is_rate else VIDEO_CLOCK_RATE_HZ))
    return found


def _fmtp(payload_type: int, section: _Section, sections: Iterable[_Section]) -> dict[str, str]:
    """Some cameras put it below the wrong m= line (AlexxIT/WebRTC #419)."""
    for each in (section, *sections):
        for value in each.values("fmtp"):
            match = _FMTP.match(value)
            if match and int(match[1]) == payload_type:
                pairs = (part.partition("=") for part in match[2].split(";"))
                return {name.strip().lower(): value.strip() for name, _, value in pairs if name.strip()}
    return {}


def _sizes(section: _Section) -> dict[str, str]:
    """JPEG alone says no size above 2040 px itself; cameras tell it in one of these attributes."""
    names = ("x-dimensions", "framesize", "cliprect")
    return {name: value for name in names if (value := section.value(name))}


def _guess(payload_type: int, fmtp: Mapping[str, str]) -> str:
    told = next((encoding for name, encoding in _TELLING if name in fmtp), "")
    return _STATIC_ENCODINGS.get(payload_type, told)


def _frame_rate_fps(text: str) -> float | None:
    try:
        rate_fps = float(text.replace(",", "."))
    except ValueError:
        return None
    return rate_fps if math.isfinite(rate_fps) and 0 < rate_fps <= _MAX_FRAME_RATE_FPS else None


def _whole(text: str) -> int:
    """-1 where it is none; `int` alone would take "+1" and letters that are digits elsewhere."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
