"""Whose memory a model takes."""

from typing import Any

import pytest

from gallery.card import ModelCard
from mesh.types import Device
from node.machine_memory import MachineMemory

RAM = Device("cpu", "CPU", 100, 60)
GPUS = [Device("cuda", "one", 40, 10), Device("cuda", "other", 40, 20)]


def card(engine: str = "llama", **settings: Any) -> ModelCard:
    return ModelCard(name="m", engine=engine, settings=settings)


@pytest.mark.parametrize(
    ("model", "devices", "offloads", "on_gpu"),
    [
        pytest.param(card(), [RAM, *GPUS], True, True, id="a GPU and an engine built for it"),
        pytest.param(card(), [RAM, *GPUS], False, False, id="an engine built for the CPU only"),
        pytest.param(card(), [RAM], True, False, id="no GPU"),
        pytest.param(card(gpu_layers=0), [RAM, *GPUS], True, False, id="told to stay off it"),
        pytest.param(card(devices=["cpu"]), [RAM, *GPUS], True, False, id="told to stay on the CPU"),
        pytest.param(card("echo"), [RAM, *GPUS], True, False, id="an engine that knows none"),
    ],
)
def test_a_model_goes_to_the_gpus_where_its_engine_can(
    model: ModelCard, devices: list[Device], offloads: bool, on_gpu: bool
) -> None:
    memory = MachineMemory(lambda: devices, offloads=lambda: offloads)

    assert memory.is_on_gpu(model) is on_gpu
    assert memory.free(on_gpu=memory.is_on_gpu(model)) == (30 if on_gpu else 60)
