"""Parse, check and redact an RTSP URL. Pure: nothing is looked up or connected."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import quote, unquote, unquote_plus

from .errors import AddressRefused, InvalidURL

DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322}  # RFC 7826 section 22.14
MAX_URL_LENGTH = 1000
# User name and password with a colon between them, as they are typed; cameras take 32 or 64 of each at most.
MAX_USERINFO_LENGTH = 255
MAX_NAME_LENGTH = 64
MAX_HOST_LENGTH = 253  # RFC 1035 section 2.3.4
MAX_REDIRECT_PORTS = 16
MASK = "***"
Networks = tuple[IPv4Network | IPv6Network, ...]
"""Empty: no limit."""
# Where clouds tell a machine its own secrets, beside the link-local 169.254.169.254 of most of them.
METADATA = (
    ip_network("fd00:ec2::/32"),  # AWS: instance metadata (::254) and EKS pod identity (::23), by their documentation
    ip_network("fd20:ce::254"),  # Google Cloud
    ip_network("168.63.129.16"),  # Azure: "What is IP address 168.63.129.16?"
    ip_network("192.0.0.192"),  # Oracle Cloud Classic
    ip_network("fd00:c1::a9fe:a9fe"),  # Oracle Cloud
    ip_network("100.100.100.200"),  # Alibaba Cloud
    ip_network("fd00:100::100:200"),  # the same
    ip_network("100.96.0.96"),  # Volcengine
    ip_network("fd00:42::42"),  # Scaleway: cloud-init's DataSourceScaleway
    ip_network("fd00:a9fe:a9fe::1"),  # Akamai (Linode)
)
_NO_HOSTS = (
    ip_network("0.0.0.0/8"),  # "this network": Linux takes 0.0.0.0 for itself
    ip_network("169.254.0.0/16"),
    ip_network("224.0.0.0/4"),
    ip_network("240.0.0.0/4"),  # reserved, and 255.255.255.255
    ip_network("fe80::/10"),
    ip_network("ff00::/8"),
    # IPv4 inside IPv6 by ways that nobody offers any more, but that a router may still take.
    ip_network("::/96"),  # IPv4-compatible (RFC 4291 section 2.5.5.1), and :: itself
    ip_network("::ffff:0:0:0/96"),  # IPv4-translated (RFC 2765)
    ip_network("2001::/32"),  # Teredo
    ip_network("2002::/16"),  # 6to4 (RFC 7526)
)
_LOOPBACK = ip_address("::1")
# NAT64: RFC 6052 section 2.1, and RFC 8215, below which a network may choose any of the places of section 2.2.
_NAT64 = ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ip_network("64:ff9b:1::/48")
_NAT64_PLACES = ((6, 7, 9, 10), (7, 9, 10, 11), (9, 10, 11, 12), (12, 13, 14, 15))
_MAPPED = IPv6Network("::ffff:0:0/96")
# Keys under which cameras and relays take credentials in the query, and words that others of them hold.
_API_KEYS = {"access_key", "accesskey", "api-key", "api_key", "apikey", "key"}
SECRET_KEYS = frozenset({*_API_KEYS, "jwt", "login", "sig", "signature", "user", "username", "usr"})
SECRET_WORDS = ("auth", "cred", "pas", "psw", "pwd", "secret", "token")
# A value that holds one of another key, or another address with user information: relays take the camera's so.
_INNER_KEY = re.compile(r"[?&;,]\s*([\w.-]+)=")
_INNER_USERINFO = re.compile(r"://.*@", re.DOTALL)
# Recorders of the XMEye kind take them in the path: /user=admin_password=..._channel=1_stream=0.sdp
# What is masked already is one as well: so many are there as there are masks.
_PATH_SECRET = re.compile(
    r"(?:auth|passwd|password|pass|pwd|psw|secret|token)(?:=|%3d)(?P<value>(?:[^/_&;%]|_(?![a-z]+(?:=|%3d))|%(?!26|3b))*)"
    r"|(?<![a-z])[a-z]++(?::|%3a)(?:/|%2f){2}(?P<userinfo>.*)(?=@|%40)"
    rf"|(?P<masked>{re.escape(MASK)})",
    re.IGNORECASE,
)

_SCHEME = re.compile(r"(rtsps?)://(.*)", re.IGNORECASE | re.DOTALL)
_TWO_SCHEMES = re.compile(r"\s*rtsps?://\s*(?:[^/?#]*@)?(?:rtsps?|https?)://", re.IGNORECASE)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s@:/?#\[\]%\\]+)(?::(?P<port>[0-9]{0,5}))?")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
# What inet_aton(3) takes for an IPv4 address: 2852039166, 0xa9fea9fe, 0251.0376.0251.0376, 169.254.43518. People and
# resolvers read some of them differently (010.0.0.1), so only one spelling is one. No top-level domain is a number.
_ENDS_IN_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9A-Fa-f]*)$")
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
        query = [(key, MASK if _is_secret(key, value) else value) for key, value in self.query]
        return self._url("", _PATH_SECRET.sub(_masked, self.path), query)

    @property
    def secret(self) -> str:
        """What `public` leaves out, as JSON for an encrypted field; empty where there is nothing to hide."""
        in_query = [value for key, value in self.query if _is_secret(key, value)]
        in_path = [match[match.lastgroup] for match in _PATH_SECRET.finditer(self.path) if match.lastgroup]
        if self.username is None and not in_query and not in_path:
            return ""
        userinfo = {"username": self.username, "password": self.password}
        return json.dumps({**userinfo, "query": in_query, "path": in_path})

    def url(self) -> str:
        """The URL to connect to, credentials included, each percent-encoded once. Never to be shown."""
        return self._url(self._userinfo(), self.path, self.query)

    def with_credentials(self, username: str | None, password: str | None) -> "Address":
        """With these in place of its own, taken literally; a password without a user name has an empty one.

        Raises InvalidURL, which quotes neither.
        """
        if username is None and password is not None:
            username = ""
        if _CONTROL.search(f"{username or ''}{password or ''}"):
            raise InvalidURL("The user name or password holds a control character.")
        address = replace(self, username=username, password=password)
        _check_lengths(address)
        return address

    @property
    def lacks_credentials(self) -> bool:
        """Whether it has no user name, or a mask in place of a secret: as `public` is written."""
        return self.username is None or MASK in self.path or any(value == MASK for _, value in self.query)

    def without_user(self) -> "Address":
        return replace(self, username=None, password=None)

    def filled_from(self, stored: "Address") -> "Address":
        """With the credentials that it lacks taken from an address of the same `public`."""
        has_user = self.username is not None
        pairs = zip(self.query, stored.query, strict=True)
        return replace(
            self,
            path=stored.path if MASK in self.path else self.path,
            query=tuple((key, known if value == MASK else value) for (key, value), (_, known) in pairs),
            username=self.username if has_user else stored.username,
            password=self.password if has_user else stored.password,
        )

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
        # A password that is empty is told as one: cameras ask for "password=", too.
        pairs = "&".join(f"{key}={value}" if value or _is_secret_key(key) else key for key, value in query)
        return f"{self.scheme}://{userinfo}{host}{port}{path}{'?' + pairs if pairs else ''}"


def parse(text: str) -> Address:
    """Take a URL apart as people write it: a password may hold `@`, `/`, `#`, `:` or `%` unescaped.

    A URL that RFC 3986 allows is read as RFC 3986 says. Only where that gives no valid host is the
    user information read up to a later `@`. Raises InvalidURL with a sentence that never quotes the URL.
    """
    if _TWO_SCHEMES.match(text):
        raise InvalidURL("The address has a second scheme, as in rtsp://rtsp://. Remove one of the two.")
    return _parse(text)


def _parse(text: str) -> Address:
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
    address = replace(_parse(public.replace("://", "://_@", 1)), username=None, password=None)
    if not secret:
        return address
    held = json.loads(secret)
    values, in_path = iter(held["query"]), iter(held["path"])
    query = tuple((key, next(values, value) if value == MASK else value) for key, value in address.query)
    path = re.sub(re.escape(MASK), lambda mask: next(in_path, mask[0]), address.path)
    return replace(address, path=path, query=query, username=held["username"], password=held["password"])


def is_secret(text: str) -> bool:
    """Whether `join` can read it: what `secret` gives, and nothing else."""
    try:
        held = json.loads(text)
        texts = [*held["query"], *held["path"]]
        is_listed = isinstance(held["query"], list) and isinstance(held["path"], list)
        names = [held[name] for name in ("username", "password") if held[name] is not None]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return is_listed and all(isinstance(value, str) for value in (*texts, *names))


def parse_networks(text: str) -> Networks:
    """`192.168.0.0/16, 10.1.2.3, fd00::/8`. Raises ValueError with a sentence about the first that is none."""
    networks: list[IPv4Network | IPv6Network] = []
    for word in filter(None, map(str.strip, text.split(","))):
        network = _network(word)
        if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
            raise ValueError(f"{word}: write IPv4 addresses as such; ::ffff:192.0.2.1 is compared as 192.0.2.1.")
        networks.append(network)
    return tuple(networks)


def parse_ports(text: str) -> tuple[int, ...]:
    """`1554, 8554`. Raises ValueError with a sentence about the first that is none."""
    words = [word for word in map(str.strip, text.split(",")) if word]
    for word in words:
        if not (word.isascii() and word.isdigit() and 1 <= int(word[:6]) <= 65_535):
            raise ValueError(f"{word} is no port: write numbers from 1 to 65535, 1554,8554.")
    if len(words) > MAX_REDIRECT_PORTS:
        raise ValueError(f"It names {len(words)} ports: {MAX_REDIRECT_PORTS} are the most.")
    return tuple(int(word) for word in words)


def check_ip(ip: str, networks: Networks = ()) -> None:
    """Refuse an IP address at which no camera lives but a host's own secrets may, and one outside of `networks`.

    What is refused stays so if it is in `networks`. Raises AddressRefused.
    """
    address = _plain(ip)
    if any(address in network for network in METADATA):
        words = f"This service does not connect to {address}: no camera, but a cloud's own service."
        raise AddressRefused(words, is_for_ever=True)
    if address != _LOOPBACK and any(address in network for network in _NO_HOSTS):
        words = f"This service does not connect to {address}: link-local or not a host."
        raise AddressRefused(words, is_for_ever=True)
    for inner in _behind_nat64(address):
        check_ip(inner)
    if networks and not any(address in network for network in networks):
        raise AddressRefused(f"This service does not connect to {address}: CAPTURE_ALLOWED_NETWORKS leaves it out.")


def check_literal(address: Address, networks: Networks = ()) -> None:
    """Refuse at once what needs no look-up to be refused; a name is checked when it is resolved."""
    if is_literal(address.host):
        check_ip(address.host, networks)
    elif _ENDS_IN_NUMBER.search(address.host):
        words = "An IPv4 address is written as four decimal numbers from 0 to 255: 192.0.2.7."
        raise AddressRefused(words, is_for_ever=True)


def is_literal(host: str) -> bool:
    """Whether it is an IP address in the one spelling that is taken."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _network(word: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(word, strict=False)
    except ValueError:
        raise ValueError(f"{word} is no network: write 192.168.0.0/16, 10.1.2.3 or fd00::/8.") from None
    if network.network_address != ip_address(word.partition("/")[0]):
        raise ValueError(f"{word} is no network: is {network} meant?")
    return network


