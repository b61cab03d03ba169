"""Models that nobody uses give their memory back."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.nodes import Node, mesh_of, until

pytestmark = pytest.mark.e2e

ASK: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}


async def ask(node: Node, **more: Any) -> str:
    async with node.client() as http:
        answer = await http.post("/v1/chat/completions", json=ASK | more)
        assert answer.status_code == 200, answer.text
        return str(answer.headers["x-shoal-node"])


async def is_gone(entry: Node, holder: str, model: str = "echo") -> bool:
    [state] = [m["state"] for m in (await entry.mesh())[holder]["models"] if m["name"] == model]
    return bool(state == "on_disk")


async def test_a_request_says_across_a_hop_how_long_its_model_is_kept(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "ab") as (a, b):
        await b.load("echo", "b")
        await a.until_sees("b", model="echo", held_by="b")

        assert await ask(a, keep_alive="0s") == "b"

        await until(lambda: is_gone(a, "b"), "b to unload it")
        await until(lambda: not b.backends(), "its process to end")
        assert await ask(a, keep_alive=-1)


async def test_unused_models_go_by_their_cards_and_the_nodes_setting(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "a", "--keep-alive", "0.5", "--model", "minnow") as [a]:
        (a.root / "models").mkdir(exist_ok=True)
        (a.root / "models" / "kept.yaml").write_text("engine: echo\nkeep_alive: -1\n")
        for model in ("echo", "kept"):
            await ask(a, model=model)
        await a.until_sees("a", model="minnow", held_by="a")

        await until(lambda: is_gone(a, "a"), "echo to be unloaded")

        assert not await is_gone(a, "a", "kept")
        assert not await is_gone(a, "a", "minnow")
