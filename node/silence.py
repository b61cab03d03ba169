"""Looks after a running call: when it is silent for longer than its own speed explains, somebody asks why.

One timer per call, set again only when it fires, so that a token costs no more than a note of the time.
"""

import asyncio
from collections.abc import Callable

from node.patience import Patience


class SilenceWatch:
    """Calls `ask` when the silence lasts, and again as long as it goes on."""

    def __init__(self, patience: Patience, ask: Callable[[], None]) -> None:
        self._patience = patience
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._timer = self._loop.call_later(patience.bound, self._look)

    def heard(self) -> None:
        """A reply came."""
        self._since = self._loop.time()
        self._patience.heard(self._since)

    def close(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        due = self._since + self._patience.bound
        if now >= due:
            self._ask()
            due = now + self._patience.bound
        self._timer = self._loop.call_at(due, self._look)
