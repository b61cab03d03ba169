"""The outbox between an engine and its writer."""

import asyncio

from backends.outbox import Outbox


async def test_what_gathered_is_taken_at_once() -> None:
    outbox: Outbox[int] = Outbox()
    outbox.put(1)
    outbox.put(2, 3)

    assert await outbox.take() == [1, 2, 3]


async def test_a_waiting_writer_gets_the_first_item_alone() -> None:
    outbox: Outbox[int] = Outbox()
    writer = asyncio.ensure_future(outbox.take())
    await asyncio.sleep(0)
    outbox.put(1)

    assert await writer == [1]


async def test_closing_lets_the_rest_be_taken_and_then_ends() -> None:
    outbox: Outbox[int] = Outbox()
    outbox.put(1)
    outbox.close()

    assert await outbox.take() == [1]
    assert await outbox.take() == []


async def test_a_producer_waits_until_all_is_taken() -> None:
    outbox: Outbox[int] = Outbox()
    outbox.put(1)
    producer = asyncio.ensure_future(outbox.drained())
    await asyncio.sleep(0)
    assert not producer.done()

    await outbox.take()
    await producer
