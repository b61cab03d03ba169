"""Which prompts a model's node has cached, as a sketch small enough to be gossiped. Pure.

A prompt's text is cut into blocks of `BLOCK` bytes. The hash of a block covers everything before it, so
two prompts share their first n hashes exactly if they share their first n blocks.

    hashes = block_hashes(text)              of a request: computed where it enters the mesh, and where it runs
    memory.add(hashes)                       the node that runs it remembers its latest prompts
    shared_bytes(hashes, memory.sketch)      how much of another request is cached there

The text is the request's own (`node.prompts`), so no tokenizer is needed. The sketch follows what an engine keeps,
and is no promise: a wrong guess costs a prompt read again, never a wrong answer. 32 bits per hash are enough for that.
"""

import hashlib
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence, Set

BLOCK = 256
"""Bytes. Some 60 tokens: fine enough to tell one turn of a conversation from the next."""

MOST_BLOCKS = 512
"""Of one prompt and of one sketch: 2 KB in a record. What lies behind 128 KB of text is not compared."""

HASH_BYTES = 4


def block_hashes(text: bytes) -> tuple[int, ...]:
    """A hash for every whole block of `text`."""
    blake2b, digest, hashes = hashlib.blake2b, b"", []
    for start in range(0, min(len(text) - BLOCK + 1, BLOCK * MOST_BLOCKS), BLOCK):
        digest = blake2b(digest + text[start : start + BLOCK], digest_size=HASH_BYTES).digest()
        hashes.append(int.from_bytes(digest, "big"))
    return tuple(hashes)


def shared_bytes(hashes: Sequence[int], sketch: Set[int]) -> int:
    """How much of a prompt, from its beginning, a sketch knows."""
    if not hashes or hashes[0] not in sketch:
        return 0
    # Who knows a block knows all before it, so the first unknown one can be searched by halves.
    return BLOCK * bisect_left(range(len(hashes)), True, key=lambda i: hashes[i] not in sketch)


class PromptMemory:
    """The latest prompts of one model on one node."""

    def __init__(self, prompts: int) -> None:
        """`prompts`: how many the engine keeps."""
        self._latest: deque[Sequence[int]] = deque(maxlen=max(prompts, 1))
        self._sketch: frozenset[int] | None = frozenset()

    def add(self, hashes: Sequence[int]) -> None:
        """A prompt was read, or read again."""
        if hashes:
            self._latest.append(hashes)
            self._sketch = None

    def sketch(self, most: int = MOST_BLOCKS) -> frozenset[int]:
        """The hashes of the latest prompts, the newest whole and first, at most `most`."""
        if self._sketch is None:
            known: set[int] = set()
            for hashes in reversed(self._latest):
                known.update(_fitting(hashes, known, most))
            self._sketch = frozenset(known)
        return self._sketch


def _fitting(hashes: Sequence[int], known: Set[int], most: int) -> Sequence[int]:
    """As many of `hashes` as `known` may still grow by; from their beginning, for a block is of no use without it."""
    room = most - len(known)
    for index, value in enumerate(hashes):
        if value not in known:
            if not room:
                return hashes[:index]
            room -= 1
    return hashes
