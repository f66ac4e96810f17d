"""Who is let in: Basic and Digest (RFC 2617 and 7616, MD5 and SHA-256, with and without qop), as cameras ask."""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from typing import Literal

Scheme = Literal["digest", "basic"]

_REALM = "Scripted camera"
# A quoted value ends at a quote that is not escaped, or before a comma or the end: libav escapes none in a user name.
_FIELD = re.compile(r'(\w+)\s*=\s*(?:"((?:\\.|[^"\\]|"(?!\s*(?:,|$)))*)"|([^\s",]+))')
Algorithm = Literal["MD5", "SHA-256"]


class Guard:
    """One per camera: it knows the nonces that it gave out. `has_qop` asks for qop="auth"."""

    def __init__(
        self, username: str, password: str, scheme: Scheme, *, has_qop: bool = False, algorithm: Algorithm = "MD5"
    ) -> None:
        self._algorithm = algorithm
        self._username = username
        self._password = password
        self._scheme = scheme
        self._has_qop = has_qop
        self._nonces: set[str] = set()

    def challenge(self) -> str:
        """The value of WWW-Authenticate; a new nonce each time."""
        if self._scheme == "basic":
            return f'Basic realm="{_REALM}"'
        nonce = secrets.token_hex(16)
        self._nonces.add(nonce)
        named = ", algorithm=SHA-256" if self._algorithm == "SHA-256" else ""
        return f'Digest realm="{_REALM}", nonce="{nonce}"{named}' + (', qop="auth"' if self._has_qop else "")

    def admits(self, method: str, uri: str, authorization: str) -> bool:
        """`authorization` is the header's value, or empty; `uri` is the request's own."""
        scheme, _, rest = authorization.partition(" ")
        if scheme.lower() != self._scheme:
            return False
        return self._admits_basic(rest) if self._scheme == "basic" else self._admits_digest(method, uri, rest)

    def _admits_basic(self, token: str) -> bool:
        try:
            given = base64.b64decode(token, validate=True)
        except binascii.Error:
            return False
        return hmac.compare_digest(given, f"{self._username}:{self._password}".encode())

    def _admits_digest(self, method: str, uri: str, rest: str) -> bool:
        given = {name.lower(): quoted or bare for name, quoted, bare in _FIELD.findall(rest)}
        nonce = given.get("nonce", "")
        username = given.get("username", "")
        is_known = self._username in (username, re.sub(r'\\(["\\])', r"\1", username))
        right = is_known and given.get("uri") == uri and nonce in self._nonces
        middle = [nonce]
        if self._has_qop:
            right = right and given.get("qop") == "auth"
            middle += [given.get("nc", ""), given.get("cnonce", ""), "auth"]
        identity = self._hash(f"{self._username}:{_REALM}:{self._password}")
        expected = self._hash(":".join([identity, *middle, self._hash(f"{method}:{uri}")]))
        return right and hmac.compare_digest(given.get("response", "").encode(), expected.encode())

    def _hash(self, text: str) -> str:
        name = self._algorithm.lower().replace("-", "")
        return hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()
