"""What mDNS lists: a node is there while any of its announcements is."""

import pytest

from mesh.addresses import Address
from mesh.announced import MOST_NAMES, Announced
from mesh.mdns_text import Heard
from mesh.types import NodeId


def heard(node: str, port: int = 1, fingerprint: str = "ours") -> Heard:
    return Heard(NodeId(node), fingerprint, (Address("10.0.0.1", port, NodeId(node)),))


@pytest.fixture
def announced() -> Announced:
    return Announced()


def test_a_node_is_listed_once_and_as_it_announced_itself_last(announced: Announced) -> None:
    for name, port in (("its last life", 1), ("this life", 2)):
        announced.add(name)
        announced.heard(name, heard("b", port))

    assert announced.nodes() == [heard("b", 2)]


def test_a_node_is_gone_with_its_last_announcement(announced: Announced) -> None:
    for name in ("its last life", "this life"):
        announced.add(name)
        announced.heard(name, heard("b"))

    assert announced.removed("its last life") is None
    assert announced.removed("this life") == "b"
    assert announced.nodes() == []


def test_an_announcement_that_was_taken_back_before_it_was_read_is_nothing(announced: Announced) -> None:
    announced.add("x")
    assert announced.removed("x") is None

    announced.heard("x", heard("b"))

    assert announced.nodes() == []


def test_when_nobody_listens_nobody_is_listed(announced: Announced) -> None:
    announced.add("x")
    announced.heard("x", heard("b"))

    assert announced.clear() == ["b"]
    assert "x" not in announced


def test_a_network_full_of_names_costs_only_so_much(announced: Announced) -> None:
    assert [announced.add(str(number)) for number in range(MOST_NAMES + 1)][-2:] == [True, False]
    assert announced.add("0")
