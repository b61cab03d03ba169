"""Answers that go on when their context is full."""

import asyncio
from pathlib import Path

import pytest

from backends.llama.engine import LlamaEngine
from backends.rpc import backend_pb2 as pb
from backends.rpc.backend_pb2_grpc import BackendStub
from tests.backends.harness import events_of, ids_of, load, reason_of, served, usage_of
from tests.helpers.tiny_gguf import write_tiny_model

GREEDY = pb.Sampling(temperature=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf", context=300)


def ask(prompt: str, tokens: int | None = 200) -> pb.GenerateRequest:
    return pb.GenerateRequest(prompt=prompt, sampling=GREEDY, max_tokens=tokens, ignore_eos=True)


async def test_answers_go_on_past_their_context_beside_each_other_and_as_if_alone(tiny: Path) -> None:
    async with served(LlamaEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, str(tiny), slots=3, context_length=64, context_shift=True, context_keep=4)
        requests = [ask("the re in"), ask("a b c d e"), ask("the re in the in")]
        alone = [await events_of(stub, request) for request in requests]
        together = await asyncio.gather(*(events_of(stub, request) for request in requests))
        endless = await events_of(stub, ask("the", None))

    assert [reason_of(events) for events in alone] == ["length"] * 3
    assert [usage_of(events).completion_tokens for events in alone] == [200] * 3
    assert [usage_of(events).completion_tokens for events in together] == [200] * 3
    # Batches of other sizes move logits by a little, so a tie may fall the other way late in an answer.
    assert [ids_of(events)[:20] for events in together] == [ids_of(events)[:20] for events in alone]
    assert usage_of(endless).completion_tokens == 300


@pytest.mark.parametrize("settings", [{}, {"lookup_tokens": 5}], ids=["plain", "guessed"])
async def test_a_shifted_answer_is_continued_without_a_seam(tiny: Path, settings: dict[str, int]) -> None:
    async with served(LlamaEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, str(tiny), slots=2, context_length=64, context_shift=True, **settings)
        request = ask("the re in", 90)
        whole = ids_of(await events_of(stub, request))
        rests = []
        for given in (30, 54, 55, 56, 80):
            del request.given[:]
            request.given.add(choice=0, ids=whole[:given])
            rests.append(whole[:given] + ids_of(await events_of(stub, request)))

    assert rests == [whole] * 5


async def test_what_a_shifting_answer_dropped_is_not_taken_for_a_prompt_met_before(tiny: Path) -> None:
    async with served(LlamaEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, str(tiny), slots=1, context_length=64, context_shift=True)
        fresh = ids_of(await events_of(stub, ask("the re in", 30)))
        await events_of(stub, ask("the re in", 150))
        again = ids_of(await events_of(stub, ask("the re in", 30)))

    assert again == fresh


async def test_without_the_setting_a_full_context_ends_the_answer(tiny: Path) -> None:
    async with served(LlamaEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, str(tiny), slots=1, context_length=64)
        events = await events_of(stub, ask("the re in"))

    assert reason_of(events) == "length"
    assert usage_of(events).prompt_tokens + usage_of(events).completion_tokens == 64
