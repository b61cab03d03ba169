"""Host a backend: bind the address, serve until told to stop, stop within a bounded time."""

import asyncio
import contextlib
import hmac
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from backends.engine import Engine
from backends.rpc.backend_pb2_grpc import add_BackendServicer_to_server
from backends.server import BackendServer

STOP_GRACE_SECONDS = 5.0
"""How long running calls may go on after SIGTERM."""

UNLOAD_SECONDS = 3.0
"""How long freeing the model may take at the end; then the process ends anyway."""

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Of one gRPC message. A long conversation with pictures in it fits."""

OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Two backends must never share one port by accident.
    ("grpc.so_reuseport", 0),
    ("grpc.http2.max_ping_strikes", 0),
]

log = logging.getLogger(__name__)


class AddressError(Exception):
    """The address cannot be served."""


async def serve(make_engine: Callable[[Callable[[], None]], Engine], address: str, secret: str) -> None:
    """Serve on `address` until SIGTERM or SIGINT, then let running calls finish.

    With a `secret`, every call must carry it (`authorization: Bearer ...`).

    Raises:
        AddressError: somebody else has the address, or it is not one.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    backend = BackendServer(make_engine)
    await backend.open()
    server = grpc.aio.server(interceptors=[_Gate(secret)] if secret else [], options=OPTIONS)
    add_BackendServicer_to_server(backend, server)  # type: ignore[no-untyped-call]
    health_pb2_grpc.add_HealthServicer_to_server(backend.health, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as exc:
        raise AddressError(
            f"cannot listen on {address}: its folder must be there, and nobody else may be using it"
        ) from exc
    await server.start()
    shown = address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
    print(f"listening on {shown}", flush=True)

    await stop.wait()
    log.info("stopping: running calls have %.0f s", STOP_GRACE_SECONDS)
    await _stop(server, backend)


async def _stop(server: grpc.aio.Server, backend: BackendServer) -> None:
    refusing = asyncio.ensure_future(server.stop(STOP_GRACE_SECONDS))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_GRACE_SECONDS):
            await backend.drain()
    # Whatever is open now does not count: streams of the health service, or out of time.
    await server.stop(None)
    await refusing
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(UNLOAD_SECONDS):
            await backend.close()


class _Gate(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc is untyped
    """Lets in only calls that carry the secret: on TCP every local program could connect."""

    def __init__(self, secret: str) -> None:
        self._wanted = f"Bearer {secret}".encode()

        async def refuse(_: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this backend wants its node's secret")

        self._refusal = grpc.unary_unary_rpc_method_handler(refuse)

    async def intercept_service(
        self, proceed: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        given = dict(details.invocation_metadata).get("authorization", "")
        if hmac.compare_digest(given.encode(), self._wanted):
            return await proceed(details)
        return self._refusal
