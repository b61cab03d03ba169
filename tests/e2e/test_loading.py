"""Models are loaded by the first request that needs them, once, and by name on any node."""

import asyncio
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from tests.helpers.nodes import mesh_of, until

pytestmark = pytest.mark.e2e

HELLO = [{"role": "user", "content": "Hello"}]


async def test_the_first_request_loads_the_model_once_however_many_wait(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "a") as [a], a.client() as http:
        body = {"model": "minnow", "messages": HELLO, "max_tokens": 4}

        answers = await asyncio.gather(*(http.post("/v1/chat/completions", json=body) for _ in range(8)))

        assert [answer.status_code for answer in answers] == [200] * 8
        assert len(a.backends()) == 1


async def test_two_entry_nodes_do_not_load_it_twice(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "ab") as (a, b), a.client() as at_a:
        body = {"model": "minnow", "messages": HELLO, "max_tokens": 4}
        first = await at_a.post("/v1/chat/completions", json=body)
        holder = first.headers["x-shoal-node"]
        await b.until_sees("a", model="minnow", held_by=holder)

        async with b.client() as at_b:
            second = await at_b.post("/v1/chat/completions", json=body)

        assert second.headers["x-shoal-node"] == holder
        assert len(a.backends()) + len(b.backends()) == 1


async def test_load_and_unload_by_name_on_another_node(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "ab") as (a, b), a.client() as http:
        loaded = await http.post("/api/models/echo/load", json={"node": "b"})
        assert loaded.status_code == 200, loaded.text
        await a.until_sees("b", model="echo", held_by="b")
        assert len(b.backends()) == 1

        unloaded = await http.post("/api/models/echo/unload", json={"node": b.id})
        assert unloaded.status_code == 200, unloaded.text
        await until(lambda: not b.backends(), "the backend to end")

        assert (await http.post("/api/models/echo/load", json={"node": "nobody"})).status_code == 404
        assert (await http.post("/api/models/nothing/load")).status_code == 404


async def test_a_gguf_dropped_into_the_folder_is_usable_by_name(tmp_path: Path) -> None:
    async with mesh_of(tmp_path, "ab") as (a, b), a.client() as http:
        shutil.copy(str(files("gallery.minnow") / "minnow.gguf"), b.root / "models" / "my-fish.gguf")

        async def is_listed() -> bool:
            return (await http.get("/v1/models/my-fish")).status_code == 200

        await until(is_listed, "the new model to be listed")
        body = {"model": "my-fish", "messages": HELLO, "max_tokens": 4}
        answer = await http.post("/v1/chat/completions", json=body)

        assert answer.status_code == 200, answer.text
        assert answer.headers["x-shoal-node"] == "b"


async def test_a_model_that_changes_on_disk_is_another_one_and_the_old_one_ends(tmp_path: Path) -> None:
    card = tmp_path / "a" / "models" / "parrot.yaml"
    card.parent.mkdir(parents=True)
    card.write_text("engine: echo\nsettings:\n  reply: old\n")
    async with mesh_of(tmp_path, "a") as [a], a.client() as http:

        async def says() -> str:
            answer = await http.post("/v1/chat/completions", json={"model": "parrot", "messages": HELLO})
            return str(answer.json()["choices"][0]["message"]["content"])

        assert await says() == "old"
        [old] = a.backends()

        card.write_text("engine: echo\nsettings:\n  reply: new\n")

        # Nobody has to ask for the new one first.
        await until(lambda: not old.is_running(), "the old backend to end")
        assert await says() == "new"
        assert len(a.backends()) == 1


async def test_a_corrupt_file_is_one_clear_error_and_the_node_stays_up(tmp_path: Path) -> None:
    (tmp_path / "a" / "models").mkdir(parents=True)
    whole = (files("gallery.minnow") / "minnow.gguf").read_bytes()
    (tmp_path / "a" / "models" / "broken.gguf").write_bytes(whole[: len(whole) // 2])
    async with mesh_of(tmp_path, "a") as [a], a.client() as http:
        answer = await http.post("/v1/chat/completions", json={"model": "broken", "messages": HELLO})

        assert answer.status_code == 503
        error = answer.json()["error"]
        assert error["code"] == "model_load_failed"
        assert "broken.gguf" in error["message"]
        assert (await http.get("/readyz")).status_code == 200


async def test_a_request_is_told_to_come_back_when_a_load_takes_too_long(tmp_path: Path) -> None:
    (tmp_path / "a" / "models").mkdir(parents=True)
    (tmp_path / "a" / "models" / "slow.yaml").write_text("engine: echo\nsettings:\n  load_seconds: 4\n")
    async with mesh_of(tmp_path, "a", "--load-wait", "0.3") as [a], a.client() as http:
        body = {"model": "slow", "messages": HELLO}

        early = await http.post("/v1/chat/completions", json=body)

        assert early.status_code == 503
        assert early.json()["error"]["code"] == "model_loading"
        assert int(early.headers["retry-after"]) >= 1

        async def answers() -> bool:
            return (await http.post("/v1/chat/completions", json=body)).status_code == 200

        await until(answers, "the load to end")
