"""Small patterns that are matched one character at a time.

A model's answer arrives in pieces, so what reads it must know at every character whether a pattern
is met, may still be met, or cannot be any more. Regular expressions cannot say the second.
"""

import enum
import json
from collections.abc import Collection

MAX_NAME = 256
"""Characters of a name; longer ones are not names."""


class Gap(enum.Enum):
    """What is not written out in a pattern."""

    SPACE = "white space, or nothing"
    NAME = "a name"
    QUOTED_NAME = "a name as a JSON string"
    STRING = "a JSON string"
    WORD = "letters and digits that do not matter"


Pattern = tuple[str | Gap, ...]
"""Texts and gaps. It never ends with `Gap.SPACE` or a name that is not quoted: where would it end?"""


class Match(enum.Enum):
    """How far a pattern has come."""

    MORE = "may still be met"
    MET = "met"
    FAILED = "cannot be met"


class Matcher:
    """Follows one pattern. `name` is what stood in its gap for a name; it must be one of `names`."""

    def __init__(self, pattern: Pattern, names: Collection[str] | None = None) -> None:
        self.pattern = pattern
        self.name = ""
        self._names = names
        self._at = 0
        self._inside = ""
        self._escaped = False

    def feed(self, character: str) -> Match:
        """The state after one more character."""
        while True:
            element = self.pattern[self._at]
            if isinstance(element, str):
                self._inside += character
                if not element.startswith(self._inside):
                    return Match.FAILED
                return self._past() if self._inside == element else Match.MORE
            if element is Gap.SPACE:
                if character.isspace():
                    return Match.MORE
            elif element in (Gap.NAME, Gap.WORD):
                if character.isalnum() or character in "_-.":
                    self._inside += character
                    return Match.MORE if len(self._inside) <= MAX_NAME else Match.FAILED
                if not self._take_name(element, self._inside):
                    return Match.FAILED
            else:
                return self._feed_string(element, character)
            self._past()

    def _feed_string(self, element: Gap, character: str) -> Match:
        begun = bool(self._inside)
        self._inside += character
        if not begun:
            return Match.MORE if character == '"' else Match.FAILED
        if self._escaped or character != '"':
            self._escaped = character == "\\" and not self._escaped
            return Match.MORE if len(self._inside) <= MAX_NAME else Match.FAILED
        try:
            text = json.loads(self._inside, strict=False)
        except ValueError:
            return Match.FAILED
        return self._past() if self._take_name(element, text) else Match.FAILED

    def _take_name(self, element: Gap, name: str) -> bool:
        if element in (Gap.WORD, Gap.STRING):
            return True
        self.name = name
        return bool(name) and (self._names is None or name in self._names)

    def _past(self) -> Match:
        self._at += 1
        self._inside = ""
        return Match.MET if self._at == len(self.pattern) else Match.MORE


class Matchers:
    """Several patterns at once, the earlier ones preferred."""

    def __init__(self, patterns: Collection[Pattern], names: Collection[str] | None = None) -> None:
        self._alive = [Matcher(pattern, names) for pattern in patterns]

    @property
    def has_failed(self) -> bool:
        """None of them can be met any more."""
        return not self._alive

    def feed(self, character: str) -> Matcher | None:
        """The pattern that is met now, if one is."""
        alive = []
        for matcher in self._alive:
            match matcher.feed(character):
                case Match.MET:
                    return matcher
                case Match.MORE:
                    alive.append(matcher)
        self._alive = alive
        return None
