"""How long an answer may be silent."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.patience import FACTOR, Patience


def after(*times: float, floor: float = 5.0, most: float = math.inf) -> Patience:
    patience = Patience(floor, most)
    for time in times:
        patience.heard(time)
    return patience


@pytest.mark.parametrize(
    ("patience", "bound"),
    [
        pytest.param(after(), 10.0, id="nothing yet: prompts are read in silence"),
        pytest.param(after(100.0), 10.0, id="one reply says nothing of speed"),
        pytest.param(after(100.0, 100.02, 100.04), 5.0, id="a fast answer: the floor"),
        pytest.param(after(100.0, 102.0, 104.0), 40.0, id="a slow answer: twenty pauses"),
        pytest.param(after(1.0, 1.1, floor=0.5), 2.0, id="another floor"),
        pytest.param(after(floor=0.25, most=0.4), 0.4, id="nothing yet, with a limit"),
        pytest.param(after(1.0, 3.0, floor=0.25, most=0.5), 0.5, id="a slow answer, with a limit"),
    ],
)
def test_it_follows_the_answers_own_speed(patience: Patience, bound: float) -> None:
    assert patience.bound == pytest.approx(bound)


@given(st.lists(st.floats(0, 100), max_size=50), st.floats(0.1, 10))
def test_it_is_never_less_than_the_floor_nor_than_the_mean_pause(pauses: list[float], floor: float) -> None:
    now, patience = 0.0, Patience(floor)
    for pause in pauses:
        now += pause
        patience.heard(now)

    assert patience.bound >= floor
    if len(pauses) > 1:
        assert patience.bound >= FACTOR * sum(pauses[1:]) / (len(pauses) - 1) * 0.999
