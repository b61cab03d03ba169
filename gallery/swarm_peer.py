"""What a download knows of one peer that has the same file, or parts of it. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from gallery.chunk_log import Entry

WINDOW = 3.0
"""Seconds over which a rate is measured."""


@dataclass(slots=True)
class Pace:
    """Bytes per second of something that grows."""

    since: float
    count: int = 0
    last: float = 0.0
    """As it was in the last window; 0: nothing came, or nothing is known."""

    best: float = 0.0

    def rate(self, count: int, now: float) -> float:
        """The rate, given that so many bytes have come by now."""
        passed = now - self.since
        if passed >= WINDOW:
            self.last = (count - self.count) / passed
            self.best = max(self.best, self.last)
            self.since, self.count = now, count
        return self.last


@dataclass(slots=True, eq=False)
class SwarmPeer:
    """One peer. Times are the receiver's clock."""

    id: str
    count: int
    """Chunks of the file."""
    met_at: float
    hashes: dict[int, bytes] = field(default_factory=dict)
    """Of the chunks that it has, as it says."""
    asks_origin: bool = False
    """It takes its share of what has to come from the origin."""
    claims: Collection[int] = ()
    """Chunks that it is fetching there."""
    heard_at: float | None = None
    progress_at: float = 0.0
    """When it last got something, as far as we were told."""
    fetched: int = -1
    """Bytes that it has from the origin."""
    pace: Pace = field(default_factory=lambda: Pace(0.0))
    coming: dict[int, float] = field(default_factory=dict)
    """Chunks that we are fetching from it, and since when."""
    useful: int = 0
    """How many chunks it has that are missing here."""
    used: int = 0
    """How many chunks it was asked for."""
    failures: int = 0
    wait_until: float = 0.0
    is_slow: bool = False
    is_dropped: bool = False

    @property
    def is_complete(self) -> bool:
        return len(self.hashes) == self.count

    def progress(self, fetched: int, now: float) -> None:
        """It has so many bytes from the origin by now."""
        if fetched != self.fetched:
            self.fetched, self.progress_at = fetched, now
        self.pace.rate(fetched, now)

    def take_in(self, entries: Iterable[Entry], now: float) -> tuple[list[Entry], bool]:
        """What is new of what it tells, and whether that makes sense."""
        fresh: list[Entry] = []
        for chunk, digest in entries:
            if chunk >= self.count:
                return fresh, False
            known = self.hashes.get(chunk)
            if known is None:
                self.hashes[chunk] = digest
                fresh.append((chunk, digest))
            elif known != digest:
                return fresh, False
        if fresh or self.heard_at is None:
            self.progress_at = now
        return fresh, True
