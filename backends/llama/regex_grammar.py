"""Regular expressions as GBNF: the part of them that a grammar can follow.

Taken: characters, sets, classes, groups, alternatives, repetition, and anchors at the ends. Refused:
what looks around or back, and flags. Where a class reaches beyond ASCII, the grammar takes less than
the expression (`\\d` is 0 to 9), never more.

`in_json`: the expression is of a JSON string's content, and quotes and the like come escaped.
"""

import json
import re
from typing import Any

from backends.errors import InvalidGrammarError

MAX_REPEATS = 1000
"""Of one part. A grammar writes them all out."""

MAX_SIZE = 20_000
"""Parts, repetitions written out."""

MAX_PATTERN = 10_000
"""Characters."""

Ranges = list[tuple[int, int]]

_LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)
_DIGITS: Ranges = [(0x30, 0x39)]
_WORDS: Ranges = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
_SPACES: Ranges = [(9, 13), (32, 32)]
_ALL_SPACES: Ranges = [
    *_SPACES, (0x1C, 0x1F), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029),
    (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
]  # fmt: skip
_FOREIGN: Ranges = [(0x80, _LAST)]

_CLASSES: dict[str, tuple[Ranges, Ranges]] = {
    "CATEGORY_DIGIT": (_DIGITS, _DIGITS + _FOREIGN),
    "CATEGORY_WORD": (_WORDS, _WORDS + _FOREIGN),
    "CATEGORY_SPACE": (_SPACES, _ALL_SPACES),
}
"""For each class what is in it for certain, and what may be."""

_PLAIN_IN_JSON: Ranges = [(0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E), (0xA0, _LAST)]
_ESCAPES = {code: json.dumps(chr(code)).strip('"') or '\\"' for code in (8, 9, 10, 12, 13, 0x5C)} | {0x22: '\\"'}


def regex_grammar(pattern: str, *, in_json: bool = False, whole: bool = True) -> str:
    """The right side of a rule for what matches; without `whole`, anything may stand around it.

    Raises:
        InvalidGrammarError: not a regular expression, or one that a grammar cannot follow.
    """
    if len(pattern) > MAX_PATTERN:
        raise InvalidGrammarError(f"the regular expression has more than {MAX_PATTERN} characters", param="regex")
    parser: Any = re._parser  # type: ignore[attr-defined]
    try:
        tree = parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as exc:
        raise _refusal(pattern, str(exc)) from exc
    if tree.state.flags & ~re.UNICODE:
        raise _refusal(pattern, "flags cannot be followed")
    try:
        return _Writer(pattern, in_json).top(list(tree), not whole, not whole)
    except RecursionError as exc:
        raise _refusal(pattern, "it is nested too deeply") from exc


