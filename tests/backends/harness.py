"""A backend served inside the test, and words to talk to it with."""

import asyncio
import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc

from backends.engine import Engine
from backends.host import OPTIONS
from backends.rpc import backend_pb2 as pb
from backends.rpc.backend_pb2_grpc import BackendStub, add_BackendServicer_to_server
from backends.server import BackendServer

PIPE = asyncio.subprocess.PIPE

MakeEngine = Callable[[Callable[[], None]], Engine]


@contextlib.asynccontextmanager
async def served(make_engine: MakeEngine) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a backend in this process, on a unix socket, as in life."""
    backend = BackendServer(make_engine)
    await backend.open()
    server = grpc.aio.server(options=OPTIONS)
    add_BackendServicer_to_server(backend, server)  # type: ignore[no-untyped-call]
    health_pb2_grpc.add_HealthServicer_to_server(backend.health, server)
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix:{Path(folder) / 's'}"
        server.add_insecure_port(address)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
                yield channel
        finally:
            await server.stop(None)
            await backend.close()


async def spawn(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "backends", *arguments, stdout=PIPE, stderr=PIPE, env={**os.environ, **environment}
    )


async def address_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert line.startswith("listening on "), line
    return line.removeprefix("listening on ").strip()


@contextlib.asynccontextmanager
async def running(
    *arguments: str, **environment: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, grpc.aio.Channel]]:
    """A backend process that listens, and a channel to it."""
    process = await spawn(*arguments, **environment)
    try:
        async with grpc.aio.insecure_channel(await address_of(process)) as channel:
            yield process, channel
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def load(
    stub: BackendStub, path: str = "", digest: str = "", projector: str = "", **settings: Any
) -> pb.LoadedModel:
    """Load with these settings; the progress is passed over."""
    request = pb.LoadRequest(
        model="test", path=path, digest=digest, settings_json=json.dumps(settings), projector_path=projector
    )
    replies = [reply async for reply in stub.Load(request)]
    return replies[-1].loaded


def user(text: str, **more: Any) -> pb.GenerateRequest:
    """A chat request of one user message."""
    return pb.GenerateRequest(messages_json=json.dumps([{"role": "user", "content": text}]), **more)


def seen(*content: str | bytes, **more: Any) -> list[pb.GenerateRequest]:
    """A chat request of one user message of texts and files (a WAV file is a sound, others are pictures), and the
    messages with the files that follow it."""
    parts: list[dict[str, Any]] = []
    blobs: dict[str, bytes] = {}
    for part in content:
        if isinstance(part, str):
            parts.append({"type": "text", "text": part})
            continue
        name = f"sha256:{hashlib.sha256(part).hexdigest()}"
        blobs[name] = part
        if part[8:12] == b"WAVE":
            parts.append({"type": "input_audio", "input_audio": {"data": name, "format": "wav"}})
        else:
            parts.append({"type": "image_url", "image_url": {"url": name}})
    messages = json.dumps([{"role": "user", "content": parts}])
    first = pb.GenerateRequest(messages_json=messages, blob_count=len(blobs), **more)
    pieces = (pb.Blob(name=name, data=data, last=True) for name, data in blobs.items())
    return [first, *(pb.GenerateRequest(blob=piece) for piece in pieces)]


async def events_of(
    stub: BackendStub, request: pb.GenerateRequest | list[pb.GenerateRequest]
) -> list[pb.GenerateEvent]:
    """All events of an answer."""
    messages = request if isinstance(request, list) else [request]
    return [event async for reply in stub.Generate(messages) for event in reply.events]


def text_of(events: list[pb.GenerateEvent], choice: int = 0) -> str:
    """The answer's text."""
    return "".join(event.text.text for event in events if event.choice == choice)


def ids_of(events: list[pb.GenerateEvent], choice: int = 0) -> list[int]:
    """Every token the events account for."""
    own = [event for event in events if event.choice == choice]
    kinds = ("text", "reasoning", "tool_call", "finished")
    return [number for event in own for kind in kinds for number in getattr(event, kind).token_ids]


def reason_of(events: list[pb.GenerateEvent], choice: int = 0) -> str:
    """Why the choice ended."""
    [reason] = [e.finished.reason for e in events if e.choice == choice and e.HasField("finished")]
    return reason


def usage_of(events: list[pb.GenerateEvent]) -> pb.Usage:
    """What the answer cost; it must be the last event."""
    assert events[-1].HasField("usage")
    return events[-1].usage


def calls_of(events: list[pb.GenerateEvent], choice: int = 0) -> list[tuple[str, str]]:
    """The tool calls: name and arguments' JSON text."""
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for event in events:
        if event.choice == choice and event.HasField("tool_call"):
            call = event.tool_call
            names.setdefault(call.index, call.name)
            arguments[call.index] = arguments.get(call.index, "") + call.arguments
    return [(names[index], arguments[index]) for index in names]


@contextlib.contextmanager
def refused(status: grpc.StatusCode, code: str, message: str = "") -> Any:
    """The call inside fails like this."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield
    metadata = dict(caught.value.trailing_metadata())
    assert (caught.value.code(), metadata.get("shoal-code")) == (status, code), caught.value.details()
    assert message in (caught.value.details() or "")
