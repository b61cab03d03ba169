"""How soon a node notices: a client that left, a backend that died; and how soon one that joins is of use."""

import asyncio
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.figures import Figures
from tests.helpers.lan import lan, why_not
from tests.helpers.lan_nodes import LanNode, started
from tests.helpers.nodes import Node, events

TIMES = 10
LOOK_EVERY = 0.004
MODEL = "bench"
HELLO = [{"role": "user", "content": "Hello"}]


def endless() -> dict[str, object]:
    settings = {"tokens": 5000, "token_interval": 0.02}
    return {"model": MODEL, "messages": HELLO, "stream": True, "chat_template_kwargs": settings}


async def seconds_until(condition: Callable[[], Awaitable[bool]], timeout: float = 20.0) -> float:
    began = time.perf_counter()
    while not await condition():
        if time.perf_counter() - began > timeout:
            raise RuntimeError("what is waited for did not happen")
        await asyncio.sleep(LOOK_EVERY)
    return time.perf_counter() - began


async def client_leaves(entry: Node, holder: Node) -> Figures:
    """From the end of a client's connection to its slot at the holder being free, as the holder itself says."""
    took = []
    async with holder.client() as looking:

        async def busy() -> int:
            nodes = (await looking.get("/api/mesh")).json()["nodes"]
            return sum(m["busy"] for n in nodes if n["name"] == holder.name for m in n["models"] if m["name"] == MODEL)

        async def is_busy() -> bool:
            return await busy() == 1

        async def is_free() -> bool:
            return await busy() == 0

        for _ in range(TIMES):
            async with entry.client() as http:
                async with http.stream("POST", "/v1/chat/completions", json=endless()) as response:
                    stream = events(response)
                    await anext(stream)
                    await seconds_until(is_busy)
                took.append(await seconds_until(is_free))
    return {"slot_free_p50_ms": 1000 * statistics.median(took), "slot_free_worst_ms": 1000 * max(took)}


async def backend_dies(watcher: Node, holder: Node) -> Figures:
    """From kill -9 of a backend to `watcher` counting the model as not ready at the holder."""
    took = []
    async with watcher.client() as looking:

        async def states() -> list[str]:
            nodes = (await looking.get("/api/mesh")).json()["nodes"]
            return [m["state"] for n in nodes if n["name"] == holder.name for m in n["models"] if m["name"] == MODEL]

        async def is_ready() -> bool:
            return await states() == ["ready"]

        async def is_not_ready() -> bool:
            return not await is_ready()

        for _ in range(3):
            # By order, because a backend that keeps dying is started after ever longer pauses.
            await holder.load(MODEL, holder.name)
            await seconds_until(is_ready)
            for backend in holder.backends():
                backend.send_signal(signal.SIGKILL)
            took.append(await seconds_until(is_not_ready))
    return {"noticed_p50_ms": 1000 * statistics.median(took), "noticed_worst_ms": 1000 * max(took)}


async def join(root: Path) -> Figures:
    """From the command on a new host to its first answer from a model that only another host has, by mDNS alone."""
    with lan("old", "new") as hosts:
        old, new = (LanNode(root / name, host) for name, host in hosts.items())
        (old.root / "models").mkdir(parents=True)
        (old.root / "models" / f"{MODEL}.yaml").write_text("engine: echo\n")
        async with started(old):
            await old.load(MODEL, "old")
            began = time.perf_counter()
            async with started(new):
                ready = time.perf_counter()
                async with new.client() as http:

                    async def is_answered() -> bool:
                        answer = await http.post("/v1/chat/completions", json={"model": MODEL, "messages": HELLO})
                        return answer.status_code == 200 and answer.headers["x-shoal-node"] == "old"

                    await seconds_until(is_answered)
                answered = time.perf_counter()
    return {"first_answer_s": answered - ready, "with_its_start_s": answered - began}


async def measure_trouble(
    entry: Node, holder: Node, repeats: int, say: Callable[[str], None]
) -> dict[str, list[Figures]]:
    """Every case; `holder` alone holds the model."""
    found: dict[str, list[Figures]] = {}

    async def run(name: str, case: Callable[[], Awaitable[Figures]]) -> None:
        for index in range(repeats):
            say(f"{name} ({index + 1}/{repeats})")
            found.setdefault(name, []).append(await case())

    await run("a client leaves", lambda: client_leaves(holder, holder))
    await run("a client leaves, across a hop", lambda: client_leaves(entry, holder))
    await run("a backend dies", lambda: backend_dies(holder, holder))
    await run("a backend dies, seen by a peer", lambda: backend_dies(entry, holder))
    if reason := why_not():
        say(f"joining over mDNS is not measured: {reason}")
    else:
        with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
            for index in range(repeats):
                say(f"a node joins ({index + 1}/{repeats})")
                found.setdefault("a node joins", []).append(await join(Path(folder) / str(index)))
    return found
