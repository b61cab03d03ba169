"""What nodes say of themselves over mDNS: the TXT record, and what to believe of one. Pure.

The format is libp2p's mDNS specification: a TXT record of strings `key=value`, with one
`dnsaddr=/ip4/…/tcp/…/p2p/ID` per address. One string is ours: `shoal=FINGERPRINT`. It lets nodes of
different meshes leave each other alone on one network; other libp2p programs ignore it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mesh.addresses import Address, parse_address
from mesh.errors import AddressError
from mesh.types import NodeId

_ADDRESS_KEY = "dnsaddr"
_MESH_KEY = "shoal"

MAX_TEXT_BYTES = 4096
MAX_ADDRESSES = 16
MAX_FINGERPRINT = 64


@dataclass(frozen=True, slots=True)
class Heard:
    """A Shoal node somebody announced. Nothing of it is proven."""

    node_id: NodeId
    fingerprint: str
    addresses: tuple[Address, ...]


def write_text(addresses: Iterable[str], fingerprint: str) -> bytes:
    """The TXT record of a node. `addresses` are multiaddrs with `/p2p/ID`."""
    strings = [f"{_MESH_KEY}={fingerprint}", *(f"{_ADDRESS_KEY}={a}" for a in list(addresses)[:MAX_ADDRESSES])]
    raw = [string.encode("utf-8") for string in strings]
    return b"".join(bytes([len(string)]) + string for string in raw if len(string) < 256)


def read_text(text: bytes) -> Heard | None:
    """What a TXT record says; None if it is not of a Shoal node, or makes no sense."""
    if len(text) > MAX_TEXT_BYTES:
        return None
    fingerprint = ""
    addresses: list[Address] = []
    for string in _strings(text):
        key, _, value = string.partition("=")
        if key == _MESH_KEY and len(value) <= MAX_FINGERPRINT and value.isalnum():
            fingerprint = value
        elif key == _ADDRESS_KEY and len(addresses) < MAX_ADDRESSES:
            try:
                addresses.append(parse_address(value))
            except AddressError:
                continue  # A transport only other libp2p programs have.
    node_id = addresses[0].node_id if addresses else None
    if not fingerprint or node_id is None:
        return None
    return Heard(node_id, fingerprint, tuple(a for a in addresses if a.node_id == node_id))


def _strings(text: bytes) -> Iterable[str]:
    at = 0
    while at < len(text):
        length = text[at]
        yield text[at + 1 : at + 1 + length].decode("utf-8", "replace")
        at += 1 + length
