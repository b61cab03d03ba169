"""Who should answer: a ranking of nodes for one request, with a reason for each. Pure.

    rank(view, model, …) -> Candidate, …       try them in this order

Order, before anything else:

    1. nodes where the model is ready        least loaded first, this node preferred
    2. nodes that are loading it             waiting there is shorter than loading again
    3. nodes that have it on disk            the same one on every entry node: `place_load`
    4. of the above, those under suspicion   only when nothing else is left

Dead and departed nodes, and models that drain, are no candidates.

Among ready nodes the cost of one is

    (places taken per slot, the request itself counted) / relative speed + distance + prompt to read again

The cheapest are as good as equal when they differ little; of those, two are drawn with the request
id as the seed and the better one wins (power of two choices). So many entry nodes with the same,
slightly stale view do not all run to the same peer. This node is preferred unless it is clearly
busier: a hop is not free, and sending requests back and forth helps nobody.

A node that must read again what another one has cached of the prompt costs more, and the hop to that one costs
nothing; but never more than a full load: when loads differ by more, the shortest queue wins (a hot prompt is then
cached in a second place). What many prompts begin with moves more easily than the past of one conversation. One
request in `EXPLORE_ONE_IN` looks past the cache.

One name, one digest: two models of one name with different digests are not the same model. A name
resolves to one digest per entry node, see `resolve`. `Candidate.terms` says how a cost came about.
"""

import hashlib
import random
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, NamedTuple

from mesh.prefixes import BLOCK, is_popular, shared_bytes
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

PREFIX_COST = 1.0
"""Of reading a prompt again that another node has cached, in full loads of a node, at most. So a node whose
slots are full loses even its own conversations to an idle one."""

PREFIX_BYTES = 4096
"""Text (some 1,000 tokens) from which on a prompt costs that much; less costs in proportion."""

POPULAR_BYTES = 768
"""A beginning that many prompts share is priced as if it were no longer than this: it is read again once and
used from then on, so one request of difference is enough to take it to another node."""

EXPLORE_ONE_IN = 256

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
class Room:
    """What the holders of a model can take, together."""

    places: int
    """Requests that may still be sent to them."""
    slots: int
    queued: int
    """Requests that wait at them."""


_NOTHING_SPECIAL = Needs()


class _Offer(NamedTuple):
    """One node's copy of the model."""

    node: NodeId
    member: Member
    model: ModelRecord


_Terms = tuple[float, ...]
_Priced = tuple[float, NodeId, _Offer, _Terms]
TERMS = ("load", "slowness", "distance", "hop", "prefix")


def rank(
    view: MeshView,
    model: str,
    *,
    request_id: str = "",
    session: str = "",
    in_flight: Mapping[tuple[NodeId, str], int] = _NO_ONE,
    needs: Needs = _NOTHING_SPECIAL,
    prompt: Sequence[int] = (),
    failing: Collection[NodeId] = (),
) -> Iterator[Candidate]:
    """Everybody who could answer a request for `model`, the best first; worked out as far as it is read.

    `in_flight` counts this node's own running requests by (node, model): it knows of them before
    the holder's next announcement does. `prompt` are the request's `mesh.prefixes.block_hashes`.
    Requests of one `session` go to the same node as long as nothing speaks against it. `failing`
    are asked only when nobody else is left.
    """
    offers = _offers(view, model)
    digest = _resolve(view.self_id, offers)
    offers = [o for o in offers if o.model.digest == digest and (needs is _NOTHING_SPECIAL or _fits(o.model, needs))]
    request = _Request(view.self_id, model, request_id, session or request_id, in_flight, prompt)
    trusted = [o for o in offers if o.member.state is NodeState.ALIVE and not (failing and o.node in failing)]
    yield from _rank_equally_trusted(trusted, request)
    if len(trusted) < len(offers):
        alive = [o for o in offers if o.member.state is NodeState.ALIVE and o.node in failing]
        suspect = [o for o in offers if o.member.state is NodeState.SUSPECT]
        for doubted, doubt in ((alive, "failed lately"), (suspect, "under suspicion")):
            for candidate in _rank_equally_trusted(doubted, request):
                yield replace(candidate, why=f"{candidate.why}, {doubt}")


