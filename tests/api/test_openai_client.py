"""The `openai` package talks to us as it talks to OpenAI."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from api.errors import BackendFailedError, TooManyRequestsError
from tests.api.support import serving
from tests.helpers.fakes import FakeInference

HELLO: Any = [{"role": "user", "content": "hello wide world"}]
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture
def fake() -> FakeInference:
    return FakeInference()


@pytest.fixture
async def client(fake: FakeInference) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        serving(fake) as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client,
    ):
        yield client


async def test_chat(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="parrot", messages=HELLO)

    assert answer.choices[0].message.content == "hello wide world"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 6


async def test_streamed_chat(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="parrot", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "hello wide world"
    assert chunks[-1].usage is not None


async def test_the_stream_helper_puts_tool_calls_together(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(
        model="parrot", messages=HELLO, tools=[TOOL], tool_choice="required"
    ) as stream:
        answer = await stream.get_final_completion()

    [call] = answer.choices[0].message.tool_calls or []
    assert call.function.name == "weather"
    assert call.function.arguments == '{"said":"hello wide world"}'


async def test_logprobs(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="parrot", messages=HELLO, logprobs=True, top_logprobs=2)

    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert [t.token for t in logprobs.content or []] == ["hello ", "wide ", "world"]
    assert len((logprobs.content or [])[0].top_logprobs) == 2


async def test_completions(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model="parrot", prompt=["a b", "c"])

    assert [choice.text for choice in answer.choices] == ["a b", "c"]


async def test_embeddings_which_it_asks_for_in_base64(client: openai.AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="parrot", input=["abc"])

    assert list(answer.data[0].embedding) == [3.0, 0.5, 0.5]


async def test_models(client: openai.AsyncOpenAI) -> None:
    names = [model.id async for model in client.models.list()]

    assert names == ["org/parrot", "parrot"]
    assert (await client.models.retrieve("org/parrot")).id == "org/parrot"


async def test_errors_become_its_exceptions(client: openai.AsyncOpenAI, fake: FakeInference) -> None:
    with pytest.raises(openai.NotFoundError) as not_found:
        await client.chat.completions.create(model="nobody", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(model="parrot", messages=HELLO, temperature=9)
    fake.failure = TooManyRequestsError("full", retry_after=1)
    with pytest.raises(openai.RateLimitError):
        await client.chat.completions.create(model="parrot", messages=HELLO)

    assert not_found.value.code == "model_not_found"
    assert bad.value.param == "temperature"


async def test_a_stream_that_breaks_raises(client: openai.AsyncOpenAI, fake: FakeInference) -> None:
    fake.failure, fake.fail_after = BackendFailedError("gone"), 2
    stream = await client.chat.completions.create(model="parrot", messages=HELLO, stream=True)

    with pytest.raises(openai.APIError, match="gone"):
        async for _ in stream:
            pass


async def test_its_key_is_checked_where_one_is_needed() -> None:
    async with serving(host="0.0.0.0", api_key="right") as server:
        for key, works in (("right", True), ("wrong", False)):
            async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
                if works:
                    assert await client.models.retrieve("parrot")
                else:
                    with pytest.raises(openai.AuthenticationError):
                        await client.models.retrieve("parrot")
