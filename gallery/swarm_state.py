"""What a download that takes part in a swarm knows: which chunks are here or under way, who else has what. Pure.

    missing ──► coming (from a peer) ──► writing ──► here
       └──────► claimed (from the origin) ─────────► here

`SwarmPlan` decides on it.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gallery.chunk_log import Entry
from gallery.chunks import Chunks
from gallery.download_plan import Claim, DownloadConfig, DownloadPlan, Range, merged
from gallery.ownership import Shares
from gallery.swarm_peer import Pace, SwarmPeer

MISSING, COMING, CLAIMED, WRITING, HERE = range(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmConfig:
    """Durations in seconds."""

    settle: float = 0.3
    """From meeting a peer until it counts as knowing of us. What it says later takes our share into account."""
    greeting: float = 5.0
    """How long a peer that was just met may take to say what it has, before the origin is asked without it."""
    silent_after: float = 8.0
    """A peer not heard of for so long is not counted on."""
    stuck_after: float = 10.0
    """A peer that claims something and gets nothing for so long leaves its stripes to others."""
    late_after: float = 6.0
    """A chunk that takes longer may come from somewhere else too, and its peer counts as slow."""
    slow_factor: float = 4.0
    """A claim is helped with when it would take its owner so many times as long as us, and `late_after` at least."""
    per_peer: int = 2
    """Chunks under way from one peer: while one is verified and written, the next one comes."""
    slow_most: float = 60.0
    """The same, where we have had nothing from the origin yet, and know no rate."""
    failures: int = 3
    """In a row, until what a peer has may be asked of the origin, too."""
    pause: float = 0.5
    """After a failure of a peer; doubles."""
    longest_pause: float = 8.0
    hope: float = 15.0
    """How long a download without any source waits for one."""


class SwarmState:
    """One file, and everybody who has it or wants it."""

    in_order = False

    def __init__(
        self,
        size: int,
        key: str,
        me: str,
        config: SwarmConfig | None = None,
        download: DownloadConfig | None = None,
        here: Mapping[int, bytes] | None = None,
        now: float = 0.0,
    ) -> None:
        """`here`: chunks that are on the disk, verified; `key`: what all call the file."""
        self.size = size
        self.chunks = Chunks(size)
        self.me = me
        self.config = config or SwarmConfig()
        self.download = download or DownloadConfig()
        self.origin = DownloadPlan(1, self.download)
        """Only its memory of failures is used."""
        self.is_origin_closed = False
        self.has_origin = True
        """Otherwise only peers have it, and a node that has just started may not know them yet."""
        self.peers: dict[str, SwarmPeer] = {}
        self.hashes: dict[int, bytes] = dict(here or {})
        """Of the chunks that are here."""
        self.proven: set[int] = set()
        """Chunks whose bytes we had from the origin ourselves."""
        self.suppliers: dict[int, str] = {}
        """Who gave which chunk."""
        self.disputed: set[int] = set()
        self.drops: list[tuple[str, str]] = []
        """Peers that were dropped, and why; for whoever tells people."""
        self.origin_bytes = 0
        """Fetched from the origin, here."""
        count = self.chunks.count
        self._late_after = self.config.late_after
        self._pace = Pace(now)
        self._told: dict[int, bytes] = {}
        """What some trusted peer says that a chunk's hash is."""
        self._state = bytearray([HERE if chunk in self.hashes else MISSING for chunk in range(count)])
        self._missing = {chunk for chunk in range(count) if chunk not in self.hashes}
        self._here_bytes = sum(self.chunks.span(chunk).size for chunk in self.hashes)
        self._front = 0
        self._claims: list[Claim] = []
        self._claimed_at: dict[int, float] = {}
        self._shares = Shares(key, self.chunks.stripes)
        self._ties = list(range(count))
        random.Random(f"{key}/{me}").shuffle(self._ties)
        self._copies = [0] * count
        self._counted: tuple[str, ...] = ()
        self._progress_at = now
        self._now = now

    # ------------------------------------------------------------ how far it is

    @property
    def fetched(self) -> int:
        return self._here_bytes + sum(claim.at - self._floor(claim) for claim in self._claims)

    @property
    def is_complete(self) -> bool:
        return len(self.hashes) == self.chunks.count

    @property
    def contiguous(self) -> int:
        """Every byte before this one is here, for good."""
        while self._front < self.chunks.count and self._state[self._front] == HERE:
            self._front += 1
        return min(self.size, self._front * self.chunks.each)

    @property
    def is_given_up(self) -> bool:
        """Nobody has what is missing, and nobody is about to have it."""
        if not (self.is_origin_closed or self.origin.is_given_up) or self.is_complete:
            return False
        if self.has_origin and not any(True for _ in self._trusted()):
            return True
        return self._now - self._progress_at > self.config.hope and not any(p.coming for p in self.peers.values())

    @property
    def wait_until(self) -> float:
        return self.origin.wait_until

    @property
    def claims(self) -> list[range]:
        """Chunks that are being fetched from the origin, as others are told."""
        each = self.chunks.each
        return [range(claim.at // each, -(-claim.end // each)) for claim in self._claims if claim.at < claim.end]

    @property
    def asks_origin(self) -> bool:
        return not (self.is_origin_closed or self.origin.is_given_up or self.is_complete)

    def written(self) -> tuple[Range, ...]:
        return merged((self.chunks.span(chunk) for chunk in self.hashes), self.size)

    def look(self, now: float) -> None:
        """Time passes, also while nobody asks."""
        self._now = max(self._now, now)

    # ------------------------------------------------------------ peers come, tell, and go

    def met(self, peer_id: str, now: float) -> None:
        """A peer says that it has something of this file, or wants it."""
        known = self.peers.get(peer_id)
        if known is None and peer_id != self.me:
            self.peers[peer_id] = SwarmPeer(peer_id, self.chunks.count, met_at=now, progress_at=now)

    def lost(self, peer_id: str) -> None:
        """A peer is gone; what was under way from it is missing again. One that was dropped stays so."""
        peer = self.peers.get(peer_id)
        if peer is None:
            return
        for chunk in list(peer.coming):
            self._release(peer, chunk)
        if not peer.is_dropped:
            del self.peers[peer_id]
        self._counted = ()

    def restarted(self, peer_id: str, now: float) -> None:
        """A peer began its log anew."""
        if peer_id in self.peers:
            self.lost(peer_id)
            self.met(peer_id, now)

    def heard(
        self,
        peer_id: str,
        entries: Sequence[Entry],
        now: float,
        *,
        asks_origin: bool = False,
        claims: Sequence[range] = (),
        fetched: int = 0,
    ) -> None:
        """What a peer has got since it last told, what it is fetching, and how many bytes it has from the origin."""
        peer = self.peers.get(peer_id)
        if peer is None or peer.is_dropped:
            return
        fresh, makes_sense = peer.take_in(entries, now)
        if not makes_sense:
            self._drop(peer, "it takes back what it said about a chunk")
            return
        peer.heard_at, peer.asks_origin = now, asks_origin
        peer.progress(fetched, now)
        peer.claims = frozenset(chunk for claim in claims for chunk in claim if chunk < self.chunks.count)
        for chunk, digest in fresh:
            peer.useful += chunk in self._missing
            if peer_id in self._counted:
                self._copies[chunk] += 1
            if not self._is_believable(peer, chunk, digest):
                return
        if fresh and any(self._state[chunk] != HERE for chunk, _ in fresh):
            self._progress_at = now

    def _is_believable(self, peer: SwarmPeer, chunk: int, digest: bytes) -> bool:
        if chunk in self.proven:
            if self.hashes[chunk] != digest:
                self._drop(peer, f"what it has as chunk {chunk} is not what the origin has")
                return False
        elif self._told.setdefault(chunk, digest) != digest:
            self.disputed.add(chunk)  # If it is here already, the file's sha256 decides.
        return True

    def _trusted(self) -> Iterator[SwarmPeer]:
        return (peer for peer in self.peers.values() if not peer.is_dropped)

    def _drop(self, peer: SwarmPeer, why: str) -> None:
        peer.is_dropped = True
        self.drops.append((peer.id, why))
        for chunk in list(peer.coming):
            self._release(peer, chunk)
        # What only it disputed is settled; what it gave stays until somebody says otherwise, or the sha256 does.
        self._told = {chunk: digest for other in self._trusted() for chunk, digest in other.hashes.items()}
        self.disputed = {chunk for chunk in self.disputed if self._is_disputed(chunk)}
        self._counted = ()

    def _is_disputed(self, chunk: int) -> bool:
        told = {peer.hashes[chunk] for peer in self._trusted() if chunk in peer.hashes}
        return len(told) > 1

    def _release(self, peer: SwarmPeer, chunk: int) -> None:
        peer.coming.pop(chunk, None)
        if any(chunk in other.coming for other in self.peers.values()):
            return
        if self._state[chunk] == COMING or (self._state[chunk] == WRITING and chunk not in self._claimed_at):
            self._state[chunk] = MISSING
            self._lack(chunk)

    # ------------------------------------------------------------ small questions

    def _floor(self, claim: Claim) -> int:
        """Where the part of a claim begins that is not in whole chunks yet."""
        return max(claim.start, claim.at - claim.at % self.chunks.each) if claim.at < claim.end else claim.at

    def _arrived(self, chunk: int, digest: bytes, now: float) -> None:
        self._state[chunk] = HERE
        self._found(chunk)
        self._claimed_at.pop(chunk, None)
        self.hashes[chunk] = digest
        self._here_bytes += self.chunks.span(chunk).size
        self._progress_at = self._now = max(self._now, now)

    def _found(self, chunk: int) -> None:
        """It is here, or under way."""
        if chunk in self._missing:
            self._missing.discard(chunk)
            for peer in self.peers.values():
                peer.useful -= chunk in peer.hashes

    def _lack(self, chunk: int) -> None:
        """It is missing again."""
        if chunk not in self._missing:
            self._missing.add(chunk)
            for peer in self.peers.values():
                peer.useful += chunk in peer.hashes

    def _is_live(self, peer: SwarmPeer, now: float) -> bool:
        heard = peer.heard_at
        return not peer.is_dropped and heard is not None and now - heard < self.config.silent_after

    def _is_at_work(self, peer: SwarmPeer, now: float) -> bool:
        return self._is_live(peer, now) and now - peer.progress_at < self.config.stuck_after

    def _is_new(self, peer: SwarmPeer, now: float) -> bool:
        """It may not know of us yet, or not have said what it has since then."""
        is_heard = peer.heard_at is not None and peer.heard_at - peer.met_at >= self.config.settle
        return not (is_heard or peer.is_complete) and now - peer.met_at < self.config.greeting

    def _shares_origin(self, peer: SwarmPeer, now: float) -> bool:
        return peer.asks_origin and not peer.is_complete and self._is_at_work(peer, now)

    def _count_copies(self, now: float) -> None:
        """How many peers have each chunk: those that can be counted on."""
        counted = tuple(peer.id for peer in self._trusted() if self._is_live(peer, now) and not peer.is_slow)
        if counted == self._counted:
            return
        self._counted = counted
        self._copies = [0] * self.chunks.count
        for peer_id in counted:
            for chunk in self.peers[peer_id].hashes:
                self._copies[chunk] += 1
