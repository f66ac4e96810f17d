"""How large a picture is by its headers: of real encoders, of bombs, and of what is none."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine import sizes
from tests.camera.clip import Codec, Scene, encode

from . import paff
from .hostile import of_size, with_scaling_lists

SCENE = Scene(320, 240, (120,), fps=2)
CODECS: tuple[Codec, ...] = ("h264", "hevc", "mpeg4", "mjpeg")


def headed(codec: Codec, scene: Scene = SCENE) -> bytes:
    """A picture with its headers, which MPEG-4 has beside it."""
    clip = encode(replace(scene, codec=codec))
    return (clip.parameter_sets[0] if codec == "mpeg4" else b"") + clip.units[0].data


@pytest.mark.parametrize("codec", CODECS)
def test_an_encoder_s_picture_has_the_size_that_it_was_given(codec: Codec) -> None:
    assert sizes.largest(codec, headed(codec)) == (320, 240)
    assert sizes.largest(codec, encode(replace(SCENE, codec=codec)).units[1].data) in ((0, 0), (320, 240))


@pytest.mark.parametrize(
    ("codec", "size"), [("h264", (16_384, 16_384)), ("hevc", (8200, 4400)), ("mpeg4", (8191, 5000))]
)
def test_a_bomb_has_the_size_that_it_claims(codec: Codec, size: sizes.Size) -> None:
    clip = of_size(encode(replace(SCENE, codec=codec)), *size)
    assert sizes.largest(codec, b"".join(clip.parameter_sets if codec == "mpeg4" else [clip.units[0].data])) == size
    assert sizes.is_too_large(size)


def test_of_two_sizes_the_larger_one_counts() -> None:
    small, large = encode(SCENE), of_size(encode(SCENE), 8000, 8000)
    for first, second in ((small, large), (large, small)):
        assert sizes.largest("h264", first.units[0].data + second.units[0].data) == (8000, 8000)


def test_what_cannot_be_read_has_no_size() -> None:
    clip = with_scaling_lists(encode(SCENE))
    assert sizes.largest("h264", clip.units[0].data) == (0, 0)


@pytest.mark.parametrize("size", [(8192, 4320), (8160, 3616), (1920, 1088)])
def test_what_cameras_have_is_not_too_large(size: sizes.Size) -> None:
    assert not sizes.is_too_large(size)


def test_a_jpeg_is_one_of_the_simplest_kind_with_one_size() -> None:
    jpeg = headed("mjpeg")
    assert sizes.jpeg_size(jpeg) == (320, 240)
    assert sizes.jpeg_size(jpeg.replace(b"\xff\xc0", b"\xff\xc2")) is None
    assert sizes.jpeg_size(b"\xff\xd8" + jpeg[jpeg.index(b"\xff\xc0") :][:19] + jpeg[2:]) is None
    assert sizes.jpeg_size(b"") is None


@given(st.sampled_from(CODECS), st.binary(max_size=300), st.integers(0, 60))
def test_whatever_the_bytes_are_there_is_a_size_or_none(codec: Codec, data: bytes, at: int) -> None:
    whole = headed(codec)
    for text in (data, whole[:at] + data, whole[:at] + data + whole[at:]):
        width, height = sizes.largest(codec, text)
        assert min(width, height) >= 0
        sizes.jpeg_size(text)


def test_of_fields_two_make_the_height() -> None:
    assert sizes.largest("h264", b"".join(paff.paff_pictures(1, 1)[0])) == (paff.WIDTH_PX, paff.HEIGHT_PX)
