"""A client whose connection broke reads the rest of its answer, through the node that it had asked."""

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


async def test_the_rest_of_a_broken_stream_is_read_where_it_was_asked(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "ab") as (a, b):
        await b.load("echo", "b")
        await a.until_sees("b", model="echo", held_by="b")
        body = {"model": "echo", "messages": [{"role": "user", "content": STORY}], "stream": True}
        body |= {"stream_options": {"resumable": True}, "chat_template_kwargs": {"token_interval": 0.02}}
        seen: dict[int, str] = {}
        async with a.client() as http, http.stream("POST", "/v1/chat/completions", json=body) as response:
            await read(response, seen, most=10)
            stream_id = response.headers["x-shoal-stream"]

        async with a.client() as http:
            headers = {"last-event-id": str(max(seen))}
            async with http.stream("GET", f"/v1/streams/{stream_id}", headers=headers) as response:
                assert response.status_code == 200
                await read(response, seen)
        elsewhere = await b.get(f"/v1/streams/{stream_id}")

        assert sorted(seen) == list(range(len(seen)))
        assert seen[len(seen) - 1] == "[DONE]"
        assert all(f"word{number}" in "".join(seen.values()) for number in range(60))
        assert elsewhere["error"]["code"] == "not_found"

        async def is_free() -> bool:
            return not await busy(a, "b")

        await until(is_free, "the slot to be free")
