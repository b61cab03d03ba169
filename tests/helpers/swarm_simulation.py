"""Many nodes that fetch one file at once, on a pretend network: real `SwarmPlan`s, pretend bytes, a clock that jumps.

A chunk's bytes are a number; its hash is that of the number. Each node has lanes to the origin and some fetchers per
peer, as `gallery.transfer` and `gallery.peer_lanes` have; what it tells reaches the others when they ask.
"""

import hashlib
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from gallery.chunk_log import Entry
from gallery.download_plan import Claim, DownloadConfig
from gallery.swarm_plan import SwarmPlan
from gallery.swarm_state import SwarmConfig

HEAR_EVERY = 0.25
CALM = 12
FETCHERS = 8
TRUE, FALSE = 0, 1


def hash_of(chunk: int, what: int = TRUE) -> bytes:
    return hashlib.blake2b(f"{chunk} {what}".encode(), digest_size=32).digest()


@dataclass(eq=False)
class SimNode:
    """One node: its plan, and what it tells."""

    name: str
    plan: SwarmPlan
    log: list[Entry] = field(default_factory=list)
    content: dict[int, int] = field(default_factory=dict)
    is_up: bool = True
    done_at: float | None = None
    origin_rate: float = 0.0
    lies: bool = False
    """Tells and gives wrong bytes."""
    damages: bool = False
    """Tells the right hashes and gives wrong bytes."""
    heard: dict[str, int] = field(default_factory=dict)
    is_lost: bool = False
    lanes: Counter[str] = field(default_factory=Counter)


