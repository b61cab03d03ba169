"""The process that serves this node's weights (`gallery.share_server`): started when a peer first asks, told what there
is to serve, started again when it ends."""

import asyncio
import contextlib
import datetime
import json
import logging
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from gallery.peer_wire import make_ticket
from gallery.shared_files import SharedFile

log = logging.getLogger(__name__)

START_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Certificate:
    """A key and what it shows of itself: made for one process, vouched for by the node alone."""

    pem: str
    fingerprint: str


class ShareProcess:
    """Lives in the node's event loop."""

    def __init__(self, host: str, port: int, rate: float) -> None:
        self._host = host
        self._port = port
        self._rate = rate
        self._secret = secrets.token_bytes(32)
        self._files: Mapping[str, SharedFile] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self.port = 0
        self.fingerprint = ""

    async def __aenter__(self) -> "ShareProcess":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    @property
    def files(self) -> Mapping[str, SharedFile]:
        return self._files

    def ticket(self, peer: str) -> str:
        """Lets `peer` read."""
        return make_ticket(self._secret, peer)

    def serve(self, files: Mapping[str, SharedFile]) -> None:
        """What there is to give from now on."""
        if files == self._files:
            return
        self._files = files
        if self._process is not None and self._process.returncode is None:
            self._tell(self._process)

    async def ensure(self) -> None:
        """Returns once it serves.

        Raises:
            OSError: it cannot be started.
        """
        async with self._starting:
            if self._process is not None and self._process.returncode is None:
                return
            certificate = await asyncio.to_thread(make_certificate)
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gallery.share_server"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")},
            )
            self.fingerprint = certificate.fingerprint
            terms = {
                "host": self._host,
                "port": self._port,
                "rate": self._rate,
                "certificate": certificate.pem,
                "secret": self._secret.hex(),
            }
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(terms).encode() + b"\n")
            self._tell(self._process)
            async with asyncio.timeout(START_TIMEOUT):
                line = await self._process.stdout.readline()
            if not line:
                raise OSError(None, f"weights cannot be served on {self._host} port {self._port}; see --share-port")
            self.port = int(json.loads(line)["port"])

    def _tell(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        files = {sha256: asdict(file) for sha256, file in self._files.items()}
        # One that has just ended is told nothing: the next one is.
        with contextlib.suppress(RuntimeError, ConnectionError):
            process.stdin.write(json.dumps({"files": files}).encode() + b"\n")


def make_certificate() -> Certificate:
    """A fresh one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shoal")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Certificate(
        private + certificate.public_bytes(Encoding.PEM).decode(), certificate.fingerprint(SHA256()).hex()
    )
