"""What the engine imports, and that its errors are whole."""

from __future__ import annotations

import ast
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import av
import av.error
import pytest

import streams.engine
from streams.engine import errors
from streams.engine.backoff import LADDERS
from streams.engine.decoder import LibavDecoder
from streams.engine.errors import CaptureError, Retry
from tests.camera.clip import Scene
from tests.camera.server import ScriptedCamera

ROOT = Path(__file__).resolve().parents[2]
MODULES = [f"streams.engine.{module.name}" for module in pkgutil.iter_modules(streams.engine.__path__)]
STRANGERS = {"django", "django_q", "environs", "sqlite3", "psycopg", "redis", "rtspsite", "cryptography"}
# A web process checks addresses and a supervisor hears reports: neither shall carry libav for it.
CODECS = {"av", "cv2", "numpy"}
LIGHT = ["address", "backoff", "coded", "copies", "errors", "h26x", "interleaved", "jpeg", "leaderboard", "mpeg4"]
LIGHT += ["notices", "recorder", "report", "resolver", "rtcp", "rtp", "rtsp", "rtsp_auth", "rtsp_message", "sdp"]
LIGHT += ["codec_choice", "encodings", "h263", "mpeg2", "vp8", "vp9"]
LIGHT += [
    "composer",
    "limits",
    "lookups",
    "pace",
    "quirks",
    "reception",
    "sandbox",
    "sizes",
    "solo",
    "stream_clock",
    "timeline",
    "wire",
]
IMPORT = """
import importlib, json, sys
new = {}
for module in sys.argv[1:]:
    before = {*sys.modules}
    importlib.import_module(module)
    new[module] = [*{*sys.modules} - before]
print(json.dumps(new))
"""


def loaded_by(modules: Sequence[str]) -> dict[str, set[str]]:
    """What each of them has loaded that those before it had not, in a new interpreter."""
    command = [sys.executable, "-c", IMPORT, *modules]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True, timeout=120)
    return {module: set(names) for module, names in json.loads(done.stdout).items()}


