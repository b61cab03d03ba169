"""Serve one engine over gRPC: every engine behaves the same because this is the only server.

What it adds to an engine: one load at a time and its progress, the digest check, the state feed,
replies that carry all that has gathered, errors as gRPC statuses, and the standard health service.
It knows nothing of any engine, and nothing of sockets and signals (`backends.host` does).
"""

# ruff: noqa: N802  # the method names are those of the protocol

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from backends.blobs import gather
from backends.engine import NO_BLOBS, Engine
from backends.errors import (
    AlreadyLoadedError,
    BackendError,
    DigestMismatchError,
    EngineError,
    InvalidValueError,
    NotLoadedError,
)
from backends.outbox import Outbox
from backends.rpc import backend_pb2 as pb
from backends.rpc.backend_pb2_grpc import BackendServicer
from backends.state_feed import StateFeed

SERVICE = pb.DESCRIPTOR.services_by_name["Backend"].full_name

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")


class _ForModel(Protocol):
    """A request that says which model should answer it."""

    @property
    def model_digest(self) -> str: ...


class BackendServer(BackendServicer):
    """The protocol's service around one engine."""

    def __init__(self, make_engine: Callable[[Callable[[], None]], Engine]) -> None:
        self.health = health_aio.HealthServicer()
        self._feed = StateFeed()
        self._engine = make_engine(self._feed.changed)
        self._loaded: pb.LoadedModel | None = None
        self._loading = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    # ------------------------------------------------------------ the process's side

    async def open(self) -> None:
        """Say that no model is loaded yet, rather than that nobody knows of this service."""
        await self.health.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)

    async def drain(self) -> None:
        """End the state streams and return once no call runs. The caller bounds the wait."""
        await self.health.enter_graceful_shutdown()
        self._feed.close()
        await self._idle.wait()

    async def close(self) -> None:
        """Free the model."""
        self._feed.close()
        self._loaded = None
        await self._engine.unload()

    # ------------------------------------------------------------ life cycle

    async def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.DescribeReply:
        async with self._call(context):
            return self._engine.describe()

    # Streams are written, not yielded: a generator that is cancelled between two items is only
    # closed when somebody collects it, and a call must let go at once.

    async def Load(self, request: pb.LoadRequest, context: Any) -> None:
        async with self._call(context):
            if self._loading or self._loaded is not None:
                raise AlreadyLoadedError
            self._loading = True
            progress: Outbox[pb.LoadProgress] = Outbox()

            def report(fraction: float, stage: str) -> None:
                progress.put(pb.LoadProgress(fraction=fraction, stage=stage))

            try:
                async with _beside(self._engine.load(request, report), progress) as load:
                    while news := await progress.take():
                        await context.write(pb.LoadReply(progress=news[-1]))
                    loaded = await load
            finally:
                self._loading = False
            loaded.digest = request.digest
            self._loaded = loaded
            await self.health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
            self._feed.changed()
            await context.write(pb.LoadReply(loaded=loaded))

    async def Unload(self, request: pb.UnloadRequest, context: Any) -> pb.UnloadReply:
        async with self._call(context):
            self._loaded = None
            await self.health.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
            await self._engine.unload()
            self._feed.changed()
            return pb.UnloadReply()

    async def WatchState(self, request: pb.WatchStateRequest, context: Any) -> None:
        # Not counted as a running call: it lasts as long as the process.
        async with _translated(context):
            async for state in self._feed.states(self._engine.state):
                await context.write(state)

    # ------------------------------------------------------------ text

    async def Generate(self, requests: AsyncIterator[pb.GenerateRequest], context: Any) -> None:
        async with self._call(context), _hearing_out(requests):
            request = await anext(requests, None)
            if request is None:
                raise InvalidValueError("the call has no request")
            self._check_model(request)
            blobs = await gather(requests, request.blob_count) if request.blob_count else NO_BLOBS
            replies: Outbox[pb.GenerateEvent] = Outbox()
            async with _beside(self._engine.generate(request, replies, blobs), replies) as answer:
                while events := await replies.take():
                    await context.write(pb.GenerateReply(events=events))
                await answer

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedReply:
        async with self._call(context):
            self._check_model(request)
            return await self._engine.embed(request)

    async def Rerank(self, request: pb.RerankRequest, context: Any) -> pb.RerankReply:
        async with self._call(context):
            self._check_model(request)
            return await self._engine.rerank(request)

    async def Tokenize(self, request: pb.TokenizeRequest, context: Any) -> pb.TokenizeReply:
        async with self._call(context):
            self._check_loaded()
            return await self._engine.tokenize(request)

    async def Detokenize(self, request: pb.DetokenizeRequest, context: Any) -> pb.DetokenizeReply:
        async with self._call(context):
            self._check_loaded()
            return await self._engine.detokenize(request)

    # ------------------------------------------------------------ images and sound

    async def GenerateImage(self, requests: AsyncIterator[pb.ImageRequest], context: Any) -> None:
        async with self._call(context), _hearing_out(requests):
            first = await anext(requests, None)
            if first is None or not first.HasField("params"):
                raise InvalidValueError("the call has no parameters")
            params = first.params
            self._check_model(params)
            blobs = await gather(requests, params.blob_count) if params.blob_count else NO_BLOBS
            await _write_all(self._engine.generate_image(params, blobs), context)

    async def Transcribe(self, requests: AsyncIterator[pb.TranscribeRequest], context: Any) -> None:
        async with self._call(context), _hearing_out(requests):
            request = await anext(requests, None)
            if request is None or not request.HasField("params"):
                raise InvalidValueError("a call of Transcribe begins with its parameters")
            self._check_model(request.params)
            await _write_all(self._engine.transcribe(request.params, requests), context)

    async def Speak(self, request: pb.SpeechRequest, context: Any) -> None:
        async with self._call(context):
            self._check_model(request)
            await _write_all(self._engine.speak(request), context)

    async def ListVoices(self, request: pb.VoicesRequest, context: Any) -> pb.VoicesReply:
        async with self._call(context):
            self._check_loaded()
            return await self._engine.list_voices(request)

    # ------------------------------------------------------------ shared by all calls

    @contextlib.asynccontextmanager
    async def _call(self, context: Any) -> AsyncIterator[None]:
        self._running += 1
        self._idle.clear()
        try:
            async with _translated(context):
                yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    def _check_model(self, request: _ForModel) -> None:
        held = self._check_loaded().digest
        if request.model_digest and request.model_digest != held:
            raise DigestMismatchError(request.model_digest, held)

    def _check_loaded(self) -> pb.LoadedModel:
        if self._loaded is None:
            raise NotLoadedError
        return self._loaded


