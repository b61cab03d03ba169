"""What training does when: six stages, each with its own rows and learning rates.

The first stages teach to copy, on whole conversations that get longer: copying is learnt
soonest on short rows, and only long ones teach to find a name a thousand tokens back. But in
a long conversation most answers can be copied from a similar turn before. So the later ones
are mostly first turns: many short conversations packed into a row, unable to see each other.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

BATCH_TOKENS = 6144
"""Tokens per step, whatever the row length."""

WARM_UP_STEPS = 40


@dataclass(frozen=True, slots=True)
class Rows:
    """What the rows of one batch are."""

    length: int
    packed: bool = False

    @property
    def count(self) -> int:
        """How many rows make a batch."""
        return BATCH_TOKENS // self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Some steps of the same kind, while the rate goes along a half cosine."""

    name: str
    steps: int
    rate_from: float
    rate_to: float
    shares: dict[Rows, float]

    def rate(self, step: int) -> float:
        """The learning rate at this step of the stage."""
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.rate_to + (self.rate_from - self.rate_to) * fall

    def rows(self, rng: random.Random) -> Rows:
        """The rows of the next batch."""
        (rows,) = rng.choices(tuple(self.shares), tuple(self.shares.values()))
        return rows


STAGES = (
    Stage(
        name="short",
        steps=680,
        rate_from=4e-3,
        rate_to=4e-3,
        shares={Rows(128): 0.5, Rows(256): 0.4, Rows(512): 0.1},
    ),
    Stage(
        name="longer",
        steps=720,
        rate_from=4e-3,
        rate_to=3e-3,
        shares={Rows(128): 0.2, Rows(256): 0.4, Rows(512): 0.25, Rows(1024): 0.15},
    ),
    Stage(
        name="long",
        steps=100,
        rate_from=3e-3,
        rate_to=2e-3,
        shares={
            Rows(128): 0.15,
            Rows(256): 0.3,
            Rows(512): 0.2,
            Rows(1024): 0.2,
            Rows(2048): 0.15,
        },
    ),
    Stage(
        name="first turns",
        steps=700,
        rate_from=2.5e-3,
        rate_to=3e-5,
        shares={Rows(512, packed=True): 0.75, Rows(1024): 0.16, Rows(2048): 0.09},
    ),
    Stage(
        name="finish",
        steps=700,
        rate_from=2e-3,
        rate_to=2e-5,
        shares={Rows(512, packed=True): 0.74, Rows(1024): 0.13, Rows(2048): 0.13},
    ),
    Stage(
        name="far back",
        steps=320,
        rate_from=1.2e-3,
        rate_to=1e-5,
        shares={Rows(512, packed=True): 0.4, Rows(1024): 0.15, Rows(2048): 0.45},
    ),
)


def steps(stages: tuple[Stage, ...]) -> Iterator[tuple[Stage, float]]:
    """Every step in order: its stage, and its learning rate after a short warm-up."""
    done = 0
    for stage in stages:
        for step in range(stage.steps):
            done += 1
            yield stage, stage.rate(step) * min(1.0, done / WARM_UP_STEPS)
