"""Own requests count at once, and only once."""

from collections import Counter

from mesh.routing import rank
from mesh.types import MeshView, NodeId
from node.in_flight import InFlight
from tests.helpers.mesh_records import member, model, view

B = NodeId("b"), "m"


def seen(busy: int) -> MeshView:
    return view("a", member("b", model(busy=busy)))


def test_what_was_sent_since_the_last_announcement_is_added_to_it() -> None:
    ours, before = InFlight(), seen(busy=3)
    ours.sent(before, B, 0.0)
    ours.sent(before, B, 0.1)

    assert ours.taken(before, "m", 0.2) == {B: 3 + 2}


def test_what_an_announcement_counts_is_not_counted_again() -> None:
    ours, before, after = InFlight(), seen(busy=3), seen(busy=5)
    ours.sent(before, B, 0.0)
    ours.sent(before, B, 0.1)

    assert ours.taken(after, "m", 0.5) == {B: 5}
    # And for as long as nothing else is announced.
    assert ours.taken(after, "m", 50.0) == {B: 5}
    ours.sent(after, B, 51.0)
    assert ours.taken(after, "m", 51.0) == {B: 6}


def test_places_are_given_back() -> None:
    ours, now = InFlight(), seen(busy=0)
    begun = [ours.sent(now, B, 1.0), ours.sent(now, B, 1.0), ours.sent(now, B, 2.0)]
    ours.ended(B, begun[0])
    assert ours.taken(now, "m", 2.0) == {B: 2}
    assert ours.taken(now, "other", 2.0) == {}

    ours.ended(B, begun[1])
    ours.ended(B, begun[2])
    assert ours.taken(now, "m", 3.0) == {}


def test_a_burst_is_spread_before_anything_is_announced() -> None:
    nodes = view("x", *(member(f"p{i}", model(busy=i)) for i in range(4)))
    ours = InFlight()
    chosen: Counter[str] = Counter()
    for number in range(10):
        node = next(rank(nodes, "m", request_id=f"r{number}", in_flight=ours.taken(nodes, "m", 1.0))).node
        ours.sent(nodes, (node, "m"), 1.0)
        chosen[node] += 1

    assert {node: chosen[node] + i for i, node in enumerate(("p0", "p1", "p2", "p3"))} == dict.fromkeys(
        ("p0", "p1", "p2", "p3"), 4
    )
