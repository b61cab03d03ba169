"""Who would answer, and why: asked without running anything."""

import pytest

from tests.helpers.nodes import Node

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


async def test_every_node_explains_the_choice_that_it_would_make(pair: tuple[Node, Node]) -> None:
    a, b = pair
    for node, kinds in ((a, {"b": "forward", "a": "load"}), (b, {"b": "local", "a": "load"})):
        route = await node.get("/api/mesh/route?model=echo")

        assert {c["name"]: c["kind"] for c in route["candidates"]} == kinds
        assert route["candidates"][0]["name"] == "b"
        assert route["candidates"][0]["cost"] == pytest.approx(sum(route["candidates"][0]["terms"].values()))
        assert route["candidates"][0]["why"].endswith("holds it")


async def test_a_request_is_explained_and_not_run(pair: tuple[Node, Node]) -> None:
    a, _ = pair
    before = await a.get("/api/diagnostics")
    body = {"model": "minnow", "messages": [{"role": "user", "content": "Hello"}]}

    async with a.client() as http:
        explained = await http.post("/api/mesh/route", json=body)
        unknown = await http.post("/api/mesh/route", json={**body, "model": "nobody"})

    assert explained.json()["candidates"][0]["name"] == "b"
    assert unknown.status_code == 404
    assert (await a.get("/api/diagnostics"))["counters"]["calls_out"] == before["counters"]["calls_out"]
