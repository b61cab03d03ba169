"""The conversation a lesson is given in: what has been said, which tools there are."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gallery.minnow.template import Message, Tool


@dataclass(slots=True)
class Offer:
    """A tool and everything needed to ask for it.

    `ask` makes up one request: what the user says, and the arguments the call should have.
    """

    family: str
    schema: Tool
    ask: Callable[[random.Random], tuple[str, dict[str, Any]]]

    @property
    def name(self) -> str:
        """The function's name."""
        return str(self.schema["function"]["name"])


@dataclass(slots=True)
class Scene:
    """One conversation while it is being made up."""

    rng: random.Random
    room: int
    """Roughly how many tokens may still be added; long answers look at it."""
    offers: list[Offer] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    sort_keys: bool = False

    def offers_any(self, *families: str) -> bool:
        """Whether a tool of one of these families is in the system turn."""
        return any(offer.family in families for offer in self.offers)


Lesson = Callable[[Scene], list[Message]]


def user(text: str) -> Message:
    """A user's message."""
    return {"role": "user", "content": text}


def answer(text: str, *, learn: bool = True) -> Message:
    """The model's message; with `learn=False` it is read but not taught."""
    return {"role": "assistant", "content": text, "learn": learn}


def exchange(question: str, reply: str) -> list[Message]:
    """One question and its answer."""
    return [user(question), answer(reply)]
