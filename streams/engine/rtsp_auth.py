"""What to answer to a 401: Basic and Digest (RFC 7616, 2617). Pure but for the client's own nonce."""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

# RFC 7616 section 3.7; "-sess" is the same hash with another first part. Some builds of OpenSSL lack the second one.
_ALL_HASHES = {"sha-256": "sha256", "sha-512-256": "sha512_256", "md5": "md5"}
_HASHES = {token: name for token, name in _ALL_HASHES.items() if name in hashlib.algorithms_available}
# SHA-512-256 is the last choice but MD5: servers do not agree whether it is SHA-512/256 or a SHA-512 that is cut off.
_STRENGTHS = {"md5": 2, "sha-512-256": 3, "sha-256": 4}
_TOKEN = re.compile(r"[\w-]{1,32}", re.ASCII)
_MAX_CHALLENGE_LENGTH = 4096
# A quoted value ends at a quote before a comma or the end: cameras leave quotes inside a realm as they are. A bare
# one may hold blanks. "Basic" and "Digest" stand alone, or with a comma after them, too (GStreamer's tests).
_PARAMETER = re.compile(
    r"""(?<![\w-])(?:
        (?P<alone>basic|digest)(?![\w-])(?!\s*+=)
        |(?:(?P<scheme>[A-Za-z][\w-]*+)\s++(?=[\w-]++\s*+=))?
        (?P<name>[\w-]++)\s*+=\s*+
        (?:"(?P<quoted>(?:\\.|[^"\\]|"(?!\s*(?:,|$)))*)"
        |(?P<bare>[^\s,]*+(?:[ \t]++(?!(?:basic|digest)\b|[\w-]++\s*+=)[^\s,]++)*+)))""",
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme that the server offers, "basic" or "digest"; names of parameters in lower case, values raw."""

    scheme: str
    parameters: dict[str, str]

    @property
    def algorithm(self) -> str:
        """In lower case: "md5", "sha-256-sess"."""
        return self.parameters.get("algorithm", "").strip().lower() or "md5"

    @property
    def has_qop(self) -> bool:
        return bool(self._qops)

    @property
    def is_stale(self) -> bool:
        return self.parameters.get("stale", "").lower() == "true"

    @property
    def strength(self) -> int:
        """0: cannot be met."""
        if self.scheme == "basic":
            return 1
        name = self.algorithm.removesuffix("-sess")
        is_known = self.scheme == "digest" and "nonce" in self.parameters and name in _HASHES
        if not is_known or (self._qops and "auth" not in self._qops):
            return 0
        return _STRENGTHS[name]

    @property
    def told(self) -> str:
        """What it asks for, in a few words of the camera's own; empty where these are not plain ones."""
        name = self.algorithm.removesuffix("-sess")
        if self.scheme != "digest":
            words = [self.scheme.capitalize()]
        elif name in _HASHES and self._qops and "auth" not in self._qops:
            words = ["Digest", "with", "qop", *self._qops]
        else:
            words = ["Digest", "with", "algorithm", self.parameters.get("algorithm", "MD5").strip()]
        return " ".join(words) if all(map(_TOKEN.fullmatch, words)) else ""

    @property
    def _qops(self) -> list[str]:
        return [each.strip().lower() for each in self.parameters.get("qop", "").split(",") if each.strip()]


def challenges(values: Iterable[str]) -> list[Challenge]:
    """Of the values of all WWW-Authenticate headers; each may hold several."""
    found: list[Challenge] = []
    for value in values:
        found += _challenges(value[:_MAX_CHALLENGE_LENGTH])
    return found


def _challenges(value: str) -> list[Challenge]:
    found: list[Challenge] = []
    for match in _PARAMETER.finditer(value):
        if scheme := match["scheme"] or match["alone"]:
            found.append(Challenge(scheme.lower(), {}))
        if found and match["name"]:
            quoted = match["quoted"]
            found[-1].parameters.setdefault(match["name"].lower(), match["bare"] if quoted is None else quoted)
    return found


@dataclass(slots=True)
class Authorizer:
    """Holds a user name and a password, and the challenge that is being met. Its repr tells neither."""

    username: str = field(repr=False)
    password: str = field(repr=False)
    _met: Challenge | None = field(default=None, repr=False)
    _count: int = field(default=0, repr=False)

    @property
    def is_meeting(self) -> bool:
        return self._met is not None

    @property
    def nonce(self) -> str | None:
        """Of the challenge that is being met."""
        return self._met.parameters.get("nonce") if self._met else None

    @property
    def algorithm(self) -> str:
        """Of the Digest that is being met, in lower case; empty: none."""
        return self._met.algorithm if self._met and self._met.scheme == "digest" else ""

    def meet(self, offered: list[Challenge]) -> bool:
        """From now on meet the strongest of these; False if none can be met."""
        best = max(offered, key=lambda challenge: challenge.strength, default=None)
        if best is None or not best.strength:
            return False
        self._met, self._count = best, 0
        return True

    def header(self, method: str, uri: str) -> str:
        """The value of Authorization for this request; empty while nothing has been asked for."""
        if self._met is None:
            return ""
        if self._met.scheme == "basic":
            return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        self._count += 1
        return "Digest " + ", ".join(self._digest(self._met, method, uri))

    def _digest(self, met: Challenge, method: str, uri: str) -> list[str]:
        realm, nonce = met.parameters.get("realm", ""), met.parameters["nonce"]
        count, own_nonce = f"{self._count:08x}", secrets.token_hex(8)
        identity = _hash(met, f"{self.username}:{_unescaped(realm)}:{self.password}")
        if met.algorithm.endswith("-sess"):
            identity = _hash(met, f"{identity}:{nonce}:{own_nonce}")
        middle = [nonce, count, own_nonce, "auth"] if met.has_qop else [nonce]
        response = _hash(met, ":".join([identity, *middle, _hash(met, f"{method}:{uri}")]))
        fields = [f'username="{_escaped(self.username)}"', f'realm="{realm}"', f'nonce="{nonce}"', f'uri="{uri}"']
        fields.append(f'response="{response}"')
        # Only what was offered: simple cameras stumble over a parameter that they did not name.
        fields += [f"algorithm={met.parameters['algorithm']}"] if "algorithm" in met.parameters else []
        fields += [f'opaque="{met.parameters["opaque"]}"'] if "opaque" in met.parameters else []
        if met.has_qop:
            fields += ["qop=auth", f"nc={count}", f'cnonce="{own_nonce}"']
        elif met.algorithm.endswith("-sess"):
            fields.append(f'cnonce="{own_nonce}"')
        return fields


def _hash(met: Challenge, text: str) -> str:
    name = _HASHES[met.algorithm.removesuffix("-sess")]
    return hashlib.new(name, text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _unescaped(text: str) -> str:
    """Only what a sender must escape: a realm with a plain backslash in it is left as it is."""
    return re.sub(r'\\(["\\])', r"\1", text)
