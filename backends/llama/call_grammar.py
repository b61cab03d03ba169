"""Grammars of answers that must call a tool: the family's marks around arguments that fit the schema."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backends.llama.tools import Tool

RulesFor = Callable[[Any, str], tuple[str, str]]
"""`rules_for(schema, prefix)`: the rules of a schema, and the name of their root."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What is written around the arguments of calls. `NAME` stands for the name, `QUOTED` for it as JSON, `NUMBER`
    for any number."""

    before: str
    after: str = ""
    opening: str = ""
    between: str = "\n"
    closing: str = ""


def calls_grammar(frame: Frame, tools: Sequence[Tool], parallel: bool, rules_for: RulesFor) -> str:
    """A GBNF grammar of an answer that calls one of `tools`, or several times if `parallel`."""
    rules, names = [], []
    for number, tool in enumerate(tools):
        text, root = rules_for(parameters_of(tool), f"tool{number}")
        begun, *more = (literal(_named(part, tool.name)) for part in frame.before.split("NUMBER"))
        before = joined(begun, *(f"[0-9]{{1,3}} {part}" for part in more))
        rules += [text, f"call{number} ::= {joined(before, root, literal(frame.after))}"]
        names.append(f"call{number}")
    return "\n".join([*rules, *frame_rules(frame, names, parallel)])


def _named(text: str, name: str) -> str:
    return json.dumps(name, ensure_ascii=False).join(part.replace("NAME", name) for part in text.split("QUOTED"))


def frame_rules(frame: Frame, calls: Sequence[str], parallel: bool) -> list[str]:
    """The rules of an answer made of these calls."""
    several = f"call ({joined(literal(frame.between), 'call')})*" if parallel else "call"
    return [
        f"call ::= {' | '.join(calls)}",
        f"root ::= {joined(literal(frame.opening), several, literal(frame.closing))}",
    ]


def parameters_of(tool: Tool) -> dict[str, Any]:
    """The schema of a tool's arguments: always an object."""
    return {"type": "object", "properties": {}, **tool.parameters}


def joined(*parts: str) -> str:
    """Parts of a rule one after another; empty texts are left out."""
    return " ".join(part for part in parts if part not in ("", '""'))


def literal(text: str) -> str:
    """A text in GBNF."""
    escaped = json.dumps(text, ensure_ascii=False)
    return re.sub(r"\\(?:\\|u00([0-9a-f]{2})|[bf])", _as_gbnf, escaped)


def _as_gbnf(found: "re.Match[str]") -> str:
    """An escape of JSON as GBNF knows it."""
    if found.group(1):
        return f"\\x{found.group(1)}"
    return {"\\b": "\\x08", "\\f": "\\x0c"}.get(found.group(), found.group())
