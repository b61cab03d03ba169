"""Clients that read slowly: they slow down their own answer, and nothing piles up for them."""

import asyncio
import json
import socket
from pathlib import Path

import psutil
import pytest

from tests.helpers.nodes import API_KEY, Node, mesh_of, until

pytestmark = pytest.mark.e2e

STREAMS = 30


def open_stream(node: Node) -> socket.socket:
    """A fast, endless stream into a tiny buffer that nobody reads."""
    body = json.dumps(
        {
            "model": "echo",
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": True,
            "chat_template_kwargs": {"tokens": 10_000_000},
        }
    )
    host, port = node.api.removeprefix("http://").split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, int(port)))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {API_KEY}\r\n"
    client.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    return client


async def test_a_forwarded_answer_that_nobody_reads_costs_the_entry_node_little(tmp_path: Path) -> None:
    # The context holds more tokens than the buffers of two nodes and their sockets.
    for name in "ab":
        (tmp_path / name / "models").mkdir(parents=True)
        card = "engine: echo\nsettings:\n  slots: 64\n  context_length: 20000000\n"
        (tmp_path / name / "models" / "echo.yaml").write_text(card)
    async with mesh_of(tmp_path, "ab") as (a, b):
        await b.load("echo", "b")
        await a.until_sees("b", model="echo", held_by="b")
        assert a.process is not None
        memory = psutil.Process(a.process.pid).memory_info
        before = memory().rss

        clients = [await asyncio.to_thread(open_stream, a) for _ in range(STREAMS)]

        async def busy() -> int:
            [echo] = [m for m in (await b.mesh())["b"]["models"] if m["name"] == "echo"]
            return int(echo["busy"])

        async def all_run() -> bool:
            return await busy() == STREAMS

        await until(all_run, "every stream to run")
        grown: list[int] = []

        async def is_steady() -> bool:
            """No more comes once every buffer on the way is full."""
            await asyncio.sleep(0.3)
            grown.append(memory().rss - before)
            return len(grown) > 3 and grown[-1] <= grown[-3] + 1_000_000

        await until(is_steady, "the buffers to be full")
        assert grown[-1] / STREAMS < 5_000_000

        for client in clients:
            client.close()

        async def none_runs() -> bool:
            return await busy() == 0

        await until(none_runs, "the slots to be free", timeout=10)
