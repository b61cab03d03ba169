"""Streams that can be read again: from event N on, by whoever knows their id.

    {"stream": true, "stream_options": {"resumable": true}}      the answer's events carry ids: 0, 1, 2, …
    GET /v1/streams/ID     Last-Event-ID: 41                      the events from 42 on, and whatever follows

ID is the `id` in the answer's chunks, and the header `x-shoal-stream`. The node that was asked first keeps the events;
the id's end names it, so that any other node can fetch them there. When that node is gone, another one that has a copy
of the answer says it again and goes on with it (`Streams.revive`).

Rules:

1. Such an answer is made whether or not somebody reads it. Nobody for `linger` seconds: it is cancelled, as any
   other answer would be at once. So this is asked for, and not the rule.
2. What was said is kept for `linger` seconds after the answer's end, or after its last reader left.
3. Streams and their bytes are bounded: the oldest finished one goes first, and a stream's oldest events.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from itertools import islice

from api.errors import NotFoundError, TooManyRequestsError
from api.ports import Body

MOST_STREAMS = 256
MOST_BYTES = 4 * 1024 * 1024
"""Kept of one stream."""


class EventLog:
    """The events of one stream, the latest `MOST_BYTES` of them."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self.first = 0
        """Number of the oldest event that is still here."""
        self.is_complete = False
        self._news = asyncio.Event()

    @property
    def end(self) -> int:
        """Number of the event that comes next."""
        return self.first + len(self._events)

    def add(self, piece: bytes) -> None:
        """One or more whole events."""
        for event in piece.split(b"\n\n"):
            if event:
                self._events.append(b"id: %d\n%b\n\n" % (self.end, event))
                self._bytes += len(self._events[-1])
        while self._bytes > self._most_bytes and len(self._events) > 1:
            self._bytes -= len(self._events.popleft())
            self.first += 1
        self._tell()

    def finish(self) -> None:
        self.is_complete = True
        self._tell()

    async def read(self, start: int) -> AsyncGenerator[bytes, None]:
        """The events from number `start` on: what is there at once, then what comes.

        Ends early if the reader falls behind what is kept: it can see from the ids what it missed.
        """
        while self.first <= start:
            if start < self.end:
                piece = b"".join(islice(self._events, start - self.first, None))
                start = self.end
                yield piece
            elif self.is_complete:
                return
            else:
                await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class _Stream:
    """One answer that is written down while it is made."""

    def __init__(self, body: Body, said: bytes = b"") -> None:
        self.log = EventLog()
        self.log.add(said)
        self.readers = 0
        self.expiry: asyncio.TimerHandle | None = None
        self.task = asyncio.get_running_loop().create_task(self._write_down(body))

    async def _write_down(self, body: Body) -> None:
        try:
            async for piece in body:
                self.log.add(piece)
        finally:
            self.log.finish()
            await body.aclose()


class Streams:
    """All resumable streams of one node."""

    def __init__(self, linger: float = 60.0, most: int = MOST_STREAMS, mark: str = "") -> None:
        """`linger`: see the rules; seconds. `mark`: what the ids of this node's streams end in."""
        self.mark = mark
        self._linger = linger
        self._most = most
        self._streams: dict[str, _Stream] = {}
        self.revive: Callable[[str], tuple[bytes, Body] | None] = lambda stream_id: None
        """What was said of a stream that another node kept and is gone, and the rest of it; None: nothing is known."""

    def __contains__(self, stream_id: str) -> bool:
        return stream_id in self._streams

    def open(self, stream_id: str, body: Body) -> "Reader":
        """Writes `body` down from now on, and reads it from its beginning.

        Raises:
            TooManyRequestsError: too many are running.
        """
        self._make_room()
        self._streams[stream_id] = _Stream(body)
        return self.read(stream_id, 0)

    def read(self, stream_id: str, start: int) -> "Reader":
        """The events of a stream from number `start` on.

        Raises:
            NotFoundError: there is no such stream here, or no longer, or not from there on.
        """
        stream = self._streams.get(stream_id) or self._revived(stream_id)
        if stream is None:
            raise NotFoundError(
                f"No stream {stream_id[:80]!r}: one is kept for {self._linger:.0f} s after its end or its last reader, "
                "and only if it was asked for with stream_options.resumable."
            )
        if not stream.log.first <= start <= stream.log.end:
            raise NotFoundError(f"Event {start} is not kept; there are {stream.log.first} to {stream.log.end - 1}.")
        self._taken_up(stream)
        return Reader(stream.log.read(start), lambda: self._left(stream_id, stream))

    async def aclose(self) -> None:
        """Cancels whatever runs."""
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            if stream.expiry is not None:
                stream.expiry.cancel()
            stream.task.cancel()
        await asyncio.gather(*(stream.task for stream in streams), return_exceptions=True)

    def _revived(self, stream_id: str) -> _Stream | None:
        found = self.revive(stream_id)
        if found is None:
            return None
        said, body = found
        stream = self._streams[stream_id] = _Stream(body, said)
        return stream

    def _taken_up(self, stream: _Stream) -> None:
        stream.readers += 1
        if stream.expiry is not None:
            stream.expiry.cancel()
            stream.expiry = None

    def _left(self, stream_id: str, stream: _Stream) -> None:
        stream.readers -= 1
        if not stream.readers and stream_id in self._streams:
            stream.expiry = asyncio.get_running_loop().call_later(self._linger, self._forget, stream_id)

    def _forget(self, stream_id: str) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            stream.task.cancel()

    def _make_room(self) -> None:
        if len(self._streams) < self._most:
            return
        for stream_id, stream in self._streams.items():
            if stream.log.is_complete and not stream.readers:
                if stream.expiry is not None:
                    stream.expiry.cancel()
                self._forget(stream_id)
                return
        raise TooManyRequestsError(f"{self._most} resumable streams are running here already.", retry_after=5)


class Reader:
    """Events for one client. Read it to its end, or close it, also if nothing was read."""

    def __init__(self, events: AsyncGenerator[bytes, None], on_end: Callable[[], None]) -> None:
        self._events = events
        self._on_end: Callable[[], None] | None = on_end

    def __aiter__(self) -> "Reader":
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._events)
        except BaseException:
            self._end()
            raise

    async def aclose(self) -> None:
        self._end()
        await self._events.aclose()

    def _end(self) -> None:
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end()
