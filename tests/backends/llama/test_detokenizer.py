"""Bytes of tokens into whole characters."""

from hypothesis import given
from hypothesis import strategies as st

from backends.llama.detokenizer import Detokenizer, WholeLetters


def test_a_character_waits_for_all_its_bytes() -> None:
    text = Detokenizer()
    fish = "🐟".encode()

    assert [text.feed(fish[:2]), text.feed(fish[2:3]), text.feed(fish[3:] + b"!")] == ["", "", "🐟!"]


def test_an_incomplete_character_at_the_end_is_shown_as_broken() -> None:
    text = Detokenizer()

    assert text.feed("ü".encode()[:1]) == ""
    assert text.flush() == "�"


@given(st.binary(max_size=30), st.data())
def test_the_borders_between_tokens_do_not_matter(raw: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    text = Detokenizer()
    out = "".join(text.feed(raw[a:b]) for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True))

    assert out + text.flush() == raw.decode(errors="replace")


def test_bytes_go_on_being_text_as_long_as_no_character_is_broken() -> None:
    letters = WholeLetters()
    fish = "🐟".encode()
    letters.feed(b"a" + fish[:2])

    assert letters.takes(fish[2:3])
    assert letters.takes(fish[2:] + b"b")
    assert not letters.takes(b"b")
    assert not letters.takes(fish[:1])
    assert not letters.takes(b"\xff")