def room(
    view: MeshView,
    model: str,
    *,
    in_flight: Mapping[tuple[NodeId, str], int] = _NO_ONE,
    failing: Collection[NodeId] = (),
) -> Room | None:
    """How much more the nodes that hold `model` can take; None if nobody has it ready, or one does not say.

    A node takes as many requests as it has slots, and as many again may wait there, so that a slot that becomes
    free does not stand idle until the news has travelled.
    """
    offers = _offers(view, model)
    digest = _resolve(view.self_id, offers)
    places = slots = queued = 0
    for node, member, record in offers:
        if record.state is not ModelState.READY or record.digest != digest:
            continue
        if member.state is not NodeState.ALIVE or node in failing:
            continue
        if not record.slots:
            return None
        taken = max(record.busy + record.queued, in_flight.get((node, model), 0))
        slots += record.slots
        queued += max(0, taken - record.slots)
        places += max(0, 2 * record.slots - taken)
    return Room(places, slots, queued) if slots else None


def resolve(view: MeshView, model: str) -> str | None:
    """The digest that `model` means on this node; None if nobody has it.

    This node's own copy decides: people expect a name to mean the file they put there. Otherwise
    the digest that is ready on most nodes, then the one most nodes have; the smallest of equals.
    """
    return _resolve(view.self_id, _offers(view, model))


def turned_down(view: MeshView, model: str, *, needs: Needs = _NOTHING_SPECIAL) -> list[tuple[NodeId, str]]:
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


@dataclass(frozen=True, slots=True)
class _Request:
    """What a choice depends on besides the offers."""

    self_id: NodeId
    model: str
    id: str
    draw: str
    """Seed for choosing among equals."""
    in_flight: Mapping[tuple[NodeId, str], int]
    prompt: Sequence[int]

    @property
    def explores(self) -> bool:
        """Whether this one is to see what else there is. The same on every entry node."""
        return zlib.crc32(self.id.encode()) % EXPLORE_ONE_IN == 0


def _rank_equally_trusted(offers: Sequence[_Offer], request: _Request) -> Iterator[Candidate]:
    self_id = request.self_id
    yield from _rank_ready(_in_state(offers, ModelState.READY), request)
    loading = _in_state(offers, ModelState.LOADING)
    yield from _plain(self_id, sorted(loading, key=lambda o: (o.model.queued, o.node)), "is loading it")
    yield from _plain(self_id, _in_loading_order(_in_state(offers, ModelState.ON_DISK)), "loads it")


def _rank_ready(offers: Sequence[_Offer], request: _Request) -> Iterator[Candidate]:
    if not offers:
        return
    cached: list[int] = []
    explores = bool(request.prompt) and request.explores
    if request.prompt and not explores:
        cached = [shared_bytes(request.prompt, o.model.prefixes) for o in offers]
    most_cached = max(cached, default=0)
    cached_here = next((c for c, o in zip(cached, offers, strict=False) if o.node == request.self_id), most_cached)
    fastest = max(o.model.tokens_per_second for o in offers)
    is_popular_one = most_cached > 0 and any(
        is_popular(request.prompt, most_cached, o.model.prefixes)
        for c, o in zip(cached, offers, strict=True)
        if c == most_cached
    )
    priced: list[_Priced] = []
    for index, offer in enumerate(offers):
        missing = most_cached - cached[index] if cached else 0
        if missing and is_popular_one:
            missing = min(missing, POPULAR_BYTES)
        knows_more = explores or (bool(cached) and cached[index] > cached_here)
        terms = _terms(offer, request, fastest, missing, is_worth_a_hop=knows_more)
        priced.append((sum(terms), offer.node, offer, terms))
    priced.sort()
    if len(priced) > 1:
        winner = _winner(priced, request)
        priced.remove(winner)
        priced.insert(0, winner)
    for cost, node, offer, terms in priced:
        is_here = node == request.self_id
        knows = most_cached >= BLOCK and len(priced) > 1 and terms[-1] == 0.0
        yield Candidate(
            node=node,
            digest=offer.model.digest,
            kind="local" if is_here else "forward",
            why=_why_ready(is_here=is_here, others=len(priced) - 1, knows_prompt=knows),
            cost=cost,
            terms=MappingProxyType(dict(zip(TERMS, terms, strict=True))),
        )


