"""Packets that begin a picture and packets that go on with one, as encoders really cut them."""

import functools
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.access_unit import continues_picture
from tests.camera.clip import split_nals

WIDTH_PX, HEIGHT_PX, SLICES, FRAMES = 320, 256, 4, 6
ENCODERS = {"h264": "libx264", "hevc": "libx265"}
OPTIONS = {
    "h264": {"x264-params": f"slices={SLICES}:threads=1:keyint=3:scenecut=0:log=-1"},
    "hevc": {"x265-params": f"slices={SLICES}:keyint=3:scenecut=0:repeat-headers=1:log-level=none:ctu=32"},
}
CODECS = list(ENCODERS)


@functools.lru_cache
def pictures(codec: str) -> tuple[tuple[bytes, ...], ...]:
    """The NAL units of each picture of a film of noise, in decoding order."""
    noise = np.random.default_rng(1)
    packets: list[bytes] = []
    context = av.CodecContext.create(ENCODERS[codec], "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
    context.time_base = Fraction(1, 25)
    context.options = {"preset": "ultrafast", **OPTIONS[codec]}
    for index in range(FRAMES):
        plane = noise.integers(0, 255, (HEIGHT_PX * 3 // 2, WIDTH_PX), np.uint8)
        frame = VideoFrame.from_ndarray(plane, format="yuv420p")
        frame.pts = index
        packets += [bytes(packet) for packet in context.encode(frame)]
    packets += [bytes(packet) for packet in context.encode(None)]
    return tuple(split_nals(packet) for packet in packets)


def is_slice(codec: str, nal: bytes) -> bool:
    return nal[0] & 31 in (1, 5) if codec == "h264" else nal[0] >> 1 & 63 < 32


def slices(codec: str) -> Iterator[tuple[int, bytes]]:
    """Each slice with its number in its picture."""
    for nals in pictures(codec):
        yield from enumerate(nal for nal in nals if is_slice(codec, nal))


def annex_b(*nals: bytes, start: bytes = b"\0\0\0\1") -> bytes:
    return b"".join(start + nal for nal in nals)


def headers(codec: str) -> list[bytes]:
    """Parameter sets and SEI of the first picture."""
    return [nal for nal in pictures(codec)[0] if not is_slice(codec, nal)]


@pytest.mark.parametrize("codec", CODECS)
def test_the_film_has_what_these_tests_need(codec: str) -> None:
    numbers = [number for number, _ in slices(codec)]
    assert len(pictures(codec)) == FRAMES
    assert numbers == [*range(SLICES)] * FRAMES
    assert len(headers(codec)) >= 2


@pytest.mark.parametrize("start", [b"\0\0\1", b"\0\0\0\1", b"\0\0\0\0\1"])
@pytest.mark.parametrize("codec", CODECS)
def test_a_first_slice_begins_a_picture_and_others_go_on_with_it(codec: str, start: bytes) -> None:
    for number, nal in slices(codec):
        assert continues_picture(codec, annex_b(nal, start=start)) == (number > 0)


@pytest.mark.parametrize("codec", CODECS)
def test_parameter_sets_before_a_slice_change_nothing(codec: str) -> None:
    """What GStreamer's rtph264pay with config-interval=-1 makes of an encoder with several slices."""
    for number, nal in slices(codec):
        assert continues_picture(codec, annex_b(*headers(codec), nal)) == (number > 0)


@pytest.mark.parametrize("codec", CODECS)
def test_a_whole_picture_is_the_begin_of_one(codec: str) -> None:
    assert not any(continues_picture(codec, annex_b(*nals)) for nals in pictures(codec))


@pytest.mark.parametrize("codec", CODECS)
def test_only_the_first_slice_of_a_packet_counts(codec: str) -> None:
    own = [nal for _, nal in slices(codec)][:SLICES]
    assert continues_picture(codec, annex_b(*own[1:]))
    assert not continues_picture(codec, annex_b(own[0], own[1]))


@pytest.mark.parametrize("codec", CODECS)
def test_a_memoryview_will_do(codec: str) -> None:
    later = next(nal for number, nal in slices(codec) if number == 2)
    assert continues_picture(codec, memoryview(annex_b(later)))


@pytest.mark.parametrize("codec", CODECS)
def test_a_packet_without_a_slice_begins_a_picture(codec: str) -> None:
    """So that a parameter set or an end of sequence between pictures never joins two of them."""
    assert not continues_picture(codec, annex_b(*headers(codec)))
    assert not continues_picture(codec, b"")


@pytest.mark.parametrize("codec", ["mjpeg", "mpeg4", "vp9"])
def test_other_codecs_have_a_picture_in_each_packet(codec: str) -> None:
    later = next(nal for number, nal in slices("h264") if number == 1)
    assert not continues_picture(codec, annex_b(later))


@pytest.mark.parametrize("codec", CODECS)
def test_a_slice_that_is_cut_off_within_its_header_is_no_error(codec: str) -> None:
    later = annex_b(next(nal for number, nal in slices(codec) if number == 1))
    for length in range(8):
        continues_picture(codec, later[:length])


@given(st.binary(max_size=200), st.sampled_from(CODECS))
def test_no_bytes_are_an_error(data: bytes, codec: str) -> None:
    assert continues_picture(codec, data) in (True, False)
    assert continues_picture(codec, b"\0\0\1" + data) in (True, False)
