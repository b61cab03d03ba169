"""Which chunk of a file comes from which peer, and which from the origin. Pure: time is an argument.

    missing ──► coming (from a peer) ──► writing ──► here
       └──────► claimed (from the origin) ─────────► here

Rules:

1. LAN before internet: what a peer has is never asked of the origin, unless the peer turned out slow.
2. Nodes that fetch the same file share what must come from the origin (`gallery.ownership`): each begins with its own
   stripes and tells what it claims. Who is through with its own helps those that are behind, at the far end of theirs;
   the stripes of a node that is silent, stuck or gone fall to the others.
3. From peers the rarest chunk comes first; among equals chance decides, differently on every node.
4. A peer that sends other bytes than it announced, or announces other hashes than the origin's bytes have, is dropped.
   Where two peers announce different hashes and nobody knows better, the origin is asked.
5. What is late may be fetched a second time, from another peer first, then from the origin. Nothing waits for ever.

It has the methods of `DownloadPlan`, so that the lanes to the origin need not know which of the two they serve.
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
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
    greeting: float = 2.0
    """How long a peer that was just met may take to say what it has, before the origin is asked without it."""
    silent_after: float = 3.0
    """A peer not heard of for so long is not counted on."""
    stuck_after: float = 6.0
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


class SwarmPlan:
    """One file, fetched together with others."""

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
        if not any(True for _ in self._trusted()):
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

    # ------------------------------------------------------------ from peers

    def take_chunk(self, now: float) -> tuple[str, int] | None:
        """Whom to ask for what; None while nobody has anything for us. The least busy peers come first."""
        self._now = max(self._now, now)
        if self.is_complete:
            return None
        self._count_copies(now)
        late = self._late(now)
        able = (
            peer
            for peer in self._trusted()
            if (peer.useful or late) and len(peer.coming) < self.config.per_peer and now >= peer.wait_until
        )
        for peer in sorted(able, key=lambda p: (p.is_slow, len(p.coming), p.used)):
            chunk = self._rarest(peer)
            if chunk is None:
                chunk = next((late_one for late_one in late if self._could_double(peer, late_one)), None)
            if chunk is not None:
                if self._state[chunk] == MISSING:
                    self._state[chunk] = COMING
                    self._found(chunk)
                peer.coming[chunk] = now
                peer.used += 1
                return peer.id, chunk
        return None

    def _rarest(self, peer: SwarmPeer) -> int | None:
        """Of what is missing and this peer has."""
        if not peer.useful:
            return None
        blocked = self.disputed if self.asks_origin else ()
        has = [chunk for chunk in self._missing if chunk in peer.hashes and chunk not in blocked]
        return min(has, key=lambda chunk: (self._copies[chunk], self._ties[chunk]), default=None)

    def _late(self, now: float) -> list[int]:
        """Chunks that are under way for too long."""
        since = [item for peer in self.peers.values() for item in peer.coming.items()]
        since += self._claimed_at.items()
        return [chunk for chunk, began in since if now - began > self._late_after]

    def _could_double(self, peer: SwarmPeer, chunk: int) -> bool:
        if chunk not in peer.hashes or chunk in peer.coming or self._state[chunk] not in (COMING, CLAIMED):
            return False
        return sum(chunk in other.coming for other in self.peers.values()) < 2

    def is_good(self, peer_id: str, chunk: int, digest: bytes, now: float) -> bool:
        """Whether a chunk that came is to be written; `landed` says that it was. A bad one ends its peer."""
        peer = self.peers.get(peer_id)
        if peer is None or chunk not in peer.coming:
            return False
        since = peer.coming[chunk]
        if digest != peer.hashes.get(chunk):
            self._release(peer, chunk)
            self._drop(peer, f"the bytes of chunk {chunk} are not those that it announced")
            return False
        peer.failures = 0
        peer.is_slow = now - since > self._late_after
        if self._state[chunk] in (WRITING, HERE):
            self._release(peer, chunk)
            return False
        self._state[chunk] = WRITING
        return True

    def landed(self, peer_id: str, chunk: int, digest: bytes, now: float) -> None:
        """The chunk is on the disk."""
        peer = self.peers.get(peer_id)
        if peer is not None:
            peer.coming.pop(chunk, None)
        if chunk not in self.hashes:
            self.suppliers[chunk] = peer_id
            self._arrived(chunk, digest, now)

    def failed_at(self, peer_id: str, chunk: int | None, now: float) -> None:
        """A peer broke off, or could not be reached."""
        peer = self.peers.get(peer_id)
        if peer is None:
            return
        if chunk is not None:
            self._release(peer, chunk)
        peer.failures += 1
        peer.wait_until = now + min(self.config.longest_pause, self.config.pause * 2 ** (peer.failures - 1))
        if peer.failures >= self.config.failures:
            peer.is_slow = True

    def _release(self, peer: SwarmPeer, chunk: int) -> None:
        peer.coming.pop(chunk, None)
        if any(chunk in other.coming for other in self.peers.values()):
            return
        if self._state[chunk] == COMING or (self._state[chunk] == WRITING and chunk not in self._claimed_at):
            self._state[chunk] = MISSING
            self._lack(chunk)

    # ------------------------------------------------------------ from the origin

    def take(self, now: float) -> Claim | None:
        """The next bytes for a lane to the origin; None while there is nothing to do there, or it is not time yet."""
        self._now = max(self._now, now)
        lanes = 1 if self.origin.has_one_lane else self.download.lanes
        if not self.asks_origin or now < self.origin.wait_until or len(self._claims) >= lanes:
            return None
        if any(self._is_new(peer, now) for peer in self._trusted()):
            return None
        self._count_copies(now)
        run = self._choose(now)
        if run is None:
            return None
        claim = Claim(run.start * self.chunks.each, min(self.size, run.stop * self.chunks.each), 0, now)
        claim.at = claim.start
        self._claims.append(claim)
        for chunk in run:
            self._state[chunk] = CLAIMED
            self._claimed_at[chunk] = now
            self._found(chunk)
        return claim

    def _choose(self, now: float) -> range | None:
        for chunk in sorted(self.disputed & self._missing):
            return range(chunk, chunk + 1)
        taken = {chunk for peer in self._trusted() if self._is_at_work(peer, now) for chunk in peer.claims}
        sharers = [self.me, *(peer.id for peer in self._trusted() if self._shares_origin(peer, now))]
        owners = self._shares.owners(sharers)
        free: dict[str, list[int]] = {}
        for stripe, owner in enumerate(owners):
            if any(self._is_free(chunk, taken, now) for chunk in self.chunks.of_stripe(stripe)):
                free.setdefault(owner, []).append(stripe)
        if mine := free.get(self.me):
            # Alone, larger requests; in company others may help with what is not claimed yet.
            return self._run(mine, taken, now, self.chunks.per_stripe if len(sharers) > 1 else self.chunks.count)
        return self._help(free, sharers, taken, now)

    def _run(self, stripes: Sequence[int], taken: Collection[int], now: float, longest: int) -> range:
        """Free chunks in a row, of neighbouring stripes, as many as one request should have."""
        free = sum(self._is_free(c, taken, now) for stripe in stripes for c in self.chunks.of_stripe(stripe))
        each = self.chunks.each
        # All lanes are to have work until the end; requests of next to nothing are none.
        share = max(-(-free // self.download.lanes), self.download.least // each)
        most = max(1, min(self.download.piece // each, share, longest))
        allowed = set(stripes)
        first = next(c for c in self.chunks.of_stripe(stripes[0]) if self._is_free(c, taken, now))
        last = first + 1
        while (
            last < self.chunks.count
            and last - first < most
            and last // self.chunks.per_stripe in allowed
            and self._is_free(last, taken, now)
        ):
            last += 1
        return range(first, last)

    def _help(
        self, free: Mapping[str, list[int]], sharers: Sequence[str], taken: Collection[int], now: float
    ) -> range | None:
        """The last stripe of the one who is furthest behind, if it is ours to help there."""
        behind = max(free, key=lambda owner: (len(free[owner]), owner), default="")
        if len(free.get(behind, ())) < 2:
            return self._help_slow(free, sharers, now)  # The last one its owner takes itself, if it is not slow.
        stripe = free[behind][-1]
        idle = [node for node in sharers if node not in free]
        if self._shares.best(idle, stripe) != self.me:
            return None
        return self._run([stripe], taken, now, self.chunks.per_stripe)

    def _help_slow(self, free: Mapping[str, list[int]], sharers: Sequence[str], now: float) -> range | None:
        """The far end of what the slowest one claims, if waiting for it would take much longer than fetching it."""
        for peer in self._trusted():
            due = {chunk for stripe in free.get(peer.id, ()) for chunk in self.chunks.of_stripe(stripe)} | set(
                peer.claims
            )
            missing = sorted(chunk for chunk in due if chunk in self._missing and not self._copies[chunk])
            if not missing:
                continue
            size = len(missing) * self.chunks.each
            self._pace.rate(self.origin_bytes, now)
            mine = self.config.slow_factor * size / self._pace.best if self._pace.best else self.config.slow_most
            if now - peer.met_at < self._late_after or size / max(1.0, peer.pace.last) < max(self._late_after, mine):
                continue
            helpers = [node for node in sharers if node != peer.id]
            if self._shares.best(helpers, missing[-1] // self.chunks.per_stripe) == self.me:
                return range(missing[-1], missing[-1] + 1)
        return None

    def _is_free(self, chunk: int, taken: Collection[int], now: float) -> bool:
        if chunk in taken or self._copies[chunk]:
            return False
        if self._state[chunk] == COMING:
            # Only slow peers have it, or none that still lives: it may come twice.
            since = [peer.coming[chunk] for peer in self.peers.values() if chunk in peer.coming]
            return not since or now - min(since) > self._late_after
        return self._state[chunk] == MISSING

    def received(self, claim: Claim, count: int, now: float) -> list[int]:
        """`count` more bytes of a claim are written. The chunks that are whole now: hash them, and say `proved`."""
        each = self.chunks.each
        before = claim.at // each
        claim.at = min(claim.end, claim.at + count)
        claim.window_bytes += count
        self.origin_bytes += count
        if claim.window_bytes >= self.download.trickle:
            claim.window_began, claim.window_bytes = now, 0
            self.origin.failures = 0
        after = self.chunks.count if claim.at == self.size else claim.at // each
        return [chunk for chunk in range(before, after) if self._state[chunk] != HERE]

    def proved(self, chunk: int, digest: bytes, now: float) -> None:
        """A chunk came from the origin."""
        self.disputed.discard(chunk)
        self.suppliers.pop(chunk, None)
        if self._state[chunk] != HERE:
            self._arrived(chunk, digest, now)
        self.hashes[chunk] = digest
        self.proven.add(chunk)
        for peer in list(self._trusted()):
            if peer.hashes.get(chunk, digest) != digest:
                self._drop(peer, f"what it has as chunk {chunk} is not what the origin has")

    def is_stalled(self, claim: Claim, now: float) -> bool:
        return now - claim.window_began >= self.download.stall_after

    def give_back(self, claim: Claim) -> None:
        """A lane is through with its claim, or has to leave the rest of it to others."""
        self._claims.remove(claim)
        for chunk in range(claim.start // self.chunks.each, -(-claim.end // self.chunks.each)):
            self._claimed_at.pop(chunk, None)
            if self._state[chunk] == CLAIMED:
                coming = any(chunk in peer.coming for peer in self.peers.values())
                self._state[chunk] = COMING if coming else MISSING
                if not coming:
                    self._lack(chunk)

    def failed(
        self, now: float, retry_after: float | None = None, *, too_many: bool = False, is_final: bool = False
    ) -> None:
        """A lane's connection failed. `is_final`: the origin will not give us this file."""
        self._now = max(self._now, now)
        self.is_origin_closed = self.is_origin_closed or is_final
        self.origin.failed(now, retry_after, too_many=too_many)

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
