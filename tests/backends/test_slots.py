"""Slots and the queue before them."""

import asyncio
import contextlib

import pytest

from backends.errors import QueueFullError
from backends.slots import Slots


class Guest:
    """A task that holds a slot until told to leave."""

    def __init__(self, slots: Slots) -> None:
        self.inside = False
        self._leave = asyncio.Event()
        self.task = asyncio.ensure_future(self._stay(slots))

    async def _stay(self, slots: Slots) -> None:
        async with slots.one():
            self.inside = True
            await self._leave.wait()
            self.inside = False

    async def leave(self) -> None:
        self._leave.set()
        await self.task


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def make(count: int, queue_limit: int) -> Slots:
    return Slots(count, queue_limit, lambda: None)


async def test_who_came_first_is_served_first() -> None:
    slots = make(1, 2)
    first, second, third = (Guest(slots) for _ in range(3))
    await settle()
    assert (slots.busy, slots.queued) == (1, 2)

    await first.leave()
    await settle()
    assert (second.inside, third.inside) == (True, False)

    await second.leave()
    await third.leave()
    assert (slots.busy, slots.queued) == (0, 0)


async def test_a_full_queue_refuses() -> None:
    slots = make(1, 1)
    guests = [Guest(slots) for _ in range(2)]
    await settle()

    with pytest.raises(QueueFullError):
        async with slots.one():
            pass
    for guest in guests:
        await guest.leave()


@pytest.mark.parametrize("handed_over", [False, True], ids=["while waiting", "just as its turn comes"])
async def test_who_leaves_the_queue_takes_no_slot_along(handed_over: bool) -> None:
    slots = make(1, 2)
    holder, leaver, last = (Guest(slots) for _ in range(3))
    await settle()

    if handed_over:
        holder._leave.set()
        await asyncio.sleep(0)  # The holder goes on and hands its slot to the leaver ...
    leaver.task.cancel()  # ... whose task has not run since.
    with contextlib.suppress(asyncio.CancelledError):
        await leaver.task
    await holder.leave()
    await settle()

    assert last.inside
    await last.leave()
    assert (slots.busy, slots.queued) == (0, 0)
