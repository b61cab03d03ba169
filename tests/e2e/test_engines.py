"""Engines that are no part of Shoal, and engines whose packages are installed while the node runs."""

import asyncio
import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.test_install import followed, shoal
from tests.helpers.file_server import FileServer
from tests.helpers.nodes import Node, events, mesh_of, until
from tests.helpers.wheels import as_only_index, serve, wheel

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parent.parent.parent
WORDS = "polly wants a cracker"


def parrot(folder: Path, **changes: str) -> Path:
    """The example of the documentation, as somebody would copy it."""
    shutil.copytree(ROOT / "backends" / "examples" / "parrot", folder)
    shutil.copy(ROOT / "proto" / "backend.proto", folder)
    told = (folder / "backend.yaml").read_text()
    (folder / "backend.yaml").write_text(told + "".join(f"{key}: {value}\n" for key, value in changes.items()))
    return folder


def model(node_root: Path, name: str, card: str) -> None:
    (node_root / "models").mkdir(parents=True, exist_ok=True)
    (node_root / "models" / f"{name}.yaml").write_text(card)


async def ask(http: httpx.AsyncClient, name: str, **more: Any) -> httpx.Response:
    messages = [{"role": "user", "content": WORDS}]
    return await http.post("/v1/chat/completions", json={"model": name, "messages": messages, **more})


