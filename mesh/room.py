"""Room in memory for what peers send: so much in all, and no more than a share of it for one of them. In trio.

A call holds the room of its largest frame from the moment the frame is announced, before its bytes are read, and
gives it back when it ends. Who finds no room waits in order, without being read from; after a while it is refused.
"""

from collections import Counter

import trio

from mesh.errors import MeshError
from mesh.types import NodeId

PATIENCE = 5.0
"""Seconds until a call that finds no room is refused: its sender can go to another node."""

MOST_WAITING = 64
"""Calls of one peer that wait for room; one more is refused at once."""


class NoRoomError(MeshError):
    """There is no memory for what a peer wants to send."""


class Room:
    """Bytes shared by all peers. Not for several threads."""

    def __init__(self, total: int, per_peer: int) -> None:
        self._total = total
        self._per_peer = per_peer
        self._used = 0
        self._by_peer: Counter[NodeId] = Counter()
        self._waiting: Counter[NodeId] = Counter()
        self._freed = trio.Event()

    @property
    def used(self) -> int:
        return self._used

    def share(self, peer: NodeId) -> "Share":
        """What one call of `peer` holds; nothing at first."""
        return Share(self, peer)

    def _fits(self, peer: NodeId, size: int) -> bool:
        return self._used + size <= self._total and self._by_peer[peer] + size <= self._per_peer

    async def _take(self, peer: NodeId, size: int) -> None:
        if not self._fits(peer, size):
            await self._wait(peer, size)
        self._used += size
        self._by_peer[peer] += size

    async def _wait(self, peer: NodeId, size: int) -> None:
        if size > self._per_peer or self._waiting[peer] >= MOST_WAITING:
            raise NoRoomError(f"no memory for {size} more bytes of a request")
        self._waiting[peer] += 1
        try:
            with trio.fail_after(PATIENCE):
                while not self._fits(peer, size):
                    await self._freed.wait()
        except trio.TooSlowError as error:
            raise NoRoomError(f"no memory for {size} more bytes of a request for {PATIENCE:.0f} s") from error
        finally:
            self._waiting -= Counter((peer,))

    def _give_back(self, peer: NodeId, size: int) -> None:
        self._used -= size
        self._by_peer -= Counter({peer: size})
        self._freed.set()
        self._freed = trio.Event()


class Share:
    """The room of one call."""

    def __init__(self, room: Room, peer: NodeId) -> None:
        self._room = room
        self._peer = peer
        self._size = 0

    async def resize(self, size: int) -> None:
        """Hold so many bytes; waits for more if need be.

        Raises:
            NoRoomError: there were none for a while.
        """
        if size > self._size:
            more = size - self._size
            await self._room._take(self._peer, more)
            self._size += more
        elif size < self._size:
            self._room._give_back(self._peer, self._size - size)
            self._size = size

    def close(self) -> None:
        """Give all of it back."""
        if self._size:
            self._room._give_back(self._peer, self._size)
            self._size = 0
