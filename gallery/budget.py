"""So many bytes a second, no more. Pure: time is an argument."""

BURST = 0.25
"""Seconds of the rate that may come at once after a pause."""


class Budget:
    """What may pass. A rate of 0 is no limit."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0

    def take(self, count: int, now: float) -> float:
        """Seconds to wait after passing `count` bytes at `now`."""
        if not self._rate:
            return 0.0
        self._free_at = max(self._free_at, now - BURST) + count / self._rate
        return max(0.0, self._free_at - now)
