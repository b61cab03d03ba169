"""Which machines hold which part of a model that is too big for one. Pure.

The fewest machines whose free memory holds it, the nearest among those that do; each takes a part as large as its
free memory is of all. What llama.cpp passes on between them is one vector per token and machine, so what counts is
the round trip, not the width of the link; and each machine more adds one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mesh.types import Member, MeshView, NodeId, NodeState

LEAST_SHARE = 0.02
"""A machine that could take less than this part of a model is left out: it would cost more than it brings."""


ROOM, SPARE = 1.25, 64 * 2**20
"""What a part may take above its share of what the model needs: whole layers do not divide evenly, and each machine
has buffers of its own (bytes)."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How a model should be split, as a person said it."""

    count: int = 0
    """Over so many machines; 0: as many as it needs."""
    nodes: tuple[str, ...] = ()
    """Over these, by name or id; empty: whichever suit."""

    @property
    def text(self) -> str:
        """As `read_wish` reads it."""
        return ",".join(self.nodes) or (str(self.count) if self.count else "auto")


class ShardError(ValueError):
    """It cannot be split like that; the text says why, and what is missing."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a model."""

    node: NodeId
    name: str
    share: float
    """Of the whole, 0 to 1."""
    memory: int
    """Bytes that it may take there."""
    is_wished: bool = False
    """A person named the machines, so that the shares are not for the engine to choose."""


@dataclass(frozen=True, slots=True)
class _Machine:
    node: NodeId
    name: str
    memory: int
    distance: float


def read_wish(text: str) -> Wish:
    """`auto`, a number of machines, or names of nodes with commas between.

    Raises:
        ShardError: none of them.
    """
    text = text.strip()
    if text in ("", "auto"):
        return Wish()
    if text.isascii() and text.isdigit() and len(text) <= 9:
        count = int(text)
        if not 1 <= count <= 16:
            raise ShardError(f"a model can be split over 1 to 16 machines, not {count}")
        return Wish(count=count)
    nodes = tuple(name.strip() for name in text.split(","))
    if not all(nodes) or len(set(nodes)) != len(nodes):
        raise ShardError(f"{text!r} is not a list of nodes: name each once, with commas between")
    return Wish(nodes=nodes)


def check_wish(view: MeshView, protocol: str, wish: Wish) -> None:
    """Before anything is stopped for it.

    Raises:
        ShardError: a node that it names is not there or does not lend, or there are fewer machines than it wants.
    """
    able = [m for m in map(_lender, view.members.values()) if m is not None and _protocol(view, m) == protocol]
    here = _Machine(view.self_id, view.me.record.name, 0, 0.0)
    others = [m for m in able if m.node != view.self_id]
    for name in wish.nodes:
        _named(name, here, others, view)
    if wish.count > len(others) + 1:
        raise ShardError(f"there are {len(others) + 1} machines that could take a part, not {wish.count}")


def plan_shards(view: MeshView, *, needed: int, free_here: int, protocol: str, wish: Wish) -> tuple[Shard, ...]:
    """The parts of a model of `needed` bytes, this node's own first if it takes one; the shares add up to 1.

    Only nodes that lend by the same `protocol` take part.

    Raises:
        ShardError: there is not enough memory, or the wish cannot be granted.
    """
    here = _Machine(view.self_id, view.me.record.name, free_here, 0.0)
    others = [m for m in map(_lender, view.members.values()) if m is not None and m.node != view.self_id]
    able = [m for m in others if _protocol(view, m) == protocol]
    if wish.nodes:
        chosen = [_named(name, here, able, view) for name in wish.nodes]
    else:
        chosen = _fewest(here, able, needed, wish.count)
    if sum(m.memory for m in chosen) < needed:
        raise ShardError(_missing(needed, chosen))
    return _shares([m for m in chosen if m.memory > 0], needed, is_wished=wish != Wish())


def _fewest(here: _Machine, able: Sequence[_Machine], needed: int, count: int) -> list[_Machine]:
    large = sorted((m for m in able if m.memory >= LEAST_SHARE * needed), key=lambda m: (-m.memory, m.distance))
    start = [here] if here.memory >= LEAST_SHARE * needed else []
    for others in range(max(0, count - len(start)) if count else 0, (count or len(large) + 1)):
        chosen = [*start, *large[:others]]
        if count and len(chosen) != count:
            break
        if sum(m.memory for m in chosen) >= needed:
            return start + _nearest(large, others, needed - sum(m.memory for m in start))
    return [*start, *(large[: count - len(start)] if count else large)]


def _nearest(large: list[_Machine], count: int, needed: int) -> list[_Machine]:
    """`count` machines with `needed` bytes together: the largest, each changed for a nearer one where that will do."""
    chosen, spare = large[:count], sorted(large[count:], key=lambda m: m.distance)
    for index, machine in enumerate(chosen):
        others = sum(m.memory for m in chosen) - machine.memory
        for nearer in spare:
            if nearer.distance < machine.distance and others + nearer.memory >= needed:
                chosen[index] = nearer
                spare[spare.index(nearer)] = machine
                break
    return chosen


def _shares(machines: Sequence[_Machine], needed: int, *, is_wished: bool) -> tuple[Shard, ...]:
    total = sum(m.memory for m in machines)
    return tuple(
        Shard(m.node, m.name, m.memory / total, min(m.memory, int(ROOM * needed * m.memory / total) + SPARE), is_wished)
        for m in machines
    )


def _named(name: str, here: _Machine, able: Sequence[_Machine], view: MeshView) -> _Machine:
    if name in (here.name, here.node):
        return here
    found = [m for m in able if m.node == name] or [m for m in able if m.name == name]
    if len(found) > 1:
        raise ShardError(f"several nodes are called {name!r}; use an id: {', '.join(m.node for m in found)}")
    if found:
        return found[0]
    known = [m for m in view.members.values() if name in (m.record.name, m.record.id) and _is_there(m)]
    if not known:
        raise ShardError(f"no node {name!r} in the mesh")
    lending = known[0].record.lending
    why = "lends nothing" if lending is None else f"lends by {lending.protocol}, another version than this node's"
    raise ShardError(f"node {name!r} {why}")


def _lender(member: Member) -> _Machine | None:
    record = member.record
    if record.lending is None or not _is_there(member):
        return None
    return _Machine(record.id, record.name, record.lending.memory, member.round_trip or 0.0)


def _is_there(member: Member) -> bool:
    return member.state is NodeState.ALIVE and not member.record.left


def _protocol(view: MeshView, machine: _Machine) -> str | None:
    lending = view.members[machine.node].record.lending
    return lending.protocol if lending is not None else None


def _missing(needed: int, machines: Sequence[_Machine]) -> str:
    parts = ", ".join(f"{m.name} {_size(m.memory)}" for m in machines) or "nobody lends any"
    lacking = needed - sum(m.memory for m in machines)
    return f"it needs {_size(needed)} of memory, and {_size(lacking)} are missing ({parts})"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
