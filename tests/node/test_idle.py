"""Which models are unloaded."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.idle import Loaded, idle_level, in_the_way, next_due, overdue


def loaded(name: str = "m", **fields: Any) -> Loaded:
    usual: dict[str, Any] = {"last_used_at": 0.0, "keep_for": 60.0, "is_busy": False, "memory": 10.0}
    return Loaded(name=name, **(usual | fields))


@pytest.mark.parametrize(
    ("model", "is_unloaded"),
    [
        pytest.param(loaded(), True, id="unused for long enough"),
        pytest.param(loaded(last_used_at=50.0), False, id="used a moment ago"),
        pytest.param(loaded(is_busy=True), False, id="busy since long"),
        pytest.param(loaded(is_pinned=True), False, id="pinned"),
        pytest.param(loaded(keep_for=math.inf), False, id="kept for good"),
        pytest.param(loaded(keep_for=0.0, last_used_at=100.0), True, id="not kept at all"),
    ],
)
def test_a_model_is_unloaded_when_nobody_used_it_for_as_long_as_it_is_kept(model: Loaded, is_unloaded: bool) -> None:
    assert (overdue([model], now=100.0) == ["m"]) is is_unloaded


def test_the_next_one_due_is_known_beforehand() -> None:
    assert next_due([loaded(), loaded(last_used_at=5.0, keep_for=10.0), loaded(keep_for=1.0, is_busy=True)]) == 15.0
    assert next_due([]) == math.inf


@pytest.mark.parametrize(
    ("needed", "free", "unloaded"),
    [
        pytest.param(10, 10, [], id="it fits"),
        pytest.param(15, 10, ["old"], id="the longest unused one is enough"),
        pytest.param(25, 10, ["old", "new"], id="both"),
        pytest.param(31, 10, [], id="nothing would help"),
    ],
)
def test_room_is_made_by_the_longest_unused(needed: float, free: float, unloaded: list[str]) -> None:
    models = [
        loaded("new", last_used_at=9.0),
        loaded("old", last_used_at=1.0),
        loaded("busy", is_busy=True),
        loaded("pinned", is_pinned=True),
    ]

    assert in_the_way(models, needed=needed, free=free) == unloaded


def test_room_on_the_gpus_is_made_by_what_is_on_them() -> None:
    models = [loaded("in memory", last_used_at=1.0), loaded("on the GPU", last_used_at=2.0, is_on_gpu=True)]

    assert in_the_way(models, needed=10, free=0, on_gpu=True) == ["on the GPU"]
    assert in_the_way(models, needed=10, free=0, on_gpu=False) == ["in memory"]


@pytest.mark.parametrize(("seconds", "level"), [(0, 0), (60, 0), (61, 1), (120, 1), (121, 2), (3600, 6), (1e9, 24)])
def test_how_long_a_model_was_idle_is_told_coarsely(seconds: float, level: int) -> None:
    assert idle_level(seconds) == level


MODELS = st.lists(
    st.builds(
        loaded,
        st.uuids().map(str),
        last_used_at=st.floats(0, 100),
        is_busy=st.booleans(),
        is_pinned=st.booleans(),
        memory=st.floats(0, 50),
    ),
    max_size=8,
)


@given(MODELS, st.floats(0, 200), st.floats(0, 200))
def test_no_busy_or_pinned_model_ever_makes_room_and_none_in_vain(
    models: list[Loaded], needed: float, free: float
) -> None:
    by_name = {m.name: m for m in models}
    chosen = [by_name[name] for name in in_the_way(models, needed=needed, free=free)]

    assert not any(m.is_busy or m.is_pinned for m in chosen)
    if chosen:
        freed = free + sum(m.memory for m in chosen)
        assert freed >= needed
        assert freed - chosen[-1].memory < needed
