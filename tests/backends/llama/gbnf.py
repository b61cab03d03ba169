"""GBNF grammars as Python functions: does a text match? For tests, so that no model is needed."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|\{[\d,]*\}|[()|*+?]|[a-zA-Z0-9-]+')
ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)


def matches(grammar: str, text: str) -> bool:
    """The whole text follows the grammar."""
    rules = dict(_rules(grammar))

    def ends(node: Any, at: int) -> frozenset[int]:
        kind, value = node
        match kind:
            case "text":
                return frozenset([at + len(value)]) if text.startswith(value, at) else frozenset()
            case "set":
                return frozenset([at + 1]) if at < len(text) and re.match(value, text[at], re.DOTALL) else frozenset()
            case "rule":
                return rule_ends(value, at)
            case "either":
                return frozenset(end for way in value for end in ends(way, at))
            case "series":
                found = frozenset([at])
                for part in value:
                    found = frozenset(end for begin in found for end in ends(part, begin))
                return found
            case _:
                part, least, most = value
                reached = found = frozenset([at])
                all_found = found if least == 0 else frozenset()
                count = 0
                while found and (most is None or count < most):
                    found = frozenset(end for begin in found for end in ends(part, begin))
                    count += 1
                    if count >= least:
                        if found <= all_found:
                            break
                        all_found |= found
                    elif found == reached:
                        all_found |= found
                        break
                    reached = found
                return all_found

    @cache
    def rule_ends(name: str, at: int) -> frozenset[int]:
        return ends(rules[name], at)

    return len(text) in rule_ends("root", 0)


def _rules(grammar: str) -> Iterator[tuple[str, Any]]:
    for line in grammar.split("\n"):
        name, _, right = line.partition("::=")
        tokens = TOKEN.findall(right)
        node, rest = _either(tokens)
        assert not rest, (line, rest)
        yield name.strip(), node


def _either(tokens: list[str]) -> tuple[Any, list[str]]:
    ways: list[Any] = [[]]
    while tokens and tokens[0] != ")":
        token, *tokens = tokens
        if token == "|":
            ways.append([])
        elif token == "(":
            node, tokens = _either(tokens)
            assert tokens[0] == ")"
            tokens = tokens[1:]
            ways[-1].append(node)
        elif token in "*+?" or token[0] == "{":
            ways[-1].append(("repeat", (ways[-1].pop(), *_bounds(token))))
        elif token[0] == '"':
            ways[-1].append(("text", ESCAPE.sub(_plain, token[1:-1])))
        elif token[0] == "[":
            ways[-1].append(("set", token))
        else:
            ways[-1].append(("rule", token))
    return ("either", [("series", way) for way in ways]), tokens


def _bounds(token: str) -> tuple[int, int | None]:
    if token in "*+?":
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[token]  # type: ignore[return-value]
    least, comma, most = token[1:-1].partition(",")
    return int(least), (int(most) if most else None) if comma else int(least)


def _plain(found: "re.Match[str]") -> str:
    code = found.group(1) or found.group(2) or found.group(3)
    return chr(int(code, 16)) if code else {"n": "\n", "t": "\t", "r": "\r"}.get(found.group(4), found.group(4))
