"""How much memory a context takes, before it is made.

llama.cpp plans a context of a model without weights (`no_alloc`), as its own server does to fit models into GPUs,
and tells the sizes in its log. So the figures are right for every architecture and every kind of cache.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from backends.errors import UnsupportedError
from backends.llama import logs
from backends.llama.model import Context, Model
from backends.llama.offload import ON_CPU, Offload
from backends.llama.projector import Projector
from backends.llama.settings import size_text
from backends.llama.shape import Shape

MIB = 2**20

_SIZE = re.compile(r"(\bsize|compute buffer size|output buffer size) = +([\d.]+) MiB( \()?")
_COMPUTE = re.compile(r"(\S+) compute buffer size = +([\d.]+) MiB")


ACCOUNT_BYTES = 300
"""Of each token in memory: about 100 in llama.cpp's list of cells, the rest in our own account of them (measured
while 131,000 tokens were read). Beside a small model's quantized cache that is much."""


_ALWAYS_TOLD = ("of weights", "of cache", "to compute in", "for the process")


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that a context takes beside the weights."""

    cache: int
    """Keys and values, or recurrent states."""

    compute: int
    """Buffers for what is being computed."""

    account: int = 0
    """What is kept about each token beside that."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.cache + self.compute + self.account

    def __add__(self, other: "Footprint") -> "Footprint":
        return Footprint(self.cache + other.cache, self.compute + other.compute, self.account + other.account)


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes that a process with a loaded model takes, all of it at work."""

    weights: int
    context: Footprint
    process: int
    """Python, libraries and vocabulary."""

    adapters: int = 0
    projector: int = 0
    """Weights, and what it computes in."""

    embeddings: int = 0
    """The context that texts are embedded in, where the model was made for that."""

    @property
    def beside(self) -> int:
        """What is needed beside the model and its context."""
        return self.adapters + self.projector + self.embeddings

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.context.total + self.process + self.beside

    def __str__(self) -> str:
        parts = (
            f"{size_text(size)} {name}"
            for size, name in (
                (self.weights, "of weights"),
                (self.context.cache, "of cache"),
                (self.context.compute, "to compute in"),
                (self.adapters, "of adapters"),
                (self.projector, "for pictures and sounds"),
                (self.embeddings, "to embed in"),
                (self.process + self.context.account, "for the process"),
            )
            if size or name in _ALWAYS_TOLD
        )
        return f"takes {size_text(self.total)} of memory: {', '.join(parts)}"


def footprint_in(lines: Iterable[str]) -> Footprint:
    """What llama.cpp's log says about a context."""
    cache = compute = 0.0
    for line in lines:
        found = _SIZE.search(line)
        if found is None:
            continue
        if found[1] != "size":
            compute += float(found[2])
        elif found[3]:  # "size = 306.00 MiB (131072 cells, ...": a cache as a whole
            cache += float(found[2])
    return Footprint(int(cache * MIB), int(compute * MIB))


def compute_by_buffer(lines: Iterable[str]) -> dict[str, int]:
    """What a context computes in, by the name of the device's memory."""
    found = (_COMPUTE.search(line) for line in lines)
    return {match[1]: int(float(match[2]) * MIB) for match in found if match}


class Estimator:
    """Tells what contexts of a model would take."""

    def __init__(self, path: str, offload: Offload = ON_CPU) -> None:
        self.model = Model(path, repack=False, on_progress=lambda fraction: True, offload=offload, empty=True)

    def close(self) -> None:
        """Free it."""
        self.model.close()

    def footprint(self, shape: Shape) -> Footprint:
        """Of a context of this shape.

        Raises:
            UnsupportedError: llama.cpp cannot make one.
        """
        return replace(footprint_in(self._log(shape)), account=ACCOUNT_BYTES * shape.cells)

    def projector(self, path: str) -> int:
        """Bytes that a projector of this model takes with all that it computes in. Reads it for that, and lets it go.

        Raises:
            ModelFileError: it cannot be used, or not with this model.
        """
        with logs.collected() as lines:
            projector = Projector(path, self.model, threads=1)
        projector.close()
        return projector.file_bytes + footprint_in(lines).compute

    def compute_by_buffer(self, shape: Shape) -> dict[str, int]:
        """What it computes in, by the name of the device's memory.

        Raises:
            UnsupportedError: llama.cpp cannot make one.
        """
        return compute_by_buffer(self._log(shape))

    def _log(self, shape: Shape) -> list[str]:
        with logs.collected() as lines:
            context = Context(self.model, shape, on_refusal=UnsupportedError)
        context.close()
        return lines
