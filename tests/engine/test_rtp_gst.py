"""GStreamer's payloaders, of which many cameras are made: their packets, read."""

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.engine.rtp import CodedPicture
from tests.camera.clip import Codec, Scene, cached_mp4, encode, split_nals
from tests.camera.gst import gst_python
from tests.engine.rtp_film import decode, read

PROGRAM = """
import sys, gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
pipeline = Gst.parse_launch(sys.argv[1])
pipeline.set_state(Gst.State.PLAYING)
message = pipeline.get_bus().timed_pop_filtered(120 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
pipeline.set_state(Gst.State.NULL)
sys.exit(0 if message and message.type == Gst.MessageType.EOS else str(message and message.parse_error()))
"""
_ENDS_S = 150.0
PAYLOADERS: dict[str, tuple[Codec, int, str]] = {
    "h264": ("h264", 0, "h264parse ! rtph264pay"),
    "h264 with parameter sets": ("h264", 2, "h264parse ! rtph264pay config-interval=-1 mtu=300"),
    "h264 in aggregates": ("h264", 2, "h264parse ! rtph264pay config-interval=-1 aggregate-mode=zero-latency"),
    "h265": ("hevc", 0, "h265parse ! rtph265pay config-interval=-1"),
    "h265 in aggregates": ("hevc", 0, "h265parse ! rtph265pay config-interval=-1 aggregate-mode=max mtu=600"),
    "mpeg4": ("mpeg4", 0, "mpeg4videoparse ! rtpmp4vpay config-interval=-1"),
    "mpeg4 without configuration": ("mpeg4", 0, "mpeg4videoparse ! rtpmp4vpay"),
    "jpeg": ("mjpeg", 0, "jpegparse ! rtpjpegpay"),
}
NAMES: dict[Codec, str] = {"h264": "H264", "hevc": "H265", "mpeg4": "MP4V-ES", "mjpeg": "JPEG"}


def a_scene(codec: Codec, b_frames: int) -> Scene:
    noise = 3.0 if codec in ("h264", "hevc") else 0.0
    return Scene(320, 240, (60.0, 150.0), fps=10, gop_s=0.5, codec=codec, b_frames=b_frames, noise=noise)


def packets_in(data: bytes) -> Iterator[bytes]:
    """Behind their lengths (RFC 4571)."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2])
        yield data[at + 2 : at + 2 + size]
        at += 2 + size


def described(scene: Scene) -> dict[str, str]:
    sets = encode(scene).parameter_sets
    if scene.codec == "mpeg4":
        return {"config": sets[0].hex()}
    texts = [base64.b64encode(unit).decode() for unit in sets]
    if scene.codec == "h264":
        return {"sprop-parameter-sets": ",".join(texts)}
    return dict(zip(("sprop-vps", "sprop-sps", "sprop-pps"), texts, strict=False))


def slices(codec: Codec, data: bytes) -> bytes:
    """H.264 and H.265 without what a payloader adds; the VOP of MPEG-4."""
    if codec == "mpeg4":
        return data[data.index(b"\0\0\1\xb6") :]
    kinds = range(1, 6) if codec == "h264" else range(32)
    units = split_nals(data)
    return b"".join(unit for unit in units if (unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63) in kinds)


@pytest.mark.parametrize("name", PAYLOADERS)
def test_what_gstreamer_sends_is_what_was_filmed(name: str, tmp_path: Path) -> None:
    codec, b_frames, payloader = PAYLOADERS[name]
    scene = a_scene(codec, b_frames)
    film, sent = cached_mp4(scene, tmp_path), tmp_path / "sent"
    pipeline = f'filesrc location="{film}" ! qtdemux ! {payloader} pt={26 if codec == "mjpeg" else 96}'
    command = [gst_python(), "-c", PROGRAM, f'{pipeline} ! rtpstreampay ! filesink location="{sent}"']
    subprocess.run(command, check=True, timeout=_ENDS_S)
    pictures = read(packets_in(sent.read_bytes()), NAMES[codec], described(scene))
    check(scene, pictures)


def check(scene: Scene, pictures: list[CodedPicture]) -> None:
    units = encode(scene).units
    assert len(pictures) == len(units)
    assert all(one.is_whole and not one.follows_loss for one in pictures)
    assert [one.is_key for one in pictures] == [unit.is_key for unit in units]
    if scene.codec == "mjpeg":
        assert decode("mjpeg", [one.data for one in pictures]) == decode("mjpeg", [one.data for one in units])
        return
    given = [slices(scene.codec, one.data) for one in pictures]
    assert given == [slices(scene.codec, unit.data) for unit in units]
    for one in pictures:
        if one.is_key:
            assert len(decode(scene.codec, [one.data])) == 1
    if scene.codec == "mpeg4":
        return  # several small VOPs share a packet and its time
    starts = [one.timestamp - pictures[0].timestamp for one in pictures]
    assert starts == [unit.pts_ticks - units[0].pts_ticks for unit in units]
