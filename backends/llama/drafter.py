"""A draft model: a small model of the same vocabulary that guesses what the large one will say.

It has a context of its own, which holds the same sequences under the same ids. What it holds is only worth time:
where memory runs short, all of it is forgotten.
"""

import time
from collections.abc import Mapping

import numpy as np

from backends.errors import EngineError, ModelFileError
from backends.llama.memory import shared
from backends.llama.model import Context, Model
from backends.llama.scheduler import Sequence
from backends.speed import RecentMean

SLICE = 64
"""Tokens of a prompt that the draft model reads before one step."""

SIZE_DIFFERENCE = 128
"""Vocabularies are padded differently; llama.cpp allows as much."""

MARKERS = 5
"""Of the first tokens, texts may differ: unknown, begin, end and the like. As llama.cpp has it."""


class Drafter:
    """Guesses greedily. Lives in the decode loop's thread."""

    def __init__(self, model: Model, context: Context, vocabulary_size: int) -> None:
        """`vocabulary_size`: of the large model, whose tokens alone may be guessed."""
        self._model = model
        self._context = context
        self._vocabulary_size = min(vocabulary_size, model.vocabulary_size)
        self._held: dict[int, list[int]] = {}
        self.seconds = RecentMean()
        """For one guess for every stream."""

    def close(self) -> None:
        """Free model and context."""
        self._context.close()
        self._model.close()

    @property
    def memory_bytes(self) -> int:
        """Of its weights."""
        return self._model.weight_bytes

    def guess(self, counts: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
        """Up to so many tokens for each sequence; none for those whose text is still being read."""
        try:
            return self._guess(counts)
        except EngineError:
            self._forget()
            return {}

    def _guess(self, counts: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
        rows = self._read(list(counts))
        guesses: dict[Sequence, list[int]] = {}
        while rows:
            begun = time.monotonic()
            drawn = {sequence: int(np.argmax(self._context.logits(row))) for sequence, row in rows.items()}
            for sequence, token in drawn.items():
                if token < self._vocabulary_size:
                    guesses.setdefault(sequence, []).append(token)
            going_on = [s for s in drawn if drawn[s] < self._vocabulary_size and len(guesses[s]) < counts[s]]
            rows = self._feed({sequence: [drawn[sequence]] for sequence in going_on})
            if going_on:
                self.seconds.add(time.monotonic() - begun)
        return guesses

    def _read(self, sequences: list[Sequence]) -> dict[Sequence, int]:
        """Read on to the end of the sequences; those that are there, with their rows."""
        budget, news = SLICE, {}
        for sequence in sequences:
            held = self._held.setdefault(sequence.id, [])
            same = shared(held, sequence.tokens)
            if same < len(held):
                self._context.trim(sequence.id, same)
                del held[same:]
            if len(sequence.tokens) < (self._model.trained_context or len(sequence.tokens) + 1) and budget:
                news[sequence] = sequence.tokens[same : same + budget]
                budget -= len(news[sequence])
        rows = self._feed(news)
        return {s: row for s, row in rows.items() if len(self._held[s.id]) == len(s.tokens)}

    def _feed(self, news: Mapping[Sequence, list[int]]) -> dict[Sequence, int]:
        if not news:
            return {}
        self._context.clear_batch()
        rows = {}
        for sequence, tokens in news.items():
            held = self._held[sequence.id]
            rows[sequence] = self._context.add(tokens, sequence.id, len(held), rows=1)
            held += tokens
        if self._context.decode():
            return rows
        self._forget()
        return {}

    def _forget(self) -> None:
        self._context.clear()
        self._held = {}


def check_vocabularies(draft: Model, model: Model) -> None:
    """Raises ModelFileError where one model's tokens are not the other's."""
    sizes = draft.vocabulary_size, model.vocabulary_size
    if not model.can_share or not draft.can_share:
        raise ModelFileError("a model whose state is one lump cannot guess ahead", param="draft_path")
    differing = next((t for t in range(MARKERS, min(sizes)) if draft.token_text(t) != model.token_text(t)), None)
    if abs(sizes[0] - sizes[1]) > SIZE_DIFFERENCE or differing is not None:
        where = f"token {differing} differs" if differing is not None else f"{sizes[0]} and {sizes[1]} tokens"
        raise ModelFileError(
            f"{draft.path} cannot draft for {model.path}: their vocabularies are not the same ({where})",
            param="draft_path",
        )
