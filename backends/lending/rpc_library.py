"""llama.cpp's RPC backend, through its C interface: llama-cpp-python ships the library and does not wrap it.

https://github.com/ggml-org/llama.cpp/blob/master/ggml/include/ggml-rpc.h
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
from llama_cpp import _ggml

from backends.errors import UnsupportedError


def library() -> ctypes.CDLL:
    """The RPC library.

    Raises:
        UnsupportedError: llama.cpp was built without it.
    """
    found = sorted(Path(llama_cpp.__file__).parent.glob("lib/*ggml-rpc.*"))
    if not found:
        raise UnsupportedError("llama.cpp was built without GGML_RPC here: it can neither lend devices nor borrow any")
    rpc = ctypes.CDLL(str(found[0]))
    rpc.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    rpc.ggml_backend_rpc_add_server.argtypes = [ctypes.c_char_p]
    rpc.ggml_backend_rpc_start_server.restype = None
    rpc.ggml_backend_rpc_start_server.argtypes = [
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_size_t,
        ctypes.c_void_p,
    ]
    return rpc


def serve(endpoint: str, cache_dir: str, threads: int, devices: Sequence[int]) -> None:
    """Answers one client after the other at `endpoint`; returns only if it cannot listen there."""
    array = (ctypes.c_void_p * len(devices))(*devices)
    cache = cache_dir.encode() if cache_dir else None
    library().ggml_backend_rpc_start_server(endpoint.encode(), cache, threads, len(devices), array)


def borrow(endpoint: str) -> list[str]:
    """Puts the devices of a server into llama.cpp's list; their names there.

    The server must answer: llama.cpp ends the process otherwise.
    """
    ggml = _ggml.libggml
    ggml.ggml_backend_register.restype = None
    ggml.ggml_backend_register.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_reg_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_reg_dev_count.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_reg_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_reg_dev_get.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    ggml.ggml_backend_dev_name.restype = ctypes.c_char_p
    ggml.ggml_backend_dev_name.argtypes = [ctypes.c_void_p]
    registry = library().ggml_backend_rpc_add_server(endpoint.encode())
    if not registry:
        return []
    ggml.ggml_backend_register(registry)
    count = ggml.ggml_backend_reg_dev_count(registry)
    devices = [ggml.ggml_backend_reg_dev_get(registry, index) for index in range(count)]
    return [ggml.ggml_backend_dev_name(device).decode(errors="replace") for device in devices]


def local_devices() -> list[int]:
    """What this machine lends: its GPUs, or else its CPU."""
    ggml = _ggml.libggml
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    ggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    every = [ggml.ggml_backend_dev_get(index) for index in range(ggml.ggml_backend_dev_count())]
    kinds = {device: ggml.ggml_backend_dev_type(device) for device in every}
    gpus = [device for device in every if kinds[device] in (1, 2)]
    return gpus or [device for device in every if kinds[device] == 0]
