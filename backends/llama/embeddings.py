"""Embeddings: one vector for a text, pooled over its tokens, of length 1; and scores of documents.

A context of its own, made when first asked: pooling and generating do not mix in one. A model made
for embeddings pools as it was trained to; a chat model's vector is the mean over its tokens.
"""

import threading
from collections.abc import Iterator, Sequence

import numpy as np

from backends.errors import ContextLengthError, InvalidValueError, UnsupportedError
from backends.llama.model import Context, Floats, Model

BATCH = 2048
"""Tokens computed together, and so the longest text: a text must be pooled in one go."""

SEQUENCES = 32
"""Texts in one batch."""


class Embedder:
    """Makes vectors. One call at a time; others wait."""

    def __init__(self, model: Model, threads: int) -> None:
        self._model = model
        self._threads = threads
        self._longest = min(BATCH, model.trained_context or BATCH)
        self._context: Context | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Free the context."""
        with self._lock:
            if self._context is not None:
                self._context.close()
                self._context = None

    def embed(self, texts: Sequence[Sequence[int]], dimensions: int | None) -> list[Floats]:
        """The vectors of tokenized texts, in order.

        Raises:
            ContextLengthError: a text is too long.
            InvalidValueError: an empty text, or more dimensions than there are.
        """
        wanted = self._model.dimensions if dimensions is None else dimensions
        if not 1 <= wanted <= self._model.dimensions:
            raise InvalidValueError(
                f"dimensions must be between 1 and {self._model.dimensions}, not {wanted}", param="dimensions"
            )
        if self._model.ranks:
            raise UnsupportedError("this model scores documents and makes no embeddings")
        return [normalised(vector[:wanted]) for vector in self._pooled(texts)]

    def rank(self, query: Sequence[int], documents: Sequence[Sequence[int]]) -> list[float]:
        """How well each tokenized document answers the query, the best near 1.

        A model made for it reads both together. Of any other, it is how alike their vectors are.

        Raises:
            ContextLengthError: query or document is too long.
            InvalidValueError: one of them is empty.
        """
        if self._model.ranks:
            scores = self._pooled([self._model.pair(query, document) for document in documents])
            return [float(1 / (1 + np.exp(-score[0]))) for score in scores]
        wanted, *vectors = self.embed([query, *documents], None)
        return [float(wanted @ vector) for vector in vectors]

    def _pooled(self, texts: Sequence[Sequence[int]]) -> list[Floats]:
        for tokens in texts:
            if not tokens:
                raise InvalidValueError("an input is empty", param="input")
            if len(tokens) > self._longest:
                raise ContextLengthError(len(tokens), self._longest)
        with self._lock:
            return [vector for group in _groups(texts, self._longest) for vector in self._compute(group)]

    def _compute(self, texts: Sequence[Sequence[int]]) -> list[Floats]:
        if self._context is None:
            self._context = Context(
                self._model,
                cells=self._longest,
                sequences=SEQUENCES,
                batch=self._longest,
                micro_batch=self._longest,
                threads=self._threads,
                pooled=True,
            )
        context = self._context
        context.clear()
        context.clear_batch()
        for number, tokens in enumerate(texts):
            context.add(tokens, number, 0, logits=True)
        context.want_all()
        context.decode()
        return [context.pooled(number) for number in range(len(texts))]


def normalised(vector: Floats) -> Floats:
    """`vector` at length 1; one of zeros stays as it is."""
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length else vector


def _groups(texts: Sequence[Sequence[int]], room: int) -> Iterator[list[Sequence[int]]]:
    """Texts in order, as many together as fit a batch."""
    group: list[Sequence[int]] = []
    size = 0
    for tokens in texts:
        if group and (size + len(tokens) > room or len(group) == SEQUENCES):
            yield group
            group, size = [], 0
        group.append(tokens)
        size += len(tokens)
    if group:
        yield group
