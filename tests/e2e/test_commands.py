"""The commands as a person types them, against real nodes."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.helpers.nodes import Node, mesh_of, until

pytestmark = pytest.mark.e2e

SHOAL = (sys.executable, "-m", "node")


async def shoal(*arguments: str, stdin: str | None = None, check: int = 0, **variables: str) -> str:
    """What a command prints; its exit code must be `check`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SHOAL_")} | {"COLUMNS": "160"} | variables
    done = await asyncio.to_thread(
        subprocess.run,
        [*SHOAL, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        input=stdin,
        env=environment,
    )
    assert done.returncode == check, done.stdout + done.stderr
    return done.stdout + done.stderr


async def test_status_models_and_chat_find_the_node_of_a_data_folder(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "ab") as (a, b):
        data = ("--data", str(a.root))
        await b.load("minnow", "b")
        await a.until_sees("b", model="minnow", held_by="b")

        status = await shoal("status", *data)
        assert re.search(r"a \*\s+alive", status)
        assert re.search(r"minnow\s+b\s+ready", status)
        assert {node["name"] for node in json.loads(await shoal("status", "--json", *data))["nodes"]} == {"a", "b"}

        assert "echo" in await shoal("models", "list", *data)
        assert "echo loaded on b" in await shoal("models", "load", "echo", "--node", "b", *data)
        assert "echo unloaded on b" in await shoal("models", "unload", "echo", *data)
        assert "no node in the mesh has model 'eco'" in await shoal("models", "load", "eco", *data, check=1)

        answer = await shoal("chat", "-m", "What is the capital of France?", *data)
        assert "Paris" in answer
        assert "minnow on b" in answer
        assert "Paris" in await shoal("chat", "minnow", *data, stdin="What is the capital of France?")


async def test_doctor_finds_nothing_wrong_in_a_mesh_that_works(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "ab") as (a, _):
        found = json.loads(await shoal("doctor", "--json", "--data", str(a.root)))

    topics = {finding["topic"]: finding["verdict"] for finding in found}
    assert topics["members"] == "fine"
    assert topics["token"] == "fine"
    assert "wrong" not in topics.values()


async def test_doctor_names_a_port_that_nobody_listens_on(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "a") as [a]:
        told = await shoal("doctor", "--peer", "127.0.0.1:1", "--data", str(a.root), check=1)

    assert "127.0.0.1:1 refuses: nothing listens on that port" in told
    assert "no other node yet" in told


async def test_a_command_without_a_node_says_how_to_start_one(tmp_path: Path) -> None:
    told = await shoal("status", "--api", "http://127.0.0.1:1", "--data", str(tmp_path), check=1)

    assert told.splitlines() == [
        "shoal: no node answers at http://127.0.0.1:1",
        "  start one with 'shoal up', or point at one with --api URL",
    ]


async def test_the_first_start_prints_a_join_command_that_works_and_later_ones_no_token(tmp_path: Path) -> None:
    first = Node(tmp_path / "first", "first", "--no-mdns", "--mesh-host", "127.0.0.1", token=None)
    first.start()
    second = Node(tmp_path / "second", "second", "--no-mdns", "--mesh-host", "127.0.0.1", token=None)
    try:
        await first.until_ready()
        printed = re.search(r"shoal up (--token shoal-\w+)", first.log())
        assert printed
        second.flags = (*second.flags, *printed[1].split(), "--peer", f"127.0.0.1:{first.mesh_port}")
        second.start()
        await second.until_ready()
        await first.until_sees("second")

        token = printed[1].split()[1]
        assert first.stop() == 0
        (first.root / "node.log").unlink()
        first.start()
        await first.until_ready()
        assert token not in first.log() + second.log()
        assert f"shoal up --token {token}" in await shoal("token", "show", "--data", str(first.root))
    finally:
        for node in (first, second):
            node.stop()


async def test_other_machines_need_the_key_unless_the_node_is_open(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "ab", "--host", "0.0.0.0") as (a, _):
        key = json.loads(await shoal("token", "show", "--json", "--data", str(a.root)))["api_key"]
        async with httpx.AsyncClient(base_url=a.api, trust_env=False) as http:
            assert (await http.get("/healthz")).status_code == 200
            refused = await http.get("/v1/models")
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "invalid_api_key"
            let_in = await http.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
            assert let_in.status_code == 200
        # The commands find the key in the data folder.
        assert "minnow" in await shoal("models", "list", "--data", str(a.root))


async def test_a_web_page_elsewhere_cannot_use_the_node(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "a") as [a], httpx.AsyncClient(base_url=a.api, trust_env=False) as http:
        assert (await http.get("/v1/models", headers={"Origin": "https://evil.example"})).status_code == 403
        assert (await http.get("/v1/models", headers={"Host": "evil.example"})).status_code == 403
        assert (await http.get("/v1/models", headers={"Origin": "http://localhost:3000"})).status_code == 200


@pytest.mark.timeout(120)
async def test_the_demo_shows_an_answer_across_the_mesh_and_leaves_nothing_running(tmp_path: Path) -> None:
    told = await shoal("demo", "--once", TMPDIR=str(tmp_path))

    assert "3 nodes found each other" in told
    assert "The capital of France is Paris." in told
    assert re.search(r"answered by node-3 \(forwarded: .*\); the hop adds [\d.-]+ ms", told)
    left = await asyncio.to_thread(subprocess.run, ["pgrep", "-f", str(tmp_path)], capture_output=True)
    assert left.stdout == b""


@pytest.mark.timeout(120)
async def test_the_demo_stays_up_until_ctrl_c_with_lines_to_copy(tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    with log.open("wb") as out:
        demo = await asyncio.create_subprocess_exec(*SHOAL, "demo", "--nodes", "2", stdout=out, stderr=out)
    try:
        await until(lambda: "chat minnow --api" in log.read_text() or demo.returncode is not None, "the demo", 60)
        text = log.read_text()
        curl = re.search(r"curl (?:.|\n)*?\}'", text)
        assert curl, text
        answered = await asyncio.to_thread(
            subprocess.run, ["bash", "-c", f"{curl[0]} -s"], capture_output=True, text=True, timeout=30
        )
        assert "Paris" in answered.stdout
        snippet = re.search(r"from openai (?:.|\n)*?end=\"\"\)", text)
        assert snippet, text
        code = "\n".join(line.removeprefix("  ") for line in snippet[0].splitlines())
        counted = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, timeout=30
        )
        assert "1, 2, 3" in counted.stdout, counted.stderr
    finally:
        demo.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(demo.wait(), 30) == 0
