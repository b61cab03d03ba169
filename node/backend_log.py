"""What a backend printed: a file of bounded size, and its last lines in memory for error messages.

The node reads the backend's output through a pipe instead of giving it the file, so that a chatty
engine can never fill the disk and the last words of a crash are at hand at once.
"""

import logging
from collections import deque
from pathlib import Path

MAX_LOG_BYTES = 1024 * 1024
"""Size at which the file becomes `NAME.log.1`, replacing the one before."""

KEPT_LINES = 40
MAX_LINE_BYTES = 400
"""What is kept for error messages: enough for a Python traceback."""

log = logging.getLogger(__name__)


class BackendLog:
    """The log of one model's backend, over all its processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: deque[bytes] = deque(maxlen=KEPT_LINES)
        self._unfinished = b""
        self._is_broken = False

    def forget_lines(self) -> None:
        """A new process, or a new stage of its life: what was said before explains nothing any more."""
        self._lines.clear()
        self._unfinished = b""

    def write(self, data: bytes) -> None:
        """Take in what the backend printed. A full disk costs the file, not the backend."""
        *lines, unfinished = (self._unfinished + data).split(b"\n")
        self._lines.extend(line[:MAX_LINE_BYTES] for line in lines if line.strip())
        self._unfinished = unfinished[:MAX_LINE_BYTES]
        try:
            self._append(data)
            self._is_broken = False
        except OSError as exc:
            if not self._is_broken:
                log.warning("cannot write %s: %s", self.path, exc)
            self._is_broken = True

    def last_lines(self, count: int = 5) -> list[str]:
        """The newest lines, oldest first."""
        lines = [*self._lines, self._unfinished] if self._unfinished.strip() else [*self._lines]
        return [line.decode(errors="replace").rstrip() for line in lines[-count:]]

    def last_words(self) -> str:
        """The newest lines as one sentence; of a Python traceback only its last line."""
        lines = self.last_lines(3)
        if any(line.startswith(("  File ", "Traceback ")) for line in self.last_lines(KEPT_LINES)):
            lines = lines[-1:]
        return "; ".join(line.strip() for line in lines)

    def _append(self, data: bytes) -> None:
        # Opened for each write: backends print a few lines a minute, and an open file per model that
        # has to be closed on every path is worse.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(data)
            size = file.tell()
        if size > MAX_LOG_BYTES:
            self.path.replace(self.path.with_name(self.path.name + ".1"))
