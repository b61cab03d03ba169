"""What each layer of a model weighs, as the names of a file's tensors tell."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_BLOCK = re.compile(r"(?:\w+\.)?blk\.(\d+)\.(\w+)")

_REMEMBERED = re.compile(r"attn_(k|qkv|kv)|ssm_|time_mix|shortconv|linear_attn")
"""Tensors of layers that keep something of what they have read: keys and values, or a state."""


@dataclass(frozen=True, slots=True)
class Layers:
    """Of one model, the output counted as the last layer. The input layer is always the CPU's, and not here."""

    weights: tuple[int, ...]
    """Bytes."""

    remembering: frozenset[int]
    """Those that take part of the cache."""

    def costs(self, cache: int) -> list[int]:
        """Bytes of each layer, with its part of a cache of so many."""
        sharing = self.remembering or range(len(self.weights) - 1)
        part = -(-cache // max(1, len(sharing)))
        return [size + (part if number in sharing else 0) for number, size in enumerate(self.weights)]


def layers_of(tensors: Mapping[str, int]) -> Layers:
    """Of a file with these tensors, bytes by name."""
    weights: dict[int, int] = {}
    remembering = set()
    for name, size in tensors.items():
        block = _BLOCK.match(name)
        if block is None:
            continue
        number = int(block[1])
        weights[number] = weights.get(number, 0) + size
        if _REMEMBERED.match(block[2]):
            remembering.add(number)
    count = max(weights, default=-1) + 1
    output = sum(size for name, size in tensors.items() if _BLOCK.match(name) is None and not _is_input(name))
    if "output.weight" not in tensors:
        # The input's matrix serves as output, too, and is held a second time for that.
        output += tensors.get("token_embd.weight", 0)
    return Layers((*(weights.get(number, 0) for number in range(count)), output), frozenset(remembering))


def _is_input(name: str) -> bool:
    return name.startswith(("token_embd", "token_types", "position_embd", "per_layer_token_embd"))
