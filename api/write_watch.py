"""Notice a client that has stopped reading its answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Send = Callable[[Any], Awaitable[None]]
"""ASGI's `send`."""


class WriteWatch:
    """An ASGI `send` that calls `give_up` once when one write has waited for `timeout` seconds.

    A timer per write would cost more than the write. Here one timer per answer looks at when the
    current write began, so a stall is noticed between one and two timeouts after it began.
    """

    def __init__(self, send: Send, timeout: float, give_up: Callable[[], None]) -> None:
        self._send = send
        self._timeout = timeout
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._waiting_since: float | None = None
        self._timer = self._loop.call_later(timeout, self._look)

    async def send(self, message: Any) -> None:
        self._waiting_since = self._loop.time()
        await self._send(message)
        self._waiting_since = None

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        since = self._waiting_since
        if since is not None and now - since >= self._timeout:
            self._give_up()
        else:
            self._timer = self._loop.call_at((since or now) + self._timeout, self._look)
