"""How often one request may be tried, and where it was tried already. Pure.

Rules:

1. Whatever is not the client's fault is tried elsewhere, at `MOST` nodes since the last token. Who had failed before
   that may have recovered.
2. A node that was already gone when it was asked costs nothing; one that goes while it works costs a loss, `MOST_LOST`
   of them in all: that machines die of a request is unlikely, but not impossible.
3. A request under which `MOST_CRASHES` backends died is likely the reason; it is not passed around further.
4. When nobody is left only because nodes are gone, it is tried again everywhere after a `PAUSE`, `MOST_PAUSES` times.
   A machine that slept finds all its connections broken, and has them back in a moment.
"""

from mesh.types import NodeId
from node.failure import CallFailure

MOST = 3
MOST_LOST = 8
MOST_CRASHES = 2
PAUSE = 0.25
"""Seconds."""
MOST_PAUSES = 12


class Attempts:
    """Of one request."""

    def __init__(self) -> None:
        self.tried: list[NodeId] = []
        """Since the last token."""
        self.count = 0
        """In all."""
        self._failed = 0
        self._lost = 0
        self._crashes = 0
        self._pauses = 0

    def begin(self, node: NodeId) -> None:
        """It is sent to `node`."""
        self.tried.append(node)
        self.count += 1

    def progress(self, node: NodeId) -> None:
        """A token came from `node`."""
        if self._failed or len(self.tried) > 1:
            self._failed = 0
            self.tried[:] = [node]

    def fail(self, failure: CallFailure) -> None:
        """It failed where it was sent last."""
        self._crashes += failure.is_crash
        if failure.is_node_lost:
            self._lost += not failure.is_unsent
        else:
            self._failed += 1

    @property
    def is_spent(self) -> bool:
        """Nobody is to be bothered with it any more."""
        return self._failed >= MOST or self._lost >= MOST_LOST or self._crashes >= MOST_CRASHES

    def pause(self, failure: CallFailure) -> bool:
        """Nobody is left. Whether to try all again after a `PAUSE`."""
        if not failure.is_node_lost or self._pauses >= MOST_PAUSES:
            return False
        self._pauses += 1
        self.tried.clear()
        return True
