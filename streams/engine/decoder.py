"""libav's decoders: coded pictures in, frames out."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import Protocol, cast

import av
import av.error
import numpy as np
from av.codec.context import Flags
from av.packet import Packet as AvPacket
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from . import errors, sizes

# Pictures of H.265 that copy from one that is missing are left out by libav, without a word. With its flag
# OUTPUT_CORRUPT they come, and say that they are corrupt (libavcodec 62.28, measured).
TELLS_IF_ASKED = frozenset({"hevc"})
# libav's H.264 decoder gives no frame before a key frame or a recovery point. These begin with any picture, copy from
# grey and say nothing of it (measured); that of H.265 does so with the flag above.
BEGINS_ANYWHERE = frozenset({"mpeg4", "hevc", "h263", "mpeg2video"})
# For sizes that are told in a way that only libav reads: it refuses them before it makes room.
MAX_PIXELS_OPTION = {"max_pixels": str(sizes.MAX_PIXELS)}

# A frame header of three components (ITU-T T.81 B.2.2): height and width.
_JPEG_FRAME = re.compile(rb"\xff[\xc0\xc1]\x00\x11\x08(..)(..)", re.DOTALL)
_JPEG_END = b"\xff\xd9"
_BLOCK_PX, _MCU_PX = 8, 16
_GUESSED_PX_MAX = 256 * _BLOCK_PX
_PADDING_BLOCKS = 16  # what the bits that fill up the last byte, and bytes behind it, were seen to decode to: 4

_TOO_LARGE = "The camera's pictures of {} x {} are too large: {} megapixels are the most."


class Decoder(Protocol):
    def decode(self, data: bytes, number: int) -> list[VideoFrame]:
        """The frames that are complete now, in order of presentation; `pts` is the number of a frame's picture.

        Raises Undecodable for a picture that the decoder refuses; it may be given the next one. Raises
        PictureTooLarge and OutOfMemory, after which nothing is of any use.
        """

    def drain(self) -> list[VideoFrame]:
        """The frames that were held back for re-ordering. After that it has to begin anew."""

    def begin_anew(self) -> None:
        """Forget all pictures; the next one must be one that decoding can begin with."""


def padded(data: bytes) -> AvPacket[VideoStream]:
    """A packet with zeros behind the data: libav reads up to 64 bytes on (AV_INPUT_BUFFER_PADDING_SIZE).

    `av.Packet(data)` has none (PyAV 18.1): it takes the bytes as they lie in memory, and what lies behind them made
    libav call four MPEG-4 pictures of a hundred damaged that were not.
    """
    packet = cast("AvPacket[VideoStream]", av.Packet(len(data)))
    packet.update(data)
    return packet


def misfits(jpeg: bytes) -> bool:
    """Whether a JPEG's scan holds more or fewer blocks than its size has room for: its lines are of another width.

    The decoder gets the same scan with rows added below. What it does not fill stays 0 (libav's memory is cleared).
    Half a column more is taken for a fault of the size, less for bytes behind the picture. 6 ms at 1080p.
    """
    frame = _JPEG_FRAME.search(jpeg)
    if frame is None:
        return False
    height, width = int.from_bytes(frame[1]), int.from_bytes(frame[2])
    if not (_BLOCK_PX <= width <= _GUESSED_PX_MAX and _BLOCK_PX <= height <= _GUESSED_PX_MAX):
        return False
    ends = -(-height // _MCU_PX) * _MCU_PX
    rows = _MCU_PX * (2 + height // (2 * width))
    scan = jpeg[frame.end(1) :].removesuffix(_JPEG_END).rstrip(b"\0")  # some cameras fill up their last packet
    taller = jpeg[: frame.start(1)] + (ends + rows).to_bytes(2) + scan + _JPEG_END
    try:
        [decoded] = LibavDecoder("mjpeg").decode(taller, 0)
    except (errors.Undecodable, errors.PictureTooLarge, ValueError):
        return False
    if _GUESSED_PX_MAX in (width, height) and _ends_early(decoded, height):
        return True
    luma, width = decoded.planes[0], width // _BLOCK_PX * _BLOCK_PX
    added = np.frombuffer(memoryview(luma), np.uint8).reshape(-1, luma.line_size)[ends : ends + rows, :width]
    blocks = added.reshape(rows // _BLOCK_PX, _BLOCK_PX, -1, _BLOCK_PX).any(axis=(1, 3))
    return int(blocks.sum()) >= max(height // _BLOCK_PX, _PADDING_BLOCKS)


def _ends_early(decoded: VideoFrame, height: int) -> bool:
    """Whether nothing was decoded in the right half of a JPEG's last lines: its colour is 0 there, and grey's is 128.

    Only a camera that tells 0 for its size makes its picture larger than it is: both may be 2048 px then.
    """
    chroma = decoded.planes[1:3]
    last = height * chroma[0].height // decoded.height - 1
    halves = [
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[last, plane.width // 2 : plane.width]
        for plane in chroma
    ]
    return not any(half.any() for half in halves)


def is_out_of_memory(error: av.error.FFmpegError) -> bool:
    return error.errno == errno.ENOMEM


def _has_room(size: sizes.Size) -> bool:
    """Whether a picture could be decoded now: H.264's decoder calls one damaged for which there was no room."""
    try:
        bytearray(3 * size[0] * size[1])  # 4:2:0, and as much again for what is known of each block; never touched
    except MemoryError:
        return False
    return True


class LibavDecoder:
    """A decoder of one codec, new: the first picture must be one that decoding can begin with."""

    def __init__(self, codec: str, on_decoded: Callable[[], None] = lambda: None) -> None:
        """`on_decoded` is called after each picture: decoding many takes long."""
        self._context = cast(VideoCodecContext, av.CodecContext.create(codec, "r"))
        # A recorder has one feed and no hurry: decoder threads would only hold frames.
        self._context.thread_type = "NONE"
        self._context.thread_count = 1
        self._context.options = MAX_PIXELS_OPTION
        if codec in TELLS_IF_ASKED:
            self._context.flags |= Flags.output_corrupt
        self._codec = codec
        self._on_decoded = on_decoded
        self._awaits_key = codec in BEGINS_ANYWHERE

    def begin_anew(self) -> None:
        self._context.flush_buffers()
        self._awaits_key = self._context.name in BEGINS_ANYWHERE

    def decode(self, data: bytes, number: int) -> list[VideoFrame]:
        size = sizes.largest(self._codec, data)
        if sizes.is_too_large(size):
            raise errors.PictureTooLarge(_TOO_LARGE.format(*size, sizes.MAX_PIXELS // 10**6))
        packet = padded(data)
        packet.pts = packet.dts = number
        try:
            return self._whole(self._context.decode(packet))
        except av.error.FFmpegError as error:
            if is_out_of_memory(error) or not _has_room(size):
                raise errors.OutOfMemory from None
            raise errors.Undecodable(f"The decoder refused a picture: {error.strerror}.") from None
        finally:
            self._on_decoded()

    def drain(self) -> list[VideoFrame]:
        try:
            return self._whole(self._context.decode(None))
        except av.error.FFmpegError as error:
            raise errors.Undecodable(f"The decoder refused to end: {error.strerror}.") from None

    def _whole(self, frames: list[VideoFrame]) -> list[VideoFrame]:
        while self._awaits_key and frames:
            if frames[0].key_frame:
                self._awaits_key = False
            else:
                del frames[0]
        return frames
