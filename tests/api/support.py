"""What the tests of the API share: something to ask, and ways to ask it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from quart.typing import TestClientProtocol

from api.app import create_app
from api.config import ApiConfig
from api.serve import ApiServer
from tests.helpers.fakes import FakeInference

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "parrot", "messages": [{"role": "user", "content": "hello wide world"}]}
COMPLETE: dict[str, Any] = {"model": "parrot", "prompt": "hello wide world"}


def client(fake: FakeInference | None = None, **config: Any) -> TestClientProtocol:
    """Asks the app without a network."""
    return create_app(fake or FakeInference(), ApiConfig(**config)).test_client()


@asynccontextmanager
async def serving(fake: FakeInference | None = None, **config: Any) -> AsyncIterator[ApiServer]:
    """The app on a real port of this machine."""
    server = ApiServer(create_app(fake or FakeInference(), ApiConfig(port=0, **config)))
    await server.start()
    try:
        yield server
    finally:
        await server.stop(grace=0)


def events(body: bytes | str) -> list[Any]:
    """The data of server-sent events, parsed; `[DONE]` stays text."""
    body = body.encode() if isinstance(body, str) else body
    assert body.endswith(b"\n\n")
    lines = [event.removeprefix(b"data: ") for event in body[:-2].split(b"\n\n")]
    return [line.decode() if line == b"[DONE]" else orjson.loads(line) for line in lines]


def http_post(body: bytes | Any, *, path: str = CHAT, length: int | None = None, extra: str = "") -> bytes:
    """A request as it goes over the wire."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{extra}"
        f"content-length: {len(data) if length is None else length}\r\n\r\n"
    )
    return head.encode() + data


async def eventually(claim: Callable[[], bool], within: float = 2.0) -> float:
    """Wait until `claim` holds; returns how many seconds that took."""
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    while not claim():
        assert loop.time() - started_at < within, "it never came true"
        await asyncio.sleep(0.005)
    return loop.time() - started_at
