"""The tokenizer: byte-level BPE as whisper's, learnt from conch's words, so that each is one token.

Any text can be encoded, as a prompt may hold any.
"""

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from gallery.conch.words import SPECIAL, STAMP_SECONDS, STAMP_STEP, WORDS

SIZE = 600
"""More than the words need; learning stops when every word is one token."""


@cache
def tokenizer() -> Tokenizer:
    """The same every time: it follows from the words."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=SIZE, show_progress=False, initial_alphabet=alphabet)
    made.train_from_iterator([f" {word}" for word in WORDS], trainer)
    made.add_special_tokens(list(SPECIAL))
    return made


def special(token: str) -> int:
    """The id of one of `SPECIAL`."""
    found = tokenizer().token_to_id(token)
    assert found is not None
    return found


def word_id(word: str) -> int:
    """The token of a word, with the space before it."""
    (found,) = tokenizer().encode(f" {word}", add_special_tokens=False).ids
    return found


def stamp_id(seconds: float) -> int:
    """The timestamp token nearest to this time, in the steps that are taught."""
    rounded = round(seconds / STAMP_STEP) * STAMP_STEP
    return special("<|notimestamps|>") + 1 + round(rounded / STAMP_SECONDS)
