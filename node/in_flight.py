"""This node's own requests on their way, and what they add to the load that others announce. Pure: `now` is passed in.

A node's announcement is a moment old. What was sent there since is not in it, so it is added; what was sent before is
in it, and not counted again. So the first of a burst of requests makes its node look busier to the second one.
"""

from bisect import bisect_right, insort
from collections.abc import Mapping

from mesh.types import MeshView, NodeId, NodeRecord

LAG = 0.02
"""Seconds that a request may have been under way when its node wrote an announcement that does not count it yet."""

Key = tuple[NodeId, str]


class InFlight:
    """Requests that run, by node and model."""

    def __init__(self) -> None:
        self._begun: dict[Key, list[float]] = {}
        """When each of them was sent; in order."""
        self._latest: dict[NodeId, tuple[NodeRecord, float]] = {}
        """What each node announced last, and since when we know it."""

    def sent(self, view: MeshView, key: Key, now: float) -> float:
        """A request is on its way, chosen by `view`. Returns what `ended` wants to hear."""
        self._known_since(view, key[0], now)
        insort(self._begun.setdefault(key, []), now)
        return now

    def ended(self, key: Key, begun: float) -> None:
        """One of them runs no more."""
        running = self._begun[key]
        running.remove(begun)
        if not running:
            del self._begun[key]
            if not any(node == key[0] for node, _ in self._begun):
                self._latest.pop(key[0], None)

    def taken(self, view: MeshView, model: str, now: float) -> Mapping[Key, int]:
        """How many places are taken at the nodes where requests of ours run, by all that is known."""
        places: dict[Key, int] = {}
        for key, begun in self._begun.items():
            node = key[0]
            record = view.members[node].record.model(model) if key[1] == model and node in view.members else None
            if record is not None:
                unseen = len(begun) - bisect_right(begun, self._known_since(view, node, now) - LAG)
                places[key] = max(record.busy + record.queued + unseen, len(begun))
        return places

    def _known_since(self, view: MeshView, node: NodeId, now: float) -> float:
        member = view.members.get(node)
        latest = self._latest.get(node)
        if member is None:
            return now
        if latest is None or latest[0] is not member.record:
            latest = self._latest[node] = member.record, now
        return latest[1]
