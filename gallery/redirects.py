"""Where a download may go. Pure.

The address that a user typed may be anything, this machine included. What a server sends us on to may not lead from
the internet into this network: that would let a stranger's server ask our router, our neighbours, or us.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import SplitResult, urljoin, urlsplit

from gallery.errors import InstallError

MAX_REDIRECTS = 8
SECRETS = frozenset({"authorization", "cookie"})
PORTS = {"http": 80, "https": 443}


def is_private(address: str) -> bool:
    """Whether an IP address is anything but a public one."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # An address of the other kind in disguise: mapped, 6to4, or behind a NAT64.
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_private(str(inner))
    return not ip.is_global or ip.is_multicast


def split(url: str) -> SplitResult:
    """The parts of an http(s) address.

    Raises:
        InstallError: it is none.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (checks it)
    except ValueError as error:
        raise InstallError(f"{url[:200]} is no web address: {error}", code="unsafe") from error
    if parts.scheme not in PORTS or not parts.hostname:
        raise InstallError(f"{url[:200]} is no http or https address", code="unsafe")
    if parts.username is not None:
        raise InstallError(
            f"the address of {parts.hostname} has a name or password in it; put them into ~/.netrc", code="unsafe"
        )
    if any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise InstallError(f"{url[:200]!r} has characters that no web address has", code="unsafe")
    return parts


def redirected(url: str, location: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Where a redirect of `url` leads, and the headers that may go there: secrets stay with their host.

    Raises:
        InstallError: it leaves encryption, or leads to no web address.
    """
    try:
        target = urljoin(url, location)
    except ValueError as error:
        raise InstallError(f"{split(url).hostname} redirects to no web address: {error}", code="unsafe") from error
    old, new = split(url), split(target)
    if old.scheme == "https" and new.scheme != "https":
        raise InstallError(f"{old.hostname} redirects from https to plain http; refused", code="unsafe")
    same = (old.scheme, old.hostname, old.port) == (new.scheme, new.hostname, new.port)
    return target, {k: v for k, v in headers.items() if same or k.lower() not in SECRETS}
