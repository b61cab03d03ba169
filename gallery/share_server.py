"""Serves weights to peers, in a process of its own: `python -m gallery.share_server`.

    stdin    a line of JSON first (`Terms`), then {"files": {SHA256: …}} whenever they change; its end ends the server
    stdout   one line: {"port": …}

A process of the lowest priority the system knows, so that no byte of it passes the node, and an answer that is being
computed always comes first. TLS shows the certificate whose fingerprint the node told its peers over the mesh, and
who asks shows a ticket that the node gave out there; nobody else gets an answer.
"""

import contextlib
import json
import os
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass

from gallery.budget import Budget
from gallery.download_plan import Range
from gallery.peer_wire import (
    MAX_ENTRIES,
    MAX_LINE,
    ChunkRequest,
    LogRequest,
    PeerWireError,
    peer_of,
    read_request,
    write_chunk_reply,
    write_error,
    write_log_reply,
)
from gallery.shared_files import SharedFile, SharedFiles

MOST_CONNECTIONS = 128
MOST_PER_PEER = 8
MOST_STRANGERS = 64
"""Connections that have shown no ticket yet: of more, those that came first are sent away, so that whoever comes to
hold places keeps no peer out."""
HANDSHAKE = 10.0
IDLE = 60.0
PIECE = 256 * 1024
BULK = 2
"""TC_PRIO_BULK: what is sent waits behind everything else that leaves this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How this node serves."""

    host: str
    port: int
    rate: float
    """Bytes per second in all; 0: as fast as it goes."""
    certificate: str
    """PEM: key and certificate."""
    secret: str
    """Hex; tickets are made with it."""


class ShareServer:
    """Listens, and serves each connection in a thread."""

    def __init__(self, terms: Terms, files: SharedFiles) -> None:
        self._files = files
        self._secret = bytes.fromhex(terms.secret)
        self._budget = Budget(terms.rate)
        self._lock = threading.Lock()
        self._connections: Counter[str] = Counter()
        self._strangers: dict[ssl.SSLSocket, None] = {}
        """Who has shown no ticket yet, the first one first."""
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_3
        _load(self._tls, terms.certificate)
        family = socket.AF_INET6 if ":" in terms.host else socket.AF_INET
        self._listener = socket.create_server((terms.host, terms.port), family=family, backlog=64)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def run(self) -> None:
        """Serves until the process ends."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                time.sleep(0.1)  # Whoever it was has hung up, or there are too many open files.
                continue
            with contextlib.suppress(OSError):
                tls = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                self._make_room(tls)
                threading.Thread(target=self._serve, args=(tls,), daemon=True).start()

    def _make_room(self, tls: ssl.SSLSocket) -> None:
        with self._lock:
            self._strangers[tls] = None
            if len(self._strangers) > MOST_STRANGERS:
                first = next(iter(self._strangers))
                del self._strangers[first]
                with contextlib.suppress(OSError):
                    # Ends what its thread waits for. SSLSocket's own shutdown is for that thread only.
                    socket.socket.shutdown(first, socket.SHUT_RDWR)

    def _serve(self, tls: ssl.SSLSocket) -> None:
        peer = ""
        try:
            with contextlib.suppress(OSError, PeerWireError):
                tls.settimeout(HANDSHAKE)
                tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if hasattr(socket, "SO_PRIORITY"):
                    tls.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, BULK)
                tls.do_handshake()
                with tls.makefile("rb", buffering=MAX_LINE) as lines:
                    while (line := lines.readline(MAX_LINE)).endswith(b"\n"):
                        ticket, request = read_request(line)
                        if not peer:
                            peer = self._admitted(tls, ticket)
                        tls.settimeout(IDLE)
                        self._answer(tls, request)
        finally:
            with self._lock:
                # Closed afterwards: nobody else finds it any more.
                self._strangers.pop(tls, None)
                if peer:
                    self._connections[peer] -= 1
            tls.close()

    def _admitted(self, tls: ssl.SSLSocket, ticket: str) -> str:
        peer = peer_of(self._secret, ticket)
        if peer is None:
            raise PeerWireError("no ticket of ours")
        with self._lock:
            if self._connections[peer] >= MOST_PER_PEER or self._connections.total() >= MOST_CONNECTIONS:
                raise PeerWireError("too many connections")
            self._connections[peer] += 1
            self._strangers.pop(tls, None)
        return peer

    def _answer(self, tls: ssl.SSLSocket, request: LogRequest | ChunkRequest) -> None:
        match request:
            case LogRequest(file, session, start):
                found = self._files.read_log(file, start, MAX_ENTRIES)
                if found is not None and found[0].session.hex() != session and start:
                    start = 0
                    found = self._files.read_log(file, 0, MAX_ENTRIES)
                if found is None:
                    tls.sendall(write_error("not here"))
                    return
                head, entries = found
                tls.sendall(write_log_reply(head, start, len(entries)) + b"".join(entries))
            case ChunkRequest(file, chunk, size):
                with self._files.chunk(file, chunk, size) as opened:
                    if opened is None:
                        tls.sendall(write_error("not here"))
                        return
                    fd, span = opened
                    tls.sendall(write_chunk_reply(span.size))
                    self._send(tls, fd, span)

    def _send(self, tls: ssl.SSLSocket, fd: int, span: Range) -> None:
        at = span.start
        while at < span.end:
            piece = os.pread(fd, min(PIECE, span.end - at), at)
            if not piece:
                raise PeerWireError("the file became shorter")
            with self._lock:
                wait = self._budget.take(len(piece), time.monotonic())
            tls.sendall(piece)
            at += len(piece)
            if wait:
                time.sleep(wait)


def _load(tls: ssl.SSLContext, certificate: str) -> None:
    # The library reads certificates from files only.
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(certificate)
        file.flush()
        tls.load_cert_chain(file.name)


def _stand_back() -> None:
    """Computing, and reading the disk, only when nobody else wants to."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        return
    with contextlib.suppress(OSError):
        os.nice(19)


def main() -> None:
    """Reads the terms, says the port, serves until its node ends."""
    _stand_back()
    files = SharedFiles()
    server = ShareServer(Terms(**json.loads(sys.stdin.readline())), files)
    sys.stdout.write(json.dumps({"port": server.port}) + "\n")
    sys.stdout.flush()
    threading.Thread(target=server.run, daemon=True).start()
    for line in sys.stdin:
        told = json.loads(line)
        files.replace({sha256: SharedFile(**file) for sha256, file in told["files"].items()})
    os._exit(0)


if __name__ == "__main__":
    main()
