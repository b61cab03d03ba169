"""Which chunks of a file are here, with their hashes, as a file that grows: the node's worker writes, its share server
reads, both at once. Of a complete file it is the manifest.

    head, 4096 bytes    magic, session, whether this node asks the origin, what it is fetching there; and a checksum
    then, per chunk     number (4 bytes), BLAKE3 (32 bytes), in the order in which they came

Nobody signs it: the file's own sha256 decides in the end. The bytes of a chunk are written before its entry, so what
is told is there. A reader remembers how many entries it has seen, and gets only the later ones.
"""

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gallery.chunks import HASH_BYTES, MAX_CHUNKS

HEAD_BYTES = 4096
MAX_CLAIMS = 64
_MAGIC = b"shoal chunks 1\n"
_HEAD = struct.Struct(f"!{len(_MAGIC)}s8s?QI")
_PAIR = struct.Struct("!II")
_ENTRY = struct.Struct(f"!I{HASH_BYTES}s")
ENTRY_BYTES = _ENTRY.size

Entry = tuple[int, bytes]
"""A chunk's number and its hash."""


@dataclass(frozen=True, slots=True)
class Head:
    """What changes while a file comes."""

    session: bytes
    """8 random bytes: a log that was begun anew has others."""
    asks_origin: bool = False
    """Whether this node takes its share of what has to come from the origin."""
    claims: Sequence[range] = ()
    """Chunks that it is fetching there."""
    fetched: int = 0
    """Bytes that came from there."""


def write_head(head: Head) -> bytes:
    claims = list(head.claims)[:MAX_CLAIMS]
    body = _HEAD.pack(_MAGIC, head.session, head.asks_origin, head.fetched, len(claims))
    body += b"".join(_PAIR.pack(claim.start, claim.stop) for claim in claims)
    body += bytes(HEAD_BYTES - 4 - len(body))
    return body + struct.pack("!I", zlib.crc32(body))


def read_head(raw: bytes) -> Head | None:
    """The head in `raw`; None if it is none, or is being written at this moment."""
    if len(raw) != HEAD_BYTES or struct.unpack("!I", raw[-4:])[0] != zlib.crc32(raw[:-4]):
        return None
    magic, session, asks_origin, fetched, count = _HEAD.unpack_from(raw)
    if magic != _MAGIC or count > MAX_CLAIMS:
        return None
    pairs = (_PAIR.unpack_from(raw, _HEAD.size + number * _PAIR.size) for number in range(count))
    return Head(session, asks_origin, tuple(range(first, min(last, MAX_CHUNKS)) for first, last in pairs), fetched)


def write_entries(entries: Sequence[Entry]) -> bytes:
    return b"".join(_ENTRY.pack(*entry) for entry in entries)


def read_entries(raw: bytes) -> list[Entry]:
    """Whole entries; what is left over is one that is being written."""
    whole = len(raw) - len(raw) % ENTRY_BYTES
    return list(_ENTRY.iter_unpack(raw[:whole]))


class ChunkLog:
    """A log on disk, for its one writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def begin(self, *, asks_origin: bool) -> list[Entry]:
        """Starts a new session; the entries of the last one.

        Raises:
            OSError: it cannot be written.
        """
        old = load(self._path)
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self._path.with_name(f"{self._path.name}.new")
        self.head = Head(os.urandom(8), asks_origin)
        self._fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.pwrite(self._fd, write_head(self.head), 0)
        temporary.replace(self._path)
        self._end = HEAD_BYTES
        return old

    def tell(self, head: Head) -> None:
        """Replaces the head."""
        if head != self.head:
            self.head = head
            os.pwrite(self._fd, write_head(head), 0)

    def add(self, entries: Sequence[Entry]) -> None:
        raw = write_entries(entries)
        os.pwrite(self._fd, raw, self._end)
        self._end += len(raw)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def load(path: Path) -> list[Entry]:
    """The entries of a log; none if it is damaged."""
    try:
        raw = path.read_bytes()
    except OSError:
        return []
    return read_entries(raw[HEAD_BYTES:]) if read_head(raw[:HEAD_BYTES]) is not None else []
