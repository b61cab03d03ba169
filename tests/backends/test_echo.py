"""The echo engine through the server: the features everything else is tested with."""

import asyncio
import json
from collections.abc import AsyncIterator

import grpc
import pytest

from backends.echo_engine import EchoEngine
from backends.rpc import backend_pb2 as pb
from backends.rpc.backend_pb2_grpc import BackendStub
from tests.backends.harness import (
    calls_of,
    events_of,
    ids_of,
    load,
    reason_of,
    refused,
    served,
    text_of,
    usage_of,
    user,
)

TOOLS = json.dumps([{"type": "function", "function": {"name": name}} for name in ("add", "weather")])


@pytest.fixture
async def stub() -> AsyncIterator[BackendStub]:
    async with served(EchoEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, slots=4, context_length=100)
        yield stub


async def test_the_last_user_message_comes_back(stub: BackendStub) -> None:
    events = await events_of(stub, user("to be or not"))

    assert text_of(events) == "to be or not"
    assert reason_of(events) == "stop"
    assert (usage_of(events).prompt_tokens, usage_of(events).completion_tokens) == (4, 4)


async def test_a_prompt_comes_back_behind_itself_when_echoed(stub: BackendStub) -> None:
    events = await events_of(stub, pb.GenerateRequest(prompt="ab cd", echo_prompt=True))

    assert text_of(events) == "ab cdab cd"
    assert usage_of(events).completion_tokens == 2


async def test_content_parts_are_read(stub: BackendStub) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    messages = json.dumps([{"role": "user", "content": parts}])

    assert text_of(await events_of(stub, pb.GenerateRequest(messages_json=messages))) == "one two"


async def test_a_request_may_override_the_settings(stub: BackendStub) -> None:
    wishes = json.dumps({"reply": "so it is", "reasoning": "let me see", "tokens": 5, "enable_thinking": True})
    events = await events_of(stub, user("hi", template_json=wishes))

    assert text_of(events) == "so it is so it"
    assert "".join(event.reasoning.text for event in events) == "let me see"


async def test_max_tokens_ends_with_length(stub: BackendStub) -> None:
    events = await events_of(stub, user("a b c d", max_tokens=2))

    assert (text_of(events), reason_of(events)) == ("a b", "length")


async def test_ignore_eos_goes_on_to_max_tokens(stub: BackendStub) -> None:
    events = await events_of(stub, user("a b", max_tokens=5, ignore_eos=True))

    assert (text_of(events), reason_of(events)) == ("a b a b a", "length")


async def test_a_full_context_ends_with_length(stub: BackendStub) -> None:
    events = await events_of(stub, user("a b", ignore_eos=True))

    assert usage_of(events).completion_tokens == 98
    assert reason_of(events) == "length"


async def test_a_stop_string_across_words_ends_the_answer(stub: BackendStub) -> None:
    events = await events_of(stub, user("one two three", stop=["o th"]))

    assert (text_of(events), reason_of(events)) == ("one tw", "stop")


async def test_every_choice_gets_its_answer(stub: BackendStub) -> None:
    events = await events_of(stub, user("a b", choices=3))

    assert [text_of(events, choice) for choice in range(3)] == ["a b"] * 3
    assert usage_of(events).completion_tokens == 6


async def test_logprobs_come_when_asked_for(stub: BackendStub) -> None:
    [event] = [e for e in await events_of(stub, user("hi", top_logprobs=1)) if e.HasField("text")]

    assert [(p.token, p.logprob, len(p.top)) for p in event.text.logprobs] == [("hi", 0.0, 1)]


@pytest.mark.parametrize(
    ("message", "choice", "expected"),
    [
        pytest.param('call add {"a": 1}', "", [("add", '{"a": 1}')], id="asked for"),
        pytest.param("hello", '"auto"', [], id="not asked for"),
        pytest.param("hello", '"required"', [("add", "{}")], id="required"),
        pytest.param("call add", '"none"', [], id="forbidden"),
        pytest.param("hello", '{"type": "function", "function": {"name": "weather"}}', [("weather", "{}")], id="named"),
    ],
)
async def test_tools(stub: BackendStub, message: str, choice: str, expected: list[tuple[str, str]]) -> None:
    events = await events_of(stub, user(message, tools_json=TOOLS, tool_choice_json=choice))

    assert calls_of(events) == expected
    assert reason_of(events) == ("tool_calls" if expected else "stop")


@pytest.mark.parametrize("given", range(4))
async def test_a_continued_answer_joins_without_a_seam(stub: BackendStub, given: int) -> None:
    request = user("one two three", stop=["zzz"])
    whole = await events_of(stub, request)
    ids = ids_of(whole)

    request.given.add(choice=0, ids=ids[:given])
    rest = await events_of(stub, request)

    assert ids[:given] + ids_of(rest) == ids
    assert text_of(whole).endswith(text_of(rest))
    assert usage_of(rest) == usage_of(whole)


