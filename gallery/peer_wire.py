"""What nodes say to each other while weights travel: lines of JSON, followed by bytes. Pure; every limit is here.

    {"ticket": …, "ask": "log", "file": SHA256, "session": HEX, "from": N}     → {"bytes": n, …} and entries of the log
    {"ticket": …, "ask": "chunk", "file": SHA256, "chunk": N, "size": BYTES}   → {"bytes": n} and the chunk
                                                                              or {"error": …}

A ticket is given out by the node of whoever serves, over the mesh, to the node of whoever asks: it names the peer, and
only the two processes of one node can make one.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gallery.chunk_log import ENTRY_BYTES, Entry, Head, read_entries
from gallery.chunks import MAX_CHUNKS, MOST

MAX_LINE = 4096
MAX_ENTRIES = 8192
"""In one answer; who needs more asks again."""
MAX_TOLD_CLAIMS = 16
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class PeerWireError(Exception):
    """A peer breaks the protocol."""


@dataclass(frozen=True, slots=True)
class LogRequest:
    file: str
    session: str
    """Of the log as it was read last; empty at first."""
    start: int
    """Entries that are known already."""


@dataclass(frozen=True, slots=True)
class ChunkRequest:
    file: str
    chunk: int
    size: int
    """Of the file, so that both cut it alike."""


Request = LogRequest | ChunkRequest


@dataclass(frozen=True, slots=True)
class LogReply:
    """What a peer has got since we last asked."""

    head: Head
    start: int
    """The number of the first of `entries`; 0 where the log began anew."""
    entries: Sequence[Entry]


def make_ticket(secret: bytes, peer: str) -> str:
    """Lets `peer` read."""
    return f"{peer}.{hmac.new(secret, peer.encode(), hashlib.sha256).hexdigest()}"


def peer_of(secret: bytes, ticket: str) -> str | None:
    """Whose ticket it is; None if nobody's."""
    peer, _, _ = ticket.rpartition(".")
    # JSON can say characters that have no bytes.
    return (
        peer
        if peer and ticket.isascii() and hmac.compare_digest(make_ticket(secret, peer).encode(), ticket.encode())
        else None
    )


def write_request(ticket: str, request: Request) -> bytes:
    match request:
        case LogRequest(file, session, start):
            body = {"ticket": ticket, "ask": "log", "file": file, "session": session, "from": start}
        case ChunkRequest(file, chunk, size):
            body = {"ticket": ticket, "ask": "chunk", "file": file, "chunk": chunk, "size": size}
    return json.dumps(body).encode() + b"\n"


def read_request(line: bytes) -> tuple[str, Request]:
    """Ticket and question.

    Raises:
        PeerWireError: it is none.
    """
    body = _object(line)
    file, ticket = _text(body, "file"), _text(body, "ticket")
    if not _SHA256.match(file):
        raise PeerWireError("no sha256")
    if body.get("ask") == "log":
        return ticket, LogRequest(file, _text(body, "session"), _number(body, "from", MAX_CHUNKS))
    if body.get("ask") == "chunk":
        return ticket, ChunkRequest(file, _number(body, "chunk", MAX_CHUNKS), _number(body, "size", MAX_CHUNKS * MOST))
    raise PeerWireError("an unknown question")


def write_log_reply(head: Head, start: int, count: int) -> bytes:
    """The line before `count` entries."""
    claims = [[claim.start, claim.stop] for claim in list(head.claims)[:MAX_TOLD_CLAIMS]]
    body = {
        "bytes": count * ENTRY_BYTES,
        "session": head.session.hex(),
        "origin": head.asks_origin,
        "fetched": head.fetched,
        "claims": claims,
        "from": start,
    }
    return json.dumps(body).encode() + b"\n"


def write_chunk_reply(size: int) -> bytes:
    return json.dumps({"bytes": size}).encode() + b"\n"


def write_error(error: str) -> bytes:
    return json.dumps({"error": error[:200]}).encode() + b"\n"


def read_size(line: bytes, most: int) -> int:
    """Bytes that follow a reply's line.

    Raises:
        PeerWireError: it is none, tells of an error, or announces more than `most`.
    """
    body = _object(line)
    if "error" in body:
        raise PeerWireError(_text(body, "error")[:200])
    return _number(body, "bytes", most)


def read_log_reply(line: bytes, raw: bytes) -> LogReply:
    """A whole answer about a log.

    Raises:
        PeerWireError: it is none.
    """
    body = _object(line)
    claims = body.get("claims")
    try:
        session = bytes.fromhex(_text(body, "session"))
        if not isinstance(claims, list) or len(claims) > MAX_TOLD_CLAIMS or len(session) != 8:
            raise PeerWireError("a log that makes no sense")
        told = tuple(range(min(int(first), MAX_CHUNKS), min(int(last), MAX_CHUNKS)) for first, last in claims)
    except (ValueError, TypeError, OverflowError) as error:
        raise PeerWireError("a log that makes no sense") from error
    head = Head(session, body.get("origin") is True, told, _number(body, "fetched", 2**62))
    return LogReply(head, _number(body, "from", MAX_CHUNKS), read_entries(raw))


def _object(line: bytes) -> dict[str, Any]:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PeerWireError("no JSON") from error
    if not isinstance(body, dict):
        raise PeerWireError("no JSON object")
    return body


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or len(value) > 512:
        raise PeerWireError(f"{key} is no text")
    return value


def _number(body: dict[str, Any], key: str, most: int) -> int:
    value = body.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise PeerWireError(f"{key} is no number from 0 to {most}")
    return value
