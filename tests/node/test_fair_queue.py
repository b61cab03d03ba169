"""Who is next when everything is busy."""

from hypothesis import given
from hypothesis import strategies as st

from node.fair_queue import FairQueue, expected_wait


def queue_of(*requests: str, most: int = 100) -> FairQueue[str]:
    """Requests like "a1": of caller a."""
    queue: FairQueue[str] = FairQueue(most)
    for request in requests:
        queue.add([request[0]], request)
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

    queue.add(["a"], "a3")

    assert drained(queue) == ["b1", "a2", "a3"]


def test_when_it_is_full_the_greediest_gives_way() -> None:
    queue = queue_of("a1", "a2", "a3", "b1", most=4)

    assert queue.add(["b"], "b2") == "a3"
    assert queue.add(["a"], "a4") == "a4"
    assert drained(queue) == ["a1", "b1", "a2", "b2"]


def test_a_queue_of_none_takes_nobody() -> None:
    assert queue_of(most=0).add(["a"], "a1") == "a1"


def test_who_leaves_is_not_waited_for() -> None:
    queue = queue_of("a1", "b1", "a2")
    queue.remove(["a"], "a1")
    queue.remove(["b"], "b1")
    queue.remove(["b"], "b1")

    assert drained(queue) == ["a2"]
    assert len(queue) == 0


def paths(*callers: str, most: int = 100) -> FairQueue[str]:
    """One request of each caller like "key/address/user", called by its path and number."""
    queue: FairQueue[str] = FairQueue(most)
    for number, caller in enumerate(callers):
        queue.add(caller.split("/"), f"{caller} {number}")
    return queue


def test_keys_take_turns_however_many_places_one_of_them_is_used_at() -> None:
    queue = paths("k1/a/", "k1/b/", "k1/c/", "k2/a/", "k2/a/")

    assert drained(queue) == ["k1/a/ 0", "k2/a/ 3", "k1/b/ 1", "k2/a/ 4", "k1/c/ 2"]


def test_a_client_that_names_many_users_gets_no_more_than_one_that_names_none() -> None:
    queue = paths("k/a/u1", "k/a/u2", "k/a/u3", "k/b/", "k/b/")

    assert drained(queue) == ["k/a/u1 0", "k/b/ 3", "k/a/u2 1", "k/b/ 4", "k/a/u3 2"]


def test_who_gives_way_is_the_greediest_user_at_the_greediest_place_of_the_greediest_key() -> None:
    queue = paths("k1/a/u", "k1/a/u", "k1/a/v", "k1/b/", "k2/a/", most=5)

    assert queue.add(["k2", "a", ""], "one too many") == "k1/a/u 1"


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab"), st.integers(0, 999)), unique=True),
    st.integers(0, 20),
)
def test_nobody_is_lost_and_the_bound_holds(requests: list[tuple[str, str, int]], most: int) -> None:
    queue: FairQueue[tuple[str, str, int]] = FairQueue(most)
    away = [queue.add(request[:2], request) for request in requests]

    assert len(queue) <= most
    planned = list(queue)
    taken = [queue.pop() for _ in range(len(queue))]
    assert taken == planned
    assert sorted(filter(None, [*away, *taken])) == sorted(requests)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab"), st.booleans()), max_size=60))
def test_who_comes_and_goes_is_counted_right(steps: list[tuple[str, str, bool]]) -> None:
    queue: FairQueue[int] = FairQueue(1000)
    there: list[tuple[tuple[str, str], int]] = []
    for number, (key, address, leaves) in enumerate(steps):
        if leaves and there:
            queue.remove(*there.pop(number % len(there)))
        else:
            queue.add((key, address), number)
            there.append(((key, address), number))

        assert len(queue) == len(there)
        assert sorted(queue) == sorted(item for _, item in there)


def test_the_wait_follows_from_the_line_and_the_speed() -> None:
    assert expected_wait(0, 4, 2.0) == 0.5
    assert expected_wait(7, 4, 2.0) == 4.0
    assert expected_wait(3, 0, 1.0) == 4.0
