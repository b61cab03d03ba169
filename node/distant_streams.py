"""Resumable streams (`api.resumable`) that another node keeps: found by their id, read through the mesh.

    entry node      GET /v1/streams/chatcmpl-…-4bXq…   the end of the id names the node that keeps it
                    DistantStream ──── node.ReadStream ────► that node's `Streams`

Nothing is copied: who keeps a stream is the only one that can give it, and if it is gone, so is the stream.
"""

from collections.abc import AsyncGenerator, AsyncIterator

import orjson

from api import errors
from api.resumable import Streams
from mesh.calls import RemoteReplies
from mesh.errors import MeshError, RemoteCallError
from mesh.forwarding import CallHeader
from mesh.mesh import Mesh
from mesh.types import Member, MeshView, NodeId, NodeState

READ_STREAM = "node.ReadStream"

MARK_LENGTH = 12
"""Characters of a node's id at the end of its streams' ids. Not secret: what must not be guessed stands before it."""


def mark_of(node: NodeId) -> str:
    """What the ids of a node's streams end in."""
    return f"-{node[-MARK_LENGTH:]}"


async def open_distant(mesh: Mesh, stream_id: str, start: int) -> "DistantStream":
    """The events of a stream of another node, from number `start` on.

    Raises:
        NotFoundError: no node keeps such a stream, or the one that did is gone.
        UnavailableError: the node that keeps it cannot be reached.
    """
    keeper = _keeper(mesh.view(), stream_id)
    header = CallHeader(method=READ_STREAM, model="", digest="", request_id=stream_id)
    stream = DistantStream(keeper, await mesh.call(keeper.record.id, header, [orjson.dumps({"start": start})]))
    await stream.until_open()
    return stream


async def serve_stream(
    streams: Streams, stream_id: str, messages: AsyncIterator[bytes]
) -> AsyncGenerator[list[bytes], None]:
    """What a peer gets that asks for one of our streams: an empty message at once, then events as they come.

    Raises:
        RemoteCallError: it is not here.
    """
    request = await anext(messages, b"")
    try:
        reader = streams.read(stream_id, _start(request))
    except errors.ApiError as error:
        raise RemoteCallError("NOT_FOUND", "not_found", str(error)) from error
    try:
        yield [b""]
        async for piece in reader:
            yield [piece]
    finally:
        await reader.aclose()


class DistantStream:
    """Events that a peer passes on. Read it to its end, or close it."""

    def __init__(self, keeper: Member, replies: RemoteReplies) -> None:
        self._keeper = keeper
        self._replies = replies
        self._first = b""
        """What came together with the word that the stream is there."""

    async def until_open(self) -> None:
        """Returns when the peer has found it. Raises as `open_distant`."""
        try:
            self._first = await self._next()
        except StopAsyncIteration:
            pass
        except BaseException:
            await self.aclose()
            raise

    def __aiter__(self) -> "DistantStream":
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        return await self._next()

    async def aclose(self) -> None:
        await self._replies.aclose()

    async def _next(self) -> bytes:
        try:
            return b"".join(await anext(self._replies))
        except RemoteCallError as error:
            raise errors.NotFoundError(str(error)) from error
        except MeshError as error:
            name = self._keeper.record.name
            raise errors.UnavailableError(
                f"Node {name}, which keeps this stream, cannot be reached: {error}.", retry_after=1
            ) from error


def _keeper(view: MeshView, stream_id: str) -> Member:
    named = [m for node, m in view.members.items() if node != view.self_id and stream_id.endswith(mark_of(node))]
    if not named:
        raise errors.NotFoundError(f"No stream {stream_id[:80]!r}: no node of this mesh keeps it.")
    keeper = named[0]
    if keeper.state in (NodeState.DEAD, NodeState.LEFT):
        raise errors.NotFoundError(
            f"Stream {stream_id[:80]!r} was kept by node {keeper.record.name}, which is gone; ask again."
        )
    return keeper


def _start(request: bytes) -> int:
    """From which event on; 0 for what a peer should not have sent."""
    try:
        start = orjson.loads(request).get("start", 0)
    except (orjson.JSONDecodeError, AttributeError):
        return 0
    return start if isinstance(start, int) and not isinstance(start, bool) and start >= 0 else 0
