"""Which prompts a model's node has cached, as a sketch small enough to be gossiped. Pure.

A prompt's text is cut into blocks of `BLOCK` bytes. The hash of a block covers everything before it, so
two prompts share their first n hashes exactly if they share their first n blocks.

    prompt = Prompt(text)                    of a request: computed where it enters the mesh, and where it runs
    memory.add(prompt)                       the node that runs it remembers its latest prompts
    known_blocks(prompt, memory.sketch())    how much of another request is cached there

A sketch holds, of each prompt, its end, and on the way there the rungs of a ladder that become rarer with the distance
(`RUNGS`). So a conversation that goes on finds its own past exactly, prompts that part somewhere are compared to a
quarter of their length, and a prompt of 64 KB takes 30 hashes and not 256.

The text is the request's own (`node.prompts`), so no tokenizer is needed. The sketch follows what an engine keeps,
and is no promise: a wrong guess costs a prompt read again, never a wrong answer. So a CRC of 32 bits will do as the
hash, and takes a third of the time of the least cryptographic one; every request of every entry node computes it.
"""

import zlib
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Sequence, Set
from typing import overload

BLOCK = 256
"""Bytes. Some 60 tokens: fine enough to tell one turn of a conversation from the next."""

MOST_BLOCKS = 1024
"""Of one prompt. What lies behind 256 KB of text is not compared."""

MOST_HASHES = 512
"""Of one sketch: 2 KB in a record."""

HASH_BYTES = 4

MANY = 3
"""Other prompts that part from a prompt at one place, for that place to be a popular beginning."""

_ALL_BITS = 0xFFFFFFFF

Marks = set[int] | frozenset[int]


def _rungs(most: int) -> Iterator[int]:
    place = 1
    while place <= most:
        yield place
        # Four between one power of two and the next.
        place += max(1, (1 << place.bit_length() - 1) // 4)


RUNGS = tuple(_rungs(MOST_BLOCKS))
"""Numbers of blocks at which a prompt's beginning is always noted: 1, 2, … 8, 10, … 16, 20, …"""


class Prompt(Sequence[int]):
    """The hashes of a prompt's blocks: each the CRC of everything to the end of its block.

    Those at the rungs are computed at once, the ones between two rungs when somebody asks for them: a choice among
    nodes needs few of those, and would else spend half of its time on hashing.
    """

    __slots__ = ("_between", "_count", "_text", "rungs")

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._count = min(len(text) // BLOCK, MOST_BLOCKS)
        self._between: dict[int, Sequence[int]] = {}
        checksum, start, rungs = 0, 0, []
        for rung in RUNGS[: bisect_right(RUNGS, self._count)]:
            end = rung * BLOCK
            checksum = zlib.crc32(text[start:end], checksum)
            rungs.append(checksum)
            start = end
        self.rungs: Sequence[int] = rungs
        """The hashes at the rungs that it reaches."""

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...
    def __getitem__(self, index: int | slice) -> int | tuple[int, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(self._count)[index])
        place = range(self._count)[index] + 1
        number = bisect_right(RUNGS, place) - 1
        beyond = place - RUNGS[number]
        return self.between(number)[beyond - 1] if beyond else self.rungs[number]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prompt) and self[:] == other[:]

    def __hash__(self) -> int:
        return hash(tuple(self.rungs))

    def between(self, number: int) -> Sequence[int]:
        """The hashes of the blocks after rung `number`, and before the next one or to the end."""
        known = self._between.get(number)
        if known is None:
            first, checksum = RUNGS[number], self.rungs[number]
            last = min(self._count, (RUNGS[number + 1] - 1) if number + 1 < len(RUNGS) else MOST_BLOCKS)
            known = []
            for start in range(first * BLOCK, last * BLOCK, BLOCK):
                checksum = zlib.crc32(self._text[start : start + BLOCK], checksum)
                known.append(checksum)
            self._between[number] = known
        return known

    def keep(self) -> None:
        """Computes all of them, and lets go of the text."""
        for number in range(len(self.rungs)):
            self.between(number)
        self._text = b""


NO_PROMPT = Prompt(b"")


def known_blocks(prompt: Prompt, sketch: Marks, at_least: int = 0) -> int:
    """How many blocks of a prompt, from its beginning, a sketch knows: exactly where one of its prompts ends, else
    down to the next rung. `at_least`: so many rungs it is known to know."""
    # Who knows a rung knows all below it, so the first unknown one can be searched by halves.
    rungs = prompt.rungs
    low, high = at_least, len(rungs)
    while low < high:
        middle = (low + high) // 2
        if rungs[middle] in sketch:
            low = middle + 1
        else:
            high = middle
    return blocks_from_rung(prompt, low, sketch)


def blocks_from_rung(prompt: Prompt, rungs: int, sketch: Marks) -> int:
    """The same, if it is known how many rungs the sketch knows."""
    if not rungs:
        return 0
    between = prompt.between(rungs - 1)
    ends = sketch.intersection(between)
    return RUNGS[rungs - 1] + (1 + max(map(between.index, ends)) if ends else 0)


def rungs_to(place: int) -> int:
    """How many rungs are not above a number of blocks."""
    return bisect_right(RUNGS, place)


def popular_mark(value: int) -> int:
    """What a sketch holds beside a block's hash if many prompts begin as far as that block, and then part: so this is
    no conversation's past."""
    return value ^ _ALL_BITS


class PromptMemory:
    """The latest prompts of one model on one node."""

    def __init__(self, prompts: int) -> None:
        """`prompts`: how many the engine keeps."""
        self._latest: deque[tuple[Prompt, Sequence[int]]] = deque(maxlen=max(prompts, 1))
        """Prompts, each with the last blocks of its popular beginnings."""
        self._sketch: frozenset[int] | None = frozenset()

    def add(self, prompt: Prompt) -> None:
        """A prompt was read, or read again."""
        if prompt:
            prompt.keep()
            parted = Counter(place for known, _ in self._latest if (place := _parting(prompt, known)))
            popular = [prompt[place - 1] for place, count in parted.items() if count >= MANY]
            self._latest.append((prompt, popular))
            self._sketch = None

    def sketch(self, most: int = MOST_BLOCKS * MOST_HASHES) -> frozenset[int]:
        """The latest prompts, the newest first; as many blocks of them as the engine can keep, `most`, and as many
        hashes as a sketch may have."""
        if self._sketch is None:
            known: set[int] = set()
            for prompt, popular in reversed(self._latest):
                kept = min(len(prompt), most + known_blocks(prompt, known))
                most -= kept - known_blocks(prompt, known)
                noted = [*prompt.rungs[: bisect_right(RUNGS, kept)], *(prompt[kept - 1 : kept] if kept else ())]
                known.update(_fitting(noted, known))
                if kept == len(prompt):
                    known.update(_fitting([value for one in popular for value in (one, popular_mark(one))], known))
            self._sketch = frozenset(known)
        return self._sketch


def _parting(one: Sequence[int], other: Sequence[int]) -> int:
    """How many blocks two prompts share before they part; 0 if one of them only goes on where the other ends."""
    shorter = min(len(one), len(other))
    place = bisect_left(range(shorter), True, key=lambda i: one[i] != other[i])
    return 0 if place == shorter and len(one) != len(other) else place


def _fitting(hashes: Sequence[int], known: Set[int]) -> Sequence[int]:
    """As many of `hashes` as `known` may still grow by; from their beginning, for a block is of no use without it."""
    room = MOST_HASHES - len(known)
    for index, value in enumerate(hashes):
        if value not in known:
            if not room:
                return hashes[:index]
            room -= 1
    return hashes
