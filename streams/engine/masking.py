"""What must never be written anywhere: a text with each secret in it replaced by stars. The second line of defence.

Two rules, for whatever was written by mistake. Secrets that this process has met are found as literals, raw and in
the usual encodings. Others are found by where they stand: before the `@` of a URL, after `password=` and the like, in
a header `Authorization`. User names are masked by where they stand alone: as literals they would take every "admin".
The service's own sentences are spared: somebody's password may be a word of them (sentences.py).
"""

import base64
import html
import json
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus, unquote_plus

from .address import MASK, MAX_URL_LENGTH
from .sentences import is_own

# A secret of up to three characters is masked only where it stands as one: as a literal it is in every line.
SHORTEST = 4
# Up to here a literal is masked only between other characters: "1234" is not a part of 71234.
SHORT = 7
# A longer one is refused, whoever sent it: each takes a hundred times its length.
LONGEST = MAX_URL_LENGTH
# So many secrets are remembered, and characters of them, the latest: a client may send as many as it likes.
MOST = 4096
MOST_CHARACTERS = 200_000
# Without one of these a line has neither a key nor a header: told in 1 us, where the patterns take 30.
_SIGNS = (
    "pas", "psw", "pwd", "auth", "token", "secret", "credential", "key", "sig", "usr", "user", "session", "cookie"
)  # fmt: skip
# Where they are whole words; in others they mean nothing: "monkey", "signal", "users".
_WHOLE_KEYS = frozenset({"key", "sig", "signature", "usr", "user", "username", "sessionid", "cookie"})
_PART_OF_KEY = re.compile(r"pass|psw|pwd|auth|token|secret|credential|pas(?![st])|(?:^|api|[._-])key$", re.IGNORECASE)
_QUOTE = "(?:[\"']|&quot;|&#x27;|&#39;)"  # in a page, too
# A value ends where a query, a list of arguments or a sentence goes on. Possessive: nothing here is read twice.
_VALUE = (
    r"""(?:\\"[^\n]*?\\"|&(?:quot|#x27|#39);[^\n]*?&(?:quot|#x27|#39);"""
    r"""|"(?:\\.|[^"\\\n])*+"|'(?:\\.|[^'\\\n])*+'|[^\s&;,<>"')\]}]++)"""
)
_PAIR = re.compile(rf"(?P<key>(?<![\w.-])[\w.-]++)(?:=|%3d)(?P<secret>{_VALUE})", re.IGNORECASE)
_ITEM = re.compile(rf"""(?P<key>(?<=["';])[\w.-]++)\\?{_QUOTE}\s*+[:,]\s*+b?+(?P<secret>{_VALUE})""", re.IGNORECASE)
_HEADER = re.compile(r"""(?:authorization|cookie)\\?["']?\s*+[:=]\s*+(?P<secret>[^\n]++)""", re.IGNORECASE)
# A password in a camera's address may hold anything that is typed by hand: it goes up to the last "@" of the line.
_CAMERA = re.compile(r"rtsps?://(?P<secret>[^\n]{0,2000})@", re.IGNORECASE)
_URL = re.compile(r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*+://(?P<secret>[^\s\"'<>]{1,2000})@", re.IGNORECASE)
_ENCODED_URL = re.compile(
    r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*+%3a(?:%2f|/){2}(?P<secret>\S{1,2000})%40", re.IGNORECASE
)
_WORD = re.compile(r"\w")

Span = tuple[int, int]


class Masker:
    """Knows secrets and takes them out of texts. Threads may share it.

    Literals are found by their first four characters: a line costs the same with one secret and with thousands.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}
        self._by_head: dict[str, tuple[str, ...]] = {}
        self._uses: Counter[str] = Counter()
        self._characters = 0

    def remember(self, username: str, secrets: Iterable[str]) -> None:
        """Secrets that belong to this user name, which may be empty: cameras are told both as one word in base64."""
        for secret in secrets:
            if SHORTEST <= len(secret) <= LONGEST:
                self._remember(username, secret)

    def keep(self, secrets: Iterable[str]) -> None:
        """Remember these for good, however many others come: the service's own."""
        with self._lock:
            for secret in secrets:
                if len(secret) >= SHORTEST:
                    self._learn(_spellings("", secret))

    def mask(self, text: str) -> str:
        spans = [*self._literals(text), *_places(text)]
        return _masked(text, sorted(spans)) if spans else text

    def _remember(self, username: str, secret: str) -> None:
        username = username[:LONGEST]
        key = (username, secret)
        if key in self._known:
            return
        spelled = tuple(_spellings(username, secret))
        with self._lock:
            if key in self._known:  # another thread was faster: each is counted once
                return
            self._known[key] = spelled
            self._characters += len(username) + len(secret)
            self._learn(spelled)
            while len(self._known) > MOST or self._characters > MOST_CHARACTERS:
                self._forget(next(iter(self._known)))

    def _learn(self, spelled: Iterable[str]) -> None:
        for literal in spelled:
            self._uses[literal] += 1
            same_head = {*self._by_head.get(literal[:SHORTEST], ()), literal}
            self._by_head[literal[:SHORTEST]] = tuple(sorted(same_head, key=len, reverse=True))

    def _forget(self, key: tuple[str, str]) -> None:
        spelled = self._known.pop(key)
        self._characters -= sum(map(len, key))
        self._uses.subtract(spelled)
        for literal in (literal for literal in spelled if not self._uses[literal]):
            del self._uses[literal]
            left = tuple(known for known in self._by_head.get(literal[:SHORTEST], ()) if known != literal)
            if left:
                self._by_head[literal[:SHORTEST]] = left
            else:
                self._by_head.pop(literal[:SHORTEST], None)

    def _literals(self, text: str) -> Iterator[Span]:
        at, heads = 0, self._by_head
        last = len(text) - SHORTEST if heads else -1
        while at <= last:
            literals = heads.get(text[at : at + SHORTEST])
            found = literals and next((each for each in literals if _is_secret_at(each, text, at)), None)
            if found:
                yield at, at + len(found)
                at += len(found)
            else:
                at += 1


def _places(text: str) -> Iterator[Span]:
    """Where secrets stand that nobody knows. All are looked for in the text as it is: none hides another one."""
    patterns = []
    if "@" in text and "://" in text:
        patterns += [_CAMERA, _URL]
    if "%40" in text:
        patterns.append(_ENCODED_URL)
    lowered = text.lower()
    if any(sign in lowered for sign in _SIGNS):
        patterns += [_HEADER, _PAIR, _ITEM]
    for pattern in patterns:
        for match in pattern.finditer(text):
            if "key" not in pattern.groupindex or _is_secret(match["key"].lower()):
                yield match.span("secret")


def _masked(text: str, spans: Iterable[Span]) -> str:
    """`spans` by their begin; those that touch or overlap become one."""
    parts, done = [], -1
    for begin, end in spans:
        if begin > done:
            parts += [text[max(done, 0) : begin], MASK]
        done = max(done, end)
    return "".join([*parts, text[max(done, 0) :]])


def _is_secret(key: str) -> bool:
    return key in _WHOLE_KEYS or bool(_PART_OF_KEY.search(key))


def _is_secret_at(literal: str, text: str, at: int) -> bool:
    return _stands(literal, text, at) and not is_own(text, at, at + len(literal))


def _stands(literal: str, text: str, at: int) -> bool:
    if not text.startswith(literal, at):
        return False
    if len(literal) > SHORT:
        return True
    end = at + len(literal)
    return not (at and _WORD.match(text[at - 1]) and _WORD.match(literal[0])) and not (
        _WORD.match(literal[-1]) and _WORD.match(text[end : end + 1])
    )


def _spellings(username: str, secret: str) -> set[str]:
    """The secret as it may stand in a URL, in JSON, in a Python string, in a page, in a header."""
    quoted = {quote(secret, safe=""), quote(secret), quote_plus(secret), quote(secret, safe="!$&'()*+,;=:@~[]")}
    quoted |= {_lower_escapes(text) for text in quoted}
    escaped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    escaped |= {ascii(secret)[1:-1], repr(secret.encode())[2:-1]}
    twice = {quote(text, safe="") for text in quoted} | {json.dumps(text)[1:-1] for text in escaped}
    plain = {secret, html.escape(secret), secret.encode().decode("latin-1")}
    coded = {_base64(text) for text in (secret, f"{username}:{secret}")}
    url_safe = {text.replace("+", "-").replace("/", "_") for text in coded}
    found = plain | quoted | escaped | twice | coded | url_safe
    return {text for text in found if len(text) >= SHORTEST}


def _base64(text: str) -> str:
    """Without the padding: a literal is found with and without it."""
    return base64.b64encode(text.encode()).decode().rstrip("=")


def _lower_escapes(text: str) -> str:
    return re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), text)


_MASKER = Masker()
remember, keep, mask = _MASKER.remember, _MASKER.keep, _MASKER.mask


def learn(secret: str) -> None:
    """Remember the credentials in this: an address's `secret`."""
    if not secret:
        return
    try:
        held = json.loads(secret)
        remember(held["username"] or "", [held["password"] or "", *held["query"], *held["path"]])
        # Of a query they are kept as they stood there, encoded or not.
        remember("", [unquote_plus(value) for value in (*held["query"], *held["path"])])
    except (ValueError, KeyError, TypeError, RecursionError):
        remember("", [secret])
