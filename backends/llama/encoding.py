"""Encoding pictures and sounds for jobs: one at a time, each content once, off the decode loop's thread.

Encoding is the slow part of a picture: seconds on a CPU. It needs nothing of the context that generates text, so
running answers go on beside it, sharing only the processor; and a request holds no slot until its pictures are
encoded. What was encoded lately is kept, since conversations send their pictures again with every turn.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from typing import Any

from backends.errors import QueueFullError
from backends.llama.model import Floats
from backends.llama.projector import Piece, Projector

KEPT_BYTES = 128 * 2**20
"""Of embeddings: some thirty pictures of a 7B model. More saves encoding where many conversations alternate."""


class Encoder:
    """For one projector. Used on the event loop."""

    def __init__(self, projector: Projector, *, queue: int, kept_bytes: int = KEPT_BYTES) -> None:
        self.projector = projector
        self._queue = queue
        self._kept = _Kept(kept_bytes)
        self._turn = asyncio.Lock()
        self.waiting = 0
        """Requests whose pictures are not all encoded yet."""

    async def encode(self, pieces: Sequence[Piece]) -> None:
        """Give every piece its embeddings. Cancelled, it ends with the piece that is being encoded.

        Raises:
            QueueFullError: too many requests wait for this already.
            EngineError: it failed.
        """
        if self.waiting > self._queue:
            raise QueueFullError(1, self.waiting)
        self.waiting += 1
        try:
            for piece in pieces:
                rows = self._kept.get(piece.content)
                piece.rows = await self._encoded(piece) if rows is None else rows
                piece.close()
        finally:
            self.waiting -= 1

    async def _encoded(self, piece: Piece) -> Floats:
        async with self._turn:
            rows = self._kept.get(piece.content)  # Perhaps somebody else's picture, a moment ago.
            if rows is None:
                rows = await _to_its_end(asyncio.to_thread(self.projector.encode, piece))
                self._kept.put(piece.content, rows)
            return rows


async def _to_its_end(encoding: Coroutine[Any, Any, Floats]) -> Floats:
    """A thread cannot be stopped, and what it works on must outlive it: cancelled, this still waits for its end."""
    task = asyncio.ensure_future(encoding)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # Seen; nobody is left to be told.
        raise


class _Kept:
    """Embeddings by content; those not used for longest go first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._rows: OrderedDict[str, Floats] = OrderedDict()

    def get(self, content: str) -> Floats | None:
        if content in self._rows:
            self._rows.move_to_end(content)
        return self._rows.get(content)

    def put(self, content: str, rows: Floats) -> None:
        self._rows[content] = rows
        self._bytes += rows.nbytes
        while self._bytes > self._limit:
            _, oldest = self._rows.popitem(last=False)
            self._bytes -= oldest.nbytes
