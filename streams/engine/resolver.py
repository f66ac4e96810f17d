"""Find where an address lies, and refuse what may not be connected to."""

import socket

from .address import Address, Networks, check_ip, check_literal, is_literal
from .errors import AddressRefused, Unreachable


def resolve(address: Address, networks: Networks = ()) -> list[str]:
    """The IP addresses of the host, all of them allowed. Raises Unreachable or AddressRefused.

    One that is not allowed is enough to refuse a name: whoever mixes them wants the other one to be tried next.
    """
    check_literal(address, networks)
    if is_literal(address.host):
        return [address.host]
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Unreachable(f"The host name {address.host} cannot be resolved.", is_unresolved=True) from None
    ips = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    try:
        for ip in ips:
            check_ip(ip, networks)
    except AddressRefused as error:
        raise AddressRefused(str(error)) from None  # not for ever: the name may get another address
    return ips
