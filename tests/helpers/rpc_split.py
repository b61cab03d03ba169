"""Run as a program: a model split over two devices that other processes lend over llama.cpp's RPC, beside the same
model on the CPU alone. Prints one JSON object. A process of its own, because ggml forgets no device.

    python -m tests.helpers.rpc_split MODEL.gguf        the whole of it
    python -m tests.helpers.rpc_split --lend ADDRESS    one of the two others
"""

import ctypes
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp
from llama_cpp import _ggml

from backends.llama.devices import found_devices
from backends.llama.model import Context, Model
from backends.llama.offload import ON_CPU, Offload
from backends.llama.planning import plan_load
from backends.llama.settings import LlamaSettings, Machine
from backends.llama.shape import Shape
from backends.rpc import backend_pb2 as pb

ggml = _ggml.libggml
PROMPT = [1, *range(70, 110)]


def rpc_library() -> Any:
    """ggml's RPC backend, as llama-cpp-python ships it."""
    return ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-rpc.so"))


def lend(address: str) -> None:
    """Lend the CPU, until killed."""
    ggml.ggml_backend_dev_by_type.restype = ctypes.c_void_p
    cpu = (ctypes.c_void_p * 1)(ggml.ggml_backend_dev_by_type(0))
    start = rpc_library().ggml_backend_rpc_start_server
    start.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
    start(address.encode(), None, 1, 1, cpu)


def use(address: str) -> None:
    """Count the device lent there among this process's."""
    add = rpc_library().ggml_backend_rpc_add_server
    add.restype = ctypes.c_void_p
    ggml.ggml_backend_register.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_register(add(address.encode()))


def answer(path: str, offload: Offload) -> list[int]:
    """The likeliest tokens after the prompt."""
    model = Model(path, repack=False, on_progress=lambda fraction: True, offload=offload)
    context = Context(model, Shape(cells=256, sequences=1, batch=64, micro_batch=64, threads=1))
    tokens = list(PROMPT)
    fed = 0
    for _ in range(8):
        context.clear_batch()
        row = context.add(tokens[fed:], 0, fed, rows=1)
        context.decode()
        fed = len(tokens)
        tokens.append(int(context.logits(row).argmax()))
    context.close()
    model.close()
    return tokens[len(PROMPT) :]


def main(path: str) -> None:
    """Both answers, and what was planned."""
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in (one, two)]
    lenders = [
        subprocess.Popen([sys.executable, "-m", __spec__.name, "--lend", address], stdout=subprocess.DEVNULL)
        for address in addresses
    ]
    try:
        for address in addresses:
            host, port = address.split(":")
            for _ in range(300):
                with socket.socket() as probe:
                    if probe.connect_ex((host, int(port))) == 0:
                        break
                time.sleep(0.1)
            use(address)
        devices = tuple(found.device for found in found_devices() if found.device.kind != "cpu")
        settings = LlamaSettings(context_length=256, slots=1, tensor_split=(2, 1))
        planned = plan_load(settings, pb.LoadRequest(path=path), Machine(free_bytes=2**30, cores=1, devices=devices))
        print(
            json.dumps(
                {
                    "devices": [[device.name, device.kind, device.total > 0] for device in devices],
                    "shares": [[share.device, share.layers, share.bytes] for share in planned.offload.shares],
                    "split": answer(path, planned.offload),
                    "alone": answer(path, ON_CPU),
                }
            )
        )
    finally:
        for lender in lenders:
            lender.kill()
            lender.wait()


if __name__ == "__main__":
    lend(sys.argv[2]) if sys.argv[1] == "--lend" else main(sys.argv[1])
