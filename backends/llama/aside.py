"""Prompts put aside: ended sequences that left the context for ordinary memory, until somebody goes on from them.

Which there are, and which goes when they get too many; their bytes are with whoever carries out the orders. Pure code.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count


@dataclass(frozen=True, slots=True)
class Kept:
    """One sequence put aside."""

    key: int
    tokens: list[int]
    lost: int
    """Tokens at its beginning that sliding-window layers had dropped."""


class Aside:
    """Up to `most` tokens of sequences of `least` or more, the longest unused forgotten first."""

    def __init__(self, most: int, least: int) -> None:
        self._most = most
        self._least = least
        self._kept: OrderedDict[int, Kept] = OrderedDict()
        self._keys = count()

    def __iter__(self) -> Iterator[Kept]:
        return iter(self._kept.values())

    def takes(self, tokens: list[int]) -> bool:
        """Whether it is a sequence to put aside: of text only, neither too long nor too short."""
        return self._least <= len(tokens) <= self._most and min(tokens) >= 0

    def has(self, tokens: list[int]) -> bool:
        """One that begins with `tokens` is here."""
        return any(kept.tokens[: len(tokens)] == tokens for kept in self)

    def put(self, tokens: list[int], lost: int) -> tuple[int, list[int]]:
        """Take one in. Its key, and the keys of those that go: it begins like they are, or they are too many."""
        gone = [kept.key for kept in self if tokens[: len(kept.tokens)] == kept.tokens]
        for key in gone:
            del self._kept[key]
        kept = Kept(next(self._keys), list(tokens), lost)
        self._kept[kept.key] = kept
        held = sum(len(kept.tokens) for kept in self)
        while held > self._most:
            key, oldest = self._kept.popitem(last=False)
            held -= len(oldest.tokens)
            gone.append(key)
        return kept.key, gone

    def best(self, usable: Callable[[list[int], int], int]) -> tuple[Kept | None, int]:
        """The one of which most is `usable(tokens, lost)`, and how much that is. It counts as used now."""
        length, key = max(((usable(kept.tokens, kept.lost), kept.key) for kept in self), default=(0, -1))
        if not length:
            return None, 0
        self._kept.move_to_end(key)
        return self._kept[key], length

    def drop(self, kept: Kept) -> None:
        """It is not needed any more."""
        del self._kept[kept.key]

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
