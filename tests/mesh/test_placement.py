"""Which model gets another copy, where, and that only one node decides it."""

from itertools import pairwise
from typing import Any

import pytest

from mesh.placement import Copy, SaturationWatch
from mesh.routing import place_load
from mesh.types import Device, Member, MeshView, ModelState, NodeId, NodeState
from tests.helpers.mesh_records import CPU, GPU, member, model, view

ON_DISK, LOADING = ModelState.ON_DISK, ModelState.LOADING
AFTER = 10.0
GIB = 2**30


def full(node: str, **more: Any) -> Member:
    return member(node, model(**{"busy": 4, "queued": 4} | more))


def disk(node: str, free: int = 8 * GIB, size: int = GIB, **more: Any) -> Member:
    return member(node, model(state=ON_DISK, size=size), devices=(Device("cpu", "CPU", 16 * GIB, free),), **more)


def copies_over_time(seen: MeshView, until: float = 100.0) -> list[tuple[float, Copy]]:
    watch = SaturationWatch(AFTER)
    return [(float(now), copy) for now in range(int(until)) for copy in watch.look(seen, float(now))]


def test_a_model_that_stays_saturated_gets_one_more_copy_and_time_to_use_it() -> None:
    found = copies_over_time(view("a", full("a"), disk("b")))

    assert [copy for _, copy in found] == [Copy("m", "d1", NodeId("b"))] * len(found)
    times = [now for now, _ in found]
    assert times[0] == AFTER
    assert all(later - earlier >= 2 * AFTER for earlier, later in pairwise(times))


def test_of_several_holders_one_decides() -> None:
    members = [full("a"), full("b"), full("c"), disk("d"), disk("e")]

    deciding = [here for here in "abcdex" if copies_over_time(view(here, *members))]

    assert deciding == ["a"]


@pytest.mark.parametrize(
    "members",
    [
        pytest.param([full("a", queued=1), disk("b")], id="a short queue"),
        pytest.param([full("a"), full("b", busy=3, queued=0), disk("c")], id="a free slot elsewhere"),
        pytest.param([full("a"), member("b", model(state=LOADING)), disk("c")], id="a copy is being loaded"),
        pytest.param([full("a"), disk("b", free=GIB // 2)], id="no memory to spare"),
        pytest.param([full("a"), disk("b", state=NodeState.SUSPECT)], id="the only other node is in doubt"),
        pytest.param([full("a"), member("b", model(state=ON_DISK, digest="d2"))], id="another model of that name"),
        pytest.param([full("a")], id="nobody else has the files"),
    ],
)
def test_no_copy_is_made_for(members: list[Member]) -> None:
    assert copies_over_time(view("a", *members)) == []


def test_a_queue_that_breaks_off_begins_anew() -> None:
    watch = SaturationWatch(AFTER)
    busy, calm = view("a", full("a"), disk("b")), view("a", full("a", queued=0), disk("b"))

    seen = [busy if now % 8 else calm for now in range(60)]

    assert not any(watch.look(at, float(now)) for now, at in enumerate(seen))


def test_copies_can_be_turned_off() -> None:
    watch = SaturationWatch(0.0)

    assert not any(watch.look(view("a", full("a"), disk("b")), float(now)) for now in range(100))


def test_a_model_is_loaded_where_memory_is_free_and_else_where_the_idlest_model_makes_room() -> None:
    used = [model("other", idle=level, busy=busy) for level, busy in ((1, 0), (6, 0), (9, 4))]
    wanted = model(state=ON_DISK, size=4 * GIB)
    tight = (Device("cpu", "CPU", 8 * GIB, GIB),)
    members = [member(name, wanted, other, devices=tight) for name, other in zip("abc", used, strict=True)]

    assert place_load(view("x", *members), "m") == "b"
    assert place_load(view("x", *members, member("d", wanted, devices=(CPU,))), "m") == "d"


def test_memory_is_that_of_the_accelerator_where_there_is_one() -> None:
    small = Device("cuda", "small", 4 * GIB, GIB)
    wanted = model(state=ON_DISK, size=4 * GIB)
    members = [member("a", wanted, devices=(CPU, small)), member("b", wanted, devices=(CPU, GPU))]

    assert place_load(view("x", *members), "m") == "b"
