"""What of libav's decoders the rest of the engine builds on."""

import functools
import struct

import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from hypothesis import given
from hypothesis import strategies as st

from streams.engine import errors
from streams.engine.decoder import LibavDecoder, misfits
from streams.engine.encodings import ENCODINGS
from tests.camera.clip import Scene

from .clip_feed import Film, decoded, digest, filmed, headers, packets_of, shown

SCENES = [Scene(160, 120, (40, 200), fps=10, noise=4, codec="mjpeg")]
FILMS = [Film(), Film(b_frames=3, pyramid=True), Film(codec="hevc"), Film(codec="mpeg4")]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_encoding_of_rtp_has_a_decoder(encoding: str) -> None:
    assert LibavDecoder(ENCODINGS[encoding].codec).drain() == []


@pytest.mark.parametrize("film", FILMS, ids=str)
def test_a_frame_has_the_number_of_its_picture(film: Film) -> None:
    """Numbers that are not the time of showing, as they are not in the engine: order of arrival."""
    packets = filmed(film)
    decoder = LibavDecoder(film.codec)
    frames = [frame for number, packet in enumerate(packets) for frame in decoder.decode(packet.data, 1000 + number)]
    frames += decoder.drain()
    shown_as = [packets[(frame.pts or 0) - 1000].pts_s for frame in frames]
    assert shown_as == sorted(packet.pts_s for packet in packets)


def test_motion_jpeg_gives_each_picture_at_once() -> None:
    decoder = LibavDecoder("mjpeg")
    for number, packet in enumerate(packets_of(SCENES[0])):
        assert [frame.pts for frame in decoder.decode(packet.data, number)] == [number]


@functools.cache
def a_jpeg(width: int, height: int, sampling: int) -> bytes:
    down, across = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(1).normal(0, 4, (height, width, 1))
    picture = np.stack([down % 256, across % 256, (down + across) % 256], axis=2) + noise
    options = [cv2.IMWRITE_JPEG_QUALITY, 70, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    return cv2.imencode(".jpg", np.clip(picture, 0, 255).astype(np.uint8), options)[1].tobytes()


def resized(file: bytes, width: int, height: int) -> bytes:
    at = file.index(b"\xff\xc0") + 5
    return file[:at] + struct.pack(">HH", height, width) + file[at + 4 :]


SAMPLINGS = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["420", "422"])
@pytest.mark.parametrize("size", [(8, 8), (64, 48), (640, 360), (1920, 1080), (2048, 1536), (2040, 2040), (40, 2040)])
def test_a_jpeg_that_fills_its_size_fits(size: tuple[int, int], sampling: int) -> None:
    """Nor with bytes behind the picture that decode to something."""
    file = a_jpeg(*size, sampling)
    for behind in (b"", bytes(40), bytes(20_000), b"\x55" * 20):
        assert not misfits(file[:-2] + behind + file[-2:])


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["420", "422"])
@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((2560, 1920), (512, 1920)),
        ((2560, 1920), (2048, 1920)),
        ((2064, 1536), (2048, 1536)),
        ((2064, 1536), (16, 1536)),
        ((640, 2560), (640, 512)),
        ((3840, 2160), (1792, 112)),
        ((3840, 2160), (2040, 2040)),
    ],
)
def test_a_jpeg_of_more_blocks_than_its_size_has_room_for_overflows(
    size: tuple[int, int], said: tuple[int, int], sampling: int
) -> None:
    assert misfits(resized(a_jpeg(*size, sampling), *said))


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["420", "422"])
@pytest.mark.parametrize("size", [(2560, 1440), (2688, 1520), (2048, 1536), (2560, 1600)])
def test_nor_does_one_of_fewer_blocks_that_tells_0_for_its_size(size: tuple[int, int], sampling: int) -> None:
    assert misfits(resized(a_jpeg(*size, sampling), 2048, 2048))


@given(st.binary(max_size=200))
def test_what_is_no_jpeg_is_no_error(data: bytes) -> None:
    assert not misfits(data)
    assert not misfits(b"\xff\xd8\xff\xc0\x00\x11\x08" + data)


def test_frames_that_were_held_back_come_at_the_end() -> None:
    decoder = LibavDecoder("h264")
    first = filmed(Film(b_frames=2))[0]
    frames = [*decoder.decode(first.data, 7), *decoder.drain()]
    assert [digest(frame) for frame in frames] == [shown(Film(b_frames=2))[0]]


def test_what_the_decoder_refuses_is_said_in_the_engines_words() -> None:
    decoder = LibavDecoder("h264")
    with pytest.raises(errors.Undecodable, match="refused a picture"):
        decoder.decode(b"\0\0\1\x65no picture", 1)


@pytest.mark.parametrize("film", [Film(), Film(codec="hevc"), Film(codec="mpeg4")], ids=str)
def test_after_a_picture_that_was_refused_the_next_key_frame_is_decoded(film: Film) -> None:
    decoder = LibavDecoder(film.codec)
    packets = filmed(film)
    frames = attempted(decoder, [packets[0].data, b"\0\0\1\x65no picture", *(packet.data for packet in packets[8:])])
    assert set(shown(film)[8:]) <= {digest(frame) for frame in frames}


def attempted(decoder: LibavDecoder, pictures: list[bytes]) -> list[VideoFrame]:
    frames: list[VideoFrame] = []
    for number, data in enumerate(pictures):
        try:
            frames += decoder.decode(data, number)
        except errors.Undecodable:
            continue
    return [*frames, *decoder.drain()]


@pytest.mark.parametrize("film", [*FILMS, Film(codec="mpeg4", b_frames=1)], ids=str)
@pytest.mark.parametrize("begin", [1, 3, 7])
def test_nothing_is_shown_before_the_first_key_frame(film: Film, begin: int) -> None:
    """H.264: libav's doing. MPEG-4 and H.265: it would give frames made of grey, MPEG-4 without a word."""
    first, *others = [packet.data for packet in filmed(film)[begin:]]
    frames = attempted(LibavDecoder(film.codec), [headers(film) + first, *others])
    assert frames
    assert {digest(frame) for frame in frames} <= set(shown(film)[8 - film.b_frames :])


def test_no_picture_that_is_whole_is_called_damaged() -> None:
    """libav's MPEG-4 decoder reads on behind the data."""
    scene = Scene(160, 120, (40, 200, 90) * 3, fps=10, noise=4, codec="mpeg4")
    assert not [
        frame.pts for frame in decoded([packet.data for packet in packets_of(scene)], "mpeg4") if frame.is_corrupt
    ]


def test_no_decoder_thread_holds_frames() -> None:
    """A frame is there as soon as its picture is: with threads it comes as many pictures later."""
    decoder = LibavDecoder("h264")
    given = [len(decoder.decode(packet.data, number)) for number, packet in enumerate(filmed(Film()))]
    assert given == [1] * 24


def test_it_says_after_each_picture_that_it_lives() -> None:
    calls: list[None] = []
    decoder = LibavDecoder("h264", lambda: calls.append(None))
    for number, packet in enumerate(filmed(Film())[:5]):
        decoder.decode(packet.data, number)
    with pytest.raises(errors.Undecodable):
        decoder.decode(b"\0\0\1\x65no picture", 9)
    assert len(calls) == 6


def test_decoding_in_one_go_is_what_all_other_tests_compare_with() -> None:
    assert [frame.pts for frame in decoded([packet.data for packet in filmed(Film())], "h264")] == list(range(24))
