"""A long context with quantized cache and flash attention: the memory told at the start beside what is taken.

The model is as small as it gets: reading a prompt takes the square of its length, and memory does not. 32,000 tokens
take under a minute; 131,000 take a quarter of an hour on two cores.
"""

import tempfile
from pathlib import Path

import psutil

from backends.rpc import backend_pb2 as pb
from backends.rpc.backend_pb2_grpc import BackendStub
from tests.backends.harness import events_of, load, running
from tests.helpers.tiny_gguf import write_tiny_model


async def long_context(tokens: int = 32_000) -> dict[str, float]:
    """One prompt of `tokens`, in a backend process of its own."""
    context = -(-tokens // 1024) * 1024
    with tempfile.TemporaryDirectory() as folder:
        path = write_tiny_model(Path(folder) / "long.gguf", width=64, layers=1, context=context)
        async with running("llama", "--address", f"unix:{folder}/s") as (process, channel):
            stub = BackendStub(channel)
            told = await load(
                stub, str(path), context_length=context, slots=1, cache_type_k="q8_0", cache_type_v="q8_0"
            )
            prompt = pb.TokenIds(ids=[4 + (7919 * number) % 250 for number in range(tokens)])
            await events_of(stub, pb.GenerateRequest(prompt_tokens=prompt, max_tokens=2, ignore_eos=True))
            taken = psutil.Process(process.pid).memory_info().rss
    return {
        "tokens": tokens,
        "predicted_mb": told.memory_bytes / 1e6,
        "measured_mb": taken / 1e6,
        "measured_to_predicted": taken / told.memory_bytes,
    }
