"""Who is out there and what they hold: the gossip protocol, without I/O.

`GossipCore` opens nothing and reads no clock. Tell it what happened and when; it answers with what
to do, and `view` is always the current picture:

    core.announce(record, now)        what we say of ourselves changed
    core.connected(peer, now)         an admitted connection is there
    core.disconnected(peer, now)      … and gone
    core.received(peer, message, now)
    core.dial_failed(peer, now, is_refused=…)
    core.doubt(peer, now)             a request to it failed
    core.tick(now)                    a few times a second

Records. A node writes about itself only and signs it. The highest `(incarnation, version)` wins.
Our own record coming back from an earlier life is outbid. News goes to everybody we are connected
to at once; whoever hears it from its author passes it to a few others, unless only load numbers
changed. Once a second two views are compared, which repairs what got lost.

Liveness, by our own clock only:

    alive ──silent──► suspect ──silent──► dead ──long──► forgotten
      ▲ └─connection broke─► ▲ │ └─nobody listens there─► ▲
      └───── any message ────┴─┴──────────────────────────┘
    any state ──its record says so──► left

A message in which a *third* node speaks of a peer proves nothing about it; only a connection with
the peer does. Not here, and next: asking others to probe a peer (SWIM's indirect probe).

A forgotten node's last version stays buried for as long again, so that a late record cannot bring
back a ghost.
"""

import hashlib
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import MappingProxyType

from mesh.codec import (
    SUMMARY_BYTES,
    Digest,
    Message,
    Ping,
    Pong,
    Records,
    SignedRecord,
    Summary,
    Want,
    in_messages,
)
from mesh.config import GossipConfig
from mesh.types import Member, MeshView, NodeId, NodeRecord, NodeState

# ---------------------------------------------------------------- what to do


@dataclass(frozen=True, slots=True)
class Send:
    """Give `message` to a connected peer. Losing it is fine: views are compared anyway."""

    peer: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect to a member; report `connected` or `dial_failed`."""

    peer: NodeId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connection with `peer`: it gave no sign of life."""

    peer: NodeId
    reason: str


Action = Send | Dial | Disconnect

# ---------------------------------------------------------------- what we remember


@dataclass(slots=True)
class _Known:
    """What we know of another node."""

    signed: SignedRecord
    state: NodeState
    since: float
    """When it got into this state."""
    redial_at: float = 0.0
    redial_pause: float = 0.0
    is_dialling: bool = False
    round_trip: float | None = None


@dataclass(slots=True)
class _Link:
    """An open connection with a member."""

    heard_at: float
    pinged_at: float = -1e9
    doubted_at: float | None = None
    """Since when somebody waits for proof that the peer still works."""
    answered_digest_at: float = -1e9


DIGEST_PAUSE = 0.2
"""A peer's digests are answered at most this often: each may cost us our whole view."""

TWIN_SIGNS, TWIN_LASTS = 3, 60.0
"""Our own record comes back from an earlier life once, after a restart. So many times, the last of them not
longer ago than so many seconds, it is written by somebody else who has our key."""

ROUND_TRIP_NEWS = 0.25
"""A measured round trip is shown when it moved by this share; less is noise."""


