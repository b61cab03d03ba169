"""Which configured and discovered addresses to dial, and when: the decisions only.

Members that we know already are redialled by `mesh.gossip`. This book is for addresses that
somebody gave us: on the command line (kept for ever) or by mDNS (given up after a while, since it
will be announced again). An address is left alone while the node it led to is connected.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass

from mesh.addresses import Address
from mesh.types import NodeId

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 10.0
"""Seconds between attempts; doubles from the first to the longest. Somebody who starts the second
machine after the first waits at most this long for them to meet."""

REFUSED_PAUSE = 30.0
"""Seconds. A node of another mesh will not become one of ours soon."""

MOST_ENTRIES = 256
"""mDNS may announce anything; no more than this is tried."""

GIVE_UP_AFTER = 5
"""Failures in a row until an address that was only discovered is dropped."""


@dataclass(slots=True)
class _Entry:
    addresses: tuple[Address, ...]
    is_kept: bool
    next_at: float
    pause: float = 0.0
    failures: int = 0
    leads_to: NodeId | None = None
    is_dialling: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Addresses of one node, to try in order. `key` names the entry when reporting back."""

    key: str
    addresses: tuple[Address, ...]


class DialBook:
    """Everything we were told to connect to."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._entries: dict[str, _Entry] = {}

    def add(self, addresses: tuple[Address, ...], now: float, *, is_kept: bool) -> None:
        """Dial these addresses of one node, from now on."""
        key = _key(addresses)
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= MOST_ENTRIES and not is_kept:
                return
            entry = self._entries[key] = _Entry(addresses, is_kept, now, leads_to=addresses[0].node_id)
        entry.is_kept = entry.is_kept or is_kept
        if entry.addresses != addresses:
            entry.addresses = addresses
            entry.next_at = now
            entry.pause = 0.0

    def due(self, now: float, linked: Collection[NodeId]) -> list[Target]:
        """What to dial now. Each comes back with `succeeded`, `failed` or `refused`."""
        targets: list[Target] = []
        for key, entry in self._entries.items():
            if entry.is_dialling or entry.leads_to in linked or now < entry.next_at:
                continue
            entry.is_dialling = True
            targets.append(Target(key, entry.addresses))
        return targets

    def succeeded(self, key: str, node_id: NodeId, now: float) -> None:
        """The address led to a member. It is dialled again only when that one is lost."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.is_dialling = False
            entry.leads_to = node_id
            entry.failures = 0
            entry.pause = 0.0
            entry.next_at = now + FIRST_PAUSE

    def led_home(self, key: str) -> None:
        """The address is our own."""
        self._entries.pop(key, None)

    def failed(self, key: str, now: float) -> None:
        """Nobody answered there."""
        self._put_off(key, now, FIRST_PAUSE, LONGEST_PAUSE)

    def refused(self, key: str, now: float) -> None:
        """Somebody answered who is not one of us."""
        self._put_off(key, now, REFUSED_PAUSE, REFUSED_PAUSE)

    def _put_off(self, key: str, now: float, first: float, most: float) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.is_dialling = False
        entry.failures += 1
        if not entry.is_kept and entry.failures >= GIVE_UP_AFTER:
            del self._entries[key]
            return
        entry.pause = min(max(entry.pause * 2, first), most)
        entry.next_at = now + entry.pause * self._rng.uniform(0.8, 1.2)


def _key(addresses: tuple[Address, ...]) -> str:
    node_id = addresses[0].node_id
    if node_id is not None:
        return node_id
    return ",".join(sorted(str(address) for address in addresses))
