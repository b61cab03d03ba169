"""Outbox: what waits to be written to one reader, taken all at once.

    producer:  outbox.put(a); outbox.put(b)          never waits
    writer:    await outbox.take()  ->  [a, b]       everything since the last take

A slow stream gives every event its own message, at once; a fast one fills the outbox while a
write is under way, and the next message carries it all. So the number of messages follows the
writer's speed, and the number of events the engine's.
"""

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """Events on their way to one reader. For one event loop; one writer, one producer."""

    def __init__(self) -> None:
        self._waiting: list[T] = []
        self._closed = False
        self._filled: asyncio.Future[None] | None = None
        self._emptied: asyncio.Future[None] | None = None

    def put(self, *items: T) -> None:
        """Add `items`; the writer is woken if it waits."""
        self._waiting.extend(items)
        _wake(self._filled)

    def close(self) -> None:
        """Nothing more comes. What waits is still taken."""
        self._closed = True
        _wake(self._filled)
        _wake(self._emptied)

    async def take(self) -> list[T]:
        """Everything put since the last take, at least one item; empty once closed and taken."""
        while not self._waiting and not self._closed:
            self._filled = asyncio.get_running_loop().create_future()
            await self._filled
        taken, self._waiting = self._waiting, []
        _wake(self._emptied)
        return taken

    async def drained(self) -> None:
        """Return when the writer has taken everything: how a fast producer keeps the reader's pace."""
        while self._waiting and not self._closed:
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied


def _wake(waiter: "asyncio.Future[None] | None") -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
