"""Weights travel inside the mesh: from peers that have them, and from the internet once for everybody."""

import asyncio
import hashlib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from tests.e2e.test_install import install, says_hello, shoal
from tests.helpers.file_server import FileServer
from tests.helpers.nodes import Node, mesh_of, until

pytestmark = pytest.mark.e2e

MINNOW = (files("gallery.minnow") / "minnow.gguf").read_bytes()
SHA = hashlib.sha256(MINNOW).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with FileServer(hub={"fish/Little-Fish-GGUF": {"little-fish-Q8_0.gguf": MINNOW}}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


async def give(node: Node, name: str, card: str = "") -> None:
    """Puts a model into a node's folder, by hand."""
    (node.root / "models" / f"{name}.gguf").write_bytes(MINNOW)
    if card:
        (node.root / "models" / f"{name}.yaml").write_text(card)


async def until_known(node: Node, model: str) -> None:
    async def is_known() -> bool:
        async with node.client() as http:
            return (await http.get(f"/v1/models/{model}")).status_code == 200

    await until(is_known, f"{node.name} to hear of {model}")


async def test_a_model_that_only_a_peer_has_is_installed_by_its_name(tmp_path: Path, hub: FileServer) -> None:
    async with mesh_of(tmp_path, "ab") as (a, b), b.client() as http:
        await give(
            a, "goldfish", "description: swims\naliases: [carassius]\nsettings: {slots: 1, context_length: 512}\n"
        )
        await until_known(b, "goldfish")

        told = await shoal(b, "models", "install", "goldfish")

        assert "goldfish is installed: as a has it" in told
        assert (b.root / "models" / "goldfish" / "goldfish.gguf").read_bytes() == MINNOW
        card = (b.root / "models" / "goldfish.yaml").read_text()
        assert "description: swims" in card
        assert "carassius" in card
        assert "slots" not in card  # How fast it is on another machine is none of this one's business.
        a.kill()
        assert (await says_hello(http, "goldfish")).headers["x-shoal-node"] == "b"
        shown = (await http.get("/api/gallery/models/goldfish")).json()
        assert shown["installed"]["files"][0]["sha256"] == SHA
        jobs = (await http.get("/api/gallery/jobs")).json()["jobs"]
        assert jobs[0]["from_peers"] >= len(MINNOW)
    assert hub.bytes_sent == 0


async def test_what_a_peer_has_is_not_fetched_from_the_internet_again(tmp_path: Path, hub: FileServer) -> None:
    async with mesh_of(tmp_path, "ab") as (a, b), a.client() as at_a, b.client() as at_b:
        assert (await install(at_a, "hf://fish/Little-Fish-GGUF"))["state"] == "done"
        await until_known(b, "little-fish")
        before = hub.bytes_sent

        job = await install(at_b, "hf://fish/Little-Fish-GGUF")

        assert job["state"] == "done", job
        assert (b.root / "models" / "little-fish" / "little-fish-Q8_0.gguf").read_bytes() == MINNOW
        assert hub.bytes_sent - before < len(MINNOW) / 10


async def test_a_model_marked_private_stays_where_it_is(tmp_path: Path, hub: FileServer) -> None:
    async with mesh_of(tmp_path, "ab") as (a, b), b.client() as http:
        await give(a, "goldfish", "private: true\n")
        await until_known(b, "goldfish")

        job = await install(http, "goldfish")

        assert (job["state"], job["code"]) == ("failed", "not_found"), job


async def test_a_node_that_shares_nothing_gives_nothing(tmp_path: Path, hub: FileServer) -> None:
    async with mesh_of(tmp_path, "ab", "--no-share") as (a, b), b.client() as http:
        await give(a, "goldfish")
        await until_known(b, "goldfish")

        job = await install(http, "goldfish")

        assert (job["state"], job["code"]) == ("failed", "not_found"), job
        await asyncio.sleep(0)
