"""A client whose connection broke reads the rest of its answer, through any node."""

import json
from pathlib import Path

import httpx
import pytest

from tests.helpers.nodes import Node, mesh_of, until

pytestmark = pytest.mark.e2e

STORY = " ".join(f"word{number}" for number in range(60))


async def read(response: httpx.Response, seen: dict[int, str], most: int = 10_000) -> None:
    number = -1
    async for line in response.aiter_lines():
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("data: "):
            assert number not in seen
            seen[number] = line[6:]
            if len(seen) >= most:
                return


async def busy(entry: Node, holder: str) -> bool:
    return any(m["busy"] for m in (await entry.mesh())[holder]["models"] if m["name"] == "echo")


SLOW_STORY = {
    "model": "echo",
    "messages": [{"role": "user", "content": STORY}],
    "stream": True,
    "stream_options": {"resumable": True},
    "chat_template_kwargs": {"token_interval": 0.02},
}


async def begin(entry: Node, seen: dict[int, str]) -> str:
    """Reads the beginning of an answer, loses the connection, and returns the stream's id."""
    async with entry.client() as http, http.stream("POST", "/v1/chat/completions", json=SLOW_STORY) as response:
        await read(response, seen, most=10)
        return response.headers["x-shoal-stream"]


async def test_the_rest_of_a_broken_stream_is_read_through_another_node(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "abc") as (a, b, c):
        await b.load("echo", "b")
        await a.until_sees("b", model="echo", held_by="b")
        seen: dict[int, str] = {}
        stream_id = await begin(a, seen)

        async with c.client() as http:
            headers = {"last-event-id": str(max(seen))}
            async with http.stream("GET", f"/v1/streams/{stream_id}", headers=headers) as response:
                assert response.status_code == 200
                await read(response, seen)
            unknown = await http.get(f"/v1/streams/x{stream_id}")
            beyond = await http.get(f"/v1/streams/{stream_id}", headers={"last-event-id": "99999"})

        assert sorted(seen) == list(range(len(seen)))
        assert seen[len(seen) - 1] == "[DONE]"
        assert all(f"word{number}" in "".join(seen.values()) for number in range(60))
        assert [unknown.status_code, beyond.status_code] == [404, 404]


@pytest.mark.parametrize("reader", ["b", "c"])
async def test_a_stream_outlives_the_node_that_was_asked_for_it(tmp_path: Path, reader: str) -> None:
    async with mesh_of(tmp_path, "abc") as (a, b, c):
        await b.load("echo", "b")
        for node in (a, c):
            await node.until_sees("b", model="echo", held_by="b")
        seen: dict[int, str] = {}
        stream_id = await begin(a, seen)
        a.kill()
        survivor = {"b": b, "c": c}[reader]

        async def is_known_to_be_gone() -> bool:
            return bool((await survivor.mesh())["a"]["state"] == "dead")

        await until(is_known_to_be_gone, "the news of it")
        async with survivor.client() as http:
            headers = {"last-event-id": str(max(seen))}
            async with http.stream("GET", f"/v1/streams/{stream_id}", headers=headers) as response:
                assert response.status_code == 200, await response.aread()
                await read(response, seen)
            late = await http.get(f"/v1/streams/{stream_id}", headers={"last-event-id": "99999"})

        assert sorted(seen) == list(range(len(seen)))
        assert seen[len(seen) - 1] == "[DONE]"
        chunks = [json.loads(event) for number, event in sorted(seen.items()) if event != "[DONE]"]
        text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
        assert text == STORY
        assert {chunk["id"] for chunk in chunks} == {stream_id}
        assert late.status_code == 404


async def test_who_reads_through_another_node_is_told_that_the_stream_broke_and_can_read_on(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "abc") as (a, b, c):
        await b.load("echo", "b")
        await a.until_sees("b", model="echo", held_by="b")
        seen: dict[int, str] = {}
        stream_id = await begin(a, seen)
        async with c.client() as http:
            async with http.stream("GET", f"/v1/streams/{stream_id}") as response:
                lines = response.aiter_lines()
                while "word5" not in await anext(lines):
                    pass
                a.kill()
                rest = [line async for line in lines if "error" in line]
            again = await http.get(f"/v1/streams/{stream_id}")

        assert "Node a, which keeps this stream, cannot be reached" in rest[0]
        assert again.text.endswith("data: [DONE]\n\n")
        assert all(f"word{number}" in again.text for number in range(60))


async def test_the_rest_of_a_broken_stream_is_read_where_it_was_asked(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "ab") as (a, b):
        await b.load("echo", "b")
        await a.until_sees("b", model="echo", held_by="b")
        seen: dict[int, str] = {}
        stream_id = await begin(a, seen)

        async with a.client() as http:
            headers = {"last-event-id": str(max(seen))}
            async with http.stream("GET", f"/v1/streams/{stream_id}", headers=headers) as response:
                assert response.status_code == 200
                await read(response, seen)

        assert sorted(seen) == list(range(len(seen)))
        assert seen[len(seen) - 1] == "[DONE]"
        assert all(f"word{number}" in "".join(seen.values()) for number in range(60))

        async def is_free() -> bool:
            return not await busy(a, "b")

        await until(is_free, "the slot to be free")
