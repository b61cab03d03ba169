"""A model that computes NaN: the request ends with an error, and nobody else notices."""

import asyncio
from pathlib import Path

import grpc
import pytest

from backends.llama.engine import LlamaEngine
from backends.rpc import backend_pb2 as pb
from backends.rpc.backend_pb2_grpc import BackendStub
from tests.backends.harness import events_of, ids_of, load, refused, served, usage_of
from tests.helpers.tiny_gguf import write_tiny_model

# The broken characters never come up by themselves.
UNLIKELY = {3 + ord("X"): -1000.0}


def ask(prompt: str, temperature: float = 0, tokens: int = 40) -> pb.GenerateRequest:
    sampling = pb.Sampling(temperature=temperature, seed=1, logit_bias=UNLIKELY)
    return pb.GenerateRequest(prompt=prompt, sampling=sampling, max_tokens=tokens, ignore_eos=True)


@pytest.mark.parametrize("wishes", ["greedy", "hot", "constrained", "scored", "guessed"])
async def test_a_request_for_which_the_model_computes_nan_ends_alone(tmp_path: Path, wishes: str) -> None:
    broken = ask("the X the", temperature=1 if wishes == "hot" else 0)
    if wishes == "constrained":
        broken.constraint.regex = "[a-z]{3,9}"
    elif wishes == "scored":
        broken.echo_prompt, broken.top_logprobs = True, 1
    more = {"lookup_tokens": 4} if wishes == "guessed" else {}
    async with served(LlamaEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, str(write_tiny_model(tmp_path / "tiny.gguf", broken="X")), slots=4, context_length=128, **more)
        alone = await events_of(stub, ask("the re in"))
        beside = asyncio.gather(*(events_of(stub, ask("the re in", tokens=100)) for _ in range(2)))
        for _ in range(2):
            with refused(grpc.StatusCode.INTERNAL, "engine_error", "NaN"):
                await events_of(stub, broken)
        others = await beside
        again = await events_of(stub, ask("the re in"))

    assert ids_of(again) == ids_of(alone)
    for events in others:
        assert ids_of(events)[:40] == ids_of(alone)
        assert usage_of(events).completion_tokens == 100
