"""One request of a chaos run, to its answer: asked again elsewhere when its entry node is gone, and only then.

A request whose entry node lives through it must be answered, whatever happens to the others.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import httpx
import httpx2
import openai

from tests.chaos.cluster import Cluster, Member
from tests.chaos.questions import (
    CHAT,
    COMPLETION,
    EMBEDDING,
    Question,
    Reduced,
    described,
    same,
    take_chunk,
    whole,
)

TIMEOUT = httpx.Timeout(25)
"""For the client that resumes; the official one brings its own kind. Longer than any node stays frozen."""

MOST_ENTRIES = 8
"""Nodes that are asked for one answer, one after the other."""

PAUSE = 0.3
"""Seconds before the next node is asked."""


@dataclass(slots=True)
class Asked:
    """How one request went."""

    question: Question
    id: str
    entries: list[str] = field(default_factory=list)
    answer: Reduced | None = None
    left: bool = False
    """The client went away, as it was told to."""
    error: str = ""
    """Why there is no answer, although the entry node was there all the time."""
    gap: float = 0.0
    """The longest pause between two chunks, the nodes that the client reads through awake; seconds."""
    gap_at: float = 0.0
    stuck: float = 0.0
    """The same while backends somewhere were stopped."""
    seconds: float = 0.0
    resumed: int = 0
    outlived: bool = False
    """The stream was read to its end although its entry node died."""


class EntryGoneError(Exception):
    """The entry node did not live through the request: nobody's fault but ours."""


class NotAnsweredError(Exception):
    """It did, and yet there is no answer."""


class Asker:
    """Asks the nodes of a cluster."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._chance = random.Random(seed)
        self._count = 0
        self._run = f"chaos-{seed}"
        self._clients: dict[str, openai.AsyncOpenAI] = {}

    async def aclose(self) -> None:
        for client in self._clients.values():
            await client.close()

    async def ask(self, question: Question, entry: Member) -> Asked:
        """One request, to whatever end."""
        self._count += 1
        asked = Asked(question, f"{self._run}-{self._count}")
        began = time.monotonic()
        node = entry
        for _ in range(MOST_ENTRIES):
            asked.entries.append(node.name)
            try:
                asked.answer = await self._once(asked, node)
                break
            except EntryGoneError:
                await asyncio.sleep(PAUSE)
                node = self._next(node)
            except NotAnsweredError as error:
                asked.error = f"{node.name}: {error}"
                break
        else:
            asked.error = f"no node was there for it: {', '.join(asked.entries)}"
        asked.seconds = time.monotonic() - began
        return asked

    def _next(self, node: Member) -> Member:
        members = self._cluster.members
        return members[(members.index(node) + 1) % len(members)]

    async def _once(self, asked: Asked, node: Member) -> Reduced | None:
        """None: the client left."""
        began = time.monotonic()
        try:
            if asked.question.breaks:
                return await self._broken_and_resumed(asked, node)
            if asked.question.streams:
                return await self._streamed(asked, node)
            return await self._whole(asked, node)
        except (openai.APIError, httpx2.TransportError, httpx.TransportError, AssertionError) as error:
            if self._cluster.trouble.was_down(node.name, began, time.monotonic()):
                raise EntryGoneError from error
            raise NotAnsweredError(_in_words(error)) from error

    def _client(self, node: Member) -> openai.AsyncOpenAI:
        if node.name not in self._clients:
            self._clients[node.name] = openai.AsyncOpenAI(
                base_url=f"{node.api}/v1",
                api_key=self._cluster.api_key,
                max_retries=0,
                timeout=openai.Timeout(25),
            )
        return self._clients[node.name]

    async def _whole(self, asked: Asked, node: Member) -> Reduced:
        client = self._client(node)
        body, headers = asked.question.body, {"x-request-id": asked.id}
        # Typed arguments would only be in the way of a body that is data.
        create: Any = {
            CHAT: client.chat.completions.create,
            COMPLETION: client.completions.create,
            EMBEDDING: client.embeddings.create,
        }[asked.question.path]
        extra = {key: body[key] for key in ("chat_template_kwargs",) if key in body}
        plain = {key: value for key, value in body.items() if key not in extra}
        if asked.question.path == EMBEDDING:
            plain["encoding_format"] = "float"
        return whole((await create(**plain, extra_body=extra, extra_headers=headers)).model_dump())

    async def _streamed(self, asked: Asked, node: Member) -> Reduced | None:
        body = asked.question.body
        extra = {key: body[key] for key in ("chat_template_kwargs",) if key in body}
        plain: Any = {key: value for key, value in body.items() if key not in extra}
        answer = Reduced()
        stream = await self._client(node).chat.completions.create(
            **plain, extra_body=extra, extra_headers={"x-request-id": asked.id}
        )
        pace = Pace(self._cluster, asked, node)
        leave_after = self._chance.randint(1, 60) if asked.question.leaves else 0
        async with stream:
            async for chunk in stream:
                pace.heard()
                take_chunk(answer, chunk.model_dump())
                leave_after -= 1
                if leave_after == 0:
                    asked.left = True
                    return None
        return answer

    async def _broken_and_resumed(self, asked: Asked, node: Member) -> Reduced:
        """The client's connection breaks once or twice; it reads on from where it was, maybe through other nodes."""
        reading = _Reading(Reduced(), Pace(self._cluster, asked, node))
        headers = {"Authorization": f"Bearer {self._cluster.api_key}", "x-request-id": asked.id}
        reader, failures, began = node, 0, time.monotonic()
        async with httpx.AsyncClient(headers=headers, timeout=TIMEOUT, trust_env=False) as http:
            while not reading.is_over:
                if not reading.stream_id:
                    opened = http.stream("POST", f"{node.api}/v1{CHAT}", json=asked.question.body)
                else:
                    asked.resumed += 1
                    url = f"{reader.api}/v1/streams/{reading.stream_id}"
                    opened = http.stream("GET", url, headers={"last-event-id": str(reading.last)})
                break_after = self._chance.randint(5, 80) if asked.resumed < 2 else 0
                try:
                    await reading.go_on(opened, break_after)
                except (httpx.TransportError, AssertionError):
                    # Another node may be able to read it; only if none is, has it failed.
                    failures += 1
                    if not (asked.question.moves and reading.stream_id) or failures > MOST_ENTRIES:
                        raise
                if not reading.is_over:
                    await asyncio.sleep(self._chance.uniform(0.1, 1.0))
                    reader = self._next(reader) if asked.question.moves else node
                    reading.pace.goes_on(through=reader)
        asked.outlived = self._cluster.trouble.was_down(node.name, began, time.monotonic())
        return reading.answer


