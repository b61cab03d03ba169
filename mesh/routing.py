"""Who should answer: a ranking of nodes for one request, with a reason for each. Pure.

    rank(view, model, …) -> [Candidate, …]     try them in this order

Order, before anything else:

    1. nodes where the model is ready        least loaded first, this node preferred
    2. nodes that are loading it             waiting there is shorter than loading again
    3. nodes that have it on disk            the same one on every entry node: `place_load`
    4. of the above, those under suspicion   only when nothing else is left

Dead and departed nodes, and models that drain, are no candidates.

Among ready nodes the cost of one is

    (places taken per slot, the request itself counted) / relative speed + distance

The cheapest are as good as equal when they differ little; of those, two are drawn with the request
id as the seed and the better one wins (power of two choices). So many entry nodes with the same,
slightly stale view do not all run to the same peer. This node is preferred unless it is clearly
busier: a hop is not free, and sending requests back and forth helps nobody.

One name, one digest: two models of one name with different digests are not the same model. A name
resolves to one digest per entry node, see `resolve`. `Candidate.terms` says how a cost came about.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from mesh.types import Member, MeshView, ModelRecord, ModelState, NodeId, NodeState

LOCAL_PREFERENCE = 0.5
"""A peer must be this much cheaper (in full loads of a node) before a request leaves this node. Less,
and two equally busy nodes send each other their requests; more, and a busy node keeps its queue while
another idles."""

ABOUT_EQUAL = 0.15
"""Costs closer than this count as equal: gossip is a moment old, and they changed since."""

DISTANCE_COST = 4.0
"""Per second of round trip: 25 ms of network weigh as much as a tenth of a node's load."""

SLOWEST = 0.05
"""Least relative speed. Bounds how much a peer may gain by claiming to be fast."""

_NO_ONE: Mapping[tuple[NodeId, str], int] = MappingProxyType({})

