"""Short films whose brightness is known: one mean luma for each second, encoded, and kept in a folder."""

import fcntl
import functools
import hashlib
import io
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Literal

import av
import numpy as np
import numpy.typing as npt
from av.bitstream import BitStreamFilterContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream

from tests.camera.mark import SECOND_MAX, Picture, draw_mark, row_height_px

TICKS_PER_S = 90_000
PLAN_MIN, PLAN_MAX = 4, 251  # the mark and the block alone have a mean of 3.7 in the darkest picture

Codec = Literal["h264", "hevc", "mpeg4", "mjpeg"]

_ENCODERS: dict[Codec, str] = {"h264": "libx264", "hevc": "libx265", "mpeg4": "mpeg4", "mjpeg": "mjpeg"}
_TO_ANNEXB: dict[Codec, str] = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
_RECIPE = 4  # in the name of a cached file; count up when the picture or the encoder's settings change
_GRAINS = 7  # different patterns of noise; no divisor of a usual frame rate
_BT709 = (Colorspace.ITU709, ColorPrimaries.BT709, ColorTrc.BT709)


@dataclass(frozen=True, slots=True)
class Scene:
    """What is filmed. `plan` holds the full-range mean luma (4 to 251) of each second.

    Second n of the plan carries the mark n modulo 256. A small block moves with each frame, unless
    `has_motion` is False. `intra_refresh` (h264): one key frame, then a column at a time. `chroma` is Cb and
    Cr of the whole picture. `is_full_range` flags and encodes 0 to 255. `noise` is the standard deviation of
    grain in luma codes: measured with h264 at 1080p25 and a gop of 2 s, 2.4 makes 4 Mbit/s, 4 makes 57.
    `open_gop` (hevc): B-frames before a key frame need the GOP before it.
    """

    width: int
    height: int
    plan: tuple[float, ...]
    fps: int = 25
    gop_s: float = 1.0
    codec: Codec = "h264"
    b_frames: int = 0
    is_full_range: bool = False
    has_motion: bool = True
    intra_refresh: bool = False
    chroma: tuple[int, int] = (128, 128)
    noise: float = 0.0
    open_gop: bool = False

    def __post_init__(self) -> None:
        if not self.plan or min(self.plan) < PLAN_MIN or max(self.plan) > PLAN_MAX:
            raise ValueError(f"a plan holds {PLAN_MIN} to {PLAN_MAX} for each second")
        if self.width % 2 or self.height % 2:
            raise ValueError("width and height are even numbers of pixels (4:2:0)")

    @property
    def frames(self) -> int:
        return len(self.plan) * self.fps

    @property
    def gop_frames(self) -> int:
        return max(1, round(self.gop_s * self.fps))

    @property
    def uses_full_range(self) -> bool:
        return self.is_full_range or self.codec == "mjpeg"


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One frame as cameras send it. Annex B for h264 and hevc, with parameter sets before each key frame."""

    data: bytes
    pts_ticks: int
    is_key: bool


@dataclass(frozen=True, slots=True)
class Clip:
    """A scene, encoded; units are in decoding order, `scene.fps` of them a second.

    `parameter_sets`: SPS and PPS (hevc: VPS, SPS, PPS) without start codes; mpeg4: the one configuration.
    """

    scene: Scene
    units: tuple[AccessUnit, ...]
    parameter_sets: tuple[bytes, ...]

    @property
    def duration_ticks(self) -> int:
        return len(self.units) * TICKS_PER_S // self.scene.fps


_encoding = threading.Lock()


def encode(scene: Scene) -> Clip:
    """Kept for the life of the process. All processes and threads of a test run encode a scene once."""
    with _encoding:
        return _encoded(scene)


@functools.lru_cache(maxsize=64)
def _encoded(scene: Scene) -> Clip:
    if "TEST_DATA" in os.environ:
        with cached_mp4(scene, Path(os.environ["TEST_DATA"]) / "clips").open("rb") as kept:
            return read_mp4(scene, kept)
    file = io.BytesIO()
    _write(scene, file)
    file.seek(0)
    return read_mp4(scene, file)


def write_mp4(scene: Scene, path: Path) -> None:
    with path.open("wb") as file:
        _write(scene, file)


def cached_mp4(scene: Scene, folder: Path) -> Path:
    """The scene's file in the folder, encoded by whichever process comes first; the others wait for it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_fingerprint(scene)}.mp4"
    if path.exists():
        return path
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_suffix(f".{os.getpid()}")
            write_mp4(scene, unfinished)
            os.replace(unfinished, path)
    return path


