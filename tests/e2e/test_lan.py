"""Two hosts on one network, real mDNS between them: what a user does on two machines."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.helpers.lan import Host, lan, why_not
from tests.helpers.nodes import Node, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.lan,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
]

HELLO = [{"role": "user", "content": "What is the capital of Italy?"}]


class LanNode(Node):
    """A node on a host of its own, asked over the network."""

    def __init__(self, root: Path, host: Host, **kwargs: str) -> None:
        super().__init__(root, host.name, "--host", "0.0.0.0", "--open", prefix=host.prefix, **kwargs)
        self.host = host

    @property
    def api(self) -> str:
        return f"http://{self.host.address}:{self.running['api'].rsplit(':', 1)[1]}"


@contextlib.asynccontextmanager
async def started(*nodes: LanNode) -> AsyncIterator[None]:
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


async def test_two_machines_find_each_other_and_one_answers_for_both(tmp_path: Path) -> None:
    with lan("red", "blue") as hosts:
        red, blue = (LanNode(tmp_path / name, host) for name, host in hosts.items())
        async with started(red, blue):
            await red.until_sees("blue")
            await blue.until_sees("red")
            await blue.load("minnow", "blue")
            await red.until_sees("blue", model="minnow", held_by="blue")

            async with red.client() as http:
                body = {"model": "minnow", "messages": HELLO, "temperature": 0}
                answer = await http.post("/v1/chat/completions", json=body)

            assert answer.headers["x-shoal-node"] == "blue"
            assert "Rome" in answer.json()["choices"][0]["message"]["content"]


async def test_two_meshes_on_one_network_never_meet(tmp_path: Path) -> None:
    with lan("red", "blue", "other") as hosts:
        red = LanNode(tmp_path / "red", hosts["red"])
        blue = LanNode(tmp_path / "blue", hosts["blue"])
        other = LanNode(tmp_path / "other", hosts["other"], token="the token of the neighbours")
        async with started(red, blue, other):
            await red.until_sees("blue")

            async def is_noticed() -> bool:
                return bool((await other.get("/api/diagnostics"))["refusals"])

            # The stranger is seen on mDNS, and left alone.
            await until(is_noticed, "the neighbours to be noticed")
            assert set(await red.mesh()) == {"red", "blue"}
            assert set(await other.mesh()) == {"other"}


async def test_a_cut_link_is_noticed_and_heals(tmp_path: Path) -> None:
    with lan("red", "blue") as hosts:
        red, blue = (LanNode(tmp_path / name, host) for name, host in hosts.items())
        async with started(red, blue):
            await red.until_sees("blue")
            hosts["blue"].cut_link()

            async def is_dead() -> bool:
                return bool((await red.mesh())["blue"]["state"] == "dead")

            await until(is_dead, "red to notice", timeout=15)
            hosts["blue"].mend_link()
            await red.until_sees("blue")
            await blue.until_sees("red")
