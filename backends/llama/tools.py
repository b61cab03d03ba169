"""Tools: what a request offers and demands, and what a parser of a model's answer gives.

How a model writes a call differs by family; `tool_formats.py` lists the ways.
"""

import json
from dataclasses import dataclass
from typing import Any

from backends.errors import InvalidValueError


@dataclass(frozen=True, slots=True)
class Text:
    """Part of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """Part of the model's thinking."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A call of the tool `name`; its arguments follow."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A piece of the arguments' JSON text."""

    index: int
    text: str


Part = Text | Thought | CallBegun | CallArguments


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call."""

    name: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Offer:
    """What a request says about tools."""

    tools: tuple[Tool, ...]
    source: tuple[Any, ...]
    """As the client sent them, for the template."""

    forced: tuple[Tool, ...] = ()
    """The answer must call one of these."""

    @property
    def names(self) -> frozenset[str]:
        """The tools' names."""
        return frozenset(tool.name for tool in self.tools)


NO_TOOLS = Offer((), ())


def read_offer(tools_json: str, choice_json: str) -> Offer:
    """The tools a request offers; none when its tool choice is "none".

    Raises:
        InvalidValueError: tools or choice are malformed, or the choice names no tool of these.
    """
    source = _json(tools_json, "tools") or []
    choice = _json(choice_json, "tool_choice")
    if not isinstance(source, list):
        raise InvalidValueError("tools must be an array", param="tools")
    tools = tuple(_tool(entry, i) for i, entry in enumerate(source))
    if choice == "none" or (not tools and choice in (None, "auto")):
        return NO_TOOLS
    return Offer(tools, tuple(source), _forced(tools, choice))


def _forced(tools: tuple[Tool, ...], choice: Any) -> tuple[Tool, ...]:
    if choice is None or choice == "auto":
        return ()
    if choice == "required":
        if not tools:
            raise InvalidValueError('tool_choice is "required", but there are no tools', param="tool_choice")
        return tools
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    named = tuple(tool for tool in tools if tool.name == name)
    if not named:
        raise InvalidValueError(
            f'tool_choice must be "none", "auto", "required" or name one of the tools, not {choice!r}',
            param="tool_choice",
        )
    return named


def _tool(entry: Any, index: int) -> Tool:
    function = entry.get("function") if isinstance(entry, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise InvalidValueError(f"tools[{index}] needs a function with a name", param="tools")
    parameters = {} if function.get("parameters") is None else function["parameters"]
    if not isinstance(parameters, dict):
        raise InvalidValueError(f"tools[{index}].function.parameters must be an object", param="tools")
    return Tool(function["name"], parameters)


def _json(text: str, param: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError as exc:
        raise InvalidValueError(f"{param} is not valid JSON: {exc}", param=param) from exc
