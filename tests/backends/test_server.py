"""What the server adds to every engine, seen through the echo engine."""

import asyncio
import time
from collections.abc import Mapping

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from backends.echo_engine import EchoEngine
from backends.engine import NO_BLOBS, Replies
from backends.rpc import backend_pb2 as pb
from backends.rpc.backend_pb2_grpc import BackendStub
from backends.server import SERVICE
from tests.backends.harness import events_of, load, refused, served, text_of, user

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class BrokenEngine(EchoEngine):
    """An engine with a bug."""

    async def generate(
        self, request: pb.GenerateRequest, replies: Replies, blobs: Mapping[str, bytes] = NO_BLOBS
    ) -> None:
        raise ZeroDivisionError("oops")


async def test_health_tells_up_from_loaded() -> None:
    async with served(EchoEngine) as channel:
        health, stub = health_pb2_grpc.HealthStub(channel), BackendStub(channel)

        async def check(service: str) -> int:
            return int((await health.Check(health_pb2.HealthCheckRequest(service=service))).status)

        assert await check("") == SERVING
        assert await check(SERVICE) == NOT_SERVING
        await load(stub)
        assert await check(SERVICE) == SERVING
        await stub.Unload(pb.UnloadRequest())
        assert await check(SERVICE) == NOT_SERVING


async def test_describe_needs_no_model() -> None:
    async with served(EchoEngine) as channel:
        reply = await BackendStub(channel).Describe(pb.DescribeRequest())

    assert reply.engine == "echo"
    assert "Generate" in reply.methods


async def test_a_load_reports_its_progress_and_ends_with_the_model() -> None:
    async with served(EchoEngine) as channel:
        request = pb.LoadRequest(digest="d1", settings_json='{"load_seconds": 0.2, "slots": 3}')
        replies = [reply async for reply in BackendStub(channel).Load(request)]

    fractions = [reply.progress.fraction for reply in replies[:-1]]
    assert len(fractions) >= 2
    assert fractions == sorted(fractions)
    assert (replies[-1].loaded.digest, replies[-1].loaded.slots) == ("d1", 3)


async def test_a_failed_load_says_why_and_may_be_tried_again() -> None:
    async with served(EchoEngine) as channel:
        stub = BackendStub(channel)
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "invalid_model", "the disk is on fire"):
            await load(stub, fail_load="the disk is on fire")
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "invalid_value", "did you mean 'slots'?"):
            await load(stub, slot=3)

        await load(stub)
        assert text_of(await events_of(stub, user("hi"))) == "hi"


async def test_a_second_load_is_refused() -> None:
    async with served(EchoEngine) as channel:
        stub = BackendStub(channel)
        await load(stub)

        with refused(grpc.StatusCode.FAILED_PRECONDITION, "already_loaded"):
            await load(stub)


async def test_nothing_is_answered_before_the_load() -> None:
    async with served(EchoEngine) as channel:
        stub = BackendStub(channel)

        with refused(grpc.StatusCode.FAILED_PRECONDITION, "not_loaded"):
            await events_of(stub, user("hi"))
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "not_loaded"):
            await stub.Tokenize(pb.TokenizeRequest(text="hi"))


async def test_a_request_for_another_digest_is_refused() -> None:
    async with served(EchoEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, digest="d1")

        assert text_of(await events_of(stub, user("hi", model_digest="d1"))) == "hi"
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "digest_mismatch", "'d2'"):
            await events_of(stub, user("hi", model_digest="d2"))
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "digest_mismatch"):
            await stub.Embed(pb.EmbedRequest(model_digest="d2"))


async def test_what_an_engine_does_not_have_is_unsupported() -> None:
    async with served(EchoEngine) as channel:
        stub = BackendStub(channel)
        await load(stub)

        with refused(grpc.StatusCode.UNIMPLEMENTED, "unsupported", "the echo engine cannot speak"):
            await stub.Speak(pb.SpeechRequest()).read()
        with refused(grpc.StatusCode.UNIMPLEMENTED, "unsupported"):
            await stub.GenerateImage(iter([pb.ImageRequest(params=pb.ImageParams())])).read()


async def test_a_bug_in_the_engine_fails_the_call_and_not_the_process() -> None:
    async with served(BrokenEngine) as channel:
        stub = BackendStub(channel)
        await load(stub)

        for _ in range(2):
            with refused(grpc.StatusCode.INTERNAL, "engine_error", "ZeroDivisionError: oops"):
                await events_of(stub, user("hi"))


async def test_the_state_is_pushed_on_change_but_not_too_often() -> None:
    async with served(EchoEngine) as channel:
        stub = BackendStub(channel)
        states: list[pb.State] = []
        watched = asyncio.Event()

        async def watch() -> None:
            async for state in stub.WatchState(pb.WatchStateRequest()):
                watched.set()
                states.append(state)  # each as it comes, not all at the end

        watching = asyncio.ensure_future(watch())
        await watched.wait()
        await load(stub, slots=2)
        begun_at = time.monotonic()
        for _ in range(100):
            await events_of(stub, user("hi"))
        lasted = time.monotonic() - begun_at
        await asyncio.sleep(0.15)
        seen = len(states)
        await stub.Unload(pb.UnloadRequest())
        await asyncio.sleep(0.15)
        watching.cancel()

    assert states[0].slots == 0
    assert states[seen - 1].slots == 2
    assert states[seen - 1].busy == 0
    assert states[-1].slots == 0
    assert seen <= 20 * lasted + 6


async def test_unloading_ends_running_calls() -> None:
    async with served(EchoEngine) as channel:
        stub = BackendStub(channel)
        await load(stub, token_interval=30)
        call = stub.Generate([user("a b")])
        await call.read()

        await stub.Unload(pb.UnloadRequest())
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "not_loaded"):
            await call.read()


async def test_a_cancelled_load_lets_go_at_once() -> None:
    async with served(EchoEngine) as channel:
        stub = BackendStub(channel)
        call = stub.Load(pb.LoadRequest(settings_json='{"load_seconds": 30}'))
        await call.read()

        call.cancel()
        await asyncio.sleep(0.1)
        await load(stub)


async def test_large_messages_pass() -> None:
    async with served(EchoEngine) as channel:
        stub = BackendStub(channel)
        await load(stub)
        text = "x" * 8_000_000

        assert len(text_of(await events_of(stub, user(text)))) == len(text)
