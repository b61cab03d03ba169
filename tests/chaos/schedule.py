"""What goes wrong when, from a seed. Pure: the same seed, the same faults.

Rules:

1. At most two nodes are in trouble at once, one where there are only three: somebody must be left to answer.
2. Backends die further apart than any answer is long. A request under which two backends died is given up on
   purpose (`node.errand`), and that is not what is asked here.
3. The last `CALM` seconds are free of faults, so that running answers end.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

CALM = 4.0
CRASHES_APART = 9.0


class Kind(Enum):
    """What can go wrong."""

    KILL_NODE = "kill -9 of a node"
    RESTART_NODE = "SIGTERM of a node"
    FREEZE_NODE = "SIGSTOP of a node"
    KILL_BACKEND = "kill -9 of a backend"
    FREEZE_BACKEND = "SIGSTOP of a backend"
    CUT_LINK = "link cut"
    PARTITION = "partition"
    ONE_WAY = "one-way cut"


WEIGHT = {
    Kind.KILL_NODE: 5,
    Kind.RESTART_NODE: 2,
    Kind.FREEZE_NODE: 4,
    Kind.KILL_BACKEND: 5,
    Kind.FREEZE_BACKEND: 2,
    Kind.CUT_LINK: 3,
    Kind.PARTITION: 3,
    Kind.ONE_WAY: 2,
}

NEEDS_NETWORK = frozenset({Kind.CUT_LINK, Kind.PARTITION, Kind.ONE_WAY})
CRASHES = frozenset({Kind.KILL_BACKEND, Kind.FREEZE_BACKEND})

LASTS = {
    Kind.KILL_NODE: (0.5, 5.0),
    Kind.RESTART_NODE: (0.5, 2.0),
    Kind.FREEZE_NODE: (0.5, 6.0),
    Kind.KILL_BACKEND: (0.0, 0.0),
    Kind.FREEZE_BACKEND: (1.0, 7.0),
    Kind.CUT_LINK: (1.0, 8.0),
    Kind.PARTITION: (2.0, 8.0),
    Kind.ONE_WAY: (2.0, 8.0),
}
"""Seconds from the fault to its end, least and most."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, and is put right again."""

    at: float
    """Seconds from the beginning."""
    lasts: float
    kind: Kind
    nodes: tuple[str, ...]
    """Whom it hits. Two for a one-way cut: who is not heard any more, and by whom."""

    @property
    def end(self) -> float:
        return self.at + self.lasts


def plan(seed: int, seconds: float, nodes: Sequence[str], *, has_network: bool) -> list[Fault]:
    """The faults of a run, by time."""
    chance = random.Random(seed)
    kinds = [kind for kind in Kind if has_network or kind not in NEEDS_NETWORK]
    most = 2 if len(nodes) > 3 else 1
    faults: list[Fault] = []
    last_crash = -CRASHES_APART
    now = 1.0
    while now < seconds - CALM:
        kind = chance.choices(kinds, [WEIGHT[k] for k in kinds])[0]
        fault = _fault(chance, now, kind, nodes)
        # A node that was started again needs a moment to be of use.
        in_trouble = {name for f in faults for name in f.nodes if now < f.end + 2.0}
        fits = (
            not in_trouble & set(fault.nodes)
            and len(in_trouble | set(fault.nodes)) <= most
            and fault.end < seconds - CALM
            and not (kind in CRASHES and now < last_crash + CRASHES_APART)
        )
        if fits:
            faults.append(fault)
            if kind in CRASHES:
                last_crash = now
        now += chance.uniform(0.5, 3.0)
    return faults


def _fault(chance: random.Random, now: float, kind: Kind, nodes: Sequence[str]) -> Fault:
    lasts = chance.uniform(*LASTS[kind])
    many = {Kind.ONE_WAY: 2, Kind.PARTITION: 2 if len(nodes) > 3 else 1}.get(kind, 1)
    return Fault(round(now, 2), round(lasts, 2), kind, tuple(chance.sample(list(nodes), many)))
