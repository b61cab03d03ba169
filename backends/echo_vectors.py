"""The echo engine's embeddings and scores: texts that share words are close."""

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


def overlap(words: Iterable[str], others: Iterable[str]) -> float:
    """The share of the first words that are among the others, 0 to 1."""
    wanted = {word.strip().lower() for word in words}
    return len(wanted & {word.strip().lower() for word in others}) / len(wanted) if wanted else 0.0


def normalised(values: list[float]) -> list[float]:
    """`values` at length 1. A vector of zeros gets a direction, so that it has a length too."""
    length = math.sqrt(sum(value * value for value in values))
    if not length:
        return [1.0, *values[1:]]
    return [value / length for value in values]


def _vector(word: str, dimensions: int) -> Iterable[float]:
    raw = hashlib.shake_128(word.encode(errors="replace")).digest(dimensions)
    return (byte / 127.5 - 1 for byte in raw)