def _plain(ip: str) -> IPv4Address | IPv6Address:
    address = ip_address(ip.partition("%")[0])
    return (address.version == 6 and address.ipv4_mapped) or address


def _behind_nat64(address: IPv4Address | IPv6Address) -> Iterator[str]:
    """The IPv4 addresses that a translator may read in it."""
    if address in _NAT64:
        yield str(IPv4Address(address.packed[12:]))
    elif address in _LOCAL_NAT64:
        for place in _NAT64_PLACES:
            found = IPv4Address(bytes(address.packed[index] for index in place))
            if int(found) >> 24:  # mere padding, at another translator's place
                yield str(found)


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
    if len(address.username or "") + 1 + len(address.password or "") > MAX_USERINFO_LENGTH:
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
            return str(IPv6Address(host[1:-1]))
        except ValueError:
            raise InvalidURL("The address has no valid IPv6 host.") from None
    try:
        ascii_host = host.lower().rstrip(".").encode("idna").decode().rstrip(".")
    except UnicodeError:
        raise InvalidURL("The address has no valid host name.") from None
    if len(ascii_host) > MAX_HOST_LENGTH or not all(_LABEL.fullmatch(label) for label in ascii_host.split(".")):
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


def _is_secret(key: str, value: str) -> bool:
    plain = unquote_plus(value)
    inner = (match[1] for match in _INNER_KEY.finditer(plain))
    return (
        value == MASK or _is_secret_key(key) or bool(_INNER_USERINFO.search(plain)) or any(map(_is_secret_key, inner))
    )


def _is_secret_key(key: str) -> bool:
    plain = unquote_plus(key).lower()
    return plain in SECRET_KEYS or any(word in plain for word in SECRET_WORDS)


def _masked(match: re.Match[str]) -> str:
    """A part of the path."""
    begin, end = match.span(match.lastgroup or 0)
    return match.string[match.start() : begin] + MASK + match.string[end : match.end()]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:MAX_NAME_LENGTH]
