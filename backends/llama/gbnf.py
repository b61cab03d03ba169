"""Look at a grammar before llama.cpp does: a wrong one gets a sentence with the place, a hostile one no time.

llama.cpp's own parser says "failed to parse", and trusts its input: `"a"{3,1}` writes an endless rule, deep nesting
overflows its stack, and rules that refer to each other in many ways keep its search for left recursion busy for
ever. So this reads the same language (vendor/llama.cpp/src/llama-grammar.cpp) and refuses what is wrong or too much.

    root ::= greeting name?          rules: name ::= alternatives
    name ::= [a-z]{1,8} | "x"        texts, sets, `.`, groups, `?` `*` `+` `{m,n}`, tokens as <name> or <[id]>
"""

import re
from collections import defaultdict
from dataclasses import dataclass

from backends.errors import InvalidGrammarError

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 100
"""Of groups in groups."""

MAX_REPEATS = 2000
"""llama.cpp's own limit."""

MAX_ELEMENTS = 500_000
"""Characters, sets and references, with repetitions written out as llama.cpp does."""

MAX_LEFT_PATHS = 200_000
"""Steps of llama.cpp's search for left recursion, which takes every path anew."""

MAX_LEFT_DEPTH = 1000
"""How deep that search goes: each step takes some of a thread's stack."""

_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[a-zA-Z0-9-]+")
_NUMBER = re.compile(r"[0-9]{1,9}")
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[trn\\\"\[\]-])")
_TOKEN = re.compile(r"!?<(?:\[[0-9]{1,9}\]|[^>]*)>")


@dataclass(slots=True)
class _Part:
    """A part of a sequence."""

    size: int
    rule: str = ""
    """The rule it refers to."""
    is_empty: bool = False


