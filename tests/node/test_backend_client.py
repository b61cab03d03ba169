"""The client against a real gRPC server that does what each test needs."""

# ruff: noqa: N802  # the method names are those of the protocol

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from backends.rpc import backend_pb2 as pb
from backends.rpc.backend_pb2_grpc import BackendServicer, add_BackendServicer_to_server
from node.backend_client import MAX_MESSAGE_BYTES, BackendClient
from node.backend_errors import BackendCallError, BackendLostError

Handler = Callable[[Any, Any], Awaitable[None]]


class Scripted(BackendServicer):
    """Answers `Generate` and `Transcribe` with what the test wrote."""

    def __init__(self) -> None:
        self.generate: Handler | None = None
        self.transcribe: Handler | None = None

    async def Generate(self, requests: AsyncIterator[pb.GenerateRequest], context: Any) -> None:
        assert self.generate is not None
        await self.generate(await anext(requests), context)

    async def Transcribe(self, requests: AsyncIterator[pb.TranscribeRequest], context: Any) -> None:
        assert self.transcribe is not None
        await self.transcribe(requests, context)

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedReply:
        return pb.EmbedReply(prompt_tokens=len(request.inputs))


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[tuple[BackendClient, Scripted, Any]]:
    address = f"unix:{tmp_path}/s.sock"
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])
    script = Scripted()
    add_BackendServicer_to_server(script, server)
    server.add_insecure_port(address)
    await server.start()
    client = BackendClient(address)
    try:
        yield client, script, server
    finally:
        await client.close()
        await server.stop(None)


