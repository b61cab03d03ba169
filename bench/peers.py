"""The programs that the llama engine is measured against, as processes: `bench/peers.sh` makes them."""

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil

from tests.helpers.nodes import until

HERE = Path(__file__).parent

OURS = ("PYTHONPATH", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""What our own packages put into the environment when they are imported; peers run as they would without us."""


def folder() -> Path:
    """Where the peers of this version and this machine are, or would be."""
    script = str(HERE / "peers.sh")
    return Path(subprocess.run([script, "--where"], check=True, capture_output=True, text=True).stdout.strip())


def build() -> None:
    """Make what is missing; minutes the first time."""
    subprocess.run([str(HERE / "peers.sh")], check=True)


def llama_server(program: Path, model: Path, port: int, *, slots: int, cells: int, threads: int) -> list[str]:
    """llama.cpp's server, with one memory for all slots like ours: the faster of its two layouts here."""
    return [
        *(str(program), "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "--log-disable"),
        *("-np", str(slots), "-c", str(cells), "--kv-unified", "-fit", "off"),
        *("-t", str(threads), "-tb", str(threads)),
    ]


def llama_cpp_server(python: Path, model: Path, port: int, *, threads: int) -> list[str]:
    """llama-cpp-python's server. By default a new request cuts the answer that runs; it must not here."""
    return [
        *(str(python), "-m", "llama_cpp.server", "--model", str(model), "--host", "127.0.0.1", "--port", str(port)),
        *("--n_ctx", "512", "--n_threads", str(threads), "--n_threads_batch", str(threads), "--verbose", "false"),
        *("--interrupt_requests", "false", "--logits_all", "false", "--flash_attn", "true"),
    ]


def free_port() -> int:
    """A port of this machine that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running(command: Sequence[str], port: int, ready_path: str, log: Path) -> AsyncIterator[psutil.Process]:
    """The process while it serves. It is ended with the block."""
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output, env=environment)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:

            async def is_ready() -> bool:
                if process.returncode is not None:
                    raise RuntimeError(f"{command[0]} ended at its start; its log is {log}")
                try:
                    return (await http.get(ready_path)).status_code == 200
                except httpx.TransportError:
                    return False

            await until(is_ready, f"{command[0]} to answer", timeout=120)
        yield psutil.Process(process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 15)
            except TimeoutError:
                process.kill()
                await process.wait()
