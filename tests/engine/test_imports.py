"""What the engine imports, and that its errors are whole."""

from __future__ import annotations

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

ROOT = Path(__file__).resolve().parents[2]
MODULES = [f"streams.engine.{module.name}" for module in pkgutil.iter_modules(streams.engine.__path__)]
STRANGERS = {"django", "django_q", "environs", "sqlite3", "psycopg", "redis", "rtspsite", "cryptography"}
# A web process checks addresses and a supervisor hears reports: neither shall carry libav for it.
CODECS = {"av", "cv2", "numpy"}
LIGHT = ["address", "backoff", "coded", "copies", "errors", "h26x", "interleaved", "jpeg", "leaderboard", "mpeg4"]
LIGHT += ["notices", "recorder", "report", "resolver", "rtcp", "rtp", "rtsp", "rtsp_auth", "rtsp_message", "sdp"]
LIGHT += ["solo", "stream_clock", "timeline", "wire"]
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


def test_nothing_opens_a_container() -> None:
    """libav's RTSP follows redirects with the password, and resolves names again that have been checked."""
    opening = [path.name for path in Path(streams.engine.__path__[0]).rglob("*.py") if "av.open" in path.read_text()]
    assert opening == []