def said(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


async def test_a_program_of_somebody_else_answers_here_and_forwarded(tmp_path: Path) -> None:
    parrot(tmp_path / "a" / "engines" / "parrot")
    model(tmp_path / "a", "polly", "engine: parrot\nsettings: {pause: 0.01}\n")
    async with mesh_of(tmp_path, "ab") as (a, b), a.client() as at_a, b.client() as at_b:
        engines = {e["name"]: e for e in (await at_a.get("/api/engines")).json()["engines"]}
        assert (engines["parrot"]["state"], engines["parrot"]["source"]) == ("ready", "folder")

        assert said(await ask(at_a, "polly")) == WORDS

        forwarded = await ask(at_b, "polly", max_tokens=2)
        assert said(forwarded) == "polly wants"
        assert forwarded.headers["x-shoal-node"] == "a"
        assert forwarded.json()["choices"][0]["finish_reason"] == "length"
        assert forwarded.json()["usage"]["completion_tokens"] == 2

        refused = await at_b.post("/v1/embeddings", json={"model": "polly", "input": "x"})
        assert (refused.status_code, "embedding" in refused.text) == (400, True)


async def test_a_strange_backend_is_started_again_and_refuses_as_ours_do(tmp_path: Path) -> None:
    parrot(tmp_path / "engines" / "parrot")
    model(tmp_path / "a", "polly", "engine: parrot\n")
    model(tmp_path / "a", "wrong", "engine: parrot\nsettings: {paws: 4}\n")
    async with mesh_of(tmp_path, "a", "--engines-from", str(tmp_path / "engines")) as [a], a.client() as http:
        assert said(await ask(http, "polly")) == WORDS
        [process] = strangers(a)
        process.kill()

        assert said(await ask(http, "polly")) == WORDS

        wrong = await ask(http, "wrong")
        assert wrong.status_code == 503
        assert "unknown setting 'paws'; there is pause" in wrong.json()["error"]["message"]
        await until(lambda: len(strangers(a)) == 1, "the one that was refused to end")
        [process] = strangers(a)
        a.kill()
        await until(lambda: not process.is_running(), "it to end with its node")


async def test_an_answer_of_a_strange_backend_goes_on_elsewhere(tmp_path: Path) -> None:
    for name in "bc":
        parrot(tmp_path / name / "engines" / "parrot")
        model(tmp_path / name, "polly", "engine: parrot\nsettings: {pause: 0.2}\n")
    async with mesh_of(tmp_path, "abc") as (a, *others), a.client() as http:
        await asyncio.gather(*(node.load("polly", node.name) for node in others))
        body = {"model": "polly", "stream": True, "messages": [{"role": "user", "content": f"{WORDS} {WORDS}"}]}
        text = ""
        async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            holder = next(node for node in others if node.name == answer.headers["x-shoal-node"])
            async for event in events(answer):
                text += event["choices"][0]["delta"].get("content") or "" if event["choices"] else ""
                if text == "polly wants":
                    holder.kill()

        assert text == f"{WORDS} {WORDS}"


async def test_a_backend_of_a_later_protocol_is_refused_by_name(tmp_path: Path) -> None:
    parrot(tmp_path / "a" / "engines" / "parrot", protocol="2")
    async with mesh_of(tmp_path, "a") as [a], a.client() as http:
        found = (await http.get("/api/engines")).json()

        assert "parrot" not in {e["name"] for e in found["engines"]}
        assert "backend.yaml:5: protocol 2: this version of Shoal speaks version 1" in found["problems"][0]


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A package index with the one package that the parrot needs."""
    with FileServer() as server:
        data = "".join(f"WORD_{number} = {number!r}\n" for number in range(20_000))
        url = serve(server, wheel("squawk", "1.0", {"squawk.py": data}))
        for name, value in as_only_index(url).items():
            monkeypatch.setenv(name, value)
        yield server


def needy_parrot(node_root: Path) -> None:
    folder = parrot(node_root / "engines" / "parrot", requirements="[squawk==1.0]")
    (folder / "parrot.py").write_text("import squawk\n" + (folder / "parrot.py").read_text())
    model(node_root, "polly", "engine: parrot\n")


async def test_an_engine_is_installed_while_the_node_runs(tmp_path: Path, index: FileServer) -> None:
    needy_parrot(tmp_path / "b")
    async with mesh_of(tmp_path, "ab") as (a, b), a.client() as http:
        refused = await ask(http, "polly")
        assert refused.status_code == 503
        assert "needs the engine parrot" in refused.text
        assert "shoal engines install parrot" in refused.json()["error"]["message"]
        started = b.process.pid if b.process else 0

        assert "the engine parrot is installed on b" in await shoal(a, "engines", "install", "parrot", "--node", "b")

        assert said(await ask(http, "polly")) == WORDS
        assert b.process is not None
        assert b.process.pid == started
        assert "ready" in await shoal(a, "engines", "list", "--node", "b")
        assert [job["name"] for job in (await b.get("/api/gallery/jobs"))["jobs"]] == ["engine:parrot"]

        assert "are free again" in await shoal(b, "engines", "remove", "parrot")
        assert (await ask(http, "polly")).status_code == 503


async def test_an_engine_whose_install_is_cut_short_leaves_nothing(tmp_path: Path, index: FileServer) -> None:
    needy_parrot(tmp_path / "a")
    index.rate = 20_000
    environments = tmp_path / "a" / "environments"
    async with mesh_of(tmp_path, "a") as [a], a.client() as http:
        job = (await http.post("/api/engines/parrot/install")).json()
        await until(lambda: index.bytes_sent > 10_000, "the download to begin")
        assert [e["job"] for e in (await a.get("/api/engines"))["engines"] if e["name"] == "parrot"] == [job["id"]]

        cancelled = (await http.delete(job["url"])).json()

        assert cancelled["state"] == "cancelled"
        assert not list(environments.glob("parrot-*"))
        assert not [
            p for p in psutil.process_iter(["cmdline"]) if str(environments) in " ".join(p.info["cmdline"] or ())
        ]

        job = (await http.post("/api/engines/parrot/install")).json()
        sent = index.bytes_sent
        await until(lambda: index.bytes_sent > sent + 10_000, "the download to begin again")
        a.kill()
        assert list(environments.glob("parrot-*"))
        index.rate = 0
        a.start()
        await a.until_ready()
    async with mesh_of(tmp_path, "a") as [a], a.client() as http:
        assert (await followed(http, job))["state"] == "done"
        assert said(await ask(http, "polly")) == WORDS


@pytest.mark.parametrize(
    ("engine", "status", "told"),
    [("parot", 400, "there are:"), ("echo", 400, "part of Shoal"), ("speech", 400, "the node's own environment")],
)
async def test_an_engine_with_nothing_to_install_says_so(tmp_path: Path, engine: str, status: int, told: str) -> None:
    async with mesh_of(tmp_path, "a") as [a], a.client() as http:
        answer = await http.post(f"/api/engines/{engine}/install")

        assert (answer.status_code, told in answer.text) == (status, True), answer.text


async def test_a_wrong_setting_is_told_when_it_is_written(tmp_path: Path) -> None:
    model(tmp_path / "a", "slow", "engine: echo\nsettings: {slots: 2}\n")
    async with mesh_of(tmp_path, "a") as [a], a.client() as http:
        assert said(await ask(http, "slow")) == WORDS

        for card, told in [
            ("engine: echo\nsettings: {slot: 2}\n", "unknown setting 'slot'; did you mean 'slots'?"),
            ("engine: llama\npath: x.gguf\nsettings: {context_lenght: 2}\n", "did you mean 'context_length'?"),
            ("engin: echo\n", "unknown key 'engin'; did you mean 'engine'?"),
            ("engine: eco\n", "unknown engine 'eco'; did you mean 'echo'?"),
        ]:
            refused = await http.put("/api/gallery/models/slow", json={"card": card})
            assert (refused.status_code, told in refused.text.replace("\\", "")) == (400, True), refused.text
        assert "slots: 2" in (tmp_path / "a" / "models" / "slow.yaml").read_text()

        edited = await http.put("/api/gallery/models/slow", json={"card": "engine: echo\nsettings: {slots: 3}\n"})
        assert edited.status_code == 200
        assert said(await ask(http, "slow")) == WORDS


def strangers(node: Node) -> list[Any]:
    assert node.process is not None
    with contextlib.suppress(psutil.NoSuchProcess):  # One of them ended while we looked.
        return [p for p in psutil.Process(node.process.pid).children() if "parrot.py" in " ".join(p.cmdline())]
    return []
