"""The echo engine's embeddings: texts that share words get vectors that are close."""

import hashlib
import math
from collections.abc import Iterable


def embed_words(words: Iterable[str], dimensions: int) -> list[float]:
    """The sum of one fixed vector for each word, at length 1."""
    total = [0.0] * dimensions
    for word in words:
        for i, value in enumerate(_vector(word.strip().lower(), dimensions)):
            total[i] += value
    return normalised(total)


def normalised(values: list[float]) -> list[float]:
    """`values` at length 1. A vector of zeros gets a direction, so that it has a length too."""
    length = math.sqrt(sum(value * value for value in values))
    if not length:
        return [1.0, *values[1:]]
    return [value / length for value in values]


def _vector(word: str, dimensions: int) -> Iterable[float]:
    raw = hashlib.shake_128(word.encode(errors="replace")).digest(dimensions)
    return (byte / 127.5 - 1 for byte in raw)
