"""VP8, VP9, H.263 and MPEG-2 over RTP: what relays and old cameras send, by GStreamer's payloaders and by hand."""

import functools
import subprocess
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from streams.engine import errors, sizes
from streams.engine.decoder import LibavDecoder
from streams.engine.encodings import ENCODINGS
from streams.engine.rtp import CodedPicture
from tests.camera.gst import gst_python
from tests.engine.rtp_film import TICKS, a_packet, a_reader, push_all, read
from tests.engine.test_rtp_gst import PROGRAM, packets_in

FRAMES, KEY_EVERY = 24, 8
WIDTH_PX, HEIGHT_PX = 352, 288  # one of the five sizes of H.263
# RTP's name: libav's encoder, GStreamer's demuxer and payloader.
RARE = {
    "VP8": ("libvpx", "mkv", "matroskademux ! rtpvp8pay mtu=600"),
    "VP9": ("libvpx-vp9", "mkv", "matroskademux ! rtpvp9pay mtu=600"),
    "MPV": ("mpeg2video", "m2v", "mpegvideoparse ! rtpmpvpay mtu=600"),
    "H263-1998": ("h263", "mov", "qtdemux ! rtph263ppay mtu=600"),
}


@functools.cache
def filmed(encoding: str, folder: Path) -> tuple[Path, list[bytes], list[bool]]:
    """A file, its pictures in order and which of them are key frames."""
    encoder, ending, _ = RARE[encoding]
    path = folder / f"{encoding}.{ending}"
    still = np.random.default_rng(1).normal(60, 6, (HEIGHT_PX * 3 // 2, WIDTH_PX))
    with av.open(path, "w") as container:
        stream = cast(VideoStream, container.add_stream(encoder, rate=25))
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        stream.codec_context.gop_size, stream.bit_rate = KEY_EVERY, 2_000_000
        if encoding in ("VP8", "VP9"):
            stream.options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
        for number in range(FRAMES):
            frame = VideoFrame.from_ndarray((still + 2 * number).clip(0, 255).astype(np.uint8), format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(path) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    return path, [bytes(packet) for packet in packets], [packet.is_keyframe for packet in packets]


def payloaded(encoding: str, folder: Path) -> list[bytes]:
    path, sent = filmed(encoding, folder)[0], folder / f"{encoding}.sent"
    pipeline = f'filesrc location="{path}" ! {RARE[encoding][2]} pt=96 ! rtpstreampay ! filesink location="{sent}"'
    subprocess.run([gst_python(), "-c", PROGRAM, pipeline], check=True, timeout=150)
    return list(packets_in(sent.read_bytes()))


@pytest.mark.parametrize("encoding", RARE)
def test_what_gstreamer_sends_is_what_was_filmed_and_decodes(encoding: str, tmp_path: Path) -> None:
    _, pictures, keys = filmed(encoding, tmp_path)
    packets = payloaded(encoding, tmp_path)
    assert len(packets) > 2 * FRAMES
    given = read(packets, encoding)
    assert [one.data for one in given] == pictures
    assert [one.is_key for one in given] == keys
    assert keys.count(True) == FRAMES // KEY_EVERY
    assert all(one.is_whole and not one.follows_loss for one in given)
    decoder = LibavDecoder(ENCODINGS[encoding].codec)
    frames = [frame for number, one in enumerate(given) for frame in decoder.decode(one.data, number)]
    assert len([*frames, *decoder.drain()]) == FRAMES
    middle = LibavDecoder(ENCODINGS[encoding].codec)
    late = [frame for one in given[KEY_EVERY - 1 : KEY_EVERY + 1] for frame in shown(middle, one)]
    assert [frame.key_frame for frame in (*late, *middle.drain())] == [True], "it began in the middle"


def shown(decoder: LibavDecoder, picture: CodedPicture) -> list[VideoFrame]:
    """Nothing, if the decoder refuses it."""
    with suppress(errors.Undecodable):
        return decoder.decode(picture.data, 0)
    return []


@pytest.mark.parametrize("encoding", RARE)
def test_a_packet_that_is_lost_is_seen(encoding: str, tmp_path: Path) -> None:
    packets = payloaded(encoding, tmp_path)
    lost = len(packets) // 2
    given = read([*packets[:lost], *packets[lost + 1 :]], encoding)
    assert any(not one.is_whole or one.follows_loss for one in given)
    whole = [one.data for one in given if one.is_whole]
    assert set(whole) < set(filmed(encoding, tmp_path)[1])


# VP8's descriptor: RFC 7741 section 4.2.

KEY, INTER = b"\x10\x02\0\x9d\x01\x2akey", b"\x11\x02\0inter"
DESCRIPTORS = {
    "short": b"\x10",
    "picture id of 7 bits": b"\x90\x80\x11",
    "picture id of 15 bits": b"\x90\x80\x81\x11",
    "layers": b"\x90\x70\x05\x20",
    "all": b"\x90\xf0\x81\x11\x05\x20",
}


@pytest.mark.parametrize("descriptor", DESCRIPTORS.values(), ids=DESCRIPTORS)
def test_each_descriptor_of_vp8_is_read_over(descriptor: bytes) -> None:
    rest = bytes([descriptor[0] & ~0x10]) + descriptor[1:]
    flow = [a_packet(descriptor + KEY[:7]), a_packet(rest + KEY[7:], 1), a_packet(descriptor + INTER, 2, TICKS)]
    reader = a_reader("VP8")
    [first] = push_all(reader, flow, is_settled=False)
    assert (first.data, first.is_key, first.is_whole, first.is_reference) == (KEY, True, True, True)


def test_a_frame_of_vp8_that_none_copies_from_says_so() -> None:
    flow = [a_packet(b"\x30" + INTER), a_packet(b"\x10" + INTER, 1, TICKS), a_packet(b"\x10" + KEY, 2, 2 * TICKS)]
    assert [one.is_reference for one in push_all(a_reader("VP8"), flow, is_settled=False)] == [False, True]


def test_the_start_of_a_later_partition_begins_no_frame() -> None:
    flow = [a_packet(b"\x10" + KEY), a_packet(b"\x11rest", 1), a_packet(b"\x10" + KEY, 2, TICKS)]
    assert [one.data for one in push_all(a_reader("VP8"), flow, is_settled=False)] == [KEY + b"rest"]


def test_the_size_of_a_vp8_frame_is_known_before_it_is_decoded() -> None:
    assert sizes.largest("vp8", b"\x10\0\0\x9d\x01\x2a\x80\x42\xe0\x01") == (640, 480)
    assert sizes.largest("vp8", b"\x11\0\0\x9d\x01\x2a\x80\x42\xe0\x01") == (0, 0)


# VP9's descriptor: RFC 9628 section 4.2.

VP9_KEY = b"\x82\x49\x83\x42\x00\x27\xf0\x1d\xf0"
VP9_DESCRIPTORS = {
    "short": b"\x08",
    "picture id of 7 bits": b"\x88\x11",
    "picture id of 15 bits, layers": b"\xa8\x81\x11\x00\x20",
    "flexible, two references": b"\x78\x00\x03\x04",
    "structure with a size and a group of two": b"\x0a\x18\x01\x40\x00\xf0\x02\x00\x04\x07",
}


@pytest.mark.parametrize("descriptor", VP9_DESCRIPTORS.values(), ids=VP9_DESCRIPTORS)
def test_each_descriptor_of_vp9_is_read_over(descriptor: bytes) -> None:
    flow = [a_packet(descriptor + VP9_KEY), a_packet(b"\0rest", 1), a_packet(b"\x08\x86", 2, TICKS)]
    [picture] = push_all(a_reader("VP9"), flow, is_settled=False)
    assert (picture.data, picture.is_key, picture.is_whole) == (VP9_KEY + b"rest", True, True)


def test_the_size_of_a_vp9_frame_is_known_before_it_is_decoded() -> None:
    assert sizes.largest("vp9", b"\x82\x49\x83\x42\x20\x27\xf0\x1d\xf0") == (640, 480)
    assert sizes.largest("vp9", b"\x86\x49\x83\x42\x20\x27\xf0\x1d\xf0") == (0, 0)


# MPEG-2's header: RFC 2250 section 3.4. Its pictures: ISO/IEC 13818-2 section 6.2.

SEQUENCE = b"\0\0\1\xb3\x16\x01\x20\x13"
INTRA, PREDICTED, BOTH_WAYS = (b"\0\0\1\0\0" + bytes([kind << 3]) + b"picture" for kind in (1, 2, 3))


def test_the_headers_of_an_mpeg2_sequence_stand_before_each_i_picture() -> None:
    flow = [SEQUENCE + INTRA, PREDICTED, b"\0\0\1\xb8grp" + INTRA, BOTH_WAYS, PREDICTED]
    packets = [a_packet(bytes(4) + data, number, number * TICKS) for number, data in enumerate(flow)]
    given = push_all(a_reader("MPV"), packets, is_settled=False)
    assert [one.data for one in given] == [flow[0], flow[1], SEQUENCE + flow[2], flow[3]]
    assert [one.is_key for one in given] == [True, False, True, False]
    assert [one.is_reference for one in given] == [True, True, True, False]
    assert sizes.largest("mpeg2video", given[2].data) == (352, 288)


def test_the_longer_header_of_mpeg2_is_read_over_and_slices_go_on_with_the_picture() -> None:
    flow = [a_packet(b"\4" + bytes(7) + SEQUENCE + INTRA), a_packet(b"\4" + bytes(7) + b"\0\0\1\2slice", 1)]
    [picture] = push_all(a_reader("MPV"), [*flow, a_packet(bytes(4) + PREDICTED, 2, TICKS)], is_settled=False)
    assert picture.data == SEQUENCE + INTRA + b"\0\0\1\2slice"


# H.263's header: RFC 4629 section 5.1. Its pictures: H.263 section 5.1.


def bits(text: str) -> bytes:
    text = text.replace(" ", "").ljust(80, "0")
    return int(text, 2).to_bytes(10)


PSC, TR = "0000000000000000 100000", "00000001"
PICTURES = {
    "intra": (bits(f"{PSC}{TR} 10 000 011 0"), True, True),
    "inter": (bits(f"{PSC}{TR} 10 000 011 1"), False, True),
    "plus, intra": (bits(f"{PSC}{TR} 10 000 111 001 {'0' * 18} 000"), True, True),
    "plus, inter": (bits(f"{PSC}{TR} 10 000 111 001 {'0' * 18} 001"), False, True),
    "plus without options, inter": (bits(f"{PSC}{TR} 10 000 111 000 001"), False, True),
    "plus without options, B": (bits(f"{PSC}{TR} 10 000 111 000 011"), False, False),
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_type_of_an_h263_picture_is_read(name: str) -> None:
    data, is_key, is_reference = PICTURES[name]
    flow = [a_packet(b"\x04\0" + data[2:]), a_packet(b"\x04\0" + data[2:], 1, TICKS)]
    [picture] = push_all(a_reader("H263-2000"), flow, is_settled=False)
    assert (picture.data, picture.is_key, picture.is_reference) == (data, is_key, is_reference)


def test_redundancy_in_h263_is_read_over_and_a_group_of_blocks_begins_no_picture() -> None:
    data = PICTURES["intra"][0]
    group = b"\x84group"
    flow = [
        a_packet(b"\x06\x10" + b"v" + b"xx" + data[2:]),  # V, and PLEN of 2
        a_packet(b"\0\0rest", 1),
        a_packet(b"\x04\0" + group, 2, is_marked=True),
        a_packet(b"\x04\0" + data[2:], 3, TICKS),
    ]
    [picture] = push_all(a_reader("H263-1998"), flow, is_settled=False)
    assert picture.data == data + b"rest" + b"\0\0" + group
    assert picture.is_whole
