"""A model that stays saturated gets one more copy, and loses it again when nobody needs it."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.nodes import Node, mesh_of, until

pytestmark = pytest.mark.e2e

CARD = "engine: echo\nkeep_alive: {keep}\nsettings: {{slots: 1}}\n"
ASK: dict[str, Any] = {
    "model": "narrow",
    "messages": [{"role": "user", "content": "Hi"}],
    "chat_template_kwargs": {"tokens": 10, "token_interval": 0.03},
}


def holders(mesh: dict[str, dict[str, Any]]) -> list[str]:
    return [n for n, node in mesh.items() for m in node["models"] if m["name"] == "narrow" and m["state"] != "on_disk"]


async def keep_asking(node: Node, answered: list[str]) -> None:
    async with node.client() as http:
        while True:
            answer = await http.post("/v1/chat/completions", json=ASK)
            assert answer.status_code == 200, answer.text
            answered.append(answer.headers["x-shoal-node"])


async def test_a_saturated_model_is_loaded_once_more_and_the_copy_unloaded_when_idle(tmp_path: Path) -> None:
    for name, keep in (("a", -1), ("b", 2), ("c", 2), ("d", 2)):
        (tmp_path / name / "models").mkdir(parents=True)
        (tmp_path / name / "models" / "narrow.yaml").write_text(CARD.format(keep=keep))
    async with mesh_of(tmp_path, "abcd", "--replicate-after", "1.5") as nodes:
        a = nodes[0]
        await a.load("narrow", "a")
        for node in nodes:
            await node.until_sees("a", model="narrow", held_by="a")
        answered: list[str] = []
        asking = [asyncio.create_task(keep_asking(node, answered)) for node in nodes]

        most = 0

        async def is_shared() -> bool:
            nonlocal most
            most = max(most, len(holders(await a.mesh())))
            return len(set(answered[-8:])) > 1

        await until(is_shared, "a second copy to answer")
        for task in asking:
            task.cancel()
        for task in asking:
            with contextlib.suppress(asyncio.CancelledError, httpx.HTTPError):
                await task

        assert most == 2

        async def is_alone() -> bool:
            return holders(await a.mesh()) == ["a"]

        await until(is_alone, "the copy to be unloaded")