class SwarmSimulation:
    def __init__(
        self,
        size: int,
        *,
        seed: int = 0,
        origin_rate: float = 25e6,
        link_rate: float = 100e6,
        config: SwarmConfig | None = None,
        neighbours: int = 64,
    ) -> None:
        self.size = size
        self.now = 0.0
        self.origin_rate = origin_rate
        self.link_rate = link_rate
        self.neighbours = neighbours
        self.origin_is_up = True
        self.from_origin: Counter[int] = Counter()
        """Bytes of each chunk that the origin gave."""
        self.nodes: dict[str, SimNode] = {}
        self._config = config or SwarmConfig()
        self._rng = random.Random(seed)
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    # -- what tests do

    def add(
        self, name: str, *, has: Collection[int] = (), at: float = 0.0, origin: bool = True, **traits: Any
    ) -> SimNode:
        """A node that wants the file, or (with all chunks) has it."""
        here = {chunk: hash_of(chunk, FALSE if traits.get("lies") else TRUE) for chunk in has}
        plan = SwarmPlan(self.size, "file", name, self._config, DownloadConfig(failures=10**6), here, at)
        plan.is_origin_closed = not origin
        node = SimNode(name, plan, list(here.items()), origin_rate=self.origin_rate, **traits)
        node.content = dict.fromkeys(has, TRUE if not (node.lies or node.damages) else FALSE)
        self.nodes[name] = node
        self._at(max(at, self.now), self._start, node)
        return node

    def kill(self, name: str) -> None:
        """The others notice when it does not answer, and are told by the mesh a second later."""
        node = self.nodes[name]
        node.is_up = False
        self._at(self.now + 1.0, self._gone, node)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end and not until():
            self.now, _, happen, args = heapq.heappop(self._events)
            happen(*args)
        if not until():
            self.now = end

    def all_done(self) -> bool:
        return all(node.done_at is not None for node in self.nodes.values() if node.is_up)

    @property
    def origin_bytes(self) -> int:
        return sum(self.from_origin.values())

    # -- nodes at work

    def _at(self, when: float, happen: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._events, (when, next(self._order), happen, args))

    def _start(self, node: SimNode) -> None:
        others = [other for other in self.nodes.values() if other is not node and other.is_up]
        for other in self._rng.sample(others, min(len(others), self.neighbours)):
            self._introduce(node, other)
            self._introduce(other, node)
        for _ in range(FETCHERS):
            self._at(self.now, self._fetch, node)
        for _ in range(node.plan.download.lanes):
            self._at(self.now, self._origin_lane, node)
        self._check(node)

    def _introduce(self, node: SimNode, other: SimNode) -> None:
        if other.name not in node.heard and len(node.heard) < 2 * self.neighbours:
            node.heard[other.name] = 0
            node.plan.met(other.name, self.now)
            self._at(self.now + self._rng.uniform(0.005, 0.05), self._hear, node, other)

    def _gone(self, gone: SimNode) -> None:
        for node in self.nodes.values():
            node.plan.lost(gone.name)

    def _is_with(self, node: SimNode, other: SimNode) -> bool:
        peer = node.plan.peers.get(other.name)
        return node.is_up and not node.plan.is_complete and peer is not None and not peer.is_dropped

    def _hear(self, node: SimNode, other: SimNode) -> None:
        if not self._is_with(node, other):
            return
        if other.is_up:
            start = node.heard[other.name]
            news = other.log[start:]
            node.heard[other.name] = start + len(news)
            plan = other.plan
            node.plan.heard(
                other.name,
                news,
                self.now,
                asks_origin=plan.asks_origin,
                claims=plan.claims,
                fetched=plan.origin_bytes,
            )
        else:
            node.plan.failed_at(other.name, None, self.now)
        self._at(self.now + HEAR_EVERY * max(1.0, len(node.heard) / CALM), self._hear, node, other)

    def _fetch(self, node: SimNode) -> None:
        if not node.is_up or node.plan.is_complete:
            return
        found = node.plan.take_chunk(self.now)
        if found is None:
            self._at(self.now + HEAR_EVERY, self._fetch, node)
            return
        other, chunk = self.nodes[found[0]], found[1]
        took = node.plan.chunks.span(chunk).size / (self.link_rate / 4) * self._rng.uniform(0.8, 1.2)
        self._at(self.now + took, self._fetched, node, other, chunk)

    def _fetched(self, node: SimNode, other: SimNode, chunk: int) -> None:
        if not node.is_up:
            return
        if not other.is_up:
            node.plan.failed_at(other.name, chunk, self.now)
        else:
            what = other.content[chunk]
            digest = hash_of(chunk, what)
            if node.plan.is_good(other.name, chunk, digest, self.now):
                node.content[chunk] = what
                node.plan.landed(other.name, chunk, digest, self.now)
                self._tell(node, chunk, digest)
        self._at(self.now, self._fetch, node)

    def _origin_lane(self, node: SimNode) -> None:
        if not node.is_up or node.plan.is_complete:
            return
        claim = node.plan.take(self.now)
        if claim is None:
            self._at(self.now + 0.25, self._origin_lane, node)
            return
        self._origin_step(node, claim)

    def _origin_step(self, node: SimNode, claim: Claim) -> None:
        if not node.is_up:
            return
        if not self.origin_is_up:
            node.plan.give_back(claim)
            node.plan.failed(self.now)
            self._at(self.now + 0.1, self._origin_lane, node)
            return
        step = min(claim.end - claim.at, max(64 * 1024, node.plan.chunks.each // 8))
        rate = node.origin_rate / node.plan.download.lanes
        self._at(self.now + step / rate * self._rng.uniform(0.9, 1.1), self._origin_came, node, claim, step)

    def _origin_came(self, node: SimNode, claim: Claim, step: int) -> None:
        if not node.is_up:
            return
        self.from_origin[claim.at // node.plan.chunks.each] += step
        for chunk in node.plan.received(claim, step, self.now):
            is_new = chunk not in node.plan.hashes
            node.content[chunk] = TRUE
            node.plan.proved(chunk, hash_of(chunk), self.now)
            if is_new:
                self._tell(node, chunk, hash_of(chunk))
        self._check(node)
        if claim.at < claim.end:
            self._origin_step(node, claim)
        else:
            node.plan.give_back(claim)
            self._origin_lane(node)

    def _tell(self, node: SimNode, chunk: int, digest: bytes) -> None:
        node.log.append((chunk, digest))
        self._check(node)

    def _check(self, node: SimNode) -> None:
        if node.done_at is None and node.plan.is_complete:
            node.done_at = self.now
