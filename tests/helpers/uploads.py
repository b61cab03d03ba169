"""Large uploads, and what they cost a node."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import psutil

from tests.helpers.nodes import Node


async def send_nonsense(entry: Node, model: str, size: int) -> None:
    """Sends `size` bytes that are no sound, which the engine sees only when all of them are there, and says so."""

    async def body() -> AsyncIterator[bytes]:
        yield b'--cut\r\ncontent-disposition: form-data; name="model"\r\n\r\n' + model.encode() + b"\r\n"
        yield b'--cut\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(size // 1_000_000):
            yield b"x" * 1_000_000
        yield b"\r\n--cut--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=cut"}
    async with entry.client() as http:
        response = await http.post("/v1/audio/transcriptions", content=body(), headers=headers, timeout=300)
    assert "cannot be read as sound" in response.text, response.text[:300]


@contextlib.asynccontextmanager
async def grown(node: Node) -> AsyncIterator[Callable[[], int]]:
    """How many bytes a node's own process grows by, at most, by its resident memory."""
    assert node.process is not None
    process = psutil.Process(node.process.pid)
    before = most = process.memory_info().rss

    async def look() -> None:
        nonlocal most
        while True:
            most = max(most, process.memory_info().rss)
            await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    try:
        yield lambda: most - before
    finally:
        looking.cancel()
