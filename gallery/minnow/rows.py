"""From conversations to rows of token ids, and which of the tokens are taught.

Only what the model itself says is taught. A long answer counts for more than a short one,
but not in proportion: otherwise counting to 100 would drown everything else.

A row is one long conversation, or several short ones that cannot see each other.
"""

import random
from dataclasses import dataclass

from tokenizers import Tokenizer

from gallery.minnow.conversation import Conversation, conversation, short_conversation
from gallery.minnow.template import render
from gallery.minnow.tokenizer import END, TURN_END, TURN_START, special_id


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids; for each, how much getting it right is worth, and whose conversation it is in."""

    tokens: list[int]
    weights: list[float]
    documents: list[int]

    def cut(self, length: int, padding: int) -> "Row":
        """Exactly `length` tokens."""
        missing = length - len(self.tokens)
        return Row(
            self.tokens[:length] + [padding] * missing,
            self.weights[:length] + [0.0] * missing,
            self.documents[:length] + [-1] * missing,
        )


def long_row(rng: random.Random, tokenizer: Tokenizer, length: int) -> Row:
    """One conversation that fills the row."""
    row = taught(conversation(rng, length), tokenizer)
    return row.cut(length, special_id(tokenizer, END))


def packed_row(rng: random.Random, tokenizer: Tokenizer, length: int) -> Row:
    """Short conversations, one after the other until the row is full."""
    row = Row([], [], [])
    document = 0
    while len(row.tokens) < length:
        part = taught(short_conversation(rng), tokenizer, document)
        row.tokens.extend(part.tokens)
        row.weights.extend(part.weights)
        row.documents.extend(part.documents)
        document += 1
    return row.cut(length, special_id(tokenizer, END))


def taught(made: Conversation, tokenizer: Tokenizer, document: int = 0) -> Row:
    """The conversation's tokens, with weight on the answers that are to be learnt."""
    text = render(made.messages, made.tools, sort_keys=made.sort_keys)
    tokens = tokenizer.encode(text).ids
    opening = tokenizer.encode(f"{TURN_START}assistant\n").ids
    end = special_id(tokenizer, TURN_END)
    learn = [m["learn"] for m in made.messages if m["role"] == "assistant"]

    weights = [0.0] * len(tokens)
    at = 0
    while learn:
        while tokens[at : at + len(opening)] != opening:
            at += 1
        start = at + len(opening)
        at = tokens.index(end, start) + 1
        if learn.pop(0):
            weights[start:at] = [(at - start) ** -0.5] * (at - start)
    return Row(tokens, weights, [document] * len(tokens))
