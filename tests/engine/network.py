"""What a session asks of the network: seen from inside the interpreter, and by a DNS server of the test's own."""

import socket
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from dnslib import AAAA, QTYPE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSHandler, DNSLogger, DNSServer

_LIMIT_S = 60.0
_LOOK_UPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
_SENDING = ("socket.connect", "socket.sendto", "socket.sendmsg")


@dataclass
class Traffic:
    """Of one thread."""

    thread: int = field(default_factory=threading.get_ident)
    looked_up: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    """Connected or sent to."""


_watched: list[Traffic] = []


def _hear(event: str, args: tuple[Any, ...]) -> None:
    """sys.addaudithook(3): Python's own sockets pass here; there is no way to take the hook away again."""
    if not _watched or not event.startswith("socket."):
        return
    for traffic in _watched:
        if traffic.thread == threading.get_ident():
            if event in _LOOK_UPS:
                traffic.looked_up.append(str(args[0]))
            elif event in _SENDING and args[1]:
                traffic.hosts.add(str(args[1][0]))


@contextmanager
def watched() -> Iterator[Traffic]:
    """What this thread does until the end of the block."""
    if not _hooked:
        sys.addaudithook(_hear)
        _hooked.append(True)
    _watched.append(traffic := Traffic())
    try:
        yield traffic
    finally:
        _watched.remove(traffic)


_hooked: list[bool] = []


class Names(BaseResolver):  # type: ignore[misc]  # it comes without types
    """A DNS server, and a `getaddrinfo` that asks it, as the system's does with another resolv.conf.

    `answers` holds for each name what its look-ups get, one after the other; the last stays.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: dict[str, int] = defaultdict(int)
        """Look-ups of each name."""
        self._server = DNSServer(self, address="127.0.0.1", port=0, logger=DNSLogger("-log"))
        self._server.start_thread()

    def close(self) -> None:
        self._server.stop()
        self._server.server.server_close()

    def resolve(self, request: DNSRecord, handler: DNSHandler) -> DNSRecord:
        """An A question takes the next answer; the AAAA question after it gets what is IPv6 of the same one."""
        name, kind = str(request.q.qname).rstrip("."), QTYPE[request.q.qtype]
        self.asked[name] += kind == "A"
        queue = self.answers.get(name, [[]])
        ips = queue[min(self.asked[name], len(queue)) - 1]
        reply = request.reply()
        for ip in ips:
            if (":" in ip) == (kind == "AAAA"):
                data = AAAA(tuple(ip_address(ip).packed)) if ":" in ip else A(ip)
                reply.add_answer(RR(name, request.q.qtype, rdata=data, ttl=0))
        return reply

    def getaddrinfo(self, host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        at = self._server.server.server_address[1]
        found = []
        for kind, family in (("A", socket.AF_INET), ("AAAA", socket.AF_INET6)):
            reply = DNSRecord.parse(DNSRecord.question(host, kind).send("127.0.0.1", at, timeout=_LIMIT_S))
            found += [(family, socket.SOCK_STREAM, 6, "", (str(record.rdata), port)) for record in reply.rr]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found
