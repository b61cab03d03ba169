"""Vectors and scores of encoders, against the same weights computed in numpy."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from backends.llama.embeddings import Text, next_batch
from backends.llama.engine import LlamaEngine
from backends.llama.turns import Turns
from backends.rpc import backend_pb2 as pb
from backends.rpc.backend_pb2_grpc import BackendStub
from tests.backends.harness import load, refused, served, user
from tests.helpers.bert import random_bert

TEXTS = ["where is the cat?", "a cat sat on a mat.", "42", "who?", "no."]


def inputs(*texts: str) -> pb.EmbedRequest:
    return pb.EmbedRequest(inputs=[pb.EmbedInput(text=text) for text in texts])


async def loaded(path: Path, **settings: int) -> AsyncIterator[BackendStub]:
    async with served(LlamaEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, str(path), **settings)
        yield stub


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
async def test_a_text_is_pooled_as_the_model_was_trained_to(tmp_path: Path, pooling: str) -> None:
    bert = random_bert()
    async for stub in loaded(bert.write(tmp_path / "m.gguf", pooling)):
        reply = await stub.Embed(inputs(*TEXTS))

        expected = [bert.vector(bert.framed(bert.tokens(text)), pooling) for text in TEXTS]
        for vector, wanted in zip(reply.vectors, expected, strict=True):
            assert np.dot(vector.values, wanted) == pytest.approx(1, abs=1e-3)
        assert reply.prompt_tokens == sum(len(bert.framed(bert.tokens(text))) for text in TEXTS)


async def test_a_cross_encoder_reads_query_and_document_together(tmp_path: Path) -> None:
    bert = random_bert()
    async for stub in loaded(bert.write(tmp_path / "m.gguf", "rank")):
        query, *documents = TEXTS
        reply = await stub.Rerank(pb.RerankRequest(query=query, documents=documents))

        pairs = [bert.framed(bert.tokens(query), bert.tokens(document)) for document in documents]
        expected = [float(bert.vector(pair, "rank")[0]) for pair in pairs]
        assert list(reply.scores) == pytest.approx(expected, abs=5e-3)
        assert max(expected) - min(expected) > 0.05
        with refused(grpc.StatusCode.UNIMPLEMENTED, "unsupported", "scores documents"):
            await stub.Embed(inputs("x"))


async def test_an_encoder_says_what_it_can_do_and_writes_nothing(tmp_path: Path) -> None:
    async with served(LlamaEngine) as channel:
        stub = BackendStub(channel)
        told = await load(stub, str(random_bert().write(tmp_path / "m.gguf", "mean")))

        assert set(told.capabilities) == {"embedding", "rerank"}
        with refused(grpc.StatusCode.UNIMPLEMENTED, "unsupported", "embeddings only"):
            await stub.Generate([user("Hello!")]).read()


async def test_many_calls_at_once_each_get_their_own_vectors(tmp_path: Path) -> None:
    bert = random_bert()
    async for stub in loaded(bert.write(tmp_path / "m.gguf", "mean")):
        calls = [[f"{text} {number}" for text in TEXTS] for number in range(24)]

        replies = await asyncio.gather(*(stub.Embed(inputs(*texts)) for texts in calls))

        for texts, reply in zip(calls, replies, strict=True):
            expected = [bert.vector(bert.framed(bert.tokens(text)), "mean") for text in texts]
            near = [np.dot(v.values, wanted) for v, wanted in zip(reply.vectors, expected, strict=True)]
            assert near == pytest.approx([1] * len(texts), abs=1e-3)


async def test_a_text_longer_than_the_model_reads_is_refused_with_numbers(tmp_path: Path) -> None:
    async for stub in loaded(random_bert(longest=64).write(tmp_path / "m.gguf", "mean")):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "context_length_exceeded", "a text has 202 tokens"):
            await stub.Embed(inputs("short", "x " * 200))
        assert len((await stub.Embed(inputs("x " * 62))).vectors) == 1


async def test_a_text_may_be_as_long_as_the_model_reads(tmp_path: Path) -> None:
    bert = random_bert(longest=5000, layers=1, width=8, heads=1)
    async for stub in loaded(bert.write(tmp_path / "m.gguf", "mean")):
        text = "a b c d e " * 900

        reply = await stub.Embed(inputs("short", text))

        wanted = bert.vector(bert.framed(bert.tokens(text)), "mean")
        assert np.dot(reply.vectors[1].values, wanted) == pytest.approx(1, abs=1e-3)


async def test_a_limit_that_is_no_round_number_is_fine(tmp_path: Path) -> None:
    async for stub in loaded(random_bert(longest=514).write(tmp_path / "m.gguf", "mean")):
        assert len((await stub.Embed(inputs(*TEXTS))).vectors) == len(TEXTS)


async def test_unloading_ends_waiting_calls(tmp_path: Path) -> None:
    bert = random_bert(longest=2000)
    async for stub in loaded(bert.write(tmp_path / "m.gguf", "mean")):
        calls = [asyncio.ensure_future(stub.Embed(inputs(*["x " * 1900] * 30))) for _ in range(3)]
        await asyncio.sleep(0)
        await stub.Embed(inputs("x"))
        await stub.Unload(pb.UnloadRequest())

        ends = await asyncio.gather(*calls, return_exceptions=True)
        codes = {end.code() for end in ends if isinstance(end, grpc.aio.AioRpcError)}
        assert codes
        assert codes <= {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}


# ---------------------------------------------------------------- whose texts are next


def turns(**sizes: list[int]) -> Turns[Text]:
    waiting: Turns[Text] = Turns()
    for call, lengths in sizes.items():
        for length in lengths:
            waiting.add(call, Text([0] * length))
    return waiting


def lengths(batch: list[Text]) -> list[int]:
    return [len(text.tokens) for text in batch]


def test_calls_take_turns_so_that_a_large_one_delays_nobody() -> None:
    waiting = turns(large=[10] * 100, small=[7])

    assert lengths(next_batch(waiting, room=30)) == [10, 7, 10]


def test_a_batch_is_as_much_as_fits() -> None:
    waiting = turns(call=[10, 10, 15, 5])

    assert [lengths(next_batch(waiting, room=20)) for _ in range(3)] == [[10, 10], [15, 5], []]
    assert lengths(next_batch(turns(call=[1] * 9), room=20, most=4)) == [1] * 4


def test_a_text_longer_than_a_batch_goes_alone() -> None:
    waiting = turns(call=[50, 5])

    assert [lengths(next_batch(waiting, room=20)) for _ in range(2)] == [[50], [5]]
