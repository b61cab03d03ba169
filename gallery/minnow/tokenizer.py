"""minnow's tokenizer: byte-level BPE, learnt from what the lessons say.

Two things are unusual, both so that copying is easy to learn:

1. Text is cut up the way llama.cpp's `qwen2` rule does it, so every digit stands alone.
2. A space joins a word last, after the word's letters have been merged. `pebble` and
   ` pebble` are therefore cut at the same places and differ in their first piece only,
   and repeating a phrase does not depend on what stood in front of it.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from itertools import pairwise

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer, Sequence, Split
from tokenizers.trainers import BpeTrainer

from gallery.minnow.conversation import conversation
from gallery.minnow.template import render

END = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
CONTROL = (END, TURN_START, TURN_END)
"""Never shown to anyone."""

TAGS = (
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>",
)  # fmt: skip
"""One token each, but part of the text: whoever parses tool calls must see them."""

TOKENIZER_FILE = "tokenizer.json"

PIECES = 900
"""Entries learnt by merging, the 256 bytes included; spaces in front come on top."""

SEEN_OFTEN = 8
"""Pieces seen this often after a space get an entry with the space."""

SPACE = "Ġ"
"""How byte-level BPE writes a space."""

_LLAMA_CPP_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORDS_WITHOUT_SPACES = r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+|\s+"


def load_tokenizer() -> Tokenizer:
    """The one minnow is trained with. It is kept in a file so that a new phrasing in a lesson
    does not renumber every token; `python -m gallery.minnow.tokenizer` makes it anew."""
    return Tokenizer.from_str((files("gallery.minnow") / TOKENIZER_FILE).read_text(encoding="utf-8"))


def train_tokenizer(seed: int, conversations: int = 4000) -> Tokenizer:
    """The same seed gives the same tokenizer."""
    texts = list(_sample(seed, conversations))
    pieces = Tokenizer(BPE())
    pieces.pre_tokenizer = _cut(_WORDS_WITHOUT_SPACES)
    trainer = BpeTrainer(
        vocab_size=PIECES,
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
        max_token_length=12,
    )
    pieces.train_from_iterator(texts, trainer)
    return _with_spaces(pieces, texts)


def special_id(tokenizer: Tokenizer, special: str) -> int:
    """The id of one of the marks, which every tokenizer trained here has."""
    found = tokenizer.token_to_id(special)
    assert found is not None, special
    return found


def learnt(tokenizer: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary without special tokens, and the merges in order."""
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def _sample(seed: int, count: int) -> Iterator[str]:
    rng = random.Random(seed)
    for _ in range(count):
        made = conversation(rng, rng.choice((128, 256, 512)))
        text = render(made.messages, made.tools, sort_keys=made.sort_keys)
        for special in (*CONTROL, *TAGS):
            text = text.replace(special, " ")
        yield text


def _cut(pattern: str) -> PreTokenizer:
    cut = Split(Regex(pattern), behavior="isolated")
    return Sequence([cut, ByteLevel(add_prefix_space=False, use_regex=False)])


def _with_spaces(pieces: Tokenizer, texts: list[str]) -> Tokenizer:
    vocabulary, merges = learnt(pieces)
    after_space: Counter[str] = Counter()
    for text in texts:
        tokens = pieces.encode(text).tokens
        after_space.update(piece for space, piece in pairwise(tokens) if space == SPACE)
    for piece in sorted(vocabulary, key=vocabulary.__getitem__):
        if after_space[piece] >= SEEN_OFTEN and not piece.isdigit():
            merges.append((SPACE, piece))
            vocabulary[SPACE + piece] = len(vocabulary)

    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = _cut(_LLAMA_CPP_QWEN2)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in CONTROL])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in TAGS])
    return tokenizer


if __name__ == "__main__":
    train_tokenizer(seed=7).save(str(files("gallery.minnow") / TOKENIZER_FILE), pretty=False)
