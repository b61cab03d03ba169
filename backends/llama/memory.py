"""What a context's memory holds, as the orders to it will leave it: tokens by sequence id, and their cells. Pure code.

A sequence that ended stays where it is while nobody needs its place, so that what begins alike starts from a copy.
But attention passes over every cell in use, idle ones too: while others run, idle sequences are put aside into
ordinary memory, and brought back when somebody goes on from them.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

from backends.llama.aside import Aside, Kept
from backends.llama.limits import Limits
from backends.llama.media_tokens import border

MOVED = 1024
"""Tokens put aside before one step; the others follow before the next. Some milliseconds' copying."""


@dataclass(frozen=True, slots=True)
class Trim:
    """Forget everything of `sequence` from position `length` on."""

    sequence: int
    length: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Let `target` begin with the first `length` tokens of `source`."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class Save:
    """Keep a copy of all of `sequence` outside, as `key`."""

    sequence: int
    key: int


@dataclass(frozen=True, slots=True)
class Load:
    """Fill `sequence`, which is empty, with what was saved as `key`. The copy stays."""

    sequence: int
    key: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Forget what was saved as `key`."""

    key: int


Order = Trim | Copy | Save | Load | Drop


@dataclass(slots=True)
class Row:
    """What memory holds under one sequence id: tokens, and the cells they are in."""

    tokens: list[int] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    lost: int = 0
    """Tokens at the beginning that sliding-window layers have dropped."""
    adapters: tuple[float, ...] = ()
    """What they were computed with: nothing computed with others goes on from them."""


class Memory:
    """One context's. Every change is an order, to be carried out before the next tokens are fed."""

    def __init__(self, limits: Limits) -> None:
        self.rows = [Row() for _ in range(limits.sequences)]
        self._limits = limits
        self._aside = Aside(limits.aside, limits.aside_least)
        self._idle: OrderedDict[int, None] = OrderedDict.fromkeys(range(limits.sequences))
        """Ids nobody runs in, the longest unused first."""
        self._references: Counter[int] = Counter()
        """By cell: in how many sequences it is. A copy costs no memory."""
        self._next_cell = 0
        self._orders: list[Order] = []
        self._is_tidy = True

    def take_orders(self) -> list[Order]:
        """Orders that must be carried out before anything is fed."""
        orders, self._orders = self._orders, []
        return orders

    @property
    def held(self) -> list[int]:
        """Sequence ids that hold tokens."""
        return [number for number, row in enumerate(self.rows) if row.tokens]

    # ------------------------------------------------------------ sequences

    def begin(
        self, tokens: SequenceOf[int], known: Iterable[int] | None = None, adapters: tuple[float, ...] = ()
    ) -> tuple[int, int]:
        """An id for a sequence, and how many of its `tokens` it begins with: those that it shares with one in memory
        (one of `known`, if told) or put aside. Its last token is always fed again: its logits are wanted.

        Only what was computed with the same `adapters` counts; what is put aside was computed with none chosen."""
        among = range(len(self.rows)) if known is None else known
        target, length = self._begin(tokens, [n for n in among if self.rows[n].adapters == adapters], known, adapters)
        self.rows[target].adapters = adapters
        return target, length

    def _begin(
        self,
        tokens: SequenceOf[int],
        among: list[int],
        known: Iterable[int] | None,
        adapters: tuple[float, ...],
    ) -> tuple[int, int]:
        self._is_tidy = False
        length, source = self._best_row(tokens, among)
        if known is None and not adapters:
            kept, more = self._aside.best(lambda held, lost: self._shared(held, lost, tokens))
            if kept is not None and more > length:
                if (target := self._bring_back(kept, more)) >= 0:
                    return target, more
                length, source = self._best_row(tokens, among)  # Room was sought, perhaps there.
        target = self._free_id(source)
        if target == source:
            del self._idle[target]
            self.trim(target, length)
            return target, length
        self._take(target)
        if length:
            self._copy(source, target, length)
        return target, length

    def end(self, number: int) -> None:
        """Nobody runs in it any more. Its tokens stay while nobody needs the place."""
        self._idle[number] = None
        self._is_tidy = False

    def fed(self, number: int, tokens: list[int]) -> None:
        """Tokens follow in a sequence."""
        row = self.rows[number]
        row.tokens += tokens
        row.cells += self._new_cells(len(tokens))

    def trim(self, number: int, length: int) -> None:
        """Forget what follows the first `length` tokens."""
        row = self.rows[number]
        if len(row.tokens) <= length:
            return
        for cell in row.cells[length:]:
            self._references[cell] -= 1
            if not self._references[cell]:
                del self._references[cell]
        del row.tokens[length:], row.cells[length:]
        row.lost = min(row.lost, length)
        self._orders.append(Trim(number, length))

    def forget_all(self) -> None:
        """Nothing that was computed so far is used again."""
        self._aside.clear()
        for number in range(len(self.rows)):
            self.trim(number, 0)

    # ------------------------------------------------------------ room

    def has_room(self, needed: int) -> bool:
        """So many tokens more would fit as it is."""
        return len(self._references) + needed <= self._limits.cells

    def make_room(self, needed: int) -> bool:
        """Room for so many tokens more, idle sequences making way. False: there is not enough."""
        for number in list(self._idle):
            if self.has_room(needed):
                return True
            self._give_up(number)
        return self.has_room(needed)

    def give_up_idle(self) -> bool:
        """Let every idle sequence make way; False: there was none."""
        kept = [number for number in self._idle if self.rows[number].tokens]
        for number in kept:
            self._give_up(number)
        return bool(kept)

    def tidy(self) -> None:
        """Others run: put idle sequences aside, the longest unused first, until few cells are theirs alone."""
        moved = 0
        for number in () if self._is_tidy else list(self._idle):
            tokens = self.rows[number].tokens
            if self._goes_aside(number):
                if moved >= MOVED:
                    return
                if self._idle_cells() <= self._limits.idle_cells:
                    break
                moved += len(tokens)
                self._give_up(number)
        self._is_tidy = True

    # ------------------------------------------------------------ within

    def _idle_cells(self) -> int:
        idle = Counter(cell for number in self._idle for cell in self.rows[number].cells)
        return sum(count == self._references[cell] for cell, count in idle.items())

    def _give_up(self, number: int) -> None:
        """Empty an idle sequence; what is worth it is put aside."""
        row = self.rows[number]
        if self._goes_aside(number) and not self._is_elsewhere(number):
            key, gone = self._aside.put(row.tokens, row.lost)
            self._orders += [*map(Drop, gone), Save(number, key)]
        self.trim(number, 0)

    def _goes_aside(self, number: int) -> bool:
        return self._aside.takes(self.rows[number].tokens) and not self.rows[number].adapters

    def _is_elsewhere(self, number: int) -> bool:
        tokens = self.rows[number].tokens
        others = (row for other, row in enumerate(self.rows) if other != number)
        return self._aside.has(tokens) or any(row.tokens[: len(tokens)] == tokens for row in others)

    def _bring_back(self, kept: Kept, length: int) -> int:
        """The id that begins with what was put aside; -1: there is no room for it."""
        target = self._free_id(-1)
        self._take(target)
        if not self.make_room(len(kept.tokens)) or kept not in self._aside:
            self._idle[target] = None
            self._idle.move_to_end(target, last=False)
            return -1
        row = self.rows[target]
        row.tokens, row.cells, row.lost = list(kept.tokens), list(self._new_cells(len(kept.tokens))), kept.lost
        self._orders.append(Load(target, kept.key))
        if length == len(kept.tokens):
            self._aside.drop(kept)
            self._orders.append(Drop(kept.key))
        self.trim(target, length)
        return target

    def _take(self, number: int) -> None:
        """An idle id is to be used by somebody else."""
        self._give_up(number)
        del self._idle[number]

    def _free_id(self, source: int) -> int:
        empty = [number for number in self._idle if not self.rows[number].tokens]
        others = [number for number in self._idle if number != source]
        return (empty or others or [source])[0]

    def _best_row(self, tokens: SequenceOf[int], among: Iterable[int]) -> tuple[int, int]:
        """How much of `tokens` one of these ids holds, and which."""
        return max(((self._usable(number, tokens), number) for number in among), default=(0, -1))

    def _usable(self, number: int, tokens: SequenceOf[int]) -> int:
        row = self.rows[number]
        return self._shared(row.tokens, row.lost, tokens)

    def _shared(self, held: list[int], lost: int, wanted: SequenceOf[int]) -> int:
        """How many of the tokens held `wanted` can begin with."""
        length = border(wanted, shared(held, wanted))
        if lost and length < lost + self._limits.window:
            return 0  # What follows would look back at tokens that are gone.
        return length if self._limits.cuts or length == len(held) else 0

    def _copy(self, source: int, target: int, length: int) -> None:
        origin, row = self.rows[source], self.rows[target]
        row.tokens, row.cells, row.lost = origin.tokens[:length], origin.cells[:length], origin.lost
        self._references.update(row.cells)
        self._orders.append(Copy(source, target, length))

    def _new_cells(self, count: int) -> range:
        new = range(self._next_cell, self._next_cell + count)
        self._next_cell = new.stop
        self._references.update(new)
        return new


def shared(held: SequenceOf[int], wanted: SequenceOf[int]) -> int:
    """How many tokens of `wanted`, its last one not counted, `held` begins with."""
    longest = min(len(held), len(wanted) - 1)
    if held[:longest] == wanted[:longest]:
        return longest
    low, high = 0, longest
    while low < high:  # Comparing slices by halves: a list comparison runs in C.
        middle = (low + high + 1) // 2
        if held[low:middle] == wanted[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
