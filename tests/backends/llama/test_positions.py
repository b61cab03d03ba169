"""Positions of sequences with pictures that take fewer of them than tokens."""

from backends.llama.positions import Positions


def test_what_follows_a_picture_counts_its_positions_only() -> None:
    positions = Positions()
    positions.picture(1, end=10, saved=4)
    positions.picture(1, end=20, saved=5)

    assert [positions.at(1, length) for length in (4, 10, 15, 20, 30)] == [4, 6, 11, 11, 21]
    assert positions.at(2, 15) == 15


def test_a_copy_has_the_pictures_of_its_beginning_and_a_trim_forgets_those_after_it() -> None:
    positions = Positions()
    positions.picture(1, end=10, saved=4)
    positions.picture(1, end=20, saved=5)

    positions.copy(1, 2, 15)
    positions.trim(1, 5)

    assert (positions.at(2, 30), positions.at(1, 30)) == (26, 30)


def test_a_copy_of_words_forgets_what_was_there() -> None:
    positions = Positions()
    positions.picture(1, end=10, saved=4)
    positions.copy(2, 1, 12)

    assert positions.at(1, 12) == 12