async def test_tokens_detokenize_back(stub: BackendStub) -> None:
    ids = (await stub.Tokenize(pb.TokenizeRequest(text="to be, or not"))).ids

    assert (await stub.Detokenize(pb.DetokenizeRequest(ids=ids))).text == "to be, or not"
    events = await events_of(stub, pb.GenerateRequest(prompt_tokens=pb.TokenIds(ids=ids)))
    assert ids_of(events) == list(ids)


async def test_vectors_are_normalised_and_alike_for_like_texts(stub: BackendStub) -> None:
    inputs = [pb.EmbedInput(text=text) for text in ("a red fish", "the red fish", "some other words")]
    reply = await stub.Embed(pb.EmbedRequest(inputs=inputs))
    a, b, c = (vector.values for vector in reply.vectors)

    def dot(x: list[float], y: list[float]) -> float:
        return sum(p * q for p, q in zip(x, y, strict=True))

    assert dot(a, a) == pytest.approx(1)
    assert dot(a, b) > 0.5 > dot(a, c)
    short = await stub.Embed(pb.EmbedRequest(inputs=inputs[:1], dimensions=8))
    assert dot(short.vectors[0].values, short.vectors[0].values) == pytest.approx(1)
    assert len(short.vectors[0].values) == 8


async def test_documents_are_scored_by_the_words_they_share_with_the_query(stub: BackendStub) -> None:
    request = pb.RerankRequest(query="a red fish", documents=["the red fish", "no such thing", "A Red Fish!"])
    reply = await stub.Rerank(request)

    assert list(reply.scores) == pytest.approx([2 / 3, 0, 2 / 3])
    assert reply.prompt_tokens == 12


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        pytest.param(user("a " * 100), "INVALID_ARGUMENT", "context_length_exceeded", id="too long"),
        pytest.param(pb.GenerateRequest(), "INVALID_ARGUMENT", "invalid_value", id="no prompt"),
        pytest.param(pb.GenerateRequest(messages_json="[]"), "INVALID_ARGUMENT", "invalid_value", id="no messages"),
        pytest.param(pb.GenerateRequest(messages_json="{"), "INVALID_ARGUMENT", "invalid_value", id="not JSON"),
        pytest.param(
            pb.GenerateRequest(messages_json='[{"role":"user","content":[{"type":"image_url"}]}]'),
            "UNIMPLEMENTED",
            "unsupported",
            id="a picture",
        ),
        pytest.param(user("x", constraint=pb.Constraint(json_object=True)), "UNIMPLEMENTED", "unsupported", id="JSON"),
        pytest.param(
            user("x", template_json='{"tokens": "x"}'), "INVALID_ARGUMENT", "invalid_value", id="wrong override"
        ),
        pytest.param(
            user("x", tools_json=TOOLS, tool_choice_json='{"function": {"name": "zzz"}}'),
            "INVALID_ARGUMENT",
            "invalid_value",
            id="unknown tool",
        ),
    ],
)
async def test_what_cannot_be_answered(stub: BackendStub, request_: pb.GenerateRequest, status: str, code: str) -> None:
    with refused(grpc.StatusCode[status], code):
        await events_of(stub, request_)


async def test_a_slow_stream_gets_each_token_in_its_own_message(stub: BackendStub) -> None:
    request = user("a b c", template_json='{"token_interval": 0.03}')
    texts = ["".join(event.text.text for event in reply.events) async for reply in stub.Generate([request])]

    assert [text for text in texts if text] == ["a", " b", " c"]


async def test_a_fast_stream_puts_many_tokens_into_a_message(stub: BackendStub) -> None:
    messages = [len(reply.events) async for reply in stub.Generate([user("a", max_tokens=90, ignore_eos=True)])]

    assert sum(messages) == 92
    assert len(messages) < 10


async def test_requests_beyond_slots_and_queue_are_refused_and_a_cancelled_one_makes_room() -> None:
    async with served(EchoEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, slots=1, queue=1, token_interval=30)
        states = stub.WatchState(pb.WatchStateRequest())

        async def until(busy: int, queued: int) -> None:
            async for state in states:
                if (state.busy, state.queued) == (busy, queued):
                    return

        running = stub.Generate([user("a b")])
        assert (await running.read()).events[0].text.text == "a"
        waiting = stub.Generate([user("c d")])
        reading = asyncio.ensure_future(waiting.read())
        await until(1, 1)
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue_full"):
            await events_of(stub, user("e"))

        running.cancel()
        assert (await reading).events[0].text.text == "c"
        waiting.cancel()
        await until(0, 0)
        states.cancel()
