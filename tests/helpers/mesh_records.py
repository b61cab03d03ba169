"""Records and views for tests, with only what matters to the test spelled out."""

from types import MappingProxyType
from typing import Any

from mesh.types import Device, Member, MeshView, ModelRecord, ModelState, NodeId, NodeRecord, NodeState


def model(name: str = "m", state: ModelState = ModelState.READY, **fields: Any) -> ModelRecord:
    known: dict[str, Any] = {"digest": "d1", "engine": "echo", "slots": 4}
    return ModelRecord(name=name, state=state, **(known | fields))


def record(node: str, version: int = 1, *models: ModelRecord, incarnation: int = 1, **fields: Any) -> NodeRecord:
    known: dict[str, Any] = {"name": node, "news": version, "addresses": (f"/ip4/10.0.0.1/tcp/1/{node}",)}
    return NodeRecord(
        id=NodeId(node), incarnation=incarnation, version=version, models=tuple(models), **(known | fields)
    )


def member(node: str, *models: ModelRecord, state: NodeState = NodeState.ALIVE, **fields: Any) -> Member:
    round_trip = fields.pop("round_trip", None)
    return Member(record(node, 1, *models, **fields), state, round_trip)


def view(here: str, *members: Member) -> MeshView:
    """What node `here` sees."""
    known = {m.record.id: m for m in members}
    known.setdefault(NodeId(here), member(here))
    return MeshView(NodeId(here), MappingProxyType(known))


GPU = Device("cuda", "RTX", 24 * 2**30, 20 * 2**30)
CPU = Device("cpu", "CPU", 16 * 2**30, 8 * 2**30)
