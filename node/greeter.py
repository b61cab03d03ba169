"""Says in the log who joins, who leaves and who is lost: what somebody who starts a second machine waits to read."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from mesh.addresses import parse_address
from mesh.errors import AddressError
from mesh.types import MeshView, NodeId, NodeRecord, NodeState

log = logging.getLogger("mesh")

ALONE_AFTER = 10.0
"""Seconds until a node that was found by nobody says so. On a network that works they meet in two."""


def news(greeted: frozenset[NodeId], view: MeshView) -> tuple[list[str], frozenset[NodeId]]:
    """What to say about `view` after having greeted those nodes, and who is greeted then.

    A node is greeted once it is alive and has told its name, and missed only if it was greeted before: a
    suspicion that passes, or somebody whom only others know, is no news.
    """
    lines: list[str] = []
    now = set(greeted)
    for node_id, member in view.members.items():
        record = member.record
        if node_id == view.self_id or not record.name:
            continue
        if member.state is NodeState.ALIVE and node_id not in greeted:
            now.add(node_id)
            lines.append(f"{record.name} ({_host(record)}) joined")
        elif member.state in (NodeState.LEFT, NodeState.DEAD) and node_id in greeted:
            now.remove(node_id)
            lines.append(f"{record.name} {'left' if member.state is NodeState.LEFT else 'is gone'}")
    return lines, frozenset(now & set(view.members))


def _host(record: NodeRecord) -> str:
    for address in record.addresses:
        try:
            return parse_address(address).host
        except AddressError:
            continue  # A kind that only other versions know.
    return "address unknown"


class Watched(Protocol):
    """As much of `mesh.mesh.Mesh` as is needed here."""

    def on_change(self, callback: Callable[[MeshView], None]) -> None: ...


class Greeter:
    """Watches one mesh, and logs."""

    def __init__(self, mesh: Watched) -> None:
        self._greeted: frozenset[NodeId] = frozenset()
        self._has_met = False
        mesh.on_change(self.look)

    def look(self, view: MeshView) -> None:
        lines, self._greeted = news(self._greeted, view)
        self._has_met = self._has_met or bool(self._greeted)
        for line in lines:
            log.info("%s", line)

    async def mind_loneliness(self, *, is_new_mesh: bool, after: float = ALONE_AFTER) -> None:
        """Says once that nobody was found, if so. In a mesh made just now that is no riddle."""
        await asyncio.sleep(after)
        if not self._has_met:
            log.info("no other node yet%s", "" if is_new_mesh else "; 'shoal doctor' says why")
