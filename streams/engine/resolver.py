"""Find where an address lies, and refuse what may not be connected to."""

import socket

from .address import Address, check_ip
from .errors import Unreachable


def resolve(address: Address) -> list[str]:
    """The IP addresses of the host, all of them allowed. Raises Unreachable or AddressRefused."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:
        raise Unreachable(f"The host name {address.host} cannot be resolved.") from None
    ips = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for ip in ips:
        check_ip(ip)
    return ips
