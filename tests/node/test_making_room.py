"""A model that does not fit unloads what nobody uses. Real processes; only the memory is made up."""

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from backends.rpc import backend_pb2 as pb
from gallery.catalog import Catalog
from gallery.digest import DigestCache
from mesh.types import Device
from node.config import NodeConfig
from node.lifecycle import State
from node.local_models import LocalModels
from node.machine_memory import MachineMemory
from node.protocol import GENERATE
from node.supervisor import Supervisor

MODELS = ("one", "two", "three")
SIZE = 1000


class Machine:
    """A node's models, in as much memory as we say."""

    def __init__(self, folder: Path, supervisor: Supervisor, **settings: object) -> None:
        self.free = 1e12
        self.supervisor = supervisor
        (folder / "models").mkdir()
        for name in MODELS:
            (folder / "models" / f"{name}.bin").write_bytes(name.encode().ljust(SIZE))
            (folder / "models" / f"{name}.yaml").write_text(f"engine: echo\npath: {name}.bin\n")
        config = NodeConfig(name="n", data=folder, **settings)  # type: ignore[arg-type]
        catalog, digests = Catalog(folder / "models"), DigestCache(folder / "digests")
        self.local = LocalModels(catalog, digests, supervisor, config, MachineMemory(self.devices))

    def devices(self) -> list[Device]:
        return [Device("cpu", "CPU", int(1e12), int(self.free))]

    @property
    def ready(self) -> set[str]:
        return {s.name for s in self.supervisor.backends if s.state is State.READY}

    async def use(self, name: str) -> None:
        request = pb.GenerateRequest(prompt="hi", max_tokens=1)
        async for _ in await self.local.call(name, "", GENERATE, [request.SerializeToString()]):
            pass


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    async with Supervisor(log_dir=tmp_path / "logs", runtime_parent=tmp_path) as supervisor:
        yield supervisor


async def test_the_longest_unused_makes_room(tmp_path: Path, supervisor: Supervisor) -> None:
    machine = Machine(tmp_path, supervisor)
    await machine.local.refresh()
    await machine.use("one")
    await machine.use("two")
    await machine.use("one")
    machine.free = 0.0

    await machine.local.load("three")

    assert machine.ready == {"one", "three"}


async def test_a_busy_model_and_a_pinned_one_stay(tmp_path: Path, supervisor: Supervisor) -> None:
    machine = Machine(tmp_path, supervisor, model=("two",))
    await machine.local.refresh()
    await machine.use("two")
    endless = pb.GenerateRequest(
        messages_json='[{"role": "user", "content": "hi"}]',
        template_json=orjson.dumps({"tokens": 100_000, "token_interval": 0.05}).decode(),
    )
    running = await machine.local.call("one", "", GENERATE, [endless.SerializeToString()])
    await anext(running)
    machine.free = 0.0

    await machine.local.load("three")

    assert machine.ready == set(MODELS)
    await running.aclose()
