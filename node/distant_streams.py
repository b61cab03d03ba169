"""Resumable streams (`api.resumable`) that another node keeps: found by their id, read through the mesh.

    entry node      GET /v1/streams/chatcmpl-…-4bXq…   the end of the id names the node that keeps it
                    DistantStream ──── node.ReadStream ────► that node's `Streams`

When the node that keeps a stream is gone, whoever has a copy of it is asked: it goes on with the answer (`node.tape`).
"""

from collections.abc import AsyncGenerator, AsyncIterator

import orjson

from api import errors
from api.ports import Body
from api.resumable import Streams
from mesh.calls import RemoteReplies
from mesh.errors import MeshError, RemoteCallError
from mesh.forwarding import CallHeader
from mesh.mesh import Mesh
from mesh.types import Member, NodeId, NodeState
from node.tape import keepers

READ_STREAM = "node.ReadStream"

COPIES_LOOKED_FOR = 6
"""Nodes that are asked for a copy. It is with the first one, unless nodes came or went meanwhile."""

MARK_LENGTH = 12
"""Characters of a node's id at the end of its streams' ids. Not secret: what must not be guessed stands before it."""


def mark_of(node: NodeId) -> str:
    """What the ids of a node's streams end in."""
    return f"-{node[-MARK_LENGTH:]}"


async def open_distant(mesh: Mesh, streams: Streams, stream_id: str, start: int) -> Body:
    """The events of a stream from number `start` on: from the node that keeps it, or, if that is gone or has forgotten
    it over a restart, from one with a copy. `streams` are those of this node.

    Raises:
        NotFoundError: nobody has it.
        MeshError: the mesh is not running.
    """
    view = mesh.view()
    keeper = next((m for node, m in view.members.items() if stream_id.endswith(mark_of(node))), None)
    if keeper is None:
        raise errors.NotFoundError(f"No stream {stream_id[:80]!r}: no node of this mesh keeps it.")
    order = [keeper.record.id, *keepers(view, stream_id, [keeper.record.id])[:COPIES_LOOKED_FOR]]
    reason = f"Stream {stream_id[:80]!r} was kept by node {keeper.record.name}, which is gone; ask again."
    for member in map(view.members.__getitem__, order):
        if member.state in (NodeState.DEAD, NodeState.LEFT):
            continue
        try:
            if member.record.id == mesh.self_id:
                return streams.read(stream_id, start)
            return await _open_at(mesh, member, stream_id, start)
        except (errors.NotFoundError, errors.UnavailableError) as error:
            reason = str(error) if member is keeper else reason
    raise errors.NotFoundError(reason)


async def _open_at(mesh: Mesh, keeper: Member, stream_id: str, start: int) -> "DistantStream":
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
        """Returns when the peer has found it.

        Raises:
            NotFoundError: it has no such stream.
            UnavailableError: it cannot be reached.
        """
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


def _start(request: bytes) -> int:
    """From which event on; 0 for what a peer should not have sent."""
    try:
        start = orjson.loads(request).get("start", 0)
    except (orjson.JSONDecodeError, AttributeError):
        return 0
    return start if isinstance(start, int) and not isinstance(start, bool) and start >= 0 else 0
