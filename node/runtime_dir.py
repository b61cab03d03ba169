"""A private folder with a short path, for the sockets of this node's backends.

A unix socket's path may have 107 bytes, so the data folder will not do. Folders that a killed node left
behind are cleared away by the next one: each is locked for as long as its node lives.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

PREFIX = "shoal-"
MAX_PARENT_BYTES = 60
"""Leaves room for our folder, the socket's name and the `unix:` around them."""


class RuntimeDir:
    """The folder, mode 0700, from the first `open` to `close`."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._lock = -1
        self.path = parent

    def open(self) -> Path:
        """The folder's path; makes it if it is not there yet."""
        if self._lock >= 0:
            return self.path
        remove_leftovers(self._parent)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._parent))
        self._lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self.path

    def close(self) -> None:
        """Remove it. Closing twice is fine."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def best_parent(environ: Mapping[str, str]) -> Path:
    """Where to make it: the user's own runtime folder, or the one for temporary files."""
    own = environ.get("XDG_RUNTIME_DIR", "")
    candidates = [Path(p) for p in (own, tempfile.gettempdir(), "/tmp") if p]
    for candidate in candidates:
        if len(os.fsencode(candidate)) <= MAX_PARENT_BYTES and os.access(candidate, os.W_OK | os.X_OK):
            return candidate
    return candidates[-1]


def remove_leftovers(parent: Path) -> None:
    """Remove our folders whose node is gone. Those of other users are none of our business."""
    for path in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_uid == os.getuid() and not _is_in_use(path):
                shutil.rmtree(path, ignore_errors=True)


def _is_in_use(path: Path) -> bool:
    # No lock file: not (yet) ours, so leave it.
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