class _Writer:
    def __init__(self, pattern: str, in_json: bool) -> None:
        self._pattern = pattern
        self._in_json = in_json
        self._size = 0

    def top(self, items: list[Any], before: bool, after: bool) -> str:
        """A whole expression with its anchors; where it has none, anything may stand `before` or `after` it."""
        if items and _is_anchor(items[0], "AT_BEGINNING"):
            items, before = items[1:], False
        if items and _is_anchor(items[-1], "AT_END"):
            items, after = items[:-1], False
        if len(items) == 1 and str(items[0][0]) == "BRANCH":
            return "(" + " | ".join(self.top(list(branch), before, after) for branch in items[0][1][1]) + ")"
        around = self._set([(0, _LAST)], lists_escapes=False) + "*"
        parts = [around if before else "", self._sequence(items, 1), around if after else ""]
        return " ".join(part for part in parts if part) or _NOTHING

    def _sequence(self, items: Any, times: int) -> str:
        return " ".join(self._item(str(kind), value, times) for kind, value in items)

    def _item(self, kind: str, value: Any, times: int) -> str:
        self._size += times
        if self._size > MAX_SIZE:
            raise _refusal(self._pattern, "it repeats too much")
        match kind:
            case "LITERAL":
                return self._set([(value, value)])
            case "NOT_LITERAL":
                return self._set(_without([(0, _LAST)], [(value, value)]), lists_escapes=False)
            case "ANY":
                return self._set(_without([(0, _LAST)], [(10, 10)]), lists_escapes=False)
            case "IN":
                return self._in(value)
            case "SUBPATTERN":
                if value[1] or value[2]:
                    raise _refusal(self._pattern, "flags cannot be followed", "(?")
                return f"({self._sequence(value[3], times) or _NOTHING})"
            case "BRANCH":
                return "(" + " | ".join(self._sequence(branch, times) or _NOTHING for branch in value[1]) + ")"
            case "MAX_REPEAT" | "MIN_REPEAT":
                least, most, repeated = value
                return self._repeat(least, most, repeated, times)
            case "AT":
                raise _refusal(self._pattern, "anchors can be followed at the ends only", "^", "$", "\\b", "\\B")
            case "ASSERT" | "ASSERT_NOT":
                raise _refusal(self._pattern, "looking ahead or back cannot be followed", "(?=", "(?!", "(?<")
            case _:
                raise _refusal(self._pattern, f"{kind.lower().replace('_', ' ')} cannot be followed", "(?", "\\1")

    def _repeat(self, least: int, most: Any, item: Any, times: int) -> str:
        endless = str(most) == "MAXREPEAT"
        if least > MAX_REPEATS or (not endless and int(most) > MAX_REPEATS):
            raise _refusal(self._pattern, f"more than {MAX_REPEATS} repetitions cannot be followed", "{")
        inner = self._sequence(item, times * max(1, least if endless else int(most)))
        if not inner:
            return _NOTHING
        return f"({inner}){{{least},{'' if endless else int(most)}}}"

    def _in(self, items: Any) -> str:
        negated = str(items[0][0]) == "NEGATE"
        ranges: Ranges = []
        for kind, value in items[1:] if negated else items:
            match str(kind):
                case "LITERAL":
                    ranges.append((value, value))
                case "RANGE":
                    ranges.append(tuple(value))
                case _:
                    ranges += _class(str(value), wide=negated)
        return self._set(_without([(0, _LAST)], ranges) if negated else ranges, lists_escapes=not negated)

    def _set(self, ranges: Ranges, *, lists_escapes: bool = True) -> str:
        """One character of these; escapes are offered where characters were named, not where all but some were."""
        ranges = _without(ranges, [_SURROGATES])
        if not self._in_json:
            return _written(ranges, self._pattern)
        escapes = [
            _quoted(text) for code, text in _ESCAPES.items() if lists_escapes and any(a <= code <= b for a, b in ranges)
        ]
        plain = _common(ranges, _PLAIN_IN_JSON)
        if not plain and not escapes:
            raise _refusal(self._pattern, "control characters cannot be followed here")
        parts = ([_written(plain, self._pattern)] if plain else []) + escapes
        return parts[0] if len(parts) == 1 else f"({' | '.join(parts)})"


_NOTHING = '""'


def _is_anchor(item: Any, name: str) -> bool:
    return str(item[0]) == "AT" and str(item[1]) in (name, f"{name}_STRING")


def _class(name: str, *, wide: bool) -> Ranges:
    if name.startswith("CATEGORY_NOT_"):
        narrow, all_of_it = _CLASSES[name.replace("NOT_", "")]
        return _without([(0, _LAST)], narrow if wide else all_of_it)
    narrow, all_of_it = _CLASSES[name]
    return all_of_it if wide else narrow


def _without(ranges: Ranges, holes: Ranges) -> Ranges:
    for low, high in holes:
        ranges = [
            part for a, b in ranges for part in ((a, min(b, low - 1)), (max(a, high + 1), b)) if part[0] <= part[1]
        ]
    return sorted(set(ranges))


def _common(ranges: Ranges, others: Ranges) -> Ranges:
    return [(max(a, c), min(b, d)) for a, b in ranges for c, d in others if max(a, c) <= min(b, d)]


def _written(ranges: Ranges, pattern: str) -> str:
    if not ranges:
        raise _refusal(pattern, "a set without characters can never be matched")
    return "[" + "".join(_code(a) if a == b else f"{_code(a)}-{_code(b)}" for a, b in ranges) + "]"


def _code(code: int) -> str:
    if chr(code).isascii() and chr(code).isalnum():
        return chr(code)
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _refusal(pattern: str, reason: str, *signs: str) -> InvalidGrammarError:
    at = min((pattern.find(sign) for sign in signs if sign in pattern), default=-1)
    place = f" (at position {at})" if at >= 0 else ""
    return InvalidGrammarError(f"the regular expression /{pattern[:200]}/: {reason}{place}", param="regex")
