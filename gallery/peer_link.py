"""A connection to a peer's share server. Blocking; used by one thread of the worker."""

import hashlib
import hmac
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

from gallery.chunk_log import ENTRY_BYTES
from gallery.chunks import Chunks
from gallery.peer_wire import (
    MAX_ENTRIES,
    MAX_LINE,
    ChunkRequest,
    LogReply,
    LogRequest,
    PeerWireError,
    Request,
    read_log_reply,
    read_size,
    write_request,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddress:
    """How to reach a peer's share server, as its node told ours over the mesh."""

    id: str
    name: str
    hosts: Sequence[str]
    port: int
    fingerprint: str
    """sha256 of its certificate."""
    ticket: str = field(repr=False)


class PeerLink:
    """Opened when it is first needed."""

    def __init__(self, address: PeerAddress, timeout: float) -> None:
        self.address = address
        self._timeout = timeout
        self._socket: ssl.SSLSocket | None = None
        self._rest = b""
        """Of an answer, what came together with its line."""

    def log(self, file: str, session: str, start: int) -> LogReply:
        """What the peer has got of a file since it had `start` chunks.

        Raises:
            OSError, PeerWireError: it cannot be reached, or answers nonsense.
        """
        line = self._ask(LogRequest(file, session, start))
        size = read_size(line, MAX_ENTRIES * ENTRY_BYTES)
        raw = bytearray(size)
        self._read_into(memoryview(raw))
        return read_log_reply(line, bytes(raw))

    def chunk(self, file: str, chunk: int, size: int, into: bytearray) -> memoryview:
        """One chunk of a file of `size` bytes, in `into`.

        Raises:
            OSError, PeerWireError: as above.
        """
        wanted = Chunks(size).span(chunk).size
        line = self._ask(ChunkRequest(file, chunk, size))
        if read_size(line, wanted) != wanted:
            raise PeerWireError("a chunk that is too short")
        view = memoryview(into)[:wanted]
        self._read_into(view)
        return view

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, request: Request) -> bytes:
        if self._socket is None:
            self._socket = self._connect()
        self._socket.sendall(write_request(self.address.ticket, request))
        head = bytearray()
        while (end := head.find(b"\n") + 1) == 0:
            piece = self._socket.recv(MAX_LINE)
            if not piece or len(head) > MAX_LINE:
                raise PeerWireError("it hung up")
            head += piece
        self._rest = bytes(head[end:])
        return bytes(head[:end])

    def _connect(self) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # Nobody vouches for the certificate but the peer's node, over the mesh: it is compared below.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        raw = self._dial()
        try:
            raw.settimeout(self._timeout)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = context.wrap_socket(raw)
        except BaseException:
            raw.close()
            raise
        shown = hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()
        if not hmac.compare_digest(shown, self.address.fingerprint):
            tls.close()
            raise PeerWireError("somebody else answers there")
        return tls

    def _dial(self) -> socket.socket:
        failure: OSError = OSError("no address")
        for host in self.address.hosts:
            try:
                return socket.create_connection((host, self.address.port), min(self._timeout, 3.0))
            except OSError as error:
                failure = error
        raise failure

    def _read_into(self, view: memoryview) -> None:
        assert self._socket is not None
        begun = min(len(view), len(self._rest))
        view[:begun] = self._rest[:begun]
        view = view[begun:]
        while view:
            count = self._socket.recv_into(view)
            if not count:
                raise PeerWireError("it hung up")
            view = view[count:]
