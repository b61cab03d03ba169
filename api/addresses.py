"""Which addresses a node fetches from on behalf of a client. Pure.

A URL in a request makes this node connect somewhere, from inside its network: to routers, databases and the metadata
services of clouds, if it were let. So only addresses of the public internet are allowed, however they are written.
"""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_METADATA = frozenset(map(ipaddress.ip_address, ("168.63.129.16", "100.100.100.200", "192.0.0.192")))
"""Services of clouds (Azure, Alibaba, Oracle) for their machines alone, some at addresses that look public."""


def is_public(text: str) -> bool:
    """Whether an address, as `getaddrinfo` writes it, is one of the public internet."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(_is_public(each) for each in (address, *_inside(address)))


def _is_public(address: Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved and address not in _METADATA


def _inside(address: Address) -> list[Address]:
    """IPv4 addresses that an IPv6 address leads to."""
    if not isinstance(address, ipaddress.IPv6Address):
        return []
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]
