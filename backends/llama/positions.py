"""Which position a sequence's next token has, where pictures take fewer positions than tokens (M-RoPE). Pure.

A picture of 12 x 9 patches is 108 tokens; Qwen-VL counts it as 12 positions, since all of them share the first
and differ in row and column. Everything else in the engine counts tokens; the model's memory counts positions.

    text  text  [ picture: 6 tokens, 3 positions ]  text
     0     1      2  2  2  2  2  2                   5        positions
"""

from collections import defaultdict


class Positions:
    """Of all sequences of one context. Sequences without such pictures cost nothing."""

    def __init__(self) -> None:
        self._gaps: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        """By sequence: the length at which a picture ends, and the positions that it saves."""

    def at(self, sequence: int, length: int) -> int:
        """The position of what follows the first `length` tokens, which must not end inside a picture."""
        if not self._gaps:
            return length
        return length - sum(saved for end, saved in self._gaps.get(sequence, ()) if end <= length)

    def picture(self, sequence: int, end: int, saved: int) -> None:
        """A picture that ends at length `end` has become part of the sequence."""
        if saved:
            self._gaps[sequence].append((end, saved))

    def trim(self, sequence: int, length: int) -> None:
        """What follows the first `length` tokens is forgotten."""
        if sequence in self._gaps:
            self._keep(sequence, self._gaps[sequence], length)

    def copy(self, source: int, target: int, length: int) -> None:
        """`target` begins with the first `length` tokens of `source`."""
        if self._gaps:
            self._keep(target, self._gaps.get(source, []), length)

    def clear(self) -> None:
        """Everything is forgotten."""
        self._gaps.clear()

    def _keep(self, sequence: int, gaps: list[tuple[int, int]], length: int) -> None:
        kept = [gap for gap in gaps if gap[0] <= length]
        if kept:
            self._gaps[sequence] = kept
        else:
            self._gaps.pop(sequence, None)
