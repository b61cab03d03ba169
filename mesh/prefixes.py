"""Which prompts a model's node has cached, as a sketch small enough to be gossiped. Pure.

A prompt's text is cut into blocks of `BLOCK` bytes. The hash of a block covers everything before it, so
two prompts share their first n hashes exactly if they share their first n blocks.

    hashes = block_hashes(text)              of a request: computed where it enters the mesh, and where it runs
    memory.add(hashes)                       the node that runs it remembers its latest prompts
    known_blocks(hashes, memory.sketch())    how much of another request is cached there

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


def _rungs(most: int) -> Iterator[int]:
    place = 1
    while place <= most:
        yield place
        # Four between one power of two and the next.
        place += max(1, (1 << place.bit_length() - 1) // 4)


RUNGS = tuple(_rungs(MOST_BLOCKS))
"""Numbers of blocks at which a prompt's beginning is always noted: 1, 2, … 8, 10, … 16, 20, …"""


def block_hashes(text: bytes) -> tuple[int, ...]:
    """A hash for every whole block of `text`: the CRC of everything to its end."""
    checksum, crc32, hashes = 0, zlib.crc32, []
    for start in range(0, min(len(text) - BLOCK + 1, BLOCK * MOST_BLOCKS), BLOCK):
        checksum = crc32(text[start : start + BLOCK], checksum)
        hashes.append(checksum)
    return tuple(hashes)


def known_blocks(hashes: Sequence[int], sketch: Set[int]) -> int:
    """How many blocks of a prompt, from its beginning, a sketch knows: exactly where one of its prompts ends, else
    down to the next rung."""
    # Who knows a rung knows all below it, so the first unknown one can be searched by halves.
    low, high = 0, bisect_right(RUNGS, len(hashes))
    while low < high:
        middle = (low + high) // 2
        if hashes[RUNGS[middle] - 1] in sketch:
            low = middle + 1
        else:
            high = middle
    if not low:
        return 0
    rung = RUNGS[low - 1]
    between = hashes[rung : next_rung(rung) - 1]
    if sketch.isdisjoint(between):
        return rung
    return rung + next(number for number in range(len(between), 0, -1) if between[number - 1] in sketch)


def next_rung(place: int) -> int:
    """The first rung above a number of blocks."""
    index = bisect_right(RUNGS, place)
    return RUNGS[index] if index < len(RUNGS) else MOST_BLOCKS + 1


def rung_at(place: int) -> int:
    """The last rung that is not above a number of blocks; 0: there is none."""
    index = bisect_right(RUNGS, place)
    return RUNGS[index - 1] if index else 0


def popular_mark(value: int) -> int:
    """What a sketch holds beside a block's hash if many prompts begin as far as that block, and then part: so this is
    no conversation's past."""
    return value ^ _ALL_BITS


class PromptMemory:
    """The latest prompts of one model on one node."""

    def __init__(self, prompts: int) -> None:
        """`prompts`: how many the engine keeps."""
        self._latest: deque[tuple[Sequence[int], Sequence[int]]] = deque(maxlen=max(prompts, 1))
        """Prompts, each with the last blocks of its popular beginnings."""
        self._sketch: frozenset[int] | None = frozenset()

    def add(self, hashes: Sequence[int]) -> None:
        """A prompt was read, or read again."""
        if hashes:
            parted = Counter(place for known, _ in self._latest if (place := _parting(hashes, known)))
            popular = [hashes[place - 1] for place, count in parted.items() if count >= MANY]
            self._latest.append((hashes, popular))
            self._sketch = None

    def sketch(self, most: int = MOST_BLOCKS * MOST_HASHES) -> frozenset[int]:
        """The latest prompts, the newest first; as many blocks of them as the engine can keep, `most`, and as many
        hashes as a sketch may have."""
        if self._sketch is None:
            known: set[int] = set()
            for hashes, popular in reversed(self._latest):
                kept = min(len(hashes), most + known_blocks(hashes, known))
                most -= kept - known_blocks(hashes, known)
                noted = [hashes[rung - 1] for rung in RUNGS[: bisect_right(RUNGS, kept)]]
                noted += hashes[kept - 1 : kept] if kept else ()
                known.update(_fitting(noted, known))
                if kept == len(hashes):
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
