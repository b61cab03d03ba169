"""What mDNS lists at this moment: announcements by their name. Pure.

A name is random and new with every start, so one node may be listed under several of them: its last life's
stays until it expires. A node counts as listed while any of its names is.
"""

from collections.abc import Sequence

from mesh.mdns_text import Heard
from mesh.types import NodeId

MOST_NAMES = 512
"""Announcements looked at; a network full of invented ones costs us no more."""


class Announced:
    """Everybody who announces himself, but for this node."""

    def __init__(self) -> None:
        self._names: dict[str, Heard | None] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str) -> bool:
        """There is an announcement of that name; whether it should be looked at."""
        if name not in self._names:
            if len(self._names) >= MOST_NAMES:
                return False
            self._names[name] = None
        return True

    def heard(self, name: str, heard: Heard) -> None:
        """This is what it says."""
        if name in self._names:
            # The latest last: of two lives of a node, the later one is right.
            del self._names[name]
            self._names[name] = heard

    def removed(self, name: str) -> NodeId | None:
        """It was taken back, or expired. The node that is not listed any more by that."""
        heard = self._names.pop(name, None)
        if heard is None or heard.node_id in {other.node_id for other in self.nodes()}:
            return None
        return heard.node_id

    def clear(self) -> list[NodeId]:
        """Nothing is listed any more; who was."""
        gone = [heard.node_id for heard in self.nodes()]
        self._names.clear()
        return gone

    def nodes(self) -> Sequence[Heard]:
        """Every node once, as it said last."""
        return list({heard.node_id: heard for heard in self._names.values() if heard is not None}.values())
