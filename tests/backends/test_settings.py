"""Settings from outside: accepted, or refused with a hint."""

import re
from dataclasses import dataclass

import pytest

from backends.errors import InvalidValueError
from backends.settings import read_settings


@dataclass(frozen=True)
class Sample:
    slots: int = 4
    ratio: float = 0.5
    name: str | None = None
    loud: bool = False

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ValueError("slots must be at least 1")


def test_an_empty_text_means_all_defaults() -> None:
    assert read_settings(Sample, "") == Sample()


def test_values_are_taken_and_null_keeps_the_default() -> None:
    assert read_settings(Sample, '{"slots": 2, "ratio": 1, "name": "x", "loud": null}') == Sample(2, 1.0, "x")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        pytest.param('{"slot": 2}', "unknown setting 'slot'; did you mean 'slots'?", id="a slip"),
        pytest.param('{"qqq": 2}', "known are slots, ratio, name, loud", id="nothing close"),
        pytest.param('{"slots": "2"}', "'slots' must be a whole number", id="wrong type"),
        pytest.param('{"slots": true}', "'slots' must be a whole number", id="a truth is no number"),
        pytest.param('{"slots": 0}', "at least 1", id="out of range"),
        pytest.param("[]", "must be a JSON object", id="not an object"),
        pytest.param("{", "not valid JSON", id="not JSON"),
    ],
)
def test_a_wrong_setting_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(hint)):
        read_settings(Sample, text)
