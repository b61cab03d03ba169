"""How pictures and sounds stand in a list of tokens: a negative number for each place that they take.

The number is made of the content's hash and the offset within it, so that lists of tokens say by themselves what
two prompts share: the same picture is the same numbers wherever it stands, another one has none of them, and no
text has any. A list may be cut before or after a picture, never inside.
"""

import hashlib
from collections.abc import Sequence

_OFFSET_BITS = 24


def media_tokens(content: str, size: int) -> list[int]:
    """The `size` places of the content that `content` names (a hash, and which part of it)."""
    if not 0 < size < 1 << _OFFSET_BITS:
        raise ValueError(f"content of {size} tokens")
    first = int.from_bytes(hashlib.sha256(content.encode()).digest(), "big") << _OFFSET_BITS
    return [-1 - first - offset for offset in range(size)]


def is_media(token: int) -> bool:
    """It stands for a part of a picture or sound."""
    return token < 0


def offset_of(token: int) -> int:
    """Where in its picture or sound a place is; 0 for text."""
    return (-1 - token) & ((1 << _OFFSET_BITS) - 1) if token < 0 else 0


def border(tokens: Sequence[int], length: int) -> int:
    """The longest beginning of `tokens`, at most `length` of them, that ends inside no picture."""
    return length - offset_of(tokens[length]) if length < len(tokens) else length


def run_of_text(tokens: Sequence[int]) -> int:
    """How many of `tokens` come before the first place of a picture."""
    if not tokens or min(tokens) >= 0:
        return len(tokens)
    return next(index for index, token in enumerate(tokens) if token < 0)


def text_only(tokens: Sequence[int]) -> list[int]:
    """`tokens` without pictures and sounds, for whoever looks at words."""
    return [token for token in tokens if token >= 0]