@contextlib.asynccontextmanager
async def _hearing_out(requests: AsyncIterator[Any]) -> AsyncIterator[None]:
    """A refusal is told when the caller has sent all that he had. One that ends the call while he is still sending may
    reach him as a broken connection, and then he would try again elsewhere."""
    try:
        yield
    except BackendError:
        async for _ in requests:
            pass
        raise


async def _write_all(replies: AsyncGenerator[Any, None], context: Any) -> None:
    # Closed here: what the call held must be free when the call is over, not when a collector comes by.
    async with contextlib.aclosing(replies):
        async for reply in replies:
            await context.write(reply)


@contextlib.asynccontextmanager
async def _beside(work: Awaitable[Reply], outbox: Outbox[Any]) -> "AsyncIterator[asyncio.Future[Reply]]":
    """Run `work` while its outbox is read; the outbox closes when it ends, and leaving ends it."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda _: outbox.close())
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
            # Wait until it has let go: what the call held must be free when the call is over.
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # Seen, so that asyncio does not complain of an error nobody read.


@contextlib.asynccontextmanager
async def _translated(context: Any) -> AsyncIterator[None]:
    """Errors that leave the body become a gRPC status with `shoal-code` and `shoal-param`."""
    try:
        yield
        return
    except BackendError as exc:
        error = exc
    except Exception as exc:
        log.exception("the engine broke on a request")
        error = EngineError(f"the engine broke on this request: {type(exc).__name__}: {exc}")
    metadata = [("shoal-code", error.code)]
    if error.param:
        metadata.append(("shoal-param", error.param))
    await context.abort(grpc.StatusCode[error.status], str(error), tuple(metadata))
