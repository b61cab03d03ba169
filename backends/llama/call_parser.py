"""Reads tool calls out of an answer, whatever the family's way of writing them.

    Let me look.  <tool_call>  {"name": "weather", "arguments":   {"city": "Oslo"}   }</tool_call>
        text        opening                 head                     body               end

A `Style` says how opening, head and end are written and what reads the body; each family has a file
with its own. The rules:

1. It is a call from the head on: the opening alone, prose about it, or a name that nobody offered
   are text. From then on the arguments stream.
2. A call written in an unusual order is collected whole and read then (`Whole`).
3. White space around calls is nothing.
4. The text is read one character at a time, so where it was cut into pieces makes no difference.
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from backends.llama.patterns import Matchers, Pattern
from backends.llama.tools import CallArguments, CallBegun, Part, Text, Tool

MAX_HEAD = 1024
"""Characters after which what may become a call is taken for text."""


class Body(Protocol):
    """Reads the arguments of one call."""

    def feed(self, character: str) -> str:
        """What it adds to the arguments' JSON text."""
        ...

    @property
    def is_over(self) -> bool:
        """The arguments are complete."""
        ...

    @property
    def rest(self) -> str:
        """Once over: characters fed that did not belong to it."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """From the opening to the arguments."""

    pattern: Pattern
    ends: tuple[Pattern, ...] = ()
    """What follows the arguments; then comes text. Without any, the arguments end the call."""

    more: tuple[Pattern, ...] = ()
    """What follows the arguments when another head comes next."""

    keep: str = "{"
    """The end of the pattern that belongs to the body already."""


Calls = Sequence[tuple[str, str]]
"""Names, and arguments as JSON text."""


@dataclass(frozen=True, slots=True)
class Whole:
    """What is collected and read at once."""

    pattern: Pattern
    read: Callable[[str], Calls | None]
    until: str = ""
    """The text that ends it; none: the bracket that closes its first one."""

    end: tuple[Pattern, ...] = ()


@dataclass(frozen=True, slots=True)
class Style:
    """How a family writes calls."""

    openings: tuple[str, ...]
    heads: tuple[Head, ...]
    wholes: tuple[Whole, ...] = ()
    next_heads: tuple[Head, ...] = ()
    """After `more`; none: the same heads."""

    closings: tuple[Pattern, ...] = ()
    """What may come after `more` instead of a head."""

    bare: bool = False
    """The answer may begin with a head, and so may what follows a call."""

    separators: str = ""
    """Between bare calls, beside white space."""

    body: "Callable[[Tool], Body]" = lambda _: JsonBody()


class CallParser:
    """Reads one answer."""

    def __init__(self, style: Style, tools: Collection[Tool]) -> None:
        self.calls = 0
        self._style = style
        self._tools = {tool.name: tool for tool in tools}
        self._parts: list[Part] = []
        self._held = ""
        self._body: Body = JsonBody()
        self._head: Head | None = None
        self._after_call = False
        self._first = {opening[0] for opening in style.openings}
        self._expect_text()
        if style.bare:
            self._expect_head("", style.heads)

    def feed(self, text: str) -> list[Part]:
        """What is certain now."""
        self._read(text)
        return self._take()

    def flush(self) -> list[Part]:
        """The answer is over: what was held back is text."""
        while self._held:
            if self._state == self._in_end or (self._after_call and not self._closing_matchers.has_failed):
                self._held = ""  # An end that was cut off.
            elif self._state == self._in_text:
                self._say(self._held)
                self._held = ""
            else:
                self._refuse()
        return self._take()

    def _take(self) -> list[Part]:
        parts, self._parts = self._parts, []
        return parts

    def _read(self, text: str) -> None:
        at = 0
        while at < len(text):
            if self._state == self._in_text and not self._held:
                begun = at
                while at < len(text) and not (text[at].isspace() or text[at] in self._first):
                    at += 1
                if at > begun:
                    self._say(text[begun:at])
                    continue
            self._state(text[at])
            at += 1

    def _say(self, text: str) -> None:
        if not text or (text.isspace() and self.calls):
            return
        if self._parts and isinstance(self._parts[-1], Text):
            text = self._parts.pop().text + text  # type: ignore[union-attr]
        self._parts.append(Text(text))

    # ------------------------------------------------------------ text

    def _expect_text(self) -> None:
        self._state: Callable[[str], None] = self._in_text
        self._held = ""
        self._after_call = False

    def _in_text(self, character: str) -> None:
        self._held += character
        begun = self._held.lstrip()
        for opening in self._style.openings:
            if begun == opening:
                self._expect_head(self._held, self._style.heads)
                return
        if begun and not any(opening.startswith(begun) for opening in self._style.openings):
            self._release()

    def _release(self) -> None:
        """The front of what is held is no opening; the rest may be."""
        space = len(self._held) - len(self._held.lstrip())
        shown, rest = self._held[: space + 1], self._held[space + 1 :]
        self._held = ""
        self._say(shown)
        self._read(rest)

    # ------------------------------------------------------------ head

    def _expect_head(self, opening: str, heads: tuple[Head, ...], after_call: bool = False) -> None:
        style = self._style
        self._state = self._in_head
        self._held = self._opening = opening
        self._heads = {head.pattern: head for head in heads}
        self._after_call = after_call
        self._head_matchers = Matchers(list(self._heads), self._tools)
        # A text that ends them comes from the opening's fence.
        self._wholes = {whole.pattern: whole for whole in style.wholes if opening or not whole.until}
        self._whole_matchers = Matchers(list(self._wholes), self._tools)
        self._closing_matchers = Matchers(style.closings if after_call else ())
        self._whole: Whole | None = None
        self._extent = JsonBody()
        self._collected = ""

    def _in_head(self, character: str) -> None:
        if self._skips(character):
            return
        self._held += character
        met = self._head_matchers.feed(character)
        whole = self._whole_matchers.feed(character) if self._whole is None else None
        if whole:
            self._whole = self._wholes[whole.pattern]
        if self._closing_matchers.feed(character):
            self._expect_text()
        elif met:
            self._begin_call(self._heads[met.pattern], met.name)
        elif self._head_matchers.has_failed and self._whole:
            collected, self._held = self._held[len(self._opening) :], self._opening
            self._state = self._in_whole
            self._read(collected)
        elif len(self._held) > MAX_HEAD or (
            self._head_matchers.has_failed and self._whole_matchers.has_failed and self._closing_matchers.has_failed
        ):
            self._refuse()

    def _skips(self, character: str) -> bool:
        """White space before a bare call, and what separates it from the last."""
        separator = self.calls and character in self._style.separators
        return self._style.bare and self._held == self._opening == "" and bool(separator)

    def _refuse(self) -> None:
        """Not a call. Only the opening is known to be text; another one may follow in it."""
        opening, rest = self._opening, self._held[len(self._opening) :]
        self._expect_text()
        self._say(opening)
        self._read(rest)

    def _in_whole(self, character: str) -> None:
        self._held += character
        self._collected += character
        whole = self._whole
        assert whole is not None
        if whole.until:
            is_over = self._collected.endswith(whole.until)
        else:
            self._extent.feed(character)
            is_over = self._extent.is_over
        if not is_over:
            return
        calls = whole.read(self._collected.removesuffix(whole.until) if whole.until else self._collected)
        if not calls or any(name not in self._tools for name, _ in calls):
            self._refuse()
            return
        for name, arguments in calls:
            self._parts += [CallBegun(self.calls, name), CallArguments(self.calls, arguments)]
            self.calls += 1
        self._expect_end(whole.end, ())

    # ------------------------------------------------------------ body and end

    def _begin_call(self, head: Head, name: str) -> None:
        self._parts.append(CallBegun(self.calls, name))
        self.calls += 1
        self._head = head
        self._held = ""
        self._body = self._style.body(self._tools[name])
        self._state = self._in_body
        self._read(head.keep)

    def _in_body(self, character: str) -> None:
        piece = self._body.feed(character)
        if piece:
            last = self._parts[-1] if self._parts else None
            if isinstance(last, CallArguments) and last.index == self.calls - 1:
                self._parts[-1] = CallArguments(last.index, last.text + piece)
            else:
                self._parts.append(CallArguments(self.calls - 1, piece))
        if self._body.is_over:
            assert self._head is not None
            self._expect_end(self._head.ends, self._head.more)
            self._read(self._body.rest)

    def _expect_end(self, ends: tuple[Pattern, ...], more: tuple[Pattern, ...]) -> None:
        self._held = ""
        if not ends and not more:
            self._end_call()
            return
        self._state = self._in_end
        self._ends, self._more = Matchers(ends), Matchers(more)

    def _in_end(self, character: str) -> None:
        self._held += character
        more, end = self._more.feed(character), self._ends.feed(character)
        if more:
            self._expect_head("", self._style.next_heads or self._style.heads, after_call=True)
        elif end:
            self._end_call()
        elif self._more.has_failed and self._ends.has_failed:
            # The end is malformed, and what follows is text: the call itself was complete.
            held = self._held
            self._end_call()
            self._read(held)

    def _end_call(self) -> None:
        if self._style.bare:
            self._expect_head("", self._style.heads, after_call=True)
        else:
            self._expect_text()


class JsonBody:
    """A JSON object (or array), up to the bracket that closes its first one."""

    rest = ""

    def __init__(self) -> None:
        self.is_over = False
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, character: str) -> str:
        """The character itself: it is JSON already."""
        if self._escaped:
            self._escaped = False
        elif self._in_string:
            self._escaped = character == "\\"
            self._in_string = character != '"'
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self.is_over = not self._depth
        return character


def read_json_calls(text: str) -> Calls | None:
    """The calls in JSON: one object or several in an array, in any of the usual shapes; None if it is none."""
    try:
        value = json.loads(text, strict=False)
    except ValueError:
        return None
    calls = [_call(entry) for entry in (value if isinstance(value, list) else [value])]
    return [call for call in calls if call] if all(calls) else None


def _call(entry: Any) -> tuple[str, str] | None:
    if not isinstance(entry, dict):
        return None
    entry = entry["function"] if isinstance(entry.get("function"), dict) else entry
    name = entry.get("name")
    arguments = entry.get("arguments", entry.get("parameters", {}))
    if not isinstance(name, str):
        return None
    return name, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
