"""One request on its way through the mesh: tried, tried elsewhere, and gone on with elsewhere.

    start()     offers the request to the best node, then to the next best, until the first reply is there
    batches()   passes the answer on; when it breaks off, another node with the very same model (digest) is
                given the tokens so far and goes on where they end. The client sees one answer.

Rules:

1. How often and where it is tried: `node.attempts`.
2. A prompt that is too long for one node's context is tried where that is longer: until then, its length in tokens
   was a guess.
3. When no other node is left and only the backend died, its own node is asked once more: it starts a new one.
4. How an answer goes on is its `SoFar`'s business: text where its tokens end, sound from its beginning, with what the
   client has already left out. A call without one (vectors, scores) ends with the error it met.
5. Whatever ends an errand, early or late, closes the call where it runs.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from api import ports
from node.answer_so_far import Given
from node.attempts import PAUSE, Attempts
from node.failure import CONTEXT_EXCEEDED, CallFailure, to_api_error
from node.sending import Asked, Sender, SendFailedError, Sent, Target

log = logging.getLogger(__name__)

Event_co = TypeVar("Event_co", covariant=True)


class SoFar(Protocol[Event_co]):
    """What the client was given of an answer."""

    is_complete: bool

    @property
    def given(self) -> Given: ...

    @property
    def is_begun(self) -> bool: ...

    def begin_again(self) -> None: ...

    def take(self, replies: Iterable[bytes]) -> Sequence[Event_co]: ...


class Errand(Generic[Event_co]):
    """One request. Fulfils `api.ports.Answer` or `api.ports.Speech` once it is started."""

    def __init__(
        self,
        sender: Sender,
        method: str,
        asked: Asked,
        body: Callable[[str, Given], list[bytes]],
        so_far: SoFar[Event_co],
    ) -> None:
        """`body` serializes the request for a digest and the tokens given so far; files follow in pieces."""
        self._sender = sender
        self._method = method
        self._asked = asked
        self._model = asked.model
        self._request_id = asked.request_id
        self._body = body
        self._so_far = so_far
        self._attempts = Attempts()
        self._sent: Sent | None = None
        self._route = ports.Route("", "")

    @property
    def route(self) -> ports.Route:
        return self._route

    async def start(self, find: Callable[[], Awaitable[bool]]) -> bool:
        """Runs until the first reply is there. False: nobody has the model, also not after `find`.

        Raises:
            ApiError: it failed wherever it was tried.
        """
        target = self._sender.choose(self._asked)
        if target is None and await find():
            target = self._sender.choose(self._asked)
        if target is None:
            return False
        self._sent = await self._send(target)
        why = self._sent.target.why
        self._route = ports.Route(self._sent.target.name, f"retried: {why}" if self._attempts.count > 1 else why)
        return True

    async def batches(self) -> AsyncIterator[Sequence[Event_co]]:
        try:
            while True:
                try:
                    replies = await self._running.read()
                except SendFailedError as error:
                    if self._so_far.is_complete:
                        return  # Only the end of the stream was missing.
                    await self._go_on(error.failure)
                    continue
                if not replies:
                    return
                if events := self._so_far.take(replies):
                    self._attempts.progress()
                    yield events
        finally:
            await self.aclose()

    async def raw(self) -> list[bytes]:
        """Every reply message, unread: for calls that are not text."""
        try:
            messages: list[bytes] = []
            while replies := await self._running.read():
                messages += replies
            return messages
        except SendFailedError as error:
            raise to_api_error(error.failure, self._model) from error
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        if self._sent is not None:
            await self._sent.aclose()

    @property
    def _running(self) -> Sent:
        assert self._sent is not None, "started"
        return self._sent

    async def _go_on(self, failure: CallFailure) -> None:
        """Has another node go on where the answer broke off."""
        broken = self._running
        await broken.aclose()
        target = await self._next(failure, broken.target.digest)
        log.warning("request %s broke off: %s; %s goes on with it", self._request_id, failure.message, target.name)
        self._sent = await self._send(target)

    async def _send(self, target: Target) -> Sent:
        """The call at `target`, or at whoever comes next."""
        while True:
            self._attempts.begin(target.node)
            self._so_far.begin_again()
            try:
                body = self._body(target.digest, self._so_far.given)
                return await self._sender.send(target, self._method, self._asked, body)
            except SendFailedError as error:
                went_on = target.digest if self._so_far.is_begun else None
                target = await self._next(error.failure, went_on)
                log.warning("request %s: %s; trying %s", self._request_id, error.failure.message, target.name)

    async def _next(self, failure: CallFailure, digest: str | None) -> Target:
        """Who is tried after a failure.

        Raises:
            ApiError: nobody.
        """
        self._attempts.fail(failure)
        while not self._attempts.is_spent:
            target = self._choose(failure, digest)
            if target is not None:
                return target
            if not self._attempts.pause(failure):
                break
            await asyncio.sleep(PAUSE)
        raise to_api_error(failure, self._model)

    def _choose(self, failure: CallFailure, digest: str | None) -> Target | None:
        tried = self._attempts.tried
        if failure.code == CONTEXT_EXCEEDED:
            too_short = self._sender.context_length(tried[-1], self._model)
            if not too_short:
                return None
            return self._sender.choose(self._asked, tried=tried, digest=digest, longer_than=too_short)
        if failure.is_final:
            return None
        target = self._sender.choose(self._asked, tried=tried, digest=digest)
        if target is None and failure.is_crash:
            target = self._sender.choose(self._asked, digest=digest)
        return target
