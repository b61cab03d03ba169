"""The echo engine: answers with what it was told. No weights, no GPU, every feature of a stream.

It ships as a feature: for tests, demos, benchmarks of everything around an engine, and for bug
reports. What it says is decided in `backends.echo_reply`; this file keeps the time, holds the
slots and does the harm it is asked for.
"""

import asyncio
import os
import platform
import signal
from collections.abc import Callable, Mapping, Sequence

from backends.echo_reply import (
    Behaviour,
    EchoChoice,
    EchoSettings,
    Prompt,
    answer_to,
    behaviour_for,
    read_prompt,
)
from backends.echo_vectors import embed_words, normalised, overlap
from backends.echo_words import Vocabulary, split_words
from backends.engine import NO_BLOBS, Engine, Replies, Report
from backends.errors import (
    ContextLengthError,
    InvalidValueError,
    ModelFileError,
    NotLoadedError,
    UnsupportedError,
)
from backends.rpc import backend_pb2 as pb
from backends.settings import read_settings
from backends.slots import Slots
from backends.speed import RecentMean

BURST = 64
"""Tokens put between two looks at the reader when no interval is set. Higher gives larger messages
and lets one stream hold the loop for longer (64 take about half a millisecond)."""

PROGRESS_EVERY = 0.05
"""Seconds between two reports of a pretended load."""

LAST_WORDS_SECONDS = 0.05
"""From the last token before a crash to the crash, so that the reader has met the token."""


