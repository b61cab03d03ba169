"""Which of a repository's files make up a model, and which of its quantizations suits a machine. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gallery.errors import InstallError

GIB = 1024**3

QUANTIZATION = re.compile(
    r"(?<![A-Za-z0-9])(UD-)?(I?Q\d(?:_[0-9A-Z]+)*|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|BF16|F16|F32)(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_SPLIT = re.compile(r"-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf\Z", re.IGNORECASE)

PREFERRED = ("Q4_K_M", "MXFP4", "Q4_K_S", "Q5_K_M", "Q4_0", "Q8_0", "Q6_K", "IQ4_XS", "F16", "BF16")
"""Where nothing is known of sizes and memory."""

NEVER_UNASKED = ("F32", "F16", "BF16")
"""They answer as Q8_0 does and take twice to four times its memory: only if nothing else is there."""

OVERHEAD = 1.1
"""Memory of loaded weights in sizes of their files: compute buffers come on top."""

CACHE_SHARE = 0.1
"""Of the weights, what the cache of a context of `CACHE_CONTEXT` tokens takes, where nothing better is known."""
CACHE_CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class RepositoryFile:
    """A file in a repository."""

    path: str
    size: int | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Variant:
    """One quantization of a model: its files, in order."""

    quantization: str
    files: tuple[RepositoryFile, ...]

    @property
    def size(self) -> int:
        """Bytes; 0 where the repository does not say."""
        return sum(file.size or 0 for file in self.files)


@dataclass(frozen=True, slots=True)
class Choice:
    """A variant, and why it is that one."""

    variant: Variant
    why: str


def quantization_of(path: str) -> str:
    """As its file's name says it, in capitals; "" if it does not."""
    found = list(QUANTIZATION.finditer(path.rsplit("/", 1)[-1])) or list(QUANTIZATION.finditer(path))
    return found[-1].group(0).upper() if found else ""


def variants(files: Iterable[RepositoryFile]) -> list[Variant]:
    """The GGUF models among a repository's files, the smallest first. A model with a part missing is none."""
    groups: dict[str, list[RepositoryFile]] = {}
    for file in files:
        name = file.path.rsplit("/", 1)[-1].lower()
        if not name.endswith(".gguf") or "mmproj" in name or "imatrix" in name:
            continue
        groups.setdefault(_SPLIT.sub(".gguf", file.path), []).append(file)
    found = []
    for path, parts in groups.items():
        ordered = sorted(parts, key=lambda part: part.path)
        split = _SPLIT.search(ordered[0].path)
        if split is None or len(ordered) == int(split["count"]):
            found.append(Variant(quantization_of(path), tuple(ordered)))
    return sorted(found, key=lambda v: (v.size, v.files[0].path))


def projector(files: Iterable[RepositoryFile]) -> RepositoryFile | None:
    """The eyes or ears that a repository has for its models: the one of usual precision."""
    found = [f for f in files if (name := f.path.rsplit("/", 1)[-1].lower()).endswith(".gguf") and "mmproj" in name]
    usual = ("F16", "BF16", "Q8_0", "F32")

    def rank(file: RepositoryFile) -> tuple[int, str]:
        precision = quantization_of(file.path)
        return usual.index(precision) if precision in usual else len(usual), file.path

    return min(found, key=rank, default=None)


def memory_needed(size: int, context: int, per_token: int = 0) -> int:
    """Bytes of memory that weights of `size` bytes take with a context of so many tokens, about.

    `per_token` are the bytes that a token takes in the cache; 0: unknown.
    """
    cache = context * per_token if per_token else size * CACHE_SHARE * context / CACHE_CONTEXT
    return int(size * OVERHEAD + cache)


def choose(
    found: Sequence[Variant],
    *,
    wanted: str = "",
    free: int = 0,
    context: int = CACHE_CONTEXT,
    per_token: int = 0,
    what: str,
) -> Choice:
    """The variant that is wanted, or else the largest that fits into `free` bytes of memory.

    `context` is in tokens, `per_token` in bytes of cache that each takes (0: unknown).

    Raises:
        InstallError: there is none, or not that one; the message lists those there are.
    """
    if not found:
        raise InstallError(f"{what} has no GGUF file", code="no_variant")
    if wanted:
        return Choice(_wanted(found, wanted, what), f"{wanted} was asked for")
    usual = [v for v in found if v.quantization not in NEVER_UNASKED] or list(found)
    if not free or not all(v.size for v in usual):
        best = min(usual, key=_rank)
        return Choice(best, f"{best.quantization or 'the only file'}: usual where sizes are unknown")
    fitting = [v for v in usual if memory_needed(v.size, context, per_token) <= free]
    if not fitting:
        best = usual[0]
        need = memory_needed(best.size, context, per_token) / GIB
        return Choice(
            best,
            f"the smallest, {best.quantization or best.files[0].path}: even that takes about {need:.1f} GiB"
            f" with {context} tokens of context, and {free / GIB:.1f} GiB are free",
        )
    best = fitting[-1]
    need = memory_needed(best.size, context, per_token) / GIB
    larger = usual[usual.index(best) + 1 :]
    but = (
        f"; {larger[0].quantization or larger[0].files[0].path} would take"
        f" {memory_needed(larger[0].size, context, per_token) / GIB:.1f} GiB"
        if larger
        else "; it is the largest there is"
    )
    return Choice(
        best,
        f"{best.quantization or best.files[0].path}: the largest that fits, about {need:.1f} GiB with {context} tokens"
        f" of context into {free / GIB:.1f} GiB free{but}",
    )


def _wanted(found: Sequence[Variant], wanted: str, what: str) -> Variant:
    if wanted.lower().endswith(".gguf"):
        same = [v for v in found if any(f.path == wanted or f.path.endswith("/" + wanted) for f in v.files)]
    else:
        same = [v for v in found if v.quantization == wanted.upper()]
        same = same or [v for v in found if v.quantization.removeprefix("UD-") == wanted.upper()]
    if not same:
        there = ", ".join(dict.fromkeys(v.quantization or v.files[0].path for v in found))
        raise InstallError(f"{what} has no {wanted}; there are: {there}", code="no_variant")
    return same[0]


def _rank(variant: Variant) -> int:
    return PREFERRED.index(variant.quantization) if variant.quantization in PREFERRED else len(PREFERRED)


USUAL_BITS = 4.85
"""Per weight of Q4_K_M: its blocks of 4 bits, their scales, and the tensors that are kept finer."""

_PARAMETERS = re.compile(r"(\d+(?:\.\d+)?)([MBT])")


HALF_BITS = 16.0
"""Per weight of the models of other engines, which come in half precision."""


def estimated_bytes(parameters: str, engine: str = "llama") -> int:
    """The size of a model of "4B" or "30B-A3B" parameters as it usually comes, about; 0 where it is not said."""
    found = _PARAMETERS.match(parameters)
    if found is None:
        return 0
    bits = USUAL_BITS if engine == "llama" else HALF_BITS
    return int(float(found[1]) * {"M": 1e6, "B": 1e9, "T": 1e12}[found[2]] * bits / 8)