FORKING = """
import asyncio, os, uvloop
from node.backend_client import BackendClient
import grpc

async def main():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    await channel.channel_ready()
    before = set(os.listdir("/proc/self/task"))
    process = await asyncio.create_subprocess_exec("true")
    after = set(os.listdir("/proc/self/task"))
    await process.wait()
    await channel.close()
    await server.stop(None)
    print(len(after - before))

uvloop.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are listed by /proc")
def test_grpc_does_nothing_when_a_node_starts_another_program() -> None:
    # Its handlers made its threads anew on both sides of every fork, and the child crashed now and then.
    ran = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, check=True)
    assert ran.stdout == "0\n"


def text(value: str) -> pb.GenerateReply:
    return pb.GenerateReply(events=[pb.GenerateEvent(text=pb.TextDelta(text=value))])


async def endless(_: Any, context: Any) -> None:
    while True:
        await context.write(text("more"))
        await asyncio.sleep(0.01)


async def test_bytes_go_in_and_come_out_unread(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, script, _):
        seen: list[str] = []

        async def answer(request: pb.GenerateRequest, context: Any) -> None:
            seen.append(request.prompt)
            await context.write(text("a"))
            await context.write(text("b"))

        script.generate = answer

        request = pb.GenerateRequest(prompt="hello").SerializeToString()
        replies = [reply async for reply in client.call("Generate", [request])]

        assert seen == ["hello"]
        assert replies == [text("a").SerializeToString(), text("b").SerializeToString()]


async def test_a_unary_method_is_a_stream_of_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, _, _):
        request = pb.EmbedRequest(inputs=[pb.EmbedInput(text="a"), pb.EmbedInput(text="b")])

        [reply] = [r async for r in client.call("Embed", [request.SerializeToString()])]

        assert pb.EmbedReply.FromString(reply).prompt_tokens == 2


@pytest.mark.parametrize("is_stream", [False, True], ids=["list", "stream"])
async def test_several_requests_make_one_call(tmp_path: Path, is_stream: bool) -> None:
    async with serving(tmp_path) as (client, script, _):

        async def count(requests: AsyncIterator[pb.TranscribeRequest], context: Any) -> None:
            sizes = [len(request.blob.data) async for request in requests]
            await context.write(pb.TranscribeReply(segment=pb.TranscriptSegment(text=str(sizes))))

        script.transcribe = count
        messages = [pb.TranscribeRequest(blob=pb.Blob(data=b"x" * n)).SerializeToString() for n in (1, 2, 3)]

        async def stream() -> AsyncIterator[bytes]:
            for message in messages:
                yield message

        call = client.call("Transcribe", stream() if is_stream else messages)
        [reply] = [r async for r in call]

        assert pb.TranscribeReply.FromString(reply).segment.text == "[1, 2, 3]"


async def test_the_backends_refusal_keeps_status_code_and_field(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, script, _):

        async def refuse(_: Any, context: Any) -> None:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "too long by 7 tokens",
                (("shoal-code", "context_length_exceeded"), ("shoal-param", "messages")),
            )

        script.generate = refuse

        with pytest.raises(BackendCallError) as caught:
            await anext(client.call("Generate", [b""]))

        error = caught.value
        assert (error.status, error.code, error.param) == (
            "INVALID_ARGUMENT",
            "context_length_exceeded",
            "messages",
        )
        assert str(error) == "too long by 7 tokens"


@pytest.mark.parametrize(
    ("method", "status", "code"),
    [
        pytest.param("Speak", "UNIMPLEMENTED", "unsupported", id="not implemented"),
        pytest.param("Generate", "UNKNOWN", "engine_error", id="an exception in the backend"),
    ],
)
async def test_errors_without_a_code_get_the_usual_one(tmp_path: Path, method: str, status: str, code: str) -> None:
    async with serving(tmp_path) as (client, _, _):
        with pytest.raises(BackendCallError) as caught:
            await anext(client.call(method, [b""]))

        assert (caught.value.status, caught.value.code) == (status, code)


async def test_nobody_there_is_a_lost_backend(tmp_path: Path) -> None:
    client = BackendClient(f"unix:{tmp_path}/nobody.sock")

    with pytest.raises(BackendLostError):
        await anext(client.call("Generate", [b""]))

    assert not await client.is_serving()
    await client.close()


async def test_a_server_that_goes_away_loses_its_calls(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, script, server):
        script.generate = endless
        call = client.call("Generate", [b""])
        await anext(call)

        await server.stop(None)

        with pytest.raises(BackendLostError):
            async for _ in call:
                pass


async def test_losing_a_call_wakes_its_reader_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, script, _):
        script.generate = lambda request, context: asyncio.sleep(60)
        call = client.call("Generate", [b""])
        reader = asyncio.ensure_future(anext(call))
        await asyncio.sleep(0.05)

        call.lose("killed by SIGKILL")

        with pytest.raises(BackendLostError, match="killed by SIGKILL"):
            await asyncio.wait_for(reader, 1)


async def test_cancelling_the_reader_cancels_the_call_over_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, script, _):
        ended = asyncio.Event()

        async def wait(_: Any, context: Any) -> None:
            await context.write(text("first"))
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        script.generate = wait
        call = client.call("Generate", [b""])
        await anext(call)
        reader = asyncio.ensure_future(anext(call))
        await asyncio.sleep(0.01)

        reader.cancel()

        with pytest.raises(asyncio.CancelledError):
            await reader
        await asyncio.wait_for(ended.wait(), 2)


async def test_a_closed_call_is_over_on_both_sides(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, script, _):
        ended = asyncio.Event()

        async def watched(request: Any, context: Any) -> None:
            try:
                await endless(request, context)
            finally:
                ended.set()

        script.generate = watched
        overs: list[bool] = []
        async with aclosing(client.call("Generate", [b""], on_end=overs.append)) as call:
            await anext(call)

        await asyncio.wait_for(ended.wait(), 2)
        assert [reply async for reply in call] == []
        assert overs == [False]


async def test_an_error_in_the_callers_stream_comes_back_to_the_reader(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, script, _):

        async def read(requests: AsyncIterator[pb.TranscribeRequest], context: Any) -> None:
            async for _ in requests:
                pass

        script.transcribe = read

        async def stream() -> AsyncIterator[bytes]:
            yield b""
            raise ValueError("the client stalled")

        with pytest.raises(ValueError, match="the client stalled"):
            await anext(client.call("Transcribe", stream()))


async def test_a_large_message_passes_and_a_huge_one_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, script, _):

        async def measure(request: pb.GenerateRequest, context: Any) -> None:
            await context.write(text(str(len(request.prompt))))

        script.generate = measure

        async def size(of: int) -> str:
            request = pb.GenerateRequest(prompt="x" * of).SerializeToString()
            reply = await anext(client.call("Generate", [request]))
            return pb.GenerateReply.FromString(reply).events[0].text.text

        assert await size(6_000_000) == "6000000"
        with pytest.raises(BackendCallError) as caught:
            await size(MAX_MESSAGE_BYTES + 1)
        assert (caught.value.status, caught.value.code) == ("INVALID_ARGUMENT", "message_too_large")


async def test_a_proxy_in_the_environment_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server = grpc.aio.server()
    add_BackendServicer_to_server(Scripted(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = BackendClient(f"127.0.0.1:{port}")

    replies = [r async for r in client.call("Embed", [b""], timeout=5)]

    assert len(replies) == 1
    await client.close()
    await server.stop(None)
