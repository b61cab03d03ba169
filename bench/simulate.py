"""`make simulate`: the gossip of 8 to 1,000 nodes, the production code on a pretend network; figures against N.

Every mesh forms, idles, hears news, loses nodes by kill and by freezing, and is then left alone on a lossy network.
Simulated seconds, but for the last column. One seed gives the same figures every time.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import click
from rich.console import Console
from rich.table import Table

from mesh.gossip import GossipCore
from mesh.types import NodeId, NodeState
from tests.helpers.mesh_records import model
from tests.helpers.mesh_simulation import Simulation

STEP = 0.05
"""Seconds between looks at the mesh: how exact the figures are."""

PATIENCE = 60.0
"""Seconds after which a figure counts as infinite."""

CHANGES, DEATHS = 5, 2


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds, bytes per second and node, counts."""

    nodes: int
    forms: float
    news_median: float
    news_worst: float
    killed: float
    frozen: float
    idle_bytes: float
    idle_bytes_worst: float
    churn_bytes: float
    links: float
    false_accusations: int
    false_deaths: int
    took: float


def measure(count: int, seed: int) -> Figures:
    """Run one mesh of `count` nodes through it all."""
    started = time.perf_counter()
    rng = random.Random(seed)
    names = [f"node{n}" for n in range(count)]
    sim = Simulation(names, seed=seed, jitter=0.005, skew=0.01)
    for index, name in enumerate(names[1:], 1):
        sim.meet(name, names[rng.randrange(index)])
    forms = _until(sim, lambda: _agree(sim, count))
    sim.run(15)
    idle = _traffic(sim, names, 5)
    changes = [_change(sim, name, n) for n, name in enumerate(rng.choices(names, k=CHANGES))]
    before, at = sim.bytes_out.total(), sim.now
    links = statistics.mean(len(sim.links(name)) for name in names)
    deaths = min(DEATHS, count // 8)
    lost = rng.sample(names, 2 * deaths)
    killed = [_kill(sim, name) for name in lost[:deaths]]
    frozen = [_freeze(sim, name) for name in lost[deaths:]]
    churn = (sim.bytes_out.total() - before) / (sim.now - at) / count
    sim.loss = 0.01
    sim.false_accusations.clear()
    false_deaths = 0
    for _ in range(2):
        sim.run(5)
        false_deaths += _wrongly_dead(sim)
    return Figures(
        nodes=count,
        forms=forms,
        news_median=statistics.median(changes),
        news_worst=max(changes),
        killed=max(killed),
        frozen=max(frozen),
        idle_bytes=statistics.mean(idle),
        idle_bytes_worst=max(idle),
        churn_bytes=churn,
        links=links,
        false_accusations=len(sim.false_accusations),
        false_deaths=false_deaths,
        took=time.perf_counter() - started,
    )


def _until(sim: Simulation, is_so: Callable[[], bool]) -> float:
    start = sim.now
    while not is_so():
        if sim.now - start > PATIENCE:
            return float("inf")
        sim.run(STEP)
    return sim.now - start


def _agree(sim: Simulation, count: int) -> bool:
    return len({core.fingerprint for core in sim.cores.values()}) == 1 and all(
        len(core.view.members) == count for core in sim.cores.values()
    )


def _traffic(sim: Simulation, names: list[str], seconds: float) -> list[float]:
    before = dict(sim.bytes_out)
    sim.run(seconds)
    return [(sim.bytes_out[name] - before.get(name, 0)) / seconds for name in names]


def _change(sim: Simulation, name: str, n: int) -> float:
    sim.announce(name, model(f"model{n}"))
    version = sim.cores[name].view.me.record.version
    waiting = [core for other, core in sim.cores.items() if other != name]

    def all_know() -> bool:
        waiting[:] = [core for core in waiting if not _knows(core, name, version)]
        return not waiting

    return _until(sim, all_know)


def _knows(core: GossipCore, name: str, version: int) -> bool:
    member = core.member(NodeId(name))
    return member is not None and member.record.version >= version


def _kill(sim: Simulation, name: str) -> float:
    sim.kill(name)
    return _until_dead(sim, name)


def _freeze(sim: Simulation, name: str) -> float:
    sim.frozen.add(name)
    return _until_dead(sim, name)


def _until_dead(sim: Simulation, name: str) -> float:
    watching = [core for other, core in sim.cores.items() if other != name and other not in sim.frozen]

    def all_know() -> bool:
        watching[:] = [core for core in watching if (m := core.member(NodeId(name))) and m.state is not NodeState.DEAD]
        return not watching

    return _until(sim, all_know)


def _wrongly_dead(sim: Simulation) -> int:
    living = [NodeId(name) for name in sim.cores if name not in sim.frozen]
    return sum(
        1
        for name in living
        for other in living
        if name != other and ((m := sim.cores[name].member(other)) is None or m.state is NodeState.DEAD)
    )


@click.command()
@click.option("--nodes", "counts", multiple=True, type=int, default=(8, 64, 256, 1000), show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(counts: tuple[int, ...], seed: int) -> None:
    """Simulate meshes of several sizes and print what they need. Bars: news in 5 s, death in 8 s, 20 KB/s per node."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in (
        "nodes", "links", "forms", "news p50", "worst", "killed", "frozen", "idle B/s", "worst", "churn B/s",
        "false accusations", "false deaths", "took",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    gc.disable()  # A thousand views are one large graph; nothing in it goes in circles.
    for count in counts:
        f = measure(count, seed)
        table.add_row(
            f"{f.nodes}",
            f"{f.links:.0f}",
            *(f"{s:.2f} s" for s in (f.forms, f.news_median, f.news_worst, f.killed, f.frozen)),
            *(f"{b:,.0f}" for b in (f.idle_bytes, f.idle_bytes_worst, f.churn_bytes)),
            f"{f.false_accusations}",
            f"{f.false_deaths}",
            f"{f.took:.0f} s",
        )
    Console(highlight=False, width=160).print(table)


if __name__ == "__main__":
    main()
