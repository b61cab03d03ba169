"""State feed: readers are told the state now, then again whenever it changes, but not too often."""

import asyncio
from collections.abc import AsyncIterator, Callable

from backends.rpc import backend_pb2 as pb

MIN_GAP_SECONDS = 0.05
"""At most 20 states a second to each reader. The first change after a quiet time goes out at once."""


class StateFeed:
    """Tells any number of readers about one changing state. For one event loop."""

    def __init__(self) -> None:
        self._readers: set[asyncio.Event] = set()
        self._closed = False

    def changed(self) -> None:
        """The state is, or may be, another one now."""
        for reader in self._readers:
            reader.set()

    def close(self) -> None:
        """End every reader's stream."""
        self._closed = True
        self.changed()

    async def states(self, state: Callable[[], pb.State]) -> AsyncIterator[pb.State]:
        """The state now, then on every change, until closed."""
        news = asyncio.Event()
        self._readers.add(news)
        try:
            sent = None
            while not self._closed:
                current = state()
                if current != sent:
                    yield current
                    sent = current
                    await asyncio.sleep(MIN_GAP_SECONDS)
                await news.wait()
                news.clear()
        finally:
            self._readers.discard(news)