@dataclass(slots=True)
class _Reading:
    """A resumable stream, as far as it was read."""

    answer: Reduced
    pace: "Pace"
    last: int = -1
    stream_id: str = ""
    is_over: bool = False

    async def go_on(self, opened: AbstractAsyncContextManager[httpx.Response], break_after: int) -> None:
        """Reads `break_after` events more, or all. Raises AssertionError if it is not as it should be."""
        async with opened as response:
            if response.status_code != 200:
                text = (await response.aread()).decode(errors="replace")
                raise AssertionError(f"{response.status_code} {text[:200]}")
            self.stream_id = self.stream_id or response.headers["x-shoal-stream"]
            async for number, data in numbered(response):
                self.pace.heard()
                assert number == self.last + 1, f"event {number} after {self.last}: {data[:300]}"
                if data != "[DONE]":
                    chunk = json.loads(data)
                    assert "error" not in chunk, data[:300]
                    take_chunk(self.answer, chunk)
                self.last = number
                self.is_over = data == "[DONE]"
                break_after -= 1
                if self.is_over or break_after == 0:
                    return
        raise AssertionError("the stream ended without its end")


class Pace:
    """The longest pause between two chunks of one answer."""

    def __init__(self, cluster: Cluster, asked: Asked, node: Member) -> None:
        self._cluster = cluster
        self._asked = asked
        self._nodes = [node]
        self._last: float | None = None

    def heard(self) -> None:
        now, last = time.monotonic(), self._last
        self._last = now
        if last is None or now - last <= self._asked.gap:
            return
        if self._cluster.trouble.had_stopped_backends(last, now):
            self._asked.stuck = max(self._asked.stuck, now - last)
            return
        if not any(self._cluster.trouble.was_frozen(node.name, last, now) for node in self._nodes):
            self._asked.gap, self._asked.gap_at = now - last, now

    def goes_on(self, *, through: Member) -> None:
        """The client itself paused, and reads through another node what the first one keeps."""
        self._last = None
        self._nodes[1:] = [through]


async def numbered(response: httpx.Response) -> AsyncIterator[tuple[int, str]]:
    """The events of a resumable stream, with their ids."""
    number = -1
    async for line in response.aiter_lines():
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("data: "):
            yield number, line[6:]


def _in_words(error: Exception) -> str:
    if isinstance(error, openai.APIStatusError):
        return f"{error.status_code} {error.message}"
    cause = f" ({error.__cause__!r})" if error.__cause__ else ""
    return f"{type(error).__name__}: {error}{cause}"


async def references(asker: Asker, questions: Sequence[Question], members: Sequence[Member]) -> dict[str, Reduced]:
    """What the undisturbed mesh answers, through every node alike.

    Raises:
        AssertionError: it does not answer, or not always the same, or not what can be computed.
    """
    found: dict[str, Reduced] = {q.name: q.expected for q in questions if q.expected is not None}
    for member in members:
        asking = [q for q in questions if not q.leaves]
        for asked in await asyncio.gather(*(asker.ask(question, member) for question in asking)):
            name = asked.question.name
            assert asked.answer is not None, f"{name} undisturbed: {asked.error}"
            known = found.setdefault(name, asked.answer)
            assert same(known, asked.answer), (
                f"{name} undisturbed, through {member.name}: {described(asked.answer)}, not {described(known)}"
            )
    return found
