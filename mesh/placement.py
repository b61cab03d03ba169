"""Where a model is loaded, and which model gets another copy. Pure: `now` is passed in.

    in_loading_order(offers)           of nodes with a model's files, who should load it first
    SaturationWatch.look(view, now)    the copies that this node should have made now

A model is **saturated** while all its ready copies are full and on top of that half as many requests wait as they have
slots. If it is so for `after` seconds without a break, it gets one more copy, on a node that has the files and memory
to spare: nothing is unloaded for it. So that not everybody who sees the queue does it, the ready holder with the
lowest id decides alone; and never while a copy is being loaded, or for `PAUSE` windows after the last decision, in
which the new copy can show what it is worth.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mesh.pricing import Offer
from mesh.types import Device, Member, MeshView, ModelRecord, ModelState, NodeId, NodeState

PAUSE = 2.0
"""Windows of `after` seconds."""


@dataclass(frozen=True, slots=True)
class Copy:
    """An order: `node` is to load the model."""

    model: str
    digest: str
    node: NodeId


@dataclass(slots=True)
class _Watched:
    since: float | None = None
    """When the model became saturated."""
    quiet_until: float = float("-inf")


class SaturationWatch:
    """Decides about copies of the models that this node holds. Remembers since when they are saturated."""

    def __init__(self, after: float) -> None:
        """`after`: seconds of saturation; 0: no copies."""
        self._after = after
        self._watched: dict[str, _Watched] = {}

    def look(self, view: MeshView, now: float) -> list[Copy]:
        """Call it about once a second."""
        mine = [m for m in view.me.record.models if m.state is ModelState.READY] if self._after else []
        self._watched = {m.name: self._watched.get(m.name, _Watched()) for m in mine}
        copies = (self._decide(view, model, self._watched[model.name], now) for model in mine)
        return [copy for copy in copies if copy is not None]

    def _decide(self, view: MeshView, model: ModelRecord, watched: _Watched, now: float) -> Copy | None:
        offers = same_copies(view, model)
        if min(o.node for o in offers if o.model.state is ModelState.READY) != view.self_id or not _is_saturated(
            offers
        ):
            watched.since = None
            return None
        if watched.since is None:
            watched.since = now
        if now - watched.since < self._after or now < watched.quiet_until:
            return None
        able = [o for o in in_loading_order(o for o in offers if o.model.state is ModelState.ON_DISK) if has_room(o)]
        if not able:
            return None
        watched.since, watched.quiet_until = None, now + PAUSE * self._after
        return Copy(model.name, model.digest, able[0].node)


def same_copies(view: MeshView, model: ModelRecord) -> list[Offer]:
    """Every live node's copy of exactly this model, in whichever state."""
    found = []
    for node, member in view.members.items():
        record = member.record.model(model.name)
        if record is None or record.digest != model.digest:
            continue
        if member.state is NodeState.ALIVE and not member.record.left:
            found.append(Offer(node, member, record))
    return found


def in_loading_order(offers: Iterable[Offer]) -> list[Offer]:
    """Nodes with an accelerator first; of them, those with memory to spare; then those that have to unload what nobody
    has used for longest. Among equals by rendezvous hashing, so that every entry node finds the same one."""
    return sorted(
        offers,
        key=lambda o: (not _accelerators(o.member), not has_room(o), 0 if has_room(o) else -_idlest(o), -_weight(o)),
    )


def has_room(offer: Offer) -> bool:
    """Whether the model fits into memory that is free there: the accelerators', where there are any."""
    devices = _accelerators(offer.member) or offer.member.record.devices
    return offer.model.size <= sum(device.memory_free for device in devices)


def _is_saturated(offers: Sequence[Offer]) -> bool:
    ready = [o.model for o in offers if o.model.state is ModelState.READY]
    if any(o.model.state is ModelState.LOADING for o in offers) or not all(0 < m.slots <= m.busy for m in ready):
        return False
    return 2 * sum(m.queued for m in ready) >= sum(m.slots for m in ready)


def _accelerators(member: Member) -> list[Device]:
    return [device for device in member.record.devices if device.kind != "cpu"]


def _idlest(offer: Offer) -> int:
    """How long the model has not been used that would be the first to go."""
    models = offer.member.record.models
    return max((m.idle for m in models if m.state is ModelState.READY and not m.busy), default=-1)


def _weight(offer: Offer) -> int:
    # Highest random weight: each node's weight for a model depends on nothing else, so a node that
    # joins or leaves moves only the models that it wins or held.
    text = f"{offer.model.name}\0{offer.model.digest}\0{offer.node}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
