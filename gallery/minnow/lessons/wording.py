"""Small changes people make to the same sentence: greetings, courtesy, case, lost marks."""

import random
import re

from gallery.minnow.lessons.words import any_word

OPENINGS = (
    "Please tell me: ", "Hi! ", "Hello, ", "Hey, ", "Quick question: ", "Tell me, ",
    "I have a question. ", "Okay, ", "Now, ", "So, ", "Also, ", "One more: ", "Next: ",
)  # fmt: skip
CLOSINGS = (" Please.", " Thanks!", " Thank you.", " Please answer briefly.", " Keep it short.")


def fill(rng: random.Random, templates: tuple[str, ...], **slots: object) -> str:
    """One of the templates, chosen at random, with its slots filled."""
    return rng.choice(templates).format(**slots)


def casual(rng: random.Random, text: str, *, lower: bool = True) -> str:
    """`text` as somebody in a hurry, or in a good mood, might type it.

    `lower=False` is for sentences whose letters must come back as they are.
    """
    opening = rng.random()
    if opening < 0.15:
        text = rng.choice(OPENINGS) + text
    elif opening < 0.27:
        # Any word may stand in front: what it is must not change the answer.
        lead = " ".join(any_word(rng) for _ in range(rng.choice((1, 1, 2, 4))))
        text = lead.capitalize() + rng.choice((": ", ", ", ". ", "! ", " - ")) + text
    if rng.random() < 0.08 and text[-1] in ".?!":
        text += rng.choice(CLOSINGS)
    elif rng.random() < 0.15:
        text = re.sub(r"[.?!]$", "", text)
    if lower and rng.random() < 0.12:
        text = text.lower()
    return text
