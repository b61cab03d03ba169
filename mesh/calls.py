"""A forwarded call as the two ends see it, in asyncio.

    entry:   replies = await mesh.call(peer, header, [request])
             async for batch in replies: …                        # or replies.aclose()
    holder:  async def handler(call): … yield [reply, reply]

Both sides deal in serialized messages and in batches: whatever has gathered since the last look.
"""

from collections.abc import AsyncIterator
from typing import Protocol, Self

from mesh.bridge import PipeCancelled, ToLoop
from mesh.errors import PeerError
from mesh.forwarding import CallHeader
from mesh.types import NodeId


class IncomingCall:
    """A call that a peer sends here."""

    def __init__(self, peer: NodeId, header: CallHeader, requests: ToLoop[bytes]) -> None:
        self.peer = peer
        self.header = header
        self._requests = requests

    @property
    def messages(self) -> AsyncIterator[bytes]:
        """The request messages, as they arrive. To be read once."""
        return self._read()

    async def _read(self) -> AsyncIterator[bytes]:
        while (batch := await self._requests.receive()) is not None:
            for message in batch:
                yield message


class CallHandler(Protocol):
    """Answers calls from peers. Its task is cancelled when the caller hangs up or is lost; to answer
    with an error it raises `RemoteCallError`."""

    def __call__(self, call: IncomingCall) -> AsyncIterator[list[bytes]]: ...


MAX_BATCH = 64
"""Messages handed to a reader at once."""


class RemoteReplies:
    """The replies to a call, as an iterator of batches. Read it to its end or `aclose` it.

    Iterating raises `RemoteCallError` when the call failed over there, and a `PeerError` when the
    peer could not be reached, was lost, or sent nonsense.
    """

    def __init__(self, replies: ToLoop[bytes]) -> None:
        self._replies = replies
        self._rest: list[bytes] = []
        self._is_over = False
        self._given_up: PeerError | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[bytes]:
        if self._is_over:
            raise StopAsyncIteration
        if self._rest:
            return self._some(self._rest)
        try:
            batch = await self._replies.receive()
        except PipeCancelled:
            self._is_over = True
            if self._given_up is not None:
                raise self._given_up from None
            raise
        except BaseException:
            # Also when cancelled: nobody will come back for the rest.
            await self.aclose()
            raise
        if batch is None:
            self._is_over = True
            raise StopAsyncIteration
        return self._some(batch)

    def _some(self, batch: list[bytes]) -> list[bytes]:
        # What gathers for a slow reader stays as it came: taken apart it is a hundred times larger.
        self._rest = batch[MAX_BATCH:]
        return batch[:MAX_BATCH]

    def give_up(self, error: PeerError) -> None:
        """Cancel the call; whoever reads it gets `error`. For somebody else than the reader."""
        self._given_up = error
        self._replies.cancel()

    async def aclose(self) -> None:
        """Cancel the call if it still runs: the peer's backend is told at once."""
        if not self._is_over:
            self._is_over = True
            self._rest = []
            self._replies.cancel()
