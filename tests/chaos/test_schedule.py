"""The faults of a chaos run."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.schedule import CALM, CRASHES, CRASHES_APART, NEEDS_NETWORK, Kind, plan

seeds = st.integers(min_value=0, max_value=1 << 32)


@given(seeds)
def test_the_same_seed_means_the_same_faults(seed: int) -> None:
    assert plan(seed, 60, "abcde", has_network=True) == plan(seed, 60, "abcde", has_network=True)


@given(seeds, st.sampled_from(["abc", "abcde"]))
def test_somebody_is_always_left_to_answer(seed: int, nodes: str) -> None:
    faults = plan(seed, 120, nodes, has_network=True)

    for fault in faults:
        hit = {name for other in faults if other.at <= fault.at <= other.end for name in other.nodes}
        assert len(hit) <= (2 if len(nodes) > 3 else 1)


@given(seeds)
def test_no_two_backends_die_under_one_answer(seed: int) -> None:
    crashes = [fault.at for fault in plan(seed, 300, "abcde", has_network=False) if fault.kind in CRASHES]

    assert all(later - earlier >= CRASHES_APART for earlier, later in pairwise(crashes))


@given(seeds)
def test_without_a_network_of_its_own_nothing_needs_one_and_the_end_is_calm(seed: int) -> None:
    faults = plan(seed, 60, "abcde", has_network=False)

    assert not {fault.kind for fault in faults} & NEEDS_NETWORK
    assert all(fault.end < 60 - CALM for fault in faults)


def test_five_minutes_know_every_kind_of_fault() -> None:
    kinds = {fault.kind for fault in plan(1, 300, "abcde", has_network=True)}

    assert kinds == set(Kind)
