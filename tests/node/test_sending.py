"""One node's calls to others: what a failure there means for the next choice."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mesh.errors import RemoteCallError
from mesh.forwarding import CallHeader
from mesh.types import MeshView, NodeId
from node.breaker import FAILURES
from node.patience import Patience
from node.sending import Asked, Sender, SendFailedError, Sent
from tests.helpers.mesh_records import member, model, view

ASKED = Asked(model="m", request_id="r", keep_alive=5.0)


class Peers:
    """A mesh of nodes that answer, refuse, or fall silent; fulfils what a `Sender` wants of a mesh."""

    self_id = NodeId("here")

    def __init__(self, **replies: list[bytes] | RemoteCallError) -> None:
        self.replies = replies
        self.headers: list[CallHeader] = []
        self.closed = 0
        self.doubted: set[NodeId] = set()
        self.was_doubted = asyncio.Event()

    def view(self) -> MeshView:
        # The first one is the less busy: it is asked first as long as it does not fail.
        return view("here", *(member(name, model(busy=number)) for number, name in enumerate(self.replies)))

    def report_failure(self, peer: NodeId) -> None:
        self.doubted.add(peer)
        if len(self.doubted) == len(self.replies):
            self.was_doubted.set()

    async def call(self, peer: NodeId, header: CallHeader, messages: object) -> "Replies":
        self.headers.append(header)
        return Replies(self, self.replies[peer])


class Replies:
    """The given replies, and then silence."""

    def __init__(self, peers: Peers, replies: list[bytes] | RemoteCallError) -> None:
        self._peers = peers
        self._replies = replies if isinstance(replies, RemoteCallError) else list(replies)

    def __aiter__(self) -> AsyncIterator[list[bytes]]:
        return self

    async def __anext__(self) -> list[bytes]:
        if isinstance(self._replies, RemoteCallError):
            raise self._replies
        if not self._replies:
            await asyncio.Event().wait()
        if self._replies[0] == b"":
            raise StopAsyncIteration
        return [self._replies.pop(0)]

    def give_up(self, error: Exception) -> None:
        raise AssertionError("nobody asked for that")

    async def aclose(self) -> None:
        self._peers.closed += 1


def sender_to(peers: Peers) -> Sender:
    anything: Any = peers
    return Sender(anything, anything, stall_after=5.0)


async def send(sender: Sender) -> Sent:
    target = sender.choose(ASKED)
    assert target is not None
    return await sender.send(target, "Generate", ASKED, [b""])


@pytest.mark.parametrize(
    ("failure", "then"),
    [
        pytest.param(RemoteCallError("INTERNAL", "engine_error", "it broke"), "b", id="a broken engine"),
        pytest.param(RemoteCallError("RESOURCE_EXHAUSTED", "queue_full", "full"), "a", id="a busy one"),
        pytest.param(RemoteCallError("INVALID_ARGUMENT", "invalid_value", "no"), "a", id="the client's own fault"),
    ],
)
async def test_who_fails_again_and_again_is_asked_last(failure: RemoteCallError, then: str) -> None:
    sender = sender_to(Peers(a=failure, b=[b"reply"]))
    for _ in range(FAILURES):
        with pytest.raises(SendFailedError):
            await send(sender)

    target = sender.choose(ASKED)
    assert target is not None
    assert target.node == then
    assert len(list(sender.candidates(ASKED))) == 2


async def test_a_peer_that_falls_silent_has_failed() -> None:
    peers = Peers(a=[b"one", b"two"], b=[b"reply"])
    sender = sender_to(peers)
    sent = await send(sender)
    assert [await sent.read(), await sent.read()] == [[b"one"], [b"two"]]
    sent._patience = Patience(0.001)

    with pytest.raises(SendFailedError) as caught:
        await sent.read()
    await sent.aclose()

    assert caught.value.failure.code == "stalled"
    assert caught.value.failure.speaks_against_node
    assert peers.closed == 1


async def test_a_peer_whose_answer_pauses_and_the_next_one_are_asked_whether_they_are_still_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.sending.ASK_PEER_AFTER", 0.001)
    peers = Peers(a=[b"one"], b=[b"reply"])
    sent = await send(sender_to(peers))
    await sent.read()
    reading = asyncio.create_task(sent.read())

    await peers.was_doubted.wait()

    reading.cancel()
    await sent.aclose()


async def test_how_long_whole_answers_take_is_told_and_places_are_given_back() -> None:
    sender = sender_to(Peers(a=[b"one", b""]))
    taken: list[str] = []
    ended: list[str] = []
    sender.on_answered = lambda name, seconds: taken.append(name)
    sender.on_ended = ended.append
    sent = await send(sender)

    assert [await sent.read(), await sent.read()] == [[b"one"], []]
    await sent.aclose()

    assert (taken, ended) == (["m"], ["m"])


async def test_the_holder_is_told_how_long_to_keep_the_model() -> None:
    peers = Peers(a=[b"one"])
    await send(sender_to(peers))

    assert peers.headers[0].extra == '{"keep_alive":5.0}'
