"""The owner of a machine comes first: when he is taken to be there, and for how long."""

from hypothesis import given
from hypothesis import strategies as st

from node.owner import ForeignLoad, OwnerWatch


def presence(*looks: tuple[float, float]) -> list[bool]:
    watch = OwnerWatch()
    return [watch.look(others, now) for now, others in looks]


def test_he_is_there_when_his_programs_are_busy_for_a_moment() -> None:
    assert presence((0, 0.5), (2, 0.5), (3, 0.5), (4, 0.0)) == [False, False, True, True]


def test_a_short_burst_means_nothing() -> None:
    assert presence((0, 0.9), (2, 0.0), (3, 0.9), (5, 0.9)) == [False] * 4


def test_he_is_gone_when_they_have_been_quiet_for_a_minute() -> None:
    assert presence((0, 0.5), (3, 0.5), (10, 0.0), (69, 0.0), (70, 0.0)) == [False, True, True, True, False]
    assert presence((0, 0.5), (3, 0.5), (10, 0.0), (60, 0.2), (71, 0.0)) == [False, True, True, True, True]


@given(st.lists(st.floats(0, 0.29), max_size=50))
def test_quiet_machines_are_never_taken_for_busy(loads: list[float]) -> None:
    assert not any(presence(*((float(now), load) for now, load in enumerate(loads))))


def test_our_own_processes_do_not_count() -> None:
    busy = iter([100.0, 106.0, 114.0])
    ours = iter([{1: 10.0}, {1: 12.0, 2: 1.0}, {1: 13.0}])
    load = ForeignLoad(lambda: next(busy), lambda: next(ours), cores=2)

    assert load.look(0.0) == 0.0
    assert load.look(4.0) == (6.0 - 3.0) / 8
    assert load.look(8.0) == (8.0 - 1.0) / 8
