"""How large minnow is: the numbers that trainer, exporter and tests share.

The shape is the smallest tried that gets everything on the list right: fewer layers lose
the copying of long phrases, a wider one takes more than an hour on two cores.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The dimensions of a llama network."""

    vocabulary: int
    layers: int = 6
    width: int = 192
    heads: int = 6
    feed_forward: int = 512
    context: int = 2048
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """Numbers per attention head."""
        return self.width // self.heads
