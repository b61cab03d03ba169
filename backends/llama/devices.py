"""What llama.cpp can compute on here, as its own library tells it.

`llama_supports_gpu_offload` is no help: it says yes to any build with the RPC backend. So the devices are asked
for one by one, through ggml's C interface, which llama-cpp-python ships but does not wrap. Devices that other
machines lend are in the same list once their servers are registered.
"""

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
from llama_cpp import _ggml

from backends.llama.offload import CPU_KIND, Device
from backends.rpc import backend_pb2 as pb

CPU, GPU, INTEGRATED_GPU = 0, 1, 2
"""`enum ggml_backend_dev_type` of ggml-backend.h; what follows are accelerators of the CPU's own memory."""


@dataclass(frozen=True, slots=True)
class Found:
    """One device of the loaded library."""

    device: Device
    description: str
    """What people call it: "NVIDIA H200"."""

    handle: int
    """ggml's own pointer."""

    buffer: str
    """How llama.cpp's log calls its memory."""


_forgotten: set[str] = set()
"""Names of devices that nobody may ask any more."""


def found_devices() -> list[Found]:
    """Every device of the loaded library as it is now, CPU included."""
    return list(_found(_ggml.libggml))


def forget(names: Iterable[str]) -> None:
    """Leave these out from now on: their machines lend them no longer. llama.cpp cannot take a device off its list,
    and asking one that does not answer ends the process."""
    _forgotten.update(names)


def devices() -> list[pb.Device]:
    """The same, for others to read."""
    return [
        pb.Device(
            kind=found.device.kind,
            name=found.description,
            memory_total=found.device.total,
            memory_free=found.device.free,
            id=found.device.name,
        )
        for found in found_devices()
    ]


def handles(names: Sequence[str]) -> Any:
    """The devices of these names, as llama.cpp takes them: a list of pointers that ends with none. Empty: the CPU."""
    by_name = {found.device.name: found.handle for found in found_devices()} if names else {}
    return (ctypes.c_void_p * (len(names) + 1))(*(by_name[name] for name in names), None)


def _found(ggml: ctypes.CDLL) -> Iterator[Found]:
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for function in (
        ggml.ggml_backend_dev_name,
        ggml.ggml_backend_dev_description,
        ggml.ggml_backend_buft_name,
    ):
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_buffer_type.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_buffer_type.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_memory.restype = None
    ggml.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, *[ctypes.POINTER(ctypes.c_size_t)] * 2]
    for index in range(ggml.ggml_backend_dev_count()):
        handle = ggml.ggml_backend_dev_get(index)
        if ggml.ggml_backend_dev_name(handle).decode(errors="replace") in _forgotten:
            continue
        kind = ggml.ggml_backend_dev_type(handle)
        if kind not in (CPU, GPU, INTEGRATED_GPU):
            continue
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        ggml.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
        if kind == CPU:
            # ggml calls all of it free.
            free.value = min(free.value, psutil.virtual_memory().available)
        # "CUDA0", "Vulkan1", "Metal": the family is what stands before the number.
        name = ggml.ggml_backend_dev_name(handle).decode(errors="replace")
        family = name.rstrip("0123456789").lower()
        yield Found(
            Device(
                name,
                CPU_KIND if kind == CPU else family,
                free=free.value,
                total=total.value,
                is_integrated=kind == INTEGRATED_GPU,
            ),
            ggml.ggml_backend_dev_description(handle).decode(errors="replace"),
            handle,
            ggml.ggml_backend_buft_name(ggml.ggml_backend_dev_buffer_type(handle)).decode(errors="replace"),
        )
