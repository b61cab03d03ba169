"""From sampled tokens to the events of one choice: characters, thinking, stop strings, tool calls.

    token -> bytes -> whole characters -> sections -> stop strings -> tool calls -> events

Stop strings and tool calls are looked for in the answer, not in the thinking before it.

What has come out depends only on the tokens fed so far. So an answer can be continued elsewhere:
feed the tokens that were given already, drop the events, go on.
"""

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from backends.llama.call_parser import CallParser
from backends.llama.detokenizer import Detokenizer
from backends.llama.thinking import Sections
from backends.llama.tools import CallArguments, CallBegun, Part, Text, Thought
from backends.rpc import backend_pb2 as pb
from backends.stop import StopFilter


class Answer:
    """One choice: feed tokens until `reason` is set."""

    def __init__(
        self,
        choice: int,
        piece: Callable[[int], bytes],
        end_tokens: frozenset[int],
        *,
        limit: int,
        stops: Sequence[str] = (),
        sections: Sections | None = None,
        parser: CallParser | None = None,
        call_id: Callable[[], str] = lambda: f"call_{uuid.uuid4().hex[:24]}",
    ) -> None:
        self.choice = choice
        self.reason = "" if limit > 0 else "length"
        self.tokens = 0
        """Tokens of the answer so far; the one that ended it does not count."""
        self.reasoning_tokens = 0
        """Of these, thinking."""
        self._piece = piece
        self._end_tokens = end_tokens
        self._limit = limit
        self._text = Detokenizer()
        self._stop = StopFilter(stops)
        self._sections = sections
        self._parser = parser
        self._call_id = call_id
        self._unreported: list[int] = []
        self._logprobs: list[pb.TokenLogprob] = []

    @property
    def left(self) -> int:
        """Tokens it may still have."""
        return self._limit - self.tokens

    def feed(self, token: int, logprob: pb.TokenLogprob | None = None) -> list[pb.GenerateEvent]:
        """The events that follow from the next token."""
        if token in self._end_tokens:
            return self.finish("stop")
        self.tokens += 1
        if self._sections is not None and self._sections.is_thinking:
            self.reasoning_tokens += 1
        self._unreported.append(token)
        if logprob is not None:
            self._logprobs.append(logprob)
        events = self._events(self._show(self._text.feed(self._piece(token))))
        if self._stop.stopped:
            return events + self.finish("stop")
        if self.tokens >= self._limit:
            return events + self.finish("length")
        return events

    def replay(self, token: int) -> None:
        """A token that was given already: its events were sent by whoever gave it."""
        if not self.reason:
            self.feed(token)
            self._unreported = []

    def finish(self, reason: str) -> list[pb.GenerateEvent]:
        """The answer is over: what was held back, and why it ended."""
        parts = self._show(self._text.flush())
        if self._sections is not None:
            parts += self._past_stop(self._sections.flush())
        if not self._stop.stopped:
            parts += self._parse(self._stop.flush())
        if self._parser is not None:
            parts += self._parser.flush()
        if reason == "stop" and any(reader and reader.calls for reader in (self._sections, self._parser)):
            reason = "tool_calls"
        self.reason = reason
        events = self._events(parts)
        if self._logprobs:  # Of tokens whose text is not shown; they belong to a text all the same.
            events.append(self._event(text=pb.TextDelta(**self._accounted())))
        finished = pb.Finished(reason=reason, token_ids=self._unreported)
        self._unreported = []
        return [*events, self._event(finished=finished)]

    def _show(self, text: str) -> list[Part]:
        if self._sections is not None:
            return self._past_stop(self._sections.feed(text))
        return self._past_stop([Text(text)])

    def _past_stop(self, parts: Iterable[Part]) -> list[Part]:
        past: list[Part] = []
        for part in parts:
            if self._stop.stopped:
                break
            past += self._parse(self._stop.feed(part.text)) if isinstance(part, Text) else [part]
        return past

    def _parse(self, text: str) -> list[Part]:
        if self._parser is not None:
            return self._parser.feed(text)
        return [Text(text)] if text else []

    def _events(self, parts: Iterable[Part]) -> list[pb.GenerateEvent]:
        return [self._shown(part) for part in parts]

    def _shown(self, part: Part) -> pb.GenerateEvent:
        match part:
            case Text(text):
                return self._event(text=pb.TextDelta(text=text, **self._accounted()))
            case Thought(text):
                return self._event(reasoning=pb.TextDelta(text=text, **self._accounted()))
            case CallBegun(index, name):
                call = pb.ToolCallDelta(index=index, id=self._call_id(), name=name, token_ids=self._unreported)
            case CallArguments(index, text):
                call = pb.ToolCallDelta(index=index, arguments=text, token_ids=self._unreported)
        self._unreported = []
        return self._event(tool_call=call)

    def _accounted(self) -> dict[str, Any]:
        account: dict[str, Any] = {"token_ids": self._unreported, "logprobs": self._logprobs}
        self._unreported, self._logprobs = [], []
        return account

    def _event(self, **event: Any) -> pb.GenerateEvent:
        return pb.GenerateEvent(choice=self.choice, **event)
