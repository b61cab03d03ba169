"""Tool calls whose arguments are tags around plain text: Qwen3-Coder and GLM.

    <tool_call>                                     <tool_call>weather
    <function=weather>                              <arg_key>city</arg_key>
    <parameter=city>                                <arg_value>Oslo</arg_value>
    Oslo                                            </tool_call>
    </parameter>
    </function>
    </tool_call>

A value is plain text where the tool's schema says that it is a string, and JSON otherwise.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from backends.errors import InvalidSchemaError
from backends.llama.call_grammar import Frame, RulesFor, frame_rules, joined, literal
from backends.llama.call_parser import Head, Style
from backends.llama.patterns import Gap, Matchers, Pattern
from backends.llama.regex_grammar import regex_grammar
from backends.llama.schema import FORMATS
from backends.llama.tools import Tool

OPEN, CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class Tags:
    """What stands around a parameter. `KEY` stands for its name when one is written."""

    keys: tuple[tuple[Pattern, bool | None], ...]
    """What begins a value, and whether it says that the value is a text; None: the schema says."""

    value_end: str
    over: Pattern
    written_before: str
    written_after: str
    trimmed: bool
    """One line break after the value's opening and one before its end are not part of it."""

    read: "Callable[[str], Any] | None" = None
    """Reads a value that is no text, where it may be something else than JSON. Raises ValueError."""

    @property
    def markers(self) -> tuple[str, ...]:
        """Control tokens that they may be made of."""
        written = (*(part for key, _ in self.keys for part in key), *self.over, self.value_end)
        return tuple(dict.fromkeys(part for part in written if isinstance(part, str)))


QWEN3_CODER_TAGS = Tags(
    keys=(((Gap.SPACE, "<parameter=", Gap.NAME, ">"), None),),
    value_end="</parameter>",
    over=(Gap.SPACE, "</function>"),
    written_before="<parameter=KEY>\n",
    written_after="\n</parameter>\n",
    trimmed=True,
)
GLM_TAGS = Tags(
    keys=(((Gap.SPACE, "<arg_key>", Gap.NAME, "</arg_key>", Gap.SPACE, "<arg_value>"), None),),
    value_end="</arg_value>",
    over=(Gap.SPACE, CLOSE),
    written_before="<arg_key>KEY</arg_key>\n<arg_value>",
    written_after="</arg_value>\n",
    trimmed=False,
)


class TaggedBody:
    """Turns tagged parameters into JSON, one whole parameter at a time."""

    def __init__(self, tool: Tool, tags: Tags) -> None:
        self.is_over = False
        self.rest = ""
        properties = tool.parameters.get("properties")
        self._properties = properties if isinstance(properties, dict) else {}
        self._tags = tags
        self._written = "{"
        self._key = self._end = ""
        self._is_text: bool | None = None
        self._value: str | None = None
        self._expect_key()

    def _expect_key(self) -> None:
        self._held = ""
        self._matchers = Matchers((*(key for key, _ in self._tags.keys), self._tags.over))

    def feed(self, character: str) -> str:
        """A parameter, once it is complete."""
        if self._value is not None:
            return self._in_value(character)
        self._held += character
        met = self._matchers.feed(character)
        if met and met.pattern != self._tags.over:
            self._key, self._value = met.name, ""
            self._is_text = dict(self._tags.keys)[met.pattern]
            self._end = self._tags.value_end.replace("KEY", met.name)
        elif met or self._matchers.has_failed:
            self.is_over = True
            self.rest = "" if met else self._held
            return "{}" if self._written == "{" else "}"
        return ""

    def _in_value(self, character: str) -> str:
        assert self._value is not None
        self._value += character
        if not self._value.endswith(self._end):
            return ""
        text = self._value.removesuffix(self._end)
        if self._tags.trimmed:
            text = text.removeprefix("\n").removesuffix("\n")
        written = f"{self._written}{json.dumps(self._key, ensure_ascii=False)}: {self._json(text)}"
        self._written, self._value = ", ", None
        self._expect_key()
        return written

    def _json(self, text: str) -> str:
        is_text = _is_text(self._properties.get(self._key)) if self._is_text is None else self._is_text
        if not is_text:
            try:
                return json.dumps((self._tags.read or json.loads)(text), ensure_ascii=False)
            except ValueError:
                pass  # Models write words where numbers are meant; the client sees what was written.
        return json.dumps(text, ensure_ascii=False)


