"""Every number the mesh runs on, with its unit and its reason.

Periods are seconds, sizes are bytes. Two nodes may run with different values: nothing here is
agreed on between peers. What *is* agreed on (limits on messages, formats) lives in `mesh.codec`
and `mesh.forwarding`.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipConfig:
    """When a silent peer is asked, doubted and given up; how often views are compared."""

    tick_every: float = 0.25
    """How often the core looks at the clock. Bounds how late every other period can be."""
    sync_every: float = 1.0
    """One comparison of views with one peer. Repairs whatever a push missed."""
    ping_after: float = 0.9
    """A connected peer that said nothing for this long is asked. Any message counts as a sign of
    life, so of two idle peers only one asks."""
    ping_again_after: float = 0.45
    """… and asked again after this long: one lost packet must not start a suspicion."""
    suspect_after: float = 2.0
    """Silence, despite being asked, until the router avoids the peer."""
    dead_after: float = 3.0
    """Silence until the peer counts as dead and its connection is closed."""
    unreachable_after: float = 1.0
    """From a broken connection to dead, unless a new connection is made. A refused connection
    (nobody listens there any more) is final at once."""
    redial_first: float = 0.5
    redial_most: float = 5.0
    """Pause before dialling a lost member again: doubles from the first to the most. The most is
    also how long a healed network may stay unnoticed."""
    forget_after: float = 600.0
    """How long a dead or departed node stays in the view. Its version is remembered as long, so
    that no late record brings it back as a ghost."""
    fanout: int = 2
    """To how many others fresh news from its author is passed on. With everybody connected to
    everybody the author has told all; this covers the gaps until the next comparison."""
    max_members: int = 1024
    """A member who invents nodes fills the view no further than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshConfig:
    """What a node's mesh side is started with."""

    host: str = "0.0.0.0"
    port: int = 4001
    """0 takes a free port."""
    mdns: bool = True
    peers: tuple[str, ...] = ()
    """Addresses to keep dialling: HOST:PORT or a multiaddr."""
    gossip: GossipConfig = field(default_factory=GossipConfig)
    handshake_timeout: float = 5.0
    """From an open TCP connection to an admitted member. Covers a slow, busy machine; a stranger
    holds a place for no longer than this."""
    connect_timeout: float = 2.0
    """For the TCP connection alone. A LAN answers in milliseconds; a powered-off host never does."""
    load_updates_every: float = 0.25
    """Least time between two announcements that change only load numbers (busy, queued, memory)."""
    max_connections: int = 512
    """Members connected at once."""
    max_handshakes: int = 128
    """Inbound handshakes at once; one more ends the oldest. Bounds the sockets strangers can hold, and
    leaves members time to get through while strangers knock hundreds of times a second."""
    max_calls_per_peer: int = 512
    """Calls from here to one peer at once. The next ones wait in order."""
    call_queue_per_peer: int = 1024
    """Calls that may wait for a place; one more fails at once with a clear error."""
    advertise: tuple[str, ...] = ()
    """Addresses to announce instead of the ones found on this machine's interfaces."""
