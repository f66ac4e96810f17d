"""Parse, check and redact an RTSP URL. Pure: nothing is looked up or connected."""

import ipaddress
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, unquote_plus

from .errors import AddressRefused, InvalidURL

DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322}  # RFC 7826 section 22.14
# libav's RTSP client cuts a path off at 1024 bytes and user information, percent-encoded, at 128.
MAX_URL_LENGTH = 1000
MAX_USERINFO_LENGTH = 127
MAX_NAME_LENGTH = 64
MASK = "***"
# Where clouds tell a machine its own secrets, beside the link-local 169.254.169.254.
METADATA_IPS = frozenset({"fd00:ec2::254", "100.100.100.200"})
# Keys under which cameras and relays take credentials in the query, and words that others of them hold.
SECRET_KEYS = frozenset({"key", "sig", "user", "username", "usr"})
SECRET_WORDS = ("auth", "pas", "psw", "pwd", "secret", "token")
# Recorders of the XMEye kind take them in the path: /user=admin_password=..._channel=1_stream=0.sdp
_PATH_SECRET = re.compile(r"((?:passwd|password|pass|pwd|psw)=)([^/_&;]*)", re.IGNORECASE)

_SCHEME = re.compile(r"(rtsps?)://(.*)", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s@:/?#\[\]%\\]+)(?::(?P<port>[0-9]{0,5}))?")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PATH_SAFE = "/%!$&'()*+,;=:@~[]"


@dataclass(frozen=True, slots=True)
class Address:
    """One RTSP address, its credentials apart. `path` and `query` are percent-encoded; the rest is plain text."""

    scheme: str
    host: str
    port: int
    path: str
    query: tuple[tuple[str, str], ...] = ()
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Address({self.public})"

    @property
    def public(self) -> str:
        """The URL without any credential: what is stored in clear, shown and logged."""
        path = _PATH_SECRET.sub(rf"\g<1>{MASK}", self.path)
        return self._url("", path, [(key, _masked(key, value)) for key, value in self.query])

    @property
    def secret(self) -> str:
        """What `public` leaves out, as JSON for an encrypted field; empty where there is nothing to hide."""
        in_query = [value for key, value in self.query if _is_secret(key)]
        in_path = [value for _, value in _PATH_SECRET.findall(self.path)]
        if self.username is None and not in_query and not in_path:
            return ""
        userinfo = {"username": self.username, "password": self.password}
        return json.dumps({**userinfo, "query": in_query, "path": in_path})

    def url(self) -> str:
        """The URL to connect to, credentials included, each percent-encoded once. Never to be shown."""
        return self._url(self._userinfo(), self.path, self.query)

    @property
    def name(self) -> str:
        """What a stream of this address is called: the last part of the path, or else the host."""
        last = unquote(_PATH_SECRET.sub("", self.path).rstrip("/").rpartition("/")[2])
        return _slug(last) or _slug(self.host) or "stream"

    def _userinfo(self) -> str:
        if self.username is None:
            return ""
        password = "" if self.password is None else ":" + quote(self.password, safe="")
        return f"{quote(self.username, safe='')}{password}@"

    def _url(self, userinfo: str, path: str, query: Iterable[tuple[str, str]]) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        pairs = "&".join(f"{key}={value}" if value else key for key, value in query)
        return f"{self.scheme}://{userinfo}{host}{port}{path}{'?' + pairs if pairs else ''}"


def parse(text: str) -> Address:
    """Take a URL apart as people write it: a password may hold `@`, `/`, `#`, `:` or `%` unescaped.

    A URL that RFC 3986 allows is read as RFC 3986 says. Only where that gives no valid host is the
    user information read up to a later `@`. Raises InvalidURL with a sentence that never quotes the URL.
    """
    _check_text(text)
    scheme, rest = _split_scheme(text.strip())
    reading = _split_authority(rest)
    if "#" in reading.tail:
        raise InvalidURL("The address must not hold a '#' after the host.")
    path, _, query = reading.tail.partition("?")
    username, password = _split_userinfo(reading.userinfo)
    address = Address(
        scheme=scheme,
        host=_host(reading.host),
        port=_port(reading.port, scheme),
        path=quote(path, safe=_PATH_SAFE),
        query=_query(query),
        username=username,
        password=password,
    )
    _check_lengths(address)
    return address


def join(public: str, secret: str) -> Address:
    """The address that gave this `public` and this `secret`."""
    # With some user information there is one way to read it, whatever `@` is in the path; without, there may be two.
    address = replace(parse(public.replace("://", "://_@", 1)), username=None, password=None)
    if not secret:
        return address
    held = json.loads(secret)
    values = iter(held["query"])
    query = tuple((key, next(values) if _is_secret(key) else value) for key, value in address.query)
    in_path = iter(held["path"])
    path = _PATH_SECRET.sub(lambda match: match[1] + next(in_path), address.path)
    return replace(address, path=path, query=query, username=held["username"], password=held["password"])


def check_ip(ip: str) -> None:
    """Refuse an IP address at which no camera lives but a host's own secrets may: raises AddressRefused."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_link_local or address.is_multicast or address.is_unspecified or str(address) in METADATA_IPS:
        raise AddressRefused(f"This service does not connect to {address}: link-local or not a host.")


def check_literal(address: Address) -> None:
    """Refuse at once what needs no look-up to be refused; a name is checked when it is resolved."""
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        return
    check_ip(address.host)


def _check_text(text: str) -> None:
    if len(text) > MAX_URL_LENGTH:
        raise InvalidURL(f"The address is longer than {MAX_URL_LENGTH} characters.")
    if "\ufffd" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidURL("The address is not valid UTF-8.")
    if _CONTROL.search(text):
        raise InvalidURL("The address holds a line break or another control character.")


def _check_lengths(address: Address) -> None:
    if len(address._url("", address.path, address.query)) > MAX_URL_LENGTH:
        raise InvalidURL(f"The address is longer than {MAX_URL_LENGTH} characters once it is percent-encoded.")
    if len(address._userinfo()) - 1 > MAX_USERINFO_LENGTH:
        raise InvalidURL(f"User name and password are longer than {MAX_USERINFO_LENGTH} characters together.")


def _split_scheme(text: str) -> tuple[str, str]:
    match = _SCHEME.fullmatch(text)
    if not match:
        raise InvalidURL("The address must begin with rtsp:// or rtsps://.")
    return match[1].lower(), match[2]


@dataclass(frozen=True, slots=True)
class _Reading:
    """One way to read what follows the scheme."""

    userinfo: str | None
    host: str
    port: str | None
    tail: str

    @property
    def is_certain(self) -> bool:
        """For the standard's reading: nothing after the host speaks against it."""
        return "#" not in self.tail and ("@" not in self.tail or bool(self.userinfo) or self.is_plausible)

    @property
    def is_plausible(self) -> bool:
        """Whether the host looks like one by itself: a password's piece has no dot and no port as a rule."""
        return "." in self.host or ":" in self.host or self.host.lower() == "localhost"


def _split_authority(rest: str) -> _Reading:
    """RFC 3986's reading, unless a later `@` shows that a delimiter before it belongs to the password."""
    end = min((rest.find(c) for c in "/?#" if c in rest), default=len(rest))
    standard = _read(rest, rest.rfind("@", 0, end))
    if standard and standard.is_certain:
        return standard
    later = [_read(rest, at) for at in range(end + 1, len(rest)) if rest[at] == "@"]
    found = [reading for reading in later if reading and _is_userinfo(reading.userinfo or "")]
    if standard and standard.port and found and "#" not in standard.tail:
        raise InvalidURL(
            "The address can be read in two ways: write %40 for an @, %2F for a / and %3F for a ? in it."
        )
    for reading in [*(reading for reading in found if reading.is_plausible), *found, standard]:
        if reading:
            return reading
    raise InvalidURL("The address has no valid host and port.")


def _read(rest: str, at: int) -> _Reading | None:
    """With the user information before the `@` at this index (-1: none), if a host and port follow it."""
    match = _HOST.match(rest, at + 1)
    if not match or rest[match.end() : match.end() + 1] not in ("", "/", "?", "#"):
        return None
    return _Reading(rest[:at] if at >= 0 else None, match["host"], match["port"], rest[match.end() :])


def _is_userinfo(text: str) -> bool:
    """`host/path` before an `@` is none; `user:pa/ss` and `user?` are."""
    return ":" in text or "/" not in text.partition("?")[0].partition("#")[0]


def _split_userinfo(userinfo: str | None) -> tuple[str | None, str | None]:
    if userinfo is None:
        return None, None
    username, colon, password = userinfo.partition(":")
    return _unquote(username), _unquote(password) if colon else None


def _unquote(text: str) -> str:
    try:
        plain = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidURL("The user name or password is not valid UTF-8.") from None
    if _CONTROL.search(plain):
        raise InvalidURL("The user name or password holds a control character.")
    return plain


def _host(host: str) -> str:
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise InvalidURL("The address has no valid IPv6 host.") from None
    try:
        ascii_host = host.lower().rstrip(".").encode("idna").decode()
    except UnicodeError:
        raise InvalidURL("The address has no valid host name.") from None
    if not all(_LABEL.fullmatch(label) for label in ascii_host.split(".")):
        raise InvalidURL("The address has no valid host name.")
    return ascii_host


def _port(text: str | None, scheme: str) -> int:
    port = int(text) if text else DEFAULT_PORTS[scheme]
    if not 1 <= port <= 65535:
        raise InvalidURL("The port must be a number from 1 to 65535.")
    return port


def _query(text: str) -> tuple[tuple[str, str], ...]:
    encoded = quote(text, safe=_PATH_SAFE + "?")
    pairs = (pair.partition("=") for pair in encoded.split("&") if pair)
    return tuple((key, value) for key, _, value in pairs if key or value)


def _is_secret(key: str) -> bool:
    plain = unquote_plus(key).lower()
    return plain in SECRET_KEYS or any(word in plain for word in SECRET_WORDS)


def _masked(key: str, value: str) -> str:
    return MASK if _is_secret(key) else value


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:MAX_NAME_LENGTH]
