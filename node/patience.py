"""How long an answer may be silent before something is wrong: derived from its own speed. Pure.

    before the first reply     twice the floor: prompts are read in silence
    after it                   the floor, or twenty times the mean pause so far if that is more, but no more than `most`

Silence alone proves nothing: a prompt may be long, a tool call is held back until it is whole. So on the node that
runs the answer it is only the moment to ask the backend whether it is still there (`node.silence`), and the entry
node gives up only after `WITHOUT_EVIDENCE` times as long.
"""

import math

FACTOR = 20.0
WITHOUT_EVIDENCE = 12.0


class Patience:
    """With one answer."""

    __slots__ = ("_first_at", "_heard", "_last_at", "floor", "most")

    def __init__(self, floor: float, most: float = math.inf) -> None:
        """Seconds, both."""
        self.floor = floor
        self.most = most
        self._heard = 0
        self._first_at = self._last_at = 0.0

    def heard(self, now: float) -> None:
        """A reply came."""
        if not self._heard:
            self._first_at = now
        self._heard += 1
        self._last_at = now

    @property
    def bound(self) -> float:
        """Seconds of silence that are still to be expected."""
        if self._heard < 2:
            return min(2 * self.floor, self.most)
        return min(max(self.floor, FACTOR * (self._last_at - self._first_at) / (self._heard - 1)), self.most)