def _winner(priced: Sequence[_Priced], request: _Request) -> _Priced:
    best, best_terms = priced[0][0], priced[0][-1]
    equal = [p for p in priced if p[0] <= best + ABOUT_EQUAL and p[-1][-1] <= best_terms[-1]]
    here = next((p for p in equal if p[1] == request.self_id), None)
    if here is not None:
        return here
    if len(equal) == 1:
        return equal[0]
    drawn = random.Random(request.draw).sample(sorted(equal, key=lambda p: p[1]), 2)
    return min(drawn, key=lambda p: p[0])


def _terms(offer: _Offer, request: _Request, fastest: float, missing: int, *, is_worth_a_hop: bool) -> _Terms:
    """The parts of a cost, in the order of `TERMS`. `missing`: bytes of the prompt that another one has cached."""
    model, node = offer.model, offer.node
    # Our own requests may or may not be in the holder's numbers already; never count them twice.
    taken = max(model.busy + model.queued, request.in_flight.get((node, request.model), 0))
    load = (taken + 1) / (model.slots or 1)
    speed = model.tokens_per_second / fastest if fastest > 0 and model.tokens_per_second > 0 else 1.0
    slowness = load / (speed if speed > SLOWEST else SLOWEST) - load
    prefix = PREFIX_COST * missing / PREFIX_BYTES if missing < PREFIX_BYTES else PREFIX_COST
    if node == request.self_id:
        return load, slowness, 0.0, 0.0, prefix
    hop = 0.0 if is_worth_a_hop else LOCAL_PREFERENCE
    return load, slowness, DISTANCE_COST * (offer.member.round_trip or 0.0), hop, prefix


def _resolve(self_id: NodeId, offers: Sequence[_Offer]) -> str | None:
    own = next((o for o in offers if o.node == self_id), None)
    if own is not None:
        return own.model.digest
    for among in (_in_state(offers, ModelState.READY), offers):
        counts = Counter(o.model.digest for o in among)
        if counts:
            return min(counts, key=lambda digest: (-counts[digest], digest))
    return None


def _in_loading_order(offers: Iterable[_Offer]) -> list[_Offer]:
    """Nodes with an accelerator first; among equals by rendezvous hashing."""
    return sorted(offers, key=lambda o: (not _has_accelerator(o.member), -_weight(o)))


def _weight(offer: _Offer) -> int:
    # Highest random weight: each node's weight for a model depends on nothing else, so a node that
    # joins or leaves moves only the models that it wins or held.
    text = f"{offer.model.name}\0{offer.model.digest}\0{offer.node}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


# ---------------------------------------------------------------- small questions


def _offers(view: MeshView, model: str) -> Sequence[_Offer]:
    known: Sequence[_Offer] | None = view.memo.get(model)
    if known is not None:
        return known
    found: list[_Offer] = []
    for node, member in view.members.items():
        record = member.record.model(model)
        if record is None or record.state is ModelState.DRAINING:
            continue
        if (member.state is NodeState.ALIVE or member.state is NodeState.SUSPECT) and not member.record.left:
            found.append(_Offer(node, member, record))
    if found:
        view.memo[model] = found
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


def _why_ready(*, is_here: bool, others: int, knows_prompt: bool) -> str:
    where = "local" if is_here else "forwarded"
    if others <= 0:
        return f"{where}: holds it"
    of = f"{others + 1} hold it"
    if knows_prompt:
        return f"{where}: {of}, prompt cached"
    return f"{where}: {of}, preferred" if is_here else f"{where}: {of}, less busy"
