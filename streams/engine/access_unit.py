"""Which packets belong to one picture. Pure.

libav's parser ends a picture at every parameter set. A sender that repeats SPS and PPS before each slice
(GStreamer's rtph264pay with config-interval=-1 and an encoder of several slices does) so gets one picture
as several packets, and the decoder makes a half-empty frame of each without flagging it as corrupt.
"""

import re

_START_CODE = re.compile(rb"\x00\x00\x01")
# H.264: ITU-T H.264 table 7-1, slices are 1 to 5; H.265: ITU-T H.265 table 7-1, slice segments are 0 to 31.
_H264_SLICES = range(1, 6)
_HEVC_SLICES = range(32)
_SEARCHED_BYTES = 4096  # parameter sets and SEI before a slice are far shorter


def continues_picture(codec: str, data: bytes | memoryview) -> bool:
    """Whether the first slice of an Annex B packet is not the first slice of its picture.

    `first_mb_in_slice` of H.264 is an Exp-Golomb code, 0 when its first bit is set; H.265 has a flag there.
    """
    head = bytes(data[:_SEARCHED_BYTES])
    for match in _START_CODE.finditer(head):
        start = match.end()
        if codec == "h264" and start + 1 < len(head) and head[start] & 0x1F in _H264_SLICES:
            return not head[start + 1] & 0x80
        if codec == "hevc" and start + 2 < len(head) and head[start] >> 1 & 0x3F in _HEVC_SLICES:
            return not head[start + 2] & 0x80
    return False
