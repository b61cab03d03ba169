"""The echo engine's tokens: words. Each keeps the white space before it, so joining gives the text back.

Ids are stable: the same word has the same id in every process, so that an answer begun on one node
can be continued on another. A word of up to three bytes is its own id and can be read back by
anyone; a longer one is a hash, which only a process that has met the word can read back.
"""

import re
import zlib

_PIECES = re.compile(r"\s*\S+|\s+$")
_HASHED = 1 << 30
_LONGEST_OWN_ID = 3
_MAX_REMEMBERED = 200_000


def split_words(text: str) -> list[str]:
    """The words of `text`, white space included: `"".join(split_words(text)) == text`."""
    return _PIECES.findall(text)


class Vocabulary:
    """Words and their ids, both ways."""

    def __init__(self) -> None:
        self._id_by_word: dict[str, int] = {}
        self._word_by_id: dict[int, str] = {}

    def id_of(self, word: str) -> int:
        """The id of a word; the word is remembered."""
        known = self._id_by_word.get(word)
        if known is not None:
            return known
        raw = word.encode(errors="surrogatepass")
        if len(raw) <= _LONGEST_OWN_ID:
            number = len(raw) << 24 | int.from_bytes(raw, "big")
        else:
            number = _HASHED | zlib.crc32(raw) & (_HASHED - 1)
        if len(self._id_by_word) >= _MAX_REMEMBERED:
            self._id_by_word.clear()
            self._word_by_id.clear()
        self._id_by_word[word] = number
        self._word_by_id[number] = word
        return number

    def word_of(self, number: int) -> str:
        """The word of an id.

        Raises:
            KeyError: no word this process has met has this id.
        """
        known = self._word_by_id.get(number)
        if known is not None:
            return known
        size = number >> 24
        if not 1 <= size <= _LONGEST_OWN_ID:
            raise KeyError(number)
        try:
            return (number & 0xFFFFFF).to_bytes(3, "big")[-size:].decode()
        except UnicodeDecodeError:
            raise KeyError(number) from None
