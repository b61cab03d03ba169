"""Plain completions: prompts that come back with their logprobs, and gaps that are filled."""

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from backends.llama.engine import LlamaEngine
from backends.rpc import backend_pb2 as pb
from backends.rpc.backend_pb2_grpc import BackendStub
from tests.backends.harness import events_of, ids_of, load, reason_of, refused, served, text_of, usage_of, user
from tests.helpers.tiny_gguf import write_tiny_model

MINNOW = "gallery/minnow/minnow.gguf"
GREEDY = pb.Sampling(temperature=0)
STORY = "Once upon a time, there was a fish in the sea; and a bird, and a tree - ü, 漢字. " * 3

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stub() -> AsyncIterator[BackendStub]:
    async with served(LlamaEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, MINNOW, slots=4, context_length=512)
        yield stub


def scored(prompt: str, max_tokens: int = 0, **more: object) -> pb.GenerateRequest:
    more = {"sampling": GREEDY, "top_logprobs": 2, **more}
    return pb.GenerateRequest(prompt=prompt, echo_prompt=True, max_tokens=max_tokens, **more)  # type: ignore[arg-type]


def logprobs_of(events: list[pb.GenerateEvent], choice: int = 0) -> list[pb.TokenLogprob]:
    return [entry for event in events if event.choice == choice for entry in event.text.logprobs]


async def test_a_prompt_can_be_scored_alone(stub: BackendStub) -> None:
    events = await events_of(stub, scored(STORY))
    entries = logprobs_of(events)

    assert text_of(events) == STORY
    assert reason_of(events) == "length"
    assert (usage_of(events).prompt_tokens, usage_of(events).completion_tokens) == (len(entries), 0)
    assert [entry.follows_nothing for entry in entries] == [True] + [False] * (len(entries) - 1)
    assert b"".join(entry.token_bytes for entry in entries).decode() == STORY
    assert all(entry.logprob < 0 and len(entry.top) == 2 for entry in entries[1:])
    assert all(entry.top[0].logprob >= max(entry.logprob, entry.top[1].logprob) - 1e-5 for entry in entries[1:])


async def test_a_token_of_a_prompt_is_as_likely_as_it_was_when_it_was_drawn(stub: BackendStub) -> None:
    drawn = await events_of(stub, pb.GenerateRequest(prompt="Hello", sampling=GREEDY, max_tokens=8, top_logprobs=0))
    [*_, first] = (await stub.Tokenize(pb.TokenizeRequest(text="Hello"))).ids
    prompt = pb.TokenIds(ids=[first, *ids_of(drawn)])
    again = await events_of(
        stub, pb.GenerateRequest(prompt_tokens=prompt, echo_prompt=True, max_tokens=0, top_logprobs=0, sampling=GREEDY)
    )

    expected = [entry.logprob for entry in logprobs_of(drawn)]
    assert [entry.logprob for entry in logprobs_of(again)[1:]] == pytest.approx(expected, abs=0.02)


async def test_an_answer_follows_its_scored_prompt_in_every_choice_and_beside_other_requests(
    stub: BackendStub,
) -> None:
    alone = await events_of(stub, pb.GenerateRequest(prompt=STORY, sampling=GREEDY, max_tokens=6))
    several, other = await asyncio.gather(
        events_of(stub, scored(STORY, 6, choices=2)),
        events_of(stub, user("Hello!", sampling=GREEDY, max_tokens=30, ignore_eos=True)),
    )

    for choice in range(2):
        assert text_of(several, choice) == STORY + text_of(alone)
        assert len(logprobs_of(several, choice)) == usage_of(alone).prompt_tokens + 6
    assert usage_of(other).completion_tokens == 30


async def test_a_prompt_of_one_token_has_no_logprob(stub: BackendStub) -> None:
    [entry] = logprobs_of(await events_of(stub, scored("!")))

    assert (entry.token, entry.follows_nothing) == ("!", True)


async def test_an_echo_without_logprobs_needs_no_answer(stub: BackendStub) -> None:
    events = await events_of(stub, pb.GenerateRequest(prompt="as it was", echo_prompt=True, max_tokens=0))

    assert (text_of(events), reason_of(events)) == ("as it was", "length")


async def test_an_answer_that_goes_on_does_not_begin_with_its_prompt_again(stub: BackendStub) -> None:
    request = scored("Once upon a time", 10)
    whole = await events_of(stub, request)
    request.given.add(choice=0, ids=ids_of(whole)[:4])
    rest = await events_of(stub, request)

    assert ids_of(whole)[:4] + ids_of(rest) == ids_of(whole)
    assert text_of(whole).endswith(text_of(rest))
    assert "Once" not in text_of(rest)


async def test_an_added_space_is_no_part_of_a_scored_prompt(tmp_path: Path) -> None:
    async with served(LlamaEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, str(write_tiny_model(tmp_path / "tiny.gguf")), slots=1)

        assert text_of(await events_of(stub, scored("the cat"))) == "the cat"
        assert text_of(await events_of(stub, scored(" the cat"))) == " the cat"


async def test_a_gap_is_filled_by_a_model_that_was_taught_to(tmp_path: Path) -> None:
    marks = ["<|pre|>", "<|suf|>", "<|mid|>"]
    file = write_tiny_model(tmp_path / "tiny.gguf", control=marks, fim_pre=3, fim_suf=4, fim_mid=5)
    async with served(LlamaEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, str(file), slots=1)

        async def ids(text: str) -> list[int]:
            return list((await stub.Tokenize(pb.TokenizeRequest(text=text))).ids)

        gap = pb.GenerateRequest(prompt="a<|mid|>", suffix="b<|pre|>", sampling=GREEDY, max_tokens=9, ignore_eos=True)
        filled = await events_of(stub, gap)
        spelled = pb.TokenIds(ids=[1, 3, *(await ids("a<|mid|>")), 4, *(await ids("b<|pre|>")), 5])
        by_hand = await events_of(
            stub, pb.GenerateRequest(prompt_tokens=spelled, sampling=GREEDY, max_tokens=9, ignore_eos=True)
        )
        gap.given.add(choice=0, ids=ids_of(filled)[:4])
        rest = await events_of(stub, gap)

        with refused(grpc.StatusCode.INVALID_ARGUMENT, "invalid_value", "plain completion"):
            await events_of(stub, user("x", suffix="y"))
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "invalid_value", "together with suffix"):
            await events_of(stub, scored("x", suffix="y"))

    assert ids_of(filled) == ids_of(by_hand)
    assert usage_of(filled).prompt_tokens == len(spelled.ids)
    assert ids_of(filled)[:4] + ids_of(rest) == ids_of(filled)


async def test_a_gap_is_refused_by_a_model_that_was_not(stub: BackendStub) -> None:
    with refused(grpc.StatusCode.UNIMPLEMENTED, "unsupported", "not taught to fill gaps"):
        await events_of(stub, pb.GenerateRequest(prompt="x", suffix="y"))


async def test_logprobs_are_finite(stub: BackendStub) -> None:
    entries = logprobs_of(await events_of(stub, scored("zebra ÿ !!", 3)))

    assert all(math.isfinite(entry.logprob) for entry in entries)
