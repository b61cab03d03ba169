"""Which node fetches which stripe of a file from the origin, when several want the file at once. Pure.

Rendezvous hashing with a bound on the load: every node gives a stripe a score by hashing, the highest score that still
has room wins, and room is an equal share. Whoever knows the same nodes comes to the same result, without a word; a
node that joins or leaves moves few stripes but its own.
"""

import hashlib
from collections.abc import Sequence


def score(key: str, node: str, stripe: int) -> int:
    """How much `node` is the one for that stripe of the file `key`."""
    return int.from_bytes(hashlib.blake2b(f"{key}/{node}/{stripe}".encode(), digest_size=8).digest())


class Shares:
    """Who owns the stripes of one file; remembers scores, and the last answer."""

    def __init__(self, key: str, stripes: int) -> None:
        self._key = key
        self._stripes = stripes
        self._scores: dict[str, list[int]] = {}
        self._nodes: tuple[str, ...] = ()
        self._owners: list[str] = []

    def owners(self, nodes: Sequence[str]) -> list[str]:
        """The owner of each stripe if these nodes share the work; none if there are none."""
        wanted = tuple(sorted(nodes))
        if wanted != self._nodes:
            self._nodes, self._owners = wanted, self._deal(wanted)
        return self._owners

    def best(self, nodes: Sequence[str], stripe: int) -> str:
        """Of these nodes the one with the highest score."""
        return max(nodes, key=lambda node: (self._of(node)[stripe], node))

    def _deal(self, nodes: tuple[str, ...]) -> list[str]:
        if not nodes:
            return []
        room = dict.fromkeys(nodes, -(-self._stripes // len(nodes)))
        owners: list[str] = []
        for stripe in range(self._stripes):
            owner = self.best([node for node in nodes if room[node]], stripe)
            room[owner] -= 1
            owners.append(owner)
        return owners

    def _of(self, node: str) -> list[int]:
        if node not in self._scores:
            self._scores[node] = [score(self._key, node, stripe) for stripe in range(self._stripes)]
        return self._scores[node]