def picture(scene: Scene, index: int) -> Picture:
    """Frame `index` before encoding: (height, width) luma codes whose mean is the plan's."""
    second = index // scene.fps
    plane = _still(scene, second).copy()
    top, left, height, width = _block(scene, index if scene.has_motion else 0)
    plane[top : top + height, left : left + width] = _block_level(scene, second)
    if scene.noise:
        strip_px = 2 * row_height_px(scene.height)
        grain = _grain(scene, index % _GRAINS if scene.has_motion else 0)
        plane[strip_px:] = np.clip(plane[strip_px:] + grain, 0, 255)
    return plane


def split_nals(data: bytes) -> tuple[bytes, ...]:
    """The NAL units of an Annex B access unit, without their start codes."""
    parts = data.split(b"\0\0\1")[1:]
    return tuple(part.rstrip(b"\0") for part in parts)  # a NAL unit never ends in a zero byte (H.264 7.4.1)


def _write(scene: Scene, file: IO[bytes]) -> None:
    options = {"video_track_timescale": str(TICKS_PER_S)}
    with av.open(file, "w", format="mp4", options=options) as container:
        stream = container.add_stream(_ENCODERS[scene.codec], rate=scene.fps, options=_options(scene))
        assert isinstance(stream, VideoStream)
        _set_up(stream, scene)
        for frame in _frames(scene):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _set_up(stream: VideoStream, scene: Scene) -> None:
    stream.width, stream.height = scene.width, scene.height
    stream.pix_fmt = "yuvj420p" if scene.codec == "mjpeg" else "yuv420p"
    stream.time_base = Fraction(1, TICKS_PER_S)
    context = stream.codec_context
    context.gop_size = scene.gop_frames
    context.max_b_frames = scene.b_frames
    context.bit_rate = 8_000_000 if scene.codec == "mpeg4" else 0  # the others are told a quality
    context.colorspace, context.color_primaries, context.color_trc = _BT709
    context.color_range = ColorRange.JPEG if scene.uses_full_range else ColorRange.MPEG


def _options(scene: Scene) -> dict[str, str]:
    gop, b_frames = scene.gop_frames, scene.b_frames
    if scene.codec == "h264":
        return {
            "preset": "ultrafast",
            # At 2 nothing is left to refine: a picture that does not move is the same to the bit.
            "qp": "22" if scene.has_motion else "2",
            "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}:b-adapt=0:threads=2"
            f":sliced-threads=0:rc-lookahead=0:force-cfr=1:intra-refresh={int(scene.intra_refresh)}",
        }
    if scene.codec == "hevc":
        return {
            "preset": "ultrafast",
            "x265-params": f"crf=20:keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}:b-adapt=0"
            # x265 wants to look further ahead than over its B-frames.
            f":open-gop={int(scene.open_gop)}:rc-lookahead={b_frames + 1 if b_frames else 0}"
            ":repeat-headers=0:log-level=none",
        }
    if scene.codec == "mjpeg":
        # RFC 2435 knows the default Huffman tables only; with threads libav writes restart markers
        return {"huffman": "default", "threads": "1", "qmin": "2", "qmax": "2"}
    return {"sc_threshold": "1000000000", "qmin": "2", "qmax": "4"}


