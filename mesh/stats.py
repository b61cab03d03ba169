"""What the mesh counts, and whom it turned away: for `/metrics` and `shoal doctor`."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

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

    address: str
    """As seen from here. Without a port where they called us: that one means nothing."""
    reason: str
    at: float
    """Unix seconds, the last time."""
    count: int = 1


class RefusalBook:
    """The latest refusals, one entry per address and reason. Used from both threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], Refusal] = {}

    def add(self, address: str, reason: str, at: float) -> bool:
        """Note one; whether it is the first of its kind."""
        with self._lock:
            before = self._entries.pop((address, reason), None)
            count = 1 if before is None else before.count + 1
            self._entries[(address, reason)] = Refusal(address, reason, at, count)
            if len(self._entries) > MOST_REFUSALS:
                del self._entries[next(iter(self._entries))]
            return before is None

    def all(self) -> Sequence[Refusal]:
        """The latest last."""
        with self._lock:
            return tuple(self._entries.values())
