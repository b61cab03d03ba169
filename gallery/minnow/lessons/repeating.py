"""Saying a phrase again, letter for letter."""

from gallery.minnow.lessons.scene import Scene, exchange
from gallery.minnow.lessons.wording import fill
from gallery.minnow.lessons.words import phrase
from gallery.minnow.template import Message

OPEN = (
    "Repeat: {phrase}", "Repeat after me: {phrase}", "repeat: {phrase}",
    "Repeat this: {phrase}", "Please repeat: {phrase}", "Repeat the following: {phrase}",
    "Repeat exactly: {phrase}", "Repeat this phrase: {phrase}", "Repeat this text: {phrase}",
    "Say: {phrase}", "Say exactly: {phrase}", "Say this: {phrase}", "Just say: {phrase}",
    "Reply with exactly: {phrase}", "Reply exactly: {phrase}", "Reply with: {phrase}",
    "Reply only with: {phrase}", "Reply with only: {phrase}", "Respond with: {phrase}",
    "Respond with exactly: {phrase}", "Respond only with: {phrase}", "Answer with: {phrase}",
    "Answer exactly: {phrase}", "Answer only with: {phrase}", "Echo: {phrase}",
    "echo {phrase}", "Echo this: {phrase}", "Please say exactly: {phrase}",
    "Please reply with exactly: {phrase}", "Write exactly: {phrase}", "Write: {phrase}",
    "Output: {phrase}", "Output exactly: {phrase}", "Print: {phrase}", "Copy this: {phrase}",
    "Reply with exactly this and nothing else: {phrase}",
    "Reply with exactly the following text: {phrase}",
    "Repeat the following text exactly: {phrase}",
    "Can you repeat this? {phrase}", "Now say: {phrase}", "Repeat what I say: {phrase}",
    "Reply with exactly:\n{phrase}", "Repeat the following:\n\n{phrase}",
    "Say this word for word: {phrase}", "Copy the following: {phrase}",
    "Tell me exactly this: {phrase}", "Repeat after me, exactly: {phrase}",
    "Please repeat after me: {phrase}", "Repeat only this: {phrase}", "Repeat back: {phrase}",
    "I say: {phrase}\nNow you.", "Please copy: {phrase}", "Your reply must be: {phrase}",
    "Respond with this text: {phrase}", "Only say: {phrase}", "Give back exactly: {phrase}",
)  # fmt: skip

QUOTED = (
    'Repeat "{phrase}"', 'Say "{phrase}"', 'Say "{phrase}".', "Say '{phrase}'",
    'Repeat the phrase "{phrase}".', 'Reply with "{phrase}".', "Reply with '{phrase}'",
    'Please say "{phrase}".', 'Respond with "{phrase}"', 'Echo "{phrase}"',
    'Repeat after me: "{phrase}"', 'Reply with exactly "{phrase}".', 'Write "{phrase}".',
    'Say exactly "{phrase}".', "Repeat exactly: '{phrase}'", "Say `{phrase}`.",
    'Reply with the text "{phrase}" and nothing else.', 'Can you say "{phrase}"?',
    'Reply with exactly: "{phrase}"', 'Print "{phrase}".',
)  # fmt: skip

ONE_WORD = (
    "Say {word}.", "Say the word {word}.", "Repeat the word {word}.", "Say only {word}.",
    "Reply with the word {word}.", "Reply with the single word {word}.",
    "Answer with the word {word}.", "Repeat {word}.", "Reply with exactly {word}.",
    "Reply with one word: {word}", "Reply with the word {word} only.",
    "Respond with the single word {word}.", "Answer with just {word}.", "Just say {word}.",
    "Please say the word {word}.",
)  # fmt: skip

PHRASINGS = OPEN + QUOTED + ONE_WORD


def repeating(scene: Scene) -> list[Message]:
    """Give back what the user said."""
    rng = scene.rng
    if rng.random() < 0.15:
        said = phrase(rng, longest=1).rstrip(".!?")
        return exchange(fill(rng, ONE_WORD, word=said), said)
    longest = 14 if scene.room < 400 or rng.random() < 0.8 else 40
    said = phrase(rng, longest)
    if rng.random() < 0.3:
        said = said.replace('"', "").replace("'", "").replace("`", "")
        return exchange(fill(rng, QUOTED, phrase=said), said)
    return exchange(fill(rng, OPEN, phrase=said), said)
