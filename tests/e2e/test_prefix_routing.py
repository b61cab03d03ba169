"""A conversation finds back to the node that has it cached, through any node."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.nodes import Node, mesh_of, until

pytestmark = pytest.mark.e2e

INSTRUCTIONS = "Answer in a friendly way, and keep to the point. " * 40

STEADY = {"x-request-id": "steady"}
"""Not one of the few that look past the cache."""


def talk(*texts: str) -> dict[str, Any]:
    system = {"role": "system", "content": f"The friend {texts[0]}. {INSTRUCTIONS}"}
    return {"model": "echo", "messages": [system, *({"role": "user", "content": text} for text in texts)]}


async def ask(node: Node, body: dict[str, Any]) -> str:
    async with node.client() as http:
        answer = await http.post("/v1/chat/completions", json=body, headers=STEADY)
        assert answer.status_code == 200, answer.text
        return str(answer.headers["x-shoal-node"])


async def cached_on(entry: Node, body: dict[str, Any]) -> set[str]:
    """The holders that, as `entry` knows, need not read this prompt again."""
    async with entry.client() as http:
        route = (await http.post("/api/mesh/route", json=body, headers=STEADY)).json()
    terms = {c["name"]: c["terms"]["prefix"] for c in route["candidates"] if c["terms"]}
    return {name for name, term in terms.items() if term == 0.0} if any(terms.values()) else set()


async def test_conversations_go_back_to_their_nodes_through_any_node(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "abc") as nodes:
        _, b, c = nodes
        for holder in (b, c):
            await holder.load("echo", holder.name)
            for node in nodes:
                await node.until_sees(holder.name, model="echo", held_by=holder.name)
        first_turns = {"of Ann": await ask(b, talk("of Ann")), "of Bob": await ask(c, talk("of Bob"))}
        assert first_turns == {"of Ann": "b", "of Bob": "c"}

        for person, holder in first_turns.items():
            for entry in nodes:
                await until(lambda e=entry, p=person, h=holder: _knows(e, p, h), "the news of it")
                assert await ask(entry, talk(person, "and then?")) == holder


async def _knows(entry: Node, person: str, holder: str) -> bool:
    return await cached_on(entry, talk(person, "and then?")) == {holder}
