"""The files that a node serves to its peers, opened when they are asked for, with the log of what is in them.

Lives in the share server's process. A file that is complete and has no log yet is hashed once, and while that goes on
its log tells as far as it is.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from gallery.chunk_log import ENTRY_BYTES, HEAD_BYTES, ChunkLog, Head, read_entries, read_head
from gallery.chunks import Chunks
from gallery.download_plan import Range

MOST_OPEN = 64


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A file, or the part of one that is coming."""

    path: str
    size: int
    log: str
    is_whole: bool
    mtime_ns: int = 0
    """Of a whole file: one that has changed is not what it was."""
    then: str = ""
    """Of a part: where it goes when it is whole."""


class SharedFiles:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, SharedFile] = {}
        self._open: dict[str, tuple[SharedFile, int]] = {}
        self._making: dict[str, threading.Event] = {}

    def replace(self, files: Mapping[str, SharedFile]) -> None:
        """What is served from now on."""
        with self._lock:
            self._files = dict(files)
            for gone in [sha for sha in self._open if sha not in files]:
                os.close(self._open.pop(gone)[1])
            # One that comes back may have lost its log meanwhile.
            self._making = {sha: made for sha, made in self._making.items() if sha in files or not made.is_set()}

    def read_log(self, sha256: str, start: int, most: int) -> tuple[Head, list[bytes]] | None:
        """The head of a file's log, and raw entries from `start` on; None if it is not served."""
        with self._lock:
            file = self._files.get(sha256)
        if file is None:
            return None
        if file.is_whole:
            self._make_log(sha256, file)
        try:
            with Path(file.log).open("rb") as log:
                head = read_head(log.read(HEAD_BYTES))
                log.seek(HEAD_BYTES + start * ENTRY_BYTES)
                raw = log.read(most * ENTRY_BYTES)
        except OSError:
            return None
        if head is None:
            return None
        whole = len(raw) // ENTRY_BYTES * ENTRY_BYTES
        return head, [raw[at : at + ENTRY_BYTES] for at in range(0, whole, ENTRY_BYTES)]

    @contextlib.contextmanager
    def chunk(self, sha256: str, chunk: int, size: int) -> Iterator[tuple[int, Range] | None]:
        """A descriptor to read a chunk with, and its bytes; None if it cannot be had."""
        with self._lock:
            file = self._files.get(sha256)
            if file is None or file.size != size or not 0 <= chunk < Chunks(size).count:
                fd = None
            else:
                fd = self._descriptor(sha256, file)
            # Another thread may close the first one while this one reads.
            fd = None if fd is None else os.dup(fd)
        if fd is None:
            yield None
            return
        try:
            yield fd, Chunks(size).span(chunk)
        finally:
            os.close(fd)

    def _descriptor(self, sha256: str, file: SharedFile) -> int | None:
        known = self._open.get(sha256)
        if known is not None and known[0] == file and (file.is_whole or _is_still(file.path, known[1])):
            return known[1]
        fd = _opened(file)
        if fd is None:
            return None
        if file.is_whole and os.fstat(fd).st_mtime_ns != file.mtime_ns:
            os.close(fd)
            return None
        if known is not None:
            os.close(known[1])
        elif len(self._open) >= MOST_OPEN:
            os.close(self._open.pop(next(iter(self._open)))[1])
        self._open[sha256] = (file, fd)
        return fd

    def _make_log(self, sha256: str, file: SharedFile) -> None:
        """Makes the log of a whole file if there is none; who asks meanwhile reads as far as it is."""
        with self._lock:
            if sha256 in self._making:
                return
            made = self._making[sha256] = threading.Event()
        if _is_log_of(Path(file.log), file):
            made.set()
            return
        threading.Thread(target=self._hash, args=(sha256, file, made), daemon=True).start()
        made.wait(1.0)

    def _hash(self, sha256: str, file: SharedFile, made: threading.Event) -> None:
        chunks = Chunks(file.size)
        log = ChunkLog(Path(file.log))
        try:
            log.begin(asks_origin=False)
            for chunk in range(chunks.count):
                with self.chunk(sha256, chunk, file.size) as found:
                    if found is None:
                        return
                    fd, span = found
                    data = os.pread(fd, span.size, span.start)
                    if len(data) < span.size:
                        return
                log.add([(chunk, blake3(data).digest())])
        except OSError:
            return
        finally:
            log.close()
            made.set()


def _opened(file: SharedFile) -> int | None:
    for path in (file.path, file.then):
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY)
    return None


def _is_still(part: str, fd: int) -> bool:
    """Whether the part was not begun anew; one that has moved into its place is the same file."""
    try:
        return os.stat(part).st_ino == os.fstat(fd).st_ino
    except OSError:
        return True


def _is_log_of(path: Path, file: SharedFile) -> bool:
    """Whether it tells of every chunk, and was written after the file."""
    try:
        raw = path.read_bytes()
        is_later = path.stat().st_mtime_ns >= file.mtime_ns
    except OSError:
        return False
    if read_head(raw[:HEAD_BYTES]) is None or not is_later:
        return False
    return {chunk for chunk, _ in read_entries(raw[HEAD_BYTES:])} == set(range(Chunks(file.size).count))