class EchoEngine(Engine):
    """An engine that needs nothing and does as it is told."""

    name = "echo"

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._words = Vocabulary()
        self._settings = EchoSettings()
        self._slots = Slots(0, 0, changed)
        self._calls: set[asyncio.Task[None]] = set()
        self._first_token = RecentMean()
        self._per_token = RecentMean()

    def describe(self) -> pb.DescribeReply:
        methods = ["Generate", "Embed", "Rerank", "Tokenize", "Detokenize"]
        device = pb.Device(kind="cpu", name=platform.processor() or platform.machine())
        return pb.DescribeReply(engine=self.name, version="1", methods=methods, devices=[device])

    async def load(self, request: pb.LoadRequest, report: Report) -> pb.LoadedModel:
        settings = read_settings(EchoSettings, request.settings_json)
        await self._pretend_to_load(settings.load_seconds, report)
        if settings.fail_load:
            raise ModelFileError(settings.fail_load)
        self._settings = settings
        self._slots = Slots(settings.slots, settings.queue, self._changed)
        return pb.LoadedModel(
            context_length=settings.context_length,
            slots=settings.slots,
            capabilities=["chat", "completion", "embedding", "rerank", "tools"],
            summary=f"echo: {settings.slots} slots, context of {settings.context_length} words, no weights",
        )

    async def _pretend_to_load(self, seconds: float, report: Report) -> None:
        loop = asyncio.get_running_loop()
        begun_at = loop.time()
        while (passed := loop.time() - begun_at) < seconds:
            report(passed / seconds, "pretending to read weights")
            await asyncio.sleep(min(PROGRESS_EVERY, seconds - passed))

    async def unload(self) -> None:
        self._slots = Slots(0, 0, self._changed)
        for call in self._calls:
            call.cancel("unloaded")
        if self._calls:
            await asyncio.wait(self._calls)

    def state(self) -> pb.State:
        return pb.State(
            slots=self._slots.count,
            busy=self._slots.busy,
            queued=self._slots.queued,
            context_length=self._settings.context_length,
            first_token_seconds=self._first_token.value,
            generated_tokens_per_second=1 / self._per_token.value if self._per_token.value else 0,
        )

    # ------------------------------------------------------------ text

    async def generate(
        self, request: pb.GenerateRequest, replies: Replies, blobs: Mapping[str, bytes] = NO_BLOBS
    ) -> None:
        call = asyncio.current_task()
        assert call is not None
        self._calls.add(call)
        try:
            await self._generate(request, replies)
        except asyncio.CancelledError as exc:
            if "unloaded" in exc.args:
                raise NotLoadedError("the model was unloaded while it answered") from exc
            raise
        finally:
            self._calls.discard(call)

    async def _generate(self, request: pb.GenerateRequest, replies: Replies) -> None:
        if request.HasField("constraint"):
            raise UnsupportedError("the echo engine cannot constrain its answer", param="response_format")
        prompt = self._prompt(request)
        prompt_tokens = len(prompt.words)
        room = self._settings.context_length - prompt_tokens
        if room <= 0:
            raise ContextLengthError(prompt_tokens, self._settings.context_length)
        behaviour = behaviour_for(self._settings, request.template_json)
        choices = self._choices(request, prompt, behaviour, room)

        arrived_at = asyncio.get_running_loop().time()
        async with self._slots.one():
            await asyncio.sleep(behaviour.prefill_seconds)
            if request.echo_prompt:
                for choice in choices:
                    text = pb.TextDelta(text="".join(prompt.texts))
                    replies.put(pb.GenerateEvent(choice=choice.index, text=text))
            self._first_token.add(asyncio.get_running_loop().time() - arrived_at)
            await self._say(choices, behaviour, replies)
        said = sum(choice.tokens for choice in choices)
        replies.put(pb.GenerateEvent(usage=pb.Usage(prompt_tokens=prompt_tokens, completion_tokens=said)))

    def _prompt(self, request: pb.GenerateRequest) -> Prompt:
        kind = request.WhichOneof("input")
        if kind == "messages_json":
            return read_prompt(request.messages_json)
        if kind == "prompt":
            return Prompt((request.prompt,), request.prompt)
        if kind == "prompt_tokens":
            text = self._text_of(request.prompt_tokens.ids)
            return Prompt((text,), text)
        raise InvalidValueError("the request has neither messages nor a prompt", param="messages")

    def _choices(
        self, request: pb.GenerateRequest, prompt: Prompt, behaviour: Behaviour, room: int
    ) -> list[EchoChoice]:
        answer = answer_to(prompt, behaviour, request.tools_json, request.tool_choice_json)
        limit = min(room, request.max_tokens) if request.HasField("max_tokens") else room
        choices = [
            EchoChoice(
                index,
                answer,
                self._words.id_of,
                limit=limit,
                stops=list(request.stop),
                endless=request.ignore_eos and answer.call is None,
                top_logprobs=request.top_logprobs if request.HasField("top_logprobs") else None,
            )
            for index in range(max(1, request.choices))
        ]
        for given in request.given:
            if given.choice >= len(choices):
                raise InvalidValueError(f"tokens given for choice {given.choice}, which is not asked for")
            for _ in given.ids:
                choices[given.choice].step()
        return choices

    async def _say(self, choices: list[EchoChoice], behaviour: Behaviour, replies: Replies) -> None:
        loop = asyncio.get_running_loop()
        interval = behaviour.token_interval
        begun_at, steps = loop.time(), 0
        crash_after = behaviour.crash_after_tokens
        while speaking := [choice for choice in choices if not choice.finished]:
            for choice in speaking:
                replies.put(*choice.step())
                if crash_after is not None and choice.tokens >= crash_after:
                    await _crash(replies)
            steps += 1
            if interval:
                # By the clock and not by the step, so that a late timer does not slow the stream.
                await asyncio.sleep(max(0.0, begun_at + steps * interval - loop.time()))
            elif steps % BURST == 0:
                await replies.drained()
        self._per_token.add((loop.time() - begun_at) / max(1, steps))

    # ------------------------------------------------------------ the rest

    async def embed(self, request: pb.EmbedRequest) -> pb.EmbedReply:
        wanted = request.dimensions if request.HasField("dimensions") else self._settings.dimensions
        if not 1 <= wanted <= self._settings.dimensions:
            raise InvalidValueError(
                f"dimensions must be between 1 and {self._settings.dimensions}, not {wanted}",
                param="dimensions",
            )
        inputs = [
            split_words(item.text if item.WhichOneof("input") == "text" else self._text_of(item.tokens.ids))
            for item in request.inputs
        ]
        vectors = [embed_words(words, self._settings.dimensions)[:wanted] for words in inputs]
        return pb.EmbedReply(
            vectors=[pb.Vector(values=normalised(vector)) for vector in vectors],
            prompt_tokens=sum(len(words) for words in inputs),
        )

    async def rerank(self, request: pb.RerankRequest) -> pb.RerankReply:
        query = split_words(request.query)
        documents = [split_words(text) for text in request.documents]
        return pb.RerankReply(
            scores=[overlap(query, words) for words in documents],
            prompt_tokens=len(query) + sum(len(words) for words in documents),
        )

    async def tokenize(self, request: pb.TokenizeRequest) -> pb.TokenizeReply:
        if request.WhichOneof("input") == "messages_json":
            words = read_prompt(request.messages_json).words
        else:
            words = split_words(request.text)
        return pb.TokenizeReply(ids=[self._words.id_of(word) for word in words])

    async def detokenize(self, request: pb.DetokenizeRequest) -> pb.DetokenizeReply:
        return pb.DetokenizeReply(text=self._text_of(request.ids))

    def _text_of(self, ids: Sequence[int]) -> str:
        try:
            return "".join(self._words.word_of(number) for number in ids)
        except KeyError as exc:
            raise InvalidValueError(f"the echo engine has not met token {exc.args[0]}", param="ids") from exc


async def _crash(replies: Replies) -> None:
    await replies.drained()
    await asyncio.sleep(LAST_WORDS_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
