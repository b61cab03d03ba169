"""The nodes of a chaos run, and the harm that is done to them.

As root each node is a host of its own, with mDNS and links that can be cut (`tests.helpers.lan`); otherwise they
share loopback, and only processes are harmed.
"""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import psutil

from mesh.token import MeshKeys, new_token
from tests.chaos.schedule import Fault, Kind
from tests.helpers.lan import Host, lan
from tests.helpers.nodes import Node, until

MARK = "CHAOS_RUN"
"""Set in the environment of everything that a run starts, so that what it leaves behind can be found."""

AFTER_FREEZE = 1.0
"""Seconds that a node gets to catch up after SIGCONT."""


BACKENDS = "backends"


class Trouble:
    """Which node was down or frozen when."""

    def __init__(self) -> None:
        self._spans: list[tuple[str, bool, float, float]] = []

    def begin(self, node: str, *, is_down: bool) -> int:
        self._spans.append((node, is_down, time.monotonic(), float("inf")))
        return len(self._spans) - 1

    def end(self, number: int) -> None:
        node, is_down, since, _ = self._spans[number]
        self._spans[number] = (node, is_down, since, time.monotonic())

    def stops_backends(self) -> int:
        self._spans.append((BACKENDS, False, time.monotonic(), float("inf")))
        return len(self._spans) - 1

    def had_stopped_backends(self, since: float, until: float) -> bool:
        """Anywhere. A backend is given time to come back, by its own speed, before its answers go on elsewhere."""
        return self.was_frozen(BACKENDS, since, until)

    def was_down(self, node: str, since: float, until: float) -> bool:
        """Killed or told to stop, at any time in between."""
        return any(n == node and d and b <= until and e >= since for n, d, b, e in self._spans)

    def was_frozen(self, node: str, since: float, until: float) -> bool:
        return any(n == node and not d and b <= until and e + AFTER_FREEZE >= since for n, d, b, e in self._spans)


