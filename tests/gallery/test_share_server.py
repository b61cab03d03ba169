"""A share server as a process: it gives to whom its node gave a ticket, and only what its node names."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from gallery.chunks import Chunks
from gallery.peer_link import PeerAddress, PeerLink
from gallery.peer_wire import PeerWireError, make_ticket
from gallery.share_server import MOST_STRANGERS
from node.share_process import make_certificate

DATA = os.urandom(1_000_003)
SHA = hashlib.sha256(DATA).hexdigest()
SECRET = b"s" * 32


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PeerAddress]:
    path = tmp_path / "x.gguf"
    path.write_bytes(DATA)
    certificate = make_certificate()
    terms = {"host": "127.0.0.1", "port": 0, "rate": 0, "certificate": certificate.pem, "secret": SECRET.hex()}
    file: dict[str, Any] = {"path": str(path), "size": len(DATA), "log": str(tmp_path / "log"), "is_whole": True}
    file["mtime_ns"] = path.stat().st_mtime_ns
    with subprocess.Popen(
        [sys.executable, "-m", "gallery.share_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(terms) + "\n" + json.dumps({"files": {SHA: file}}) + "\n")
        process.stdin.flush()
        port = int(json.loads(process.stdout.readline())["port"])
        yield PeerAddress(
            id="a",
            name="a",
            hosts=["127.0.0.1"],
            port=port,
            fingerprint=certificate.fingerprint,
            ticket=make_ticket(SECRET, "me"),
        )
        process.stdin.close()
        process.wait(10)


def changed(address: PeerAddress, **fields: Any) -> PeerAddress:
    names = ("id", "name", "hosts", "port", "fingerprint", "ticket")
    return PeerAddress(**{**{name: getattr(address, name) for name in names}, **fields})


def test_every_chunk_arrives_with_the_hash_that_its_log_tells(server: PeerAddress) -> None:
    link = PeerLink(server, 5.0)
    chunks = Chunks(len(DATA))
    told: dict[int, bytes] = {}
    while len(told) < chunks.count:
        told |= dict(link.log(SHA, "", 0).entries)

    buffer = bytearray(chunks.each)
    arrived = b"".join(bytes(link.chunk(SHA, chunk, len(DATA), buffer)) for chunk in range(chunks.count))

    assert arrived == DATA
    assert told[1] == blake3(DATA[chunks.span(1).start : chunks.span(1).end]).digest()
    link.close()


def test_nothing_is_given_without_a_ticket(server: PeerAddress) -> None:
    with (
        closing(PeerLink(changed(server, ticket=make_ticket(b"other", "me")), 5.0)) as link,
        pytest.raises((PeerWireError, OSError)),
    ):
        link.log(SHA, "", 0)


def test_somebody_else_with_another_certificate_is_not_talked_to(server: PeerAddress) -> None:
    with (
        closing(PeerLink(changed(server, fingerprint="00" * 32), 5.0)) as link,
        pytest.raises(PeerWireError, match="somebody else"),
    ):
        link.log(SHA, "", 0)


def test_a_file_that_was_not_named_is_not_given(server: PeerAddress) -> None:
    with closing(PeerLink(server, 5.0)) as link, pytest.raises(PeerWireError, match="not here"):
        link.log("00" * 32, "", 0)
    with closing(PeerLink(server, 5.0)) as link, pytest.raises(PeerWireError, match="not here"):
        link.chunk(SHA, 0, 5, bytearray(5))


def test_a_file_that_has_changed_is_not_given(server: PeerAddress, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(DATA[::-1])
    os.utime(tmp_path / "x.gguf", ns=(1, 1))

    with closing(PeerLink(server, 5.0)) as link, pytest.raises(PeerWireError, match="not here"):
        link.chunk(SHA, 0, len(DATA), bytearray(10**6))


def test_strangers_who_come_to_hold_places_keep_no_peer_out(server: PeerAddress) -> None:
    strangers = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(3 * MOST_STRANGERS)]
    try:
        with closing(PeerLink(server, 5.0)) as link:
            chunk = link.chunk(SHA, 0, len(DATA), bytearray(10**6))
        assert bytes(chunk) == DATA[: len(chunk)]
        # Those that came first were sent away, before any patience was over.
        assert strangers[0].recv(1) == b""
    finally:
        for stranger in strangers:
            stranger.close()
