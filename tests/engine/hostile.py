"""What a camera under an attacker's control sends: pictures that are bombs, streams and answers without an end."""

import itertools
import random
import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from streams.engine.sizes import Bits, bits_of, skip_to_h264_size
from tests.camera import rtp
from tests.camera.clip import AccessUnit, Clip, Scene, encode, split_nals
from tests.camera.sdp import describe

from .odd_camera import OddCamera, Request, Say, answer, framed

SCENE = Scene(320, 240, (40, 200, 90, 120), fps=25, gop_s=0.4)
BLOCK_BYTES = 1 << 18
_START = b"\0\0\0\1"

Feed = Callable[[], Iterable[bytes]]
"""What is sent once PLAY is answered."""


def repeated(data: bytes) -> Iterator[bytes]:
    """For ever, many at a time."""
    block = data * (BLOCK_BYTES // len(data) + 1)
    while True:
        yield block


def camera(clip: Clip, feed: Feed, **on: Say) -> OddCamera:
    """Describes the clip as it is, and plays what it likes."""

    def described(request: Request) -> bytes:
        return answer(request, body=describe(clip, ("video",)).encode(), Content_Type="application/sdp")

    def played(request: Request) -> Iterator[bytes]:
        yield answer(request, Session="5E55")
        yield from feed()

    own: dict[str, Say] = {"DESCRIBE": described, "PLAY": played}
    return OddCamera(on=own | on)


def sent(units: Iterable[AccessUnit], clip: Clip, ticks: int = 0, sequence: int = 0) -> bytes:
    """Pictures as they stand in the RTSP connection; timestamp and number of the first."""
    codec, out = clip.scene.codec, []
    for index, unit in enumerate(units):
        parts = rtp.payloads(codec, unit)
        for number, part in enumerate(parts, 1):
            packet = rtp.Packet(sequence, ticks + index * 3600, number == len(parts), part)
            out.append(framed(0, packet.pack(rtp.payload_type(codec), 0x5EED)))
            sequence += 1
    return b"".join(out)


def of_size(clip: Clip, width: int, height: int) -> Clip:
    """The same pictures, said to be larger."""
    resize = _RESIZERS[clip.scene.codec]

    def resized(data: bytes) -> bytes:
        if clip.scene.codec in ("mpeg4", "mjpeg"):
            return resize(data, width, height)
        return b"".join(_START + resize(unit, width, height) for unit in split_nals(data))

    units = tuple(replace(unit, data=resized(unit.data)) for unit in clip.units)
    return replace(
        clip, units=units, parameter_sets=tuple(resize(unit, width, height) for unit in clip.parameter_sets)
    )


def golombs(*numbers: int) -> str:
    codes = (f"{number + 1:b}" for number in numbers)
    return "".join("0" * (len(code) - 1) + code for code in codes)


def _packed(text: str) -> bytes:
    """Bits behind which nothing counts, as the end of a unit."""
    text = text.rstrip("0")
    text += "0" * (-len(text) % 8)
    return re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\0\0\3", int(text, 2).to_bytes(len(text) // 8))


def _h264(unit: bytes, width: int, height: int) -> bytes:
    if unit[0] & 31 != 7:
        return unit
    bits = bits_of(unit, at=1)
    skip_to_h264_size(bits)
    begin = bits.at
    bits.skip(2)
    return _packed(bits.text[:begin] + golombs(width // 16 - 1, height // 16 - 1) + bits.text[bits.at :])


def _hevc(unit: bytes, width: int, height: int) -> bytes:
    if unit[0] >> 1 & 63 != 33:
        return unit
    bits = bits_of(unit, at=2)
    bits.take(4 + 3 + 1 + 96)
    bits.skip(2)  # id, chroma format
    begin = bits.at
    bits.skip(2)
    return _packed(bits.text[:begin] + golombs(width, height) + bits.text[bits.at :])


def _mpeg4(data: bytes, width: int, height: int) -> bytes:
    """libavcodec's own layer header: the size lies behind marker, 16 bits of ticks and what follows them."""
    at = data.find(b"\0\0\1\x20")
    if at < 0:
        return data
    bits = Bits("".join(f"{byte:08b}" for byte in data), at=8 * (at + 4))
    bits.take(1 + 8)
    if bits.take(1):
        bits.take(4 + 3)
    if bits.take(4) == 15:
        bits.take(16)
    if bits.take(1):
        assert bits.take(4) & 1 == 0
    assert bits.take(2) == 0
    bits.take(1)
    ticks = bits.take(16)
    bits.take(1)
    if bits.take(1):
        bits.take(max(1, (ticks - 1).bit_length()))
    bits.take(1)
    text = bits.text[: bits.at] + f"{width:013b}1{height:013b}" + bits.text[bits.at + 27 :]
    return int(text, 2).to_bytes(len(data))


def _mjpeg(data: bytes, width: int, height: int) -> bytes:
    """Of RFC 2435's header only the size in blocks is left: the description has the rest."""
    return data


_RESIZERS: dict[str, Callable[[bytes, int, int], bytes]] = {
    "h264": _h264,
    "hevc": _hevc,
    "mpeg4": _mpeg4,
    "mjpeg": _mjpeg,
}


# --- streams without an end or without sense ---


def packets(payload: bytes, *, is_marked: bool = False, ticks: int = 0) -> Iterator[bytes]:
    """The same payload in order, for ever, all of one picture."""
    second = 96 | (0x80 if is_marked else 0)
    for begin in itertools.count(0, 256):
        yield b"".join(
            framed(0, struct.pack(">BBHII", 0x80, second, (begin + n) & 0xFFFF, ticks, 1) + payload)
            for n in range(256)
        )


def played(clip: Clip) -> Iterator[bytes]:
    """As it should be, but twice as fast."""
    return _paced((clip, unit, index * 3600) for index, unit in enumerate(itertools.cycle(clip.units)))


def one_after_the_other(*clips: Clip) -> Iterator[bytes]:
    """Each once, in one connection."""
    units = ((clip, unit) for clip in clips for unit in clip.units)
    return _paced((clip, unit, index * 3600) for index, (clip, unit) in enumerate(units))


def hurled(clip: Clip) -> Iterator[bytes]:
    """As fast as it is taken."""
    sequence = 0
    for index, unit in enumerate(itertools.cycle(clip.units)):
        yield sent([unit], clip, index * 90, sequence)
        sequence += len(rtp.payloads(clip.scene.codec, unit))


def changing_sizes() -> Iterator[bytes]:
    """Another size with each picture, all of them key frames."""
    sizes = [(160, 120), (640, 480), (320, 240), (960, 720)]
    clips = [encode(replace(SCENE, width=width, height=height, plan=(120,))) for width, height in sizes]
    return _paced((clip, clip.units[0], index * 3600) for index, clip in enumerate(itertools.cycle(clips)))


def odd_times(seed: int = 6) -> Iterator[bytes]:
    """Whole pictures with timestamps of any kind."""
    chance, clip = random.Random(seed), encode(SCENE)

    def ticks(index: int) -> int:
        odd = [0, index * 3600, chance.randrange(1 << 32), (1 << 32) - 1, -index * 3600 & 0xFFFFFFFF]
        return chance.choice(odd)

    return _paced((clip, unit, ticks(index)) for index, unit in enumerate(itertools.cycle(clip.units)))


def _paced(pictures: Iterable[tuple[Clip, AccessUnit, int]]) -> Iterator[bytes]:
    """Some fifty a second, their packets numbered in order."""
    sequence = 0
    for clip, unit, ticks in pictures:
        data = sent([unit], clip, ticks, sequence)
        sequence += len(rtp.payloads(clip.scene.codec, unit))
        yield data
        time.sleep(0.02)


def with_scaling_lists(clip: Clip) -> Clip:
    """H.264 of the High profile with fields that only a decoder reads over: flat lists, as the default has them."""

    def listed(unit: bytes) -> bytes:
        if unit[0] & 31 != 7:
            return unit
        bits = bits_of(unit, at=1)
        bits.take(24)
        bits.golomb()
        rest = bits.text[bits.at :]
        # 4:2:0, 8 bits twice, no bypass, and lists of which none is there
        return _packed(f"{unit[0]:08b}{100:08b}{0:08b}{unit[3]:08b}" + golombs(0, 1, 0, 0) + "01" + "0" * 8 + rest)

    units = tuple(
        replace(unit, data=b"".join(_START + listed(nal) for nal in split_nals(unit.data))) for unit in clip.units
    )
    return replace(clip, units=units, parameter_sets=tuple(map(listed, clip.parameter_sets)))


def onvif_bomb() -> Iterator[bytes]:
    """RTP-JPEG tells 2040 px at most; ONVIF's header extension tells any size."""
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 65_500, 65_500, 3) + bytes.fromhex("012200021101031101")
    frame += bytes(-len(frame) % 4)
    extension = struct.pack(">HH", 0xFFD8, len(frame) // 4) + frame
    jpeg = struct.pack(">IBBBB", 0, 1, 90, 65_500 // 8 + 1 & 0xFF, 65_500 // 8 + 1 & 0xFF) + bytes(1000)
    for number in itertools.count():
        header = struct.pack(">BBHII", 0x90, 26 | 0x80, number & 0xFFFF, number * 3600, 1)
        yield framed(0, header + extension + jpeg)
        time.sleep(0.02)
