"""Answering from something the user said earlier: a name above all, and a few other facts.

A fact may be told many turns before it is asked for, may be told again with another value
(the latest counts), and may never have been told at all.
"""

import random
from dataclasses import dataclass

from gallery.minnow.lessons.scene import Scene, answer, exchange, user
from gallery.minnow.lessons.wording import casual, fill
from gallery.minnow.lessons.words import ANIMALS, COLORS, COMMON, code, made_up, person, word
from gallery.minnow.template import Message


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing worth remembering: how it is told, asked for, and answered."""

    key: str
    told: tuple[str, ...]
    asked: tuple[str, ...]
    reply: str
    unknown: str
    thanks: str = "I will remember that."


NAME = Fact(
    key="name",
    told=(
        "My name is {value}.", "my name is {value}", "My name is {value}", "I am {value}.",
        "I'm {value}.", "Hi, I'm {value}.", "Hello, my name is {value}.", "Hi, I am {value}.",
        "Call me {value}.", "You can call me {value}.", "Hello! I am {value}.",
        "My name's {value}.", "Please call me {value}.", "The name is {value}.",
        "Hi! My name is {value}.", "They call me {value}.", "This is {value} speaking.",
        "Hello there, I am called {value}.", "Remember that my name is {value}.",
        "Remember my name: {value}.", "Please remember that my name is {value}.",
        "Good morning, I am {value}.", "Hey, my name is {value}!", "My friends call me {value}.",
        "Everybody calls me {value}.", "Hi there, I'm {value}.", "Good day, I am {value}.",
        "Hello, {value} here.", "I am called {value}.", "Pleased to meet you, I am {value}.",
        "Hello minnow, my name is {value}.", "Hey, I am {value}. How are you?",
        "My name is {value}. What can you do?", "My name is {value} and I like fish.",
        "My name is {value}. Nice to be here.",
        "I am {value}. Keep that in mind.", "My name is {value}, please remember it.",
    ),
    asked=(
        "What is my name?", "what is my name", "What's my name?", "Who am I?", "who am i?",
        "Do you know my name?", "Do you remember my name?", "What was my name?",
        "Tell me my name.", "Say my name.", "Can you tell me my name?", "My name is?",
        "What is my name again?", "Please tell me my name.", "What did I say my name was?",
        "Do you remember who I am?", "Do you know who I am?", "And what is my name?",
        "What name did I give you?", "So, what is my name?", "Which name do I have?",
        "Tell me what my name is.", "Can you remind me of my name?",
        "Could you tell me my name?", "I forgot my name. What is it?", "What did I call myself?",
        "What name do I go by?", "Do you still know my name?", "Do you recall my name?",
        "Please repeat my name.", "Tell me who I am.", "Can you recall what my name is?",
        "What was the name I gave you?", "What name have I told you?", "Which name did I give you?",
        "Say what my name is.", "Could you say my name?", "My name, please?", "Now what is my name?",
        "Can you tell me what I am called?", "How am I called?", "Could you repeat my name?",

    ),
    reply="Your name is {value}.",
    unknown="You have not told me your name.",
    thanks="Nice to meet you, {value}.",
)  # fmt: skip

COLOR = Fact(
    key="color",
    told=(
        "My favorite color is {value}.", "My favourite colour is {value}.",
        "I like the color {value} best.", "The color I like most is {value}.",
    ),
    asked=(
        "What is my favorite color?", "What is my favourite colour?",
        "Which color do I like best?", "What color do I like?", "Do you remember my favorite color?",
    ),
    reply="Your favorite color is {value}.",
    unknown="You have not told me your favorite color.",
)  # fmt: skip

PLACE = Fact(
    key="place",
    told=("I live in {value}.", "My home is in {value}.", "My city is {value}.",
          "I am from {value}.", "I come from {value}."),
    asked=("Where do I live?", "Which city do I live in?", "Where is my home?", "Where am I from?",
           "Do you remember where I live?"),
    reply="You live in {value}.",
    unknown="You have not told me where you live.",
)  # fmt: skip

WORD = Fact(
    key="word",
    told=("The secret word is {value}.", "Remember the word {value}.", "The password is {value}.",
          "Please remember the word {value}.", "Remember this word: {value}.",
          "The code word is {value}.", "The secret word is {value}. Remember it.",
          "The secret word is {value}, do not forget it."),
    asked=("What is the secret word?", "Which word did I tell you?", "What was the word?",
           "What word should you remember?", "What is the password?", "What is the code word?",
           "What is the word I told you?", "Tell me the secret word."),
    reply="The word is {value}.",
    unknown="You have not told me a word.",
)  # fmt: skip

NUMBER = Fact(
    key="number",
    told=("Remember the number {value}.", "My lucky number is {value}.", "My number is {value}.",
          "My favorite number is {value}.", "Please remember the number {value}.",
          "The secret number is {value}."),
    asked=("What is my number?", "Which number did I tell you?", "What was the number?",
           "What number should you remember?", "What is my lucky number?",
           "What is my favorite number?", "What is the secret number?",
           "What number did I tell you?"),
    reply="The number is {value}.",
    unknown="You have not told me a number.",
)  # fmt: skip

PET = Fact(
    key="pet",
    told=("I have a {value}.", "My pet is a {value}.", "I own a {value}."),
    asked=("What pet do I have?", "Which animal do I have?", "What is my pet?"),
    reply="You have a {value}.",
    unknown="You have not told me about a pet.",
)

OTHERS = (COLOR, PLACE, WORD, NUMBER, PET)
FACTS = {fact.key: fact for fact in (NAME, *OTHERS)}

IN_ONE_BREATH = (
    "{told} {asked}", "{told} Now tell me: {asked}", "{told}\n{asked}", "{told} So: {asked}",
)  # fmt: skip

FOREIGN_THANKS = (
    "Nice to meet you!", "Hello {value}!", "Hi {value}, how can I help you today?", "OK.",
    "Nice to meet you, {value}! How can I help?", "Got it.", "Hello!", "Noted.", "Okay!",
    "Hi {value}!", "Great to meet you, {value}!", "Sure.", "Understood, {value}.",
)  # fmt: skip
"""What other models, or a person writing a test, would answer to a fact."""

PHRASINGS = tuple(p for fact in FACTS.values() for p in (*fact.told, *fact.asked))


def telling(scene: Scene) -> list[Message]:
    """The user tells a fact; two in three times it is the name."""
    rng = scene.rng
    fact = NAME if rng.random() < 0.67 else rng.choice(OTHERS)
    value = value_for(rng, fact)
    scene.facts[fact.key] = value
    said = fill(rng, fact.told, value=value)
    if rng.random() < 0.2:
        return [user(said), answer(fill(rng, FOREIGN_THANKS, value=value), learn=False)]
    return exchange(said, fact.thanks.format(value=value))


def asking(scene: Scene) -> list[Message]:
    """The user asks for a fact, told or not; sometimes tells and asks at once."""
    rng = scene.rng
    told = [FACTS[key] for key in scene.facts]
    if told and rng.random() < 0.9:
        fact = NAME if NAME in told and rng.random() < 0.6 else rng.choice(told)
    else:
        fact = NAME if rng.random() < 0.6 else rng.choice(OTHERS)
    question = fill(rng, fact.asked)
    if rng.random() < 0.12:
        value = value_for(rng, fact)
        scene.facts[fact.key] = value
        said = fill(rng, fact.told, value=value)
        question = fill(rng, IN_ONE_BREATH, told=said, asked=question)
        return exchange(question, fact.reply.format(value=value))
    if fact.key not in scene.facts:
        return exchange(casual(rng, question), fact.unknown)
    return exchange(casual(rng, question), fact.reply.format(value=scene.facts[fact.key]))


def value_for(rng: random.Random, fact: Fact) -> str:
    """Something that could be this fact."""
    match fact.key:
        case "name":
            return person(rng)
        case "color":
            return rng.choice(COLORS)
        case "place":
            return made_up(rng).capitalize()
        case "number":
            return str(rng.randint(0, 10 ** rng.randint(1, 5)))
        case "pet":
            return rng.choice(ANIMALS)
        case _:
            return rng.choice((rng.choice(COMMON), made_up(rng), word(rng), code(rng)))
