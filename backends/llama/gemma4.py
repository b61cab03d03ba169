"""Tool calls as Gemma 4 writes them: names without quotes, texts between marks of their own.

    <|tool_call>call:weather{city:<|"|>Oslo<|"|>,days:3}<tool_call|>

JSON is read there as well, and is what a required call is constrained to.
"""

import json

from backends.llama.call_grammar import Frame
from backends.llama.call_parser import Head, Style
from backends.llama.patterns import Gap

OPEN, CLOSE, QUOTE = "<|tool_call>", "<tool_call|>", '<|"|>'


class GemmaBody:
    """Turns the arguments into JSON as they come."""

    rest = ""

    def __init__(self) -> None:
        self.is_over = False
        self._depth = 0
        self._word = ""
        self._quote = ""
        self._escaped = False

    def feed(self, character: str) -> str:
        """The JSON that is certain now."""
        if self._quote == QUOTE:
            return self._in_text(character)
        if self._quote:
            if not self._escaped and character == '"':
                self._quote = ""
            self._escaped = character == "\\" and not self._escaped
            return character
        if character == '"' and not QUOTE.startswith(f'{self._word}"'):
            self._quote = character
            return character
        if character in "{}[],:":
            return self._border(character)
        self._word = (self._word + character).lstrip()
        if self._word == QUOTE:
            self._word, self._quote = "", QUOTE
            return '"'
        return ""

    def _in_text(self, character: str) -> str:
        self._word += character
        if self._word.endswith(QUOTE):
            text, self._word, self._quote = self._word.removesuffix(QUOTE), "", ""
            return _escaped(text) + '"'
        keep = next(n for n in range(min(len(QUOTE), len(self._word)), -1, -1) if self._word.endswith(QUOTE[:n]))
        text, self._word = self._word[: len(self._word) - keep], self._word[len(self._word) - keep :]
        return _escaped(text)

    def _border(self, character: str) -> str:
        word, self._word = self._word.strip(), ""
        if character == ":":
            return (json.dumps(word, ensure_ascii=False) if word else "") + ": "
        self._depth += (character in "{[") - (character in "}]")
        self.is_over = not self._depth
        return _value(word) + (", " if character == "," else character)


def _value(word: str) -> str:
    try:
        return json.dumps(json.loads(word)) if word else ""
    except ValueError:
        return json.dumps(word, ensure_ascii=False)


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


STYLE = Style(
    openings=(OPEN,),
    heads=(Head((Gap.SPACE, "call:", Gap.NAME, "{"), ends=((Gap.SPACE, CLOSE),)),),
    body=lambda _: GemmaBody(),
)
FRAME = Frame(before=f"{OPEN}call:NAME", after=CLOSE, between="")
