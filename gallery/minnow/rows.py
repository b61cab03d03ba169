"""From conversations to rows of token ids, and which of the tokens are taught.

Only what the model itself says is taught. A long answer counts for more than a short one,
but not in proportion: otherwise counting to 100 would drown everything else.
"""

import random
from dataclasses import dataclass

from tokenizers import Tokenizer

from gallery.minnow.conversation import Conversation, conversation
from gallery.minnow.template import render
from gallery.minnow.tokenizer import END, TURN_END, TURN_START, special_id


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids, and for each how much getting it right is worth."""

    tokens: list[int]
    weights: list[float]


def make_row(rng: random.Random, tokenizer: Tokenizer, length: int) -> Row:
    """One conversation, cut or padded to `length` tokens."""
    row = taught(conversation(rng, length), tokenizer)
    missing = length - len(row.tokens)
    padding = special_id(tokenizer, END)
    return Row(row.tokens[:length] + [padding] * missing, row.weights[:length] + [0.0] * missing)


def taught(made: Conversation, tokenizer: Tokenizer) -> Row:
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
    return Row(tokens, weights)
