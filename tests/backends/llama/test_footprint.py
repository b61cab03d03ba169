"""Memory that is predicted before anything is loaded, and what a process then takes."""

from pathlib import Path

import grpc
import psutil
import pytest

from backends.llama.engine import LlamaEngine
from backends.llama.footprint import Footprint, Needs, footprint_in
from backends.llama.planning import plan_load
from backends.llama.settings import LlamaSettings, Machine
from backends.rpc import backend_pb2 as pb
from backends.rpc.backend_pb2_grpc import BackendStub
from tests.backends.harness import events_of, load, refused, running, seen, served, usage_of
from tests.helpers.bert import random_bert
from tests.helpers.media import sound
from tests.helpers.memory_gguf import ARCHITECTURES, write_memory_model
from tests.helpers.projectors import write_projector
from tests.helpers.tiny_gguf import write_lora, write_tiny_model

MIB = 2**20
GREEDY = pb.Sampling(temperature=0)


def test_sizes_are_read_from_what_llama_cpp_says() -> None:
    lines = [
        "llama_context:        CPU  output buffer size =     0.50 MiB",
        "llama_kv_cache:        CPU KV buffer size =     0.00 MiB",
        "llama_kv_cache: size =  306.00 MiB (131072 cells,   6 layers, 16/1 seqs), K (q8_0):  153.00 MiB",
        "llama_memory_recurrent: size =    2.00 MiB (    16 cells,   2 layers, 16 seqs), R (f32):    0.5 MiB",
        "load_tensors:          CPU model buffer size =     0.00 MiB",
        "sched_reserve:        CPU compute buffer size =   132.50 MiB",
        "print_info: file size   = 5.58 MiB (16.01 BPW)",
    ]

    assert footprint_in(lines) == Footprint(cache=308 * MIB, compute=133 * MIB)


def test_needs_are_told_in_parts() -> None:
    needs = Needs(weights=500 * MIB, context=Footprint(200 * MIB, 60 * MIB), process=80 * MIB)

    assert needs.total == 840 * MIB
    assert str(needs).startswith("takes 840 MiB of memory: 500 MiB of weights, 200 MiB of cache")


@pytest.mark.slow
async def test_a_process_takes_the_memory_that_was_predicted(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", width=256, layers=2, context=4096)
    async with running("llama", "--address", f"unix:{tmp_path / 's'}") as (process, channel):
        stub = BackendStub(channel)
        settings = {"slots": 1, "kept_prefixes": 0, "cache_type_k": "q8_0", "cache_type_v": "q8_0"}
        loaded = await load(stub, str(path), context_length=4096, **settings)
        prompt = pb.TokenIds(ids=[4 + (7919 * number) % 250 for number in range(2000)])
        events = await events_of(
            stub, pb.GenerateRequest(prompt_tokens=prompt, max_tokens=2, ignore_eos=True, sampling=GREEDY)
        )

        assert usage_of(events).prompt_tokens == 2000
        assert psutil.Process(process.pid).memory_info().rss == pytest.approx(loaded.memory_bytes, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["adapter", "projector", "embeddings"])
async def test_what_is_needed_beside_the_model_is_predicted_too(tmp_path: Path, what: str) -> None:
    request = pb.LoadRequest(settings_json='{"slots": 1, "kept_prefixes": 0, "context_length": 2048}')
    if what == "embeddings":
        request.path = str(random_bert(longest=2048, width=256).write(tmp_path / "m.gguf", "mean"))
    else:
        request.path = str(write_tiny_model(tmp_path / "m.gguf", width=512, layers=4, context=2048))
    if what == "adapter":
        request.adapter_paths.append(str(write_lora(tmp_path / "a.gguf", request.path, rank=512)))
    if what == "projector":
        request.projector_path = str(write_projector(tmp_path / "p.gguf", "ultravox", width=512))
    async with running("llama", "--address", f"unix:{tmp_path / 's'}") as (process, channel):
        stub = BackendStub(channel)
        told = [reply async for reply in stub.Load(request)][-1].loaded
        if what == "embeddings":
            text = " ".join("abcdefghij" * 40)
            await stub.Embed(pb.EmbedRequest(inputs=[pb.EmbedInput(text=text)] * 8))
        else:
            content = ["a", sound()] if what == "projector" else ["a" * 1500]
            await events_of(stub, seen(*content, max_tokens=2, ignore_eos=True))

        taken = psutil.Process(process.pid).memory_info().rss
        # Decoders of sound and what they are linked with take some 20 MB of their own, more than this whole model.
        assert taken == pytest.approx(told.memory_bytes, rel=0.15, abs=24 * MIB)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kind_of_memory_is_counted(tmp_path: Path, architecture: str) -> None:
    path = write_memory_model(tmp_path / "m.gguf", architecture)
    machine = Machine(free_bytes=1024 * MIB, cores=2)

    planned = plan_load(LlamaSettings(context_length=512), pb.LoadRequest(path=str(path)), machine)
    plan, needs = planned.plan, planned.needs

    assert needs.context.cache > 50_000
    assert needs.context.compute > 100_000
    assert str(needs) in plan.summary


async def test_what_cannot_fit_is_refused_with_numbers_before_anything_is_loaded(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "m.gguf", width=64, layers=32, context=131072)
    async with served(LlamaEngine) as channel:
        with refused(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "out_of_memory", "a context of 131072 tokens in 128 slots takes"
        ):
            await load(BackendStub(channel), str(path), slots=128, context_length=131072, cache_type_k="f32")


async def test_a_cache_type_that_the_model_cannot_have_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "m.gguf")
    async with served(LlamaEngine) as channel:
        with refused(grpc.StatusCode.UNIMPLEMENTED, "unsupported", "K cache type q8_0"):
            await load(BackendStub(channel), str(path), cache_type_k="q8_0")
