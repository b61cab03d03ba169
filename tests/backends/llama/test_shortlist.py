"""A shortlist holds every token that could be chosen, and sampling from it is sampling from all."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.llama.model import Context, Model
from backends.llama.sampling import Sampler
from backends.llama.shape import Shape
from backends.llama.shortlist import shortlist
from backends.rpc import backend_pb2 as pb

MINNOW = "gallery/minnow/minnow.gguf"

IMPERCEPTIBLE = 1e-30
"""A penalty that changes no logit, but must be reckoned with: with it, all tokens are looked at."""


@given(st.integers(1, 5000), st.integers(1, 300), st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 1000]))
def test_the_largest_are_in_it(size: int, count: int, seed: int, values: int) -> None:
    logits = np.random.default_rng(seed).integers(-values, values, size).astype(np.float32)

    listed = shortlist(logits, count)

    least_of_largest = np.sort(logits)[-min(count, size)]
    assert set(np.flatnonzero(logits >= least_of_largest)) <= set(listed)
    assert list(listed) == sorted(set(listed))


def test_it_is_short_for_a_large_vocabulary() -> None:
    logits = np.random.default_rng(1).standard_normal(150_000).astype(np.float32)

    assert 40 <= len(shortlist(logits, 40)) <= 80


def test_where_most_tokens_are_forbidden_the_others_are_in_it() -> None:
    logits = np.full(100_000, -np.inf, np.float32)
    logits[[7, 99_999]] = 0

    assert {7, 99_999} <= set(shortlist(logits, 40))


@pytest.fixture(scope="module")
def context() -> Iterator[tuple[Model, Context, int]]:
    model = Model(MINNOW, repack=False, on_progress=lambda _: True)
    context = Context(model, Shape(cells=64, sequences=1, batch=64, micro_batch=64, threads=1))
    row = context.add(model.tokenize("The weather is", special=False), 0, 0, rows=1)
    assert context.decode()
    yield model, context, row
    context.close()
    model.close()


@pytest.mark.parametrize(
    "wishes",
    [
        pytest.param({"temperature": 0}, id="greedy"),
        pytest.param({"temperature": 3.0}, id="the likeliest forty"),
        pytest.param({"temperature": 5.0, "top_k": 5, "top_p": 1, "min_p": 0}, id="the likeliest five"),
        pytest.param({"temperature": 5.0, "top_k": 3, "top_p": 0.9, "typical_p": 0.9}, id="narrowed further"),
        pytest.param({"temperature": 9.0, "top_k": 4, "min_p": 0, "logit_bias": {9: 30.0, 11: -30.0}}, id="biased"),
    ],
)
def test_the_same_token_is_drawn_as_from_all(context: tuple[Model, Context, int], wishes: dict[str, float]) -> None:
    model, memory, row = context

    def drawn(seed: int, **more: float) -> int:
        sampling = pb.Sampling(**wishes, **more, seed=seed)  # type: ignore[arg-type]
        sampler = Sampler(model, sampling, ignore_end=True, grammar=None)
        try:
            return sampler.sample(memory, row)
        finally:
            sampler.close()

    from_few = [drawn(seed) for seed in range(50)]
    from_all = [drawn(seed, frequency_penalty=IMPERCEPTIBLE) for seed in range(50)]
    assert from_few == from_all
