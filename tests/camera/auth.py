"""Who is let in: Basic and Digest (RFC 2617, MD5, with and without qop) as cameras ask for them."""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from typing import Literal

Scheme = Literal["digest", "basic"]

_REALM = "Scripted camera"
# A quoted value ends at the quote before a comma or the end: libav does not escape quotes in a user name.
_FIELD = re.compile(r'(\w+)\s*=\s*(?:"(.*?)"(?=\s*(?:,|$))|([^\s",]+))')


class Guard:
    """One per camera: it knows the nonces that it gave out. `has_qop` asks for qop="auth"."""

    def __init__(self, username: str, password: str, scheme: Scheme, *, has_qop: bool = False) -> None:
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
        return f'Digest realm="{_REALM}", nonce="{nonce}"' + (', qop="auth"' if self._has_qop else "")

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
        right = given.get("username") == self._username and given.get("uri") == uri and nonce in self._nonces
        middle = [nonce]
        if self._has_qop:
            right = right and given.get("qop") == "auth"
            middle += [given.get("nc", ""), given.get("cnonce", ""), "auth"]
        identity = _md5(f"{self._username}:{_REALM}:{self._password}")
        expected = _md5(":".join([identity, *middle, _md5(f"{method}:{uri}")]))
        return right and hmac.compare_digest(given.get("response", "").encode(), expected.encode())


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
