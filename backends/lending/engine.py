"""The lender: a backend process that holds no model of its own, and lends this machine's devices to one elsewhere.

One process per loan: llama.cpp's server serves one client at a time, what a hostile one may break is this process,
and its memory comes back for certain when the loan ends.
"""

import asyncio
import contextlib
import os
import resource
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import llama_cpp
import psutil

from backends.engine import Engine, Report
from backends.errors import EngineError, InvalidValueError
from backends.lending import rpc_library
from backends.lending.tunnel import Exit
from backends.rpc import backend_pb2 as pb

START_TIMEOUT = 10.0
"""Seconds for llama.cpp's server to listen."""

ROOM_FOR_THREADS = 512 * 1024 * 1024
"""Bytes of address space (not of memory) that stacks and allocators reserve."""

SWEEP_EVERY = 1.0
"""Seconds between looks at the cache's size."""


class LenderEngine(Engine):
    """Lends until it is unloaded."""

    name = "lender"

    def __init__(self, changed: Callable[[], None]) -> None:
        self._exit: Exit | None = None
        self._sweeping: asyncio.Task[None] | None = None

    def describe(self) -> pb.DescribeReply:
        return pb.DescribeReply(engine=self.name, version=llama_cpp.__version__)

    async def load(self, request: pb.LoadRequest, report: Report) -> pb.LoadedModel:
        """Starts lending.

        Raises:
            InvalidValueError: not told to whom.
            EngineError: it cannot listen.
            UnsupportedError: llama.cpp was built without RPC.
        """
        if not request.HasField("lending"):
            raise InvalidValueError("a lender is loaded with a loan", param="lending")
        lending = request.lending
        devices = rpc_library.local_devices()
        if lending.memory_bytes:
            _limit_memory(lending.memory_bytes)
        port = _free_port()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = min(psutil.cpu_count(logical=False) or cores, cores)
        if lending.cache_dir:
            self._sweeping = asyncio.create_task(_sweep(lending.cache_dir, lending.cache_bytes))
        threading.Thread(
            target=rpc_library.serve,
            args=(f"127.0.0.1:{port}", lending.cache_dir, threads, devices),
            name="rpc-server",
            daemon=True,
        ).start()
        await _until_listening(port)
        self._exit = Exit(lending.tls, port)
        outside = await self._exit.open(lending.host)
        return pb.LoadedModel(port=outside, slots=1, summary=f"lends {len(devices)} device(s)")

    async def unload(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._exit is not None:
            await self._exit.close()

    def state(self) -> pb.State:
        return pb.State(slots=1, memory_bytes=psutil.Process().memory_info().rss)


def _limit_memory(size: int) -> None:
    """What goes beyond is refused to the borrower as "out of memory", and nothing else of this machine suffers."""
    taken = psutil.Process().memory_info().vms + ROOM_FOR_THREADS
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (taken + size if hard < 0 else min(taken + size, hard), hard))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _until_listening(port: int) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_TIMEOUT):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                await asyncio.sleep(0.01)
    raise EngineError("llama.cpp's RPC server does not listen")


async def _sweep(folder: str, most: int) -> None:
    """Keeps what borrowers leave in the cache within `most` bytes, the oldest going first; runs until cancelled."""
    while True:
        await asyncio.to_thread(sweep, Path(folder), most)
        await asyncio.sleep(SWEEP_EVERY)


def sweep(folder: Path, most: int) -> None:
    """Deletes the files used longest ago until the others have `most` bytes or fewer."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    size = sum(file[1] for file in files)
    for _, length, path in sorted(files):
        if size <= most:
            return
        path.unlink(missing_ok=True)
        size -= length
