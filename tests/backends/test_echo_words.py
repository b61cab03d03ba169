"""The echo engine's tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.echo_words import Vocabulary, split_words


@given(st.text())
def test_words_joined_are_the_text(text: str) -> None:
    assert "".join(split_words(text)) == text


def test_a_word_keeps_the_space_before_it() -> None:
    assert split_words("to be,  or\nnot ") == ["to", " be,", "  or", "\nnot", " "]


@given(st.text(min_size=1, max_size=20))
def test_an_id_is_stable_and_reads_back(word: str) -> None:
    vocabulary = Vocabulary()
    number = vocabulary.id_of(word)

    assert number == Vocabulary().id_of(word)
    assert vocabulary.word_of(number) == word
    assert 0 <= number < 2**31


def test_a_short_word_reads_back_in_a_process_that_never_met_it() -> None:
    assert Vocabulary().word_of(Vocabulary().id_of(" ä")) == " ä"


@pytest.mark.parametrize("number", [0, 5, 1 << 30, (3 << 24) | 0xFFFFFF, 9 << 24, -1])
def test_an_id_nobody_has_met_is_an_error(number: int) -> None:
    with pytest.raises(KeyError):
        Vocabulary().word_of(number)
