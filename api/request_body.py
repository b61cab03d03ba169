"""Read a request's body, with a bound on its size and on the client's patience."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from api.config import ApiConfig
from api.errors import RequestTimeoutError, RequestTooLargeError

DRAIN_TIMEOUT = 2.0
"""Seconds to go on reading a body after refusing it."""

Receive = Callable[[], Awaitable[Any]]
"""ASGI's `receive`."""


class ClientGoneError(Exception):
    """The client left before its request was complete. Nobody is left to be told."""


def body_deadline(*, started_at: float, progress_at: float, received: int, config: ApiConfig) -> float:
    """When a body that has come this far counts as stalled.

    No pause is longer than `body_timeout`; and after the first `body_timeout`, `min_body_rate` must
    have been kept since the start.
    """
    return min(
        progress_at + config.body_timeout,
        started_at + config.body_timeout + received / config.min_body_rate,
    )


async def read_body(receive: Receive, declared: bytes | None, config: ApiConfig) -> bytes:
    """The whole body. Raises as `body_parts`."""
    parts = [part async for part in body_parts(receive, declared, config.max_body_bytes, config)]
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def body_parts(
    receive: Receive, declared: bytes | None, limit: int, config: ApiConfig
) -> AsyncGenerator[bytes, None]:
    """The body as it comes. `declared` is the `Content-Length` header.

    Raises:
        RequestTooLargeError: it is, or says it will be, over `limit` bytes.
        RequestTimeoutError: the client stalled.
        ClientGoneError: the client left.
    """
    if declared is not None and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise _too_large(limit)
    loop = asyncio.get_running_loop()
    started_at = progress_at = loop.time()
    received = 0
    while True:
        due = body_deadline(started_at=started_at, progress_at=progress_at, received=received, config=config)
        try:
            async with asyncio.timeout_at(due):
                message = await receive()
        except TimeoutError:
            raise RequestTimeoutError(
                f"The request body stopped coming after {received} bytes; send it faster than "
                f"{config.min_body_rate} bytes per second, without pauses of {config.body_timeout:g} seconds."
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        if part := message.get("body", b""):
            received += len(part)
            if received > limit:
                raise _too_large(limit)
            yield part
            # Not counted: how long we took over it.
            progress_at = loop.time()
        if not message.get("more_body", False):
            return


async def drain_body(receive: Receive) -> None:
    """Read and drop what is left of a refused body, for a little while.

    Closing a connection with unread input resets it, and the reset can overtake the refusal. A client
    that is still sending would then see a broken connection instead of the reason.
    """
    try:
        async with asyncio.timeout(DRAIN_TIMEOUT):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _too_large(limit: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"The request body is larger than {limit} bytes, the most that is accepted.")
