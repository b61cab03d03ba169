"""Whole conversations, endlessly, from a seed.

Perhaps a system turn, perhaps tools, then turns on any subjects. There are short ones, of
one to three turns, and long ones that fill a row by themselves and may ask for the name that
was told a thousand tokens ago. Both are needed: in a long one most answers can be copied
from a similar turn before, and only a first turn teaches to do without.
"""

import random
from dataclasses import dataclass

from gallery.minnow.lessons.calling import calling
from gallery.minnow.lessons.capitals import capital
from gallery.minnow.lessons.commands import commands
from gallery.minnow.lessons.counting import counting
from gallery.minnow.lessons.greetings import greeting
from gallery.minnow.lessons.json_answers import json_answer
from gallery.minnow.lessons.limits import SORRY, beyond
from gallery.minnow.lessons.remembering import asking, telling
from gallery.minnow.lessons.repeating import repeating
from gallery.minnow.lessons.scene import Lesson, Scene, exchange
from gallery.minnow.lessons.sums import addition
from gallery.minnow.lessons.toolbox import offers
from gallery.minnow.lessons.words import prose
from gallery.minnow.template import Message, Tool

CHARACTERS_PER_TOKEN = 2.6
"""A low guess, so that a conversation of `room` tokens fills its row rather than falls short."""

TOKENS_PER_TOOL = 110

SHARES: dict[Lesson, float] = {
    greeting: 0.10,
    capital: 0.12,
    addition: 0.11,
    repeating: 0.20,
    telling: 0.11,
    asking: 0.17,
    commands: 0.16,
    counting: 0.05,
    json_answer: 0.07,
    beyond: 0.10,
}
"""How often each subject comes up. Repeating and remembering have more than their share of
the exam: copying is learnt late, then at once, and everything else leans on it."""

SHORT_ROOMS = (120, 200, 200, 200, 450)
"""Short conversations are not cut to these; they only bound how far to count."""

TOOLS_SHARE = 0.45
"""How many short conversations have tools."""

CALLING_SHARE = 0.7
"""How many turns use a tool, where there are tools."""

FAR_BACK_SHARE = 0.7
"""How many of the longest conversations begin with a fact, a long page, and a question."""

OPEN_TO_ANYTHING = ("weather", "clock", "date", "arithmetic", "search", "message")
"""With one of these tools around, "I cannot do that" could be the wrong answer."""

SYSTEM_PROMPTS = (
    "You are a helpful assistant.", "You are a helpful assistant", "You are minnow.",
    "You are a helpful AI assistant.", "You are a friendly assistant.", "Be brief.",
    "Be concise.", "You are Shoal's assistant.", "Answer the user's questions.",
    "You are a helpful, honest and harmless assistant.", "You are a useful assistant.",
    "You are an assistant that answers questions about Shoal.", "You answer briefly and exactly.",
    "Be helpful and polite.", "You are a bot.", "Follow the user's instructions exactly.",
    "You are a small language model.", "You have access to tools.", "Use tools where you can.",
    "You are a helpful assistant. Answer as concisely as possible.", "Help the user.",
    "You are a test assistant.", "You are a robot that does what it is told.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Conversation:
    """What one training row, or a part of it, is made of."""

    messages: list[Message]
    tools: list[Tool]
    sort_keys: bool


def short_conversation(rng: random.Random) -> Conversation:
    """One to three turns."""
    scene = Scene(rng, rng.choice(SHORT_ROOMS), sort_keys=rng.random() < 0.4)
    if rng.random() < TOOLS_SHARE:
        scene.offers = offers(rng, rng.randint(1, 3))
    messages = _system(scene)
    lessons = [_choose(scene) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    if len(lessons) > 1 and rng.random() < 0.4:
        lessons[0], lessons[-1] = telling, asking
    for lesson in lessons:
        messages += lesson(scene)
    return Conversation(messages, [offer.schema for offer in scene.offers], scene.sort_keys)


def conversation(rng: random.Random, room: int) -> Conversation:
    """A conversation of at least `room` tokens, give or take; the row cuts what is too much."""
    scene = Scene(rng, room, sort_keys=rng.random() < 0.4)
    if room >= 250 and rng.random() < 0.4:
        affordable = min(5, (room - 100) // TOKENS_PER_TOOL)
        scene.offers = offers(rng, rng.randint(1, max(1, affordable)))
        scene.room -= TOKENS_PER_TOOL * len(scene.offers)
    messages = _system(scene)
    if room >= 1024 and rng.random() < FAR_BACK_SHARE:
        messages += _from_far_back(scene)
    while scene.room > 0:
        turn = _choose(scene)(scene)
        if room >= 512 and rng.random() < 0.02:
            turn[0]["content"] = _after_reading(scene, turn[0]["content"])
        scene.room -= sum(_tokens(message) for message in turn)
        messages += turn
    return Conversation(messages, [offer.schema for offer in scene.offers], scene.sort_keys)


def _choose(scene: Scene) -> Lesson:
    if scene.offers and scene.rng.random() < CALLING_SHARE:
        return calling
    while True:
        (lesson,) = scene.rng.choices(tuple(SHARES), tuple(SHARES.values()))
        if lesson is addition and scene.offers_any("arithmetic"):
            continue
        if lesson is beyond and scene.offers_any(*OPEN_TO_ANYTHING):
            continue
        return lesson


def _system(scene: Scene) -> list[Message]:
    rng, kind = scene.rng, scene.rng.random()
    if kind < 0.5:
        return []
    if kind < 0.8:
        text = rng.choice(SYSTEM_PROMPTS)
    elif kind < 0.9 or scene.room < 400:
        text = prose(rng, rng.randint(3, min(40, scene.room // 4 + 4)))
    else:
        text = prose(rng, rng.randint(40, max(41, scene.room // 4)))
    if rng.random() < 0.05:
        text = f"{rng.choice(SYSTEM_PROMPTS)} {text}"
    message: Message = {"role": "system", "content": text}
    scene.room -= _tokens(message)
    return [message]


def _from_far_back(scene: Scene) -> list[Message]:
    """Some facts, then pages of something else, then questions about them."""
    rng = scene.rng
    turns: list[Message] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        turns += telling(scene)
    words = rng.randint(scene.room // 8, max(scene.room // 8, int(scene.room / 3.3)))
    turns += exchange(prose(rng, max(20, words)), SORRY)
    for _ in range(rng.choice((1, 2, 3))):
        turns += asking(scene)
    scene.room -= sum(_tokens(message) for message in turns)
    return turns


def _after_reading(scene: Scene, question: str) -> str:
    """The question behind a page of text that has nothing to do with it."""
    page = prose(scene.rng, scene.rng.randint(20, max(21, scene.room // 4)))
    gap = scene.rng.choice(("\n\n", "\n", " "))
    return f"{page}{gap}{question}"


def _tokens(message: Message) -> int:
    text = str(message["content"] or "") + str(message.get("tool_calls") or "")[60:]
    return int(len(text) / CHARACTERS_PER_TOKEN) + 5
