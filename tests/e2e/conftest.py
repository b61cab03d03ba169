"""Two real nodes for the tests that only ask: `a` holds nothing, `b` holds minnow and echo."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.helpers.nodes import Node, mesh_of


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Node, Node]]:
    """Entry node and holder."""
    async with mesh_of(tmp_path_factory.mktemp("pair"), "ab") as (a, b):
        for model in ("minnow", "echo"):
            await b.load(model, "b")
            await a.until_sees("b", model=model, held_by="b")
        yield a, b
