"""Memory for what peers send: shared, with a bound for each of them."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from mesh.room import MOST_WAITING, PATIENCE, NoRoomError, Room
from mesh.types import NodeId

A, B = NodeId("a"), NodeId("b")


def run(test: Callable[[], Awaitable[None]]) -> None:
    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_call_waits_until_there_is_room_and_gives_its_own_back() -> None:
    async def test() -> None:
        room = Room(total=100, per_peer=60)
        first, second = room.share(A), room.share(A)
        await first.resize(50)
        came = trio.Event()

        async def wait() -> None:
            await second.resize(40)
            came.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert not came.is_set()
            first.close()
            await came.wait()
        assert room.used == 40
        second.close()
        assert room.used == 0

    run(test)


def test_one_peer_cannot_take_the_room_of_another() -> None:
    async def test() -> None:
        room = Room(total=100, per_peer=60)
        await room.share(A).resize(60)

        await room.share(B).resize(40)

        with pytest.raises(NoRoomError):
            await room.share(A).resize(1)

    run(test)


def test_who_finds_no_room_for_a_while_is_refused_and_leaves_no_trace() -> None:
    async def test() -> None:
        room = Room(total=100, per_peer=60)
        held, late = room.share(A), room.share(A)
        await held.resize(60)
        began = trio.current_time()

        with pytest.raises(NoRoomError):
            await late.resize(10)

        assert trio.current_time() - began == PATIENCE
        late.close()
        held.close()
        await late.resize(60)

    run(test)


def test_what_can_never_fit_and_a_crowd_that_waits_are_refused_at_once() -> None:
    async def test() -> None:
        room = Room(total=100, per_peer=60)
        held = room.share(A)
        await held.resize(60)
        began = trio.current_time()

        async with trio.open_nursery() as nursery:
            for _ in range(MOST_WAITING):
                nursery.start_soon(_refused, room)
            await trio.testing.wait_all_tasks_blocked()
            for size in (61, 1):
                with pytest.raises(NoRoomError):
                    await room.share(A).resize(size)
            assert trio.current_time() == began

    run(test)


async def _refused(room: Room) -> None:
    with pytest.raises(NoRoomError):
        await room.share(A).resize(1)


def test_a_smaller_need_frees_the_difference() -> None:
    async def test() -> None:
        room = Room(total=100, per_peer=100)
        share = room.share(A)
        await share.resize(90)

        await share.resize(10)

        assert room.used == 10

    run(test)
