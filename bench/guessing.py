"""Guessing ahead: the engine with and without `lookup_tokens`, on answers that repeat themselves and on such that
never do.

The model is made so that its likeliest tokens go round in a circle, at the cost of any model of its shape: a copying
workload. Drawn hot, nothing comes twice, and what looking in vain costs is seen. Both engines are in this process and
answer in turns.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

from backends.llama.engine import LlamaEngine
from backends.outbox import Outbox
from backends.rpc import backend_pb2 as pb
from bench.figures import Figures
from tests.helpers.tiny_gguf import write_tiny_model

TOKENS = 96
CYCLE = "abcdefghijklmnopqrstuvwxyz"
COPYING = pb.Sampling(temperature=0)
WANDERING = pb.Sampling(temperature=50, top_k=0, top_p=1, min_p=0)


def circling_model(path: Path) -> Path:
    """70 million weights; steps of a few milliseconds."""
    return write_tiny_model(path, width=768, layers=12, cycle=CYCLE)


async def guessing(model: Path, threads: int, streams: int) -> Figures:
    """Time without guesses over time with them, for so many streams at once."""
    plain, guessed = LlamaEngine(lambda: None), LlamaEngine(lambda: None)
    settings = {"slots": max(2, streams), "context_length": 512, "threads": threads}
    try:
        for engine, more in ((plain, {}), (guessed, {"lookup_tokens": 8})):
            chosen = json.dumps({**settings, **more})
            await engine.load(pb.LoadRequest(path=str(model), settings_json=chosen), lambda *_: None)
            await _burst(engine, COPYING, 1, tokens=8)
        figures: Figures = {}
        for name, sampling in (("copying", COPYING), ("wandering", WANDERING)):
            without = await _burst(plain, sampling, streams)
            with_ = await _burst(guessed, sampling, streams)
            figures[f"{name}_gain"] = without.clock_s / with_.clock_s
            figures[f"{name}_gain_cpu"] = without.cpu_s / with_.cpu_s
            if name == "copying":
                figures["tokens_per_s"] = streams * TOKENS / with_.clock_s
                figures["guesses_true_percent"] = 100 * with_.true
        return figures
    finally:
        await plain.unload()
        await guessed.unload()


@dataclass(frozen=True, slots=True)
class _Burst:
    clock_s: float
    cpu_s: float
    """Where others compute too, this is less their doing than the clock's."""
    true: float
    """Share of guesses that came true."""


async def _burst(engine: LlamaEngine, sampling: pb.Sampling, streams: int, tokens: int = TOKENS) -> _Burst:
    began, began_cpu = time.perf_counter(), time.process_time()
    usages = await asyncio.gather(*(_answer(engine, sampling, n, tokens) for n in range(streams)))
    took, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    true = sum(usage.accepted_prediction_tokens for usage in usages)
    made = true + sum(usage.rejected_prediction_tokens for usage in usages)
    return _Burst(took, cpu, true / made if made else 0.0)


async def _answer(engine: LlamaEngine, sampling: pb.Sampling, number: int, tokens: int) -> pb.Usage:
    replies: Outbox[pb.GenerateEvent] = Outbox()
    request = pb.GenerateRequest(
        prompt=CYCLE[number % 26 :] + CYCLE, max_tokens=tokens, ignore_eos=True, sampling=sampling
    )
    work = asyncio.ensure_future(engine.generate(request, replies))
    work.add_done_callback(lambda _: replies.close())
    usage = pb.Usage()
    while events := await replies.take():
        usage = events[-1].usage
    await work
    return usage
