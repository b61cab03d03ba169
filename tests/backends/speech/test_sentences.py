"""Text in pieces that can be spoken one after the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.speech.sentences import sentences


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello there. How are you? Fine!", ["Hello there.", "How are you?", "Fine!"]),
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("Version 3.14 is out", ["Version 3.14 is out"]),
        ("One line\n\nanother", ["One line", "another"]),
        ("你好。再见。", ["你好。", "再见。"]),
        ("... !!! \n\n ?", []),
        ("", []),
    ],
)
def test_pieces_end_where_sentences_do(text: str, pieces: list[str]) -> None:
    assert list(sentences(text)) == pieces


def test_a_long_sentence_is_cut_at_a_comma_else_at_a_space_else_anywhere() -> None:
    assert list(sentences("one two, three four five", 15)) == ["one two,", "three four five"]
    assert list(sentences("one two three four", 10)) == ["one two", "three four"]
    assert list(sentences("abcdefghij", 4)) == ["abcd", "efgh", "ij"]


@given(st.text(max_size=300), st.integers(1, 40))
def test_no_letter_is_lost_and_no_piece_is_too_long(text: str, longest: int) -> None:
    pieces = list(sentences(text, longest))

    def letters(text: str) -> str:
        return "".join(c for c in text if c.isalnum())

    assert letters("".join(pieces)) == letters(text)
    assert all(len(piece) <= longest for piece in pieces)
