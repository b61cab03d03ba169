"""A mesh of `GossipCore`s on a pretend network: delays, losses, kills and partitions on a jumping clock.

    sim = Simulation("abc", seed=1)
    sim.meet("a", "b"); sim.run(5)
    sim.kill("c"); sim.run(5)
    sim.states("a")     # {"b": "alive", "c": "dead"}

Deterministic for one seed. A minute of mesh life takes milliseconds.
"""

import heapq
import itertools
import random
from collections.abc import Iterable
from dataclasses import replace

from mesh.codec import Message, SignedRecord
from mesh.config import GossipConfig
from mesh.gossip import Action, Dial, Disconnect, GossipCore, Send
from mesh.types import ModelRecord, NodeId, NodeRecord
from tests.helpers.mesh_records import record

DIAL_TIMEOUT = 2.0


def unsigned(node: NodeRecord) -> SignedRecord:
    return SignedRecord(node, b"")


class Simulation:
    def __init__(
        self,
        names: Iterable[str],
        *,
        seed: int = 0,
        delay: float = 0.002,
        loss: float = 0.0,
        config: GossipConfig | None = None,
    ) -> None:
        self.now = 0.0
        self.config = config or GossipConfig()
        self.delay = delay
        self.loss = loss
        self.messages = 0
        self.cores: dict[str, GossipCore] = {}
        self.frozen: set[str] = set()
        """Stopped as by SIGSTOP: connections stay, nothing moves."""
        self._rng = random.Random(seed)
        self._order = itertools.count()
        self._events: list[tuple[float, int, tuple[object, ...]]] = []
        self._links: set[frozenset[str]] = set()
        self._walls: set[frozenset[str]] = set()
        self._incarnations: dict[str, int] = {}
        for name in names:
            self.start(name)

    # -- what tests do

    def start(self, name: str, incarnation: int | None = None) -> None:
        """Start a node, or start it again with nothing remembered but its identity."""
        self._incarnations[name] = incarnation or self._incarnations.get(name, 0) + 1
        own = record(name, 0, incarnation=self._incarnations[name], addresses=(name,))
        self.cores[name] = GossipCore(own, self.config, unsigned, random.Random(self._rng.random()))
        self._at(self.now + self._rng.uniform(0, self.config.tick_every), "tick", name, self.cores[name])

    def meet(self, a: str, b: str) -> None:
        self._connect(a, b)

    def announce(self, name: str, *models: ModelRecord) -> None:
        own = self.cores[name].view.me.record
        self._do(name, self.cores[name].announce(replace(own, models=models), self.now))

    def leave(self, name: str) -> None:
        self._do(name, self.cores[name].leave(self.now))

    def kill(self, name: str) -> None:
        """As by SIGKILL: its connections break, nobody listens there any more."""
        del self.cores[name]
        for link in [link for link in self._links if name in link]:
            self._disconnect(link)

    def part(self, group: Iterable[str], others: Iterable[str]) -> None:
        """A pulled cable: nothing passes between the groups, and nobody is told."""
        self._walls |= {frozenset((a, b)) for a in group for b in others}

    def heal(self) -> None:
        self._walls.clear()

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            self._happen(event)
        self.now = end

    def states(self, name: str) -> dict[str, str]:
        """How `name` sees the others."""
        members = self.cores[name].view.members
        return {str(node): str(m.state) for node, m in members.items() if node != name}

    def records(self, name: str) -> set[tuple[str, int, int]]:
        members = self.cores[name].view.members.values()
        return {(m.record.id, m.record.incarnation, m.record.version) for m in members}

    def is_converged(self) -> bool:
        """Everybody running sees the same records, and everybody running as alive."""
        everyone = set(self.cores)
        return len({frozenset(self.records(name)) for name in everyone}) == 1 and all(
            self.states(name).get(other) == "alive" for name in everyone for other in everyone - {name}
        )

    # -- what the network does

    def _at(self, when: float, *event: object) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    def _happen(self, event: tuple[object, ...]) -> None:
        match event:
            case ("tick", str(name), GossipCore() as core):
                if self.cores.get(name) is core:
                    if name not in self.frozen:
                        self._do(name, core.tick(self.now))
                    self._at(self.now + self.config.tick_every, "tick", name, core)
            case ("message", str(source), str(target), message):
                if target in self.frozen:
                    self._at(self.now + 0.1, *event)
                elif self._link(source, target) in self._links and not self._is_walled(source, target):
                    core = self.cores[target]
                    self._do(target, core.received(NodeId(source), message, self.now))  # type: ignore[arg-type]
            case ("dial", str(source), str(target)):
                self._dial(source, target)
            case ("timeout", str(source), str(target)):
                if source in self.cores:
                    self._do(source, self.cores[source].dial_failed(NodeId(target), self.now, is_refused=False))
            case ("gone", str(name), str(peer)):
                if name in self.frozen:
                    self._at(self.now + 0.1, *event)
                elif name in self.cores and self._link(name, peer) not in self._links:
                    self._do(name, self.cores[name].disconnected(NodeId(peer), self.now))

    def _do(self, name: str, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send(peer, message):
                    self._send(name, peer, message)
                case Dial(peer, _):
                    self._at(self.now + self.delay, "dial", name, str(peer))
                case Disconnect(peer, _):
                    self._disconnect(self._link(name, peer))

    def _send(self, source: str, target: str, message: Message) -> None:
        self.messages += 1
        delay = self.delay * self._rng.uniform(0.5, 1.5)
        # Connections are TCP: what is lost arrives all the same, after one or more timeouts.
        timeout = 0.2
        while self._rng.random() < self.loss:
            delay += timeout
            timeout *= 2
        self._at(self.now + delay, "message", source, str(target), message)

    def _dial(self, source: str, target: str) -> None:
        core = self.cores.get(source)
        if core is None:
            return
        if self._is_walled(source, target) or target in self.frozen:
            self._at(self.now + DIAL_TIMEOUT, "timeout", source, target)
        elif target not in self.cores:
            self._do(source, core.dial_failed(NodeId(target), self.now, is_refused=True))
        else:
            self._connect(source, target)

    def _connect(self, a: str, b: str) -> None:
        link = self._link(a, b)
        if link in self._links:
            return
        self._links.add(link)
        for name, peer in ((a, b), (b, a)):
            self._do(name, self.cores[name].connected(NodeId(peer), self.now))

    def _disconnect(self, link: frozenset[str]) -> None:
        if link in self._links:
            self._links.remove(link)
            a, b = link
            self._at(self.now + self.delay, "gone", a, b)
            self._at(self.now + self.delay, "gone", b, a)

    def _link(self, a: str, b: str) -> frozenset[str]:
        return frozenset((str(a), str(b)))

    def _is_walled(self, a: str, b: str) -> bool:
        return self._link(a, b) in self._walls
