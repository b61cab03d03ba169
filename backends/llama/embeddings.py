"""Embeddings: one vector for a text, pooled over its tokens, of length 1; and scores of documents.

    callers' texts -> turns, one text of each call after the other -> as many as fit a batch -> vectors

A context of its own, made when first asked: pooling and generating do not mix in one. It has room for the
longest text met so far, since a text is pooled in one go and a long batch takes much memory. A model made for
embeddings pools as it was trained to; a chat model's vector is the mean over its tokens.
"""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future, wait

import numpy as np

from backends.errors import (
    BackendError,
    EngineError,
    InvalidValueError,
    NoNumbersError,
    NotLoadedError,
    TextLengthError,
    UnsupportedError,
)
from backends.llama import logs
from backends.llama.footprint import footprint_in
from backends.llama.model import Context, Floats, Model
from backends.llama.shape import Shape
from backends.llama.turns import Turns

log = logging.getLogger(__name__)

BATCH = 2048
"""Tokens computed together, unless one text has more."""

SEQUENCES = 32
"""Texts in one batch."""


class Text:
    """A tokenized text that waits for its vector."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = tokens
        self.vector: Future[Floats] = Future()


def next_batch(waiting: Turns[Text], room: int, most: int = SEQUENCES) -> list[Text]:
    """Take the texts that are computed together next: whoever's turn it is, as long as they fit into `room`
    tokens. The first one is taken however long it is."""
    batch: list[Text] = []
    size = 0
    while len(batch) < most and (text := waiting.next()) is not None:
        size += len(text.tokens)
        if batch and size > room:
            break
        batch.append(waiting.take())
    return batch


class Embedder:
    """Makes vectors, those of several calls in one batch. Its methods block and may be called by many threads."""

    def __init__(self, model: Model, threads: int, longest: int) -> None:
        """`longest`: the tokens that a text may have."""
        self._model = model
        self._threads = threads
        self._longest = longest
        self._room = _whole_rows(min(BATCH, longest))
        self._context: Context | None = None
        self.memory_bytes = 0
        """Of the context; none until a text comes."""
        self._waiting: Turns[Text] = Turns()
        self._news = threading.Condition()
        self._calls = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        """End the waiting calls, and free the context."""
        with self._news:
            self._closed = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join()

    def embed(self, texts: Sequence[Sequence[int]], dimensions: int | None) -> list[Floats]:
        """The vectors of tokenized texts, in order.

        Raises:
            TextLengthError: a text is too long.
            InvalidValueError: an empty text, or more dimensions than there are.
            NotLoadedError: the model was unloaded meanwhile.
        """
        wanted = self._model.dimensions if dimensions is None else dimensions
        if not 1 <= wanted <= self._model.dimensions:
            raise InvalidValueError(
                f"dimensions must be between 1 and {self._model.dimensions}, not {wanted}", param="dimensions"
            )
        if self._model.ranks:
            raise UnsupportedError("this model scores documents and makes no embeddings")
        return [normalised(vector[:wanted]) for vector in self._pooled(texts, "input")]

    def rank(self, query: Sequence[int], documents: Sequence[Sequence[int]]) -> list[float]:
        """How well each tokenized document answers the query, the best near 1.

        A model made for it reads both together (`Model.pair`). Of any other, it is how alike their vectors are.

        Raises:
            TextLengthError: query or document is too long.
            InvalidValueError: one of them is empty.
            NotLoadedError: the model was unloaded meanwhile.
        """
        if self._model.ranks:
            scores = self._pooled([self._model.pair(query, document) for document in documents], "documents")
            return [float(1 / (1 + np.exp(-score[0]))) for score in scores]
        wanted, *vectors = map(normalised, self._pooled([query, *documents], "documents"))
        return [float(wanted @ vector) for vector in vectors]

    def _pooled(self, texts: Sequence[Sequence[int]], param: str) -> list[Floats]:
        for tokens in texts:
            if not tokens:
                raise InvalidValueError("an input is empty", param=param)
            if len(tokens) > self._longest:
                raise TextLengthError(len(tokens), self._longest, param=param)
        asked = [Text(tokens) for tokens in texts]
        with self._news:
            if self._closed:
                raise NotLoadedError
            self._calls += 1
            for text in asked:
                self._waiting.add(f"call {self._calls}", text)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="embed", daemon=True)
                self._thread.start()
            self._news.notify()
        wait([text.vector for text in asked])
        return [text.vector.result() for text in asked]

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        while batch := self._take():
            try:
                for text, vector in zip(batch, self._compute([text.tokens for text in batch]), strict=True):
                    text.vector.set_result(vector)
            except Exception as exc:
                error = exc
                if not isinstance(exc, BackendError):
                    log.exception("an embedding batch failed")
                    error = EngineError(f"{type(exc).__name__}: {exc}")
                for text in batch:
                    text.vector.set_exception(error)
        if self._context is not None:
            self._context.close()

    def _take(self) -> list[Text]:
        with self._news:
            while not (self._waiting or self._closed):
                self._news.wait()
            if not self._closed:
                return next_batch(self._waiting, self._room)
            while self._waiting:
                gone = NotLoadedError("the model was unloaded while texts waited")
                self._waiting.take().vector.set_exception(gone)
        return []

    def _compute(self, texts: Sequence[Sequence[int]]) -> list[Floats]:
        context = self._context_for(sum(map(len, texts)))
        context.clear()
        context.clear_batch()
        for number, tokens in enumerate(texts):
            context.add(tokens, number, 0, rows=1)
        context.want_all()
        if not context.decode():
            raise EngineError("llama.cpp has no room for a batch of texts")
        vectors = [context.pooled(number) for number in range(len(texts))]
        if not all(np.isfinite(vector).all() for vector in vectors):
            raise NoNumbersError
        return vectors

    def _context_for(self, tokens: int) -> Context:
        if self._context is not None and tokens <= self._room:
            return self._context
        while self._room < tokens:
            self._room = _whole_rows(min(2 * self._room, self._longest))
        if self._context is not None:
            self._context.close()
            self._context = None
        with logs.collected() as lines:
            self._context = Context(self._model, shape_for(self._room, self._threads))
        self.memory_bytes = footprint_in(lines).total
        return self._context


def shape_for(longest: int, threads: int) -> Shape:
    """The context in which texts are embedded, the longest of so many tokens; at first, of as many as usual."""
    room = _whole_rows(longest)
    return Shape(cells=room, sequences=SEQUENCES, batch=room, micro_batch=room, threads=threads, pooled=True)


def _whole_rows(tokens: int) -> int:
    """At least `tokens`, and the same number for each sequence: llama.cpp aborts over any other batch."""
    return -(-tokens // SEQUENCES) * SEQUENCES


def normalised(vector: Floats) -> Floats:
    """`vector` at length 1; one of zeros stays as it is."""
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length else vector
