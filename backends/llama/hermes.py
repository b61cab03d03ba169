"""Tool calls as Hermes and Qwen models write them.

    Let me look.
    <tool_call>
    {"name": "weather", "arguments": {"city": "Oslo"}}
    </tool_call>

Once the opening, the name of an offered tool and the start of an object have been read, it is a
call, and the arguments stream. Before that, whatever turns out otherwise is text: the name of a
tool nobody offered, prose about `<tool_call>`, broken JSON. White space around calls is nothing.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from backends.llama.tools import CallArguments, CallBegun, Part, Text, Tool

OPEN, CLOSE = "<tool_call>", "</tool_call>"

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')
_TAIL = re.compile(rf"\s*\}}\s*{re.escape(CLOSE)}")


class HermesParser:
    """Reads one answer. What comes out does not depend on how the text was cut into pieces."""

    def __init__(self, names: Iterable[str]) -> None:
        self.calls = 0
        self._names = frozenset(names)
        self._held = ""
        self._reader = self._read_text
        self._object = _ObjectEnd()

    def feed(self, text: str) -> list[Part]:
        """What is certain now."""
        self._held += text
        parts: list[Part] = []
        while self._reader(parts):
            pass
        return parts

    def flush(self) -> list[Part]:
        """The answer is over."""
        parts: list[Part] = []
        held, self._held = self._held, ""
        if self._reader == self._read_call:
            if not self._whole_call(held[len(OPEN) :], parts):
                parts.append(Text(held))
        elif self._reader == self._read_text:
            self._say(held, parts)
        return parts

    # Each reader takes what it can from the front of what is held, and says whether to go on.

    def _read_text(self, parts: list[Part]) -> bool:
        at = self._held.find(OPEN)
        if at >= 0:
            before, self._held = self._held[:at].rstrip(), self._held[at:]
            self._say(before, parts)
            self._reader = self._read_call
            return True
        keep = _undecided(self._held)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        self._say(shown, parts)
        return False

    def _say(self, text: str, parts: list[Part]) -> None:
        if text and not (text.isspace() and self.calls):
            parts.append(Text(text))

    def _read_call(self, parts: list[Part]) -> bool:
        inside = self._held[len(OPEN) :]
        head = _HEAD.match(inside)
        if head and json.loads(head.group(1), strict=False) in self._names:
            parts.append(CallBegun(self.calls, json.loads(head.group(1), strict=False)))
            self.calls += 1
            self._held = inside[head.end() :]
            self._object = _ObjectEnd()
            self._reader = self._read_arguments
            return True
        end = inside.find(CLOSE)
        if end < 0 and not _cannot_be_call(inside):
            return False
        body = inside[: max(0, end)]
        if end >= 0 and self._whole_call(body, parts):
            self._held = inside[end + len(CLOSE) :]
        else:
            # Not a call. Only the opening is known to be text; another one may follow in it.
            parts.append(Text(OPEN))
            self._held = inside
        self._reader = self._read_text
        return True

    def _read_arguments(self, parts: list[Part]) -> bool:
        size = self._object.scan(self._held)
        if size:
            parts.append(CallArguments(self.calls - 1, self._held[:size]))
            self._held = self._held[size:]
        if not self._object.is_over:
            return False
        self._reader = self._read_tail
        return True

    def _read_tail(self, parts: list[Part]) -> bool:
        tail = _TAIL.match(self._held)
        if tail:
            self._held = self._held[tail.end() :]
        elif _may_become_tail(self._held):
            return False
        # Otherwise the end is malformed, and what follows is text: the call itself was complete.
        self._reader = self._read_text
        return True

    def _whole_call(self, body: str, parts: list[Part]) -> bool:
        """A call whose JSON is complete but not in the usual order."""
        try:
            call = json.loads(body, strict=False)
        except ValueError:
            return False
        if not isinstance(call, dict) or call.get("name") not in self._names:
            return False
        arguments = call.get("arguments", call.get("parameters", {}))
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        parts += [CallBegun(self.calls, call["name"]), CallArguments(self.calls, text)]
        self.calls += 1
        return True


class _ObjectEnd:
    """Finds where a JSON object ends, in pieces: brackets outside of strings are counted."""

    def __init__(self) -> None:
        self.is_over = False
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def scan(self, text: str) -> int:
        """How much of `text` belongs to the object."""
        for at, character in enumerate(text):
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
                if not self._depth:
                    self.is_over = True
                    return at + 1
        return len(text)


def _undecided(text: str) -> int:
    """How much at the end may be white space before a call, or the start of one."""
    for size in range(min(len(OPEN) - 1, len(text)), -1, -1):
        if text.endswith(OPEN[:size]):
            head = text[: len(text) - size]
            return size + len(head) - len(head.rstrip())
    return 0


def _cannot_be_call(inside: str) -> bool:
    """After the opening comes something else than the start of an object."""
    begun = inside.lstrip()
    return bool(begun) and not begun.startswith("{")


def _may_become_tail(text: str) -> bool:
    squeezed = "".join(text.split())
    wanted = "}" + CLOSE
    return len(squeezed) < len(wanted) and wanted.startswith(squeezed)


def calls_grammar(tools: Sequence[Tool], parallel: bool, rules_for: Callable[[Any, str], tuple[str, str]]) -> str:
    """A GBNF grammar of an answer that calls one of `tools`, or several times if `parallel`.

    `rules_for(schema, prefix)` gives the rules of a schema and the name of their root.
    """
    rules, names = [], []
    for number, tool in enumerate(tools):
        text, root = rules_for({"type": "object", "properties": {}, **tool.parameters}, f"tool{number}")
        name = json.dumps(json.dumps(tool.name, ensure_ascii=False), ensure_ascii=False)
        rules += [text, f'call{number} ::= "{{\\"name\\": " {name} ", \\"arguments\\": " {root} "}}"']
        names.append(f"call{number}")
    rules.append(f'call ::= "{OPEN}\\n" ({" | ".join(names)}) "\\n{CLOSE}"')
    rules.append('root ::= call ("\\n" call)*' if parallel else "root ::= call")
    return "\n".join(rules)
