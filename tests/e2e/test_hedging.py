"""A holder that answers late is overtaken by another one."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.nodes import mesh_of, until

pytestmark = pytest.mark.e2e

ASK: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "a few words"}]}


async def test_a_frozen_backend_is_overtaken_by_a_copy_of_the_request(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "abc", "--hedge", "--stall-after", "0") as (a, b, c), a.client() as http:
        for holder in (b, c):
            await holder.load("echo", holder.name)
            await a.until_sees(holder.name, model="echo", held_by=holder.name)
        for _ in range(40):
            assert (await http.post("/v1/chat/completions", json=ASK)).status_code == 200
        [frozen] = b.backends()
        frozen.send_signal(signal.SIGSTOP)

        async def ask() -> httpx.Response:
            return await http.post("/v1/chat/completions", json=ASK)

        # Many, because only a twentieth may be sent twice, and slow ones before may have used that up.
        hedged: list[httpx.Response] = []
        asking = [asyncio.create_task(ask()) for _ in range(100)]
        for done in asyncio.as_completed(asking):
            answer = await done
            if answer.headers["x-shoal-route"].startswith("hedged: ") and answer.headers["x-shoal-node"] == "c":
                hedged.append(answer)
                break
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        assert [answer.json()["choices"][0]["message"]["content"] for answer in hedged] == ["a few words"]
        frozen.send_signal(signal.SIGCONT)

        async def is_free() -> bool:
            mesh = (await http.get("/api/mesh")).json()
            return all(m["busy"] == 0 for n in mesh["nodes"] for m in n["models"])

        await until(is_free, "the slot of the one that lost to be free")
