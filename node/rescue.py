"""Help for a call whose node has fallen silent: another node begins with it before the first one is given up.

    silence ──► who answers a ping? ──► the silent node does: it only computes, nothing is done
                                    └─► it does not: the best node that does gets the request, too;
                                        and if that one falls silent as well, the next

Whoever has the next reply first is kept, the others are given up. So nothing is lost if the silent node was only slow,
and it need not be known for dead: the mesh gives up a connection after a second without a sign of life, because that
costs everybody's calls; one answer can move sooner.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any

from mesh.types import NodeId
from node.sending import Sent, Target

AGAIN = 0.3
"""Seconds between two looks at who is there."""


class Rescue:
    """Of one request. `begin` is called whenever the running call is silent."""

    def __init__(
        self,
        present: Callable[[NodeId], Awaitable[Collection[NodeId]]],
        choose: Callable[[Collection[NodeId]], Target | None],
        send: Callable[[Target], Coroutine[Any, Any, Sent]],
    ) -> None:
        """`present`: who answers a ping, of this node and of those that could help; `choose`: the best of them that
        was not asked yet; `send`: the request at a helper, with its first replies in hand (raises SendFailedError)."""
        self._present = present
        self._choose = choose
        self._send = send
        self._running: asyncio.Task[Sent | None] | None = None
        self._calls: list[asyncio.Task[Sent]] = []
        self._is_needed = False

    def begin(self, silent: NodeId, give_up: Callable[[], None]) -> None:
        """The call at `silent` says nothing. `give_up` ends it, once there is a better one."""
        if self._running is None or (self._running.done() and self._running.result() is None):
            self._is_needed = False
            self._running = asyncio.get_running_loop().create_task(self._help(silent, give_up))

    @property
    def is_begun(self) -> bool:
        return self._running is not None

    async def outcome(self) -> Sent | None:
        """The call has failed. A helper with its first replies in hand; None if nobody helps."""
        running = self._running
        if running is None:
            return None
        self._is_needed = True
        # Until it has an end, the silence of a helper must not begin a second one.
        try:
            if self._calls or running.done():
                return await running
            await _end(running)
            return None
        except asyncio.CancelledError:
            await _end(running)
            raise
        finally:
            self._running = None

    async def stop(self) -> None:
        """The silence has ended, or nobody waits any more."""
        running, self._running = self._running, None
        if running is not None:
            await _end(running)

    async def _help(self, silent: NodeId, give_up: Callable[[], None]) -> Sent | None:
        winner: asyncio.Task[Sent] | None = None
        latest = silent
        try:
            while True:
                present = await self._present(latest)
                if latest in present and not self._calls:
                    return None
                if latest not in present:
                    target = self._choose(present)
                    if target is not None:
                        self._calls.append(asyncio.create_task(self._send(target)))
                        latest = target.node
                        continue
                winner, has_failed = await self._first_reply()
                if winner is not None:
                    give_up()
                    return winner.result()
                if has_failed and not self._calls:
                    if self._is_needed:
                        return None
                    latest = silent
        finally:
            try:
                for call in self._calls:
                    if call is not winner:
                        await _end(call)
            except asyncio.CancelledError:
                if winner is not None:
                    await winner.result().aclose()
                raise
            finally:
                self._calls = []

    async def _first_reply(self) -> tuple[asyncio.Task[Sent] | None, bool]:
        """Waits a moment for a helper's reply; also whether one has failed."""
        if not self._calls:
            await asyncio.sleep(AGAIN)
            return None, False
        done, _ = await asyncio.wait(self._calls, timeout=AGAIN, return_when=asyncio.FIRST_COMPLETED)
        for call in done:
            if call.exception() is None:
                return call, False
            self._calls.remove(call)
        return None, bool(done)


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancels a task, and closes the call that it had brought about in the same moment."""
    task.cancel()
    outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    if isinstance(outcome, Sent):
        await outcome.aclose()
