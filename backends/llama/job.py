"""A job: one Generate call, made ready for the decode loop.

Everything that can be refused is refused here, before the loop hears of the request; this runs in
a thread of its own, since rendering, tokenizing and reading grammars may take a while.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.engine import Replies
from backends.errors import (
    ContextLengthError,
    InvalidGrammarError,
    InvalidSchemaError,
    InvalidValueError,
    RequestError,
    UnsupportedError,
)
from backends.llama.answer import Answer
from backends.llama.constraints import grammar_of, rules_of_schema
from backends.llama.dialect import PLAIN_VOICE, Dialect, Voice
from backends.llama.media_tokens import text_only
from backends.llama.model import Model
from backends.llama.projector import Medium, Piece, Projector, Prompt, Words
from backends.llama.prompt_scores import SLICE, PromptScores
from backends.llama.sampling import Sampler
from backends.llama.scheduler import Ask
from backends.llama.speculation import Guessing
from backends.llama.template import ChatTemplate, Span, read_messages, tokenize_spans
from backends.llama.tools import Offer, read_offer
from backends.rpc import backend_pb2 as pb
from backends.settings import parse_object

MAX_TOP_LOGPROBS = 20
MAX_STOPS = 64


@dataclass(slots=True, eq=False)
class Choice:
    """One choice of a job: how its tokens are drawn, and what becomes of them."""

    job: "Job"
    sampler: Sampler
    answer: Answer
    guessing: Guessing


@dataclass(slots=True, eq=False)
class Job:
    """One call. `ask` is the scheduler's part of it; the loop fills in the rest."""

    ask: Ask
    choices: list[Choice]
    top_logprobs: int | None
    replies: Replies
    done: "asyncio.Future[None]"
    pieces: Mapping[int, Piece]
    """Pictures and sounds by where in the prompt they begin; to be encoded before the loop sees the job."""
    echo_text: str = ""
    scores: PromptScores | None = None
    """Of an answer that begins with its prompt and the logprobs of it."""
    arrived_at: float = 0.0
    cached: int = 0
    begun: bool = False

    @property
    def is_over(self) -> bool:
        """Every choice has ended."""
        return all(choice.answer.reason for choice in self.choices)

    def echo(self) -> list[pb.GenerateEvent]:
        """The prompt, where answers are to begin with it."""
        echo = pb.TextDelta(text=self.echo_text)
        return [pb.GenerateEvent(choice=c.answer.choice, text=echo) for c in self.choices if self.echo_text]

    def finish(self) -> list[pb.GenerateEvent]:
        """The last events of a job that is over."""
        ends = [(choice.answer.choice, pb.Finished(reason=choice.answer.reason)) for choice in self.choices]
        return [*(pb.GenerateEvent(choice=choice, finished=end) for choice, end in ends), self.usage()]

    def usage(self) -> pb.GenerateEvent:
        """What it cost, once it is over."""
        usage = pb.Usage(
            prompt_tokens=len(self.ask.prompt),
            completion_tokens=sum(choice.answer.tokens for choice in self.choices),
            reasoning_tokens=sum(choice.answer.reasoning_tokens for choice in self.choices),
            cached_tokens=min(self.cached, len(self.ask.prompt)),
            accepted_prediction_tokens=sum(choice.guessing.accepted for choice in self.choices),
            rejected_prediction_tokens=sum(choice.guessing.rejected for choice in self.choices),
        )
        return pb.GenerateEvent(usage=usage)

    def close(self) -> None:
        """Free the samplers."""
        for choice in self.choices:
            choice.sampler.close()
        for piece in self.pieces.values():
            piece.close()


