"""What choosing a node costs, and what it saves: no node runs, so this is the same on every machine but for speed."""

import random
import time

from bench.figures import Figures, quantile
from mesh.prefixes import Prompt, PromptMemory
from mesh.routing import Needs, rank
from mesh.types import MeshView, ModelState
from tests.helpers.mesh_records import member, model, view
from tests.helpers.prompt_workloads import Choose, agents, one_hot_prefix, run

NODES, MODELS = 64, 200
PROMPT = 32 * 1024


def decision(count: int = 2000) -> Figures:
    """One decision among 64 nodes with 200 models each, all of which hold the one that is asked for: for a short
    prompt, and for one of 32 KB that every sketch knows to some part. Hashing the prompt is counted.
    `one_node_p50_us` is the same in a mesh of one, the yardstick. Of this thread's own time: what else runs on the
    machine is not its cost."""
    rng = random.Random(1)
    texts = [rng.randbytes(4096) + rng.randbytes(PROMPT - 4096) for _ in range(20)]
    whole, alone = _crowd(texts, rng, NODES), _crowd(texts, rng, 1)
    short = _timed(whole, [b""], count)
    long = _timed(whole, texts, count)
    yardstick = _timed(alone, [b""], count)
    return {
        "short_p50_us": 1e6 * quantile(short, 0.5),
        "short_p99_us": 1e6 * quantile(short, 0.99),
        "long_p50_us": 1e6 * quantile(long, 0.5),
        "long_p99_us": 1e6 * quantile(long, 0.99),
        "one_node_p50_us": 1e6 * quantile(yardstick, 0.5),
    }


def _crowd(texts: list[bytes], rng: random.Random, holders: int) -> MeshView:
    others = [model(f"m{number}", state=ModelState.ON_DISK) for number in range(1, MODELS)]
    members = []
    for number in range(holders):
        memory = PromptMemory(12)
        for text in rng.sample(texts, 6):
            memory.add(Prompt(text[: rng.randrange(4096, PROMPT)]))
        held = model(
            "m0", busy=rng.randrange(4), prefixes=memory.sketch(), capabilities=("chat",), context_length=32768
        )
        members.append(member(f"n{number}", held, *others, round_trip=0.001))
    return view("n0", *members)


def _timed(seen: MeshView, texts: list[bytes], count: int) -> list[float]:
    needs = Needs(frozenset({"chat"}), 8192)
    took = []
    for number in range(count):
        text = texts[number % len(texts)]
        began = time.thread_time()
        next(rank(seen, "m0", request_id=f"r{number}", prompt=Prompt(text), needs=needs))
        took.append(time.thread_time() - began)
    return took


def by_prefix(seen: MeshView, number: int, prompt: bytes) -> str:
    return next(rank(seen, "m", request_id=f"r{number}", prompt=Prompt(prompt))).node


def round_robin(seen: MeshView, number: int, prompt: bytes) -> str:
    return f"r{number % 4}"


def prompts_saved(callers: int = 12, turns: int = 60) -> Figures:
    """24 agents with instructions of 8 KB and growing conversations, over four replicas: bytes of prompt that are
    computed, against round-robin. `reread` are those that some replica had computed before."""

    def outcome(choose: Choose) -> tuple[int, int, float]:
        found = run(agents(conversations=24, turns=turns), choose, concurrency=callers)
        return found.read, found.again, max(found.served.values()) * 4 / found.served.total()

    (ours, again, spread), (theirs, theirs_again, _) = outcome(by_prefix), outcome(round_robin)
    return {
        "less_prompt_percent": 100 * (1 - ours / theirs),
        "less_reread_percent": 100 * (1 - again / theirs_again),
        "max_to_mean": spread,
    }


def hot_prefix(callers: int = 12) -> Figures:
    """Everybody's prompt begins with the same 8,000 tokens: how evenly four replicas share it, and how often they
    read it (once each is best)."""
    found = run(one_hot_prefix(requests=1000), by_prefix, concurrency=callers)
    few = run(one_hot_prefix(requests=2000), by_prefix, concurrency=2)
    return {
        "max_to_mean": max(found.served.values()) * 4 / found.served.total(),
        "max_to_mean_2_callers": max(few.served.values()) * 4 / few.served.total(),
        "times_read": 1 + found.again / (32 * 1024),
    }
