"""The ways to write tool calls, by name, and which one a model's chat template speaks of."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from backends.llama import deepseek, gemma, gemma4, harmony, hermes, json_calls, mistral, tagged_calls
from backends.llama.call_grammar import Frame, RulesFor, calls_grammar
from backends.llama.call_parser import CallParser, Style
from backends.llama.tools import Tool


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """One way."""

    style: Style | None
    """None: whoever tells the sections apart finds the calls, too."""

    grammar: Callable[[Sequence[Tool], bool, RulesFor], str]
    """Of an answer that must call one of the tools."""

    markers: tuple[str, ...] = ()
    """Control tokens that calls are made of: the parser must see them as text."""

    def parser(self, tools: Collection[Tool]) -> CallParser | None:
        """For one answer."""
        return CallParser(self.style, tools) if self.style and tools else None


def _framed(style: Style, frame: Frame, *markers: str) -> ToolFormat:
    return ToolFormat(style, partial(calls_grammar, frame), markers)


def _tagged(style: Style, frame: Frame, tags: tagged_calls.Tags) -> ToolFormat:
    grammar = partial(tagged_calls.tagged_grammar, frame, tags)
    markers = ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
    return ToolFormat(style, grammar, markers)


_MISTRAL = (mistral.OPEN, mistral.ARGUMENTS, mistral.CALL_ID)
_DEEPSEEK = (deepseek.CALLS, deepseek.CALLS_END, deepseek.CALL, deepseek.SEPARATOR, deepseek.CALL_END)

FORMATS: dict[str, ToolFormat] = {
    "hermes": _framed(hermes.STYLE, hermes.FRAME, hermes.OPEN, hermes.CLOSE),
    "llama3": _framed(json_calls.LLAMA3, json_calls.LLAMA3_FRAME, json_calls.PYTHON_TAG),
    "mistral": _framed(mistral.STYLE, mistral.ARRAY_FRAME, *_MISTRAL),
    "mistral_args": _framed(mistral.STYLE, mistral.ARGUMENTS_FRAME, *_MISTRAL),
    "qwen3_coder": _tagged(tagged_calls.QWEN3_CODER, tagged_calls.QWEN3_CODER_FRAME, tagged_calls.QWEN3_CODER_TAGS),
    "glm": _tagged(tagged_calls.GLM, tagged_calls.GLM_FRAME, tagged_calls.GLM_TAGS),
    "deepseek": _framed(deepseek.STYLE, deepseek.FENCED_FRAME, *_DEEPSEEK),
    "deepseek_v31": _framed(deepseek.STYLE, deepseek.FRAME, *_DEEPSEEK),
    "harmony": ToolFormat(None, harmony.harmony_grammar, harmony.MARKERS),
    "gemma4": _framed(gemma4.STYLE, gemma4.FRAME, gemma4.OPEN, gemma4.CLOSE, gemma4.QUOTE),
    "gemma": _framed(gemma.STYLE, gemma.FRAME),
    "json": _framed(json_calls.GENERIC, json_calls.GENERIC_FRAME),
}


def tool_format_of(template: str) -> str:
    """The name of the format that a chat template shows the model."""
    signs = (
        ("harmony", harmony.CHANNEL),
        ("qwen3_coder", "<function="),
        ("glm", "<arg_key>"),
        ("mistral_args", mistral.ARGUMENTS),
        ("mistral", mistral.OPEN),
        ("hermes", hermes.OPEN),
        ("llama3", "<|start_header_id|>"),
        ("gemma4", gemma4.OPEN),
        ("gemma", "<start_of_turn>"),
    )
    if deepseek.CALL in template:
        return "deepseek" if deepseek.FENCE in template else "deepseek_v31"
    return next((name for name, sign in signs if sign in template), "json")