class GossipCore:
    """One node's side of the gossip. Time may start anywhere but never runs backwards."""

    def __init__(
        self,
        own: NodeRecord,
        config: GossipConfig,
        sign: Callable[[NodeRecord], SignedRecord],
        rng: random.Random,
    ) -> None:
        self._config = config
        self._sign = sign
        self._rng = rng
        self._own = sign(own)
        self._known: dict[NodeId, _Known] = {}
        self._links: dict[NodeId, _Link] = {}
        self._buried: dict[NodeId, tuple[int, int, float]] = {}
        self._pings: dict[int, tuple[NodeId, float]] = {}
        self._outbid_at: deque[float] = deque(maxlen=TWIN_SIGNS)
        self._last_tick: float | None = None
        self._sync_at = 0.0
        self._summary: bytes | None = None
        self._view: MeshView | None = None

    # ------------------------------------------------------------ questions

    @property
    def self_id(self) -> NodeId:
        return self._own.record.id

    @property
    def view(self) -> MeshView:
        """The current picture. The same object until something changes."""
        if self._view is None:
            members = {
                node_id: Member(known.signed.record, known.state, known.round_trip)
                for node_id, known in self._known.items()
            }
            members[self.self_id] = Member(self._own.record, NodeState.ALIVE)
            self._view = MeshView(self.self_id, MappingProxyType(members))
        return self._view

    @property
    def linked(self) -> frozenset[NodeId]:
        """Everybody we have a connection with."""
        return frozenset(self._links)

    def has_twin(self, now: float) -> bool:
        """Whether another node runs with our identity: it and we outbid each other without end."""
        return len(self._outbid_at) == TWIN_SIGNS and now - self._outbid_at[-1] < TWIN_LASTS

    # ------------------------------------------------------------ our own record

    def announce(self, record: NodeRecord, now: float) -> list[Action]:
        """Tell the mesh what we now are. Incarnation and version are kept here."""
        own = self._own.record
        return self._publish(replace(record, id=own.id, incarnation=own.incarnation, version=own.version + 1))

    def leave(self, now: float) -> list[Action]:
        """Say good-bye: nobody should send us anything any more."""
        own = self._own.record
        return self._publish(replace(own, left=True, version=own.version + 1))

    def _publish(self, own: NodeRecord) -> list[Action]:
        self._own = self._sign(own)
        self._changed()
        news = Records((self._own,))
        return [Send(peer, news) for peer in self._links]

    def _outbid(self, echo: NodeRecord, now: float) -> list[Action]:
        # An older record of ours still travels, from before a restart or from a clock set back.
        # Peers ignore us until we are above it. Our current record coming back is only an echo.
        own = self._own.record
        if _rank(echo) < _rank(own) or echo == own:
            return []
        self._outbid_at.append(now)
        return self._publish(replace(own, incarnation=echo.incarnation + 1, version=1))

    # ------------------------------------------------------------ connections

    def connected(self, peer: NodeId, now: float) -> list[Action]:
        """An admitted connection with `peer` is open: each side tells what it knows."""
        self._links[peer] = _Link(heard_at=now)
        known = self._known.get(peer)
        if known is not None:
            known.redial_pause = 0.0
            known.is_dialling = False
            if known.state is not NodeState.LEFT:
                self._set_state(peer, NodeState.ALIVE, now)
        return [Send(peer, Records((self._own,))), Send(peer, Summary(self._summarize()))]

    def disconnected(self, peer: NodeId, now: float) -> list[Action]:
        """The connection is gone. That is evidence, and trying again at once is the probe."""
        if self._links.pop(peer, None) is None:
            return []
        known = self._known.get(peer)
        if known is None or known.state in (NodeState.LEFT, NodeState.DEAD):
            return []
        self._set_state(peer, NodeState.SUSPECT, now)
        return self._dial(peer, known, now)

    def dial_failed(self, peer: NodeId, now: float, *, is_refused: bool) -> list[Action]:
        """`is_refused`: the machine answered that nobody listens there."""
        known = self._known.get(peer)
        if known is None:
            return []
        known.is_dialling = False
        pause = min(max(known.redial_pause * 2, self._config.redial_first), self._config.redial_most)
        known.redial_pause = pause
        known.redial_at = now + pause * self._rng.uniform(0.8, 1.2)
        if is_refused and known.state is NodeState.SUSPECT and peer not in self._links:
            self._set_state(peer, NodeState.DEAD, now)
        return []

    def doubt(self, peer: NodeId, now: float) -> list[Action]:
        """Somebody's request to `peer` failed: make sure now."""
        known = self._known.get(peer)
        link = self._links.get(peer)
        if link is None:
            return [] if known is None else self._dial(peer, known, now)
        if link.doubted_at is not None:
            return []
        link.doubted_at = now
        return [self._ping(peer, link, now)]

    # ------------------------------------------------------------ messages

    def received(self, peer: NodeId, message: Message, now: float) -> list[Action]:
        """Take in a message from a connected peer."""
        link = self._links.get(peer)
        if link is None:
            return []
        link.heard_at = now
        link.doubted_at = None
        known = self._known.get(peer)
        if known is not None and known.state in (NodeState.SUSPECT, NodeState.DEAD):
            self._set_state(peer, NodeState.ALIVE, now)

        match message:
            case Records(records):
                return [action for signed in records for action in self._learn(peer, signed, now)]
            case Summary(value):
                return [] if value == self._summarize() else [Send(peer, self._digest())]
            case Digest(entries):
                if now - link.answered_digest_at < DIGEST_PAUSE:
                    return []
                link.answered_digest_at = now
                return self._compare(peer, entries)
            case Want(node_ids):
                return self._send_records(peer, node_ids)
            case Ping(nonce):
                return [Send(peer, Pong(nonce))]
            case Pong(nonce):
                self._measure(peer, nonce, now)
                return []

    def _learn(self, source: NodeId, signed: SignedRecord, now: float) -> list[Action]:
        record = signed.record
        if record.id == self.self_id:
            return self._outbid(record, now)
        buried = self._buried.get(record.id)
        if buried is not None and _rank(record) <= buried[:2]:
            return []
        known = self._known.get(record.id)
        if known is None:
            if len(self._known) >= self._config.max_members and record.id not in self._links:
                return []
            known = _Known(signed, NodeState.SUSPECT, now)
            self._known[record.id] = known
            before = None
        else:
            before = known.signed.record
            if _rank(record) <= _rank(before):
                return []
            known.signed = signed
        self._changed()

        actions: list[Action] = []
        if record.left:
            self._set_state(record.id, NodeState.LEFT, now)
        elif record.id in self._links:
            self._set_state(record.id, NodeState.ALIVE, now)
        elif before is None or known.state in (NodeState.DEAD, NodeState.LEFT):
            # Others say it is there. We believe it once we have met.
            self._set_state(record.id, NodeState.SUSPECT, now)
            known.redial_pause = 0.0
            actions += self._dial(record.id, known, now)
        if source == record.id and (before is None or _is_news(before, record)):
            actions += self._pass_on(signed)
        return actions

    def _pass_on(self, signed: SignedRecord) -> list[Action]:
        others = [peer for peer in self._links if peer != signed.record.id]
        chosen = self._rng.sample(others, min(self._config.fanout, len(others)))
        return [Send(peer, Records((signed,))) for peer in chosen]

    def _compare(self, peer: NodeId, entries: Iterable[tuple[NodeId, int, int]]) -> list[Action]:
        theirs = {node_id: (incarnation, version) for node_id, incarnation, version in entries}
        ours = {signed.record.id: signed for signed in self._all()}
        newer = [
            signed
            for node_id, signed in ours.items()
            if node_id not in theirs or theirs[node_id] < _rank(signed.record)
        ]
        older = tuple(
            node_id
            for node_id, rank in theirs.items()
            if (node_id not in ours or _rank(ours[node_id].record) < rank)
            and rank > self._buried.get(node_id, (-1, -1, 0.0))[:2]
        )
        actions: list[Action] = [Send(peer, message) for message in in_messages(newer)]
        if older:
            actions.append(Send(peer, Want(older)))
        return actions

    def _send_records(self, peer: NodeId, node_ids: Iterable[NodeId]) -> list[Action]:
        ours = {signed.record.id: signed for signed in self._all()}
        wanted = [ours[node_id] for node_id in dict.fromkeys(node_ids) if node_id in ours]
        return [Send(peer, message) for message in in_messages(wanted)]

    # ------------------------------------------------------------ time

    def tick(self, now: float) -> list[Action]:
        """Whatever time alone brings about."""
        self._forgive_own_sleep(now)
        actions: list[Action] = []
        for peer, link in list(self._links.items()):
            actions += self._watch(peer, link, now)
        for node_id, known in list(self._known.items()):
            actions += self._age(node_id, known, now)
        for node_id, (_, _, until) in list(self._buried.items()):
            if now >= until:
                del self._buried[node_id]
        if now >= self._sync_at and self._links:
            self._sync_at = now + self._config.sync_every * self._rng.uniform(0.8, 1.2)
            peer = self._rng.choice(list(self._links))
            actions.append(Send(peer, Summary(self._summarize())))
        return actions

    def _forgive_own_sleep(self, now: float) -> None:
        # If this process was stopped or starved, everybody *seems* silent. It was us: start anew.
        asleep = 0.0 if self._last_tick is None else now - self._last_tick
        self._last_tick = now
        if asleep > self._config.suspect_after / 2:
            for link in self._links.values():
                link.heard_at = now
                link.doubted_at = None
            self._pings.clear()

    def _watch(self, peer: NodeId, link: _Link, now: float) -> list[Action]:
        config = self._config
        silent = now - link.heard_at
        doubted = 0.0 if link.doubted_at is None else now - link.doubted_at
        if silent >= config.dead_after or doubted >= config.unreachable_after:
            del self._links[peer]
            self._die(peer, now)
            return [Disconnect(peer, f"silent for {silent:.1f} s")]
        known = self._known.get(peer)
        if silent >= config.suspect_after and known is not None and known.state is NodeState.ALIVE:
            self._set_state(peer, NodeState.SUSPECT, now)
        # Not on every tick: one question, then time to answer.
        if silent >= config.ping_after and now - link.pinged_at >= config.ping_again_after:
            return [self._ping(peer, link, now)]
        return []

    def _age(self, node_id: NodeId, known: _Known, now: float) -> list[Action]:
        age = now - known.since
        if node_id in self._links:
            return []
        if known.state is NodeState.SUSPECT and age >= self._config.unreachable_after:
            self._die(node_id, now)
        elif known.state in (NodeState.DEAD, NodeState.LEFT) and age >= self._config.forget_after:
            del self._known[node_id]
            until = now + self._config.forget_after
            self._buried[node_id] = (*_rank(known.signed.record), until)
            self._changed()
            return []
        if known.state is not NodeState.LEFT and now >= known.redial_at:
            return self._dial(node_id, known, now)
        return []

    def _die(self, node_id: NodeId, now: float) -> None:
        known = self._known.get(node_id)
        if known is not None and known.state is not NodeState.LEFT:
            self._set_state(node_id, NodeState.DEAD, now)

    # ------------------------------------------------------------ helpers

    def _ping(self, peer: NodeId, link: _Link, now: float) -> Send:
        link.pinged_at = now
        # Answers may come late or never: keep the newest few, the rest only cost memory.
        while len(self._pings) >= 4 * len(self._links) + 16:
            del self._pings[next(iter(self._pings))]
        nonce = self._rng.getrandbits(48)
        self._pings[nonce] = (peer, now)
        return Send(peer, Ping(nonce))

    def _measure(self, peer: NodeId, nonce: int, now: float) -> None:
        sent_to, sent_at = self._pings.pop(nonce, (None, 0.0))
        known = self._known.get(peer)
        if sent_to != peer or known is None:
            return
        taken = max(now - sent_at, 1e-6)
        before = known.round_trip
        smoothed = taken if before is None else 0.75 * before + 0.25 * taken
        if before is None or abs(smoothed - before) > ROUND_TRIP_NEWS * before:
            self._view = None
        known.round_trip = smoothed

    def _dial(self, peer: NodeId, known: _Known, now: float) -> list[Action]:
        addresses = known.signed.record.addresses
        if known.is_dialling or peer in self._links or not addresses:
            return []
        known.is_dialling = True
        return [Dial(peer, addresses)]

    def _set_state(self, node_id: NodeId, state: NodeState, now: float) -> None:
        known = self._known[node_id]
        if known.state is not state:
            known.state = state
            known.since = now
            self._view = None

    def _changed(self) -> None:
        self._view = None
        self._summary = None

    def _all(self) -> list[SignedRecord]:
        return [self._own, *(known.signed for known in self._known.values())]

    def _digest(self) -> Digest:
        return Digest(tuple((s.record.id, s.record.incarnation, s.record.version) for s in self._all()))

    def _summarize(self) -> bytes:
        if self._summary is None:
            entries = sorted((s.record.id, *_rank(s.record)) for s in self._all())
            self._summary = hashlib.blake2b(repr(entries).encode(), digest_size=SUMMARY_BYTES).digest()
        return self._summary


def _rank(record: NodeRecord) -> tuple[int, int]:
    return record.incarnation, record.version


def _is_news(before: NodeRecord, after: NodeRecord) -> bool:
    """Whether more changed than load numbers, which are stale before they are passed on."""
    return essence(before) != essence(after)


def essence(record: NodeRecord) -> NodeRecord:
    return replace(
        record,
        version=0,
        devices=tuple(replace(device, memory_free=0) for device in record.devices),
        models=tuple(
            replace(m, busy=0, queued=0, idle=0, tokens_per_second=0.0, first_token_seconds=0.0, prefixes=frozenset())
            for m in record.models
        ),
    )
