"""Downloads: how fast one source on loopback is written and verified, and what an install costs its node.

The server is a process of its own that sends with `sendfile`; the yardstick is the least that any download must do:
one connection, read into a buffer, written to a file, hashed, in one thread.
"""

import asyncio
import hashlib
import http.client
import json
import os
import struct
import sys
import tempfile
import time
from pathlib import Path

import psutil

from bench.figures import Figures
from tests.helpers.nodes import Node, mesh_of

SIZE = 400 * 1024 * 1024


def write_model(path: Path, size: int = SIZE) -> None:
    """A GGUF file of `size` bytes that any reader takes for a model, with nothing in it that compresses."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("general.architecture") + struct.pack("<I", 8) + text("llama")
    block = os.urandom(1 << 20)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(head)
        while file.tell() < size:
            file.write(block[: size - file.tell()])


async def installs(root: Path) -> Figures:
    """One install of a large file, beside the yardstick."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        return await _installs(Path(folder))


async def _installs(root: Path) -> Figures:
    model = root / "big.gguf"
    await asyncio.to_thread(write_model, model)
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.range_server", str(model)), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        port = int(await server.stdout.readline())
        yardstick = await asyncio.to_thread(plain_download, port, root / "yardstick")
        async with mesh_of(root, "a") as [node]:
            figures = await _install(node, f"http://127.0.0.1:{port}/big.gguf")
    finally:
        server.kill()
        await server.wait()
    return figures | {"yardstick_mb_per_s": yardstick, "of_yardstick": figures["mb_per_s"] / yardstick}


async def _install(node: Node, source: str) -> Figures:
    assert node.process is not None
    process = psutil.Process(node.process.pid)
    before = memory_of(process)
    most = before
    lag = 0.0
    async with node.client() as http:
        job = (await http.post("/api/gallery/install", json={"source": source})).json()
        began = time.perf_counter()
        while job["state"] in ("queued", "running"):
            asked = time.perf_counter()
            job = (await http.get(f"/api/gallery/jobs/{job['id']}")).json()
            lag = max(lag, time.perf_counter() - asked)
            most = max(most, memory_of(process))
            await asyncio.sleep(0.02)
        took = time.perf_counter() - began
    assert job["state"] == "done", job
    return {
        "mb_per_s": SIZE / 1e6 / took,
        "more_memory_mb": (most - before) / 1e6,
        "slowest_answer_ms": lag * 1000,
    }


def memory_of(process: psutil.Process) -> int:
    """Resident memory of the node and of what it started."""
    total = 0
    for part in (process, *process.children(recursive=True)):
        try:
            total += part.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def plain_download(port: int, path: Path) -> float:
    """MB/s of one connection, one thread, no care."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/big.gguf")
    answer = connection.getresponse()
    buffer = bytearray(1 << 20)
    sha = hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        while count := answer.readinto(buffer):
            file.write(memoryview(buffer)[:count])
            sha.update(memoryview(buffer)[:count])
        os.fsync(file.fileno())
    connection.close()
    path.unlink()
    return SIZE / 1e6 / (time.perf_counter() - began)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(installs(Path(tempfile.gettempdir()))), indent=1))
