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
# Keys under which cameras and relays take credentials in the query.
SECRET_KEYS = frozenset(
    {"access_token", "auth", "key", "pass", "passwd", "password", "pwd", "secret", "token", "user", "username", "usr"}
)

_SCHEME = re.compile(r"(rtsps?)://(.*)", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s@:/?#\[\]%\\]+)(?::(?P<port>\d{0,5}))?")
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
        return self._url("", [(key, _masked(key, value)) for key, value in self.query])

    @property
    def secret(self) -> str:
        """What `public` leaves out, as JSON for an encrypted field; empty where there is nothing to hide."""
        hidden = [value for key, value in self.query if _is_secret(key)]
        if self.username is None and not hidden:
            return ""
        return json.dumps({"username": self.username, "password": self.password, "query": hidden})

    def url(self) -> str:
        """The URL to connect to, credentials included, each percent-encoded once. Never to be shown."""
        return self._url(self._userinfo(), self.query)

    @property
    def name(self) -> str:
        """What a stream of this address is called: the last part of the path, or else the host."""
        last = unquote(self.path.rstrip("/").rpartition("/")[2])
        return _slug(last) or _slug(self.host) or "stream"

    def _userinfo(self) -> str:
        if self.username is None:
            return ""
        password = "" if self.password is None else ":" + quote(self.password, safe="")
        return f"{quote(self.username, safe='')}{password}@"

    def _url(self, userinfo: str, query: Iterable[tuple[str, str]]) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        pairs = "&".join(f"{key}={value}" if value else key for key, value in query)
        return f"{self.scheme}://{userinfo}{host}{port}{self.path}{'?' + pairs if pairs else ''}"


def parse(text: str) -> Address:
    """Take a URL apart as people write it: a password may hold `@`, `/`, `#`, `:` or `%` unescaped.

    A URL that RFC 3986 allows is read as RFC 3986 says. Only where that gives no valid host is the
    user information read up to a later `@`. Raises InvalidURL with a sentence that never quotes the URL.
    """
    _check_text(text)
    scheme, rest = _split_scheme(text.strip())
    userinfo, host, port, tail = _split_authority(rest)
    if "#" in tail:
        raise InvalidURL("The address must not hold a '#' after the host.")
    path, _, query = tail.partition("?")
    username, password = _split_userinfo(userinfo)
    address = Address(
        scheme=scheme,
        host=_host(host),
        port=_port(port, scheme),
        path=quote(path, safe=_PATH_SAFE),
        query=_query(query),
        username=username,
        password=password,
    )
    _check_lengths(address)
    return address


def join(public: str, secret: str) -> Address:
    """The address that gave this `public` and this `secret`."""
    address = parse(public)
    if not secret:
        return address
    held = json.loads(secret)
    values = iter(held["query"])
    query = tuple((key, next(values) if _is_secret(key) else value) for key, value in address.query)
    return replace(address, query=query, username=held["username"], password=held["password"])


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
    if len(address.public) > MAX_URL_LENGTH:
        raise InvalidURL(f"The address is longer than {MAX_URL_LENGTH} characters once it is percent-encoded.")
    if len(address._userinfo()) - 1 > MAX_USERINFO_LENGTH:
        raise InvalidURL(f"User name and password are longer than {MAX_USERINFO_LENGTH} characters together.")


def _split_scheme(text: str) -> tuple[str, str]:
    match = _SCHEME.fullmatch(text)
    if not match:
        raise InvalidURL("The address must begin with rtsp:// or rtsps://.")
    return match[1].lower(), match[2]


def _split_authority(rest: str) -> tuple[str | None, str, str | None, str]:
    """User information, host, port and what follows. Candidates: RFC 3986's reading first, then each later `@`."""
    end = min((rest.find(c) for c in "/?#" if c in rest), default=len(rest))
    first = rest.rfind("@", 0, end)
    later = [i for i in range(end, len(rest)) if rest[i] == "@"]
    for at in [first, *later]:
        match = _HOST.match(rest, at + 1)
        if match and rest[match.end() : match.end() + 1] in ("", "/", "?", "#"):
            userinfo = rest[:at] if at >= 0 else None
            return userinfo, match["host"], match["port"], rest[match.end() :]
    raise InvalidURL("The address has no valid host and port.")


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
    return tuple((key, value) for key, _, value in pairs)


def _is_secret(key: str) -> bool:
    return unquote_plus(key).lower() in SECRET_KEYS


def _masked(key: str, value: str) -> str:
    return MASK if _is_secret(key) else value


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:MAX_NAME_LENGTH]
