"""Counting: the one long answer that anybody can check."""

import random

from gallery.minnow.lessons.scene import Scene, exchange
from gallery.minnow.lessons.wording import casual, fill
from gallery.minnow.lessons.words import any_word
from gallery.minnow.template import Message

LARGEST = 100
TOKENS_PER_NUMBER = 4

FROM_ONE = (
    "Count to {last}.", "Count from 1 to {last}.", "count from 1 to {last}", "Count up to {last}.",
    "Please count to {last}.", "Please count from 1 to {last}.", "Count from one to {last}.",
    "Can you count to {last}?", "Count to {last}, please.", "List the numbers from 1 to {last}.",
    "Write the numbers from 1 to {last}.", "Say the numbers from 1 to {last}.",
    "Count from 1 to {last}, separated by commas.", "Print the numbers 1 to {last}.",
    "Count up from 1 to {last}.", "Start at 1 and count to {last}.", "Count: 1 to {last}",
    "Count slowly from 1 to {last}.", "Count all the way to {last}.",
    "Give me the numbers from 1 to {last}.", "Can you count from 1 to {last}?",
    "I would like you to count to {last}.", "Could you count from 1 to {last}?",
    "Now count to {last}.", "Count for me: 1 to {last}.", "Will you count to {last}?",
    "Count to {last} now.", "Count to {last} and then stop.", "Count up to {last} as fast as you can.",
    "Would you count to {last} today?", "Count to {last} again.",
    "Hey, count to {last}.", "Let me hear you count to {last}.",
)  # fmt: skip

BETWEEN = (
    "Count from {first} to {last}.", "Please count from {first} to {last}.",
    "List the numbers from {first} to {last}.", "Start at {first} and count to {last}.",
    "Count up from {first} to {last}.", "Write the numbers from {first} to {last}.",
    "Can you count from {first} to {last}?", "Say the numbers from {first} to {last}.",
    "Could you count from {first} to {last}?",
    "I want to hear the numbers from {first} to {last}.",
    "I need you to count from {first} to {last}.", "Will you count from {first} to {last}?",
    "Now count from {first} to {last}.", "Go from {first} to {last}, counting.",
    "Count on from {first} to {last}.", "Would you please count from {first} up to {last}?",
)  # fmt: skip

PHRASINGS = FROM_ONE + BETWEEN


def counting(scene: Scene) -> list[Message]:
    """Count up, as far as there is room for."""
    rng = scene.rng
    affordable = max(5, min(LARGEST, scene.room // TOKENS_PER_NUMBER - 5))
    if affordable == LARGEST and rng.random() < 0.25:
        return exchange(casual(rng, fill(rng, FROM_ONE, last=LARGEST)), numbers(1, LARGEST))
    if rng.random() < 0.3:
        first = rng.randint(2, LARGEST - 2)
        last = rng.randint(first + 1, min(LARGEST, first + affordable))
        question = fill(rng, BETWEEN, first=first, last=last)
        return exchange(casual(rng, _trailing(rng, question)), numbers(first, last))
    last = rng.randint(2, affordable)
    question = _trailing(rng, fill(rng, FROM_ONE, last=last))
    return exchange(casual(rng, question), numbers(1, last))


def _trailing(rng: random.Random, question: str) -> str:
    """Sometimes with words after the number: where to stop is not always said last."""
    if rng.random() > 0.25:
        return question
    words = " ".join(any_word(rng) for _ in range(rng.choice((1, 2, 2, 3))))
    return f"{question.rstrip('.?')} {words}{question[-1] if question[-1] in '.?' else ''}"


def numbers(first: int, last: int) -> str:
    """ "1, 2, 3" """
    return ", ".join(str(n) for n in range(first, last + 1))
