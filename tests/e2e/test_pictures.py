"""Pictures through real nodes: the official client, the command, and a node that dies while it draws."""

import asyncio
import io
import sys
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
import pytest_asyncio
from PIL import Image

from tests.helpers.nodes import Node, events, mesh_of
from tests.helpers.tiny_pipeline import card, save_tiny_pipeline

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

ASK = {"model": "tiny", "prompt": "a red circle", "seed": 7}


def picture_in(data: str) -> Image.Image:
    return Image.open(io.BytesIO(b64decode(data)))


def has_model(node: Path, pipeline: Path) -> None:
    (node / "models").mkdir(parents=True)
    (node / "models" / "tiny.yaml").write_text(card(pipeline, max_steps=2000))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Node, Node, Node]]:
    """An entry node without the model, and two that hold it."""
    root = tmp_path_factory.mktemp("three")
    pipeline = save_tiny_pipeline(root / "pipeline")
    for name in "bc":
        has_model(root / name, pipeline)
    async with mesh_of(root, "abc") as (a, b, c):
        for holder in (b, c):
            await holder.load("tiny", holder.name)
            await a.until_sees(holder.name, model="tiny", held_by=holder.name)
        yield a, b, c


async def test_any_node_draws_through_the_official_client(three: tuple[Node, Node, Node]) -> None:
    a, b, _ = three
    async with openai.AsyncOpenAI(base_url=f"{a.api}/v1", api_key="none") as ai:
        forwarded = await ai.images.generate(model="tiny", prompt="a red circle", n=2, extra_body={"seed": 7})
        raw = await ai.images.with_raw_response.generate(model="tiny", prompt="a red circle", extra_body={"seed": 8})
    async with openai.AsyncOpenAI(base_url=f"{b.api}/v1", api_key="none") as ai:
        local = await ai.images.generate(model="tiny", prompt="a red circle", extra_body={"seed": 7})

    assert raw.headers["x-shoal-node"] in ("b", "c")
    assert forwarded.data
    assert local.data
    first, second = (picture.b64_json for picture in forwarded.data)
    assert first == local.data[0].b64_json
    [alone] = raw.parse().data or []
    assert second == alone.b64_json
    assert picture_in(first or "").size == (64, 64)


async def test_a_picture_whose_node_is_killed_is_drawn_elsewhere_with_the_same_seed(
    three: tuple[Node, Node, Node],
) -> None:
    a, b, c = three
    ask = {**ASK, "n": 2, "steps": 150, "stream": True, "stream_progress": True}
    async with a.client() as http:
        whole = (await http.post("/v1/images/generations", json={**ask, "stream": False})).json()
        told = []
        async with http.stream("POST", "/v1/images/generations", json=ask) as response:
            victim = {"b": b, "c": c}[response.headers["x-shoal-node"]]
            async for event in events(response):
                told.append(event)
                if event["type"] == "shoal.progress" and (event["index"], event["step"]) == (1, 5):
                    for backend in victim.backends():  # None is left when its successor gets here.
                        backend.kill()
    drawn = [event["b64_json"] for event in told if event["type"] == "image_generation.completed"]

    assert drawn == [picture["b64_json"] for picture in whole["data"]]
    steps = [event["step"] for event in told if event["type"] == "shoal.progress" and event["index"] == 1]
    assert steps.count(1) > 1


async def test_the_command_writes_a_file_and_an_edit_of_it(three: tuple[Node, Node, Node], tmp_path: Path) -> None:
    a, _, _ = three
    first, second = tmp_path / "circle.png", tmp_path / "blue.webp"
    for arguments in (("a red circle", "-o", first, "--seed", "7"), ("a blue one", "-i", first, "-o", second)):
        command = (sys.executable, "-m", "node", "image", *map(str, arguments), "--api", a.api)
        image = await asyncio.create_subprocess_exec(*command)
        assert await image.wait() == 0

    for file, kind in ((first, "PNG"), (second, "WEBP")):
        with Image.open(file) as opened:
            assert (opened.format, opened.size) == (kind, (64, 64))
