"""Bytes of tokens into text, whole characters only.

A character may be spread over several tokens. Bytes that begin one wait for the rest; bytes that
can never be one become U+FFFD, so that what comes out is always valid text.
"""

import codecs


class Detokenizer:
    """Takes the tokens' bytes one after another; gives the text that is certain."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes) -> str:
        """The characters that are complete now."""
        return self._decoder.decode(piece)

    def flush(self) -> str:
        """The answer is over: an incomplete character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)


class WholeLetters:
    """Whether bytes go on being text: characters begun are finished, and none is broken."""

    def __init__(self) -> None:
        self._begun = b""

    def takes(self, piece: bytes) -> bool:
        """`piece` may come next."""
        return self._after(piece) is not None

    def feed(self, piece: bytes) -> None:
        """It came next; if it broke a character, that is over."""
        self._begun = self._after(piece) or b""

    def _after(self, piece: bytes) -> bytes | None:
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            decoder.decode(self._begun + piece)
        except UnicodeDecodeError:
            return None
        return decoder.getstate()[0]
