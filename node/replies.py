"""The replies of a call, from wherever: batches of serialized messages, as they come."""

from collections.abc import AsyncIterator
from typing import Protocol

from mesh.calls import RemoteReplies
from node.backend_client import BackendCall
from node.silence import SilenceWatch


class Replies(Protocol):
    """Read to its end, or closed. Closing cancels the call where it runs."""

    def __aiter__(self) -> AsyncIterator[list[bytes]]: ...

    async def __anext__(self) -> list[bytes]: ...

    async def aclose(self) -> None: ...


class LocalReplies:
    """The replies of a backend on this machine. A backend has gathered its events already: one at a time."""

    def __init__(self, call: BackendCall, watch: SilenceWatch | None = None) -> None:
        self._call = call
        self._watch = watch

    def __aiter__(self) -> "LocalReplies":
        return self

    async def __anext__(self) -> list[bytes]:
        try:
            reply = await self._call.__anext__()
        except BaseException:
            self._unwatch()
            raise
        if self._watch is not None:
            self._watch.heard()
        return [reply]

    async def aclose(self) -> None:
        self._unwatch()
        self._call.cancel()

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None


class PeerReplies:
    """The replies of a peer. While it is silent, `watch` has somebody ask whether it is still there."""

    def __init__(self, replies: RemoteReplies, watch: SilenceWatch) -> None:
        self._replies = replies
        self._watch = watch

    def __aiter__(self) -> "PeerReplies":
        return self

    async def __anext__(self) -> list[bytes]:
        try:
            batch = await self._replies.__anext__()
        except BaseException:
            self._watch.close()
            raise
        self._watch.heard()
        return batch

    async def aclose(self) -> None:
        self._watch.close()
        await self._replies.aclose()
