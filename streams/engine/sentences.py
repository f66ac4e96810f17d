"""Finds the words in a text that the service's own code wrote, as against those of a camera or a client.

A password may be a plain word: "password", "camera", "interval". To mask it in the service's own sentences hides the
sentence and not the password. The sentences are the constants of the code: Python compiles an f-string to the pieces
between its values, and a format is cut here at its placeholders. A piece is found again in a text by its letters; the
values between two pieces belong to none.
"""

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

_ROOT = Path(__file__).parents[2]
_PARTS = ("streams", "rtspsite")
LONGEST = 400  # longer constants are no sentences; neither are those with a line break
REMEMBERED = 4096
_PLACEHOLDER = re.compile(r"%[-#0 +]*[\d*]*(?:\.\d+)?[a-zA-Z%]|\{[^{}]*\}")
# Two words: a single one, as a field's name or an error's code, is still masked where a client sends it.
_WORDS = re.compile(r"[A-Za-z]{2,}[^A-Za-z\s]*\s[^A-Za-z]*[A-Za-z]{2,}")
_KEY = re.compile(r"\s\w+=")  # of an f-string that is a line of the log
_LOG_FORMAT = re.compile(r"\w=%")


def is_own(text: str, begin: int, end: int) -> bool:
    """Return whether these characters stand inside a piece that the code itself wrote."""
    return any(text.startswith(piece, begin - at) for at, piece in _places(text[begin:end]) if at <= begin)


@lru_cache(REMEMBERED)
def _places(words: str) -> tuple[tuple[int, str], ...]:
    """Return every piece that holds these words, and where it holds them."""
    return tuple((match.start(), piece) for piece in _pieces() for match in re.finditer(re.escape(words), piece))


@cache
def _pieces() -> frozenset[str]:
    """Read all pieces from the compiled modules: 0.15 s, once, when a secret is first found in a text."""
    files = [file for part in _PARTS for file in sorted((_ROOT / part).rglob("*.py"))]
    return frozenset(piece for file in files for constant in _constants_of(file) for piece in _split(constant))


def _constants_of(file: Path) -> Iterator[str]:
    try:
        code = SourceFileLoader(file.stem, str(file)).get_code(file.stem)
    except (OSError, SyntaxError, ValueError):  # replaced at this moment by another version
        return
    if code:
        yield from _texts(code)


def _texts(constant: object) -> Iterator[str]:
    if isinstance(constant, str):
        yield constant
    elif isinstance(constant, CodeType):
        for inner in constant.co_consts:
            yield from _texts(inner)
    elif isinstance(constant, (tuple, frozenset)):
        for inner in constant:
            yield from _texts(inner)


def _split(constant: str) -> Iterator[str]:
    if len(constant) > LONGEST or "\n" in constant:
        return
    is_log_format = bool(_LOG_FORMAT.search(constant))
    for piece in _PLACEHOLDER.split(constant):
        if (is_log_format and piece.strip()) or _WORDS.search(piece) or _KEY.fullmatch(piece):
            yield piece
