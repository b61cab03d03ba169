"""Which memory a model takes, and how much of it is free: the GPUs', where its engine computes there, or the machine's.

Where GPUs share the machine's memory, their figures are the machine's, so that either way of looking is right.
"""

import functools
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from gallery.card import ModelCard
from mesh.types import Device
from node.devices import detect

GPU_LIBRARIES = ("cuda", "hip", "metal", "sycl", "vulkan")
"""ggml's, one for each family."""


@functools.cache
def llama_offloads() -> bool:
    """Whether llama.cpp was built for GPUs here: then it has libraries for them. Nothing is loaded for that."""
    package = find_spec("llama_cpp")
    folders = package.submodule_search_locations if package is not None else None
    return any(
        next(Path(folder, "lib").glob(f"*ggml-{family}*"), None) is not None
        for folder in folders or ()
        for family in GPU_LIBRARIES
    )


@functools.cache
def torch_offloads() -> bool:
    """Whether torch was built for GPUs here. Nothing is loaded for that."""
    package = find_spec("torch")
    folders = package.submodule_search_locations if package is not None else None
    libraries = ("libtorch_cuda*", "libtorch_hip*", "libtorch_xpu*")
    return any(next(Path(folder, "lib").glob(name), None) for folder in folders or () for name in libraries)


class MachineMemory:
    """This machine's, as it is now. Asking costs a look at the devices."""

    def __init__(
        self,
        devices: Callable[[], Sequence[Device]] = detect,
        *,
        offloads: Callable[[], bool] = llama_offloads,
    ) -> None:
        """`offloads`: whether llama.cpp was built for GPUs."""
        self._devices = devices
        self._offloads = offloads

    def is_on_gpu(self, card: ModelCard) -> bool:
        """Whether the model goes to the GPUs. What does not fit there stays in the machine's memory; that is left
        out of account."""
        settings = card.settings
        if card.engine == "diffusers":
            return settings.get("device") != "cpu" and torch_offloads() and bool(_gpus(self._devices()))
        if card.engine != "llama" or settings.get("gpu_layers") == 0 or settings.get("devices") == ["cpu"]:
            return False
        if not self._offloads():
            return False
        return bool(_gpus(self._devices()))

    def free(self, *, on_gpu: bool) -> float:
        """Bytes: of all GPUs together, or of the machine."""
        devices = self._devices()
        return float(
            sum(d.memory_free for d in (_gpus(devices) if on_gpu else [d for d in devices if d.kind == "cpu"]))
        )


def _gpus(devices: Sequence[Device]) -> list[Device]:
    return [device for device in devices if device.kind != "cpu"]