class JobMaker:
    """Makes jobs for one loaded model."""

    def __init__(
        self,
        model: Model,
        template: ChatTemplate,
        dialect: Dialect,
        context_length: int,
        slots: int,
        projector: Projector | None = None,
        whole_limit: int = 0,
        *,
        shifts: bool = False,
    ) -> None:
        """`whole_limit`: tokens of a picture that can be computed together, where they must be. `shifts`: an answer
        may go on when the context is full."""
        self._model = model
        self._projector = projector
        self._whole_limit = whole_limit
        self._template = template
        self._dialect = dialect
        self._context_length = context_length
        self._slots = slots
        self._shifts = shifts

    @property
    def has_tools(self) -> bool:
        """The model's template shows tools."""
        return self._template.has_tools

    def make(
        self, request: pb.GenerateRequest, replies: Replies, done: "asyncio.Future[None]", blobs: Mapping[str, bytes]
    ) -> Job:
        """The job of a request; `blobs` are the files that its messages name.

        Raises:
            RequestError: it can never work here.
            UnsupportedError: this model cannot do that.
        """
        _check_counts(request, self._slots)
        offer = read_offer(request.tools_json, request.tool_choice_json)
        if offer.tools and not self._template.has_tools:
            raise UnsupportedError("this model's chat template knows no tools", param="tools")
        prompt, pieces, voice = self._prompt(request, offer, blobs)
        try:
            return self._job(request, replies, done, prompt, pieces, voice, offer)
        except BaseException:
            for piece in pieces:
                piece.close()
            raise

    def _job(
        self,
        request: pb.GenerateRequest,
        replies: Replies,
        done: "asyncio.Future[None]",
        prompt: list[int],
        pieces: list[Piece],
        voice: Voice,
        offer: Offer,
    ) -> Job:
        room = self._context_length - len(prompt)
        if room <= 0:
            raise ContextLengthError(len(prompt), self._context_length)
        grammar = self._grammar(request, offer, voice)
        self._model.check_tokens(list(request.sampling.logit_bias), "logit_bias")
        count = max(1, request.choices)
        given = self._given(request, count)
        scores = self._scores(request, prompt)
        owners: list[Choice] = []
        by_start = {piece.start: piece for piece in pieces}
        job = Job(
            Ask(
                prompt,
                owners,
                given,
                reuse=scores is None and (not request.HasField("reuse_prefix") or request.reuse_prefix),
                caller=request.caller,
                score_slice=SLICE if scores is not None else 0,
                media=by_start,
                adapters=self._adapters(request),
            ),
            owners,
            request.top_logprobs if request.HasField("top_logprobs") else None,
            replies,
            done,
            by_start,
            echo_text=self._echo(request) if scores is None else "",
            scores=scores,
        )
        try:
            for index in range(count):
                job.choices.append(self._choice(job, index, request, voice, grammar, room))
        except InvalidGrammarError as exc:
            job.close()
            raise _of_what_was_asked(request, exc) from exc
        except BaseException:
            job.close()
            raise
        return job

    def _adapters(self, request: pb.GenerateRequest) -> tuple[float, ...]:
        """The scale of each adapter, where the request chooses another than the model's own."""
        if not request.HasField("adapters"):
            return ()
        usual = self._model.adapter_scales
        scales = [0.0] * len(usual)
        for entry in request.adapters.scales:
            if not usual:
                raise UnsupportedError("this model has no LoRA adapters", param="lora")
            if entry.id >= len(usual):
                raise InvalidValueError(f"adapter {entry.id}: this model has {len(usual)}, from 0 on", param="lora")
            if not math.isfinite(entry.scale):
                raise InvalidValueError(f"adapter {entry.id}: a scale of {entry.scale}", param="lora")
            scales[entry.id] = entry.scale
        # A scale travels in single precision.
        return () if np.allclose(scales, usual, rtol=1e-6, atol=0) else tuple(scales)

    def _choice(
        self, job: Job, index: int, request: pb.GenerateRequest, voice: Voice, grammar: str | None, room: int
    ) -> Choice:
        prediction = self._model.tokenize(request.prediction, special=False) if request.prediction else ()
        sampler = Sampler(
            self._model,
            request.sampling,
            ignore_end=request.ignore_eos,
            grammar=grammar,
            prompt=text_only(job.ask.prompt) if job.pieces else job.ask.prompt,
            offset=index,
        )
        answer = Answer(
            index,
            self._model.piece_with(voice.markers),
            self._model.end_tokens,
            limit=self._limit(job, room, request.max_tokens if request.HasField("max_tokens") else None),
            stops=list(request.stop),
            sections=voice.sections(),
            parser=voice.parser(),
        )
        choice = Choice(job, sampler, answer, Guessing(prediction))
        try:
            for token in job.ask.given[index]:
                if not answer.reason:
                    sampler.replay(token)
                    answer.replay(token)
        except BaseException:
            sampler.close()
            raise
        return choice

    def _limit(self, job: Job, room: int, wished: int | None) -> int:
        """Tokens that an answer may have. One that never ends by itself ends after a whole context, as in llama.cpp."""
        if self._shifts and not job.pieces:
            return max(self._context_length, self._model.trained_context) if wished is None else wished
        return room if wished is None else min(room, wished)

    def _prompt(
        self, request: pb.GenerateRequest, offer: Offer, blobs: Mapping[str, bytes]
    ) -> tuple[list[int], list[Piece], Voice]:
        kind = request.WhichOneof("input")
        if request.suffix:
            return self._infill(request), [], PLAIN_VOICE
        if kind == "messages_json":
            variables = parse_object(request.template_json, param="template_json")
            spans = self._chat_spans(request.messages_json, offer, variables)
            thinks = variables.get("enable_thinking") is not False
            voice = self._dialect.voice("".join(span.text for span in spans[-1:]), offer, thinks=thinks)
            if any(span.medium for span in spans):
                prompt = self._seen(spans, blobs)
                return prompt.tokens, prompt.pieces, voice
            return self._tokens_of(spans), [], voice
        if kind == "prompt_tokens":
            tokens = self._model.check_tokens(request.prompt_tokens.ids, "prompt")
        elif kind == "prompt":
            tokens = self.text_tokens(request.prompt, special=True)
        else:
            raise InvalidValueError("the request has neither messages nor a prompt", param="messages")
        if not tokens:
            raise InvalidValueError("the prompt is empty", param="prompt")
        return tokens, [], PLAIN_VOICE

    def _seen(self, spans: list[Span], blobs: Mapping[str, bytes]) -> Prompt:
        """The prompt of a conversation with pictures or sounds."""
        counts: Counter[str] = Counter()
        parts: list[Words | Medium] = []
        for span in spans:
            if span.medium is None:
                parts.append(Words(span.text, span.plain))
                continue
            kind, name = span.medium.kind, span.medium.name
            if self._projector is None:
                what = "cannot see pictures" if kind == "image" else "cannot hear sounds"
                reason = "it has no projector (mmproj file)"
                raise UnsupportedError(f"this model reads text only and {what}: {reason}", param="messages")
            if name not in blobs:
                raise InvalidValueError(f"the request brings no file for the {kind} {name[:80]!r}", param="messages")
            counts[kind] += 1
            where = f"{'picture' if kind == 'image' else 'sound'} {counts[kind]}"
            parts.append(Medium(kind, blobs[name], where))
        assert self._projector is not None
        prompt = self._projector.read(parts, self._model.begin_token)
        for piece in prompt.pieces:
            if piece.is_whole and piece.size > self._whole_limit:
                raise InvalidValueError(
                    f"a picture takes {piece.size} tokens here, which must be computed together, and the model's"
                    f" setting `batch` allows {self._whole_limit}",
                    param="messages",
                )
        return prompt

    def _infill(self, request: pb.GenerateRequest) -> list[int]:
        """Text with a gap, in the order that models are taught and llama.cpp's server writes: before, after, gap."""
        kind, marks = request.WhichOneof("input"), self._model.infill_tokens
        if marks is None:
            raise UnsupportedError(
                "this model was not taught to fill gaps: its vocabulary has no tokens for it", param="suffix"
            )
        if kind == "messages_json":
            raise InvalidValueError("a gap can be filled in a plain completion only", param="suffix")
        if kind == "prompt_tokens":
            before = self._model.check_tokens(request.prompt_tokens.ids, "prompt")
        else:
            before = self._model.tokenize(request.prompt, special=False)
        after = self._model.tokenize(request.suffix, special=False)
        begin = self._model.begin_token
        head = [begin] if begin is not None and before[:1] != [begin] else []
        return [*head, marks[0], *before, marks[1], *after, marks[2]]

    def chat_tokens(self, messages_json: str, offer: Offer, variables: dict[str, Any]) -> list[int]:
        """The tokens of a conversation.

        Raises:
            UnsupportedError: it has pictures or sounds, which are no tokens of the vocabulary.
        """
        spans = self._chat_spans(messages_json, offer, variables)
        if any(span.medium for span in spans):
            raise UnsupportedError("pictures and sounds cannot be shown as tokens", param="messages")
        return self._tokens_of(spans)

    def _chat_spans(self, messages_json: str, offer: Offer, variables: dict[str, Any]) -> list[Span]:
        if variables.get("reasoning_effort") == "none":
            variables.setdefault("enable_thinking", False)
        return self._template.render(read_messages(messages_json), list(offer.source) or None, variables)

    def _tokens_of(self, spans: list[Span]) -> list[int]:
        def tokenize(text: str, special: bool) -> list[int]:
            return self._model.tokenize(text, special=special)

        return tokenize_spans(spans, tokenize, self._model.begin_token)

    def text_tokens(self, text: str, *, special: bool) -> list[int]:
        """The tokens of a text, with the one that texts begin with."""
        tokens = self._model.tokenize(text, special=special)
        begin = self._model.begin_token
        return [begin, *tokens] if begin is not None and tokens[:1] != [begin] else tokens

    def _grammar(self, request: pb.GenerateRequest, offer: Offer, voice: Voice) -> str | None:
        grammar = grammar_of(request.constraint) if request.HasField("constraint") else None
        if not offer.forced:
            return voice.grammar_of_answer(grammar) if grammar is not None else None
        if request.WhichOneof("input") != "messages_json":
            raise InvalidValueError("a tool can be required in a chat only", param="tool_choice")
        if grammar is not None:
            raise InvalidValueError("a forced tool call cannot follow a response format", param="tool_choice")
        parallel = not request.HasField("parallel_tool_calls") or request.parallel_tool_calls
        return voice.grammar_of_calls(offer.forced, parallel, rules_of_schema)

    def _given(self, request: pb.GenerateRequest, count: int) -> list[list[int]]:
        given: list[list[int]] = [[] for _ in range(count)]
        for entry in request.given:
            if entry.choice >= count:
                raise InvalidValueError(
                    f"tokens given for choice {entry.choice}, which is not asked for", param="given"
                )
            given[entry.choice] = self._model.check_tokens(entry.ids, "given")
        return given

    def _echo(self, request: pb.GenerateRequest) -> str:
        if not _echoes(request):
            return ""
        if request.WhichOneof("input") == "prompt":
            return request.prompt
        return b"".join(map(self._model.piece, request.prompt_tokens.ids)).decode(errors="replace")

    def _scores(self, request: pb.GenerateRequest, prompt: list[int]) -> PromptScores | None:
        if not (_echoes(request) and request.HasField("top_logprobs")):
            return None
        if request.suffix:
            raise InvalidValueError("echo with logprobs cannot be asked for together with suffix", param="suffix")
        shown = b"".join(map(self._model.piece, prompt))
        adds_space = request.WhichOneof("input") == "prompt" and shown == b" " + request.prompt.encode(errors="replace")
        return PromptScores(prompt, self._model.piece, top=request.top_logprobs, drops_space=adds_space)


