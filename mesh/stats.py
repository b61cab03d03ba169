"""What the mesh counts, and whom it turned away: for `/metrics` and `shoal doctor`."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.types import MeshView, NodeId, NodeState

REFUSAL_LASTS = 60.0
"""Seconds. A stranger who still tries is refused anew within that time (see `mesh.dialing.REFUSED_PAUSE`)."""

MOST_REFUSALS = 64
"""Remembered, the latest ones. Strangers must not fill our memory."""


@dataclass(frozen=True, slots=True)
class MeshStats:
    """Totals since the start, but for the first three, which are now."""

    peers_connected: int = 0
    streams_open: int = 0
    calls_waiting: int = 0
    gossip_in: int = 0
    gossip_out: int = 0
    gossip_dropped: int = 0
    """Not sent because the peer reads too slowly. Comparing views repairs it."""
    garbage_frames: int = 0
    """Messages that broke the protocol; each cost its sender the connection."""
    oversized_frames: int = 0
    """Those of them that were too long."""
    peers_refused: int = 0
    handshakes_failed: int = 0
    calls_out: int = 0
    calls_in: int = 0
    calls_failed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Counters:
    """The same, while counting. Written by the trio thread only."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "calls_failed",
        "calls_in",
        "calls_out",
        "garbage_frames",
        "gossip_dropped",
        "gossip_in",
        "gossip_out",
        "handshakes_failed",
        "oversized_frames",
        "peers_refused",
    )

    def __init__(self) -> None:
        self.gossip_in = 0
        self.gossip_out = 0
        self.gossip_dropped = 0
        self.garbage_frames = 0
        self.oversized_frames = 0
        self.peers_refused = 0
        self.handshakes_failed = 0
        self.calls_out = 0
        self.calls_in = 0
        self.calls_failed = 0
        self.bytes_in = 0
        self.bytes_out = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Somebody who is not one of us."""

    host: str
    port: int | None
    """None where they called us: the port that they called from means nothing."""
    reason: str
    at: float
    """Unix seconds, the last time."""
    count: int = 1
    is_heard_only: bool = False
    """Announced by mDNS with another mesh's fingerprint; nobody has tried to connect."""

    @property
    def address(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"


class RefusalBook:
    """The latest refusals, one entry per address and reason. Used from both threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, int | None, str], Refusal] = {}

    def add(self, host: str, port: int | None, reason: str, at: float) -> bool:
        """Note one; whether it is the first of its kind."""
        key = (host, port, reason)
        with self._lock:
            before = self._entries.pop(key, None)
            count = 1 if before is None else before.count + 1
            self._entries[key] = Refusal(host, port, reason, at, count)
            if len(self._entries) > MOST_REFUSALS:
                del self._entries[next(iter(self._entries))]
            return before is None

    def admitted(self, host: str) -> None:
        """A member lives there: what was refused before has been mended."""
        with self._lock:
            for key in [key for key in self._entries if key[0] == host]:
                del self._entries[key]

    def recent(self, now: float) -> Sequence[Refusal]:
        """The latest last. Who refused us and whom we refused, at one host and for one reason, is one."""
        with self._lock:
            entries = [entry for entry in self._entries.values() if now - entry.at < REFUSAL_LASTS]
        with_port = {(entry.host, entry.reason) for entry in entries if entry.port is not None}
        return tuple(e for e in entries if e.port is not None or (e.host, e.reason) not in with_port)


class StateTimes:
    """Since when each node is in its state, as seen from here."""

    def __init__(self) -> None:
        self._since: dict[NodeId, tuple[NodeState, float]] = {}

    def look(self, view: MeshView, now: float) -> None:
        """Take in a new view."""
        before = self._since
        self._since = {
            node_id: (member.state, before[node_id][1])
            if node_id in before and before[node_id][0] is member.state
            else (member.state, now)
            for node_id, member in view.members.items()
        }

    def seconds(self, now: float) -> dict[NodeId, float]:
        return {node_id: now - since for node_id, (_, since) in self._since.items()}
