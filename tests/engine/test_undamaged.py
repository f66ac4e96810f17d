"""No undamaged picture is refused, whatever the camera's encoder makes of it."""

import os

import pytest

from streams.engine.continuity import Watch, continuity
from streams.engine.decoder import LibavDecoder
from streams.engine.sampler import Counts, Sampler
from tests.camera.clip import Codec

from .good_streams import FPS, Kind, pairwise, received, stream_of, whole

IS_WHOLE = bool(os.environ.get("TEST_ALL"))
PARTS = 40 if IS_WHOLE else 4
CODECS: tuple[Codec, ...] = ("h264", "hevc")


def refused(kind: Kind) -> str:
    """Empty if every picture of the stream is a sample."""
    stream, counts = stream_of(kind), Counts()
    sampler = Sampler(1 / FPS, lambda: LibavDecoder(kind.codec), counts, watch=Watch(continuity(kind.codec)))
    samples = sum(1 for packet in received(kind, stream) for _ in sampler.push(packet))
    rejected = counts.rejected - 1  # the end
    if samples == stream.frames and not rejected:
        return ""
    return f"{kind}: {samples} samples of {stream.frames}, {rejected} rejected"


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("codec", CODECS)
def test_every_picture_of_an_undamaged_stream_is_a_sample(codec: Codec, part: int) -> None:
    """Three thousand streams with TEST_ALL, else so many that each pair of properties is among them."""
    kinds = (whole if IS_WHOLE else pairwise)(codec)[part::PARTS]
    assert kinds
    assert [words for words in map(refused, kinds) if words] == []
