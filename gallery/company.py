"""Who else has a file, or wants it: asked of the worker's node, which asks the mesh. Lives in the worker.

    worker → node    {"event": "wanted", "file": SHA256, "size": …, "part": PATH, "path": PATH, "log": PATH}
    node → worker    {"file": SHA256, "peers": [PeerAddress…], "settled": bool}

The node tells again whenever it changes; `settled` is true once it has met everybody that it knew of.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from gallery.peer_link import PeerAddress

LONGEST_WAIT = 5.0
"""Seconds until a download begins without having heard who else has the file."""


class Company:
    """Thread-safe."""

    def __init__(self, me: str, logs: Path, say: Callable[..., None]) -> None:
        self.me = me
        self._logs = logs
        self._say = say
        self._changed = threading.Condition()
        self._peers: dict[str, tuple[PeerAddress, ...]] = {}
        self._settled: set[str] = set()
        self._distrusted: set[str] = set()
        self._patient_until = 0.0

    def listen(self, lines: Iterable[str]) -> None:
        """Takes what the node tells, until it ends."""
        for line in lines:
            told = json.loads(line)
            with self._changed:
                self._peers[told["file"]] = tuple(PeerAddress(**peer) for peer in told["peers"])
                if told["settled"]:
                    self._settled.add(told["file"])
                self._changed.notify_all()

    def log_of(self, sha256: str) -> Path:
        """Where it is written which chunks of a file are here."""
        return self._logs / sha256

    def want(self, sha256: str, size: int, part: Path, path: Path) -> None:
        """Tells the mesh, and waits until somebody is known who has the file or wants it, or that there is nobody."""
        paths = {"part": str(part), "path": str(path), "log": str(self.log_of(sha256))}
        with self._changed:
            self._settled.discard(sha256)
            self._say(event="wanted", file=sha256, size=size, **paths)
            self._patient_until = time.monotonic() + LONGEST_WAIT
            while sha256 not in self._settled and not self._peers.get(sha256):
                if (rest := self._patient_until - time.monotonic()) <= 0:
                    return
                self._changed.wait(rest)

    def is_settled(self, sha256: str) -> bool:
        """Whether everybody is known that should be, before the origin is asked."""
        with self._changed:
            return sha256 in self._settled or time.monotonic() > self._patient_until

    def peers(self, sha256: str) -> Sequence[PeerAddress]:
        """Those that are known by now, but for the distrusted."""
        with self._changed:
            return [peer for peer in self._peers.get(sha256, ()) if peer.id not in self._distrusted]

    def distrust(self, peers: Iterable[str]) -> None:
        """What they gave made a file that is not what it should be."""
        self._distrusted.update(peers)

    def tell(self, **what: Any) -> None:
        """Something for the node's log, or its job."""
        self._say(**what)