def loaders_of(packages: AbstractSet[str], loaded: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """Module, and what it has loaded of these packages."""
    return [
        (module, name) for module, names in loaded.items() for name in names if name.partition(".")[0] in packages
    ]


def test_the_engine_knows_no_django_and_nothing_of_ours_above_it() -> None:
    found = loaded_by(MODULES)
    assert set().union(*found.values()) >= set(MODULES)
    assert loaders_of(STRANGERS, found) == []
    ours = {name for names in found.values() for name in names if name.startswith("streams")}
    assert ours == {"streams", "streams.engine", *MODULES}


def test_what_neither_decodes_nor_draws_loads_no_codec() -> None:
    assert loaders_of(CODECS, loaded_by([f"streams.engine.{name}" for name in LIGHT])) == []


# --- the error tree ---


def classes(root: type[CaptureError] = CaptureError) -> list[type[CaptureError]]:
    return [each for child in root.__subclasses__() for each in (child, *classes(child))]


TREE = re.compile(r"[|`]-- (\w+) +(\w+) +(\w+)")


def tree() -> dict[str, tuple[str, str]]:
    return {name: (code, retry) for name, code, retry in TREE.findall(errors.__doc__ or "")}


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert tree() == {each.__name__: (each.code, each.retry.value) for each in classes()}
    assert len(classes()) >= 10


def test_codes_are_unique_and_fit_for_urls_and_labels() -> None:
    codes = [each.code for each in classes()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_each_error_has_a_sentence_of_its_own_or_that_of_its_detail(kind: type[CaptureError]) -> None:
    assert re.fullmatch(r"[A-Z].*\.", str(kind()))
    assert str(kind("Something else.")) == "Something else."


def test_each_kind_of_retry_has_a_ladder() -> None:
    assert set(LADDERS) | {Retry.NEVER} == set(Retry)


# --- libav's errors ---


def libav_errors(root: type[av.error.FFmpegError] = av.error.FFmpegError) -> Iterator[type[av.error.FFmpegError]]:
    yield root
    for child in root.__subclasses__():
        yield from libav_errors(child)


LIBAV_ERRORS = sorted(set(libav_errors()), key=lambda kind: kind.__name__)


def test_there_are_libav_errors_to_be_mapped() -> None:
    exported = {each for _, each in inspect.getmembers(av.error, inspect.isclass)}
    assert set(LIBAV_ERRORS) == {each for each in exported if issubclass(each, av.error.FFmpegError)}
    assert {av.error.InvalidDataError, av.error.MemoryError, av.error.PatchWelcomeError} <= exported


@pytest.mark.parametrize("kind", LIBAV_ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_of_libav_at_decoding_is_one_of_ours(kind: type[av.error.FFmpegError]) -> None:
    """Raised in place of libav: it cannot be made to fail in each of its ways."""

    class Failing:
        def decode(self, packet: object) -> None:
            raise kind(-1, "No such thing", "a name")

    decoder = LibavDecoder("h264")
    decoder._context = Failing()  # type: ignore[assignment]
    with pytest.raises(errors.Undecodable) as caught:
        decoder.decode(b"", 1)
    assert caught.value.__suppress_context__
    with pytest.raises(errors.Undecodable) as caught:
        decoder.drain()
    assert caught.value.__suppress_context__


# --- libav opens nothing: its RTSP follows redirects with the password, and looks up again what was checked ---


def parts_of_libraries(path: Path) -> set[str]:
    """What a file takes of PyAV and OpenCV, as dotted names: "av.CodecContext", "cv2.imencode"."""
    tree = ast.parse(path.read_text())
    parts = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    parts |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    parts |= {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    return {part for part in parts if part.startswith(("av.", "cv2."))}


def test_of_libav_only_the_codecs_are_used() -> None:
    """And of OpenCV, which has a libav of its own, nothing that opens a file or an address."""
    files = [*(ROOT / "streams").rglob("*.py"), *(ROOT / "rtspsite").rglob("*.py"), ROOT / "manage.py"]
    used = set[str]().union(*map(parts_of_libraries, files))
    codecs = ("av.CodecContext", "av.Packet", "av.VideoFrame", "av.codec", "av.error", "av.logging", "av.packet")
    assert {"av.CodecContext.create", "cv2.imencode"} <= used
    assert [part for part in used if part.startswith("av.") and not part.startswith((*codecs, "av.video"))] == []
    assert [part for part in used if re.match(r"cv2\.(Video|imread|imwrite|imcount|FileStorage)", part)] == []


BROKEN = """
import ctypes, os, sys, threading, time
import av
from streams.engine.address import parse
from streams.engine.report import Settings
from streams.engine.session import Session

libraries = {line.split()[-1] for line in open("/proc/self/maps") if "libavformat" in line}  # OpenCV has its own
names = ("avformat_open_input", "avio_open", "avio_open2", "avio_alloc_context", "avformat_alloc_context")
with open("/proc/self/mem", "r+b", buffering=0) as memory:  # what the processor meets there is no code any more
    for library in map(ctypes.CDLL, libraries):
        for name in names:
            memory.seek(ctypes.cast(getattr(library, name), ctypes.c_void_p).value)
            memory.write(bytes(16))
if os.fork() == 0:
    try:
        av.open("/dev/null")
    finally:
        os._exit(0)
assert os.WIFSIGNALED(os.wait()[1]), "it is not broken"
session = Session(Settings(parse(sys.argv[1]), 0.1, 3))
runs = threading.Thread(target=session.run, daemon=True)
runs.start()
until_s = time.monotonic() + 60
while session.report().counters.samples < 3 and time.monotonic() < until_s:
    time.sleep(0.02)
session.stop.set()
runs.join(60)  # a thread that decodes at the exit is a fault of its own
print(session.report().counters.samples >= 3, session.report().status.error_code)
"""


def test_a_capture_needs_nothing_of_libav_that_opens_anything() -> None:
    """In a process in which whatever opens a file, an address or a buffer by libav ends that process."""
    with ScriptedCamera(Scene(160, 120, (40, 200), fps=10, gop_s=0.5)) as camera:
        done = subprocess.run(
            [sys.executable, "-c", BROKEN, camera.url], cwd=ROOT, text=True, capture_output=True, timeout=120
        )
    assert (done.returncode, done.stdout) == (0, "True \n"), done.stderr
