"""Which machines hold which part of a model that is too big for one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.types import Lending, Member, MeshView, NodeState
from node.shards import Shard, ShardError, Wish, check_wish, plan_shards, read_wish
from tests.helpers.mesh_records import member, view

GIB = 2**30


def lender(name: str, gib: float, *, protocol: str = "p1", round_trip: float = 0.001, **more: object) -> Member:
    return member(name, lending=Lending(protocol, int(gib * GIB)), round_trip=round_trip, **more)


def plan(here: MeshView, needed: float, free: float, wish: Wish = Wish()) -> dict[str, float]:  # noqa: B008
    shards = plan_shards(here, needed=int(needed * GIB), free_here=int(free * GIB), protocol="p1", wish=wish)
    assert math.isclose(sum(shard.share for shard in shards), 1)
    return {shard.node: round(shard.share, 2) for shard in shards}


def test_the_fewest_machines_take_a_part_as_large_as_their_memory() -> None:
    mesh = view("a", lender("b", 8), lender("c", 2), lender("d", 4))

    assert plan(mesh, needed=10, free=4) == {"a": 0.33, "b": 0.67}
    assert plan(mesh, needed=15, free=4) == {"a": 0.25, "b": 0.5, "d": 0.25}


def test_of_machines_that_are_large_enough_the_nearest_is_taken() -> None:
    mesh = view("a", lender("far", 12, round_trip=0.05), lender("near", 8, round_trip=0.001))

    assert plan(mesh, needed=10, free=4) == {"a": 0.33, "near": 0.67}


def test_who_lends_by_another_version_or_is_not_there_takes_no_part() -> None:
    others = lender("old", 64, protocol="p0"), lender("gone", 64, state=NodeState.DEAD), member("stingy")

    with pytest.raises(ShardError, match=r"it needs 10\.0 GiB of memory, and 6\.0 GiB are missing \(a 4\.0 GiB\)"):
        plan(view("a", *others), needed=10, free=4)


def test_a_node_without_memory_to_spare_leaves_all_of_it_to_others() -> None:
    assert plan(view("a", lender("b", 6), lender("c", 6)), needed=10, free=0.1) == {"b": 0.5, "c": 0.5}


def test_the_wished_number_of_machines_and_the_named_ones_are_taken() -> None:
    mesh = view("a", lender("b", 8), lender("c", 8))

    assert plan(mesh, 4, 8, read_wish("3")) == {"a": 0.33, "b": 0.33, "c": 0.33}
    assert plan(mesh, 4, 8, read_wish("c, b")) == {"b": 0.5, "c": 0.5}
    assert plan(mesh, 4, 8, read_wish("1")) == {"a": 1}


@pytest.mark.parametrize(
    ("wish", "complaint"),
    [("nobody", "no node 'nobody'"), ("old", "another version"), ("stingy", "lends nothing"), ("4", "missing")],
)
def test_a_wish_that_cannot_be_granted_says_why(wish: str, complaint: str) -> None:
    mesh = view("a", lender("old", 64, protocol="p0"), member("stingy"), lender("b", 1))

    with pytest.raises(ShardError, match=complaint):
        plan(mesh, 4, 2, read_wish(wish))


@pytest.mark.parametrize("text", ["0", "17", "a,,b", "a,a", ","])
def test_what_is_no_wish_is_refused(text: str) -> None:
    with pytest.raises(ShardError):
        read_wish(text)


@pytest.mark.parametrize("text", ["auto", "3", "a,b"])
def test_a_wish_is_read_as_it_is_written(text: str) -> None:
    assert read_wish(text).text == text


@pytest.mark.parametrize("text", ["\u00b2", "\u0663", "9" * 5000])
def test_what_only_looks_like_a_number_is_a_name_that_nobody_has(text: str) -> None:
    assert read_wish(text) == Wish(nodes=(text,))


machines = st.lists(st.tuples(st.floats(0, 40), st.floats(0, 0.1)), max_size=8)


@given(machines, st.floats(0, 40), st.floats(0.1, 100))
def test_a_plan_holds_the_model_and_no_machine_could_be_left_out(
    lenders: list[tuple[float, float]], free: float, needed: float
) -> None:
    mesh = view("a", *(lender(f"n{i}", gib, round_trip=far) for i, (gib, far) in enumerate(lenders)))
    memory = {"a": int(free * GIB)} | {f"n{i}": int(gib * GIB) for i, (gib, _) in enumerate(lenders)}
    size = int(needed * GIB)
    try:
        shards = plan_shards(mesh, needed=size, free_here=memory["a"], protocol="p1", wish=Wish())
    except ShardError:
        assert sum(m for m in memory.values() if m >= 0.02 * size) < size
        return
    taken = [memory[shard.node] for shard in shards]
    assert sum(taken) >= size
    others = sorted(memory[s.node] for s in shards if s.node != "a")
    assert not others or sum(taken) - others[0] < size or len(shards) == 1
    assert all(0 < s.memory <= memory[s.node] for s in shards)


def test_parts_are_a_little_larger_than_their_share() -> None:
    shards = plan_shards(view("a", lender("b", 64)), needed=10 * GIB, free_here=2 * GIB, protocol="p1", wish=Wish())

    assert all(isinstance(shard, Shard) for shard in shards)
    assert 10 * GIB < sum(shard.memory for shard in shards) < 13 * GIB


def test_a_wish_is_checked_before_anything_is_stopped_for_it() -> None:
    mesh = view("a", lender("b", 1), lender("old", 64, protocol="p0"))

    check_wish(mesh, "p1", read_wish("a,b"))
    check_wish(mesh, "p1", read_wish("2"))
    with pytest.raises(ShardError, match="no node 'nope'"):
        check_wish(mesh, "p1", read_wish("b,nope"))
    with pytest.raises(ShardError, match="2 machines that could take a part, not 9"):
        check_wish(mesh, "p1", read_wish("9"))
