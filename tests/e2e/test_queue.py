"""When every holder is full, requests wait where they came in: fairly, and not without end."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.nodes import API_KEY, Node, mesh_of, until

pytestmark = pytest.mark.e2e


def ask(tokens: int, interval: float = 0.05) -> dict[str, Any]:
    kwargs = {"tokens": tokens, "token_interval": interval}
    return {"model": "narrow", "messages": [{"role": "user", "content": "Hi"}], "chat_template_kwargs": kwargs}


async def narrow(node: Node) -> None:
    """A model with one slot."""
    (node.root / "models").mkdir(exist_ok=True)
    (node.root / "models" / "narrow.yaml").write_text("engine: echo\nsettings: {slots: 1}\n")

    async def is_known() -> bool:
        return any(m["name"] == "narrow" for m in (await node.mesh())[node.name]["models"])

    await until(is_known, "the model")
    await node.load("narrow", node.name)


async def until_waiting(node: Node, count: int) -> None:
    async def are_waiting() -> bool:
        route = await node.get("/api/mesh/route?model=narrow")
        [holder] = [m for n in (await node.mesh()).values() for m in n["models"] if m["name"] == "narrow"]
        return bool(route["waiting"] + holder["queued"] + holder["busy"] == count)

    await until(are_waiting, f"{count} requests to be there")


async def test_who_finds_the_queue_full_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "a", "--queue", "2") as [a], a.client() as http:
        await narrow(a)
        running = []
        for number in range(4):
            running.append(asyncio.create_task(http.post("/v1/chat/completions", json=ask(40))))
            await until_waiting(a, number + 1)

        refused = await http.post("/v1/chat/completions", json=ask(1))

        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert [answer.status_code for answer in await asyncio.gather(*running)] == [200] * 4


async def test_a_request_that_waits_too_long_is_told_that_it_did(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "a", "--queue-wait", "0.2") as [a], a.client() as http:
        await narrow(a)
        running = []
        for number in range(2):
            running.append(asyncio.create_task(http.post("/v1/chat/completions", json=ask(1000))))
            await until_waiting(a, number + 1)

        refused = await http.post("/v1/chat/completions", json=ask(1))

        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        for task in running:
            task.cancel()


async def test_callers_take_turns(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "a") as [a]:
        await narrow(a)
        done: list[str] = []

        async def from_address(address: str, name: str, tokens: int) -> None:
            way = httpx.AsyncHTTPTransport(local_address=address)
            headers = {"Authorization": f"Bearer {API_KEY}"}
            async with httpx.AsyncClient(base_url=a.api, transport=way, timeout=60, headers=headers) as http:
                assert (await http.post("/v1/chat/completions", json=ask(tokens))).status_code == 200
                done.append(name)

        first = asyncio.create_task(from_address("127.0.0.1", "endless", 100_000))
        await until_waiting(a, 1)
        asking = []
        for name in ("greedy1", "greedy2", "greedy3", "greedy4", "modest"):
            address = "127.0.0.2" if name == "modest" else "127.0.0.1"
            asking.append(asyncio.create_task(from_address(address, name, 2)))
            await until_waiting(a, len(asking) + 1)
        first.cancel()
        await asyncio.gather(*asking)

    # The first one waited at the holder already; of those who waited here, one came before.
    assert done.index("modest") < done.index("greedy4")


async def test_places_that_another_entry_node_frees_are_taken(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "ab") as (a, b):
        await narrow(b)
        await a.until_sees("b", model="narrow", held_by="b")
        async with a.client() as one, b.client() as other:
            tasks = [
                asyncio.create_task(http.post("/v1/chat/completions", json=ask(5)))
                for http in (one, other, one, other, one, other, one, other)
            ]
            assert [answer.status_code for answer in await asyncio.gather(*tasks)] == [200] * 8
