"""Stop strings, whatever the borders between pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.stop import StopFilter


def shown(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    """Everything that comes out, and whether a stop string was met."""
    stop = StopFilter(stops)
    out = "".join([stop.feed(piece) for piece in pieces])
    return out + stop.flush(), stop.stopped


def test_text_that_may_become_a_stop_string_waits() -> None:
    stop = StopFilter(["END"])

    assert stop.feed("to be E") == "to be "
    assert stop.feed("at") == "Eat"


def test_text_passes_at_once_without_stop_strings() -> None:
    assert StopFilter([]).feed("E") == "E"


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        pytest.param("a stop b", ["stop"], ("a ", True), id="in the middle"),
        pytest.param("stop", ["stop"], ("", True), id="at the start"),
        pytest.param("a sto", ["stop"], ("a sto", False), id="incomplete at the end"),
        pytest.param("aab", ["ab"], ("a", True), id="after a false start"),
        pytest.param("xyz", ["yz", "z"], ("x", True), id="two end together: the longer"),
        pytest.param("abc", ["abc", "b"], ("a", True), id="the one complete first"),
        pytest.param("text", ["", "x"], ("te", True), id="an empty one never matches"),
    ],
)
def test_what_is_shown(text: str, stops: list[str], expected: tuple[str, bool]) -> None:
    assert shown([text], stops) == expected


@given(st.text("ab.", max_size=30), st.lists(st.text("ab.", max_size=4), max_size=3), st.data())
def test_where_the_text_is_cut_does_not_matter(text: str, stops: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    assert shown(pieces, stops) == shown([text], stops)
