"""The addresses of this machine. The only place that asks the system for them."""

import ipaddress
import socket

import ifaddr

from mesh.addresses import Address
from mesh.types import NodeId

LOOPBACK = "127.0.0.1"
ANY = "::"
"""Where to listen for both kinds of addresses."""

MDNS_GROUP = "224.0.0.251"


def local_hosts() -> list[str]:
    """This machine's IPv4 addresses that others may reach, then loopback.

    Link-local addresses (169.254…) count only if there is nothing else: on two machines with one
    cable between them they are all there is.
    """
    usable: list[str] = []
    link_local: list[str] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if not ip.is_IPv4 or not isinstance(ip.ip, str):
                continue
            address = ipaddress.ip_address(ip.ip)
            if address.is_loopback or address.is_unspecified:
                continue
            (link_local if address.is_link_local else usable).append(ip.ip)
    return [*dict.fromkeys(usable or link_local), LOOPBACK]


def local_ipv6_hosts() -> list[str]:
    """This machine's IPv6 addresses that others may reach. Link-local ones mean nothing without an interface."""
    found = [ip.ip[0] for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv6]
    addresses = ((host, ipaddress.ip_address(host)) for host in dict.fromkeys(found))
    return [str(host) for host, a in addresses if not (a.is_link_local or a.is_loopback or a.is_unspecified)]


def check_multicast(host: str) -> None:
    """Find out whether the interface with address `host` takes part in mDNS.

    Raises:
        OSError: it does not, or no interface has that address.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        group = socket.inet_aton(MDNS_GROUP) + socket.inet_aton(host)
        probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)


def dialable_addresses(host: str, port: int, node_id: NodeId) -> tuple[str, ...]:
    """What to announce when listening on `host`, as multiaddrs."""
    if host == ANY:
        hosts = [*local_hosts(), *local_ipv6_hosts()]
    else:
        hosts = local_hosts() if host in ("", "0.0.0.0") else [host]
    return tuple(str(Address(h, port, node_id)) for h in hosts)
