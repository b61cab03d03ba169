"""Every phrasing that training uses, to show that the exam's held-out ones are not among them."""

import re
from collections.abc import Iterator

from gallery.minnow.lessons import (
    calling,
    capitals,
    commands,
    counting,
    greetings,
    json_answers,
    limits,
    remembering,
    repeating,
    sums,
    toolbox,
)  # fmt: skip
from gallery.minnow.lessons.wording import CLOSINGS, OPENINGS

MODULES = (
    calling, capitals, commands, counting, greetings, json_answers, limits, remembering,
    repeating, sums, toolbox,
)  # fmt: skip

FREE_TEXT = ("phrase", "text", "query", "one", "two")
VERB = "|".join(verb.replace("_", " ") for verb in toolbox.VERBS)
"""Made-up verbs are left out: no question anybody would ask has one."""

SEVERAL_WORDS = ("country", "city", "capital", "unknown", "name", "expression", "line")


def templates() -> Iterator[str]:
    """All of them, with their `{slots}`."""
    for module in MODULES:
        yield from module.PHRASINGS


def is_taught(question: str) -> bool:
    """Whether a phrasing of the lessons could have produced this question."""
    return any(pattern.fullmatch(plain(question)) for pattern in _PATTERNS)


def plain(question: str) -> str:
    """Without the small changes of `wording.casual`."""
    question = question.strip().lower()
    for closing in CLOSINGS:
        question = question.removesuffix(closing.lower())
    for opening in OPENINGS:
        question = question.removeprefix(opening.lower())
    return question.rstrip(".?!")


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", plain(template))
    for slot in range(1, len(parts), 2):
        parts[slot] = _values_of(parts[slot])
    parts[::2] = [re.escape(part) for part in parts[::2]]
    return re.compile("".join(parts))


def _values_of(slot: str) -> str:
    if slot in FREE_TEXT:
        return ".+"
    if slot == "verb":
        return f"(?:{VERB})"
    return r"\S+(?: \S+){0,2}" if slot in SEVERAL_WORDS else r"\S+"


_PATTERNS = [_pattern(template) for template in dict.fromkeys(templates())]
