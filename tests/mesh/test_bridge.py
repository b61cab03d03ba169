"""Where asyncio and trio meet: results, errors, cancellation both ways, back-pressure and the end."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel

from mesh.bridge import Bridge, PipeCancelled, ToLoop, ToTrio
from mesh.errors import MeshError


async def idle(ready: Callable[[], None]) -> None:
    ready()
    await trio.sleep_forever()


@asynccontextmanager
async def running() -> AsyncIterator[Bridge]:
    bridge = Bridge("test-bridge")
    await bridge.start(idle)
    try:
        yield bridge
    finally:
        await bridge.stop(5)


def is_thread_alive() -> bool:
    return any(thread.name == "test-bridge" for thread in threading.enumerate())


async def test_a_result_crosses() -> None:
    async def add(a: int, b: int) -> int:
        await trio.lowlevel.checkpoint()
        return a + b

    async with running() as bridge:
        assert await bridge.call(add, 1, 2) == 3


async def test_an_exception_crosses_as_it_is() -> None:
    async def fail() -> None:
        raise KeyError("lost")

    async with running() as bridge:
        with pytest.raises(KeyError, match="lost"):
            await bridge.call(fail)
        await bridge.call(trio.sleep, 0)


async def test_cancelling_here_cancels_there_and_waits_for_its_end() -> None:
    ended: list[str] = []

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("there")

    async with running() as bridge:
        task = asyncio.create_task(bridge.call(wait))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert ended == ["there"]


async def test_many_calls_at_once() -> None:
    async def double(n: int) -> int:
        await trio.sleep(0.001)
        return 2 * n

    async with running() as bridge:
        results = await asyncio.gather(*(bridge.call(double, n) for n in range(500)))

    assert results == [2 * n for n in range(500)]


async def test_what_fails_before_it_is_ready_is_raised_by_start() -> None:
    async def broken(ready: Callable[[], None]) -> None:
        raise OSError("no port")

    bridge = Bridge("test-bridge")
    with pytest.raises(OSError, match="no port"):
        await bridge.start(broken)

    assert not is_thread_alive()


async def test_stop_cancels_everything_and_ends_the_thread() -> None:
    cleaned: list[int] = []

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cleaned.append(1)

    async with running() as bridge:
        waiting = asyncio.create_task(bridge.call(wait))
        await asyncio.sleep(0.05)
        await bridge.stop(5)

        with pytest.raises((MeshError, asyncio.CancelledError)):
            await waiting
    assert cleaned == [1]
    assert not is_thread_alive()


async def test_stop_gives_up_on_a_thread_that_does_not_end() -> None:
    release = threading.Event()

    async def block() -> None:
        release.wait(5)  # Blocks the whole trio thread.

    async with running() as bridge:
        bridge.spawn(block)
        started = time.monotonic()
        await bridge.stop(0.2)

        assert time.monotonic() - started < 2
        release.set()


async def test_a_call_after_the_end_fails_and_a_post_does_nothing() -> None:
    async with running() as bridge:
        await bridge.stop(5)

        bridge.post(print, "never")
        with pytest.raises(MeshError):
            await bridge.call(trio.sleep, 0)


async def test_a_posted_function_that_fails_does_not_take_the_others_along(caplog: pytest.LogCaptureFixture) -> None:
    done = asyncio.Event()

    def fail() -> None:
        raise ValueError("oops")

    async with running() as bridge:
        bridge.post(fail)
        bridge.post(lambda: bridge.to_loop(fail))
        bridge.post(lambda: bridge.to_loop(done.set))
        await asyncio.wait_for(done.wait(), 5)

    assert sum("failed" in record.message for record in caplog.records) == 2


# ---------------------------------------------------------------- pipes


async def send_for_ever(pipe: ToTrio[bytes]) -> None:
    while True:
        await pipe.send([bytes(10)], 10)


async def test_items_cross_in_order_and_in_batches() -> None:
    async with running() as bridge:
        pipe: ToLoop[int] = ToLoop(bridge)

        async def write() -> None:
            for i in range(1000):
                await pipe.send([i], 1)
            pipe.close()

        bridge.spawn(write)
        batches = []
        while (batch := await pipe.receive()) is not None:
            batches.append(batch)

    assert [i for batch in batches for i in batch] == list(range(1000))
    assert len(batches) < 1000


async def test_items_cross_the_other_way_too() -> None:
    async with running() as bridge:
        pipe: ToTrio[int] = ToTrio(bridge)

        async def read() -> list[int]:
            items: list[int] = []
            while (batch := await pipe.receive()) is not None:
                items += batch
            return items

        reading = asyncio.create_task(bridge.call(read))
        for i in range(1000):
            await pipe.send([i], 1)
        pipe.close()

        assert await reading == list(range(1000))


async def test_an_error_arrives_after_the_last_item() -> None:
    async with running() as bridge:
        pipe: ToLoop[int] = ToLoop(bridge)

        async def write() -> None:
            await pipe.send([1], 1)
            pipe.close(KeyError("end"))

        bridge.spawn(write)
        assert await pipe.receive() == [1]
        with pytest.raises(KeyError, match="end"):
            await pipe.receive()


async def test_a_full_pipe_makes_its_writer_wait() -> None:
    sent = 0

    async with running() as bridge:
        pipe: ToLoop[bytes] = ToLoop(bridge, limit=100)

        async def write() -> None:
            nonlocal sent
            for _ in range(50):
                await pipe.send([bytes(10)], 10)
                sent += 1
            pipe.close()

        bridge.spawn(write)
        await asyncio.sleep(0.2)
        assert sent < 15

        total = 0
        while (batch := await pipe.receive()) is not None:
            total += len(batch)
        assert total == 50


async def test_a_full_pipe_to_trio_makes_its_writer_wait() -> None:
    async with running() as bridge:
        pipe: ToTrio[bytes] = ToTrio(bridge, limit=100)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send_for_ever(pipe), 0.2)

        async def read() -> int:
            return len(await pipe.receive() or [])

        assert await bridge.call(read) <= 11


async def test_a_reader_that_leaves_stops_the_writer_at_once() -> None:
    outcome: list[str] = []

    async with running() as bridge:
        pipe: ToLoop[bytes] = ToLoop(bridge, limit=10)
        pipe.on_cancel = lambda: outcome.append("told")

        async def write() -> None:
            try:
                while True:
                    await pipe.send([bytes(10)], 10)
            except PipeCancelled:
                outcome.append("stopped")

        bridge.spawn(write)
        await pipe.receive()
        pipe.cancel()
        pipe.cancel()
        with pytest.raises(PipeCancelled):
            await pipe.receive()
        await bridge.call(trio.sleep, 0.05)

    assert sorted(outcome) == ["stopped", "told"]


async def test_a_trio_reader_that_leaves_stops_the_writer_at_once() -> None:
    async with running() as bridge:
        pipe: ToTrio[bytes] = ToTrio(bridge, limit=10)
        bridge.post(pipe.cancel)

        with pytest.raises(PipeCancelled):
            await asyncio.wait_for(send_for_ever(pipe), 5)


async def test_closing_twice_counts_once() -> None:
    async with running() as bridge:
        pipe: ToLoop[int] = ToLoop(bridge)
        bridge.post(pipe.close)
        bridge.post(pipe.close, KeyError())

        assert await pipe.receive() is None
        assert await pipe.receive() is None
