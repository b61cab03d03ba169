"""The published list of questions, and whether an answer is right.

`exam.yaml` is the list: whoever changes minnow can see in a minute what it should still be
able to do, and whoever tests an engine has answers to compare with. Nothing here runs a
model; take the questions to one and bring back what it said:

    for question in load_exam():
        text, tool_calls = ask_somehow(question.messages, question.tools)
        right = grade(question, text, tool_calls)

Questions marked `held_out` are worded in a way that training never shows.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

JsonObject = dict[str, Any]

_TOOL_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question, as a chat request would carry it, and the right answer.

    Exactly one of `exact`, `as_json` and `calls` says what is right; `also` are other ways of
    saying the same as `exact` (the bare number instead of the sum).
    """

    id: str
    category: str
    held_out: bool
    messages: tuple[JsonObject, ...]
    tools: tuple[JsonObject, ...] = ()
    exact: str | None = None
    also: tuple[str, ...] = ()
    as_json: JsonObject | None = None
    calls: tuple[JsonObject, ...] | None = None


@cache
def load_exam() -> list[Question]:
    """The whole list, in order."""
    text = (files("gallery.minnow") / "exam.yaml").read_text(encoding="utf-8")
    # The C loader where there is one: the pure one takes a second for this list.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    published = yaml.load(text, Loader=loader)
    return [_question(entry, published["tools"]) for entry in published["questions"]]


def grade(question: Question, text: str, tool_calls: Sequence[JsonObject] = ()) -> bool:
    """Whether this answer is right. `tool_calls` are as in the OpenAI API."""
    if question.calls is not None:
        return _calls_made(tool_calls) == list(question.calls)
    if tool_calls:
        return False
    if question.as_json is not None:
        return _parsed(text) == question.as_json
    return text.strip() in (question.exact, *question.also)


def split_answer(text: str) -> tuple[str, list[JsonObject]]:
    """Divide what the model wrote into text and tool calls, in the shape of the OpenAI API."""
    calls = []
    for written in _TOOL_CALL.findall(text):
        call = _parsed(written)
        if isinstance(call, dict):
            function = {
                "name": call.get("name"),
                "arguments": json.dumps(call.get("arguments"), ensure_ascii=False),
            }
            calls.append({"type": "function", "function": function})
    return _TOOL_CALL.sub("", text).strip(), calls


def _question(entry: JsonObject, tools: dict[str, JsonObject]) -> Question:
    messages = entry["messages"] if "messages" in entry else [{"role": "user", "content": entry["ask"]}]
    calls = entry.get("calls")
    return Question(
        id=entry["id"],
        category=entry["category"],
        held_out=entry.get("held_out", False),
        messages=tuple(messages),
        tools=tuple(tools[name] for name in entry.get("tools", ())),
        exact=entry.get("exact"),
        also=tuple(entry.get("also", ())),
        as_json=entry.get("json"),
        calls=None if calls is None else tuple(calls),
    )


def _calls_made(tool_calls: Sequence[JsonObject]) -> list[JsonObject]:
    made = []
    for call in tool_calls:
        function = call["function"]
        arguments = function["arguments"]
        if isinstance(arguments, str):
            arguments = _parsed(arguments)
        made.append({"name": function["name"], "arguments": arguments})
    return made


def _parsed(text: str) -> object:
    """The JSON in `text`, or `None`, which no question expects."""
    try:
        return json.loads(text)
    except ValueError:
        return None
