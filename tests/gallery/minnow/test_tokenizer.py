"""The tokenizer and the rows made with it."""

import random

import pytest

pytest.importorskip("tokenizers", reason="training dependencies are not installed")

from tokenizers import Tokenizer

from gallery.minnow.conversation import conversation
from gallery.minnow.rows import long_row, packed_row, taught
from gallery.minnow.template import render
from gallery.minnow.tokenizer import CONTROL, TAGS, load_tokenizer, train_tokenizer

SEED = 11


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(SEED, conversations=300)


def test_the_same_seed_gives_the_same_tokenizer(tokenizer: Tokenizer) -> None:
    assert train_tokenizer(SEED, conversations=300).to_str() == tokenizer.to_str()


@pytest.mark.parametrize("text", ["Hello, world!", "São Paulo 你好 🐟", " a  b\n\n\tc ", "x_y=-3.5e9"])
def test_any_text_comes_back_as_it_was(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_marks_are_one_token_each(tokenizer: Tokenizer) -> None:
    for mark in (*CONTROL, *TAGS):
        assert len(tokenizer.encode(mark).ids) == 1


def test_digits_stand_alone(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("2048").tokens == ["2", "0", "4", "8"]


@pytest.mark.parametrize("word", ["pebble", "blorpent", "capital", "Zanzibar"])
def test_a_space_in_front_changes_only_the_first_piece(tokenizer: Tokenizer, word: str) -> None:
    alone, spaced = tokenizer.encode(word).tokens, tokenizer.encode(f" {word}").tokens
    without_space = [piece.removeprefix("Ġ") for piece in spaced]
    assert [piece for piece in without_space if piece] == alone


def test_only_answers_are_taught_and_all_of_them_are(tokenizer: Tokenizer) -> None:
    made = conversation(random.Random(1), 512)
    row = taught(made, tokenizer)
    assert len(row.tokens) == len(row.weights)
    text = tokenizer.decode([t for t, w in zip(row.tokens, row.weights, strict=True) if w], skip_special_tokens=False)
    rendered = render([m for m in made.messages if m["role"] == "assistant" and m["learn"]])
    assert text == rendered.replace("<|im_start|>assistant\n", "").replace("<|im_end|>\n", "<|im_end|>")


def test_rows_have_the_length_asked_for(tokenizer: Tokenizer) -> None:
    rng = random.Random(1)
    for length in (64, 300, 1024):
        for make in (long_row, packed_row):
            row = make(rng, tokenizer, length)
            assert len(row.tokens) == len(row.weights) == len(row.documents) == length


def test_packed_conversations_begin_where_their_number_changes(tokenizer: Tokenizer) -> None:
    row = packed_row(random.Random(2), tokenizer, 512)
    start = tokenizer.token_to_id("<|im_start|>")
    changes = [i for i in range(1, 512) if row.documents[i] != row.documents[i - 1]]
    assert changes
    assert all(row.tokens[i] == start for i in changes)


def test_the_tokenizer_in_use_is_kept_in_a_file() -> None:
    assert load_tokenizer().encode("<|im_start|>user\n").tokens[0] == "<|im_start|>"
