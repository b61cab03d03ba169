"""Pictures and sounds through the mesh, with the `openai` package: `a` holds nothing, `b` a model with eyes."""

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.api.test_fetching import reply, web
from tests.helpers.media import picture, sound
from tests.helpers.nodes import API_KEY, Node, mesh_of, until
from tests.helpers.projectors import MINNOW, write_projector

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

RED, BLUE = picture(200, 30, 60), picture(20, 40, 230)
LARGE = picture(3, 90, 5, size=(900, 600), form="BMP")
"""1.6 MB: it travels in several pieces."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Node, Node]]:
    root = tmp_path_factory.mktemp("seeing")
    models = root / "b" / "models"
    models.mkdir(parents=True)
    for name, kind in (("seer", "mlp"), ("hearer", "ultravox")):
        shutil.copy(MINNOW, models / f"{name}.gguf")
        write_projector(models / f"mmproj-{name}-f32.gguf", kind)  # type: ignore[arg-type]
    async with mesh_of(root, "ab", "--fetch-private") as (a, b):
        await b.load("seer", "b")
        await a.until_sees("b", model="seer", held_by="b")
        yield a, b


def see(data: bytes) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


async def ask(node: Node, *content: Any, model: str = "seer", tokens: int = 12) -> Any:
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    async with openai.AsyncOpenAI(base_url=f"{node.api}/v1", api_key=API_KEY, max_retries=0) as client:
        return await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": parts}],  # type: ignore[misc, list-item]
            temperature=0,
            max_tokens=tokens,
            logprobs=True,
            top_logprobs=2,
            extra_body={"ignore_eos": True},
        )


def alike(a: Any, b: Any) -> bool:
    """The same was seen: the first token was as likely, but for rounding."""
    first, second = (
        {top.token: top.logprob for top in answer.choices[0].logprobs.content[0].top_logprobs} for answer in (a, b)
    )
    return first.keys() == second.keys() and first == pytest.approx(second, abs=0.005)


async def test_forwarded_equals_local_and_pictures_are_told_apart(pair: tuple[Node, Node]) -> None:
    a, b = pair

    forwarded, local = await ask(a, "What? ", see(RED)), await ask(b, "What? ", see(RED))

    assert alike(forwarded, local)
    assert forwarded.choices[0].message.content == local.choices[0].message.content
    assert not alike(forwarded, await ask(a, "What? ", see(BLUE)))
    assert not alike(await ask(a, see(RED), see(BLUE)), await ask(a, see(BLUE), see(RED)))


async def test_asked_again_the_prompt_is_cached(pair: tuple[Node, Node]) -> None:
    a, _ = pair
    await ask(a, "Once more: ", see(LARGE))

    usage = (await ask(a, "Once more: ", see(LARGE))).usage

    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - 1
    assert usage.prompt_tokens > 16


async def test_a_url_is_fetched_by_the_entry_node(pair: tuple[Node, Node]) -> None:
    asked: list[str] = []

    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        asked.append(path)
        reply(writer, RED)

    a, _ = pair
    async with web(answer) as address:
        fetched = await ask(a, "What? ", {"type": "image_url", "image_url": {"url": f"{address}/red.png"}})

    assert alike(fetched, await ask(a, "What? ", see(RED)))
    assert asked == ["/red.png"]


async def test_models_say_what_they_sense_and_others_refuse(pair: tuple[Node, Node]) -> None:
    a, _ = pair
    models = {model["id"]: model for model in (await a.get("/v1/models"))["data"]}

    assert "vision" in models["seer"]["capabilities"]
    assert "audio_in" in models["hearer"]["capabilities"]
    for model in ("minnow", "hearer"):
        with pytest.raises(openai.BadRequestError, match=r"vision|cannot see"):
            await ask(a, see(RED), model=model)
    with pytest.raises(openai.BadRequestError, match="picture 1 cannot be read"):
        await ask(a, see(RED[:200]))


async def test_sounds_are_heard_by_a_model_that_is_loaded_for_it(pair: tuple[Node, Node]) -> None:
    a, _ = pair
    low, high = (
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(sound(hertz)).decode(), "format": "wav"}}
        for hertz in (200, 3000)
    )

    heard = await ask(a, "Listen: ", low, model="hearer", tokens=4)

    assert heard.usage.prompt_tokens > 300
    assert not alike(heard, await ask(a, "Listen: ", high, model="hearer", tokens=4))


async def test_an_answer_about_a_picture_survives_its_node(tmp_path: Path) -> None:
    for name in "bc":
        models = tmp_path / name / "models"
        models.mkdir(parents=True)
        shutil.copy(MINNOW, models / "seer.gguf")
        write_projector(models / "mmproj-seer.gguf", "mlp")
    async with mesh_of(tmp_path, "abc") as (a, b, c):
        for node in (b, c):
            await node.load("seer", node.name)
            await a.until_sees(node.name, model="seer", held_by=node.name)
        wanted: Any = {
            "model": "seer",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Tell: "}, see(RED)]}],
            "temperature": 0,
            "max_tokens": 400,
            "extra_body": {"ignore_eos": True},
        }
        async with openai.AsyncOpenAI(base_url=f"{a.api}/v1", api_key=API_KEY, max_retries=0) as client:
            whole = (await client.chat.completions.create(**wanted)).choices[0].message.content
            stream = await client.chat.completions.with_raw_response.create(**wanted, stream=True)
            holder = {"b": b, "c": c}[stream.headers["x-shoal-node"]]
            text = ""
            async for chunk in stream.parse():
                text += chunk.choices[0].delta.content or ""
                if text and holder.process is not None and holder.process.poll() is None:
                    holder.kill()

        await until(lambda: holder.process is not None and holder.process.poll() is not None, "the holder to be gone")
        assert text == whole
        assert "goes on with it" in a.log()
