"""The harmony format of gpt-oss: an answer in messages, each on a channel.

    <|channel|>analysis<|message|>Oslo it is.<|end|>
    <|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Oslo"}<|call|>
    <|start|>assistant<|channel|>final<|message|>It rains.<|return|>

The analysis channel is thinking, a message to a function is a call, the rest is text. What does not
begin like a message is text as it is.
"""

import re
from collections.abc import Collection, Sequence

from backends.llama.call_grammar import RulesFor, literal, parameters_of
from backends.llama.tools import CallArguments, CallBegun, Part, Text, Thought, Tool

START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
CALL, RETURN, CONSTRAIN = "<|call|>", "<|return|>", "<|constrain|>"
MARKERS = (START, CHANNEL, MESSAGE, END, CALL, RETURN, CONSTRAIN)

MAX_HEADER = 512
"""Characters before a message's text; more is no header."""

_ENDS = (END, CALL, RETURN, START)
_BEGINNINGS = (START, CHANNEL, MESSAGE, "to=", "assistant")
_CHANNEL = re.compile(rf"{re.escape(CHANNEL)}\s*(\w+)")
_RECIPIENT = re.compile(r"to=functions\.([\w.-]+)")


class HarmonyReader:
    """Reads one answer, one character at a time."""

    def __init__(self, tools: Collection[Tool], *, show_thoughts: bool = False) -> None:
        self.calls = 0
        self._names = frozenset(tool.name for tool in tools)
        self._show_thoughts = show_thoughts
        self._held = ""
        self._in_header = True
        self._kind = "text"
        self._parts: list[Part] = []

    @property
    def is_thinking(self) -> bool:
        """It is in a message of the analysis channel."""
        return self._kind == "thought" and not self._in_header

    def feed(self, text: str) -> list[Part]:
        """What is certain now."""
        for character in text:
            self._held += character
            if self._in_header:
                self._read_header()
            else:
                self._read_body()
        return self._take()

    def flush(self) -> list[Part]:
        """The answer is over."""
        begun = self._held.lstrip()
        if not self._in_header or not begun.startswith("<|"):
            self._show(self._held)
        self._held = ""
        return self._take()

    def _take(self) -> list[Part]:
        parts, self._parts = self._parts, []
        return parts

    def _read_header(self) -> None:
        begun = self._held.lstrip()
        if self._held.endswith(MESSAGE):
            self._begin(self._held)
        elif len(begun) > MAX_HEADER or not any(begun.startswith(way) or way.startswith(begun) for way in _BEGINNINGS):
            self._kind, self._in_header = "text", False
            self._read_body()

    def _begin(self, header: str) -> None:
        self._held, self._in_header = "", False
        channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
        self._kind = "text"
        if recipient and recipient.group(1) in self._names:
            self._kind = "call"
            self._parts.append(CallBegun(self.calls, recipient.group(1)))
            self.calls += 1
        elif channel and channel.group(1) == "analysis" and not self._show_thoughts:
            self._kind = "thought"

    def _read_body(self) -> None:
        if "<" not in self._held:
            self._show(self._held)
            self._held = ""
            return
        for end in _ENDS:
            if self._held.endswith(end):
                self._show(self._held.removesuffix(end))
                self._held, self._in_header = (START if end == START else ""), True
                return
        keep = next(
            size
            for size in range(min(len(self._held), len(START) + 1), -1, -1)
            if any(end.startswith(self._held[len(self._held) - size :]) for end in _ENDS)
        )
        self._show(self._held[: len(self._held) - keep])
        self._held = self._held[len(self._held) - keep :]

    def _show(self, text: str) -> None:
        if not text:
            return
        last = self._parts[-1] if self._parts else None
        match self._kind:
            case "thought":
                before = last.text if isinstance(last, Thought) else None
                part: Part = Thought((before or "") + text)
            case "call":
                before = last.text if isinstance(last, CallArguments) else None
                part = CallArguments(self.calls - 1, (before or "") + text)
            case _:
                before = last.text if isinstance(last, Text) else None
                part = Text((before or "") + text)
        if before is not None:
            self._parts.pop()
        self._parts.append(part)


_ANALYSIS = (
    f'analysis ::= {literal(CHANNEL + "analysis" + MESSAGE)} ([^<] | "<"+ [^|<])* {literal(END + START + "assistant")}'
)


def harmony_grammar(tools: Sequence[Tool], parallel: bool, rules_for: RulesFor) -> str:
    """The grammar of an answer that must call one of the tools; this format calls one at a time."""
    rules, calls = [_ANALYSIS], []
    for number, tool in enumerate(tools):
        text, root = rules_for(parameters_of(tool), f"tool{number}")
        header = f"{CHANNEL}commentary to=functions.{tool.name} {CONSTRAIN}json{MESSAGE}"
        rules += [text, f"call{number} ::= {literal(header)} {root}"]
        calls.append(f"call{number}")
    return "\n".join([*rules, f"root ::= analysis? ({' | '.join(calls)})"])


def grammar_before(root: str) -> str:
    """The rules of an answer whose final message is `root`."""
    return f"{_ANALYSIS}\nroot ::= analysis? {literal(CHANNEL + 'final' + MESSAGE)} {root}"
