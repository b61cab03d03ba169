"""A long context with quantized cache and flash attention: the memory told at the start beside what is taken.

The model is as small as it gets, one layer with one head of 128: reading a prompt takes the square of its length, and
memory does not. Half of what is predicted for 131,072 tokens is llama.cpp's mask of who sees whom. Reading 131,000
tokens took 7 minutes on two cores with a load of 4, and 17 with one of 7; 32,000 took one minute.
"""

import tempfile
import time
from pathlib import Path

import psutil

from backends.rpc import backend_pb2 as pb
from backends.rpc.backend_pb2_grpc import BackendStub
from tests.backends.harness import events_of, load, running, usage_of
from tests.helpers.tiny_gguf import write_tiny_model

TRAINED = 131_072
"""Tokens of context that the model's file says it was trained with."""


async def long_context(tokens: int = 32_000) -> dict[str, float]:
    """One prompt of `tokens`, in a backend process of its own."""
    context = -(-tokens // 1024) * 1024
    with tempfile.TemporaryDirectory() as folder:
        path = write_tiny_model(Path(folder) / "long.gguf", width=128, layers=1, heads=1, context=TRAINED)
        async with running("llama", "--address", f"unix:{folder}/s") as (process, channel):
            stub = BackendStub(channel)
            told = await load(
                stub,
                str(path),
                context_length=context,
                slots=1,
                cache_type_k="q8_0",
                cache_type_v="q8_0",
                flash_attention="on",
                threads=psutil.cpu_count(logical=False) or 1,
            )
            prompt = pb.TokenIds(ids=[4 + (7919 * number) % 250 for number in range(tokens)])
            begun = time.perf_counter()
            events = await events_of(stub, pb.GenerateRequest(prompt_tokens=prompt, max_tokens=2, ignore_eos=True))
            seconds = time.perf_counter() - begun
            taken = _peak_bytes(process.pid)
            assert usage_of(events).prompt_tokens == tokens
    return {
        "tokens": tokens,
        "seconds": seconds,
        "predicted_mb": told.memory_bytes / 1e6,
        "measured_mb": taken / 1e6,
        "off_percent": abs(taken / told.memory_bytes - 1) * 100,
    }


def _peak_bytes(pid: int) -> int:
    """The most memory that the process was in at any time; where the system does not tell, what it is in now."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return int(psutil.Process(pid).memory_info().rss)
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
