"""From a conversation to the text the model reads.

`chat_template.jinja` travels inside the GGUF, so what is rendered here for training is what
every engine renders when serving. Two kinds of engine exist: those that print a tool's JSON
in the order the client sent it, and those that keep Jinja's own `tojson`, which sorts keys
and escapes HTML. `render` can do either, and training uses both.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = dict[str, Any]
Tool = dict[str, Any]


def template_source() -> str:
    """The template as it is written into the GGUF."""
    return (files("gallery.minnow") / "chat_template.jinja").read_text(encoding="utf-8")


def render(
    messages: Sequence[Message],
    tools: Sequence[Tool] = (),
    *,
    add_generation_prompt: bool = False,
    sort_keys: bool = False,
) -> str:
    """The whole conversation as text; `sort_keys` is the way of Jinja's own `tojson`."""
    return _compiled(sort_keys).render(
        messages=list(messages),
        tools=list(tools) or None,
        add_generation_prompt=add_generation_prompt,
    )


@cache
def _compiled(sort_keys: bool) -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    if not sort_keys:
        environment.filters["tojson"] = _plain_json
    return environment.from_string(template_source())


def _plain_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
