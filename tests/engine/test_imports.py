"""What the engine imports, and that its errors are whole."""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import av.error
import pytest

import streams.engine
from streams.engine import errors
from streams.engine.backoff import LADDERS
from streams.engine.decoder import LibavDecoder
from streams.engine.errors import CaptureError, Retry

ROOT = Path(__file__).resolve().parents[2]
MODULES = [f"streams.engine.{module.name}" for module in pkgutil.iter_modules(streams.engine.__path__)]
STRANGERS = {"django", "django_q", "environs", "sqlite3", "psycopg", "redis", "rtspsite", "cryptography"}
IMPORT = "import importlib, json, sys; importlib.import_module(sys.argv[1]); print(json.dumps([*sys.modules]))"


def loaded_with(module: str) -> list[str]:
    """What a new interpreter has loaded when it has imported the module."""
    command = [sys.executable, "-c", IMPORT, module]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True, timeout=120)
    names: list[str] = json.loads(done.stdout)
    return names


@pytest.mark.parametrize("module", MODULES)
def test_the_engine_knows_no_django(module: str) -> None:
    loaded = loaded_with(module)
    assert module in loaded
    assert {name.partition(".")[0] for name in loaded} & STRANGERS == set()
    # nor anything of ours above it
    assert {name for name in loaded if name.startswith("streams")} <= {"streams", "streams.engine", *MODULES}


PURE = ["address", "backoff", "coded", "copies", "errors", "h26x", "interleaved", "jpeg", "leaderboard", "mpeg4"]
PURE += ["notices", "resolver", "rtcp", "rtp", "rtsp", "rtsp_auth", "rtsp_message", "sdp", "stream_clock"]


@pytest.mark.parametrize("module", PURE)
def test_what_is_pure_loads_no_codec(module: str) -> None:
    """A web process checks addresses; it shall not carry libav for it."""
    assert {name.partition(".")[0] for name in loaded_with(f"streams.engine.{module}")} & {
        "av",
        "cv2",
        "numpy",
    } == set()


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


def test_nothing_opens_a_container() -> None:
    """libav's RTSP follows redirects with the password, and resolves names again that have been checked."""
    opening = [path.name for path in Path(streams.engine.__path__[0]).rglob("*.py") if "av.open" in path.read_text()]
    assert opening == []
