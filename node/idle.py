"""Which models are unloaded: those unused for longer than they are kept, and those in the way of another one. Pure.

Never one that is busy; to make room, none that is pinned either.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SIZE_FACTOR = 1.2
"""Memory that a model takes, in sizes of its file: the context comes on top of the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model that is ready, or about to be."""

    name: str
    last_used_at: float
    """When a request last began or ended."""
    keep_for: float
    """Seconds it is kept unused; infinite: for good."""
    is_busy: bool
    is_pinned: bool = False
    memory: float = 0.0
    """Bytes that unloading it gives back, about."""
    is_on_gpu: bool = False
    """Whose memory that is."""


def idle_level(seconds: float) -> int:
    """How long a model has not been used, as the mesh is told: in doublings of a minute."""
    return math.ceil(math.log2(seconds / 60)) if seconds > 60 else 0


def overdue(models: Iterable[Loaded], now: float) -> list[str]:
    """Those that nobody used for longer than they are kept."""
    return [m.name for m in models if not m.is_busy and not m.is_pinned and now >= m.last_used_at + m.keep_for]


def next_due(models: Iterable[Loaded]) -> float:
    """When one of them may be overdue next, if nobody uses it; infinite: never."""
    return min((m.last_used_at + m.keep_for for m in models if not m.is_busy and not m.is_pinned), default=math.inf)


def in_the_way(models: Iterable[Loaded], *, needed: float, free: float, on_gpu: bool = False) -> Sequence[str]:
    """What to unload so that `needed` bytes fit, the longest unused first; only what takes the same memory.

    If even all of them would not be enough, none: the guess may be wrong, and nothing would be gained if it is right.
    """
    chosen: list[str] = []
    able = (m for m in models if not m.is_busy and not m.is_pinned and m.is_on_gpu == on_gpu)
    idle = sorted(able, key=lambda m: m.last_used_at)
    for model in idle:
        if needed <= free:
            break
        chosen.append(model.name)
        free += model.memory
    return chosen if needed <= free else []
