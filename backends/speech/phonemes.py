"""Text to phonemes in IPA, through espeak-ng: what voices of neural networks are given instead of letters.

The library drops punctuation, by which such voices know how to breathe, so text is cut at it and it is put back.
"""

import re
import unicodedata
from collections.abc import Callable

PUNCTUATION = ".,;:!?"
"""What voices know."""

_MEANT = str.maketrans("。！？，；：、…", ".!?,;:,.")  # noqa: RUF001
_CLAUSE = re.compile(r"((?:[^.,;:!?]|(?<=\d)[.,:](?=\d))*)([.,;:!?]*)")
"""Words, and the marks after them; between digits a mark is part of the number, and is spoken."""
_BRACKETED = re.compile(r"\([a-z-]+\)")
"""Marks of a change of language, as in "(en)hello(de)"."""


def with_punctuation(text: str, phonemes_of: Callable[[str], str]) -> str:
    """The phonemes of `text` by `phonemes_of`, clause by clause, with the punctuation between them; decomposed, so that
    every mark is a character of its own."""
    written = ""
    for words, marks in _CLAUSE.findall(text.translate(_MEANT)):
        spoken = _BRACKETED.sub("", phonemes_of(words)).strip() if words.strip() else ""
        if spoken:
            written += (" " if written else "") + spoken
        if marks and written and written[-1] not in PUNCTUATION:
            written += marks[0]
    return unicodedata.normalize("NFD", written)