Kind = Literal["local", "forward", "load"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that could answer."""

    node: NodeId
    digest: str
    kind: Kind
    """"load": the node would have to load the model first."""
    why: str
    """A few words for `x-shoal-route`."""
    cost: float = 0.0
    terms: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Needs:
    """What a request asks of a model, beyond its name."""

    capabilities: frozenset[str] = frozenset()
    context_length: int = 0
    """Tokens, prompt and answer together, if known."""


@dataclass(frozen=True, slots=True)
class _Offer:
    """One node's copy of the model."""

    member: Member
    model: ModelRecord

    @property
    def node(self) -> NodeId:
        return self.member.record.id


def rank(
    view: MeshView,
    model: str,
    *,
    request_id: str = "",
    in_flight: Mapping[tuple[NodeId, str], int] = _NO_ONE,
    needs: Needs = Needs(),
) -> list[Candidate]:
    """Everybody who could answer a request for `model`, the best first.

    `in_flight` counts this node's own running requests by (node, model): it knows of them before
    the holder's next announcement does.
    """
    digest = resolve(view, model)
    if digest is None:
        return []
    offers = [o for o in _offers(view, model) if o.model.digest == digest and _fits(o.model, needs)]
    trusted = [o for o in offers if o.member.state is NodeState.ALIVE]
    doubted = [o for o in offers if o.member.state is NodeState.SUSPECT]
    return [
        *_rank_trusted(view, trusted, model, request_id, in_flight),
        *(_doubtful(c) for c in _rank_trusted(view, doubted, model, request_id, in_flight)),
    ]


def resolve(view: MeshView, model: str) -> str | None:
    """The digest that `model` means on this node; None if nobody has it.

    This node's own copy decides: people expect a name to mean the file they put there. Otherwise
    the digest that is ready on most nodes, then the one most nodes have; the smallest of equals.
    """
    offers = _offers(view, model)
    own = next((o for o in offers if o.node == view.self_id), None)
    if own is not None:
        return own.model.digest
    for among in (_in_state(offers, ModelState.READY), offers):
        counts = Counter(o.model.digest for o in among)
        if counts:
            return min(counts, key=lambda digest: (-counts[digest], digest))
    return None


def turned_down(view: MeshView, model: str, *, needs: Needs = Needs()) -> list[tuple[NodeId, str]]:
    """Everybody who has `model` and is no candidate, with the reason."""
    digest = resolve(view, model)
    found: list[tuple[NodeId, str]] = []
    for node, member in view.members.items():
        record = member.record.model(model)
        reason = "" if record is None else _reason_against(member, record, digest, needs)
        if reason:
            found.append((node, reason))
    return sorted(found)


def place_load(view: MeshView, model: str) -> NodeId | None:
    """The node that should load `model`, of those that have it on disk: the same on every entry
    node with the same view, so that it is loaded once. None if nobody has it."""
    digest = resolve(view, model)
    offers = [
        o
        for o in _in_state(_offers(view, model), ModelState.ON_DISK)
        if o.model.digest == digest and o.member.state is NodeState.ALIVE
    ]
    ordered = _in_loading_order(offers)
    return ordered[0].node if ordered else None


# ---------------------------------------------------------------- the order


def _rank_trusted(
    view: MeshView,
    offers: Sequence[_Offer],
    model: str,
    request_id: str,
    in_flight: Mapping[tuple[NodeId, str], int],
) -> list[Candidate]:
    ready = _in_state(offers, ModelState.READY)
    loading = _in_state(offers, ModelState.LOADING)
    on_disk = _in_loading_order(_in_state(offers, ModelState.ON_DISK))
    return [
        *_rank_ready(view.self_id, ready, model, request_id, in_flight),
        *_plain(view.self_id, sorted(loading, key=lambda o: (o.model.queued, o.node)), "is loading it"),
        *_plain(view.self_id, on_disk, "loads it"),
    ]


def _rank_ready(
    self_id: NodeId,
    offers: Sequence[_Offer],
    model: str,
    request_id: str,
    in_flight: Mapping[tuple[NodeId, str], int],
) -> list[Candidate]:
    fastest = max((o.model.tokens_per_second for o in offers), default=0.0)
    terms = {o.node: _terms(o, fastest, in_flight.get((o.node, model), 0), is_here=o.node == self_id) for o in offers}
    cost = {node: sum(t.values()) for node, t in terms.items()}
    order = sorted(offers, key=lambda o: (cost[o.node], o.node))
    if len(order) > 1:
        _put_first(order, _winner(order, cost, self_id, request_id))
    others = len(order) - 1
    return [
        Candidate(
            node=o.node,
            digest=o.model.digest,
            kind="local" if o.node == self_id else "forward",
            why=_why_ready(o, is_here=o.node == self_id, others=others),
            cost=cost[o.node],
            terms=terms[o.node],
        )
        for o in order
    ]


def _winner(order: Sequence[_Offer], cost: Mapping[NodeId, float], self_id: NodeId, request_id: str) -> _Offer:
    best = cost[order[0].node]
    equal = [o for o in order if cost[o.node] <= best + ABOUT_EQUAL]
    here = next((o for o in equal if o.node == self_id), None)
    if here is not None:
        return here
    if len(equal) == 1:
        return equal[0]
    drawn = random.Random(request_id).sample(sorted(equal, key=lambda o: o.node), 2)
    return min(drawn, key=lambda o: cost[o.node])


def _terms(offer: _Offer, fastest: float, sent: int, *, is_here: bool) -> Mapping[str, float]:
    model = offer.model
    # Our own requests may or may not be in the holder's numbers already; never count them twice.
    taken = max(model.busy + model.queued, sent)
    load = (taken + 1) / max(model.slots, 1)
    speed = model.tokens_per_second / fastest if fastest > 0 and model.tokens_per_second > 0 else 1.0
    distance = 0.0 if is_here else DISTANCE_COST * (offer.member.round_trip or 0.0)
    return MappingProxyType(
        {
            "load": load,
            "slowness": load / max(speed, SLOWEST) - load,
            "distance": distance,
            "hop": 0.0 if is_here else LOCAL_PREFERENCE,
        }
    )


def _in_loading_order(offers: Iterable[_Offer]) -> list[_Offer]:
    """Nodes with an accelerator first; among equals by rendezvous hashing."""
    return sorted(offers, key=lambda o: (not _has_accelerator(o.member), -_weight(o)))


def _weight(offer: _Offer) -> int:
    # Highest random weight: each node's weight for a model depends on nothing else, so a node that
    # joins or leaves moves only the models that it wins or held.
    text = f"{offer.model.name}\0{offer.model.digest}\0{offer.node}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


# ---------------------------------------------------------------- small questions


def _offers(view: MeshView, model: str) -> list[_Offer]:
    found: list[_Offer] = []
    for member in view.members.values():
        if member.state not in (NodeState.ALIVE, NodeState.SUSPECT):
            continue
        if member.record.left:
            continue
        record = member.record.model(model)
        if record is not None and record.state is not ModelState.DRAINING:
            found.append(_Offer(member, record))
    return found


def _in_state(offers: Iterable[_Offer], state: ModelState) -> list[_Offer]:
    return [o for o in offers if o.model.state is state]


def _fits(model: ModelRecord, needs: Needs) -> bool:
    # A model on disk says little of itself; loading it will show.
    if model.state is ModelState.ON_DISK:
        return True
    if not needs.capabilities <= set(model.capabilities):
        return False
    return not (needs.context_length and model.context_length) or needs.context_length <= model.context_length


def _reason_against(member: Member, model: ModelRecord, digest: str | None, needs: Needs) -> str:
    if member.record.left or member.state is NodeState.LEFT:
        return "has left"
    if member.state is NodeState.DEAD:
        return "is gone"
    if model.state is ModelState.DRAINING:
        return "is unloading it"
    if model.digest != digest:
        return "has another model of that name"
    if _fits(model, needs):
        return ""
    if lacks := sorted(needs.capabilities - set(model.capabilities)):
        return f"its copy has no {' and no '.join(lacks)}"
    return f"its context of {model.context_length} tokens is too short"


def _has_accelerator(member: Member) -> bool:
    return any(device.kind != "cpu" for device in member.record.devices)


def _put_first(order: list[_Offer], offer: _Offer) -> None:
    order.remove(offer)
    order.insert(0, offer)


def _plain(self_id: NodeId, offers: Iterable[_Offer], what: str) -> list[Candidate]:
    return [
        Candidate(
            node=o.node,
            digest=o.model.digest,
            kind="load",
            why=f"{'local' if o.node == self_id else 'forwarded'}: {what}",
        )
        for o in offers
    ]


def _why_ready(offer: _Offer, *, is_here: bool, others: int) -> str:
    where = "local" if is_here else "forwarded"
    if others <= 0:
        return f"{where}: holds it"
    of = f"{others + 1} hold it"
    return f"{where}: {of}, preferred" if is_here else f"{where}: {of}, less busy"


def _doubtful(candidate: Candidate) -> Candidate:
    return Candidate(
        candidate.node,
        candidate.digest,
        candidate.kind,
        f"{candidate.why}, under suspicion",
        candidate.cost,
        candidate.terms,
    )
