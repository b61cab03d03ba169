"""The shape of a context: how much it holds and how it computes. What memory it takes follows from it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Of one context."""

    cells: int
    """Tokens that its memory holds, all sequences together."""

    sequences: int
    """Sequence ids."""

    batch: int
    """Tokens fed at once, at most."""

    micro_batch: int
    """Tokens computed together: a batch is cut into these. Compute buffers grow with it."""

    threads: int
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    flash_attention: str = "auto"

    pooled: bool = False
    """For embeddings: one vector for a sequence, instead of logits."""
