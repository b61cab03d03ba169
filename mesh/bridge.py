"""Where the two event loops meet: asyncio in the main thread, trio in a second one.

Nothing else imports both. What crosses, and how:

    Bridge.start / stop      the trio thread itself
    Bridge.post              asyncio ─► trio    a plain function, soon
    Bridge.call              asyncio ─► trio    an async function, and its result
    Bridge.to_loop           trio ─► asyncio    a plain function, soon
    ToLoop / ToTrio          a bounded pipe with one writer and one reader

Rules:

1. Wake-ups are shared: however many functions and pipe items are waiting, the other loop is woken
   once and takes all of them. A hundred token streams cost about as much as one.
2. Cancelling a `call` cancels the trio side and waits for it; an exception crosses as it is.
3. Pipes are bounded by weight. A full pipe makes its writer wait: that is the back-pressure. A
   reader that leaves (`cancel`) makes the writer fail with `PipeCancelled` at once.
4. `stop` ends within its time: first it asks, then it cancels, then it lets the (daemon) thread go.
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import trio

from mesh.errors import MeshError

T = TypeVar("T")

log = logging.getLogger(__name__)

PIPE_LIMIT = 256 * 1024
"""Weight (bytes, for calls) a pipe holds before its writer waits. As much as one stream window."""

MESSAGE_OVERHEAD = 256
"""Bytes a message weighs beside its own: a reply of one token is ten bytes long, and costs far more to hold."""


def weight_of(messages: Sequence[bytes]) -> int:
    """What `messages` weigh in a pipe."""
    return sum(map(len, messages)) + MESSAGE_OVERHEAD * len(messages)


class PipeCancelled(MeshError):
    """The other end of the pipe has left."""


Main = Callable[[Callable[[], None]], Awaitable[None]]
"""What runs in the trio thread, until cancelled. It calls the function it is given when it is ready."""


class _Door:
    """Functions waiting to run in another thread; one wake-up for all of them."""

    def __init__(self, wake: Callable[[Callable[[], None]], object]) -> None:
        self._wake = wake
        self._waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._is_woken = False
        self._lock = threading.Lock()

    def push(self, function: Callable[..., object], *args: Any) -> None:
        """May be called from any thread. Does nothing if the other loop is gone."""
        with self._lock:
            self._waiting.append((function, args))
            if self._is_woken:
                return
            self._is_woken = True
        # RuntimeError from either loop: it has ended, and what was to be told it no longer matters.
        with contextlib.suppress(RuntimeError):
            self._wake(self._run)

    def _run(self) -> None:
        with self._lock:
            batch, self._waiting = self._waiting, deque()
            self._is_woken = False
        for function, args in batch:
            try:
                function(*args)
            except Exception:
                log.exception("a function passed between the event loops failed")


class Bridge:
    """Owns the trio thread. Made and used on the asyncio loop's thread."""

    def __init__(self, name: str = "shoal-mesh") -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._nursery: trio.Nursery | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._to_loop: _Door | None = None
        self._to_trio: _Door | None = None
        self._ended: asyncio.Future[None] | None = None

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._nursery is not None

    async def start(self, main: Main) -> None:
        """Start the thread and wait until `main` is ready. Raises whatever `main` raised before."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        ended: asyncio.Future[None] = loop.create_future()
        self._loop, self._ended = loop, ended
        ended.add_done_callback(_report_death)
        self._to_loop = _Door(loop.call_soon_threadsafe)
        self._thread = threading.Thread(
            target=self._run_thread, args=(main, ready, ended), name=self._name, daemon=True
        )
        self._thread.start()
        await _first_of(ready, ended)
        if not ready.done():
            ready.cancel()
            self._thread.join(1)
            self._thread = None
            await ended  # Raises what went wrong.

    async def stop(self, grace: float) -> None:
        """Cancel everything on the trio side and wait for its end, `grace` seconds at most."""
        thread, ended = self._thread, self._ended
        if thread is None or ended is None:
            return
        self.post(self._cancel)
        done, _ = await asyncio.wait([ended], timeout=grace)
        if done:
            thread.join(0.5)
        else:
            log.error("the mesh thread did not end within %.1f s; leaving it behind", grace)
        self._thread = None

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Run `function` in the trio thread, soon."""
        if self._to_trio is not None:
            self._to_trio.push(function, *args)

    def spawn(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Start a task in the trio thread, soon. It must deal with its own errors."""
        self.post(self._start_soon, function, args)

    def to_loop(self, function: Callable[..., object], *args: Any) -> None:
        """Run `function` on the asyncio loop, soon. From the trio thread."""
        if self._to_loop is not None:
            self._to_loop.push(function, *args)

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run `function` in the trio thread and wait for its result.

        If the waiting task is cancelled, so is the function, and its end is awaited.
        """
        if not self.is_running:
            raise MeshError("the mesh is not running")
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        scope = trio.CancelScope()
        self.spawn(self._run_call, scope, result, function, args)
        ended = self._ended
        assert ended is not None
        try:
            await _first_of(result, ended)
        except asyncio.CancelledError:
            self.post(scope.cancel)
            await _first_of(result, ended)
            if result.done() and not result.cancelled():
                result.exception()  # Looked at, so that nobody warns about it.
            raise
        if not result.done():
            result.cancel()
            raise MeshError("the mesh has stopped")
        return result.result()

    # -- in the trio thread

    def _run_thread(self, main: Main, ready: asyncio.Future[None], ended: asyncio.Future[None]) -> None:
        error: BaseException | None = None
        try:
            trio.run(self._run_trio, main, ready)
        except BaseException as caught:
            error = _innermost(caught)
        finally:
            self._nursery = None
            self.to_loop(_settle, ended, None, error)

    async def _run_trio(self, main: Main, ready: asyncio.Future[None]) -> None:
        token = trio.lowlevel.current_trio_token()
        self._to_trio = _Door(lambda function: token.run_sync_soon(function, idempotent=True))
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await main(lambda: self.to_loop(_settle, ready, None, None))

    def _cancel(self) -> None:
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def _start_soon(self, function: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(function, *args)

    async def _run_call(
        self,
        scope: trio.CancelScope,
        result: asyncio.Future[T],
        function: Callable[..., Awaitable[T]],
        args: tuple[Any, ...],
    ) -> None:
        value: T | None = None
        error: BaseException | None = MeshError("the call was cancelled")
        try:
            with scope:
                value = await function(*args)
                error = None
        except Exception as caught:
            error = caught
        finally:
            self.to_loop(_settle, result, value, error)


def _report_death(ended: asyncio.Future[None]) -> None:
    """Whatever ended the thread is said at once, not only when somebody stops it."""
    if not ended.cancelled() and (error := ended.exception()) is not None and not isinstance(error, MeshError):
        log.error("the mesh thread ended with an error", exc_info=error)


async def _first_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _settle(future: asyncio.Future[Any], value: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)


def _innermost(error: BaseException) -> BaseException:
    """A lone error out of the groups that nurseries wrap it in."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


class _Pipe(Generic[T]):
    """What both kinds of pipe share. `_changed` wakes the reader, `_drained` the writer.

    Writer and reader live in different threads; everything they both touch is behind the lock.
    """

    def __init__(self, limit: int = PIPE_LIMIT) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._items: list[T] = []
        self._weight = 0
        self._is_closed = False
        self._error: BaseException | None = None
        self._is_cancelled = False
        self._reader_waits = False
        self._writer_waits = False

    def _put(self, items: list[T], weight: int) -> tuple[bool, bool]:
        """Store items; whether the reader must be woken, and whether the writer must wait."""
        with self._lock:
            if self._is_cancelled:
                raise PipeCancelled("the reader has left")
            self._items += items
            self._weight += weight
            wake, self._reader_waits = self._reader_waits, False
            self._writer_waits = self._weight >= self._limit
            return wake, self._writer_waits

    def _finish(self, error: BaseException | None) -> bool:
        with self._lock:
            if self._is_closed:
                return False
            self._is_closed = True
            self._error = error
            wake, self._reader_waits = self._reader_waits, False
            return wake

    def _take(self) -> tuple[list[T] | None, bool]:
        """All items, or None at the end; and whether the writer must be woken."""
        with self._lock:
            if self._items:
                items, self._items = self._items, []
                self._weight = 0
                wake, self._writer_waits = self._writer_waits, False
                return items, wake
            if self._is_cancelled:
                raise PipeCancelled("the pipe was cancelled")
            if self._is_closed:
                if self._error is not None:
                    raise self._error
                return None, False
            self._reader_waits = True
            return [], False

    def _leave(self) -> bool:
        """The reader leaves; whether anybody must be told."""
        with self._lock:
            if self._is_cancelled:
                return False
            self._is_cancelled = True
            self._items.clear()
            return True


class ToLoop(_Pipe[T]):
    """Written in trio, read in asyncio."""

    def __init__(self, bridge: Bridge, limit: int = PIPE_LIMIT) -> None:
        super().__init__(limit)
        self._bridge = bridge
        self._arrived = asyncio.Event()
        self._drained = trio.Event()
        self.on_cancel: Callable[[], None] | None = None
        """Called in the trio thread when the reader leaves."""

    async def send(self, items: list[T], weight: int) -> None:
        """Pass `items` on; waits while the pipe is full. In trio.

        Raises:
            PipeCancelled: the reader has left.
        """
        self._drained = trio.Event()
        wake, must_wait = self._put(items, weight)
        if wake:
            self._bridge.to_loop(self._arrived.set)
        if must_wait:
            await self._drained.wait()

    def close(self, error: BaseException | None = None) -> None:
        """No more items; the reader gets `error` after the last one. In trio; only the first counts."""
        if self._finish(error):
            self._bridge.to_loop(self._arrived.set)

    async def receive(self) -> list[T] | None:
        """Everything that is there, at least one item; None at the end. In asyncio.

        Raises:
            PipeCancelled: `cancel` was called here.
            the writer's error, after the last item.
        """
        while True:
            self._arrived.clear()
            items, wake = self._take()
            if wake:
                self._bridge.post(self._drain)
            if items is None or items:
                return items
            await self._arrived.wait()

    def cancel(self) -> None:
        """The reader wants nothing more. In asyncio."""
        if self._leave():
            self._arrived.set()
            self._bridge.post(self._drain)
            self._bridge.post(self._tell)

    def _drain(self) -> None:
        self._drained.set()

    def _tell(self) -> None:
        if self.on_cancel is not None and not self._is_closed:
            self.on_cancel()


class ToTrio(_Pipe[T]):
    """Written in asyncio, read in trio."""

    def __init__(self, bridge: Bridge, limit: int = PIPE_LIMIT) -> None:
        super().__init__(limit)
        self._bridge = bridge
        self._arrived = trio.Event()
        self._drained = asyncio.Event()

    async def send(self, items: list[T], weight: int) -> None:
        """Pass `items` on; waits while the pipe is full. In asyncio.

        Raises:
            PipeCancelled: the reader has left.
        """
        self._drained.clear()
        wake, must_wait = self._put(items, weight)
        if wake:
            self._bridge.post(self._arrive)
        if must_wait:
            await self._drained.wait()

    def close(self, error: BaseException | None = None) -> None:
        """No more items; the reader gets `error` after the last one. In asyncio."""
        if self._finish(error):
            self._bridge.post(self._arrive)

    async def receive(self) -> list[T] | None:
        """Everything that is there, at least one item; None at the end. In trio. Raises as above."""
        while True:
            self._arrived = trio.Event()
            items, wake = self._take()
            if wake:
                self._bridge.to_loop(self._drained.set)
            if items is None or items:
                return items
            await self._arrived.wait()

    def cancel(self) -> None:
        """The reader wants nothing more. In trio."""
        if self._leave():
            self._arrived.set()
            self._bridge.to_loop(self._drained.set)

    def _arrive(self) -> None:
        self._arrived.set()
