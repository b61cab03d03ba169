"""How long a suspect has, and who is to be trusted with suspicions."""

import itertools

import pytest

from mesh.budget import Budget
from mesh.suspicion import ENOUGH, Awareness, patience


def test_more_accusers_shorten_the_wait_from_the_most_to_the_least() -> None:
    waits = [patience(accusers, most=4.0, least=1.0) for accusers in range(1, ENOUGH + 3)]

    assert waits[0] == 4.0
    assert all(later <= earlier for earlier, later in itertools.pairwise(waits))
    assert waits[ENOUGH - 1 :] == [1.0, 1.0, 1.0]


def test_late_ticks_cost_trust_and_timely_ones_win_it_back() -> None:
    awareness = Awareness()
    awareness.ticked(0.3, now=1.0)
    assert awareness.is_well

    awareness.ticked(1.2, now=2.0)
    assert not awareness.is_well
    assert awareness.factor == 3

    for tick in range(20):
        awareness.ticked(0.0, now=2.25 + tick * 0.25)
    assert awareness.is_well


def test_nobody_becomes_blind_by_a_long_sleep() -> None:
    awareness = Awareness()

    awareness.ticked(3600.0, now=1.0)

    assert awareness.factor == 1 + Awareness.MOST


def test_a_budget_allows_a_burst_and_then_so_much_per_second() -> None:
    budget = Budget(burst=10, per_second=2)

    assert budget.take(10, now=0)
    assert not budget.take(1, now=0)
    assert budget.take(2, now=1)
    assert budget.take(10, now=100)
    assert not budget.take(1, now=100)


def test_what_is_owed_takes_time() -> None:
    budget = Budget(burst=10, per_second=2)

    assert budget.owe(10, now=0) == 0
    assert budget.owe(6, now=0) == pytest.approx(3)
    assert budget.owe(0, now=2) == pytest.approx(1)
