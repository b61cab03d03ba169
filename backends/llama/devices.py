"""What llama.cpp can compute on here, as its own library tells it.

`llama_supports_gpu_offload` is no help: it says yes to any build with the RPC backend. So the devices are asked
for one by one, through ggml's C interface, which llama-cpp-python ships but does not wrap.
"""

import ctypes
from collections.abc import Iterator

import psutil
from llama_cpp import _ggml

from backends.rpc import backend_pb2 as pb

CPU, GPU, INTEGRATED_GPU = 0, 1, 2
"""`enum ggml_backend_dev_type` of ggml-backend.h; what follows are accelerators of the CPU's own memory."""


def devices() -> list[pb.Device]:
    """Every device of the loaded library, CPU included."""
    return list(_devices(_ggml.libggml))


def has_gpu() -> bool:
    """Whether layers of a model can be put on a GPU."""
    return any(device.kind != "cpu" for device in devices())


def _devices(ggml: ctypes.CDLL) -> Iterator[pb.Device]:
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for function in (ggml.ggml_backend_dev_name, ggml.ggml_backend_dev_description):
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_memory.restype = None
    ggml.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, *[ctypes.POINTER(ctypes.c_size_t)] * 2]
    for index in range(ggml.ggml_backend_dev_count()):
        device = ggml.ggml_backend_dev_get(index)
        kind = ggml.ggml_backend_dev_type(device)
        if kind not in (CPU, GPU, INTEGRATED_GPU):
            continue
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        ggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        if kind == CPU:
            # ggml calls all of it free.
            free.value = min(free.value, psutil.virtual_memory().available)
        # "CUDA0", "Vulkan1", "Metal": the family is what stands before the number.
        name = ggml.ggml_backend_dev_name(device).decode(errors="replace")
        family = name.rstrip("0123456789").lower()
        yield pb.Device(
            kind="cpu" if kind == CPU else family,
            name=ggml.ggml_backend_dev_description(device).decode(errors="replace"),
            memory_total=total.value,
            memory_free=free.value,
        )
