"""How many strangers may be at the door at once: a bound on connections that are not encrypted yet."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class HandshakePlaces:
    """When all places are taken, whoever has had one longest loses it: a member is through in milliseconds, while a
    stranger who says nothing would keep members waiting outside."""

    def __init__(self, most: int, timeout: float) -> None:
        """`timeout`: seconds that somebody may keep a place."""
        self._most = most
        self._timeout = timeout
        self._taken: dict[trio.CancelScope, None] = {}

    @contextmanager
    def take(self) -> Iterator[None]:
        """Time and a place to become encrypted.

        Raises:
            trio.TooSlowError: the time is over, or the place was needed for others.
        """
        if len(self._taken) >= self._most:
            longest = next(iter(self._taken))
            del self._taken[longest]
            longest.cancel()
        with trio.fail_after(self._timeout) as scope:
            self._taken[scope] = None
            try:
                yield
            finally:
                self._taken.pop(scope, None)
