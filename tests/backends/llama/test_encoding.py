"""Encoding beside the decode loop, with a projector that is as slow as the test wants."""

import asyncio
import threading
from typing import Any, cast

import numpy as np
import pytest

from backends.errors import QueueFullError
from backends.llama.encoding import Encoder
from backends.llama.model import Floats
from backends.llama.projector import Piece, Projector


class SlowProjector:
    """Encodes when it is let; remembers what."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.begun = threading.Event()
        self.encoded: list[str] = []

    def encode(self, piece: Piece) -> Floats:
        self.begun.set()
        assert self.may_go_on.wait(10)
        self.encoded.append(piece.content)
        return np.full((piece.size, 4), len(self.encoded), np.float32)


def piece(content: str, size: int = 8) -> Piece:
    positions = np.zeros((1, size), np.int32)
    return Piece(start=0, size=size, content=content, positions=positions, saved=0, is_whole=False, chunk=None)


def encoder(projector: SlowProjector, **more: Any) -> Encoder:
    return Encoder(cast("Projector", projector), **{"queue": 4, **more})


async def test_one_content_is_encoded_once_for_everybody() -> None:
    projector = SlowProjector()
    projector.may_go_on.set()
    eyes = encoder(projector)
    pieces = [piece("a"), piece("b"), piece("a"), piece("a")]

    await asyncio.gather(*(eyes.encode([one]) for one in pieces))

    assert sorted(projector.encoded) == ["a", "b"]
    assert all(one.rows is not None for one in pieces)
    assert eyes.waiting == 0


async def test_what_was_not_used_for_longest_is_forgotten_first() -> None:
    projector = SlowProjector()
    projector.may_go_on.set()
    eyes = encoder(projector, kept_bytes=2 * 8 * 4 * 4)

    for content in ("a", "b", "a", "c", "a", "b"):
        await eyes.encode([piece(content)])

    assert projector.encoded == ["a", "b", "c", "b"]


async def test_a_cancelled_request_waits_for_its_thread_and_lets_the_next_one_in() -> None:
    projector = SlowProjector()
    eyes = encoder(projector)
    leaving = asyncio.create_task(eyes.encode([piece("a"), piece("never")]))
    waiting = asyncio.create_task(eyes.encode([piece("b")]))
    await asyncio.to_thread(projector.begun.wait, 10)

    leaving.cancel()
    await asyncio.sleep(0)
    assert not leaving.done()
    projector.may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await waiting

    assert projector.encoded == ["a", "b"]
    assert eyes.waiting == 0


async def test_who_waits_its_turn_leaves_at_once() -> None:
    projector = SlowProjector()
    eyes = encoder(projector)
    first = asyncio.create_task(eyes.encode([piece("a")]))
    second = asyncio.create_task(eyes.encode([piece("b")]))
    await asyncio.to_thread(projector.begun.wait, 10)

    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second

    assert not first.done()
    projector.may_go_on.set()
    await first
    assert projector.encoded == ["a"]


async def test_only_so_many_may_wait() -> None:
    projector = SlowProjector()
    eyes = encoder(projector, queue=1)
    waiting = [asyncio.create_task(eyes.encode([piece(content)])) for content in "ab"]
    await asyncio.to_thread(projector.begun.wait, 10)

    with pytest.raises(QueueFullError):
        await eyes.encode([piece("c")])

    projector.may_go_on.set()
    await asyncio.gather(*waiting)