def check_grammar(source: str) -> None:
    """Raises:
    InvalidGrammarError: it is wrong, and where; or it is too much.
    """
    if "\0" in source:
        raise InvalidGrammarError("the grammar has a NUL character in it", param="grammar")
    if len(source) > MAX_CHARACTERS:
        raise InvalidGrammarError(f"the grammar has more than {MAX_CHARACTERS} characters", param="grammar")
    _Reader(source).read()


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self._rules: dict[str, list[list[_Part]]] = {}
        self._places: dict[str, int] = {}
        """Where a rule is first referred to, or defined."""
        self._depth = 0
        self._elements = 0
        self._groups = 0

    def read(self) -> None:
        self._skip(_SPACE_AND_LINES)
        while self._at < len(self._source):
            self._rule()
        for name, place in self._places.items():
            if name not in self._rules:
                raise self._wrong(f"there is no rule {name!r}", place)
        if "root" not in self._rules:
            raise self._wrong("there is no rule 'root', with which every answer begins", len(self._source))
        self._check_beginnings()

    # ------------------------------------------------------------ the language

    def _rule(self) -> None:
        start = self._at
        name = self._take(_NAME, "a rule's name")
        self._places[name] = min(start, self._places.get(name, start))
        self._skip(_SPACE)
        if not self._source.startswith("::=", self._at):
            raise self._wrong("expected '::='")
        self._at += 3
        self._skip(_SPACE_AND_LINES)
        self._rules[name] = self._alternatives(nested=False)
        if self._at < len(self._source) and self._source[self._at] not in "\r\n":
            raise self._wrong("expected the end of the line")
        self._skip(_SPACE_AND_LINES)

    def _alternatives(self, *, nested: bool) -> list[list[_Part]]:
        ways = [self._sequence(nested=nested)]
        while self._source.startswith("|", self._at):
            self._at += 1
            self._skip(_SPACE_AND_LINES)
            ways.append(self._sequence(nested=nested))
        return ways

    def _sequence(self, *, nested: bool) -> list[_Part]:
        parts: list[_Part] = []
        space = _SPACE_AND_LINES if nested else _SPACE
        while self._at < len(self._source):
            start, letter = self._at, self._source[self._at]
            if letter in "*+?{":
                least, most = self._repeats()
                self._skip(space)
                if not parts or parts[-1].is_empty:
                    raise self._wrong("there is nothing to repeat", start)
                parts[-1] = self._repeated(parts[-1], least, most, start)
            elif (part := self._part(letter)) is not None:
                self._count(part.size, start)
                self._skip(space)
                parts.append(part)
            else:
                break
        return parts

    def _part(self, letter: str) -> _Part | None:
        if letter == '"':
            size = self._characters('"')
            return _Part(size, is_empty=size == 0)
        if letter == "[":
            self._at += self._source.startswith("^", self._at + 1)
            size = self._characters("]")
            return _Part(size, is_empty=size == 0)
        if letter == ".":
            self._at += 1
            return _Part(1)
        if letter in "<!":
            self._take(_TOKEN, "a token, as in <name> or <[12]>")
            return _Part(1)
        if letter == "(":
            return self._group()
        if _NAME.match(letter):
            start = self._at
            name = self._take(_NAME, "a rule's name")
            self._places.setdefault(name, start)
            return _Part(1, rule=name)
        return None

    def _group(self) -> _Part:
        start = self._at
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._wrong(f"more than {MAX_DEPTH} groups in each other", start)
        self._at += 1
        self._skip(_SPACE_AND_LINES)
        self._groups += 1
        name = f"({self._groups}"
        self._rules[name] = self._alternatives(nested=True)
        if not self._source.startswith(")", self._at):
            raise self._wrong("expected ')'")
        self._at += 1
        self._depth -= 1
        return _Part(1, rule=name)

    def _characters(self, end: str) -> int:
        """How many characters there are up to `end`."""
        start, size = self._at, 0
        self._at += 1
        while not self._source.startswith(end, self._at):
            if self._at >= len(self._source):
                raise self._wrong(f"nothing closes this {self._source[start]}", start)
            if self._source[self._at] == "\\":
                self._take(_ESCAPE, 'an escape such as \\n, \\" or \\x41')
            else:
                self._at += 1
            size += 1
        self._at += 1
        return size

    def _repeats(self) -> tuple[int, int | None]:
        """How often at least, and at most."""
        letter = self._source[self._at]
        self._at += 1
        if letter != "{":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[letter]
        start = self._at
        self._skip(_SPACE_AND_LINES)
        least = int(self._take(_NUMBER, "a number"))
        most: int | None = least
        self._skip(_SPACE_AND_LINES)
        if self._source.startswith(",", self._at):
            self._at += 1
            self._skip(_SPACE_AND_LINES)
            most = int(self._take(_NUMBER, "a number")) if self._source[self._at : self._at + 1].isdecimal() else None
            self._skip(_SPACE_AND_LINES)
        if not self._source.startswith("}", self._at):
            raise self._wrong("expected '}'")
        self._at += 1
        if most is not None and most > MAX_REPEATS >= least:
            most = None  # As llama.cpp takes it.
        if least > MAX_REPEATS:
            raise self._wrong(f"more than {MAX_REPEATS} repetitions", start)
        if most is not None and most < least:
            raise self._wrong(f"at least {least} and at most {most} cannot be", start)
        return least, most

    def _repeated(self, part: _Part, least: int, most: int | None, start: int) -> _Part:
        """The part that stands for a repeated one, in a rule of its own."""
        optional = 1 if most is None else most - least
        self._count(part.size * max(0, least - 1) + (part.size + 3) * optional, start)
        self._groups += 1
        name = f"({self._groups}"
        # Not what llama.cpp writes, but a rule that begins with the same.
        way = [part, _Part(1, rule=name)] if most is None else [part]
        self._rules[name] = [way, [part] if least else []]
        return _Part(part.size * max(1, least), rule=name)

    # ------------------------------------------------------------ what rules begin with

    def _check_beginnings(self) -> None:
        nullable = _nullable(self._rules)
        begins = {name: [*_begins(ways, nullable)] for name, ways in self._rules.items()}
        paths: dict[str, tuple[int, int]] = {}
        for name in self._rules:
            self._follow(name, begins, paths)
        if sum(ways for ways, _ in paths.values()) > MAX_LEFT_PATHS:
            raise InvalidGrammarError("the grammar's rules begin with each other in too many ways", param="grammar")
        if max(depth for _, depth in paths.values()) > MAX_LEFT_DEPTH:
            raise InvalidGrammarError("the grammar's rules begin with each other too many times", param="grammar")

    def _follow(self, root: str, begins: dict[str, list[str]], paths: dict[str, tuple[int, int]]) -> None:
        """How many ways lead down through what a rule begins with, and how far; none may lead back to it."""
        todo, under_way = [root], set[str]()
        while todo:
            name = todo[-1]
            if name in paths or name in under_way:
                if name not in paths:
                    below = [paths[other] for other in begins[name]]
                    ways = min(1 + sum(ways for ways, _ in below), MAX_LEFT_PATHS + 1)
                    paths[name] = ways, 1 + max((depth for _, depth in below), default=0)
                    under_way.remove(name)
                todo.pop()
                continue
            under_way.add(name)
            if any(other in under_way for other in begins[name]):
                culprit = next((rule for rule in reversed(todo) if rule in self._places), "root")
                reason = f"rule {culprit!r} begins with itself, or repeats what may be nothing: it would never end"
                raise self._wrong(reason, self._places.get(culprit, 0))
            todo += [other for other in begins[name] if other not in paths]

    # ------------------------------------------------------------ reading

    def _take(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self._source, self._at)
        if found is None:
            raise self._wrong(f"expected {what}")
        self._at = found.end()
        return found.group()

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._source, self._at)
        assert found is not None
        self._at = found.end()

    def _count(self, elements: int, place: int) -> None:
        self._elements += elements
        if self._elements > MAX_ELEMENTS:
            raise self._wrong("the grammar is too large with its repetitions written out", place)

    def _wrong(self, reason: str, place: int | None = None) -> InvalidGrammarError:
        before = self._source[: self._at if place is None else place]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return InvalidGrammarError(f"the grammar is wrong in line {line}, column {column}: {reason}", param="grammar")


def _nullable(rules: dict[str, list[list[_Part]]]) -> set[str]:
    """Rules that may be nothing."""
    waiting: dict[str, list[tuple[str, set[str]]]] = defaultdict(list)
    found: list[str] = []
    for name, ways in rules.items():
        for way in ways:
            needs = {part.rule for part in way if part.rule}
            if any(not part.rule and not part.is_empty for part in way):
                continue
            for other in needs:
                waiting[other].append((name, needs))
            if not needs:
                found.append(name)
    nullable: set[str] = set()
    while found:
        name = found.pop()
        if name not in nullable:
            nullable.add(name)
            for other, needs in waiting[name]:
                needs.discard(name)
                if not needs:
                    found.append(other)
    return nullable


def _begins(ways: list[list[_Part]], nullable: set[str]) -> list[str]:
    """The rules that a rule may begin with, as often as it does."""
    found: list[str] = []
    for way in ways:
        for part in way:
            if part.is_empty:
                continue
            if part.rule:
                found.append(part.rule)
            if part.rule not in nullable:
                break
    return found
