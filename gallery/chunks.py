"""How a file is cut into chunks, which are what nodes fetch from each other and verify one by one. Pure.

Everybody cuts a file of one size alike, so a chunk is known by its number. A **stripe** is a row of chunks that one
node fetches from the origin in one request: chunks are small, so that they soon travel on; requests to the internet
should not be.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from gallery.download_plan import MIB, Range

LEAST = MIB // 4
USUAL_MOST = 4 * MIB
"""A worker holds some whole chunks in memory, so they stay small while files are smaller than 256 GiB."""
MOST = 16 * MIB
USUAL_COUNT = 512
MAX_CHUNKS = 64 * 1024
"""So files of up to 1 TiB travel."""
STRIPES = 64
MOST_STRIPE = 32 * MIB
HASH_BYTES = 32


@dataclass(frozen=True, slots=True)
class Chunks:
    """The chunks of a file of `size` bytes, numbered from 0."""

    size: int
    each: int = field(init=False)
    """Bytes of every chunk but the last."""
    count: int = field(init=False)
    per_stripe: int = field(init=False)
    stripes: int = field(init=False)

    def __post_init__(self) -> None:
        wanted = max(1, -(-self.size // USUAL_COUNT))
        each = min(USUAL_MOST, max(LEAST, 1 << (wanted - 1).bit_length()))
        while each < MOST and self.size > each * MAX_CHUNKS:
            each *= 2
        count = -(-self.size // each)
        per_stripe = max(1, min(count // STRIPES, MOST_STRIPE // each))
        for name, value in (("each", each), ("count", count), ("per_stripe", per_stripe)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "stripes", -(-count // per_stripe))

    @property
    def can_travel(self) -> bool:
        return self.size > 0 and self.count <= MAX_CHUNKS

    def span(self, chunk: int) -> Range:
        """Its bytes."""
        return Range(chunk * self.each, min(self.size, (chunk + 1) * self.each))

    def of_stripe(self, stripe: int) -> range:
        return range(stripe * self.per_stripe, min(self.count, (stripe + 1) * self.per_stripe))

    def within(self, ranges: Iterable[Range]) -> Iterator[int]:
        """The chunks that lie whole in one of `ranges`."""
        for part in ranges:
            last = self.count if part.end >= self.size else part.end // self.each
            yield from range(-(-part.start // self.each), last)
