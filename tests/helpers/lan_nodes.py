"""Real nodes on the hosts of a test network, as a user starts them: nothing told but the token."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.helpers.lan import Host
from tests.helpers.nodes import Node


class LanNode(Node):
    """A node on a host of its own, asked over the host's link to this machine."""

    def __init__(self, root: Path, host: Host, *flags: str, **kwargs: str) -> None:
        super().__init__(root, host.name, "--host", "0.0.0.0", "--open", *flags, prefix=host.prefix, **kwargs)
        self.host = host

    @property
    def api(self) -> str:
        return f"http://{self.host.client_address}:{self.running['api'].rsplit(':', 1)[1]}"

    async def states(self) -> dict[str, str]:
        """What it thinks of everybody, by name."""
        return {name: node["state"] for name, node in (await self.mesh()).items()}


@contextlib.asynccontextmanager
async def started(*nodes: Node) -> AsyncIterator[None]:
    """Runs them; stopped at the end."""
    try:
        for node in nodes:
            node.start()
        for node in nodes:
            await node.until_ready()
        yield
    finally:
        for node in nodes:
            if node.process is not None and node.process.poll() is None:
                node.process.terminate()
        for node in nodes:
            if node.process is not None:
                await asyncio.to_thread(node.process.wait, 20)
