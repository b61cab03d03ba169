"""Answers that are plain JSON and nothing else."""

import json
import random
from collections.abc import Callable

from gallery.minnow.lessons.capitals import CAPITALS
from gallery.minnow.lessons.scene import Scene, exchange
from gallery.minnow.lessons.sums import summands
from gallery.minnow.lessons.wording import casual, fill
from gallery.minnow.lessons.words import COLORS, COMMON, made_up, person
from gallery.minnow.template import Message

CAPITAL = (
    "Give me the capital of {country} as JSON.", "What is the capital of {country}? Answer in JSON.",
    "Return the capital of {country} as JSON.", "The capital of {country} as JSON, please.",
    "Answer in JSON: what is the capital of {country}?", "Reply with JSON: the capital of {country}.",
    "Capital of {country} as JSON", "What is the capital of {country}? Reply in JSON.",
    "What is the capital of {country}? Reply with JSON only.", "In JSON, the capital of {country}.",
    "Write the capital of {country} as a JSON object.", "Tell me the capital of {country} as JSON.",
    "Give the country and capital of {country} as JSON.",
    "Can you give me the capital of {country} as JSON?", "JSON please: the capital of {country}.",
    "I want the capital of {country} as JSON.", "Please show the capital of {country} as JSON.",
)  # fmt: skip
SUM = (
    "Give me {a} + {b} as JSON.", "What is {a} + {b}? Answer in JSON.", "Add {a} and {b} as JSON.",
    "Return the sum of {a} and {b} as JSON.", "Answer in JSON: what is {a} + {b}?",
    "What is {a} plus {b}? Reply with JSON only.", "Reply with JSON: {a} + {b}",
    "What is {a} + {b}? Reply in JSON.", "Can you give me {a} + {b} as JSON?",
    "I want {a} + {b} as JSON.", "Show {a} + {b} as JSON.",
)  # fmt: skip
PAIR = (
    "Give me JSON with {key} {value}.", "Write a JSON object with {key} {value}.",
    "Return JSON with {key} set to {value}.", "Make a JSON object where {key} is {value}.",
    "Reply with JSON: {key} is {value}.", "Give me a JSON object with the {key} {value}.",
    "Answer in JSON: the {key} is {value}.", "Return a JSON object with {key} {value}.",
    "Can you give me JSON with {key} {value}?", "I want JSON with {key} {value}.",
)  # fmt: skip
TWO = (
    "Give me JSON with {key} {value} and {other} {second}.",
    "Write a JSON object with {key} {value} and {other} {second}.",
    "Return JSON with {key} set to {value} and {other} set to {second}.",
    "Make a JSON object where {key} is {value} and {other} is {second}.",
    "Reply with JSON: {key} is {value} and {other} is {second}.",
    "Return a JSON object with {key} {value} and {other} {second}.",
    "I want JSON with {key} {value} and {other} {second}.",
)  # fmt: skip

PHRASINGS = CAPITAL + SUM + PAIR + TWO

_KEYS: dict[str, Callable[[random.Random], object]] = {
    "name": person,
    "age": lambda rng: rng.randint(1, 99),
    "color": lambda rng: rng.choice(COLORS),
    "city": lambda rng: rng.choice((made_up(rng).capitalize(), "Paris", "Rome", "Oslo")),
    "count": lambda rng: rng.randint(0, 500),
    "status": lambda rng: rng.choice(("ok", "ready", "open", "closed", "busy")),
    "animal": lambda rng: rng.choice(("cat", "dog", "fish", "whale", made_up(rng))),
    "word": lambda rng: rng.choice((rng.choice(COMMON), made_up(rng))),
    "price": lambda rng: rng.randint(1, 1000),
    "title": lambda rng: made_up(rng).capitalize(),
}


def json_answer(scene: Scene) -> list[Message]:
    """A question whose answer is a JSON object."""
    rng = scene.rng
    kind = rng.random()
    if kind < 0.45:
        country, capital = rng.choice(tuple(CAPITALS.items()))
        name = country.removeprefix("the ")
        question = casual(rng, fill(rng, CAPITAL, country=country), lower=False)
        return _ask(question, country=name, capital=capital)
    if kind < 0.65:
        a, b = summands(rng)
        question = casual(rng, fill(rng, SUM, a=a, b=b), lower=False)
        return _ask(question, a=a, b=b, sum=a + b)
    key, other = rng.sample(list(_KEYS), 2)
    value, second = _KEYS[key](rng), _KEYS[other](rng)
    if kind < 0.85:
        return _ask(fill(rng, PAIR, key=key, value=value), **{key: value})
    question = fill(rng, TWO, key=key, value=value, other=other, second=second)
    return _ask(question, **{key: value, other: second})


def _ask(question: str, **fields: object) -> list[Message]:
    return exchange(question, json.dumps(fields, ensure_ascii=False))
