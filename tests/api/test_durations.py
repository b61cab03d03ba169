"""Durations as clients write them."""

import math
from typing import Any

import pytest

from api.durations import read_duration
from api.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, None),
        (0, 0.0),
        (300, 300.0),
        (0.5, 0.5),
        (-1, math.inf),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("-1", math.inf),
        ("-1m", math.inf),
        ("90", 90.0),
        ("0", 0.0),
    ],
)
def test_a_duration_is_seconds(given: Any, seconds: float | None) -> None:
    assert read_duration(given, "keep_alive") == seconds


@pytest.mark.parametrize(
    "given", ["", "-", "soon", "5 m", "5m!", "m", True, [5], {}, float("nan"), "1" * 200, "\u0661m"]
)
def test_anything_else_is_refused(given: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_duration(given, "keep_alive")
    assert caught.value.param == "keep_alive"
