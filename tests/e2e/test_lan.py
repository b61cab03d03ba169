"""Two hosts on one network, real mDNS between them: what a user does on two machines."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.dialing import GIVE_UP_AFTER
from tests.helpers.lan import lan, why_not
from tests.helpers.lan_nodes import LanNode, started
from tests.helpers.nodes import until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.lan,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
]

HELLO = [{"role": "user", "content": "What is the capital of Italy?"}]


async def test_two_machines_find_each_other_and_one_answers_for_both(tmp_path: Path) -> None:
    with lan("red", "blue") as hosts:
        red, blue = (LanNode(tmp_path / name, host) for name, host in hosts.items())
        async with started(red, blue):
            await red.until_sees("blue")
            await blue.until_sees("red")
            await until(lambda: f"mesh: blue ({hosts['blue'].address}) joined" in red.log(), "red to say so")
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
            # Two are strangers to one, and nobody is at fault.
            found = await diagnose(other)
            assert found["other mesh"]["verdict"] == found["members"]["verdict"] == "note"
            assert "wrong" not in [finding["verdict"] for finding in found.values()]


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


async def test_a_node_that_cannot_be_reached_is_named_and_met_once_it_can(tmp_path: Path) -> None:
    with lan("red", "blue") as hosts:
        red, blue = (LanNode(tmp_path / name, host) for name, host in hosts.items())
        hosts["red"].lose(hosts["blue"])
        async with started(red, blue):

            async def has_tried_for_long() -> bool:
                unreachable = [(await node.get("/api/diagnostics"))["unreachable"] for node in (red, blue)]
                return all(found and found[0]["attempts"] > GIVE_UP_AFTER for found in unreachable)

            await until(has_tried_for_long, "both to have tried again and again")
            found = await diagnose(blue)
            assert found["reach"]["verdict"] == "wrong"
            assert f"{hosts['red'].address}:{red.mesh_port}" in found["reach"]["what"]

            hosts["red"].find(hosts["blue"])
            await red.until_sees("blue")
            await blue.until_sees("red")
            assert (await diagnose(blue))["members"]["verdict"] == "fine"
            assert not (await blue.get("/api/diagnostics"))["unreachable"]


async def test_a_copied_data_folder_is_noticed(tmp_path: Path) -> None:
    with lan("red", "blue") as hosts:
        red, blue = (LanNode(tmp_path / name, host) for name, host in hosts.items())
        for node in (red, blue):
            (node.root / "identity.key").write_text("ab" * 32)
        async with started(red, blue):
            for node in (red, blue):
                await until(lambda node=node: "identity.key" in node.log(), f"{node.name} to notice")  # type: ignore[misc]

            assert (await diagnose(red))["identity"]["verdict"] == "wrong"


async def diagnose(node: LanNode) -> dict[str, dict[str, str]]:
    """What `shoal doctor` finds on that host, by topic."""
    command = [*node.prefix, sys.executable, "-m", "node", "doctor", "--json", "--data", str(node.root)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    return {finding["topic"]: finding for finding in json.loads(done.stdout)}
