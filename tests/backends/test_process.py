"""The backend as a process: how it starts, and how it ends."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from backends.rpc import backend_pb2 as pb
from backends.rpc.backend_pb2_grpc import BackendStub
from tests.backends.harness import PIPE, address_of, load, running, spawn, text_of, user
from tests.helpers.hidden import hiding


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"unix:{tmp_path / 's'}"


async def test_it_answers_health_as_soon_as_it_listens(address: str) -> None:
    async with running("echo", "--address", address, "--parent-pid", str(os.getpid())) as (_, channel):
        health = health_pb2_grpc.HealthStub(channel)

        reply = await health.Check(health_pb2.HealthCheckRequest(service=""))

    assert reply.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param(
            ["ecko", "--address", "unix:x"], 2, "unknown engine 'ecko'; known are echo, llama", id="unknown engine"
        ),
        pytest.param(["echo", "--address", "127.0.0.1:0"], 2, "SHOAL_BACKEND_SECRET", id="TCP without a secret"),
        pytest.param(["echo", "--address", "unix:/nowhere/at/all"], 1, "cannot listen", id="no such folder"),
        pytest.param(["echo", "--address", "unix:x", "--parent-pid", "1"], 1, "is gone", id="parent gone"),
    ],
)
async def test_what_cannot_start_says_why_in_one_line(arguments: list[str], code: int, message: str) -> None:
    process = await spawn(*arguments)
    _, stderr = await process.communicate()

    assert process.returncode == code
    assert message in stderr.decode()
    assert len(stderr.decode().splitlines()) == 1


@pytest.mark.parametrize(("engine", "package"), [("llama", "llama_cpp"), ("whisper", "av"), ("diffusers", "torch")])
async def test_a_missing_package_is_named_with_the_remedy(
    engine: str, package: str, address: str, tmp_path: Path
) -> None:
    process = await spawn(engine, "--address", address, PYTHONPATH=f"{hiding(tmp_path, package)}:{os.getcwd()}")
    _, stderr = await process.communicate()

    assert process.returncode == 3
    said = f"backends: the {engine} engine needs the package {package!r}: shoal engines install {engine}\n"
    assert stderr.decode() == said


async def test_tcp_calls_need_the_secret() -> None:
    async with running("echo", "--address", "127.0.0.1:0", SHOAL_BACKEND_SECRET="s3") as (_, channel):
        stub = BackendStub(channel)
        request = pb.DescribeRequest()

        for metadata in ((), (("authorization", "Bearer wrong"),)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Describe(request, metadata=metadata)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        reply = await stub.Describe(request, metadata=(("authorization", "Bearer s3"),))

    assert reply.engine == "echo"


async def test_it_dies_with_its_parent(address: str) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import os, subprocess, sys; subprocess.Popen([*sys.argv[1:], '--parent-pid', str(os.getpid())]).wait()",
        *[sys.executable, "-m", "backends", "echo", "--address", address],
        stdout=PIPE,
    )
    async with grpc.aio.insecure_channel(await address_of(parent)) as channel:
        stub = BackendStub(channel)
        await load(stub, token_interval=30)
        call = stub.Generate([user("a b")])
        await call.read()

        parent.kill()
        begun_at = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        await parent.communicate()  # Ends only when the child has let go of the pipe too.

    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - begun_at < 2


async def test_sigterm_lets_running_calls_finish_and_exits_0(address: str) -> None:
    async with running("echo", "--address", address) as (process, channel):
        stub = BackendStub(channel)
        await load(stub, token_interval=0.2)
        watching = stub.WatchState(pb.WatchStateRequest())
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        await watching.read()
        await health.read()
        replies = aiter(stub.Generate([user("a b c")]))
        events = list((await anext(replies)).events)

        process.send_signal(signal.SIGTERM)
        async for reply in replies:
            events.extend(reply.events)
        begun_at = time.monotonic()
        code = await process.wait()

    assert text_of(events) == "a b c"
    assert code == 0
    assert time.monotonic() - begun_at < 2


async def test_a_crash_on_request_comes_after_the_tokens(address: str) -> None:
    async with running("echo", "--address", address) as (process, channel):
        stub = BackendStub(channel)
        await load(stub, crash_after_tokens=2)
        texts: list[str] = []

        async def read_on() -> None:
            async for reply in stub.Generate([user("a b c")]):
                texts.extend(event.text.text for event in reply.events)

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_on()
        code = await process.wait()

    assert texts == ["a", " b"]
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert code == -signal.SIGKILL
