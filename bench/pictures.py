"""Pictures: what the API and a hop add to diffusers, with the same file, seeds, threads and OpenMP settings.

A picture of random weights takes a second or two in 20 steps. The times through the API hold everything: HTTP, a
message for each step, the picture as PNG and base64, and its transfer; that of the library is its call alone.
"""

import asyncio
import contextlib
import hashlib
import io
import json
import sys
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image

from bench.figures import Figures, slower
from tests.helpers.nodes import Node, mesh_of

MODEL = "bench-pictures"
SIZE, STEPS = 128, 20
PROMPT = "a red circle"

Draw = Callable[[int], Awaitable[tuple[float, str]]]
"""By seed: the seconds that a picture took, and a digest of its pixels."""

_seeds = count(1)


async def generation(bare: "Bare", entry: Node, holder: Node, rounds: int = 5) -> Figures:
    """One picture from each in turn, the first one another in each round; the pictures of a round have one seed."""
    ways: list[tuple[str, Draw]] = [
        ("direct", bare.draw),
        ("local", lambda seed: _through(holder, seed)),
        ("forwarded", lambda seed: _through(entry, seed)),
    ]
    took: dict[str, list[float]] = {name: [] for name, _ in ways}
    different = 0
    for turn in range(rounds):
        seed = next(_seeds)
        pixels = set()
        first = turn % len(ways)
        for name, draw in ways[first:] + ways[:first]:
            seconds, digest = await draw(seed)
            took[name].append(seconds)
            pixels.add(digest)
        different += len(pixels) - 1
    return slower(took) | {"different_pictures": different}


async def _through(node: Node, seed: int) -> tuple[float, str]:
    ask = {"model": MODEL, "prompt": PROMPT, "seed": seed, "steps": STEPS, "size": f"{SIZE}x{SIZE}"}
    async with node.client() as http:
        began = time.perf_counter()
        response = await http.post("/v1/images/generations", json=ask, timeout=120)
        seconds = time.perf_counter() - began
    [drawn] = response.raise_for_status().json()["data"]
    with Image.open(io.BytesIO(b64decode(drawn["b64_json"]))) as picture:
        return seconds, hashlib.sha256(picture.tobytes()).hexdigest()


class Bare:
    """`bench.bare_diffusers`, running."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def draw(self, seed: int) -> tuple[float, str]:
        """Seconds, and a digest of the pixels."""
        assert self._process.stdin is not None
        ask = {"prompt": PROMPT, "seed": seed, "steps": STEPS, "size": SIZE}
        self._process.stdin.write(json.dumps(ask).encode() + b"\n")
        told = await self.told()
        return told["seconds"], told["pixels"]

    async def told(self) -> dict[str, Any]:
        """The next thing that it says."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("diffusers by itself has ended; what it wrote above says why")
        told: dict[str, Any] = json.loads(line)
        return told


@contextlib.asynccontextmanager
async def bare_diffusers(folder: Path) -> AsyncIterator[Bare]:
    """It, with a model that it has put into `folder`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.bare_diffusers", str(folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # As backends are: Linux may share the processors out by session.
        start_new_session=True,
    )
    try:
        bare = Bare(process)
        await bare.told()
        yield bare
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def measure_pictures(root: Path, repeats: int, say: Callable[[str], None]) -> dict[str, list[Figures]]:
    """`repeats` times, after a round that is not counted."""
    folder = root / "pipeline"
    models = root / "b" / "models"
    models.mkdir(parents=True, exist_ok=True)
    (models / f"{MODEL}.yaml").write_text(json.dumps({"engine": "diffusers", "path": str(folder)}))
    found: list[Figures] = []
    async with bare_diffusers(folder) as bare, mesh_of(root, "ab") as (entry, holder):
        await holder.load(MODEL, "b")
        await entry.until_sees("b", model=MODEL, held_by="b")
        say("pictures: warming up")
        await generation(bare, entry, holder, rounds=1)
        for index in range(repeats):
            say(f"pictures ({index + 1}/{repeats})")
            found.append(await generation(bare, entry, holder))
    return {"image generation": found}
