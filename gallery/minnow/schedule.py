"""What training does when: how fast to learn, and how long the rows are.

Everything is a function of progress, which runs from 0 to 1.
"""

import math
import random

BATCH_TOKENS = 6144
"""Tokens per step, whatever the row length."""

WARM_UP = 0.02
FLAT_UNTIL = 0.55
LOWEST = 0.02

ROW_LENGTHS: tuple[tuple[float, dict[int, float]], ...] = (
    (0.30, {128: 0.5, 256: 0.4, 512: 0.1}),
    (0.70, {128: 0.2, 256: 0.4, 512: 0.25, 1024: 0.15}),
    (1.00, {128: 0.15, 256: 0.3, 512: 0.2, 1024: 0.2, 2048: 0.15}),
)
"""Up to this progress, these row lengths with these shares. Copying is learnt soonest on
short rows; only long ones teach to find a name a thousand tokens back."""


def learning_rate(progress: float) -> float:
    """Relative to the peak: a short warm-up, a plateau, then a cosine to almost nothing."""
    if progress < WARM_UP:
        return (progress + 1e-3) / (WARM_UP + 1e-3)
    if progress < FLAT_UNTIL:
        return 1.0
    left = (progress - FLAT_UNTIL) / (1 - FLAT_UNTIL)
    return LOWEST + (1 - LOWEST) * 0.5 * (1 + math.cos(math.pi * min(1.0, left)))


def row_length(rng: random.Random, progress: float) -> int:
    """How long the rows of the next batch are."""
    shares = next(s for until, s in ROW_LENGTHS if progress <= until)
    (length,) = rng.choices(tuple(shares), tuple(shares.values()))
    return length
