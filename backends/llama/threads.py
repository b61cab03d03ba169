"""Work in threads on something that may be freed: not before the last thread has let go of it.

A thread cannot be interrupted. A caller that leaves is let go at once, and its thread ends in its own time.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """The threads at work on one thing."""

    def __init__(self) -> None:
        self._working: set[asyncio.Future[Any]] = set()

    async def run(self, make: Callable[[], T], discard: Callable[[T], None] = lambda made: None) -> T:
        """What `make` makes in a thread; if the caller leaves meanwhile, it is discarded."""
        making = asyncio.ensure_future(asyncio.to_thread(make))
        self._working.add(making)
        making.add_done_callback(self._working.discard)
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:

            def clean_up(made: "asyncio.Future[T]") -> None:
                if not made.cancelled() and made.exception() is None:
                    discard(made.result())

            making.add_done_callback(clean_up)
            raise

    async def settled(self) -> None:
        """Returns when no thread is at work any more; the caller sees to it that no new one begins."""
        while self._working:
            await asyncio.wait(self._working)
