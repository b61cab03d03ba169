"""When a second copy of a request is sent to another holder, because the first one answers late. Pure.

After the time within which 95 of 100 first tokens come, a request is unlikely to be merely slow; a copy elsewhere then
costs a twentieth more load at most and cuts off the tail ("The Tail at Scale", Dean and Barroso, CACM 56(2), 2013).

Rules:

1. A model's own recent first tokens decide how late is late; before `FEWEST` of them nothing is sent twice.
2. At most `SHARE` of the requests, in the long run: when everybody is slow, copies would make it worse.
"""

from collections import OrderedDict, deque

PERCENTILE = 0.95
FEWEST = 20
"""First tokens that must be known."""
KEPT = 200
"""First tokens remembered of each model."""
MOST_MODELS = 64
SHARE = 0.05
BURST = 5.0
"""Copies that may be saved up."""


class Hedging:
    """Of one entry node."""

    def __init__(self) -> None:
        self._seconds: OrderedDict[str, deque[float]] = OrderedDict()
        self._saved = 1.0

    def asked(self) -> None:
        """A request came in."""
        self._saved = min(BURST, self._saved + SHARE)

    def answered(self, model: str, seconds: float) -> None:
        """The first token of an answer came after so many seconds."""
        known = self._seconds.setdefault(model, deque(maxlen=KEPT))
        self._seconds.move_to_end(model)
        known.append(seconds)
        if len(self._seconds) > MOST_MODELS:
            self._seconds.popitem(last=False)

    def patience(self, model: str) -> float | None:
        """Seconds after which a copy is worth it; None: never."""
        known = self._seconds.get(model, ())
        if len(known) < FEWEST or self._saved < 1:
            return None
        return sorted(known)[int(PERCENTILE * (len(known) - 1))]

    def spend(self) -> None:
        """A copy was sent."""
        self._saved -= 1
