"""Chat templates: a conversation becomes the text the model was trained on, and then tokens.

Templates are Jinja programs out of model files, so they run in a sandbox. Control tokens (turn
borders and the like) may come from the template only: where a message, a tool or a variable
contains the text of one, a mark stands in for it while the template runs, and afterwards that
spot is tokenized as ordinary text.

    "<|im_start|>user\\nhi \\ue0007f:0\\ue001<|im_end|>"     the mark stands for what the user wrote
     special .............. plain ...... special
"""

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.sandbox

from backends.errors import InvalidValueError, UnsupportedError

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For models that bring no template."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a rendered prompt. In a plain one, no text counts as a control token."""

    text: str
    plain: bool


class ChatTemplate:
    """A compiled template. Rendering changes nothing in it, so threads may share it."""

    def __init__(self, source: str, *, begin: str, end: str, control_texts: Sequence[str]) -> None:
        """Compile.

        Raises:
            UnsupportedError: the template is not valid.
        """
        self.source = source
        self.has_tools = bool(re.search(r"\btools\b", source))
        self._knows_null = bool(re.search(r"content['\"]?\]?\s+is\s+(not\s+)?none", source, re.IGNORECASE))
        self._texts = {"bos_token": begin, "eos_token": end}
        self._control = re.compile("|".join(map(re.escape, control_texts))) if control_texts else None
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as exc:
            raise UnsupportedError(f"the model's chat template is not valid: {exc}") from exc

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[Any] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[Span]:
        """The conversation as text, in spans.

        Raises:
            InvalidValueError: the template refuses the conversation.
        """
        if not self._knows_null:
            messages = [{**message, "content": message.get("content") or ""} for message in messages]
        try:
            return self._rendered(messages, tools, variables)
        except InvalidValueError:
            # Some templates (DeepSeek's) join arguments as texts.
            as_texts = [_with_text_arguments(message) for message in messages]
            if as_texts == messages:
                raise
            return self._rendered(as_texts, tools, variables)

    def _rendered(
        self, messages: list[dict[str, Any]], tools: list[Any] | None, variables: Mapping[str, Any] | None
    ) -> list[Span]:
        marks = _Marks(self._control)
        given = marks.put({"messages": messages, "tools": tools, **(variables or {})})
        try:
            text = self._template.render({"add_generation_prompt": True, **self._texts, **given})
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError) as exc:
            raise InvalidValueError(
                f"the chat template cannot show this conversation: {exc}", param="messages"
            ) from exc
        return list(marks.spans(text))


class _Marks:
    """Marks that stand in for control texts in values from outside."""

    def __init__(self, control: "re.Pattern[str] | None") -> None:
        self._control = control
        self._nonce = secrets.token_hex(4)
        self._hidden: list[str] = []

    def put(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._control.sub(self._mark, value) if self._control else value
        if isinstance(value, Mapping):
            return {self.put(key): self.put(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.put(item) for item in value]
        return value

    def _mark(self, found: "re.Match[str]") -> str:
        self._hidden.append(found.group())
        return f"\ue000{self._nonce}:{len(self._hidden) - 1}\ue001"

    def spans(self, text: str) -> Iterator[Span]:
        parts = re.split(f"\ue000{self._nonce}:(\\d+)\ue001", text)
        for i, part in enumerate(parts):
            if i % 2:
                yield Span(self._hidden[int(part)], plain=True)
            elif part:
                yield Span(part, plain=False)


def read_messages(messages_json: str) -> list[dict[str, Any]]:
    """An OpenAI `messages` array as templates expect it: content as one text, arguments as objects.

    Raises:
        InvalidValueError: it is not such an array.
        UnsupportedError: it holds pictures or sound.
    """
    try:
        messages = json.loads(messages_json)
    except ValueError as exc:
        raise InvalidValueError(f"messages are not valid JSON: {exc}", param="messages") from exc
    if not isinstance(messages, list) or not messages:
        raise InvalidValueError("messages must be a non-empty array", param="messages")
    return [_message(message, i) for i, message in enumerate(messages)]


def _message(message: Any, index: int) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise InvalidValueError(f"messages[{index}] must be an object with a role", param="messages")
    plain = {**message, "content": _content(message.get("content"), index)}
    if isinstance(message.get("tool_calls"), list):
        plain["tool_calls"] = [_call(call) for call in message["tool_calls"]]
    return plain


def _with_text_arguments(message: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(message.get("tool_calls"), list):
        return message
    return {**message, "tool_calls": [_text_call(call) for call in message["tool_calls"]]}


def _text_call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or isinstance(function.get("arguments"), str):
        return call
    return {**call, "function": {**function, "arguments": _to_json(function.get("arguments") or {})}}


def _content(content: Any, index: int) -> str | None:
    # One text, also where a client sends parts: most templates know nothing else, and text that is
    # joined before it is searched cannot put a control token together out of two parts.
    if content is None:
        return None
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise InvalidValueError(f"messages[{index}].content must be a text or an array of parts", param="messages")
    for part in content:
        if part.get("type") not in ("text", "refusal"):
            raise UnsupportedError(f"this model cannot read content of type {part.get('type')!r}", param="messages")
    return "".join(str(part.get("text") or part.get("refusal") or "") for part in content)


def _call(call: Any) -> Any:
    """Arguments as an object: templates print them with `tojson`, and a text would be quoted twice."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    # As in the libraries that models are published for.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without Jinja's escaping for HTML, which models were not trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def tokenize_spans(
    spans: Sequence[Span], tokenize: Callable[[str, bool], list[int]], begin_token: int | None
) -> list[int]:
    """The tokens of a rendered prompt; `tokenize(text, special)` does the work."""
    tokens: list[int] = []
    for span in spans:
        tokens += tokenize(span.text, not span.plain)
    if begin_token is not None and tokens[:1] != [begin_token]:
        tokens.insert(0, begin_token)
    return tokens