class Member(Node):
    """One node, with ports that stay the same over restarts."""

    def __init__(
        self, root: Path, name: str, host: Host | None, ports: tuple[int, int], *flags: str, token: str
    ) -> None:
        prefix = host.prefix if host else ()
        super().__init__(
            root, name, *flags, "--port", str(ports[0]), "--mesh-port", str(ports[1]), token=token, prefix=prefix
        )
        self.host = host
        self._ports = ports

    @property
    def api(self) -> str:
        return f"http://{self.host.client_address if self.host else '127.0.0.1'}:{self._ports[0]}"

    def processes(self) -> list[psutil.Process]:
        """The node and everything it started."""
        assert self.process is not None
        try:
            node = psutil.Process(self.process.pid)
            return [node, *node.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


class Cluster:
    """All nodes of a run."""

    def __init__(self, members: Sequence[Member], api_key: str, mark: str) -> None:
        self.members = list(members)
        self.api_key = api_key
        self.mark = mark
        self.trouble = Trouble()
        self._harmed: set[str] = set()

    def __getitem__(self, name: str) -> Member:
        return next(member for member in self.members if member.name == name)

    @property
    def has_network(self) -> bool:
        return self.members[0].host is not None

    async def suffer(self, fault: Fault) -> bool:
        """Does the harm, waits, and puts it right again. False: a node has not recovered from the last one yet."""
        if self._harmed & set(fault.nodes):
            return False
        self._harmed |= set(fault.nodes)
        try:
            await self._suffer(fault)
        finally:
            self._harmed -= set(fault.nodes)
        return True

    async def _suffer(self, fault: Fault) -> None:
        nodes = [self[name] for name in fault.nodes]
        match fault.kind:
            case Kind.KILL_NODE | Kind.RESTART_NODE:
                await self._restart(nodes[0], fault)
            case Kind.FREEZE_NODE:
                await self._freeze(nodes[0], fault.lasts)
            case Kind.KILL_BACKEND | Kind.FREEZE_BACKEND:
                await self._harm_backends(nodes[0], fault)
            case _:
                hosts = [node.host for node in nodes if node.host is not None]
                await _harm_network(hosts, fault)

    async def _restart(self, node: Member, fault: Fault) -> None:
        assert node.process is not None
        span = self.trouble.begin(node.name, is_down=True)
        if fault.kind is Kind.KILL_NODE:
            node.kill()
        else:
            node.process.send_signal(signal.SIGTERM)
            await until(lambda: node.process is not None and node.process.poll() is not None, f"{node.name} to stop")
            (node.root / "running.json").unlink(missing_ok=True)
        await asyncio.sleep(fault.lasts)
        node.start()
        await node.until_ready()
        self.trouble.end(span)

    async def _freeze(self, node: Member, seconds: float) -> None:
        assert node.process is not None
        span = self.trouble.begin(node.name, is_down=False)
        node.process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            node.process.send_signal(signal.SIGCONT)
            self.trouble.end(span)

    async def _harm_backends(self, node: Member, fault: Fault) -> None:
        if fault.kind is Kind.KILL_BACKEND:
            await _harm_backends(node, fault)
            return
        span = self.trouble.stops_backends()
        try:
            await _harm_backends(node, fault)
        finally:
            self.trouble.end(span)

    def left_behind(self) -> list[psutil.Process]:
        """Processes of this run that belong to none of its living nodes."""
        known = {process.pid for member in self.members for process in member.processes()} | {os.getpid()}
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid in known or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found


async def _harm_backends(node: Member, fault: Fault) -> None:
    backends = node.backends()
    for backend in backends:
        with contextlib.suppress(psutil.NoSuchProcess):
            backend.kill() if fault.kind is Kind.KILL_BACKEND else backend.suspend()
    await asyncio.sleep(fault.lasts)
    if fault.kind is Kind.FREEZE_BACKEND:
        for backend in backends:
            # It may have been ended for its silence.
            with contextlib.suppress(psutil.NoSuchProcess):
                backend.resume()


async def _harm_network(hosts: Sequence[Host], fault: Fault) -> None:
    match fault.kind:
        case Kind.CUT_LINK:
            hosts[0].cut_link()
            await asyncio.sleep(fault.lasts)
            hosts[0].mend_link()
        case Kind.PARTITION:
            for host in hosts:
                host.part()
            await asyncio.sleep(fault.lasts)
            for host in hosts:
                host.rejoin()
        case Kind.ONE_WAY:
            hosts[0].deafen(hosts[1])
            await asyncio.sleep(fault.lasts)
            hosts[0].undeafen(hosts[1])


@contextlib.asynccontextmanager
async def cluster_of(
    root: Path, names: Sequence[str], models: Mapping[str, Sequence[str]], *, has_network: bool
) -> AsyncIterator[Cluster]:
    """Nodes that know each other and hold their `models` (by node). Stopped at the end, gently."""
    mark = os.environ[MARK] = f"{os.getpid()}-{time.monotonic_ns()}"
    token = new_token()
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(os.environ.pop, MARK)
        hosts = cleanup.enter_context(lan(*names)) if has_network else {}
        ports = dict(zip(names, [(8080, 4001)] * len(names) if has_network else _free_ports(len(names)), strict=True))
        members = []
        for name in names:
            flags = [flag for model in models.get(name, ()) for flag in ("--model", model)]
            if has_network:
                flags += ["--host", "0.0.0.0", "--open", "--mesh-host", hosts[name].address]
            else:
                flags += ["--no-mdns", "--mesh-host", "127.0.0.1"]
                flags += [f for other in names if other != name for f in ("--peer", f"127.0.0.1:{ports[other][1]}")]
            members.append(Member(root / name, name, hosts.get(name), ports[name], *flags, token=token))
        cluster = Cluster(members, MeshKeys.from_token(token).api_key, mark)
        try:
            for member in members:
                member.start()
            for member in members:
                await member.until_ready()
            await whole_again(cluster, models)
            yield cluster
        finally:
            for member in members:
                if member.process is not None and member.process.poll() is None:
                    member.process.send_signal(signal.SIGCONT)
                    member.process.terminate()
            for member in members:
                if member.process is not None:
                    await asyncio.to_thread(member.process.wait, 30)


async def whole_again(cluster: Cluster, models: Mapping[str, Sequence[str]]) -> None:
    """Waits until every node sees all others, with the models that they were started with."""
    names = [member.name for member in cluster.members]
    for member in cluster.members:
        await member.until_sees(*names)
        for holder, held in models.items():
            for model in held:
                await member.until_sees(model=model, held_by=holder)


def _free_ports(count: int) -> list[tuple[int, int]]:
    sockets = [socket.socket() for _ in range(2 * count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return list(zip(ports[::2], ports[1::2], strict=True))
