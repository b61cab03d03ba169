"""Refusals that are fresh, each once; and since when a node is what it is."""

import pytest

from mesh.stats import MOST_REFUSALS, REFUSAL_LASTS, RefusalBook, StateTimes
from mesh.types import NodeId, NodeState
from tests.helpers.mesh_records import member, view

REASON = "does not share our token"


@pytest.fixture
def book() -> RefusalBook:
    return RefusalBook()


def test_only_the_first_of_a_kind_is_news(book: RefusalBook) -> None:
    assert book.add("10.0.0.2", 4001, REASON, 0)
    assert not book.add("10.0.0.2", 4001, REASON, 5)

    [refusal] = book.recent(10)
    assert (refusal.address, refusal.count, refusal.at) == ("10.0.0.2:4001", 2, 5)


def test_a_refusal_goes_stale(book: RefusalBook) -> None:
    book.add("10.0.0.2", 4001, REASON, 0)

    assert book.recent(REFUSAL_LASTS - 1)
    assert not book.recent(REFUSAL_LASTS)


def test_who_became_a_member_is_refused_no_more(book: RefusalBook) -> None:
    book.add("10.0.0.2", 4001, REASON, 0)
    book.add("10.0.0.2", None, REASON, 0)
    book.add("10.0.0.3", None, REASON, 0)

    book.admitted("10.0.0.2")

    assert [refusal.host for refusal in book.recent(1)] == ["10.0.0.3"]


def test_calling_and_being_called_by_one_stranger_is_one_refusal(book: RefusalBook) -> None:
    book.add("10.0.0.2", None, REASON, 0)
    book.add("10.0.0.2", 4001, REASON, 1)
    book.add("10.0.0.2", None, REASON, 2)
    book.add("10.0.0.2", None, "nonsense", 2)

    assert [(r.address, r.reason) for r in book.recent(3)] == [("10.0.0.2:4001", REASON), ("10.0.0.2", "nonsense")]


def test_strangers_do_not_fill_the_memory(book: RefusalBook) -> None:
    for number in range(2 * MOST_REFUSALS):
        book.add(f"10.0.0.{number}", None, REASON, 0)

    assert len(book.recent(1)) == MOST_REFUSALS


def test_since_when_a_node_is_what_it_is() -> None:
    times = StateTimes()
    times.look(view("a", member("b")), 10)
    times.look(view("a", member("b")), 20)
    assert times.seconds(25)[NodeId("b")] == 15

    times.look(view("a", member("b", state=NodeState.LEFT)), 30)
    assert times.seconds(31)[NodeId("b")] == 1

    times.look(view("a"), 40)
    assert NodeId("b") not in times.seconds(41)
