"""What a node holds when nothing runs: the same after a chaos run as before it, or something leaked."""

import asyncio
import re
from dataclasses import asdict, dataclass

import httpx
import psutil

from tests.chaos.cluster import Cluster, Member
from tests.helpers.nodes import until

SETTLE = 30.0
"""Seconds in which everything that runs must have ended."""

SLACK = {"sockets": 6, "files": 12, "threads": 6, "memory_mb": 40}
"""How much more a node may hold afterwards: threads of pools start on demand, and memory is never quite given back."""


@dataclass(frozen=True, slots=True)
class Held:
    """By one node, without its backends."""

    sockets: int
    files: int
    threads: int
    memory_mb: float
    backends: int


def held_by(member: Member) -> Held:
    assert member.process is not None
    process = psutil.Process(member.process.pid)
    with process.oneshot():
        return Held(
            sockets=len(process.net_connections(kind="all")),
            files=process.num_fds(),
            threads=process.num_threads(),
            memory_mb=process.memory_info().rss / 1e6,
            backends=len(member.backends()),
        )


async def running_at(member: Member) -> dict[str, float]:
    """What of requests still runs there: nothing of it may stay."""
    try:
        async with member.client() as http:
            page = (await http.get("/metrics")).text
    except httpx.TransportError:
        return {"no answer from it": 1}
    names = (
        "shoal_http_requests_in_flight",
        "shoal_mesh_streams_open",
        "shoal_mesh_peers_connected",
        "shoal_mesh_calls_waiting",
        "shoal_model_busy",
        "shoal_model_queued",
    )
    found: dict[str, float] = {}
    for line in page.splitlines():
        if match := re.match(r"(\w+)(?:\{.*\})? ([\d.e+]+)$", line):
            name, value = match[1], float(match[2])
            if name in names and value:
                found[name] = found.get(name, 0) + value
    # One stream for gossip with each peer.
    found["shoal_mesh_streams_open"] = found.get("shoal_mesh_streams_open", 0) - found.pop(
        "shoal_mesh_peers_connected", 0
    )
    # This very request.
    if found.get("shoal_http_requests_in_flight") == 1:
        del found["shoal_http_requests_in_flight"]
    return {name: value for name, value in found.items() if value}


async def settled(cluster: Cluster) -> list[str]:
    """Waits until nothing runs any more; what still does."""
    found: dict[str, dict[str, float]] = {}

    async def nothing_runs() -> bool:
        found.clear()
        found.update({member.name: await running_at(member) for member in cluster.members})
        await asyncio.sleep(0.2)
        return not any(found.values())

    try:
        await until(nothing_runs, "nothing to run", SETTLE)
    except AssertionError:
        return [f"{name}: {what}, still {count:g}" for name, held in found.items() for what, count in held.items()]
    return []


async def leaks(cluster: Cluster, before: dict[str, Held]) -> list[str]:
    """What is left that was not there before, in words."""
    found = await settled(cluster)
    # Who holds models now may have held none before.
    was = {what: max(asdict(held)[what] for held in before.values()) for what in SLACK}
    for member in cluster.members:
        if not member.processes():
            found.append(f"{member.name} has ended: {member.log().splitlines()[-1]}")
            continue
        now = asdict(held_by(member))
        found += [
            f"{member.name}: {what} {was[what]:g} before, {now[what]:g} after"
            for what, slack in SLACK.items()
            if now[what] > was[what] + slack
        ]
        loaded = [m["name"] for m in (await member.mesh())[member.name]["models"] if m["state"] != "on_disk"]
        if now["backends"] != len(loaded):
            found.append(f"{member.name}: {now['backends']} backend processes for {loaded}")
    found += [f"process {p.pid} of no node: {' '.join(p.cmdline())[:120]}" for p in cluster.left_behind()]
    return found
