"""libav's decoders: coded pictures in, frames out."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Protocol, cast

import av
import av.error
from av.codec.context import Flags
from av.packet import Packet as AvPacket
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from . import errors, sizes

# RTP's names (IANA, RTP payload format media types) and libav's.
CODECS = {"H264": "h264", "H265": "hevc", "MP4V-ES": "mpeg4", "JPEG": "mjpeg"}
# Pictures of H.265 that copy from one that is missing are left out by libav, without a word. With its flag
# OUTPUT_CORRUPT they come, and say that they are corrupt (libavcodec 62.28, measured).
TELLS_IF_ASKED = frozenset({"hevc"})
# libav's H.264 decoder gives no frame before a key frame or a recovery point. MPEG-4's begins with any picture,
# copies from grey and says nothing of it (measured), and so does that of H.265 with this flag.
BEGINS_ANYWHERE = frozenset({"mpeg4", "hevc"})
# For sizes that are told in a way that only libav reads: it refuses them before it makes room.
MAX_PIXELS_OPTION = {"max_pixels": str(sizes.MAX_PIXELS)}

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
