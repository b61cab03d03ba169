"""Who is next when everything is busy."""

from hypothesis import given
from hypothesis import strategies as st

from node.fair_queue import FairQueue, expected_wait


def queue_of(*requests: str, most: int = 100) -> FairQueue[str]:
    """Requests like "a1": of caller a."""
    queue: FairQueue[str] = FairQueue(most)
    for request in requests:
        queue.add(request[0], request)
    return queue


def drained(queue: FairQueue[str]) -> list[str]:
    order = []
    while (item := queue.pop()) is not None:
        order.append(item)
    return order


def test_callers_take_turns_and_keep_their_own_order() -> None:
    queue = queue_of("a1", "a2", "a3", "b1", "c1", "b2")

    assert list(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert drained(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_who_comes_back_waits_for_the_others_turn() -> None:
    queue = queue_of("a1", "a2", "b1")
    assert queue.pop() == "a1"

    queue.add("a", "a3")

    assert drained(queue) == ["b1", "a2", "a3"]


def test_when_it_is_full_the_greediest_gives_way() -> None:
    queue = queue_of("a1", "a2", "a3", "b1", most=4)

    assert queue.add("b", "b2") == "a3"
    assert queue.add("a", "a4") == "a4"
    assert drained(queue) == ["a1", "b1", "a2", "b2"]


def test_a_queue_of_none_takes_nobody() -> None:
    assert queue_of(most=0).add("a", "a1") == "a1"


def test_who_leaves_is_not_waited_for() -> None:
    queue = queue_of("a1", "b1", "a2")
    queue.remove("a", "a1")
    queue.remove("b", "b1")
    queue.remove("b", "b1")

    assert drained(queue) == ["a2"]
    assert len(queue) == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 999)), unique=True), st.integers(0, 20))
def test_nobody_is_lost_and_the_bound_holds(requests: list[tuple[str, int]], most: int) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue(most)
    away = [queue.add(caller, (caller, number)) for caller, number in requests]

    assert len(queue) <= most
    planned = list(queue)
    taken = [queue.pop() for _ in range(len(queue))]
    assert taken == planned
    assert sorted(filter(None, [*away, *taken])) == sorted(requests)


def test_the_wait_follows_from_the_line_and_the_speed() -> None:
    assert expected_wait(0, 4, 2.0) == 0.5
    assert expected_wait(7, 4, 2.0) == 4.0
    assert expected_wait(3, 0, 1.0) == 4.0