def _echoes(request: pb.GenerateRequest) -> bool:
    """The prompt is part of the answer, and was not sent yet."""
    return (
        request.echo_prompt
        and request.WhichOneof("input") != "messages_json"
        and not any(entry.ids for entry in request.given)
    )


def _of_what_was_asked(request: pb.GenerateRequest, error: InvalidGrammarError) -> RequestError:
    """A grammar of our own making that llama.cpp does not take: it was the schema that asked too much."""
    kind = request.constraint.WhichOneof("kind")
    if kind == "grammar":
        return error
    reason = "it repeats too much, or refers to itself without end"
    if kind == "regex":
        return InvalidGrammarError(f"the regular expression cannot be followed: {reason}", param="regex")
    param = "response_format" if kind else "tools"
    return InvalidSchemaError(f"the JSON schema cannot be followed: {reason}", param=param)


def _check_counts(request: pb.GenerateRequest, slots: int) -> None:
    if request.choices > slots:
        raise InvalidValueError(f"{request.choices} choices were asked for and this model has {slots} slots", param="n")
    if request.HasField("top_logprobs") and request.top_logprobs > MAX_TOP_LOGPROBS:
        raise InvalidValueError(f"top_logprobs must be at most {MAX_TOP_LOGPROBS}", param="top_logprobs")
    if len(request.stop) > MAX_STOPS:
        raise InvalidValueError(f"at most {MAX_STOPS} stop strings", param="stop")
