"""All that a recorder does with the bytes that a camera sends, without a clock or a socket."""

from collections.abc import Iterator
from contextlib import suppress

from streams.engine.continuity import Watch, continuity
from streams.engine.conversion import encode_frame
from streams.engine.decoder import LibavDecoder
from streams.engine.encodings import ENCODINGS
from streams.engine.errors import CaptureError
from streams.engine.feed import Packet
from streams.engine.interleaved import Interleaved
from streams.engine.rtcp import has_bye
from streams.engine.rtp import CodedPicture, depacketizer
from streams.engine.rtsp_auth import challenges
from streams.engine.sampler import Sampler
from streams.engine.scoring import brightness, fingerprint
from streams.engine.sdp import Track, aggregate_control, parse

URL = "rtsp://camera.example/demo"
_PICTURE_S = 0.1


def description(data: bytes) -> tuple[Track, ...]:
    """The tracks of an answer to DESCRIBE, header and body; none of one that is refused."""
    stream = Interleaved()
    with suppress(CaptureError):
        taken(stream, data)
        stream.finish()
    for message in stream.messages:
        challenges(message.values("www-authenticate"))
        aggregate_control(message.body, URL)
        if tracks := parse(message.body, URL):
            return tracks
    return ()


def samples(track: Track, data: bytes, *, is_ordered: bool) -> int:
    """How many come of an interleaved stream."""
    count = 0
    with suppress(CaptureError):
        codec = ENCODINGS[track.encoding].codec
        sampler = Sampler(3 * _PICTURE_S, lambda: LibavDecoder(codec), watch=Watch(continuity(codec)))
        for number, picture in enumerate(_pictures(track, data, is_ordered)):
            for sample in sampler.push(_packet(track, picture, number)):
                brightness(sample.frame), fingerprint(sample.frame)
                encode_frame(sample.frame)
                count += 1
    return count


def taken(stream: Interleaved, data: bytes) -> Iterator[memoryview]:
    packets: list[memoryview] = []
    while data:
        stream.rewind()
        room = stream.room()
        size = min(len(room), len(data))
        room[:size] = data[:size]
        stream.filled(size)
        data = data[size:]
        packets += [memoryview(bytes(packet)) for packet in stream.take()]
    return iter(packets)


def _pictures(track: Track, data: bytes, is_ordered: bool) -> Iterator[CodedPicture]:
    stream, line = Interleaved(), depacketizer(track, is_ordered=is_ordered)
    stream.listen(0, 1)
    stream.has_begun = True
    for packet in taken(stream, data):
        yield from line.push(packet)
    yield from line.settle()
    any(map(has_bye, stream.reports))


def _packet(track: Track, picture: CodedPicture, number: int) -> Packet:
    return Packet(
        data=picture.data,
        pts_s=picture.timestamp / track.clock_rate,
        duration_s=1 / track.frame_rate_fps if track.frame_rate_fps else 0.0,
        is_key=picture.is_key,
        is_reference=picture.is_reference,
        is_whole=picture.is_whole,
        follows_loss=picture.follows_loss,
        is_refresh=picture.refresh is not None,
        arrived_at=1_700_000_000.0 + number * _PICTURE_S,
        arrived_s=number * _PICTURE_S,
    )
