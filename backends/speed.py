"""Measured speeds, as means that forget: what a backend says about itself to those who route."""

WEIGHT = 0.2
"""Of the newest measurement. Higher follows changes faster and jumps more."""


class RecentMean:
    """A mean in which old measurements count less and less; 0 while there are none."""

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, measured: float) -> None:
        """Take in one measurement."""
        self.value = measured if not self.value else self.value + WEIGHT * (measured - self.value)