def _frames(scene: Scene) -> Iterator[VideoFrame]:
    chroma = [np.full((scene.height // 2, scene.width // 2), level, np.uint8) for level in scene.chroma]
    flat_chroma = np.concatenate([plane.ravel() for plane in chroma])
    for index in range(scene.frames):
        planes = np.concatenate([picture(scene, index).ravel(), flat_chroma])
        pix_fmt = "yuvj420p" if scene.codec == "mjpeg" else "yuv420p"
        frame = VideoFrame.from_ndarray(planes.reshape(-1, scene.width), format=pix_fmt)
        frame.pts, frame.time_base = index, Fraction(1, scene.fps)
        frame.color_range = ColorRange.JPEG if scene.uses_full_range else ColorRange.MPEG
        yield frame


@functools.lru_cache(maxsize=4)
def _still(scene: Scene, second: int) -> Picture:
    """A second without its moving block; the background makes up for what mark and block add to the mean."""
    plane = np.empty((scene.height, scene.width), np.uint8)
    dark, light = (int(_code(scene, level)) for level in _mark_levels(scene.plan[second]))
    strip_px = 2 * row_height_px(scene.height)
    draw_mark(plane, second % (SECOND_MAX + 1), dark=dark, light=light)
    _, _, height, width = _block(scene, 0)
    wanted = plane.size * _code(scene, scene.plan[second])
    left = wanted - int(plane[:strip_px].sum()) - height * width * _block_level(scene, second)
    level = left / (plane.size - strip_px * scene.width - height * width)
    plane[strip_px:] = int(level)
    rows_px = scene.height - strip_px
    plane[scene.height - round((level - int(level)) * rows_px) :] = int(level) + 1
    return plane


@functools.lru_cache(maxsize=2 * _GRAINS)
def _grain(scene: Scene, number: int) -> npt.NDArray[np.int16]:
    """Everything below the strip. The lower half is the upper one, mirrored and negated: the sum is zero."""
    rows_px = scene.height - 2 * row_height_px(scene.height)
    random = np.random.default_rng(number)
    upper = np.rint(random.normal(0, scene.noise, (rows_px // 2, scene.width))).astype(np.int16)
    return np.concatenate([upper, np.zeros((rows_px % 2, scene.width), np.int16), -upper[::-1]])


def _mark_levels(mean: float) -> tuple[int, int]:
    """Very dark and very bright seconds have a mark of less contrast: a full one would set their mean."""
    if mean < 32:
        return 0, 64
    return (191, 255) if mean > 223 else (0, 255)


def _block(scene: Scene, index: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of the block that moves: a 256th of the picture."""
    height, width = scene.height // 16, scene.width // 16
    left = index * max(2, width // 5) % (scene.width - width)
    return scene.height // 2, left, height, width


def _block_level(scene: Scene, second: int) -> int:
    return round(_code(scene, 255 if scene.plan[second] < 128 else 0))


def _code(scene: Scene, luma: float) -> float:
    return luma if scene.uses_full_range else 16 + luma * 219 / 255


def _fingerprint(scene: Scene) -> str:
    return hashlib.sha256(f"{_RECIPE} {scene!r}".encode()).hexdigest()[:20]


def read_mp4(scene: Scene, file: IO[bytes]) -> Clip:
    """A film of that scene's codec and size, encoded without re-ordering or as the scene says."""
    with av.open(file, "r", format="mp4") as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        configuration = stream.codec_context.extradata or b""
        if scene.codec in _TO_ANNEXB:
            to_annexb = BitStreamFilterContext(_TO_ANNEXB[scene.codec], stream)
            packets = [ready for packet in packets for ready in to_annexb.filter(packet)]
    units = tuple(_unit(scene, bytes(packet), packet.pts or 0, packet.is_keyframe) for packet in packets)
    return Clip(scene, units, _parameter_sets(scene, units[0], configuration))


def _unit(scene: Scene, data: bytes, pts_ticks: int, is_key: bool) -> AccessUnit:
    """With intra refresh the encoder calls recovery points key frames; here only an IDR picture is one.

    Without the encoder's own note (SEI of type 5), which stands before the first parameter sets.
    """
    if scene.codec == "h264":
        nals = [nal for nal in split_nals(data) if nal[:2] != b"\x06\x05"]
        data = b"".join(b"\0\0\0\1" + nal for nal in nals)
        is_key = any(nal[0] & 31 == 5 for nal in nals)
    return AccessUnit(data, pts_ticks, is_key)


def _parameter_sets(scene: Scene, first: AccessUnit, configuration: bytes) -> tuple[bytes, ...]:
    if scene.codec == "h264":
        return tuple(nal for nal in split_nals(first.data) if nal[0] & 31 in (7, 8))
    if scene.codec == "hevc":
        return tuple(nal for nal in split_nals(first.data) if nal[0] >> 1 & 63 in (32, 33, 34))
    return (configuration,) if configuration else ()
