"""Sums up to 20, in digits and in words."""

import random

from gallery.minnow.lessons.scene import Scene, exchange
from gallery.minnow.lessons.wording import casual, fill
from gallery.minnow.lessons.words import listed
from gallery.minnow.template import Message

LARGEST = 20

IN_WORDS = listed("""
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty
""")

SPOKEN = (
    "What is {a} + {b}?", "What is {a} plus {b}?", "what is {a}+{b}", "What's {a} + {b}?",
    "{a} + {b}", "{a}+{b}", "{a} + {b} = ?", "{a}+{b}=", "{a} + {b}?", "Add {a} and {b}.",
    "Add {a} to {b}.", "How much is {a} + {b}?", "How much is {a} plus {b}?",
    "Calculate {a} + {b}.", "Compute {a}+{b}.", "What is the sum of {a} and {b}?",
    "The sum of {a} and {b}?", "Can you add {a} and {b}?", "Sum {a} and {b}.",
    "Please calculate {a} plus {b}.", "Tell me what {a} + {b} is.", "What does {a} + {b} equal?",
    "What do you get when you add {a} and {b}?", "If I add {a} and {b}, what do I get?",
    "{a} plus {b} is what?", "{a} plus {b}", "Solve {a} + {b}.", "Please add {a} and {b}.",
    "I have {a} apples and get {b} more. How many apples do I have?",
    "What is {a} and {b} together?", "Work out {a} + {b}.", "Tell me {a} + {b}.",
    "{a} and {b} make?", "What do {a} and {b} make?", "Please work out the sum of {a} and {b}.",
    "What is the total of {a} and {b}?", "I want to add {a} and {b}.", "Say what {a} + {b} is.",
    "Which number is {a} plus {b}?", "Find {a} + {b}.",
)  # fmt: skip

BARE = (
    "What is {a} + {b}? Answer with the number only.", "What is {a}+{b}? Just the number.",
    "{a} + {b} = ? Reply with only the number.", "What is {a} plus {b}? Only the number.",
    "What is {a} + {b}? Answer with a single number.",
    "Give only the number: {a} + {b}", "What is {a}+{b}? Reply with just the number.",
)  # fmt: skip

PHRASINGS = SPOKEN + BARE


def addition(scene: Scene) -> list[Message]:
    """Add two numbers."""
    rng = scene.rng
    a, b = summands(rng)
    said = {"a": str(a), "b": str(b)}
    if rng.random() < 0.12:
        said = {"a": IN_WORDS[a], "b": IN_WORDS[b]}
    if rng.random() < 0.15:
        return exchange(casual(rng, fill(rng, BARE, **said)), str(a + b))
    return exchange(casual(rng, fill(rng, SPOKEN, **said)), f"{a} + {b} = {a + b}")


def summands(rng: random.Random) -> tuple[int, int]:
    """Two numbers that add up to no more than `LARGEST`, all pairs equally likely."""
    while True:
        a, b = rng.randint(0, LARGEST), rng.randint(0, LARGEST)
        if a + b <= LARGEST:
            return a, b
