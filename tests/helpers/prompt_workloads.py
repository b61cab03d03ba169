"""Engines that keep prompts, and agents that ask them: a simulation in which a prompt's cost is its length."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field

from mesh.prefixes import BLOCK, Prompt, PromptMemory, known_blocks
from mesh.types import MeshView
from tests.helpers.mesh_records import member, model, view

SLOTS, KEPT = 4, 8

Choose = Callable[[MeshView, int, bytes], str]
"""Which replica answers request number so-and-so with that prompt."""


class Replica:
    """Keeps the latest prompts, as the engine does, and counts what it must read again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.memory = PromptMemory(SLOTS + KEPT)
        self.kept: list[bytes] = []
        self.busy = 0
        self.served = 0

    def read(self, prompt: bytes) -> int:
        """Bytes of `prompt` that were not cached."""
        self.served += 1
        cached = max((_shared(prompt, known) for known in self.kept), default=0)
        self.kept = [*self.kept, prompt][-(SLOTS + KEPT) :]
        self.memory.add(Prompt(prompt))
        return len(prompt) - cached


@dataclass
class Outcome:
    read: int = 0
    """Bytes of prompt that were computed."""
    unavoidable: int = 0
    """Those of them that no replica had ever read."""
    served: Counter[str] = field(default_factory=Counter)

    @property
    def again(self) -> int:
        """Bytes that were computed although some replica had read them before."""
        return self.read - self.unavoidable


def run(prompts: Iterator[bytes], choose: Choose, *, replicas: int = 4, concurrency: int = 8) -> Outcome:
    """Every prompt is answered by the replica chosen for it; `concurrency` of them run at a time."""
    nodes = {name: Replica(name) for name in (f"r{i}" for i in range(replicas))}
    running: list[Replica] = []
    seen: set[int] = set()
    outcome = Outcome()
    for number, prompt in enumerate(prompts):
        if len(running) == concurrency:
            running.pop(0).busy -= 1
        # Every replica is an entry node too, each in its turn.
        entry = f"r{number % replicas}"
        chosen = nodes[choose(_view(entry, nodes), number, prompt)]
        chosen.busy += 1
        running.append(chosen)
        outcome.read += chosen.read(prompt)
        outcome.unavoidable += len(prompt) - shared_bytes(Prompt(prompt), seen)
        seen.update(Prompt(prompt))
        outcome.served[chosen.name] += 1
    return outcome


def agents(*, conversations: int = 32, turns: int = 12, kinds: int = 4, seed: int = 1) -> Iterator[bytes]:
    """Agents of a few kinds, each with its long instructions and tools; their conversations grow turn by turn."""
    rng = random.Random(seed)
    instructions = [rng.randbytes(8192) for _ in range(kinds)]
    texts = [instructions[number % kinds] + rng.randbytes(600) for number in range(conversations)]
    for _ in range(turns):
        order = list(range(conversations))
        rng.shuffle(order)
        for number in order:
            yield texts[number]
            texts[number] += rng.randbytes(700)


def one_hot_prefix(*, requests: int = 400, size: int = 32 * 1024, seed: int = 1) -> Iterator[bytes]:
    """Everybody's question begins with the same long text."""
    rng = random.Random(seed)
    shared = rng.randbytes(size)
    for _ in range(requests):
        yield shared + rng.randbytes(300)


def shared_bytes(hashes: Sequence[int], sketch: Set[int]) -> int:
    """How much of a prompt, from its beginning, a sketch knows."""
    return BLOCK * known_blocks(hashes, sketch)


def _view(entry: str, nodes: dict[str, Replica]) -> MeshView:
    return view(
        entry,
        *(
            member(name, model(slots=SLOTS, busy=node.busy, prefixes=node.memory.sketch()), round_trip=0.001)
            for name, node in nodes.items()
        ),
    )


def _shared(one: bytes, other: bytes) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
