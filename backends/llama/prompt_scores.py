"""Logprobs of a prompt, for answers that begin with it (`echo` with `logprobs`): how likely each of its tokens
was after those before it. The first has none: nothing came before it.
"""

from collections.abc import Callable, Sequence

from backends.llama.detokenizer import Detokenizer
from backends.llama.logprobs import token_logprob
from backends.llama.model import Floats
from backends.rpc import backend_pb2 as pb

SLICE = 32
"""Tokens of such a prompt in one step: each of them has a row of logits, as wide as the vocabulary."""


class PromptScores:
    """The scores of one prompt, as it is fed. Fed again from its start, it scores nothing twice."""

    def __init__(self, prompt: Sequence[int], piece: Callable[[int], bytes], *, top: int, drops_space: bool) -> None:
        """`drops_space`: the tokens begin with a space that is no part of the text (some tokenizers add one)."""
        self._prompt = prompt
        self._piece = piece
        self._top = top
        self._drops_space = drops_space
        self._text = Detokenizer()
        self._next = 0
        """Position of the first token that has no score yet."""

    @property
    def is_whole(self) -> bool:
        """Every token has its score."""
        return self._next >= len(self._prompt)

    def feed(self, start: int, count: int, logits: Callable[[int], Floats]) -> pb.TextDelta:
        """Tokens were fed from position `start`; `logits(i)` are those after the i-th of them."""
        shown = pb.TextDelta()
        if self._next == 0:
            raw = self._piece(self._prompt[0])
            first = pb.TokenLogprob(token=raw.decode(errors="replace"), token_bytes=raw, follows_nothing=True)
            self._show(shown, first)
        for index in range(count):
            if start + index + 1 == self._next < len(self._prompt):
                self._show(shown, token_logprob(logits(index), self._prompt[self._next], self._top, self._piece))
        if self.is_whole:
            shown.text += self._text.flush()
        return shown

    def _show(self, shown: pb.TextDelta, entry: pb.TokenLogprob) -> None:
        if self._drops_space and entry.token_bytes:
            self._drops_space = False
            entry.token_bytes, entry.token = entry.token_bytes[1:], entry.token[1:]
        shown.text += self._text.feed(entry.token_bytes)
        shown.logprobs.append(entry)
        self._next += 1
