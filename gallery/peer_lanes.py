"""Fetches chunks from peers: for each of them a thread that hears what it has got, and some that fetch.

`SwarmPlan` decides; its lock is the transfer's. A thread ends with its peer, with the file, or with the transfer.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from blake3 import blake3

from gallery.budget import Budget
from gallery.chunk_log import ChunkLog
from gallery.peer_link import PeerAddress, PeerLink
from gallery.peer_wire import PeerWireError
from gallery.swarm_plan import SwarmPlan

HEAR_EVERY = 0.25
FETCHERS = 2
"""Per peer: while one verifies and writes, the other one reads."""
BUFFERS = 8
"""Chunks in memory at a time, of all peers together."""
TIMEOUT = 15.0


class PeerLanes:
    """The peers of one file."""

    def __init__(
        self,
        plan: SwarmPlan,
        news: threading.Condition,
        log: ChunkLog,
        sha256: str,
        part: Path,
        peers: Callable[[], Sequence[PeerAddress]],
        budget: Budget,
    ) -> None:
        self._plan = plan
        self._news = news
        self._log = log
        self._sha256 = sha256
        self._part = part
        self._peers = peers
        self._budget = budget
        self._room = threading.BoundedSemaphore(BUFFERS)
        self._spare: list[bytearray] = []
        self._known: dict[str, PeerAddress] = {}
        self.is_over = False

    def look(self) -> None:
        """Begins with peers that are new, and leaves those that are gone."""
        current = {peer.id: peer for peer in self._peers()}
        for peer_id, address in list(self._known.items()):
            if current.get(peer_id) != address:
                del self._known[peer_id]
                with self._news:
                    self._plan.lost(peer_id)
        for address in current.values():
            if address.id not in self._known:
                self._known[address.id] = address
                with self._news:
                    self._plan.met(address.id, time.monotonic())
                for work in (self._hear, *[self._fetch] * FETCHERS):
                    threading.Thread(target=work, args=(address,), daemon=True).start()

    def _is_with(self, address: PeerAddress) -> bool:
        """Whether this peer is still worth a thread. With the lock held."""
        peer = self._plan.peers.get(address.id)
        return not (
            self.is_over
            or self._plan.is_complete
            or self._known.get(address.id) is not address
            or peer is None
            or peer.is_dropped
        )

    def _hear(self, address: PeerAddress) -> None:
        session, start = "", 0
        with contextlib.closing(PeerLink(address, TIMEOUT)) as link:
            while True:
                with self._news:
                    if not self._is_with(address):
                        return
                try:
                    told = link.log(self._sha256, session, start)
                except (OSError, PeerWireError):
                    link.close()
                    with self._news:
                        self._plan.failed_at(address.id, None, time.monotonic())
                    time.sleep(1.0)
                    continue
                now = time.monotonic()
                with self._news:
                    if session and told.head.session.hex() != session:
                        self._plan.restarted(address.id, now)
                    session, start = told.head.session.hex(), told.start + len(told.entries)
                    self._plan.heard(
                        address.id,
                        told.entries,
                        now,
                        asks_origin=told.head.asks_origin,
                        claims=told.head.claims,
                        fetched=told.head.fetched,
                    )
                    self._news.notify_all()
                time.sleep(HEAR_EVERY)

    def _fetch(self, address: PeerAddress) -> None:
        fd = os.open(self._part, os.O_WRONLY)
        try:
            with contextlib.closing(PeerLink(address, TIMEOUT)) as link:
                while (chunk := self._next(address)) is not None:
                    with self._room:
                        buffer = self._spare.pop() if self._spare else bytearray(self._plan.chunks.each)
                        wait = self._bring(link, address.id, chunk, buffer, fd)
                        self._spare.append(buffer)
                    if wait:
                        time.sleep(wait)
        finally:
            os.close(fd)

    def _next(self, address: PeerAddress) -> int | None:
        with self._news:
            while self._is_with(address):
                chunk = self._plan.take_from(address.id, time.monotonic())
                if chunk is not None:
                    return chunk
                self._news.wait(HEAR_EVERY)
        return None

    def _bring(self, link: PeerLink, peer: str, chunk: int, buffer: bytearray, fd: int) -> float:
        """Fetches one chunk; seconds to wait before the next."""
        try:
            data = link.chunk(self._sha256, chunk, self._plan.size, buffer)
        except (OSError, PeerWireError):
            link.close()
            with self._news:
                self._plan.failed_at(peer, chunk, time.monotonic())
            return 0.0
        digest = blake3(data).digest()
        with self._news:
            wait = self._budget.take(len(data), time.monotonic())
            is_good = self._plan.is_good(peer, chunk, digest, time.monotonic())
        if is_good:
            at = self._plan.chunks.span(chunk).start
            while data:
                count = os.pwrite(fd, data, at)
                data, at = data[count:], at + count
            with self._news:
                if chunk not in self._plan.hashes:
                    self._plan.landed(peer, chunk, digest, time.monotonic())
                    self._log.add([(chunk, digest)])
                self._news.notify_all()
        return wait
