"""The one table of encodings: RTP's name, libav's decoder, and what makes pictures of the payloads. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from .codec_choice import CodecChoice
from .coded import Assembler
from .h263 import H263
from .jpeg import JPEG
from .mpeg2 import MPEG2
from .mpeg4 import MPEG4
from .vp8 import VP8
from .vp9 import VP9


@dataclass(frozen=True, slots=True)
class Encoding:
    codec: str
    """libav's name of the decoder."""
    assembler: Callable[[Mapping[str, str]], Assembler | CodecChoice]
    """Takes the track's `fmtp`. H.264 and H.265 are told apart by the packets: then `codec` may be the other one."""


# Names as registered with IANA (RTP payload format media types).
ENCODINGS: Mapping[str, Encoding] = {
    "H264": Encoding("h264", partial(CodecChoice, is_h265=False)),
    "H265": Encoding("hevc", partial(CodecChoice, is_h265=True)),
    "MP4V-ES": Encoding("mpeg4", MPEG4),
    "JPEG": Encoding("mjpeg", JPEG),
    "H263-1998": Encoding("h263", H263),
    "H263-2000": Encoding("h263", H263),
    "VP8": Encoding("vp8", VP8),
    "VP9": Encoding("vp9", VP9),
    "MPV": Encoding("mpeg2video", MPEG2),
}
# Names that servers send in their place, with or without "X-" before them: FIELD.md row 27.
_ALIASES = {"HEVC": "H265", "H.265": "H265", "AVC": "H264", "H.264": "H264", "MP4V": "MP4V-ES", "MJPEG": "JPEG"}


def registered_name(name: str) -> str:
    """The table's name of an encoding, in upper case; a name that the table does not have comes back as it is."""
    upper = name.upper()
    plain = upper.removeprefix("X-")
    known = _ALIASES.get(plain, plain)
    return known if known in ENCODINGS else upper
