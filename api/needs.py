"""What a request asks of a model beyond its name, as far as its own text shows: abilities, and room. Pure.

Routing leaves out the nodes that lack an ability, and asks those with a small context last. The number of tokens is
a guess, for only the model's own tokenizer knows: a wrong one costs a detour, never a refusal.
"""

from api.fields import Json

BYTES_PER_TOKEN = 4
"""Of a prompt's text, about; most tokenizers are near it for English and code."""

_ABILITY_BY_PART = {
    "image_url": "vision",
    "input_image": "vision",
    "input_audio": "audio_in",
}
"""Kinds of content parts that not every model can read."""


def abilities_for_chat(messages: Json, *, with_tools: bool) -> frozenset[str]:
    """The words of `LoadedModel.capabilities` that a chat needs; `messages` have been checked."""
    found = {"chat", "tools"} if with_tools else {"chat"}
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            found.update(_ABILITY_BY_PART[part["type"]] for part in content if part["type"] in _ABILITY_BY_PART)
    return frozenset(found)


def tokens_of_chat(messages: Json) -> int:
    """About how many tokens the texts of checked `messages` make; pictures and sound count for nothing here."""
    tokens = 0
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else ({"text": content},)
        tokens += sum(tokens_of_text(part["text"]) for part in parts if isinstance(part.get("text"), str))
    return tokens


def tokens_of_text(text: str) -> int:
    """About how many tokens a text makes."""
    return (len(text) if text.isascii() else len(text.encode("utf-8", "replace"))) // BYTES_PER_TOKEN
