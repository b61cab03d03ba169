"""Slots: so many requests at once, so many more may wait their turn, the next one is refused."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable

from backends.errors import QueueFullError


class Slots:
    """Places for running requests, with a bounded first-come-first-served queue before them."""

    def __init__(self, count: int, queue_limit: int, changed: Callable[[], None]) -> None:
        self.count = count
        self.busy = 0
        self._queue_limit = queue_limit
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._changed = changed

    @property
    def queued(self) -> int:
        """How many requests wait for a slot."""
        return len(self._waiting)

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a slot, after waiting for it if need be.

        Raises:
            QueueFullError: too many wait already.
        """
        if self.busy >= self.count:
            await self._wait()
        else:
            self.busy += 1
        self._changed()
        try:
            yield
        finally:
            self._release()

    async def _wait(self) -> None:
        if len(self._waiting) >= self._queue_limit:
            raise QueueFullError(self.count, self.queued)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._changed()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()  # The slot was handed to us in the very moment we left.
            elif turn in self._waiting:
                self._waiting.remove(turn)
                self._changed()
            raise

    def _release(self) -> None:
        # A slot goes from hand to hand without becoming free, so nobody can jump the queue.
        # A cancelled future may still stand in the queue until its task runs.
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        else:
            self.busy -= 1
        self._changed()
