"""How long to wait before a suspect is given up: Lifeguard's two ideas. Pure.

Lifeguard (Dadgar, Phillips, Currey: "Lifeguard: Local Health Awareness for More Accurate Failure Detection",
arXiv 1707.00788) makes SWIM right on machines that are sometimes slow:

* the more members accuse the same node independently, the shorter the wait (`patience`);
* who is slow itself waits longer and accuses nobody (`Awareness`).

Lifeguard's members learn that they are slow from probes that fail. A clock tells it more directly, and does not
blame us for a dead peer: our own ticks come late.
"""

import math

ENOUGH = 4
"""Accusers after whom more of them change nothing."""


def patience(accusers: int, *, most: float, least: float) -> float:
    """Seconds from suspicion to death: `most` with one accuser, `least` with `ENOUGH`."""
    confirmations = min(max(accusers - 1, 0), ENOUGH - 1)
    return max(least, most - (most - least) * math.log(confirmations + 1) / math.log(ENOUGH))


class Awareness:
    """How far this node can trust its own idea of time."""

    MOST = 4
    """At most five times the usual patience: a node must not become blind by being slow for long."""

    STEP = 0.5
    """Seconds: a tick that is so late makes one step. Twice a period happens on any busy machine."""

    RECOVERY = 2.0
    """Seconds of timely ticks that make up for one step."""

    def __init__(self) -> None:
        self._steps = 0
        self._since = 0.0

    @property
    def factor(self) -> int:
        """By how much to multiply every patience with others."""
        return 1 + self._steps

    @property
    def is_well(self) -> bool:
        return self._steps == 0

    def ticked(self, late: float, now: float) -> None:
        """A tick came `late` seconds after its time."""
        steps = int(late / self.STEP)
        if steps:
            self._worsen(steps, now)
        elif self._steps and now - self._since >= self.RECOVERY:
            self._steps -= 1
            self._since = now

    def was_accused(self, now: float) -> None:
        """Others thought us dead: we answer too slowly, whatever our clock says."""
        self._worsen(1, now)

    def _worsen(self, steps: int, now: float) -> None:
        self._steps = min(self._steps + steps, self.MOST)
        self._since = now
