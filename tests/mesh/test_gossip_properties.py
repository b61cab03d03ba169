"""What must hold for every history."""

import random
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.codec import Records, SignedRecord
from mesh.config import GossipConfig
from mesh.gossip import GossipCore
from mesh.types import NodeId, NodeRecord
from tests.helpers.mesh_records import model, record
from tests.helpers.mesh_simulation import Simulation, unsigned

NAMES = "abcde"

# Content follows from (node, incarnation, version), as it does in life: a node never publishes two
# different records under one version.
records = st.builds(
    lambda node, incarnation, version: record(
        node, version, model(busy=version), incarnation=incarnation, left=version == 4
    ),
    st.sampled_from("bcd"),
    st.integers(1, 3),
    st.integers(1, 4),
)


def view_after(history: Sequence[NodeRecord]) -> set[NodeRecord]:
    core = GossipCore(record("a", 0), GossipConfig(), unsigned, random.Random(0))
    core.connected(NodeId("z"), 0)
    for arrived in history:
        core.received(NodeId("z"), Records((SignedRecord(arrived, b""),)), 0)
    return {member.record for member in core.view.members.values()}


@given(st.lists(records).flatmap(lambda h: st.tuples(st.just(h), st.permutations(h))))
def test_arrival_order_does_not_matter(histories: tuple[list[NodeRecord], list[NodeRecord]]) -> None:
    sent, arrived = histories

    assert view_after(sent) == view_after(arrived)


@given(st.lists(records))
def test_hearing_everything_twice_changes_nothing(history: list[NodeRecord]) -> None:
    assert view_after(history) == view_after([*history, *history])


trouble = st.one_of(
    st.tuples(st.just("announce"), st.sampled_from(NAMES)),
    st.tuples(st.just("restart"), st.sampled_from(NAMES)),
    st.tuples(st.just("freeze"), st.sampled_from(NAMES)),
    st.tuples(st.just("thaw"), st.sampled_from(NAMES)),
    st.tuples(st.just("part"), st.sampled_from(NAMES)),
    st.tuples(st.just("heal"), st.sampled_from(NAMES)),
    st.tuples(st.just("wait"), st.sampled_from(NAMES)),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**16), st.lists(trouble, max_size=12))
def test_after_any_trouble_all_come_to_one_view(seed: int, history: list[tuple[str, str]]) -> None:
    sim = Simulation(NAMES, seed=seed, loss=0.05)
    for other in NAMES[1:]:
        sim.meet(NAMES[0], other)
    sim.run(2)
    for what, name in history:
        match what:
            case "announce":
                sim.announce(name, model(busy=int(sim.now)))
            case "restart":
                sim.kill(name)
                sim.run(0.3)
                sim.start(name)
                sim.meet(name, NAMES[NAMES.index(name) - 1])
            case "freeze":
                sim.frozen.add(name)
            case "thaw":
                sim.frozen.discard(name)
            case "part":
                sim.part(name, set(NAMES) - {name})
            case "heal":
                sim.heal()
        sim.run(1.7)

    sim.heal()
    sim.frozen.clear()
    sim.loss = 0.0
    sim.run(60)

    assert sim.is_converged(), {name: sim.states(name) for name in sim.cores}