def _is_text(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(values, list):
        return all(isinstance(value, str) for value in values)
    return schema.get("type") == "string"


QWEN3_CODER = Style(
    openings=(OPEN, "<function="),
    heads=(
        Head((Gap.SPACE, "<function=", Gap.NAME, ">"), ends=((Gap.SPACE, CLOSE),), keep=""),
        Head((Gap.NAME, ">"), ends=((Gap.SPACE, CLOSE),), keep=""),
    ),
    body=lambda tool: TaggedBody(tool, QWEN3_CODER_TAGS),
)
GLM = Style(
    openings=(OPEN,),
    heads=(
        Head((Gap.SPACE, Gap.NAME, Gap.SPACE, "<arg_key>"), keep="<arg_key>"),
        Head((Gap.SPACE, Gap.NAME, Gap.SPACE, CLOSE), keep=CLOSE),
    ),
    body=lambda tool: TaggedBody(tool, GLM_TAGS),
)
QWEN3_CODER_FRAME = Frame(before=f"{OPEN}\n<function=NAME>\n", after=f"</function>\n{CLOSE}")
GLM_FRAME = Frame(before=f"{OPEN}NAME\n", after=CLOSE)


def tagged_grammar(frame: Frame, tags: Tags, tools: Sequence[Tool], parallel: bool, rules_for: RulesFor) -> str:
    """The grammar of calls in tags; parameters come in the order in which the schema lists them."""
    rules, calls = [], []
    for number, tool in enumerate(tools):
        properties = tool.parameters.get("properties") or {}
        required = tool.parameters.get("required") or []
        pieces = []
        for place, (key, schema) in enumerate(properties.items()):
            prefix = f"tool{number}-{place}"
            value_rules, value = _value_rules(tool, key, schema, prefix, tags, rules_for)
            before = tags.written_before.replace("KEY", key).replace("TEXT", json.dumps(_is_text(schema)))
            after = tags.written_after.replace("KEY", key)
            rules += [value_rules, f"{prefix}-part ::= {literal(before)} {value} {literal(after)}"]
            pieces.append(f"{prefix}-part" + ("" if key in required else "?"))
        before = frame.before.replace("NAME", tool.name)
        rules.append(f"call{number} ::= {joined(literal(before), *pieces, literal(frame.after))}")
        calls.append(f"call{number}")
    return "\n".join([*filter(None, rules), *frame_rules(frame, calls, parallel)])


def _value_rules(tool: Tool, key: str, schema: Any, prefix: str, tags: Tags, rules_for: RulesFor) -> tuple[str, str]:
    if not _is_text(schema):
        definitions = {name: tool.parameters[name] for name in ("$defs", "definitions") if name in tool.parameters}
        return rules_for({**definitions, **schema} if isinstance(schema, dict) else schema, prefix)
    end = tags.value_end.replace("KEY", key)
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if values is not None:
        return "", "(" + " | ".join(map(literal, values)) + ")"
    # What JSON cannot follow is refused there, with its reason.
    rules_for(schema, prefix)
    if pattern := FORMATS.get(schema.get("format", "")):
        return "", regex_grammar(pattern)
    if "pattern" in schema:
        text = regex_grammar(schema["pattern"], whole=False)
        if any(re.match(characters, end[0]) for characters in re.findall(r"\[(?:[^\]\\]|\\.)*\]", text)):
            raise InvalidSchemaError(
                f"the JSON schema cannot be followed: schema.properties.{key}.pattern allows '{end[0]}', which ends"
                " a text where this model writes arguments between tags",
                param="tools",
            )
        return "", text
    if "minLength" in schema or "maxLength" in schema:
        return "", f"[^{_in_set(end[0])}]{{{schema.get('minLength', 0)},{schema.get('maxLength', '')}}}"
    first, second, third = list(end[:3])
    after = f"[^{_in_set(second + first)}] | {literal(second)} [^{_in_set(third + first)}]"
    return "", f"([^{_in_set(first)}] | {literal(first)}+ ({after}))*"


def _in_set(characters: str) -> str:
    return "".join("\\]" if character == "]" else character for character in dict.fromkeys(characters))
