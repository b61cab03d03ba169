"""How a model marks what is thinking, what is a call and what is the answer.

A `Dialect` is known when the model is loaded; a `Voice` is the part of it that one request needs:
which tools there are, and whether its prompt ends inside a thinking section.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backends.llama import harmony
from backends.llama.call_grammar import RulesFor
from backends.llama.call_parser import CallParser
from backends.llama.constraints import prefixed
from backends.llama.thinking import Sections, Tags, ThinkReader, tags_of
from backends.llama.tool_formats import FORMATS, ToolFormat, tool_format_of
from backends.llama.tools import NO_TOOLS, Offer, Tool


@dataclass(frozen=True, slots=True)
class Dialect:
    """Of a model."""

    tool_format: ToolFormat
    tags: Tags | None
    """Of thinking; None where there is none, or it is not to be told apart."""

    has_channels: bool = False
    """The harmony format."""

    shows_thoughts: bool = False
    """Thinking is part of the text."""

    def voice(self, prompt_end: str, offer: Offer, *, thinks: bool = True) -> "Voice":
        """For a chat whose rendered prompt ends like this; without `thinks`, it was told not to."""
        return Voice(self, offer, thinks=thinks, opened=bool(self.tags and self.tags.are_open_after(prompt_end)))


def dialect_of(template: str, tool_format: str | None, *, separate: bool) -> Dialect:
    """What a chat template, or the setting, says; `separate` thinking from the answer."""
    name = tool_format or tool_format_of(template)
    if name == "harmony":
        return Dialect(FORMATS[name], None, has_channels=True, shows_thoughts=not separate)
    return Dialect(FORMATS[name], tags_of(template) if separate else None)


@dataclass(frozen=True, slots=True)
class Voice:
    """Of one request."""

    dialect: Dialect | None
    offer: Offer = NO_TOOLS
    thinks: bool = True
    opened: bool = False

    @property
    def markers(self) -> Sequence[str]:
        """Control tokens that must be read as text."""
        if self.dialect is None:
            return ()
        tags = self.dialect.tags
        calls = self.dialect.tool_format.markers if self.offer.tools or self.dialect.has_channels else ()
        return (*calls, *(tags.markers if tags else ()))

    def sections(self) -> Sections | None:
        """For one choice."""
        if self.dialect is None:
            return None
        if self.dialect.has_channels:
            return harmony.HarmonyReader(self.offer.tools, show_thoughts=self.dialect.shows_thoughts)
        return ThinkReader(self.dialect.tags, self.opened) if self.dialect.tags else None

    def parser(self) -> CallParser | None:
        """For one choice."""
        return self.dialect.tool_format.parser(self.offer.tools) if self.dialect else None

    def grammar_of_answer(self, grammar: str) -> str:
        """The grammar of everything the model writes, where its answer must follow `grammar`."""
        if self.dialect is None or not (self.dialect.has_channels or self.dialect.tags):
            return grammar
        if self.dialect.tags and not (self.thinks or self.opened):
            return grammar
        rules, root = prefixed(grammar, "answer")
        if self.dialect.tags:
            return f"{rules}\n{self.dialect.tags.grammar_before(root, self.opened)}"
        return f"{rules}\n{harmony.grammar_before(root)}"

    def grammar_of_calls(self, tools: Sequence[Tool], parallel: bool, rules_for: RulesFor) -> str:
        """The grammar of everything the model writes, where it must call one of the tools."""
        assert self.dialect is not None
        grammar = self.dialect.tool_format.grammar(tools, parallel, rules_for)
        return grammar if self.dialect.has_channels else self.grammar_of_answer(grammar)


PLAIN_VOICE = Voice(None)
"""Of a plain completion: whatever the model writes is text."""
