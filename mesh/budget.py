"""How much somebody may cost us: a bucket that fills with time. Pure."""


class Budget:
    """So much at once, and so much per second in the long run. Time never runs backwards."""

    __slots__ = ("_at", "_burst", "_level", "_per_second")

    def __init__(self, burst: float, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._level = burst
        self._at: float | None = None

    def take(self, cost: float, now: float) -> bool:
        """Spend `cost` if there is as much; whether there was."""
        self._fill(now)
        if cost > self._level:
            return False
        self._level -= cost
        return True

    def owe(self, cost: float, now: float) -> float:
        """Spend `cost` in any case; the seconds until that is paid for."""
        self._fill(now)
        self._level -= cost
        return max(0.0, -self._level / self._per_second)

    def _fill(self, now: float) -> None:
        if self._at is not None:
            self._level = min(self._burst, self._level + (now - self._at) * self._per_second)
        self._at = now
