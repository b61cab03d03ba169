"""What training does when: short sounds first, which teach what the words are, then whole windows."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

WARM_UP_STEPS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Some steps of the same kind, while the rate goes along a half cosine."""

    name: str
    steps: int
    rate_from: float
    rate_to: float
    batch: int
    """Sounds in a step."""
    longest: float
    """Seconds of a sound."""
    whole: float = 0.0
    """Part of the steps filled up to 30 seconds, as faster-whisper does; with a third of the sounds."""

    def rate(self, step: int) -> float:
        """The learning rate at this step of the stage."""
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.rate_to + (self.rate_from - self.rate_to) * fall


STAGES = (
    Stage(name="short", steps=700, rate_from=4e-3, rate_to=3e-3, batch=32, longest=3.0),
    Stage(name="longer", steps=300, rate_from=3e-3, rate_to=2.5e-3, batch=24, longest=6.0),
    Stage(name="windows", steps=320, rate_from=2.5e-3, rate_to=2e-5, batch=21, longest=6.0, whole=0.25),
)


def steps(stages: tuple[Stage, ...]) -> Iterator[tuple[Stage, float]]:
    """Every step in order: its stage, and its learning rate after a short warm-up."""
    done = 0
    for stage in stages:
        for step in range(stage.steps):
            done += 1
            yield stage, stage.rate(step) * min(1.0, done / WARM_UP_STEPS)
